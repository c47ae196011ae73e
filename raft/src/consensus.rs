//! The handle of one node's part in its cluster: start it, propose, wait for a read, look at it, change its membership.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Raft;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};
use zyflow_crypto::{Acceptor, Connector, KeyRing};
use zyflow_machine::command::Command;
use zyflow_machine::id::Revision;
use zyflow_machine::outcome::Outcome;
use zyflow_storage::log::LogStore;
use zyflow_storage::snapshot::SnapshotStore;
use zyflow_storage::tables::Tables;
use zyflow_storage::types::NodeId;

use crate::applier::Applier;
use crate::config::ConsensusConfig;
use crate::error::{Fate, MembershipError, ProposeError, ReadError, StartError};
use crate::fatal::chain;
use crate::log::Log;
use crate::metrics::{Counters, Counts};
use crate::net::{Net, TlsNet};
use crate::network::client::Links;
use crate::network::gate::Gate;
use crate::network::peers::Peers;
use crate::network::server::{PeerService, serve};
use crate::proposer::batch::Sealer;
use crate::proposer::{PROPOSALS_QUEUED_MAX, Phase, Proposal, Proposer, Reply, Ticket};
use crate::reader::{Ask, Index, READS_QUEUED_MAX, Reader};
use crate::shared::Shared;
use crate::status::{Role, Status, publish};

/// How long a leader that stops tries to hand over first: an heir that is a moment behind needs some hundred milliseconds, and an
/// election that the others hold without it takes no longer than this.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(2);

/// An heir that hasn't answered for so long is stopping too, or gone: several heartbeats.
const HEIR_SILENCE_MAX: Duration = Duration::from_secs(1);

/// Snapshots that stay on disk: the newest, and the one before while a peer may still be reading it.
const SNAPSHOTS_KEPT: usize = 2;

/// What a read has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever is applied here.
    Local,
    /// At least this revision: read your own writes on any node.
    AtLeast(Revision),
    /// Every write that was acknowledged before the read began, trusting the leader's lease: clocks must run at about the
    /// same speed.
    Lease,
    /// Every write that was acknowledged before the read began.
    Linearizable,
}

/// One node's part in its cluster. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    proposals: mpsc::Sender<Proposal>,
    reads: mpsc::Sender<Ask>,
    stop: watch::Sender<bool>,
    status: watch::Receiver<Status>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Held while the membership is changed.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
}

impl Consensus {
    /// Recovers this node from its log and tables and takes part: serves the peer port on `listener`, and votes. A node that
    /// was never initialised and is in nobody's membership waits to be found.
    ///
    /// # Errors
    /// The configuration doesn't hold together, or log and tables don't fit each other.
    pub async fn start(
        config: ConsensusConfig,
        log: LogStore,
        tables: Tables,
        ring: Arc<KeyRing>,
        listener: TcpListener,
        acceptor: Acceptor,
        connector: Connector,
    ) -> Result<Self, StartError> {
        let net = Arc::new(TlsNet::new(listener, acceptor, connector));
        Self::start_over(config, log, tables, ring, net).await
    }

    /// The same over any network and any log: the seams for simulation.
    ///
    /// # Errors
    /// As [`Consensus::start`].
    pub async fn start_over<L: Log>(
        config: ConsensusConfig,
        log: L,
        tables: Tables,
        ring: Arc<KeyRing>,
        net: Arc<dyn Net>,
    ) -> Result<Self, StartError> {
        let openraft_config = config.to_openraft()?;
        let counters = Arc::new(Counters::default());
        let (fatal, _) = watch::channel(None);
        let (removed, _) = watch::channel(BTreeSet::new());
        let (out_of_service, _) = watch::channel(None);
        let snapshots = SnapshotStore::open(&config.snapshots, SNAPSHOTS_KEPT)
            .map_err(|error| StartError::Recovery(chain(&error)))?;
        let handle = log.watch();
        let applier = Applier {
            tables: tables.clone(),
            snapshots: snapshots.clone(),
            log: Arc::clone(&handle),
            disk_free_bytes_min: config.disk_free_bytes_min,
            snapshots_inline: config.snapshots_inline,
            ring: Arc::clone(&ring),
            lineage: config.lineage,
            counters: Arc::clone(&counters),
            removed: removed.clone(),
            fatal: fatal.clone(),
        };
        applier.check_log(&log).await.map_err(StartError::Recovery)?;
        applier.load_removed().map_err(|error| StartError::Recovery(chain(&error)))?;
        let incoming = net.incoming();
        let peers = Arc::new(Peers::new(
            config.node_id,
            net,
            Arc::clone(&config.clock),
            Arc::clone(&counters),
            out_of_service.clone(),
        ));
        let links = Links { peers: Arc::clone(&peers) };
        let raft = Raft::build(config.node_id, openraft_config, links, log, applier)
            .await
            .map_err(|error| StartError::Recovery(chain(&error)))?;
        let sealer = Sealer { ring: Arc::clone(&ring), lineage: config.lineage, counters: Arc::clone(&counters) };
        let shared = Shared {
            config,
            raft,
            tables,
            snapshots,
            ring,
            log: handle,
            peers,
            counters,
            removed,
            fatal,
            out_of_service,
        };
        let shared = Arc::new(shared);
        let consensus = Self::spawn(shared, sealer, incoming);
        consensus.inner.shared.raft.run();
        info!(node = consensus.inner.shared.config.node_id, "consensus started");
        Ok(consensus)
    }

