//! Who leads: handing over, and to whom.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout_at};
use zyflow_storage::types::{NodeId, TypeConfig};

use crate::consensus::Consensus;
use crate::error::MembershipError;
use crate::shared::Route;

/// A transfer that came to nothing is tried again after this: longer than an election takes.
const TRANSFER_RETRY: Duration = Duration::from_secs(3);

impl Consensus {
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

    /// The voter that leads next, should this leader have to stop: of those that answer, the one that has most of the log.
    pub(crate) fn heir(&self) -> Option<NodeId> {
        let status = self.status();
        let reachable = self.inner.shared.reach().reachable;
        let may_lead =
            |node: &NodeId| *node != status.node_id && status.voters.contains_key(node) && reachable.contains(node);
        let matched = status.matched.iter().filter(|(node, _)| may_lead(node));
        let by_index: BTreeMap<u64, NodeId> = matched.map(|(node, index)| (*index, *node)).collect();
        by_index.last_key_value().map(|(_, node)| *node)
    }

    /// Waits until `node` has all that this leader's log had a moment ago.
    pub(super) async fn caught_up(&self, node: NodeId) -> Result<(), MembershipError> {
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
