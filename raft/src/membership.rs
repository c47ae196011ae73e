//! Who takes part: the first members, learners, voters, and who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::time::{Instant, timeout_at};
use zyflow_storage::types::{NodeId, NodeInfo, TypeConfig};

use crate::consensus::Consensus;
use crate::error::MembershipError;
use crate::shared::Route;

/// A transfer that came to nothing is tried again after this: longer than an election takes.
const TRANSFER_RETRY: Duration = Duration::from_secs(3);

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

    /// Adds a node that follows without a vote. Returns when it is in the membership, before it has caught up. Leader only.
    ///
    /// # Errors
    /// This node doesn't lead, another change is under way, or there is no quorum by the deadline.
    pub async fn add_learner(&self, node: NodeId, address: String, deadline: Instant) -> Result<(), MembershipError> {
        let adding = self.inner.shared.raft.add_learner(node, NodeInfo { address }, false);
        changed(timeout_at(deadline, adding).await, "adding a learner")
    }

    /// Gives learners a vote. They should have caught up: a voter that is behind counts for the quorum at once. Leader only.
    ///
    /// # Errors
    /// As [`Consensus::add_learner`]; also if one is not a learner.
    pub async fn promote(&self, nodes: BTreeSet<NodeId>, deadline: Instant) -> Result<(), MembershipError> {
        let promoting = self.inner.shared.raft.change_membership(ChangeMembers::AddVoterIds(nodes), true);
        changed(timeout_at(deadline, promoting).await, "promoting a learner")
    }

    /// Takes the vote from voters; they stay as learners. Leader only.
    ///
    /// # Errors
    /// As [`Consensus::add_learner`].
    pub async fn demote(&self, nodes: BTreeSet<NodeId>, deadline: Instant) -> Result<(), MembershipError> {
        let demoting = self.inner.shared.raft.change_membership(ChangeMembers::RemoveVoters(nodes), true);
        changed(timeout_at(deadline, demoting).await, "demoting a voter")
    }

    /// Removes learners. A removed id is never used again. Leader only.
    ///
    /// # Errors
    /// As [`Consensus::add_learner`].
    pub async fn remove(&self, nodes: BTreeSet<NodeId>, deadline: Instant) -> Result<(), MembershipError> {
        let removing = self.inner.shared.raft.change_membership(ChangeMembers::RemoveNodes(nodes), false);
        changed(timeout_at(deadline, removing).await, "removing a learner")
    }

    /// Hands leadership to another voter and waits until it leads. Leader only. While it is under way no command is
    /// accepted; those that wait go to the new leader.
    ///
    /// # Errors
    /// This node doesn't lead, `to` is no voter, or it doesn't lead by the deadline.
    pub async fn transfer_leader(&self, to: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        let shared = &self.inner.shared;
        if shared.route() != Route::Here {
            return Err(MembershipError::NotLeader { leader: self.status().leader });
        }
        if !shared.voters().contains(&to) {
            return Err(MembershipError::NotA { node: to, role: "voter" });
        }
        if to == shared.config.node_id {
            return Ok(());
        }
        let late = || MembershipError::DeadlineExceeded { what: "the transfer of leadership" };
        let fatal = |error: openraft::errors::Fatal<TypeConfig>| MembershipError::Fatal(error.to_string());
        timeout_at(deadline, self.caught_up(to)).await.map_err(|_elapsed| late())??;
        loop {
            shared.raft.trigger().transfer_leader(to).await.map_err(fatal)?;
            let until = deadline.min(Instant::now() + TRANSFER_RETRY);
            match timeout_at(until, self.led_by_another()).await {
                Ok(leader) => {
                    let leader = leader?;
                    let other = || MembershipError::Refused(format!("node {leader} won the election, not node {to}"));
                    return if leader == to { Ok(()) } else { Err(other()) };
                }
                Err(_elapsed) if Instant::now() >= deadline => return Err(late()),
                // Nobody leads yet, or this node again.
                Err(_elapsed) => {}
            }
        }
    }

    /// Waits until `node` has all that this leader's log had a moment ago.
    async fn caught_up(&self, node: NodeId) -> Result<(), MembershipError> {
        let mut metrics = self.inner.shared.raft.metrics();
        let wanted = metrics.borrow_watched().last_log_index;
        loop {
            let matched = {
                let now = metrics.borrow_and_update();
                let replication =
                    now.replication.as_ref().ok_or(MembershipError::NotLeader { leader: now.current_leader })?;
                replication.get(&node).copied().flatten().map(|id| id.index)
            };
            if matched >= wanted {
                return Ok(());
            }
            stopped(metrics.changed().await)?;
        }
    }

    /// Waits until this node follows another one.
    async fn led_by_another(&self) -> Result<NodeId, MembershipError> {
        let mut metrics = self.inner.shared.raft.server_metrics();
        loop {
            let leader = metrics.borrow_and_update().current_leader;
            if let Some(leader) = leader
                && leader != self.inner.shared.config.node_id
            {
                return Ok(leader);
            }
            stopped(metrics.changed().await)?;
        }
    }
}

fn stopped<E>(changed: Result<(), E>) -> Result<(), MembershipError> {
    changed.map_err(|_| MembershipError::Fatal("consensus stopped".to_owned()))
}

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

fn changed(written: Result<Written, tokio::time::error::Elapsed>, what: &'static str) -> Result<(), MembershipError> {
    match written.map_err(|_elapsed| MembershipError::DeadlineExceeded { what })? {
        Ok(_response) => Ok(()),
        Err(RaftError::Fatal(fatal)) => Err(MembershipError::Fatal(fatal.to_string())),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(MembershipError::NotLeader { leader: forward.leader_id })
        }
        Err(RaftError::APIError(error)) => Err(MembershipError::Refused(error.to_string())),
    }
}
