//! What the tests stand on: certificates, a fabric of links that can be cut and slowed, nodes, clusters, commands.

pub mod certs;
pub mod fabric;
pub mod storage;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use zyflow_crypto::{Acceptor, Connector, DataKey, KeyId, KeyRing, Lineage, Role as CertRole};
use zyflow_machine::Digest;
use zyflow_machine::command::{Author, Body, Command};
use zyflow_machine::id::{RequestId, Revision, SessionId};
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_raft::net::TlsNet;
use zyflow_raft::{Consensus, ConsensusConfig, NodeId, NodeInfo, ProposeError, Role, Status};

use certs::Authority;
use fabric::Fabric;

/// The cluster that tests are about.
pub const CLUSTER: &str = "team";
/// Long enough for a loaded machine; only failing tests take it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(5);

/// Five times the silence before an election: then a machine that stalls for some seconds makes no new leader, and a test can ask that there be
/// none. All that waits for an election takes as much longer.
pub fn steady(config: &mut ConsensusConfig) {
    config.election_timeout_min *= 5;
    config.election_timeout_max *= 5;
}

pub fn lineage() -> Lineage {
    Lineage([0x5a; 16])
}

pub fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::new(DataKey::new(KeyId(1), [0x42; 32].into())))
}

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Waits until `look` gives something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    let found = timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_elapsed| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// Looks on for a while, and panics as soon as `look` gives something.
pub async fn never(what: &str, during: Duration, mut look: impl FnMut() -> Option<String>) {
    let deadline = Instant::now() + during;
    let mut looks = tokio::time::interval(LOOK);
    while Instant::now() < deadline {
        looks.tick().await;
        if let Some(seen) = look() {
            panic!("{what}: {seen}");
        }
    }
}

/// One node; its folder outlives its process.
pub struct Node {
    pub id: NodeId,
    pub role: CertRole,
    pub address: String,
    pub dir: TempDir,
    pub consensus: Option<Consensus>,
    stored: Option<storage::Stored>,
}

impl Node {
    pub fn consensus(&self) -> &Consensus {
        self.consensus.as_ref().expect("the node runs")
    }

    pub fn status(&self) -> Status {
        self.consensus().status()
    }

    pub fn digest(&self) -> (Revision, Digest) {
        self.consensus().tables().digest().unwrap()
    }

    /// As if the process had died, as far as that goes within one process.
    pub async fn halt(&mut self) {
        if let Some(consensus) = self.consensus.take() {
            consensus.halt().await;
        }
        if let Some(stored) = self.stored.take() {
            stored.close();
        }
    }
}

/// Some nodes, and everything between them.
pub struct Cluster {
    pub authority: Authority,
    pub fabric: Fabric,
    pub nodes: BTreeMap<NodeId, Node>,
    configure: fn(&mut ConsensusConfig),
}

