//! What the tasks of one node share, and the questions that all of them ask: who leads, is there a quorum, may we write.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, Raft, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;
use zyflow_crypto::KeyRing;
use zyflow_storage::snapshot::SnapshotStore;
use zyflow_storage::tables::Tables;
use zyflow_storage::types::{NodeId, TypeConfig};

use crate::applier::Applier;
use crate::config::ConsensusConfig;
use crate::error::{Fate, ProposeError, Reach, ReadError};
use crate::log::LogWatch;
use crate::metrics::Counters;
use crate::network::peers::Peers;

/// One per node, behind an `Arc`.
pub(crate) struct Shared {
    pub(crate) config: ConsensusConfig,
    pub(crate) raft: Raft<TypeConfig, Applier>,
    pub(crate) tables: Tables,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) log: Arc<dyn LogWatch>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) counters: Arc<Counters>,
    /// Who was removed, as of the newest applied entry.
    pub(crate) removed: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) fatal: watch::Sender<Option<Arc<str>>>,
    /// Why this node serves nothing any more though its process stays: its state can't be believed, or it was removed.
    pub(crate) out_of_service: watch::Sender<Option<Arc<str>>>,
}

/// Where commands and reads go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// This node leads.
    Here,
    /// Another one does.
    There {
        /// Which.
        node: NodeId,
        /// Where it is.
        address: String,
    },
    /// Nobody is known to.
    Nowhere,
}

impl Shared {
    /// Who leads, as far as this node knows.
    pub(crate) fn route(&self) -> Route {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        match metrics.current_leader {
            Some(leader) if leader == self.config.node_id => match metrics.state {
                ServerState::Leader => Route::Here,
                ServerState::Learner | ServerState::Follower | ServerState::Candidate | ServerState::Shutdown => {
                    Route::Nowhere
                }
            },
            Some(node) => match metrics.membership_config.membership().get_node(&node) {
                Some(info) => Route::There { node, address: info.address.clone() },
                None => Route::Nowhere,
            },
            None => Route::Nowhere,
        }
    }

    /// All voters, also those of a membership that is being left.
    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.server_metrics();
        metrics.borrow_watched().membership_config.membership().voter_ids().collect()
    }

    /// Whether a quorum is behind the leader that this node knows, by what it heard within an election timeout.
    pub(crate) fn has_quorum(&self) -> bool {
        let limit = self.config.election_timeout_max;
        match self.route() {
            Route::Nowhere => false,
            Route::There { node, .. } => self.peers.silence(node).is_some_and(|silence| silence <= limit),
            Route::Here => {
                let metrics = self.raft.metrics();
                let acked = metrics.borrow_watched().last_quorum_acked;
                acked.is_some_and(|acked| acked.elapsed() <= limit)
            }
        }
    }

    /// Who answers.
    pub(crate) fn reach(&self) -> Reach {
        self.peers.reach(self.voters())
    }

    /// Why this node serves nothing any more: it has failed, or it is out of service.
    pub(crate) fn failure(&self) -> Option<String> {
        let reason = |of: &watch::Sender<Option<Arc<str>>>| of.borrow().as_ref().map(ToString::to_string);
        reason(&self.fatal).or_else(|| reason(&self.out_of_service))
    }

    /// Waits until this node is out of service, and gives the reason. Never ends where it isn't.
    pub(crate) async fn left_service(&self) -> String {
        let mut out_of_service = self.out_of_service.subscribe();
        match out_of_service.wait_for(Option::is_some).await.map(|reason| reason.as_ref().map(ToString::to_string)) {
            Ok(Some(reason)) => reason,
            // The sender is this struct's own.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Why a proposal was not answered in time.
    pub(crate) fn verdict(&self, fate: Fate, proposed: Instant) -> ProposeError {
        if let Some(reason) = self.failure() {
            return ProposeError::Fatal(reason);
        }
        if self.has_quorum() {
            ProposeError::DeadlineExceeded { waited: proposed.elapsed(), fate }
        } else {
            ProposeError::NoQuorum { reach: self.reach(), fate }
        }
    }

    /// Why a read was not served in time.
    pub(crate) fn read_verdict(&self) -> ReadError {
        if let Some(reason) = self.failure() {
            return ReadError::Fatal(reason);
        }
        if self.has_quorum() { ReadError::DeadlineExceeded } else { ReadError::NoQuorum(self.reach()) }
    }

    /// What keeps this leader from sealing an entry now.
    pub(crate) fn obstacle(&self) -> Option<ProposeError> {
        let (free, needed) = (self.log.free_space(), self.config.disk_free_bytes_min);
        if free < needed {
            return Some(ProposeError::DiskFull { free, needed });
        }
        let (backlog, limit) = (self.tables.backlog_ops(), self.config.backlog_ops_max);
        if backlog > limit {
            use crate::network::wire::len_u64;
            return Some(ProposeError::Overloaded { backlog: len_u64(backlog), limit: len_u64(limit) });
        }
        let ahead = self.peers.clocks.ahead(self.peers.now_ms(), &self.voters(), Instant::now());
        ahead.map(|ahead| ProposeError::ClockAhead { ahead })
    }
}

/// Waits until the node stops, or whoever could say so is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
