//! One node, from its configuration to its end.
//!
//! ```text
//!   thread "main":  consensus, peer port, API port        one thread on purpose: batches stay large
//!   thread "files": checkouts, HTTP port                  may wait for files
//!   their own:      log writer, SQLite writer             blocking IO
//! ```
//! Start: folder, keys, certificates, log, tables, consensus, ports, checkouts; whatever can be refused is refused before the
//! first port opens. Stop, in the opposite order: checkouts first, so that no edit is half-way; the log last. A fatal error of
//! log, tables or consensus ends the process with status 1: nothing is acknowledged any more.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tracing::{error, info, warn};
use zyflow_checkout::{SealError, StateSeal};
use zyflow_crypto::{Acceptor, Connector, LocalKey, Role, TlsFiles, TlsMaterial};
use zyflow_raft::{Consensus, ConsensusConfig};
use zyflow_storage::layout::Layout;
use zyflow_storage::log::LogHandle;
use zyflow_storage::tables::Tables;

use crate::audit::{AuditConfig, Auditor, Findings};
use crate::cache::Answers;
use crate::checkouts::{Checkouts, Setup, error_chain};
use crate::cluster::NodeCluster;
use crate::config::Config;
use crate::http::{self, Probe};
use crate::joining::Joining;
use crate::metrics::{Metrics, Readings};
use crate::retention::Keeper;
use crate::services::admin::{About, AdminService};
use crate::services::backup::{self, BackupService};
use crate::services::join::{self, JoinService};
use crate::services::propose::ProposeService;
use crate::services::query::QueryService;
use crate::services::replay::ReplayService;
use crate::services::watch::WatchService;
use crate::services::wire::QueryWire;
use crate::stream::{ApiStream, next_connection};
use crate::webhook::Notifier;

/// API handshakes and connections waiting to be served.
const ACCEPTED_WAITING_MAX: usize = 256;

/// HTTP/2 windows of the API port: a pipelined stream of large edits never waits for a window.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

mod storage;

pub use storage::make;
use storage::{Storage, open_storage};

/// Why a node can't start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime.
    #[error("a runtime can't be made")]
    Runtime(#[source] io::Error),
    /// The lineage in the configuration.
    #[error("node.lineage `{0}` is not a UUID; it must be the same on every node of the cluster")]
    Lineage(String),
    /// A part refused to start.
    #[error("{what}")]
    Part {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A port.
    #[error("can't listen on {address} ({key}); is another process using it?")]
    Listen {
        /// The address.
        address: String,
        /// The key in the configuration.
        key: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate is another node's.
    #[error("the certificate {path} is for {found}, not for {expected}: make one for this node with certificates.sh")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// A part failed while it ran.
    #[error(
        "the node had to stop: {0}; nothing that was acknowledged is lost, start it again after the cause is mended"
    )]
    Fatal(String),
}

fn part<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> RunError {
    move |source| RunError::Part { what, source: Box::new(source) }
}

/// Runs the node until it is told to stop by SIGTERM or SIGINT, or has to.
///
/// # Errors
/// [`RunError`].
pub fn run(config: Config) -> Result<(), RunError> {
    let files = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("files")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let main = Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let result = main.block_on(serve(config, files.handle().clone()));
    // Threads of scripts and exports are the first one's: they don't look at whether the node stops.
    stop_runtime(main);
    stop_runtime(files);
    result
}

fn stop_runtime(runtime: Runtime) {
    // Whatever still waits on files has been told to stop; a hung network mount must not keep the process, nor a long query.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
}

fn load_tls(config: &Config) -> Result<TlsMaterial, RunError> {
    let files = TlsFiles { ca: config.tls.ca.clone(), cert: config.tls.cert.clone(), key: config.tls.key.clone() };
    let material =
        TlsMaterial::load(&files, Some(&config.node.cluster)).map_err(part("the certificates can't be used"))?;
    let found = material.identity();
    if !found.role.is_node() || found.node_id != config.node.id {
        let expected = format!("node {} of {}", config.node.id, config.node.cluster);
        return Err(RunError::Certificate { path: files.cert, found: found.to_string(), expected });
    }
    Ok(material)
}

