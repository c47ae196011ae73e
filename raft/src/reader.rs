//! Read barriers: up to which index a linearizable read has to wait (ReadIndex; Ongaro 2014, section 6.4).
//!
//! ```text
//!   reads that wait --> one round --> leads: openraft asks a quorum "do I still lead?"   --> index --> all of them
//!                          ^         follows: one call to the leader, which does the same
//!          those that come meanwhile gather for the next round
//! ```
//!
//! A round serves only reads that came before it began: one that joined later might have to see a write that was acknowledged
//! after the round's index was taken. The reads then wait, each for itself, until the index is applied here.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::metrics::RaftServerMetrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;
use zyflow_storage::types::{NodeId, TypeConfig};

use crate::config::millis;
use crate::error::{Reach, ReadError};
use crate::network::peers::Lane;
use crate::network::proto;
use crate::network::proto::barrier_reply::Result as Reply;
use crate::proposer::RETRY_PAUSE;
use crate::proposer::answer::reach_of;
use crate::shared::{Route, Shared, stopped};

/// Reads that wait for a round; past this, reading waits.
pub(crate) const READS_QUEUED_MAX: usize = 8192;

/// One read that waits for an index.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The leader's lease is enough.
    pub(crate) lease: bool,
    pub(crate) deadline: Instant,
    /// From a peer that takes this node for the leader: not passed on.
    pub(crate) is_forwarded: bool,
    pub(crate) reply: oneshot::Sender<Index>,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug)]
pub(crate) enum Index {
    /// Wait until this index is applied.
    At(u64),
    /// This node doesn't lead. Only for peers.
    NotLeader,
    /// It won't be served.
    Failed(ReadError),
}

/// How a round ended.
enum Round {
    Index(u64),
    /// Try again after a pause, or when the leader changes.
    Again,
    Failed(ReadError),
}

/// The task that serves all barriers of this node.
pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rx: mpsc::Receiver<Ask>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Reader {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let mut asks = Vec::new();
        let mut leadership = self.shared.raft.server_metrics();
        loop {
            if asks.is_empty() {
                let count = tokio::select! {
                    count = self.rx.recv_many(&mut asks, READS_QUEUED_MAX) => count,
                    () = stopped(&mut self.stop) => break,
                };
                if count == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
            while asks.len() < READS_QUEUED_MAX
                && let Ok(ask) = self.rx.try_recv()
            {
                asks.push(ask);
            }
            asks.retain(|ask| !ask.reply.is_closed() && ask.deadline > Instant::now());
            if asks.is_empty() {
                continue;
            }
            // What changes from here on ends a pause.
            drop(leadership.borrow_and_update());
            let round = tokio::select! {
                round = round(&self.shared, &mut asks) => round,
                () = stopped(&mut self.stop) => break,
            };
            match round {
                Round::Index(index) => answer(&mut asks, &Index::At(index)),
                Round::Failed(error) => answer(&mut asks, &Index::Failed(error)),
                Round::Again => self.pause(&mut leadership).await,
            }
        }
        answer(&mut asks, &Index::Failed(ReadError::Stopping));
    }

    async fn pause(&mut self, leadership: &mut WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>) {
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            // An error means that openraft stopped; the next round finds out.
            _ = leadership.changed() => {}
            () = stopped(&mut self.stop) => {}
        }
    }
}

/// One attempt for all. Answers peers at once if this node doesn't lead.
async fn round(shared: &Shared, asks: &mut Vec<Ask>) -> Round {
    let route = shared.route();
    if route != Route::Here {
        let (mut theirs, ours): (Vec<Ask>, Vec<Ask>) = std::mem::take(asks).into_iter().partition(|a| a.is_forwarded);
        answer(&mut theirs, &Index::NotLeader);
        *asks = ours;
    }
    let Some(deadline) = asks.iter().map(|ask| ask.deadline).max() else { return Round::Again };
    let lease = asks.iter().all(|ask| ask.lease);
    shared.counters.read_rounds.add(1);
    match route {
        Route::Here => ask_quorum(shared, lease, deadline).await,
        Route::There { node, address } => ask_leader(shared, node, &address, lease, deadline).await,
        Route::Nowhere => Round::Again,
    }
}

async fn ask_quorum(shared: &Shared, lease: bool, deadline: Instant) -> Round {
    let mut policies = if lease { vec![ReadPolicy::LeaseRead] } else { Vec::new() };
    policies.push(ReadPolicy::ReadIndex);
    for policy in policies {
        match timeout_at(deadline, shared.raft.get_read_linearizer(policy)).await {
            Ok(Ok(linearizer)) => return Round::Index(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            ))) => {}
            Ok(Err(RaftError::Fatal(fatal))) => return Round::Failed(ReadError::Fatal(fatal.to_string())),
            Err(_elapsed) => return Round::Again,
        }
    }
    Round::Again
}

async fn ask_leader(shared: &Shared, node: NodeId, address: &str, lease: bool, deadline: Instant) -> Round {
    let remaining = deadline.saturating_duration_since(Instant::now());
    // Another round may have another leader: none is waited for longer than a leader may be silent.
    let limit = remaining.min(shared.config.election_timeout_max);
    let request = proto::BarrierRequest { from: shared.config.node_id, to: node, lease, timeout_ms: millis(limit) };
    let mut client = shared.peers.client(node, address, Lane::Pulse);
    let answered = timeout(limit, client.barrier(request)).await;
    match answered {
        Ok(Ok(reply)) => {
            shared.peers.hear(node);
            match reply.into_inner().result {
                Some(Reply::Index(index)) => Round::Index(index),
                Some(Reply::NoQuorum(known)) => Round::Failed(ReadError::NoQuorum(reach_of(known))),
                Some(Reply::NotLeader(_)) | None => Round::Again,
            }
        }
        Ok(Err(status)) => {
            shared.peers.note_refusal(node, &status);
            debug!(leader = node, %status, "asking the leader for a read index failed");
            Round::Again
        }
        Err(_elapsed) => Round::Again,
    }
}

fn answer(asks: &mut Vec<Ask>, index: &Index) {
    for ask in asks.drain(..) {
        // A reader that has given up needs no index.
        drop(ask.reply.send(index.clone()));
    }
}

/// What a peer is told.
pub(crate) fn reply(index: Index, reach: impl FnOnce() -> Reach) -> proto::BarrierReply {
    let result = match index {
        Index::At(index) => Reply::Index(index),
        Index::NotLeader => Reply::NotLeader(true),
        Index::Failed(ReadError::NoQuorum(known)) => Reply::NoQuorum(crate::proposer::answer::no_quorum(known)),
        Index::Failed(_) => Reply::NoQuorum(crate::proposer::answer::no_quorum(reach())),
    };
    proto::BarrierReply { result: Some(result) }
}
