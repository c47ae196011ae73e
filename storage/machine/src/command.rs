//! What can be asked of the cluster. A log entry holds a sealed [`Batch`] of commands.

use crate::id::{ClusterTime, RecordId, RequestId, Revision};
use crate::limits;
use crate::record::{ConflictClass, Keep, Policy, Priority, Settlement, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What the leader seals into one log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's clock when it sealed the batch.
    pub stamped: ClusterTime,
    /// In the order in which they are applied.
    pub commands: Vec<Command>,
}

/// One request for a change of the state: all of it happens, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Names the request within a session; `None` = the proposer accepts that a retry may apply it twice.
    pub request: Option<RequestId>,
    /// Who asks.
    pub author: Author,
    /// What is asked.
    pub body: Body,
}

/// Who asks, as they say themselves: kept with the event, never compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// A person, an agent or a checkout.
    pub name: String,
    /// The author's own clock in milliseconds since 1970: untrusted, shown only.
    pub clock_ms: u64,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Opens a session; its id is in the outcome's `created`. Sessions that aren't used expire (see [`crate::limits`]).
    OpenSession,
    /// Closes the session of the command's own request; proposed again, it finds the session expired.
    CloseSession,
    /// Makes a project.
    CreateProject {
        /// Unique among live projects.
        name: String,
        /// Globs of the files that are synced.
        files: Vec<String>,
    },
    /// Makes a change with its first text. Rejected as `Exists` if a live change has the path, or one that differs by case
    /// only.
    CreateChange {
        /// Where it belongs.
        project: RecordId,
        /// `/`-separated path within the project.
        path: String,
        /// Its blocks, in order.
        blocks: Vec<NewBlock>,
        /// What its text says of runtime fields: only [`BlockOp::SetFields`] and [`BlockOp::SetBlockers`], whose [`BlockRef::New`]
        /// is the n-th block.
        ops: Vec<BlockOp>,
    },
    /// Gives a change another path, within its project: an archived change keeps its tasks and their history.
    MoveChange {
        /// Which.
        change: RecordId,
        /// Its path from now on; as in `CreateChange`.
        path: String,
        /// The path that the caller saw. Stale where it is another by now.
        from: String,
    },
    /// Deletes a change and with it its blocks; nothing where it is deleted already. Its conflicts stay. Where there are many
    /// ([`limits::MASS_DELETION_BLOCKS`]), a rollback point is made with it.
    DeleteChange {
        /// Which.
        change: RecordId,
        /// Stale if any of its blocks changed after this revision.
        base: Revision,
    },
    /// Changes the text of a change. Where it deletes many blocks ([`limits::MASS_DELETION_BLOCKS`]) or resolves a conflict, a rollback point is
    /// made with it, the last of the outcome's `created`.
    Edit {
        /// Which.
        change: RecordId,
        /// The revision whose text the author saw.
        base: Revision,
        /// `Merge`: stale only where an op's own field changed since `base` to another value. `Strict`: stale if the change
        /// changed at all.
        mode: EditMode,
        /// In order; a later op may refer to an earlier insert.
        ops: Vec<BlockOp>,
        /// What the proposer's merge could not unite.
        conflicts: Vec<NewConflict>,
    },
    /// Sets runtime fields of a task. Setting is idempotent; status and check mark follow each other.
    SetTask {
        /// Which.
        task: RecordId,
        /// Stale if the task's record changed after this revision.
        expected: Option<Revision>,
        /// What is set.
        fields: Vec<TaskField>,
        /// The mark that shows the new status in the dialect of the task's file. `None` = `x` for done and a blank for what was done
        /// and isn't any more.
        mark: Option<String>,
    },
    /// Takes a task for a while, or takes it for longer: compare-and-set, so that two never have it. Rejected as `Claimed` where somebody
    /// else has it and their lease, by cluster time, isn't over.
    Claim {
        /// Which.
        task: RecordId,
        /// Who takes it.
        holder: String,
        /// For how long from now, in milliseconds; see [`crate::limits::LEASE_MS_MAX`].
        lease_ms: u64,
        /// Set together with it, as in `SetTask`.
        fields: Vec<TaskField>,
        /// As in `SetTask`.
        mark: Option<String>,
    },
    /// Gives a task back; nothing where nobody has it.
    Release {
        /// Which.
        task: RecordId,
        /// Only where they have it (else `Claimed`); `None` = whoever has it.
        holder: Option<String>,
    },
    /// Says something about a task, beside its text.
    Comment {
        /// Which.
        task: RecordId,
        /// What.
        text: String,
    },
    /// Names a revision, so that the state can be read as of it and be put back to it.
    CreatePoint {
        /// Unique among live points.
        name: String,
        /// The revision; `None` = the one before this entry.
        at: Option<Revision>,
        /// Why it was made.
        note: String,
        /// Made by the system before something that may want to be undone. One that has this name and names this revision already is it.
        is_automatic: bool,
    },
    /// Forgets the name of a revision; nothing where it is gone already.
    RemovePoint {
        /// Which.
        point: RecordId,
    },
    /// How a project treats conflicts, statuses and marks.
    SetPolicy {
        /// Which project.
        project: RecordId,
        /// Stale if the policy changed after this revision.
        expected: Option<Revision>,
        /// From now on.
        policy: Policy,
    },
    /// Does what `body` asks, if everything that is named is as the caller saw it; else `Stale`, and nothing happens.
    Expecting {
        /// All of them must hold.
        expected: Vec<Expected>,
        /// Not a session's, nor another one of these.
        body: Box<Body>,
    },
    /// Several commands as one: all happen, in order and at one revision, or none; the first that can't be done is the answer. None of
    /// them is a group or a rollback, expects versions, or is about a session; the group itself may expect versions.
    Group {
        /// The commands; what each creates stands in the outcome one after the other.
        bodies: Vec<Body>,
    },
    /// Makes the state of a scope equal to what it was at an older revision, in one new revision (docs/adr/0013). A rollback point is made
    /// with it, so that going back to that one undoes it; its id is in the outcome's `created`. Nothing where the state is so already.
    Rollback {
        /// What goes back.
        scope: Scope,
        /// To where.
        to: Revision,
        /// Stale if anything in the scope changed after this revision; `None` = what changed since the author looked goes back too.
        expected: Option<Revision>,
    },
    /// Says how much of the history is kept. What is let go of, and when, follows by [`Body::Compact`].
    SetRetention {
        /// From now on.
        keep: Keep,
    },
    /// Lets go of the history before a revision, which can be read on: older ones can't, and nothing that was deleted by then is known any
    /// more. Nothing where it begins later already. Rejected where a point that somebody made names an older revision; those that the
    /// system made go with it.
    Compact {
        /// The oldest revision from now on.
        to: Revision,
        /// The cluster's time there, as the proposer read it; only what a time means depends on it.
        time: ClusterTime,
    },
}