/// The tokens and the CA's key, on the node that has it.
fn joining(config: &Config, layout: &Layout) -> Result<Option<Arc<Joining>>, RunError> {
    let open = |join| Joining::open(join, &config.node.cluster, &config.tls.ca, layout.join_dir());
    let joining = config.join.as_ref().map(open).transpose().map_err(part("nodes can't join here"))?;
    Ok(joining.map(Arc::new))
}

async fn listen(address: std::net::SocketAddr, key: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address: address.to_string(), key, source })
}

/// The ports for peers, clients and HTTP, and that for nodes that join where there is one.
async fn listen_all(config: &Config) -> Result<([TcpListener; 3], Option<TcpListener>), RunError> {
    let three = [
        listen(config.peer.listen, "peer.listen").await?,
        listen(config.api.listen, "api.listen").await?,
        listen(config.http.listen, "http.listen").await?,
    ];
    let join = match &config.join {
        Some(join) => Some(listen(join.listen, "join.listen").await?),
        None => None,
    };
    Ok((three, join))
}

fn consensus_config(config: &Config, storage: &Storage) -> ConsensusConfig {
    let mut consensus = ConsensusConfig::new(
        config.node.id,
        config.node.cluster.clone(),
        storage.lineage,
        config.peer.advertise.clone(),
        storage.layout.snapshots_dir(),
    );
    consensus.disk_free_bytes_min = config.limits.disk_free_min.0;
    consensus.backlog_ops_max = config.limits.backlog_ops_max;
    consensus
}

async fn serve(config: Config, files: Handle) -> Result<(), RunError> {
    let started = Instant::now();
    let material = load_tls(&config)?;
    let storage = open_storage(&config)?;
    let joining = joining(&config, &storage.layout)?;
    let ([peer, api, web], join) = listen_all(&config).await?;
    let metrics = Metrics::install().map_err(part("metrics"))?;
    let acceptor = Acceptor::new(material.clone());
    let connector = Connector::new(material);
    let consensus_config = consensus_config(&config, &storage);
    let log = storage.log.handle();
    let Storage { layout, log: store, tables, local, ring, lineage } = storage;
    let answers = Answers::new(&config.cache, &ring, (lineage, &config.node.cluster), &files)
        .map_err(part("the cache can't be used"))?;
    let started_consensus =
        Consensus::start(consensus_config, store, tables.clone(), Arc::clone(&ring), peer, acceptor.clone(), connector);
    let consensus = started_consensus.await.map_err(part("consensus can't start"))?;
    let setup = Setup {
        folder: layout.checkouts_dir(),
        node_id: config.node.id,
        lineage: lineage.to_string(),
        rescan: config.limits.rescan_interval.0,
        seal: Arc::new(LocalSeal(local)),
        runtime: files.clone(),
        connect: connect(&consensus, &tables),
    };
    let checkouts = Arc::new(Checkouts::start(setup).await.map_err(part("the checkouts can't be started"))?);
    let (stop, stopped) = watch::channel(false);
    let findings = watch_over(&config, &consensus, &tables, &files, &stopped);
    let probe = NodeProbe {
        consensus: consensus.clone(),
        tables: tables.clone(),
        log,
        checkouts: Arc::clone(&checkouts),
        findings,
        answers: answers.clone(),
        metrics,
    };
    let web = files.spawn(http::serve(web, Arc::new(probe), stopped.clone()));
    tokio::spawn(Keeper::new(consensus.clone(), tables.clone(), files.clone()).run(stopped.clone()));
    start_telling(&config, &consensus, &tables, &files, &stopped)?;
    if let Some((port, joining)) = join.zip(joining.clone()) {
        let service = JoinService::new(joining, consensus.clone(), &config, lineage, files.clone());
        files.spawn(join::serve(port, acceptor.clone(), service, stopped.clone()));
    }
    let about = About { config: config.clone(), lineage, started, runtime: files, joining };
    let services = (
        QueryService::new(consensus.clone(), tables.clone(), answers),
        AdminService::new(about, consensus.clone(), tables.clone(), Arc::clone(&checkouts)),
        ReplayService::new(consensus.clone(), tables.clone(), layout.dir()),
        BackupService::new(consensus.clone(), tables.clone(), ring, backup::About::new(&config, lineage)),
    );
    let api = tokio::spawn(serve_api(api, acceptor, (consensus.clone(), tables.clone()), services, stopped));
    info!(node = config.node.id, api = %config.api.listen, peer = %config.peer.listen, "node started");

    let ended = until_told(&consensus).await;

    checkouts.shutdown().await;
    stop.send_replace(true);
    if let Err(error) = web.await {
        warn!(%error, "the http port ended badly");
    }
    consensus.shutdown().await;
    api.abort();
    if let Err(error) = tables.shutdown() {
        warn!(error = %error_chain(&error), "the tables didn't close cleanly; they are checked at the next start");
    }
    drop(layout);
    info!(node = config.node.id, "node stopped");
    ended
}

