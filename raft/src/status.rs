//! What a node knows of itself and its cluster, for people and for whoever routes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use zyflow_storage::types::{NodeId, NodeInfo};

use crate::config::millis;
use crate::shared::{Shared, stopped};

/// How often the published status follows numbers that move all the time.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Accepts commands and replicates them.
    Leader,
    /// Votes, and follows the leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote; also a node that belongs to no cluster yet.
    #[default]
    Learner,
    /// Doesn't take part any more.
    Stopped,
}

impl Role {
    fn of(state: ServerState) -> Self {
        match state {
            ServerState::Leader => Self::Leader,
            ServerState::Follower => Self::Follower,
            ServerState::Candidate => Self::Candidate,
            ServerState::Learner => Self::Learner,
            ServerState::Shutdown => Self::Stopped,
        }
    }
}

/// What a node knows of itself and its cluster. Indexes are 0 where there is nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node_id: NodeId,
    /// What it is.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The term of its vote.
    pub term: u64,
    /// Its last entry.
    pub last_log_index: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The last entry that is durable in its own log.
    pub durable: u64,
    /// The last entry that its newest snapshot covers.
    pub snapshot: u64,
    /// The last entry that its log no longer has.
    pub purged: u64,
    /// Voters and their addresses.
    pub voters: BTreeMap<NodeId, String>,
    /// Learners and their addresses.
    pub learners: BTreeMap<NodeId, String>,
    /// Where clients reach each member, as far as anybody said.
    pub api_addresses: BTreeMap<NodeId, String>,
    /// Who was removed; their ids are never used again.
    pub removed: BTreeSet<NodeId>,
    /// Whether a change of voters was begun and isn't finished.
    pub is_changing: bool,
    /// Leaders only: the last entry that each member is known to have.
    pub matched: BTreeMap<NodeId, u64>,
    /// Leaders only: how long ago a quorum confirmed it.
    pub millis_since_quorum_ack: Option<u64>,
    /// Whether it believes that there is a quorum.
    pub has_quorum: bool,
    /// Why it serves nothing any more: it has failed, or is out of service.
    pub fatal: Option<String>,
}

impl Shared {
    /// The status now.
    pub(crate) fn status(&self) -> Status {
        let raft = self.raft.metrics();
        let raft = raft.borrow_watched().clone();
        let membership = raft.membership_config.membership();
        let addresses = |ids: Vec<NodeId>| {
            ids.into_iter()
                .map(|id| (id, membership.get_node(&id).map_or_else(String::new, |node| node.address.clone())))
                .collect()
        };
        let api = |(id, node): (&NodeId, &NodeInfo)| (!node.api.is_empty()).then(|| (*id, node.api.clone()));
        let index = |id: Option<zyflow_storage::types::LogId>| id.map_or(0, |id| id.index);
        let matched = raft.replication.iter().flatten().map(|(node, id)| (*node, index(*id))).collect();
        Status {
            node_id: self.config.node_id,
            role: Role::of(raft.state),
            leader: raft.current_leader,
            term: raft.current_term,
            last_log_index: raft.last_log_index.unwrap_or(0),
            committed: index(raft.local_committed),
            applied: self.tables.applied().borrow().0,
            durable: self.log.durable_watermark().borrow().unwrap_or(0),
            snapshot: index(raft.snapshot),
            purged: index(raft.purged),
            voters: addresses(membership.voter_ids().collect()),
            learners: addresses(membership.learner_ids().collect()),
            api_addresses: membership.nodes().filter_map(api).collect(),
            removed: self.removed.borrow().clone(),
            is_changing: membership.get_joint_config().len() > 1,
            matched,
            millis_since_quorum_ack: raft.last_quorum_acked.map(|acked| millis(acked.elapsed())),
            has_quorum: self.has_quorum(),
            fatal: self.failure(),
        }
    }
}

/// Publishes the status: at once when the leader, the membership or the fatal reason changes, else a few times a second.
/// Also tells the connections where the members are, and notes openraft's own end as the fatal reason, if nothing said it before.
pub(crate) async fn publish(shared: Arc<Shared>, status: watch::Sender<Status>, mut stop: watch::Receiver<bool>) {
    let mut server = shared.raft.server_metrics();
    let mut fatal = shared.fatal.subscribe();
    let mut interval = tokio::time::interval(STATUS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_over = tokio::select! {
            changed = server.changed() => changed.is_err(),
            changed = fatal.changed() => changed.is_err(),
            _ = interval.tick() => false,
            () = stopped(&mut stop) => true,
        };
        let running = shared.raft.metrics().borrow_watched().running_state.clone();
        if let Err(failure) = running
            && !*stop.borrow()
            && shared.out_of_service.borrow().is_none()
        {
            crate::fatal::set(&shared.fatal, || format!("consensus stopped: {}", crate::fatal::chain(&failure)));
        }
        let now = shared.status();
        let members = now.voters.iter().chain(&now.learners);
        shared.peers.learn_addresses(members.map(|(id, address)| (*id, address.clone())).collect());
        status.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
        if is_over {
            break;
        }
    }
}
