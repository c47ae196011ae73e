//! What a command did, as a fact: one event, one row version.

use crate::command::{Author, NewBlock, TaskField};
use crate::id::{ClusterTime, EventId, RecordId, RequestId, Revision};
use crate::record::{Claim, Comment, Conflict, Keep, Kind, OrderKey, Point, Policy, Record, Restore, Settled, Status};
use serde::{Deserialize, Serialize};

/// A fact about one record, at (revision, ordinal).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its position; also the version of the row that it makes.
    pub id: EventId,
    /// The record it is about. An event that creates a record has the record's own id.
    pub record: RecordId,
    /// What happened.
    pub fact: Fact,
}

/// What happened to one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A project was made.
    ProjectCreated {
        /// Its name.
        name: String,
        /// Its globs.
        files: Vec<String>,
    },
    /// A change was made (empty; its blocks follow as events of their own).
    ChangeCreated {
        /// Where it belongs.
        project: RecordId,
        /// Its path.
        path: String,
    },
    /// A change was deleted (its blocks by events of their own).
    ChangeDeleted,
    /// A block was inserted.
    BlockInserted {
        /// Into which change.
        change: RecordId,
        /// Where.
        order: OrderKey,
        /// What.
        block: NewBlock,
        /// The task's status where the kind is task.
        status: Option<Status>,
    },
    /// A block got other words.
    BlockTextSet {
        /// Its kind from now on.
        kind: u8,
        /// Its lead from now on.
        lead: String,
        /// Its text from now on.
        text: String,
    },
    /// A block got another mark, and maybe with it another status.
    BlockMarked {
        /// The mark.
        mark: String,
        /// The status, where it changed.
        status: Option<Status>,
    },
    /// A block went elsewhere.
    BlockMoved {
        /// Where.
        order: OrderKey,
    },
    /// A block was deleted.
    BlockDeleted,
    /// Runtime fields were set, and maybe with them the mark.
    TaskSet {
        /// Fields whose value changed.
        fields: Vec<TaskField>,
        /// The mark, where it changed.
        mark: Option<String>,
    },
    /// A conflict was recorded.
    ConflictRecorded(Conflict),
    /// An open conflict was settled.
    ConflictSettled(Settled),
    /// A change got another path.
    ChangeMoved {
        /// Its path from now on.
        path: String,
    },
    /// A project got another policy.
    PolicySet(Policy),
    /// A task was taken, and maybe runtime fields were set with that.
    Claimed {
        /// By whom, until when.
        claim: Claim,
        /// Fields whose value changed.
        fields: Vec<TaskField>,
        /// The mark, where it changed.
        mark: Option<String>,
    },
    /// A task was given back.
    Released,
    /// Somebody said something about a task.
    Commented(Comment),
    /// A revision got a name.
    PointCreated(Point),
    /// A revision lost its name.
    PointRemoved,
    /// A change is again what it was: at that path, and there.
    ChangeRestored {
        /// Its path from now on.
        path: String,
    },
    /// A block is again what it was, and there. Who has taken it isn't touched.
    BlockRestored {
        /// Where.
        order: OrderKey,
        /// What.
        block: NewBlock,
        /// The runtime fields of a task, as far as they aren't those of a new one.
        fields: Vec<TaskField>,
    },
    /// A conflict is again as open or as settled as it was.
    ConflictRestored {
        /// `None` = open.
        settled: Option<Settled>,
    },
    /// It was said for the first time how much of the history is kept.
    RetentionCreated(Keep),
    /// It was said how much of the history is kept.
    RetentionSet(Keep),
    /// The history begins later.
    HorizonMoved {
        /// The oldest revision that can be read from now on.
        to: Revision,
        /// The cluster's time there.
        time: ClusterTime,
    },
    /// A new cluster began with the state of a backup. No command does this.
    Restored(Restore),
}

impl Fact {
    /// What the types of events are called, as a filter names them.
    pub const NAMES: [&str; 25] = [
        "project-created",
        "change-created",
        "change-deleted",
        "inserted",
        "text-set",
        "marked",
        "moved",
        "deleted",
        "task-set",
        "conflict",
        "conflict-settled",
        "change-moved",
        "policy-set",
        "claimed",
        "released",
        "commented",
        "point-created",
        "point-removed",
        "change-restored",
        "restored",
        "conflict-restored",
        "retention-created",
        "retention-set",
        "horizon-moved",
        "backup-restored",
    ];

    /// The name of its type, one of [`Fact::NAMES`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ProjectCreated { .. } => "project-created",
            Self::ChangeCreated { .. } => "change-created",
            Self::ChangeDeleted => "change-deleted",
            Self::BlockInserted { .. } => "inserted",
            Self::BlockTextSet { .. } => "text-set",
            Self::BlockMarked { .. } => "marked",
            Self::BlockMoved { .. } => "moved",
            Self::BlockDeleted => "deleted",
            Self::TaskSet { .. } => "task-set",
            Self::ConflictRecorded(_) => "conflict",
            Self::ConflictSettled(_) => "conflict-settled",
            Self::ChangeMoved { .. } => "change-moved",
            Self::PolicySet(_) => "policy-set",
            Self::Claimed { .. } => "claimed",
            Self::Released => "released",
            Self::Commented(_) => "commented",
            Self::PointCreated(_) => "point-created",
            Self::PointRemoved => "point-removed",
            Self::ChangeRestored { .. } => "change-restored",
            Self::BlockRestored { .. } => "restored",
            Self::ConflictRestored { .. } => "conflict-restored",
            Self::RetentionCreated(_) => "retention-created",
            Self::RetentionSet(_) => "retention-set",
            Self::HorizonMoved { .. } => "horizon-moved",
            Self::Restored(_) => "backup-restored",
        }
    }
}

/// The version of a row that an event makes, with who and when: what tables store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The event's position: the key of the version.
    pub version: EventId,
    /// Which record.
    pub id: RecordId,
    /// Its kind, also where it is gone.
    pub kind: Kind,
    /// What it belongs to, also where it is gone.
    pub parent: RecordId,
    /// What it is ordered by among its siblings, also where it is gone.
    pub order: Vec<u8>,
    /// The record from now on; `None` = deleted.
    pub record: Option<Record>,
    /// The version before, where there was one.
    pub previous: Option<EventId>,
    /// What happened.
    pub fact: Fact,
}

/// Who did it and when: stored with every version that a command made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Who, as they say themselves.
    pub author: Author,
    /// When, by the cluster's clock.
    pub time: ClusterTime,
    /// Which request it was.
    pub request: Option<RequestId>,
}
