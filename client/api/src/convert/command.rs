//! Commands: what travels in a `ProposeRequest`.

use super::ids::{byte, conflict_class, optional_id, priority, record_id, record_ids, status};
use super::{ConvertError, required};
use crate::v1;
use std::time::Duration;
use v1::propose_request as request;
use zyflow_machine::command::{
    Anchor, BlockOp, BlockRef, Body, Command, EditMode, Expected, NewBlock, NewConflict, Scope, TaskField,
};
use zyflow_machine::id::{ClusterTime, RecordId, Revision};

/// A command on its way: with the number that its answer will carry, and the time that its sender waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Unique among the sender's outstanding calls on the stream.
    pub call: u64,
    /// How long the sender waits from receipt on, in whole milliseconds; `None` = as long as the server likes.
    pub deadline: Option<Duration>,
    /// What is asked.
    pub command: Command,
}

impl From<Call> for v1::ProposeRequest {
    fn from(call: Call) -> Self {
        // A deadline under a millisecond must not become 0, which means none.
        let deadline_ms = call.deadline.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        let (expected, body) = split(call.command.body);
        Self {
            call: call.call,
            request_id: call.command.request.map(Into::into),
            author: Some(call.command.author.into()),
            deadline_ms,
            expected: expected.into_iter().map(Into::into).collect(),
            body: Some(body.into()),
        }
    }
}

impl TryFrom<v1::ProposeRequest> for Call {
    type Error = ConvertError;

    fn try_from(request: v1::ProposeRequest) -> Result<Self, ConvertError> {
        let body: Body = required("body", request.body)?.try_into()?;
        let expected = all::<_, Expected>(request.expected)?;
        let command = Command {
            request: request.request_id.map(TryInto::try_into).transpose()?,
            author: request.author.unwrap_or_default().into(),
            body: if expected.is_empty() { body } else { Body::Expecting { expected, body: Box::new(body) } },
        };
        let deadline = (request.deadline_ms > 0).then(|| Duration::from_millis(request.deadline_ms));
        Ok(Self { call: request.call, deadline, command })
    }
}

/// What a body expects, and what it does then.
fn split(body: Body) -> (Vec<Expected>, Body) {
    let Body::Expecting { mut expected, body } = body else { return (Vec::new(), body) };
    let (more, body) = split(*body);
    expected.extend(more);
    (expected, body)
}

impl From<Expected> for v1::Expected {
    fn from(expected: Expected) -> Self {
        Self { record: expected.record.to_u64(), revision: expected.revision.0 }
    }
}

impl TryFrom<v1::Expected> for Expected {
    type Error = ConvertError;

    fn try_from(expected: v1::Expected) -> Result<Self, ConvertError> {
        let record = record_id("expected.record", expected.record)?;
        Ok(Self { record, revision: Revision(expected.revision) })
    }
}

