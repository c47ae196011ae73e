//! From an event and the record as it was to the version of the row that it makes. Decides nothing: what it is told has happened.

use crate::command::{NewBlock, TaskField};
use crate::event::{Event, Fact, RowChange};
use crate::id::{EventId, RecordId, Revision};
use crate::record::{
    Block, Change, Conflict, Field, KIND_TASK, Kind, OrderKey, Project, Record, Retention, Status, TaskFields,
};
use crate::view::Stored;

/// An event that can't have happened to the record it names: rows and events don't belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event} doesn't fit the record it is about")]
pub struct Misfit {
    /// Which event.
    pub event: EventId,
}

/// The version of the row that `event` makes of `current`, the newest version before it.
///
/// # Errors
/// [`Misfit`] where the event is about another kind of record, changes a deleted one without restoring it, or creates one that exists.
pub fn evolve(event: Event, current: Option<&Stored>) -> Result<RowChange, Misfit> {
    let misfit = Misfit { event: event.id };
    let at = event.id.revision();
    let record = match (created(&event.fact, at), current) {
        (Some(record), None) => Some(record),
        (None, Some(Stored { record: Some(record), .. })) => changed(record, &event.fact, at).ok_or(misfit)?.live(),
        (None, Some(gone)) => Some(revived(gone, &event.fact, at).ok_or(misfit)?),
        (Some(_), Some(_)) | (None, None) => return Err(misfit),
    };
    let previous = current.map(|stored| stored.version);
    let (kind, parent, order) = match (&record, current) {
        (None, Some(stored)) => (stored.kind, stored.parent, stored.order.clone()),
        (Some(record), _) => (record.kind(), record.parent(), record.order(event.record)),
        (None, None) => return Err(Misfit { event: event.id }),
    };
    Ok(RowChange { version: event.id, id: event.record, kind, parent, order, record, previous, fact: event.fact })
}

/// What became of a record.
#[expect(clippy::large_enum_variant, reason = "it lives for one call, and a box would be an allocation a row")]
enum Fate {
    Lives(Record),
    Gone,
}

impl Fate {
    fn live(self) -> Option<Record> {
        match self {
            Self::Lives(record) => Some(record),
            Self::Gone => None,
        }
    }
}

/// The record that a creating fact makes.
fn created(fact: &Fact, at: Revision) -> Option<Record> {
    match fact {
        Fact::ProjectCreated { name, files } => {
            Some(Record::Project(Project { name: name.clone(), files: files.clone(), policy: Field::default() }))
        }
        Fact::ChangeCreated { project, path } => Some(Record::Change(Change { project: *project, path: path.clone() })),
        Fact::BlockInserted { change, order, block, status } => Some(Record::Block(Block {
            change: *change,
            kind: block.kind,
            order: Field::new(order.clone(), at),
            lead: block.lead.clone(),
            mark: Field::new(block.mark.clone(), at),
            text: Field::new(block.text.clone(), at),
            task: status.map(|status| new_task(status, at)),
        })),
        Fact::ConflictRecorded(conflict) => Some(Record::Conflict(conflict.clone())),
        Fact::Commented(comment) => Some(Record::Comment(comment.clone())),
        Fact::PointCreated(point) => Some(Record::Point(point.clone())),
        Fact::RetentionCreated(keep) => Some(Record::Retention(Retention { keep: *keep, ..Retention::default() })),
        Fact::Restored(restore) => Some(Record::Restore(*restore)),
        Fact::ChangeDeleted
        | Fact::ChangeMoved { .. }
        | Fact::PolicySet(_)
        | Fact::BlockTextSet { .. }
        | Fact::BlockMarked { .. }
        | Fact::BlockMoved { .. }
        | Fact::BlockDeleted
        | Fact::TaskSet { .. }
        | Fact::Claimed { .. }
        | Fact::Released
        | Fact::ConflictSettled(_)
        | Fact::PointRemoved
        | Fact::ChangeRestored { .. }
        | Fact::BlockRestored { .. }
        | Fact::ConflictRestored { .. }
        | Fact::RetentionSet(_)
        | Fact::HorizonMoved { .. } => None,
    }
}

