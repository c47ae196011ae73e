//! What the state consists of: records, each with the revision that last changed each of its fields.
//!
//! A record has an address besides its id: (kind, parent, order). The order of a project is its name, of a change its
//! path within the project, of a block its fractional order key, of a conflict, comment or restore its own id, of a point its name, of
//! the one retention a constant; so every lookup the machine needs is one ordered index.

mod conflict;
mod retention;

pub use conflict::{CONFLICT_FIELDS, Conflict, ConflictClass, Settled, Severity};
pub use retention::{Keep, Retention};

use crate::command::TaskField;
use crate::id::{ClusterTime, RecordId, Revision};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    /// What somebody said about a task.
    Comment,
    /// A named revision.
    Point,
    /// How much of the history is kept: one record for the whole cluster.
    Retention,
    /// That everything after a revision was undone by a restore from a backup.
    Restore,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Project,
        Self::Change,
        Self::Block,
        Self::Conflict,
        Self::Comment,
        Self::Point,
        Self::Retention,
        Self::Restore,
    ];

    /// The number that is stored.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Project => 1,
            Self::Change => 2,
            Self::Block => 3,
            Self::Conflict => 4,
            Self::Comment => 5,
            Self::Point => 6,
            Self::Retention => 7,
            Self::Restore => 8,
        }
    }

    /// The kind that a stored number means.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
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
    /// See [`Comment`].
    Comment(Comment),
    /// See [`Point`].
    Point(Point),
    /// See [`Retention`].
    Retention(Retention),
    /// See [`Restore`].
    Restore(Restore),
}

/// A named set of changes that checkouts are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Unique among live projects.
    pub name: String,
    /// Globs, relative to a checkout's root, of the files that are synced.
    pub files: Vec<String>,
    /// How it treats conflicts, statuses and marks.
    pub policy: Field<Policy>,
}

/// How a project treats conflicts, statuses and marks. The default asks a person about every conflict and allows every step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// For fields that aren't named below.
    pub strategy: Strategy,
    /// By field, one of [`CONFLICT_FIELDS`].
    pub strategies: BTreeMap<String, Strategy>,
    /// From weakest to strongest: where file and cluster both changed a status, the stronger one stands, and one that isn't here
    /// clashes. Empty = [`Policy::ORDER`].
    pub order: Vec<Status>,
    /// From a status to those that may follow it. A status that isn't here may be followed by any.
    pub transitions: BTreeMap<Status, BTreeSet<Status>>,
    /// What marks mean, as `zyflow_spec` writes a convention; `None` = each file's own dialect decides.
    pub convention: Option<String>,
}

impl Policy {
    /// What becomes of a conflict about `field`.
    #[must_use]
    pub fn strategy_for(&self, field: &str) -> Strategy {
        self.strategies.get(field).copied().unwrap_or(self.strategy)
    }

    /// The order of a project that set none: further along is stronger; giving up is nobody's to decide but a person's.
    pub const ORDER: [Status; 5] = [Status::Todo, Status::Blocked, Status::InProgress, Status::Review, Status::Done];

    /// Of two statuses the one that stands; `None` = they clash.
    #[must_use]
    pub fn stronger(&self, one: Status, other: Status) -> Option<Status> {
        let order = if self.order.is_empty() { &Self::ORDER[..] } else { &self.order };
        let rank = |status| order.iter().position(|known| *known == status);
        Some(if rank(one)? >= rank(other)? { one } else { other })
    }

    /// Whether a task may go from one status to another.
    #[must_use]
    pub fn allows(&self, from: Status, to: Status) -> bool {
        from == to || self.transitions.get(&from).is_none_or(|next| next.contains(&to))
    }
}

/// What becomes of a conflict (the seed's names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// The file's value.
    SpecWins,
    /// The value that the cluster has.
    RuntimeWins,
    /// The one that is committed later, by revision.
    LastWriteWins,
    /// Both, as far as nothing has to be made up; else as manual.
    Merge,
    /// The cluster's value stands until somebody decides.
    #[default]
    Manual,
    /// The cluster's value stands, and nobody is asked.
    Skip,
}

/// Who settled a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SettledBy {
    /// The project's policy, at once.
    Auto,
    /// Somebody who was asked.
    User,
    /// The system later on, as there was nothing left to decide.
    System,
}