impl From<Body> for request::Body {
    fn from(body: Body) -> Self {
        match body {
            Body::OpenSession => Self::OpenSession(v1::Nothing {}),
            Body::CloseSession => Self::CloseSession(v1::Nothing {}),
            Body::CreateProject { name, files } => Self::CreateProject(request::CreateProject { name, files }),
            Body::CreateChange { project, path, blocks, ops } => Self::CreateChange(request::CreateChange {
                project: project.to_u64(),
                path,
                blocks: blocks.into_iter().map(Into::into).collect(),
                ops: ops.into_iter().map(Into::into).collect(),
            }),
            Body::MoveChange { change, path, from } => {
                Self::MoveChange(request::MoveChange { change: change.to_u64(), path, from })
            }
            Body::DeleteChange { change, base } => {
                Self::DeleteChange(request::DeleteChange { change: change.to_u64(), base: base.0 })
            }
            Body::Edit { change, base, mode, ops, conflicts } => Self::Edit(request::Edit {
                change: change.to_u64(),
                base: base.0,
                mode: request::EditMode::from(mode).into(),
                ops: ops.into_iter().map(Into::into).collect(),
                conflicts: conflicts.into_iter().map(Into::into).collect(),
            }),
            Body::SetTask { task, expected, fields, mark } => Self::SetTask(request::SetTask {
                task: task.to_u64(),
                expected: expected.map(|revision| revision.0),
                fields: fields.into_iter().map(Into::into).collect(),
                mark,
            }),
            Body::Claim { task, holder, lease_ms, fields, mark } => Self::Claim(request::ClaimTask {
                task: task.to_u64(),
                holder,
                lease_ms,
                fields: fields.into_iter().map(Into::into).collect(),
                mark,
            }),
            Body::Release { task, holder } => Self::Release(request::ReleaseTask { task: task.to_u64(), holder }),
            Body::Comment { task, text } => Self::Comment(request::CommentTask { task: task.to_u64(), text }),
            Body::CreatePoint { name, at, note, is_automatic } => Self::CreatePoint(request::CreatePoint {
                name,
                at: at.map(|revision| revision.0),
                note,
                automatic: is_automatic,
            }),
            Body::RemovePoint { point } => Self::RemovePoint(request::RemovePoint { point: point.to_u64() }),
            // What it expects travels beside it.
            Body::Expecting { body, .. } => (*body).into(),
            Body::SetPolicy { project, expected, policy } => Self::SetPolicy(request::SetPolicy {
                project: project.to_u64(),
                expected: expected.map(|revision| revision.0),
                policy: Some(policy.into()),
            }),
            Body::Group { bodies } => Self::Group(request::Group { commands: bodies.into_iter().map(part).collect() }),
            Body::Rollback { scope, to, expected } => Self::Rollback(request::Rollback {
                to: to.0,
                expected: expected.map(|revision| revision.0),
                scope: Some(scope.into()),
            }),
            Body::SetRetention { keep } => Self::SetRetention(keep.into()),
            Body::Compact { to, time } => Self::Compact(request::Compact { to: to.0, time_ms: time.0 }),
        }
    }
}

/// A body alone, as a part of a group or as something that is yet to be proposed.
#[must_use]
pub fn part(body: Body) -> v1::ProposeRequest {
    v1::ProposeRequest { body: Some(body.into()), ..Default::default() }
}

fn parts(commands: Vec<v1::ProposeRequest>) -> Result<Vec<Body>, ConvertError> {
    let body = |command: v1::ProposeRequest| {
        let body = required("group.commands.body", command.body)?;
        let is_nested = matches!(body, request::Body::Group(_));
        if is_nested { Err(ConvertError::Nested { field: "group.commands" }) } else { body.try_into() }
    };
    commands.into_iter().map(body).collect()
}

impl TryFrom<request::Body> for Body {
    type Error = ConvertError;