/// The record that was deleted, as the fact says that it was; `None` where it doesn't say so.
fn revived(gone: &Stored, fact: &Fact, at: Revision) -> Option<Record> {
    match (gone.kind, fact) {
        (Kind::Change, Fact::ChangeRestored { path }) => {
            Some(Record::Change(Change { project: gone.parent, path: path.clone() }))
        }
        (Kind::Block, Fact::BlockRestored { order, block, fields }) => {
            Some(Record::Block(restored(gone.parent, order, block, fields, at)))
        }
        (
            Kind::Project
            | Kind::Change
            | Kind::Block
            | Kind::Conflict
            | Kind::Comment
            | Kind::Point
            | Kind::Retention
            | Kind::Restore,
            _,
        ) => None,
    }
}

/// What becomes of a live record; `None` where the fact isn't about such a one.
fn changed(record: &Record, fact: &Fact, at: Revision) -> Option<Fate> {
    match (record, fact) {
        (Record::Change(_), Fact::ChangeDeleted)
        | (Record::Block(_), Fact::BlockDeleted)
        | (Record::Point(_), Fact::PointRemoved) => Some(Fate::Gone),
        (Record::Block(block), fact) => {
            changed_block(block.clone(), fact, at).map(|block| Fate::Lives(Record::Block(block)))
        }
        (Record::Change(change), Fact::ChangeMoved { path } | Fact::ChangeRestored { path }) => {
            Some(Fate::Lives(Record::Change(Change { path: path.clone(), ..change.clone() })))
        }
        (Record::Project(project), Fact::PolicySet(policy)) => {
            let policy = Field::new(policy.clone(), at);
            Some(Fate::Lives(Record::Project(Project { policy, ..project.clone() })))
        }
        (Record::Conflict(conflict @ Conflict { settled: None, .. }), Fact::ConflictSettled(settled)) => {
            Some(Fate::Lives(Record::Conflict(Conflict { settled: Some(settled.clone()), ..conflict.clone() })))
        }
        (Record::Conflict(conflict), Fact::ConflictRestored { settled }) => {
            Some(Fate::Lives(Record::Conflict(Conflict { settled: settled.clone(), ..conflict.clone() })))
        }
        (Record::Retention(retention), Fact::RetentionSet(keep)) => {
            Some(Fate::Lives(Record::Retention(Retention { keep: *keep, ..*retention })))
        }
        (Record::Retention(retention), Fact::HorizonMoved { to, time }) => {
            let moved = Retention { horizon: *to, horizon_time: *time, ..*retention };
            Some(Fate::Lives(Record::Retention(moved)))
        }
        (
            Record::Project(_)
            | Record::Change(_)
            | Record::Conflict(_)
            | Record::Comment(_)
            | Record::Point(_)
            | Record::Retention(_)
            | Record::Restore(_),
            _,
        ) => None,
    }
}