impl Cluster {
    /// Three voters with a leader.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(configure: fn(&mut ConsensusConfig)) -> Self {
        trace();
        let cluster = Self::of(&[1, 2, 3], configure).await;
        let members = cluster.nodes.values().map(|node| (node.id, NodeInfo::at(node.address.clone()))).collect();
        cluster.node(1).consensus().initialize(members).await.unwrap();
        cluster.leader().await;
        cluster.settle().await;
        cluster
    }

    /// Running voters that know nothing of each other.
    pub async fn of(ids: &[NodeId], configure: fn(&mut ConsensusConfig)) -> Self {
        let mut cluster =
            Self { authority: Authority::new(), fabric: Fabric::default(), nodes: BTreeMap::new(), configure };
        for id in ids {
            cluster.add(*id, CertRole::Voter).await;
        }
        cluster
    }

    /// A new empty node, running.
    pub async fn add(&mut self, id: NodeId, role: CertRole) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        storage::init(dir.path(), id);
        self.nodes.insert(id, Node { id, role, address, dir, consensus: None, stored: None });
        self.run(id, listener).await;
    }

    /// Takes all data of a halted node away, as a lost disk does.
    pub fn wipe(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.consensus.is_none(), "node {id} runs");
        node.dir = tempfile::tempdir().unwrap();
        storage::init(node.dir.path(), id);
    }

    /// The process of a halted node, again.
    pub async fn restart(&mut self, id: NodeId) {
        let listener = TcpListener::bind(self.node(id).address.clone()).await.unwrap();
        self.run(id, listener).await;
    }

    async fn run(&mut self, id: NodeId, listener: TcpListener) {
        let node = self.nodes.get_mut(&id).unwrap();
        let snapshots = node.dir.path().join("data").join("snapshots");
        let mut config = ConsensusConfig::new(id, CLUSTER.to_owned(), lineage(), node.address.clone(), snapshots);
        config.disk_free_bytes_min = 0;
        (self.configure)(&mut config);
        let material = self.authority.issue(CLUSTER, node.role, id);
        let (stored, log, tables) = storage::open(node.dir.path(), id).await;
        let tls = TlsNet::new(listener, Acceptor::new(material.clone()), Connector::new(material));
        let net = self.fabric.net(id, tls);
        node.stored = Some(stored);
        node.consensus = Some(Consensus::start_over(config, log, tables, ring(), Arc::new(net)).await.unwrap());
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub async fn halt(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().halt().await;
    }

    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.consensus.is_some())
    }

    /// The leader on which all running nodes agree that are not in `except`.
    pub async fn leader_without(&self, except: &[NodeId]) -> NodeId {
        until("an agreed leader", || {
            let statuses: Vec<_> = self.running().filter(|node| !except.contains(&node.id)).map(Node::status).collect();
            let leader = statuses.first()?.leader?;
            let agreed = statuses.iter().all(|status| status.leader == Some(leader));
            let leads = statuses.iter().any(|status| status.node_id == leader && status.role == Role::Leader);
            (agreed && leads).then_some(leader)
        })
        .await
    }

    pub async fn leader(&self) -> NodeId {
        self.leader_without(&[]).await
    }

    /// A follower, and the other one.
    pub async fn followers(&self) -> (NodeId, NodeId) {
        let leader = self.leader().await;
        let others: Vec<_> = self.nodes.keys().copied().filter(|id| *id != leader).collect();
        (others[0], others[1])
    }

    /// Waits until all running nodes have applied the same, and gives its digest.
    pub async fn settle(&self) -> (Revision, Digest) {
        until("equal digests on all nodes", || {
            let digests: Vec<_> = self.running().map(Node::digest).collect();
            let first = *digests.first()?;
            digests.iter().all(|digest| *digest == first).then_some(first)
        })
        .await
    }

    pub async fn propose(&self, id: NodeId, command: Command) -> Result<Outcome, ProposeError> {
        self.node(id).consensus().propose(command, soon()).await
    }

    /// Proposes on a node and asks that it be accepted.
    pub async fn accept(&self, id: NodeId, command: Command) -> Revision {
        accepted(&self.propose(id, command).await.unwrap())
    }

    pub async fn session(&self, id: NodeId) -> SessionId {
        let outcome = self.propose(id, command(Body::OpenSession)).await.unwrap();
        let Outcome::Accepted { created, .. } = outcome else { panic!("no session: {outcome:?}") };
        SessionId(created[0].0)
    }

    /// Whether the state has the project: making it again is refused.
    pub async fn has_project(&self, id: NodeId, name: &str) -> bool {
        match self.propose(id, project(name)).await.unwrap() {
            Outcome::Rejected(Reject::Exists { .. }) => true,
            Outcome::Accepted { .. } => false,
            other => panic!("{other:?}"),
        }
    }
}

pub fn command(body: Body) -> Command {
    Command { request: None, author: Author { name: "test".to_owned(), clock_ms: 0 }, body }
}

pub fn project(name: &str) -> Command {
    command(Body::CreateProject { name: name.to_owned(), files: vec!["tasks.md".to_owned()] })
}

pub fn numbered(mut command: Command, session: SessionId, seq: u64) -> Command {
    command.request = Some(RequestId { session, seq });
    command
}

pub fn accepted(outcome: &Outcome) -> Revision {
    match outcome {
        Outcome::Accepted { revision, .. } => *revision,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Runs futures at once and gives their results in order.
pub async fn all<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// `RUST_LOG=debug` shows what happened.
pub fn trace() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Only the first test of a process installs it.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
}