/// How a checkout reaches the cluster: through this node.
fn connect(consensus: &Consensus, tables: &Tables) -> Box<dyn Fn() -> NodeCluster + Send + Sync> {
    let (consensus, tables) = (consensus.clone(), tables.clone());
    Box::new(move || NodeCluster::new(consensus.clone(), tables.clone()))
}

/// Watches over the tables until the node stops.
fn watch_over(
    config: &Config,
    consensus: &Consensus,
    tables: &Tables,
    files: &Handle,
    stopped: &watch::Receiver<bool>,
) -> Arc<Findings> {
    let digest = &config.digest;
    let config = AuditConfig {
        compare: digest.compare.0,
        recompute: digest.recompute.0,
        rows_per_second: digest.rows_per_second,
    };
    let auditor = Auditor::new(config, consensus.clone(), tables.clone(), files.clone());
    let findings = auditor.findings();
    tokio::spawn(auditor.run(stopped.clone()));
    findings
}

/// Tells the webhook of the configuration of conflicts, where there is one.
fn start_telling(
    config: &Config,
    consensus: &Consensus,
    tables: &Tables,
    files: &Handle,
    stopped: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    let webhook = &config.notify.webhook;
    if !webhook.is_empty() {
        let notifier = Notifier::new(webhook, consensus.clone(), tables.clone());
        files.spawn(tell(notifier.map_err(part("the webhook can't be used"))?, stopped.clone()));
    }
    Ok(())
}

/// Tells the webhook of conflicts until the node stops. It is a courtesy: where it can't be, the node goes on.
async fn tell(notifier: Notifier, stopped: watch::Receiver<bool>) {
    if let Err(error) = notifier.run(stopped).await {
        warn!(error = %error_chain(&error), "nobody is told of conflicts");
    }
}

/// Until a signal, or until the node has failed.
async fn until_told(consensus: &Consensus) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    let mut fatal = consensus.fatal();
    tokio::select! {
        _ = terminate.recv() => { info!("told to stop"); Ok(()) }
        _ = interrupt.recv() => { info!("told to stop"); Ok(()) }
        failed = fatal.wait_for(Option::is_some) => {
            let reason = failed.ok().and_then(|reason| reason.as_ref().map(ToString::to_string));
            let reason = reason.unwrap_or_else(|| "consensus ended".to_owned());
            error!(reason, "the node has failed");
            Err(RunError::Fatal(reason))
        }
    }
}

/// Seals what checkouts remember of texts with the node's own key.
struct LocalSeal(Arc<LocalKey>);

impl StateSeal for LocalSeal {
    fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(context, plaintext).map_err(|error| SealError(Box::new(error)))
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.open(context, sealed).map_err(|error| SealError(Box::new(error)))
    }
}

struct NodeProbe {
    consensus: Consensus,
    tables: Tables,
    log: LogHandle,
    checkouts: Arc<Checkouts>,
    findings: Arc<Findings>,
    answers: Answers,
    metrics: Metrics,
}