fn changed_block(mut block: Block, fact: &Fact, at: Revision) -> Option<Block> {
    match fact {
        Fact::BlockTextSet { kind, lead, text } => {
            set_kind(&mut block, *kind, at);
            block.lead.clone_from(lead);
            block.text = Field::new(text.clone(), at);
        }
        Fact::BlockMarked { mark, status } => {
            set_mark(&mut block, mark, at);
            if let Some(status) = status {
                block.task.as_mut()?.status = Field::new(*status, at);
            }
        }
        Fact::BlockMoved { order } => block.order = Field::new(order.clone(), at),
        Fact::TaskSet { fields, mark } => set_task(&mut block, fields, mark.as_deref(), at)?,
        Fact::Claimed { claim, fields, mark } => {
            block.task.as_mut()?.claim = Field::new(Some(claim.clone()), at);
            set_task(&mut block, fields, mark.as_deref(), at)?;
        }
        Fact::Released => block.task.as_mut()?.claim = Field::new(None, at),
        Fact::BlockRestored { order, block: was, fields } => {
            let mut restored = restored(block.change, order, was, fields, at);
            keep_equal(&mut restored, block);
            return Some(restored);
        }
        Fact::ProjectCreated { .. }
        | Fact::ChangeCreated { .. }
        | Fact::ChangeMoved { .. }
        | Fact::ChangeDeleted
        | Fact::PolicySet(_)
        | Fact::BlockInserted { .. }
        | Fact::BlockDeleted
        | Fact::ConflictRecorded(_)
        | Fact::ConflictSettled(_)
        | Fact::Commented(_)
        | Fact::PointCreated(_)
        | Fact::PointRemoved
        | Fact::ChangeRestored { .. }
        | Fact::ConflictRestored { .. }
        | Fact::RetentionCreated(_)
        | Fact::RetentionSet(_)
        | Fact::HorizonMoved { .. }
        | Fact::Restored(_) => return None,
    }
    Some(block)
}

/// A block as it was, all of it set at `at`, so that edits made from an older base are held against it.
fn restored(change: RecordId, order: &OrderKey, block: &NewBlock, fields: &[TaskField], at: Revision) -> Block {
    let task = (block.kind == KIND_TASK).then(|| {
        let mut task = TaskFields::default();
        for field in TaskFields::default().values().iter().chain(fields) {
            task.set(field, at);
        }
        Box::new(task)
    });
    Block {
        change,
        kind: block.kind,
        order: Field::new(order.clone(), at),
        lead: block.lead.clone(),
        mark: Field::new(block.mark.clone(), at),
        text: Field::new(block.text.clone(), at),
        task,
    }
}

/// What a restored block has in common with what it was a moment before keeps the revision that set it; so does the claim.
fn keep_equal(restored: &mut Block, before: Block) {
    let is_same_text =
        (restored.kind, &restored.lead, &restored.text.value) == (before.kind, &before.lead, &before.text.value);
    if is_same_text {
        restored.text.at = before.text.at;
    }
    if restored.order.value == before.order.value {
        restored.order.at = before.order.at;
    }
    if restored.mark.value == before.mark.value {
        restored.mark.at = before.mark.at;
    }
    let (Some(task), Some(before)) = (&mut restored.task, before.task) else { return };
    for field in before.values() {
        if task.has(&field) {
            task.set(&field, before.at(&field));
        }
    }
    task.claim = before.claim;
}

/// `None` where the block is no task.
fn set_task(block: &mut Block, fields: &[TaskField], mark: Option<&str>, at: Revision) -> Option<()> {
    let task = block.task.as_mut()?;
    for field in fields {
        task.set(field, at);
    }
    if let Some(mark) = mark {
        set_mark(block, mark, at);
    }
    Some(())
}

/// A status may change while the mark stays: then the mark keeps the revision that last changed it.
fn set_mark(block: &mut Block, mark: &str, at: Revision) {
    if block.mark.value != mark {
        block.mark = Field::new(mark.to_owned(), at);
    }
}

/// A block that stops being a task loses its mark and its runtime fields; one that becomes a task starts as a new one.
fn set_kind(block: &mut Block, kind: u8, at: Revision) {
    if kind == KIND_TASK && block.task.is_none() {
        block.task = Some(new_task(Status::Todo, at));
    } else if kind != KIND_TASK && block.task.is_some() {
        block.task = None;
        set_mark(block, "", at);
    }
    block.kind = kind;
}

fn new_task(status: Status, at: Revision) -> Box<TaskFields> {
    Box::new(TaskFields { status: Field::new(status, at), ..TaskFields::default() })
}

impl Kind {
    /// What people call a record of that kind.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Change => "change",
            Self::Block => "block",
            Self::Conflict => "conflict",
            Self::Comment => "comment",
            Self::Point => "rollback point",
            Self::Retention => "retention",
            Self::Restore => "restore",
        }
    }
}
