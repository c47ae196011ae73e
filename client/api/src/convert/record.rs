//! Records: what travels in the answer to a query.

use super::ids::{byte, conflict_class, optional_id, priority, record_id, record_ids, status};
use super::{ConvertError, required};
use crate::v1;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Block, Change, Conflict, Field, OrderKey, Project, TaskFields};

impl From<Project> for v1::ProjectRecord {
    fn from(project: Project) -> Self {
        Self { name: project.name, files: project.files }
    }
}

impl From<v1::ProjectRecord> for Project {
    fn from(project: v1::ProjectRecord) -> Self {
        Self { name: project.name, files: project.files }
    }
}

impl From<Change> for v1::ChangeRecord {
    fn from(change: Change) -> Self {
        Self { project: change.project.to_u64(), path: change.path }
    }
}

impl TryFrom<v1::ChangeRecord> for Change {
    type Error = ConvertError;

    fn try_from(change: v1::ChangeRecord) -> Result<Self, ConvertError> {
        Ok(Self { project: record_id("change.project", change.project)?, path: change.path })
    }
}

impl From<Block> for v1::BlockRecord {
    fn from(block: Block) -> Self {
        Self {
            change: block.change.to_u64(),
            kind: block.kind.into(),
            order: block.order.value.0,
            order_at: block.order.at.0,
            lead: block.lead,
            mark: block.mark.value,
            mark_at: block.mark.at.0,
            text: block.text.value,
            text_at: block.text.at.0,
            task: block.task.map(|task| (*task).into()),
        }
    }
}

impl TryFrom<v1::BlockRecord> for Block {
    type Error = ConvertError;

    fn try_from(block: v1::BlockRecord) -> Result<Self, ConvertError> {
        Ok(Self {
            change: record_id("block.change", block.change)?,
            kind: byte("block.kind", block.kind)?,
            order: Field::new(OrderKey(block.order), Revision(block.order_at)),
            lead: block.lead,
            mark: Field::new(block.mark, Revision(block.mark_at)),
            text: Field::new(block.text, Revision(block.text_at)),
            task: block.task.map(|task| task.try_into().map(Box::new)).transpose()?,
        })
    }
}

impl From<TaskFields> for v1::TaskRecord {
    fn from(task: TaskFields) -> Self {
        Self {
            status: v1::TaskStatus::from(task.status.value).into(),
            status_at: task.status.at.0,
            assignee: task.assignee.value,
            assignee_at: task.assignee.at.0,
            priority: task.priority.value.map(|priority| v1::Priority::from(priority).into()),
            priority_at: task.priority.at.0,
            due: task.due.value,
            due_at: task.due.at.0,
            labels: task.labels.value.into_iter().collect(),
            labels_at: task.labels.at.0,
            blocked_by: task.blocked_by.value.into_iter().map(RecordId::to_u64).collect(),
            blocked_by_at: task.blocked_by.at.0,
            note: task.note.value,
            note_at: task.note.at.0,
        }
    }
}

impl TryFrom<v1::TaskRecord> for TaskFields {
    type Error = ConvertError;

    fn try_from(task: v1::TaskRecord) -> Result<Self, ConvertError> {
        Ok(Self {
            status: Field::new(status(task.status)?, Revision(task.status_at)),
            assignee: Field::new(task.assignee, Revision(task.assignee_at)),
            priority: Field::new(task.priority.map(priority).transpose()?, Revision(task.priority_at)),
            due: Field::new(task.due, Revision(task.due_at)),
            labels: Field::new(task.labels.into_iter().collect(), Revision(task.labels_at)),
            blocked_by: Field::new(record_ids("task.blocked_by", task.blocked_by)?, Revision(task.blocked_by_at)),
            note: Field::new(task.note, Revision(task.note_at)),
        })
    }
}

impl From<Conflict> for v1::ConflictRecord {
    fn from(conflict: Conflict) -> Self {
        Self {
            change: conflict.change.to_u64(),
            block: conflict.block.map(RecordId::to_u64),
            class: v1::ConflictClass::from(conflict.class).into(),
            field: conflict.field,
            base: conflict.base,
            spec: conflict.spec,
            runtime: conflict.runtime,
            author: conflict.author,
            resolved_at: conflict.resolved_at.map(|revision| revision.0),
        }
    }
}

impl TryFrom<v1::ConflictRecord> for Conflict {
    type Error = ConvertError;

    fn try_from(conflict: v1::ConflictRecord) -> Result<Self, ConvertError> {
        Ok(Self {
            change: record_id("conflict.change", conflict.change)?,
            block: optional_id("conflict.block", conflict.block)?,
            class: conflict_class(conflict.class)?,
            field: conflict.field,
            base: conflict.base,
            spec: conflict.spec,
            runtime: conflict.runtime,
            author: conflict.author,
            resolved_at: conflict.resolved_at.map(Revision),
        })
    }
}

/// A block as it travels in a document, with its id.
impl TryFrom<v1::Block> for (RecordId, Block) {
    type Error = ConvertError;

    fn try_from(block: v1::Block) -> Result<Self, ConvertError> {
        Ok((record_id("block.id", block.id)?, required("block.record", block.record)?.try_into()?))
    }
}