impl Probe for NodeProbe {
    fn metrics(&self) -> String {
        let status = self.consensus.status();
        let (checkouts, files_unsynced) = self.checkouts.count();
        self.metrics.render(&Readings {
            term: status.term,
            is_leader: status.role == zyflow_raft::Role::Leader,
            has_leader: status.leader.is_some(),
            last_log_index: status.last_log_index,
            committed: status.committed,
            applied: status.applied,
            durable: status.durable,
            flushed: self.tables.flushed().borrow().0,
            backlog_ops: self.tables.backlog_ops(),
            disk_free_bytes: self.log.free_space(),
            checkouts,
            files_unsynced,
            digest_alarm: self.findings.alarm(),
            digest_compared: self.findings.compared(),
            digest_recomputed: self.findings.recomputed(),
            // Poisoned: the node stops for that reason.
            horizon: self.tables.horizon().unwrap_or_default().0,
            answers_bytes: self.answers.bytes(),
            is_shared_cache_broken: self.answers.is_shared_broken(),
        })
    }

    fn unready(&self) -> Option<String> {
        let status = self.consensus.status();
        match (&status.fatal, status.leader) {
            (Some(reason), _) => Some(format!("failed: {reason}")),
            (None, None) => Some("no leader is known".to_owned()),
            (None, Some(_)) => None,
        }
    }
}

/// Accepts API connections: any certificate of this cluster but an agent's or a removed node's is let in; what it may do is decided per
/// call.
async fn accept_api(
    listener: TcpListener,
    acceptor: Acceptor,
    removed: watch::Receiver<BTreeSet<u64>>,
    tx: mpsc::Sender<io::Result<ApiStream>>,
) {
    while let Some((connection, address)) = next_connection(&listener, &tx).await {
        let (acceptor, removed, tx) = (acceptor.clone(), removed.clone(), tx.clone());
        tokio::spawn(async move {
            match acceptor.accept(connection).await {
                Ok(accepted) if accepted.peer.role == Role::Agent => {
                    warn!(peer = %accepted.peer, "agents aren't served by this release");
                }
                Ok(accepted) => match ApiStream::of(accepted.stream, accepted.peer, removed) {
                    // A closed channel means that the server is stopping.
                    Ok(stream) => drop(tx.send(Ok(stream)).await),
                    Err(error) => warn!(%address, %error, "a client was refused"),
                },
                Err(error) => warn!(%address, error = %error_chain(&error), "a client was refused"),
            }
        });
    }
}

async fn serve_api(
    listener: TcpListener,
    acceptor: Acceptor,
    (consensus, tables): (Consensus, Tables),
    (query, admin, replay, backup): (QueryService, AdminService, ReplayService, BackupService),
    mut stopped: watch::Receiver<bool>,
) {
    use zyflow_api::MESSAGE_BYTES_MAX;
    use zyflow_api::v1::{admin_server, backup_server, propose_server, query_server, replay_server, watch_server};
    let (tx, rx) = mpsc::channel(ACCEPTED_WAITING_MAX);
    tokio::spawn(accept_api(listener, acceptor, consensus.removed(), tx));
    let propose = propose_server::ProposeServer::new(ProposeService::new(consensus.clone()));
    let watch = watch_server::WatchServer::new(WatchService::new(consensus, tables, stopped.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<propose_server::ProposeServer<ProposeService>>().await;
    health.set_serving::<query_server::QueryServer<QueryService>>().await;
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(4_096)
        .add_service(propose.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(QueryWire::new(query))
        .add_service(watch)
        .add_service(replay_server::ReplayServer::new(replay))
        .add_service(backup_server::BackupServer::new(backup))
        .add_service(admin_server::AdminServer::new(admin))
        .add_service(health_service)
        .serve_with_incoming_shutdown(ReceiverStream::new(rx).boxed(), async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await;
    if let Err(error) = served {
        error!(error = %error_chain(&error), "the API port ended badly");
    }
}
