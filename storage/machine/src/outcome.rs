//! What the proposer is told.

use crate::id::{ClusterTime, EventId, RecordId, Revision};
use crate::record::Status;
use serde::{Deserialize, Serialize};

/// The answer to one command: part of the replicated state, so it must be the same on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It happened.
    Accepted {
        /// The entry that holds it.
        revision: Revision,
        /// Ids of the records it created: the project; the change and then its blocks; an edit's inserts in the order of its
        /// operations and then its conflicts; for `OpenSession` the session's id. Last, the rollback point that the machine made with it.
        created: Vec<RecordId>,
    },
    /// Something it builds on has changed: look again, merge, propose again. Nothing happened.
    Stale {
        /// The revision at which it was looked at.
        revision: Revision,
        /// What has changed.
        fields: Vec<StaleField>,
    },
    /// It can't be done, and proposing it again won't help. Nothing happened.
    Rejected(Reject),
    /// The same request was answered before: this is the first answer, which is never itself a duplicate. Nothing happened
    /// this time.
    Duplicate(Box<Outcome>),
}

/// A field that changed after the base of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleField {
    /// Which record.
    pub record: RecordId,
    /// `mark`, `text`, `place`, `existence`, or `any`.
    pub field: String,
    /// The version that changed it. Where later versions of the record hide which one that was: the first position of its
    /// revision.
    pub changed_at: EventId,
}

/// Why a command can't be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Reject {
    /// No such record, or it is deleted.
    #[error("{what} {id} doesn't exist")]
    NotFound {
        /// `project`, `change`, `task`, ...
        what: String,
        /// Which.
        id: RecordId,
    },
    /// A live record has that name already.
    #[error("{what} `{name}` exists already as {id}")]
    Exists {
        /// `project` or `change`.
        what: String,
        /// The name or path.
        name: String,
        /// The one that has it.
        id: RecordId,
    },
    /// The record isn't of the kind that the command is about.
    #[error("{id} is not a {what}")]
    WrongKind {
        /// What it should have been.
        what: String,
        /// Which.
        id: RecordId,
    },
    /// Something is over a limit.
    #[error("{what} is {actual}, over the limit of {limit}")]
    OverLimit {
        /// What.
        what: String,
        /// How much it is.
        actual: u64,
        /// How much it may be.
        limit: u64,
    },
    /// Something is malformed.
    #[error("{0}")]
    Invalid(String),
    /// The session is unknown or has expired; open a new one. Whether the request was applied is not known any more.
    #[error("the session of the request is unknown or has expired")]
    SessionExpired,
    /// The request's number is below the session's window; whether it was applied is not known any more.
    #[error("request {seq} is older than the {window} outcomes that a session keeps")]
    RequestTooOld {
        /// The request's number.
        seq: u64,
        /// How many outcomes are kept.
        window: u64,
    },
    /// Somebody else has the task.
    #[error("task {task} is taken by {holder}")]
    Claimed {
        /// Which.
        task: RecordId,
        /// Who has it.
        holder: String,
        /// Until when, by the cluster's clock.
        until: ClusterTime,
    },
    /// The project's policy doesn't allow the step.
    #[error("task {task} may not go from {from} to {to} in this project")]
    Transition {
        /// Which.
        task: RecordId,
        /// The status it has.
        from: Status,
        /// The status that was asked for.
        to: Status,
    },
    /// The revision lies ahead, or so far back that it isn't kept.
    #[error("revision {revision} can't be gone back to, only those from {oldest} to {newest}")]
    NoRevision {
        /// The one that was asked for.
        revision: Revision,
        /// The oldest that is kept.
        oldest: Revision,
        /// The newest.
        newest: Revision,
    },
}
