//! What the state consists of: records, each with the revision that last changed each of its fields.
//!
//! A record has an address besides its id: (kind, parent, order). The order of a project is its name, of a change its
//! path within the project, of a block its fractional order key, of a conflict its own id; so every lookup the machine
//! needs is one ordered index.

use crate::command::TaskField;
use crate::id::{RecordId, Revision};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The stored code of the one block kind that has a mark and runtime fields (`zyflow_spec::BlockKind::Task`). Every other
/// code is text to the machine, also one that a newer proposer uses.
pub const KIND_TASK: u8 = 2;

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A named set of changes that checkouts are bound to.
    Project,
    /// One `tasks.md`.
    Change,
    /// A heading, a task, a paragraph or a blank of a change.
    Block,
    /// Two values of one field of which one lost.
    Conflict,
}

impl Kind {
    /// The number that is stored.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Project => 1,
            Self::Change => 2,
            Self::Block => 3,
            Self::Conflict => 4,
        }
    }

    /// The kind that a stored number means.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Project, Self::Change, Self::Block, Self::Conflict].into_iter().find(|kind| kind.code() == code)
    }
}

/// A value and the revision that last changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field<T> {
    /// The value.
    pub value: T,
    /// The revision that set it.
    pub at: Revision,
}

impl<T> Field<T> {
    /// `value`, set at `at`.
    pub fn new(value: T, at: Revision) -> Self {
        Self { value, at }
    }
}

/// One record of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// See [`Project`].
    Project(Project),
    /// See [`Change`].
    Change(Change),
    /// See [`Block`].
    Block(Block),
    /// See [`Conflict`].
    Conflict(Conflict),
}

/// A named set of changes that checkouts are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Unique among live projects.
    pub name: String,
    /// Globs, relative to a checkout's root, of the files that are synced.
    pub files: Vec<String>,
}

/// One `tasks.md`, by its path within the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The project it belongs to.
    pub project: RecordId,
    /// `/`-separated path within the project, unique among its live changes.
    pub path: String,
}

/// A part of a change's text. Its blocks, in order, concatenate to the exact canonical text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The change it belongs to.
    pub change: RecordId,
    /// `zyflow_spec::BlockKind` as its stored code.
    pub kind: u8,
    /// The fractional key that orders it among its siblings.
    pub order: Field<OrderKey>,
    /// For a task, all up to and including `[`; else empty.
    pub lead: String,
    /// For a task, what stands between the brackets; else empty.
    pub mark: Field<String>,
    /// The rest of the bytes, line end included. `at` also covers `lead` and `kind`.
    pub text: Field<String>,
    /// The runtime fields of a task; `None` for every other kind.
    pub task: Option<Box<TaskFields>>,
}

/// A fractional position: bytes compared as they stand, never ending in 0; minted by [`crate::order_key`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderKey(pub Vec<u8>);

/// What a task carries beside its text. A field with `at` 0 was never set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFields {
    /// Where the work stands.
    pub status: Field<Status>,
    /// Who works on it.
    pub assignee: Field<Option<String>>,
    /// How urgent it is.
    pub priority: Field<Option<Priority>>,
    /// When it is due, as an ISO 8601 date.
    pub due: Field<Option<String>>,
    /// Free words to find it by.
    pub labels: Field<BTreeSet<String>>,
    /// Tasks that must be done before it.
    pub blocked_by: Field<BTreeSet<RecordId>>,
    /// Free text that the file doesn't show.
    pub note: Field<String>,
}

/// Where the work on a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Not begun.
    #[default]
    Todo,
    /// Somebody works on it.
    InProgress,
    /// Waits for a look.
    Review,
    /// Can't go on.
    Blocked,
    /// Finished: the file shows a check.
    Done,
    /// Won't be done.
    Cancelled,
    /// Out of sight.
    Archived,
}

/// How urgent a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Can wait.
    Low,
    /// As usual.
    Medium,
    /// Before the others.
    High,
}

/// What kind of disagreement a conflict is (the seed's classes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConflictClass {
    /// Two values of one field.
    Data,
    /// Places, parents, existence.
    Structure,
    /// A version that was expected is gone.
    Version,
    /// A blocked-by that can't hold.
    Dependency,
    /// One side wasn't allowed to.
    Permission,
}

/// Two values of which one lost. The winner stands in the record; the loser is kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The change in which it arose.
    pub change: RecordId,
    /// The block it is about, where that is one.
    pub block: Option<RecordId>,
    /// What kind of disagreement.
    pub class: ConflictClass,
    /// The field: `mark`, `text`, `place`, `existence`.
    pub field: String,
    /// The value both started from.
    pub base: Option<String>,
    /// The value from the file that lost.
    pub spec: Option<String>,
    /// The value that the cluster had, which stands.
    pub runtime: Option<String>,
    /// Who proposed the losing value.
    pub author: String,
    /// `None` while it is open.
    pub resolved_at: Option<Revision>,
}

impl TaskFields {
    /// Whether `field` has that value already.
    #[must_use]
    pub fn has(&self, field: &TaskField) -> bool {
        match field {
            TaskField::Status(value) => self.status.value == *value,
            TaskField::Assignee(value) => self.assignee.value == *value,
            TaskField::Priority(value) => self.priority.value == *value,
            TaskField::Due(value) => self.due.value == *value,
            TaskField::Labels(value) => self.labels.value == *value,
            TaskField::BlockedBy(value) => self.blocked_by.value == *value,
            TaskField::Note(value) => self.note.value == *value,
        }
    }

    /// Gives `field` its value, at `at`.
    pub fn set(&mut self, field: &TaskField, at: Revision) {
        match field {
            TaskField::Status(value) => self.status = Field::new(*value, at),
            TaskField::Assignee(value) => self.assignee = Field::new(value.clone(), at),
            TaskField::Priority(value) => self.priority = Field::new(*value, at),
            TaskField::Due(value) => self.due = Field::new(value.clone(), at),
            TaskField::Labels(value) => self.labels = Field::new(value.clone(), at),
            TaskField::BlockedBy(value) => self.blocked_by = Field::new(value.clone(), at),
            TaskField::Note(value) => self.note = Field::new(value.clone(), at),
        }
    }
}

impl Record {
    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Project(_) => Kind::Project,
            Self::Change(_) => Kind::Change,
            Self::Block(_) => Kind::Block,
            Self::Conflict(_) => Kind::Conflict,
        }
    }

    /// The record it belongs to; [`RecordId::ROOT`] for projects.
    #[must_use]
    pub fn parent(&self) -> RecordId {
        match self {
            Self::Project(_) => RecordId::ROOT,
            Self::Change(change) => change.project,
            Self::Block(block) => block.change,
            Self::Conflict(conflict) => conflict.change,
        }
    }

    /// What it is ordered and found by among its siblings of the same kind; `id` is its own id.
    #[must_use]
    pub fn order(&self, id: RecordId) -> Vec<u8> {
        match self {
            Self::Project(project) => project.name.clone().into_bytes(),
            Self::Change(change) => change.path.clone().into_bytes(),
            Self::Block(block) => block.order.value.0.clone(),
            Self::Conflict(_) => id.to_u64().to_be_bytes().to_vec(),
        }
    }
}
