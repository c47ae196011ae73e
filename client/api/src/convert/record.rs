//! Records: what travels in the answer to a query.

use super::ids::{byte, conflict_class, optional_id, priority, record_id, record_ids, status};
use super::{ConvertError, required};
use crate::v1;
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::record::{Block, Change, Comment, Conflict, Field, OrderKey, Point, Project, TaskFields};

impl From<Project> for v1::ProjectRecord {
    fn from(project: Project) -> Self {
        Self {
            name: project.name,
            files: project.files,
            policy: Some(project.policy.value.into()),
            policy_at: project.policy.at.0,
        }
    }
}

impl TryFrom<v1::ProjectRecord> for Project {
    type Error = ConvertError;

    fn try_from(project: v1::ProjectRecord) -> Result<Self, ConvertError> {
        let policy = required("project.policy", project.policy)?.try_into()?;
        Ok(Self { name: project.name, files: project.files, policy: Field::new(policy, Revision(project.policy_at)) })
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
            requirements: task.requirements.value.into_iter().collect(),
            requirements_at: task.requirements.at.0,
            claim: task.claim.value.map(Into::into),
            claim_at: task.claim.at.0,
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
            requirements: Field::new(task.requirements.into_iter().collect(), Revision(task.requirements_at)),
            claim: Field::new(task.claim.map(Into::into), Revision(task.claim_at)),
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
            settled: conflict.settled.map(Into::into),
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
            settled: conflict.settled.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Comment> for v1::CommentRecord {
    fn from(comment: Comment) -> Self {
        Self { task: comment.task.to_u64(), author: comment.author, time_ms: comment.time.0, text: comment.text }
    }
}

impl TryFrom<v1::CommentRecord> for Comment {
    type Error = ConvertError;

    fn try_from(comment: v1::CommentRecord) -> Result<Self, ConvertError> {
        Ok(Self {
            task: record_id("comment.task", comment.task)?,
            author: comment.author,
            time: ClusterTime(comment.time_ms),
            text: comment.text,
        })
    }
}

impl From<Point> for v1::PointRecord {
    fn from(point: Point) -> Self {
        Self {
            name: point.name,
            revision: point.revision.0,
            note: point.note,
            author: point.author,
            time_ms: point.time.0,
            automatic: point.is_automatic,
        }
    }
}

impl From<v1::PointRecord> for Point {
    fn from(point: v1::PointRecord) -> Self {
        Self {
            name: point.name,
            revision: Revision(point.revision),
            note: point.note,
            author: point.author,
            time: ClusterTime(point.time_ms),
            is_automatic: point.automatic,
        }
    }
}

/// A block as it travels in a document, with its id.
impl TryFrom<v1::Block> for (RecordId, Block) {
    type Error = ConvertError;

    fn try_from(block: v1::Block) -> Result<Self, ConvertError> {
        Ok((record_id("block.id", block.id)?, required("block.record", block.record)?.try_into()?))
    }
}
