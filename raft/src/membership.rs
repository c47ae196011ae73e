//! Who takes part: the first members, learners, voters, those who leave, and where each is reached.
//!
//! ```text
//!   add ---> learner --promote (has caught up?)--> voter
//!               ^ |                                  |
//!               | +--remove--> removed for good      |
//!               +--------------demote----------------+
//! ```
//! Every change is a loop: wait until the newest membership is committed and applied here, finish a change that an earlier leader
//! left half-done, ask [`checks`] for the next step, take it under the condition that nobody changed anything in between; until no
//! step is left. So each call may be repeated, on this leader or on the next, and a change that was begun is finished by whoever
//! repeats it. One change at a time: it goes on where its caller's deadline passed, since half of one is the worst state to be in.
//!
//! Deliberately not here: who may ask for a change, and which id a new node gets.

mod checks;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::{ChangeMembers, Precondition};
use tokio::time::{Instant, timeout_at};
use zyflow_machine::id::Revision;
use zyflow_storage::types::{NodeId, NodeInfo, StoredMembership};

pub use checks::PROMOTE_LAG_MAX;
use checks::{Change, Members};

use crate::consensus::Consensus;
use crate::error::MembershipError;
use crate::shared::{Route, Shared};

/// How often a step is tried again, a heartbeat apart, where this leader isn't one yet: a new one refuses everything until a majority has
/// answered it; and where too few voters have answered: it may not have asked them yet.
const READY_TRIES: u32 = 10;

/// The next step of a change; `None` = it is done.
type Plan = Box<dyn Fn(&Members) -> Result<Option<Change>, MembershipError> + Send>;

impl Consensus {
    /// Makes a new cluster of these voters. Called once, on one of them, while all of them are empty and running.
    ///
    /// # Errors
    /// The cluster exists already, or this node is not among the members.
    pub async fn initialize(&self, members: BTreeMap<NodeId, NodeInfo>) -> Result<(), MembershipError> {
        match self.inner.shared.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(error))) => {
                Err(MembershipError::AlreadyInitialised(error.to_string()))
            }
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(MembershipError::NotA { node: error.node_id, role: "member" })
            }
            Err(RaftError::Fatal(fatal)) => Err(MembershipError::Fatal(fatal.to_string())),
        }
    }

    /// Adds a node that follows without a vote, and waits until it has the log as it was when it was added. Leader only. One that is a
    /// member at this address already is only waited for.
    ///
    /// # Errors
    /// This node doesn't lead, the id was a removed node's, the address is another's, or there is no quorum by the deadline;
    /// [`MembershipError::Lagging`] where it was added and hasn't caught up by then.
    pub async fn add_learner(&self, node: NodeId, info: NodeInfo, deadline: Instant) -> Result<(), MembershipError> {
        self.change("adding a learner", deadline, Box::new(move |members| members.add(node, &info))).await?;
        match timeout_at(deadline, self.caught_up(node)).await {
            Ok(caught_up) => caught_up,
            Err(_elapsed) => Err(self.inner.shared.members().lagging(node)),
        }
    }

    /// Gives a learner a vote, if it has caught up and a majority of the voters with it answers. Leader only.
    ///
    /// # Errors
    /// This node doesn't lead, it is no member, it lags by more than [`PROMOTE_LAG_MAX`], its certificate is a learner's, too few voters
    /// answer, or there is no quorum by the deadline.
    pub async fn promote(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        self.change("promoting a learner", deadline, Box::new(move |members| members.promote(node))).await
    }

    /// Takes the vote from a voter; it stays as a learner. Leader only: to demote the leader itself it hands over first, and the error
    /// names the new one.
    ///
    /// # Errors
    /// This node doesn't lead (any more), it is no member, too few of the other voters answer, or there is no quorum by the deadline.
    pub async fn demote(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        self.give_way(node, deadline).await?;
        self.change("demoting a voter", deadline, Box::new(move |members| members.demote(node))).await
    }

    /// Removes a member, voter or learner, for good: the others refuse its calls from then on, and its id is never used again. Leader
    /// only, as [`Consensus::demote`].
    ///
    /// # Errors
    /// As [`Consensus::demote`].
    pub async fn remove(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        self.give_way(node, deadline).await?;
        self.change("removing a member", deadline, Box::new(move |members| members.remove(node))).await
    }

    /// Changes where a member is reached. Leader only.
    ///
    /// # Errors
    /// This node doesn't lead, it is no member, the address is another's, or there is no quorum by the deadline.
    pub async fn relocate(&self, node: NodeId, info: NodeInfo, deadline: Instant) -> Result<(), MembershipError> {
        self.change("changing an address", deadline, Box::new(move |members| members.relocate(node, &info))).await
    }

    /// A leader can't see to its own leaving: openraft would let it go on leading without a vote. It hands over, and the new leader is
    /// asked.
    async fn give_way(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        let shared = &self.inner.shared;
        if node != shared.config.node_id || shared.route() != Route::Here {
            return Ok(());
        }
        let heir = self.heir().ok_or_else(|| shared.members().outnumbered(node))?;
        self.transfer_leader(heir, deadline).await?;
        Err(MembershipError::NotLeader { leader: Some(heir) })
    }

    async fn change(&self, what: &'static str, deadline: Instant, plan: Plan) -> Result<(), MembershipError> {
        let late = |_elapsed| MembershipError::DeadlineExceeded { what };
        let changing = Arc::clone(&self.inner.changing);
        let turn = timeout_at(deadline, changing.lock_owned()).await.map_err(late)?;
        let shared = Arc::clone(&self.inner.shared);
        let change = tokio::spawn(async move {
            let _turn = turn;
            shared.change(plan).await
        });
        let ended = timeout_at(deadline, change).await.map_err(late)?;
        ended.unwrap_or_else(|error| Err(MembershipError::Fatal(error.to_string())))
    }
}