    fn try_from(body: request::Body) -> Result<Self, ConvertError> {
        Ok(match body {
            request::Body::OpenSession(_) => Self::OpenSession,
            request::Body::CloseSession(_) => Self::CloseSession,
            request::Body::CreateProject(create) => Self::CreateProject { name: create.name, files: create.files },
            request::Body::CreateChange(create) => Self::CreateChange {
                project: record_id("create_change.project", create.project)?,
                path: create.path,
                blocks: all(create.blocks)?,
                ops: all(create.ops)?,
            },
            request::Body::MoveChange(moved) => Self::MoveChange {
                change: record_id("move_change.change", moved.change)?,
                path: moved.path,
                from: moved.from,
            },
            request::Body::DeleteChange(delete) => Self::DeleteChange {
                change: record_id("delete_change.change", delete.change)?,
                base: Revision(delete.base),
            },
            request::Body::Edit(edit) => Self::Edit {
                change: record_id("edit.change", edit.change)?,
                base: Revision(edit.base),
                mode: edit_mode(edit.mode)?,
                ops: all(edit.ops)?,
                conflicts: all(edit.conflicts)?,
            },
            request::Body::SetTask(set) => Self::SetTask {
                task: record_id("set_task.task", set.task)?,
                expected: set.expected.map(Revision),
                fields: all(set.fields)?,
                mark: set.mark,
            },
            request::Body::Claim(claim) => Self::Claim {
                task: record_id("claim.task", claim.task)?,
                holder: claim.holder,
                lease_ms: claim.lease_ms,
                fields: all(claim.fields)?,
                mark: claim.mark,
            },
            request::Body::Release(release) => {
                Self::Release { task: record_id("release.task", release.task)?, holder: release.holder }
            }
            request::Body::Comment(comment) => {
                Self::Comment { task: record_id("comment.task", comment.task)?, text: comment.text }
            }
            request::Body::CreatePoint(point) => Self::CreatePoint {
                name: point.name,
                at: point.at.map(Revision),
                note: point.note,
                is_automatic: point.automatic,
            },
            request::Body::RemovePoint(remove) => {
                Self::RemovePoint { point: record_id("remove_point.point", remove.point)? }
            }
            request::Body::SetPolicy(set) => Self::SetPolicy {
                project: record_id("set_policy.project", set.project)?,
                expected: set.expected.map(Revision),
                policy: required("set_policy.policy", set.policy)?.try_into()?,
            },
            request::Body::Group(group) => Self::Group { bodies: parts(group.commands)? },
            request::Body::Rollback(rollback) => Self::Rollback {
                scope: required("rollback.scope", rollback.scope)?.try_into()?,
                to: Revision(rollback.to),
                expected: rollback.expected.map(Revision),
            },
            request::Body::SetRetention(keep) => Self::SetRetention { keep: keep.into() },
            request::Body::Compact(it) => Self::Compact { to: Revision(it.to), time: ClusterTime(it.time_ms) },
        })
    }
}

impl From<Scope> for request::rollback::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::All => Self::All(v1::Nothing {}),
            Scope::Project(id) => Self::Project(id.to_u64()),
            Scope::Change(id) => Self::Change(id.to_u64()),
        }
    }
}

impl TryFrom<request::rollback::Scope> for Scope {
    type Error = ConvertError;

    fn try_from(scope: request::rollback::Scope) -> Result<Self, ConvertError> {
        Ok(match scope {
            request::rollback::Scope::All(_) => Self::All,
            request::rollback::Scope::Project(id) => Self::Project(record_id("rollback.project", id)?),
            request::rollback::Scope::Change(id) => Self::Change(record_id("rollback.change", id)?),
        })
    }
}

/// The body in a request of which only that counts.
///
/// # Errors
/// There is none, or it can't be read.
pub fn body_of(request: v1::ProposeRequest) -> Result<Body, ConvertError> {
    required("body", request.body)?.try_into()
}

pub(super) fn all<A, B: TryFrom<A, Error = ConvertError>>(items: Vec<A>) -> Result<Vec<B>, ConvertError> {
    items.into_iter().map(B::try_from).collect()
}

impl From<EditMode> for request::EditMode {
    fn from(mode: EditMode) -> Self {
        match mode {
            EditMode::Merge => Self::Merge,
            EditMode::Strict => Self::Strict,
        }
    }
}

fn edit_mode(value: i32) -> Result<EditMode, ConvertError> {
    match request::EditMode::try_from(value) {
        Ok(request::EditMode::Merge) => Ok(EditMode::Merge),
        Ok(request::EditMode::Strict) => Ok(EditMode::Strict),
        Ok(request::EditMode::Unspecified) | Err(_) => Err(ConvertError::UnknownValue { field: "edit.mode", value }),
    }
}

impl From<NewBlock> for v1::NewBlock {
    fn from(block: NewBlock) -> Self {
        Self { kind: block.kind.into(), lead: block.lead, mark: block.mark, text: block.text }
    }
}

impl TryFrom<v1::NewBlock> for NewBlock {
    type Error = ConvertError;

