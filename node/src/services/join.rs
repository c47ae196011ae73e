//! The Join service, on a port of its own: certificates for nodes that have a token and nothing else.
//!
//! Whoever calls may be anybody. So: one small call, few connections at a time, none for long, whatever it does or doesn't do, and no word
//! about which part of a token is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::{error, info, warn};
use zyflow_api::ApiError;
use zyflow_api::v1::join_server::{Join, JoinServer};
use zyflow_api::v1::{self, ErrorCode};
use zyflow_crypto::join::AuthorityError;
use zyflow_crypto::tls::HANDSHAKE_DEADLINE;
use zyflow_crypto::{Acceptor, Lineage, key_file_text};
use zyflow_raft::{Consensus, Consistency};

use crate::checkouts::error_chain;
use crate::config::Config;
use crate::joining::{Joining, JoiningError};
use crate::services::members::Members;
use crate::services::read_error;
use crate::stream::{ApiStream, next_connection};

/// Handshakes and calls at one time: a person lets in one machine after the other.
const CONNECTIONS_MAX: usize = 16;

/// How long a caller may take for each part. Together they are how long a connection that says nothing can hold its turn.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For its TLS handshake.
    pub handshake: Duration,
    /// For a call.
    pub call: Duration,
    /// For everything after the handshake.
    pub connection: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE_DEADLINE,
            call: Duration::from_secs(10),
            // More than a call, so that one which doesn't begin at once has its time.
            connection: Duration::from_secs(15),
        }
    }
}

/// How long a call waits until this node knows all that was acknowledged: an election, and less than a call may take.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest request: a certificate request has half a KiB.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// A connection holds its turn until it is gone.
type JoinStream = ApiStream<Arc<OwnedSemaphorePermit>>;

/// The service.
pub struct JoinService {
    joining: Arc<Joining>,
    consensus: Consensus,
    members: Members,
    config: Config,
    lineage: Lineage,
    files: Handle,
    patience: Patience,
}

impl JoinService {
    /// Answers for this node; works on files where `files` says.
    #[must_use]
    pub fn new(joining: Arc<Joining>, consensus: Consensus, config: &Config, lineage: Lineage, files: Handle) -> Self {
        let members = Members::new(config, consensus.clone());
        let patience = Patience::default();
        Self { joining, consensus, members, config: config.clone(), lineage, files, patience }
    }

    /// With other patience than usual.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The certificate for a request, all CAs and the data key.
    async fn exchange(&self, request: v1::RedeemRequest) -> Result<(String, String, String), ApiError> {
        let v1::RedeemRequest { node_id, secret, request } = request;
        let (joining, shown) = (Arc::clone(&self.joining), secret.clone());
        let is_unused = self.on_files(move || joining.is_unused(node_id, &shown).map_err(|error| told(&error))).await?;
        // Only whoever has the secret makes this node ask the others. They aren't needed to answer the same key again.
        let ids =
            if is_unused { Some(ids_used(&self.consensus, Instant::now() + BARRIER_TIMEOUT).await?) } else { None };
        let (joining, ca, key_file) =
            (Arc::clone(&self.joining), self.config.tls.ca.clone(), self.config.node.key_file.clone());
        let redeemed = self.on_files(move || {
            let certificate = joining.redeem(node_id, &secret, &request, ids.as_ref()).map_err(|error| told(&error))?;
            let unreadable = |what: &str, error: &dyn std::error::Error| {
                warn!(error = %error_chain(error), what, "a node that joins gets no answer");
                ApiError::new(ErrorCode::Precondition, format!("this node can't read its {what}: see its log"))
            };
            let authorities = std::fs::read_to_string(ca).map_err(|error| unreadable("CA certificates", &error))?;
            let data_key = key_file_text(&key_file).map_err(|error| unreadable("data key", &error))?;
            Ok((certificate, authorities, data_key.to_string()))
        });
        redeemed.await
    }

    async fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let done = self.files.spawn_blocking(work).await;
        done.map_err(|error| ApiError::new(ErrorCode::NodeFailed, error.to_string()))?
    }
}