impl Shared {
    async fn change(&self, plan: Plan) -> Result<(), MembershipError> {
        let mut tries = 0;
        loop {
            let newest = self.settled_membership().await?;
            let next = if newest.membership().get_joint_config().len() > 1 {
                // Nobody new votes: only the change that was begun is finished.
                Some(ChangeMembers::AddVoterIds([].into()))
            } else {
                match plan(&self.members()) {
                    // Whoever leads since a moment ago has heard from few so far.
                    Err(MembershipError::Outnumbered { .. }) if tries < READY_TRIES => {
                        tries += 1;
                        tokio::time::sleep(self.config.heartbeat).await;
                        continue;
                    }
                    planned => planned?,
                }
            };
            let Some(next) = next else { return Ok(()) };
            let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: *newest.log_id() };
            match self.raft.change_membership_if(next, true, [unchanged]).await {
                Ok(_response) => {}
                Err(RaftError::Fatal(fatal)) => return Err(MembershipError::Fatal(fatal.to_string())),
                Err(RaftError::APIError(
                    ClientWriteError::ForwardToLeader(forward) | ClientWriteError::LogEntryDiscarded(forward),
                )) => {
                    let may_lead_soon = forward.leader_id.is_none() && self.route() == Route::Here;
                    if !may_lead_soon || tries == READY_TRIES {
                        return Err(MembershipError::NotLeader { leader: forward.leader_id });
                    }
                    tries += 1;
                    tokio::time::sleep(self.config.heartbeat).await;
                }
                Err(RaftError::APIError(error)) => return Err(MembershipError::Refused(error.to_string())),
            }
        }
    }

    /// The newest membership, once it is applied here and with it known who was removed.
    async fn settled_membership(&self) -> Result<StoredMembership, MembershipError> {
        let mut metrics = self.raft.server_metrics();
        let mut applied = self.tables.applied();
        loop {
            if self.route() != Route::Here {
                return Err(MembershipError::NotLeader { leader: self.status().leader });
            }
            let newest = StoredMembership::clone(&metrics.borrow_and_update().membership_config);
            let index = newest.log_id().map_or(0, |id| id.index);
            let is_applied = *applied.borrow() >= Revision(index);
            if is_applied {
                return Ok(newest);
            }
            let stopped = || MembershipError::Fatal("consensus stopped".to_owned());
            let reached = async { applied.wait_for(|applied| *applied >= Revision(index)).await.map(drop) };
            tokio::select! {
                changed = metrics.changed() => changed.map_err(|_| stopped())?,
                reached = reached => reached.map_err(|_| stopped())?,
            }
        }
    }

    fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let nodes: BTreeMap<NodeId, NodeInfo> = membership.nodes().map(|(id, info)| (*id, info.clone())).collect();
        let index = |id: Option<zyflow_storage::types::LogId>| id.map_or(0, |id| id.index);
        Members {
            voters: membership.get_joint_config().last().cloned().unwrap_or_default(),
            reachable: self.peers.reach(nodes.keys().copied().collect()).reachable,
            roles: nodes.keys().filter_map(|id| Some((*id, self.peers.role(*id)?))).collect(),
            nodes,
            removed: self.removed.borrow().clone(),
            matched: metrics.replication.iter().flatten().map(|(node, id)| (*node, index(*id))).collect(),
            committed: index(metrics.local_committed),
        }
    }
}