/// How a conflict was settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// By which strategy.
    pub strategy: Strategy,
    /// By whom.
    pub by: SettledBy,
    /// The value that stands from then on, where one value does.
    pub value: Option<String>,
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
    /// What it fulfils, as written in its file.
    pub requirements: Field<BTreeSet<String>>,
    /// Who has taken it.
    pub claim: Field<Option<Claim>>,
}

/// A task that somebody has taken for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who has it.
    pub holder: String,
    /// Until when, by the cluster's clock.
    pub until: ClusterTime,
}

impl Claim {
    /// Whether it still keeps others away at `now`.
    #[must_use]
    pub fn holds_at(&self, now: ClusterTime) -> bool {
        now < self.until
    }
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

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Todo, Self::InProgress, Self::Review, Self::Blocked, Self::Done, Self::Cancelled, Self::Archived];

    /// Whether the task still has to be worked on.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Todo | Self::InProgress | Self::Review | Self::Blocked => true,
            Self::Done | Self::Cancelled | Self::Archived => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Todo => "todo",
            Self::InProgress => "in-progress",
            Self::Review => "review",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Archived => "archived",
        })
    }
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

/// What somebody said about a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// The task it is about.
    pub task: RecordId,
    /// Who said it, as they say themselves.
    pub author: String,
    /// When, by the cluster's clock.
    pub time: ClusterTime,
    /// What.
    pub text: String,
}

/// A named revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Unique among live points.
    pub name: String,
    /// The revision it names.
    pub revision: Revision,
    /// Why it was made.
    pub note: String,
    /// Who made it, as they say themselves.
    pub author: String,
    /// When, by the cluster's clock.
    pub time: ClusterTime,
    /// Made by the system before something that may want to be undone.
    pub is_automatic: bool,
}

/// That the state was put back to that of a backup: what happened after `cut`, up to the revision of the record's own id, is no part of
/// this history any more. Nothing changes it, and nothing removes it: whoever saw what was undone can always be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The revision whose state was restored.
    pub cut: Revision,
    /// The last revision that the backup held: later ones may have been seen too.
    pub last: Revision,
}

impl Restore {
    /// Whether a revision was undone by the restore that happened at `at`.
    #[must_use]
    pub fn undid(&self, revision: Revision, at: Revision) -> bool {
        self.cut < revision && revision < at
    }
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
            TaskField::Requirements(value) => self.requirements.value == *value,
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
            TaskField::Requirements(value) => self.requirements = Field::new(value.clone(), at),
        }
    }

    /// All that can be set, with its value: everything but the claim.
    #[must_use]
    pub fn values(&self) -> [TaskField; 8] {
        [
            TaskField::Status(self.status.value),
            TaskField::Assignee(self.assignee.value.clone()),
            TaskField::Priority(self.priority.value),
            TaskField::Due(self.due.value.clone()),
            TaskField::Labels(self.labels.value.clone()),
            TaskField::BlockedBy(self.blocked_by.value.clone()),
            TaskField::Note(self.note.value.clone()),
            TaskField::Requirements(self.requirements.value.clone()),
        ]
    }

    /// The revision that last changed what `field` sets.
    #[must_use]
    pub fn at(&self, field: &TaskField) -> Revision {
        match field {
            TaskField::Status(_) => self.status.at,
            TaskField::Assignee(_) => self.assignee.at,
            TaskField::Priority(_) => self.priority.at,
            TaskField::Due(_) => self.due.at,
            TaskField::Labels(_) => self.labels.at,
            TaskField::BlockedBy(_) => self.blocked_by.at,
            TaskField::Note(_) => self.note.at,
            TaskField::Requirements(_) => self.requirements.at,
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
            Self::Comment(_) => Kind::Comment,
            Self::Point(_) => Kind::Point,
            Self::Retention(_) => Kind::Retention,
            Self::Restore(_) => Kind::Restore,
        }
    }

    /// The record it belongs to; [`RecordId::ROOT`] for projects, points, restores and the retention.
    #[must_use]
    pub fn parent(&self) -> RecordId {
        match self {
            Self::Project(_) | Self::Point(_) | Self::Retention(_) | Self::Restore(_) => RecordId::ROOT,
            Self::Change(change) => change.project,
            Self::Comment(comment) => comment.task,
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
            Self::Conflict(_) | Self::Comment(_) | Self::Restore(_) => id.to_u64().to_be_bytes().to_vec(),
            Self::Point(point) => point.name.clone().into_bytes(),
            Self::Retention(_) => Retention::ORDER.to_vec(),
        }
    }
}