/// The ids that members have or had, as far as everything that was acknowledged goes.
pub(crate) async fn ids_used(consensus: &Consensus, deadline: Instant) -> Result<BTreeSet<u64>, ApiError> {
    let barrier = consensus.read_barrier(Consistency::Linearizable, deadline).await;
    barrier.map_err(|error| read_error(&error))?;
    let status = consensus.status();
    Ok(status.voters.into_keys().chain(status.learners.into_keys()).chain(status.removed).collect())
}

/// What somebody without a certificate is told: what concerns this node's files and keys stays in its log.
fn told(error: &JoiningError) -> ApiError {
    match error {
        JoiningError::Unknown
        | JoiningError::Expired(_)
        | JoiningError::Used(_)
        | JoiningError::Taken(_)
        | JoiningError::TooMany
        | JoiningError::Authority(AuthorityError::Request(_)) => joining_error(error),
        JoiningError::Authority(_) | JoiningError::Random(_) | JoiningError::File { .. } => {
            warn!(error = %error_chain(error), "a node that joins gets no answer");
            ApiError::new(ErrorCode::Precondition, "this node can't take the token now: see its log")
        }
    }
}

/// What an administrator is told.
pub(crate) fn joining_error(error: &JoiningError) -> ApiError {
    let code = match error {
        JoiningError::Unknown | JoiningError::Expired(_) | JoiningError::Used(_) => ErrorCode::Denied,
        JoiningError::Taken(_) => ErrorCode::Exists,
        JoiningError::TooMany => ErrorCode::Overloaded,
        JoiningError::Authority(_) | JoiningError::Random(_) | JoiningError::File { .. } => ErrorCode::Precondition,
    };
    ApiError::new(code, error.to_string())
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn redeem(&self, request: Request<v1::RedeemRequest>) -> Result<Response<v1::RedeemResponse>, Status> {
        let request = request.into_inner();
        let node_id = request.node_id;
        let (certificate, authorities, data_key) = self.exchange(request).await.inspect_err(|error| {
            warn!(node = node_id, %error, "a join token was refused");
        })?;
        info!(node = node_id, "a join token was used: a certificate was issued");
        Ok(Response::new(v1::RedeemResponse {
            certificate,
            authorities,
            data_key,
            cluster: self.config.node.cluster.clone(),
            lineage: self.lineage.to_string(),
            members: self.members.all(),
        }))
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Acceptor,
    handshake: Duration,
    tx: mpsc::Sender<std::io::Result<JoinStream>>,
) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Whoever comes when there are many waits in the kernel's queue.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let Some((connection, address)) = next_connection(&listener, &tx).await else { return };
        let (acceptor, tx) = (acceptor.clone(), tx.clone());
        tokio::spawn(async move {
            match timeout(handshake, acceptor.accept_unknown(connection)).await {
                // A closed channel means that the server is stopping.
                Ok(Ok(stream)) => drop(tx.send(Ok(JoinStream::new(stream, Arc::new(turn)))).await),
                Ok(Err(error)) => warn!(%address, error = %error_chain(&error), "a node that joins was refused"),
                Err(_elapsed) => warn!(%address, "a node that joins didn't finish its handshake"),
            }
        });
    }
}

/// Serves the port until the node stops.
pub async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    service: JoinService,
    mut stopped: watch::Receiver<bool>,
) {
    let (tx, rx) = mpsc::channel(CONNECTIONS_MAX);
    let Patience { handshake, call, connection } = service.patience;
    tokio::spawn(accept(listener, acceptor, handshake, tx));
    let served = Server::builder()
        .timeout(call)
        .max_connection_age(connection)
        // Without it, a connection that is too old is asked to end and stays until it does; a stranger need not.
        .max_connection_age_grace(Duration::ZERO)
        .concurrency_limit_per_connection(1)
        .max_concurrent_streams(1)
        .add_service(JoinServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(ReceiverStream::new(rx).boxed(), async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await;
    if let Err(error) = served {
        error!(error = %error_chain(&error), "the join port ended badly");
    }
}