/// The newest version of something that a caller has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// A task stands for itself, a change for its text with all fields, a project for its policy and its list of changes; any other record
    /// for itself.
    pub record: RecordId,
    /// Stale if it changed after this revision.
    pub revision: Revision,
}

impl Body {
    /// Whether the command is to be the first of its entry, since it may name the revision before the entry as the state before it.
    #[must_use]
    pub fn begins_entry(&self) -> bool {
        match self {
            Self::Rollback { .. } | Self::DeleteChange { .. } => true,
            Self::Edit { ops, .. } => {
                let deletions = ops.iter().filter(|op| matches!(op, BlockOp::Delete { .. }));
                deletions.take(limits::MASS_DELETION_BLOCKS).count() == limits::MASS_DELETION_BLOCKS
                    || ops.iter().any(|op| matches!(op, BlockOp::Resolve { .. }))
            }
            Self::Expecting { body, .. } => body.begins_entry(),
            Self::Group { bodies } => bodies.iter().any(Self::begins_entry),
            Self::OpenSession
            | Self::CloseSession
            | Self::CreateProject { .. }
            | Self::CreateChange { .. }
            | Self::MoveChange { .. }
            | Self::SetTask { .. }
            | Self::Claim { .. }
            | Self::Release { .. }
            | Self::Comment { .. }
            | Self::CreatePoint { .. }
            | Self::RemovePoint { .. }
            | Self::SetPolicy { .. }
            | Self::SetRetention { .. }
            | Self::Compact { .. } => false,
        }
    }
}

/// What a rollback is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Every project.
    All,
    /// A project: its policy and all changes that it has or had.
    Project(RecordId),
    /// One change.
    Change(RecordId),
}

/// How an edit treats what happened since its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EditMode {
    /// Independent edits unite.
    Merge,
    /// Any change since the base is stale.
    Strict,
}