    fn try_from(block: v1::NewBlock) -> Result<Self, ConvertError> {
        Ok(Self { kind: byte("block.kind", block.kind)?, lead: block.lead, mark: block.mark, text: block.text })
    }
}

impl From<Anchor> for v1::Anchor {
    fn from(anchor: Anchor) -> Self {
        let place = match anchor {
            Anchor::Start => v1::anchor::Place::Start(v1::Nothing {}),
            Anchor::After(block) => v1::anchor::Place::After(block.to_u64()),
            Anchor::AfterNew(insert) => v1::anchor::Place::AfterNew(insert),
        };
        Self { place: Some(place) }
    }
}

impl TryFrom<v1::Anchor> for Anchor {
    type Error = ConvertError;

    fn try_from(anchor: v1::Anchor) -> Result<Self, ConvertError> {
        Ok(match required("anchor.place", anchor.place)? {
            v1::anchor::Place::Start(_) => Self::Start,
            v1::anchor::Place::After(block) => Self::After(record_id("anchor.after", block)?),
            v1::anchor::Place::AfterNew(insert) => Self::AfterNew(insert),
        })
    }
}

impl From<BlockRef> for v1::BlockRef {
    fn from(block: BlockRef) -> Self {
        let block = match block {
            BlockRef::Known(id) => v1::block_ref::Block::Known(id.to_u64()),
            BlockRef::New(nth) => v1::block_ref::Block::Made(nth),
        };
        Self { block: Some(block) }
    }
}

impl TryFrom<v1::BlockRef> for BlockRef {
    type Error = ConvertError;

    fn try_from(block: v1::BlockRef) -> Result<Self, ConvertError> {
        Ok(match required("block_ref.block", block.block)? {
            v1::block_ref::Block::Known(id) => Self::Known(record_id("block_ref.known", id)?),
            v1::block_ref::Block::Made(nth) => Self::New(nth),
        })
    }
}

impl From<BlockOp> for v1::BlockOp {
    fn from(op: BlockOp) -> Self {
        use v1::block_op::{Delete, Insert, Move, Op, Resolve, SetBlockers, SetFields, SetMark, SetText};
        let op = match op {
            BlockOp::Insert { after, block } => {
                Op::Insert(Insert { after: Some(after.into()), block: Some(block.into()) })
            }
            BlockOp::SetText { block, kind, lead, text } => {
                Op::SetText(SetText { block: block.to_u64(), kind: kind.into(), lead, text })
            }
            BlockOp::SetMark { block, mark, status } => Op::SetMark(SetMark {
                block: block.to_u64(),
                mark,
                status: status.map(|status| v1::TaskStatus::from(status).into()),
            }),
            BlockOp::Move { block, after } => Op::Move(Move { block: block.to_u64(), after: Some(after.into()) }),
            BlockOp::Delete { block } => Op::Delete(Delete { block: block.to_u64() }),
            BlockOp::SetFields { block, fields } => Op::SetFields(SetFields {
                block: Some(block.into()),
                fields: fields.into_iter().map(Into::into).collect(),
            }),
            BlockOp::SetBlockers { block, on } => {
                Op::SetBlockers(SetBlockers { block: Some(block.into()), on: on.into_iter().map(Into::into).collect() })
            }
            BlockOp::Resolve { conflict, settlement } => {
                Op::Resolve(Resolve { conflict: conflict.to_u64(), settlement: Some(settlement.into()) })
            }
        };
        Self { op: Some(op) }
    }
}

impl TryFrom<v1::BlockOp> for BlockOp {
    type Error = ConvertError;

