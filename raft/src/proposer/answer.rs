//! Answers to forwarded commands, between their own type and the protocol's.

use std::time::Duration;

use zyflow_machine::format;

use super::Answer;
use crate::error::{Fate, ProposeError, Reach};
use crate::network::proto;
use crate::network::proto::forwarded_answer::Result as Reply;
use crate::network::proto::refusal::Reason;

/// The answer as it travels.
pub(crate) fn message(ticket: u64, answer: Answer) -> proto::ForwardedAnswer {
    let result = match answer {
        Answer::Outcome(outcome) => Reply::Outcome(format::encode_outcome(&outcome).into()),
        Answer::NotLeader => Reply::NotLeader(true),
        Answer::Error(error) => error_reply(error),
    };
    proto::ForwardedAnswer { ticket, result: Some(result) }
}

fn error_reply(error: ProposeError) -> Reply {
    let reason = match error {
        ProposeError::Overloaded { backlog, limit } => Reason::Overloaded(proto::Overloaded { backlog, limit }),
        ProposeError::DiskFull { free, needed } => {
            Reason::DiskFull(proto::DiskFull { free_bytes: free, needed_bytes: needed })
        }
        ProposeError::ClockAhead { ahead } => Reason::ClockAheadMs(crate::config::millis(ahead)),
        ProposeError::TooLarge { bytes, .. } => Reason::TooLargeBytes(bytes),
        ProposeError::NoQuorum { reach, fate: Fate::Nothing } => Reason::NoQuorum(no_quorum(reach)),
        ProposeError::Stopping(Fate::Nothing) => Reason::Stopping(true),
        ProposeError::Malformed { reason } => Reason::Malformed(reason),
        ProposeError::NoQuorum { fate: Fate::Unknown, .. }
        | ProposeError::DeadlineExceeded { .. }
        | ProposeError::Lost { .. }
        | ProposeError::Stopping(Fate::Unknown)
        | ProposeError::Fatal(_) => return Reply::Unknown(error.to_string()),
    };
    Reply::Refused(proto::Refusal { reason: Some(reason) })
}

/// What this side knows after a peer's answer.
#[derive(Debug)]
pub(crate) enum Received {
    /// Answer the caller with it.
    Final(Answer),
    /// It certainly didn't happen: try again.
    Again,
    /// It may have happened.
    Unknown(String),
}

/// Reads an answer.
pub(crate) fn read(answer: proto::ForwardedAnswer) -> Received {
    let error = |error| Received::Final(Answer::Error(error));
    let Some(result) = answer.result else { return Received::Unknown("the leader's answer was empty".to_owned()) };
    let refusal = match result {
        Reply::Outcome(bytes) => {
            return match format::decode_outcome(&bytes) {
                Ok(outcome) => Received::Final(Answer::Outcome(outcome)),
                Err(error) => Received::Unknown(format!("the leader's answer is unreadable: {error}")),
            };
        }
        Reply::NotLeader(_) => return Received::Again,
        Reply::Unknown(reason) => return Received::Unknown(reason),
        Reply::Refused(refusal) => refusal,
    };
    match refusal.reason {
        None => Received::Unknown("the leader refused without a reason".to_owned()),
        Some(Reason::Overloaded(over)) => error(ProposeError::Overloaded { backlog: over.backlog, limit: over.limit }),
        Some(Reason::DiskFull(disk)) => {
            error(ProposeError::DiskFull { free: disk.free_bytes, needed: disk.needed_bytes })
        }
        Some(Reason::ClockAheadMs(ms)) => error(ProposeError::ClockAhead { ahead: Duration::from_millis(ms) }),
        Some(Reason::TooLargeBytes(bytes)) => error(ProposeError::TooLarge {
            bytes,
            limit: crate::network::wire::len_u64(zyflow_crypto::PLAINTEXT_BYTES_MAX),
        }),
        Some(Reason::NoQuorum(known)) => error(ProposeError::NoQuorum { reach: reach_of(known), fate: Fate::Nothing }),
        // Another leader will be found.
        Some(Reason::Stopping(_)) => Received::Again,
        Some(Reason::Malformed(reason)) => error(ProposeError::Malformed { reason }),
    }
}

pub(crate) fn no_quorum(reach: Reach) -> proto::NoQuorum {
    proto::NoQuorum { reachable: reach.reachable.into_iter().collect(), voters: reach.voters.into_iter().collect() }
}

pub(crate) fn reach_of(known: proto::NoQuorum) -> Reach {
    Reach { reachable: known.reachable.into_iter().collect(), voters: known.voters.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use zyflow_machine::id::Revision;
    use zyflow_machine::outcome::Outcome;

    #[test]
    fn refusals_travel_whole() {
        let reach = Reach { reachable: BTreeSet::from([1]), voters: BTreeSet::from([1, 2, 3]) };
        for error in [
            ProposeError::Overloaded { backlog: 5, limit: 4 },
            ProposeError::DiskFull { free: 1, needed: 2 },
            ProposeError::ClockAhead { ahead: Duration::from_secs(700) },
            ProposeError::NoQuorum { reach, fate: Fate::Nothing },
            ProposeError::Malformed { reason: "what?".to_owned() },
        ] {
            let received = read(message(7, Answer::Error(error.clone())));
            assert!(matches!(&received, Received::Final(Answer::Error(same)) if *same == error), "{received:?}");
        }
    }

    #[test]
    fn outcomes_travel_whole_and_doubt_stays_doubt() {
        let outcome = Outcome::Accepted { revision: Revision(9), created: Vec::new() };
        let received = read(message(1, Answer::Outcome(outcome.clone())));
        assert!(matches!(&received, Received::Final(Answer::Outcome(same)) if *same == outcome), "{received:?}");
        assert!(matches!(read(message(1, Answer::NotLeader)), Received::Again));
        let lost = ProposeError::Lost { reason: "gone".to_owned() };
        assert!(matches!(read(message(1, Answer::Error(lost))), Received::Unknown(_)));
        let stopping = ProposeError::Stopping(Fate::Nothing);
        assert!(matches!(read(message(1, Answer::Error(stopping))), Received::Again));
    }
}