/// A block that doesn't exist yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlock {
    /// `zyflow_spec::BlockKind` as its stored code.
    pub kind: u8,
    /// For a task, all up to and including `[`.
    pub lead: String,
    /// For a task, what stands between the brackets.
    pub mark: String,
    /// The rest, line end included.
    pub text: String,
}

/// Where a block goes among its siblings. Several blocks that one edit puts behind the same anchor stand in the order of its
/// operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Anchor {
    /// Before all others.
    Start,
    /// Right after this block (a deleted one keeps its place).
    After(RecordId),
    /// Right after the n-th insert (from 0) of this same command.
    AfterNew(u32),
}

/// A block that is there, or one that the same command makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BlockRef {
    /// One that is there.
    Known(RecordId),
    /// The n-th (from 0) that this same command has made.
    New(u32),
}

/// One change of a change's text, or of what it says about tasks and conflicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockOp {
    /// A new block.
    Insert {
        /// Where.
        after: Anchor,
        /// What.
        block: NewBlock,
    },
    /// Other words in a block (also another lead or kind). A task that becomes another kind loses mark and runtime fields.
    SetText {
        /// Which.
        block: RecordId,
        /// Its kind from now on.
        kind: u8,
        /// Its lead from now on.
        lead: String,
        /// Its text from now on.
        text: String,
    },
    /// Another check mark; status follows: `x`/`X` means done, and leaving done means `status` or todo. Another status that was
    /// set elsewhere stays unless `status` says otherwise. Only a task has a mark.
    SetMark {
        /// Which.
        block: RecordId,
        /// What stands between the brackets from now on.
        mark: String,
        /// What the mark means in the proposer's dialect; `None` = only `x` and not `x` mean something.
        status: Option<Status>,
    },
    /// Another place.
    Move {
        /// Which.
        block: RecordId,
        /// Where to.
        after: Anchor,
    },
    /// Away.
    Delete {
        /// Which.
        block: RecordId,
    },
    /// What the text says of a task's runtime fields, where that changed. Leaves the mark alone. [`TaskField::BlockedBy`] isn't taken
    /// here, as the text names tasks that may not be there yet.
    SetFields {
        /// Which task.
        block: BlockRef,
        /// What is set.
        fields: Vec<TaskField>,
    },
    /// The tasks that must be done before, as the text says. Where it would close a circle or names no task, nothing is set
    /// and a conflict of the class dependency is recorded: a text is never refused for what it says.
    SetBlockers {
        /// Which task.
        block: BlockRef,
        /// All of them from now on.
        on: BTreeSet<BlockRef>,
    },
    /// Closes an open conflict. The operations before it make its value stand.
    Resolve {
        /// Which.
        conflict: RecordId,
        /// How.
        settlement: Settlement,
    },
}

/// A conflict that the proposer found while merging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewConflict {
    /// The block it is about, where that is one.
    pub block: Option<RecordId>,
    /// What kind of disagreement.
    pub class: ConflictClass,
    /// One of [`crate::record::CONFLICT_FIELDS`].
    pub field: String,
    /// The value both started from.
    pub base: Option<String>,
    /// The value from the file.
    pub spec: Option<String>,
    /// The value that the cluster had.
    pub runtime: Option<String>,
    /// How the project's policy settled it at once; `None` = it waits for somebody.
    pub settlement: Option<Settlement>,
}

/// One runtime field with its new value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskField {
    /// Where the work stands; the check mark follows.
    Status(Status),
    /// Who works on it.
    Assignee(Option<String>),
    /// How urgent it is.
    Priority(Option<Priority>),
    /// When it is due, `YYYY-MM-DD`.
    Due(Option<String>),
    /// Free words.
    Labels(BTreeSet<String>),
    /// What must be done before.
    BlockedBy(BTreeSet<RecordId>),
    /// Free text.
    Note(String),
    /// What it fulfils, as written in its file.
    Requirements(BTreeSet<String>),
}

impl TaskField {
    /// Its name, as in conflicts and stale answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Assignee(_) => "assignee",
            Self::Priority(_) => "priority",
            Self::Due(_) => "due",
            Self::Labels(_) => "labels",
            Self::BlockedBy(_) => "blocked-by",
            Self::Note(_) => "note",
            Self::Requirements(_) => "requirements",
        }
    }
}