    /// Starts the tasks of this node. Each ends when `stop` becomes true.
    fn spawn(
        shared: Arc<Shared>,
        sealer: Sealer,
        incoming: futures::stream::BoxStream<'static, crate::net::Inbound>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (proposals, proposals_rx) = mpsc::channel(PROPOSALS_QUEUED_MAX);
        let (reads, reads_rx) = mpsc::channel(READS_QUEUED_MAX);
        let (status_tx, status) = watch::channel(shared.status());
        let service = PeerService {
            gate: Gate::new(&shared.config.cluster, shared.config.node_id, shared.removed.subscribe()),
            shared: Arc::clone(&shared),
            proposals: proposals.clone(),
            reads: reads.clone(),
            snapshots: Arc::new(Semaphore::new(1)),
        };
        let proposer = Proposer::new(Arc::clone(&shared), sealer, proposals_rx, stopped.clone());
        let reader = Reader { shared: Arc::clone(&shared), rx: reads_rx, stop: stopped.clone() };
        let tasks = vec![
            tokio::spawn(serve(service, incoming, stopped.clone())),
            tokio::spawn(proposer.run()),
            tokio::spawn(reader.run()),
            tokio::spawn(publish(Arc::clone(&shared), status_tx, stopped)),
            tokio::spawn(crate::fatal::follow(shared.log.fatal(), "log", shared.fatal.clone())),
            tokio::spawn(crate::fatal::follow(shared.tables.fatal(), "tables", shared.fatal.clone())),
            tokio::spawn(stop_on_failure(Arc::clone(&shared))),
        ];
        let (tasks, changing) = (Mutex::new(tasks), Arc::default());
        Self { inner: Arc::new(Inner { shared, proposals, reads, stop, status, tasks, changing }) }
    }

