//! Commands in, outcomes out: one serial task per node that turns what many ask at once into few large entries.
//!
//! ```text
//!   clients of this node --+                      leads:   seal --> [entry, entry] --> openraft --> outcomes
//!                          +--> queue --> waiting <
//!   forwarded by peers  ---+                      follows: [`forward`] ==stream==> the leader's queue
//!                                                 neither: wait for a leader, or for the deadline
//! ```
//!
//! While [`WRITES_IN_FLIGHT`] writes are under way, what comes gathers: group commit without a timer. A command is answered
//! exactly once. Whether one that was not answered may have happened is kept in its [`Phase`]: as long as it only waited,
//! certainly not; after it was handed to the log or to a leader, perhaps, unless whoever had it says no. After a change of
//! leader a command of unknown fate is proposed again if it carries a request id (the machine answers a repetition with
//! the first outcome), and otherwise reported as lost.
//!
//! Not here: permissions. They will be checked where commands enter the queue of the leader.

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod forward;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use zyflow_machine::command::Command;
use zyflow_machine::outcome::Outcome;

use crate::error::ProposeError;

pub(crate) use run::Proposer;

/// Writes under way at once. Measured (`examples/propose_cost`): with one, the log idles while the outcome travels; more
/// than two only make entries smaller.
pub const WRITES_IN_FLIGHT: usize = 2;
/// Commands in one entry: a full one is applied in a few milliseconds, so that heartbeats get their turn.
pub const COMMANDS_PER_ENTRY_MAX: usize = 1024;
/// Entries in one write.
pub const ENTRIES_PER_WRITE_MAX: usize = 4;
/// Bytes of an entry before it is sealed, past which its commands are spread over more entries: 1 MiB.
pub const ENTRY_BYTES_TARGET: usize = 1 << 20;
/// Proposals that wait in the queue; past this, proposing waits.
pub const PROPOSALS_QUEUED_MAX: usize = 8192;
/// Proposals that the proposer holds because it can't pass them on.
pub const PROPOSALS_WAITING_MAX: usize = 8192;
/// How long a refused proposal rests before it is tried again, unless the leader changes before.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// One command on its way.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) ticket: Ticket,
}

/// Everything about a proposal but its command.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) phase: Arc<Phase>,
    pub(crate) reply: Reply,
}

/// Whom to answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A caller in this process.
    Client(oneshot::Sender<Result<Outcome, ProposeError>>),
    /// A peer that forwarded it.
    Peer {
        /// The peer's name for it.
        number: u64,
        /// To the stream of answers.
        answers: mpsc::UnboundedSender<(u64, Answer)>,
        /// One of those that bound how much a peer may have under way.
        _permit: OwnedSemaphorePermit,
    },
}

/// How a proposal ended.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The machine decided.
    Outcome(Outcome),
    /// This node doesn't lead. Only for peers: this node's own proposals wait.
    NotLeader,
    /// It failed.
    Error(ProposeError),
}

impl Ticket {
    /// Answers; the caller may be gone.
    pub(crate) fn answer(self, answer: Answer) {
        match (self.reply, answer) {
            (Reply::Client(tx), Answer::Outcome(outcome)) => drop(tx.send(Ok(outcome))),
            (Reply::Client(tx), Answer::Error(error)) => drop(tx.send(Err(error))),
            (Reply::Client(tx), Answer::NotLeader) => {
                drop(tx.send(Err(ProposeError::Lost { reason: "this node stopped leading".to_owned() })));
            }
            (Reply::Peer { number, answers, .. }, answer) => drop(answers.send((number, answer))),
        }
    }

    /// Whether it came from a peer.
    pub(crate) fn is_forwarded(&self) -> bool {
        matches!(self.reply, Reply::Peer { .. })
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.reply {
            Reply::Client(tx) => tx.is_closed(),
            Reply::Peer { answers, .. } => answers.is_closed(),
        }
    }
}

/// How far a proposal got, shared by the task that has it and the caller that waits.
///
/// ```text
///   waiting --submit--> submitted --withdraw (it certainly didn't happen)--> waiting
///      \--abandon--> abandoned
/// ```
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

const WAITING: u8 = 0;
const SUBMITTED: u8 = 1;
const ABANDONED: u8 = 2;

impl Phase {
    /// It is being handed on, from now on it may happen. `false`: the caller was told that it won't.
    pub(crate) fn submit(&self) -> bool {
        let moved = self.0.compare_exchange(WAITING, SUBMITTED, Ordering::AcqRel, Ordering::Acquire);
        moved.is_ok_and(|_| true) || moved == Err(SUBMITTED)
    }

    /// It came back and certainly didn't happen.
    pub(crate) fn withdraw(&self) {
        let moved = self.0.compare_exchange(SUBMITTED, WAITING, Ordering::AcqRel, Ordering::Acquire);
        assert!(moved.is_ok(), "a submitted proposal is withdrawn once and never abandoned");
    }

    /// The caller gives up. `true`: it certainly won't happen.
    pub(crate) fn abandon(&self) -> bool {
        self.0.compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether it may have happened.
    pub(crate) fn is_submitted(&self) -> bool {
        self.0.load(Ordering::Acquire) == SUBMITTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_gave_up_in_time_is_told_the_truth() {
        let phase = Phase::default();
        assert!(phase.abandon());
        assert!(!phase.submit(), "it must not happen any more");
    }

    #[test]
    fn what_was_handed_on_may_happen_until_it_came_back() {
        let phase = Phase::default();
        assert!(phase.submit() && phase.submit());
        assert!(!phase.abandon() && phase.is_submitted());
        phase.withdraw();
        assert!(!phase.is_submitted() && phase.abandon());
    }
}