    fn try_from(op: v1::BlockOp) -> Result<Self, ConvertError> {
        use v1::block_op::Op;
        Ok(match required("op", op.op)? {
            Op::Insert(insert) => Self::Insert {
                after: required("insert.after", insert.after)?.try_into()?,
                block: required("insert.block", insert.block)?.try_into()?,
            },
            Op::SetText(set) => Self::SetText {
                block: record_id("set_text.block", set.block)?,
                kind: byte("set_text.kind", set.kind)?,
                lead: set.lead,
                text: set.text,
            },
            Op::SetMark(set) => Self::SetMark {
                block: record_id("set_mark.block", set.block)?,
                mark: set.mark,
                status: set.status.map(status).transpose()?,
            },
            Op::Move(moved) => Self::Move {
                block: record_id("move.block", moved.block)?,
                after: required("move.after", moved.after)?.try_into()?,
            },
            Op::Delete(delete) => Self::Delete { block: record_id("delete.block", delete.block)? },
            Op::SetFields(set) => Self::SetFields {
                block: required("set_fields.block", set.block)?.try_into()?,
                fields: all(set.fields)?,
            },
            Op::SetBlockers(set) => Self::SetBlockers {
                block: required("set_blockers.block", set.block)?.try_into()?,
                on: set.on.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Op::Resolve(resolve) => Self::Resolve {
                conflict: record_id("resolve.conflict", resolve.conflict)?,
                settlement: required("resolve.settlement", resolve.settlement)?.try_into()?,
            },
        })
    }
}

impl From<NewConflict> for v1::NewConflict {
    fn from(conflict: NewConflict) -> Self {
        Self {
            block: conflict.block.map(RecordId::to_u64),
            class: v1::ConflictClass::from(conflict.class).into(),
            field: conflict.field,
            base: conflict.base,
            spec: conflict.spec,
            runtime: conflict.runtime,
            settlement: conflict.settlement.map(Into::into),
        }
    }
}

impl TryFrom<v1::NewConflict> for NewConflict {
    type Error = ConvertError;

    fn try_from(conflict: v1::NewConflict) -> Result<Self, ConvertError> {
        Ok(Self {
            block: optional_id("conflict.block", conflict.block)?,
            class: conflict_class(conflict.class)?,
            field: conflict.field,
            base: conflict.base,
            spec: conflict.spec,
            runtime: conflict.runtime,
            settlement: conflict.settlement.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<TaskField> for v1::TaskField {
    fn from(field: TaskField) -> Self {
        use v1::task_field::Field;
        let field = match field {
            TaskField::Status(status) => Field::Status(v1::TaskStatus::from(status).into()),
            TaskField::Assignee(value) => Field::Assignee(v1::OptionalText { value }),
            TaskField::Priority(value) => {
                let value = value.map(|priority| v1::Priority::from(priority).into());
                Field::Priority(v1::OptionalPriority { value })
            }
            TaskField::Due(value) => Field::Due(v1::OptionalText { value }),
            TaskField::Labels(labels) => Field::Labels(v1::TextSet { values: labels.into_iter().collect() }),
            TaskField::BlockedBy(ids) => {
                Field::BlockedBy(v1::IdSet { ids: ids.into_iter().map(RecordId::to_u64).collect() })
            }
            TaskField::Note(note) => Field::Note(note),
            TaskField::Requirements(all) => Field::Requirements(v1::TextSet { values: all.into_iter().collect() }),
        };
        Self { field: Some(field) }
    }
}

impl TryFrom<v1::TaskField> for TaskField {
    type Error = ConvertError;

    fn try_from(field: v1::TaskField) -> Result<Self, ConvertError> {
        use v1::task_field::Field;
        Ok(match required("field", field.field)? {
            Field::Status(value) => Self::Status(status(value)?),
            Field::Assignee(text) => Self::Assignee(text.value),
            Field::Priority(value) => Self::Priority(value.value.map(priority).transpose()?),
            Field::Due(text) => Self::Due(text.value),
            Field::Labels(set) => Self::Labels(set.values.into_iter().collect()),
            Field::BlockedBy(set) => Self::BlockedBy(record_ids("blocked_by", set.ids)?),
            Field::Note(note) => Self::Note(note),
            Field::Requirements(set) => Self::Requirements(set.values.into_iter().collect()),
        })
    }
}