    /// Proposes a command, on whatever node, and waits for its outcome.
    ///
    /// # Errors
    /// No outcome by the deadline. The error says whether the command may have happened; if so, propose it again only with
    /// the same request id.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let shared = &self.inner.shared;
        shared.counters.proposals.add(1);
        let since = Instant::now();
        if let Some(reason) = shared.failure() {
            return Err(ProposeError::Fatal(reason));
        }
        let (reply, answered) = oneshot::channel();
        let phase = Arc::new(Phase::default());
        let ticket = Ticket { since, deadline, phase: Arc::clone(&phase), reply: Reply::Client(reply) };
        match timeout_at(deadline, self.inner.proposals.send(Proposal { command, ticket })).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return Err(self.stopping(Fate::Nothing)),
            Err(_elapsed) => {
                use crate::network::wire::len_u64;
                let limit = len_u64(PROPOSALS_QUEUED_MAX);
                return Err(ProposeError::Overloaded { backlog: limit, limit });
            }
        }
        let waited = tokio::select! {
            waited = timeout_at(deadline, answered) => waited,
            reason = shared.left_service() => return Err(ProposeError::Fatal(reason)),
        };
        match waited {
            Ok(Ok(Ok(outcome))) => Ok(outcome),
            Ok(Ok(Err(error))) => Err(shared.failure().map_or(error, ProposeError::Fatal)),
            Ok(Err(_dropped)) => Err(self.stopping(Fate::Unknown)),
            Err(_elapsed) => {
                let fate = if phase.abandon() { Fate::Nothing } else { Fate::Unknown };
                Err(match shared.obstacle() {
                    Some(obstacle) if fate == Fate::Nothing && shared.has_quorum() => obstacle,
                    Some(_) | None => shared.verdict(fate, since),
                })
            }
        }
    }

    fn stopping(&self, fate: Fate) -> ProposeError {
        match self.inner.shared.fatal.borrow().as_ref() {
            Some(reason) => ProposeError::Fatal(reason.to_string()),
            None => ProposeError::Stopping(fate),
        }
    }

    /// Waits until a local read sees what `consistency` asks for, and gives the revision that is applied then.
    ///
    /// # Errors
    /// It couldn't be made sure of by the deadline; or this node has failed or is out of service, so that what it has can't be believed,
    /// however little is asked for.
    pub async fn read_barrier(&self, consistency: Consistency, deadline: Instant) -> Result<Revision, ReadError> {
        let shared = &self.inner.shared;
        if let Some(reason) = shared.failure() {
            return Err(ReadError::Fatal(reason));
        }
        let lease = match consistency {
            Consistency::Local => return Ok(*shared.tables.applied().borrow()),
            Consistency::AtLeast(revision) => return self.applied_at_least(revision, deadline).await,
            Consistency::Lease => true,
            Consistency::Linearizable => false,
        };
        shared.counters.reads.add(1);
        let (reply, answered) = oneshot::channel();
        let ask = Ask { lease, deadline, is_forwarded: false, reply };
        match timeout_at(deadline, self.inner.reads.send(ask)).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return Err(ReadError::Stopping),
            Err(_elapsed) => return Err(shared.read_verdict()),
        }
        let waited = tokio::select! {
            waited = timeout_at(deadline, answered) => waited,
            reason = shared.left_service() => return Err(ReadError::Fatal(reason)),
        };
        match waited {
            Ok(Ok(Index::At(index))) => self.applied_at_least(Revision(index), deadline).await,
            Ok(Ok(Index::Failed(error))) => Err(error),
            Ok(Ok(Index::NotLeader) | Err(_)) | Err(_) => Err(shared.read_verdict()),
        }
    }

    async fn applied_at_least(&self, wanted: Revision, deadline: Instant) -> Result<Revision, ReadError> {
        let shared = &self.inner.shared;
        let mut applied = shared.tables.applied();
        let mut fatal = shared.fatal.subscribe();
        let reached = tokio::select! {
            biased;
            failed = fatal.wait_for(Option::is_some) => {
                let reason = failed.ok().and_then(|reason| reason.as_ref().map(ToString::to_string));
                return Err(reason.map_or(ReadError::Stopping, ReadError::Fatal));
            }
            reason = shared.left_service() => return Err(ReadError::Fatal(reason)),
            reached = timeout_at(deadline, applied.wait_for(|applied| *applied >= wanted)) => reached,
        };
        match reached {
            Ok(Ok(applied)) => Ok(*applied),
            Ok(Err(_closed)) => Err(ReadError::Stopping),
            Err(_elapsed) => {
                let applied = shared.tables.applied().borrow().0;
                Err(ReadError::Behind { applied, wanted: wanted.0 })
            }
        }
    }

    /// Who was removed, as of the newest entry that is applied here; their ids are never used again.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.inner.shared.removed.subscribe()
    }

    /// What this node knows of itself and its cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.shared.status()
    }

    /// Why this node serves nothing any more: it has failed, or is out of service. As in its status, for those who ask often.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.inner.shared.failure()
    }

    /// The same as it changes; numbers that always move are a fraction of a second late.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Becomes the reason why this node has failed. The process has to end then: nothing is acknowledged any more.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.shared.fatal.subscribe()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.shared.counters.read()
    }

    /// The tables that this node applies to.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.inner.shared.tables
    }

    /// Leaves the cluster's work in good order: a leader hands over first, then nothing is served or acknowledged any more.
    /// The log closes with the last task that reads it, at once after this returns; the tables stay open, their owner shuts them
    /// down after.
    pub async fn shutdown(self) {
        self.hand_over().await;
        self.inner.stop.send_replace(true);
        if let Err(error) = self.inner.shared.raft.shutdown().await {
            warn!(%error, "the consensus task ended badly");
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            match task.await {
                Ok(()) => {}
                Err(error) if error.is_cancelled() => {}
                Err(error) => warn!(%error, "a task of the node ended badly"),
            }
        }
        info!(node = self.inner.shared.config.node_id, "consensus stopped");
    }

    /// Stops without handing over, as a crash would: for tests and for a node that has failed.
    pub async fn halt(self) {
        self.inner.stop.send_replace(true);
        self.shutdown().await;
    }

    pub(crate) async fn hand_over(&self) {
        let status = self.status();
        if status.role != Role::Leader || *self.inner.stop.borrow() || status.fatal.is_some() {
            return;
        }
        let Some(heir) = self.heir() else { return };
        let handed = tokio::select! {
            handed = self.transfer_leader(heir, Instant::now() + HANDOVER_DEADLINE) => handed,
            () = self.silence_of(heir) => Err(MembershipError::DeadlineExceeded { what: "handing over to a silent node" }),
        };
        match handed {
            Ok(()) => info!(heir, "handed leadership over"),
            Err(error) => warn!(%error, heir, "stopping without having handed over: the others will elect a leader"),
        }
    }

    /// Waits until a peer hasn't answered for a while: a whole cluster that stops has no heir.
    async fn silence_of(&self, peer: NodeId) {
        let shared = &self.inner.shared;
        let mut looks = tokio::time::interval(shared.config.heartbeat);
        while shared.peers.silence(peer).is_some_and(|silence| silence <= HEIR_SILENCE_MAX) {
            looks.tick().await;
        }
    }
}

/// Once a part has failed nothing may be acknowledged any more, whatever openraft still could.
async fn stop_on_failure(shared: Arc<Shared>) {
    let mut fatal = shared.fatal.subscribe();
    let has_failed = fatal.wait_for(Option::is_some).await.is_ok();
    if has_failed && let Err(error) = shared.raft.shutdown().await {
        warn!(%error, "the consensus task ended badly");
    }
}
