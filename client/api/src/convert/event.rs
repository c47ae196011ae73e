//! Facts: what travels in a watch and in a history.

use super::command::all;
use super::ids::{byte, record_id, status};
use super::{ConvertError, required};
use crate::v1;
use v1::fact;
use zyflow_machine::event::Fact;
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_machine::record::{OrderKey, Restore, Status};

impl From<Fact> for v1::Fact {
    fn from(fact: Fact) -> Self {
        use fact::Fact as Out;
        let fact = match fact {
            Fact::ProjectCreated { name, files } => Out::ProjectCreated(fact::ProjectCreated { name, files }),
            Fact::ChangeCreated { project, path } => {
                Out::ChangeCreated(fact::ChangeCreated { project: project.to_u64(), path })
            }
            Fact::ChangeDeleted => Out::ChangeDeleted(v1::Nothing {}),
            Fact::BlockInserted { change, order, block, status } => Out::BlockInserted(fact::BlockInserted {
                change: change.to_u64(),
                order: order.0,
                block: Some(block.into()),
                status: status.map(status_number),
            }),
            Fact::BlockTextSet { kind, lead, text } => {
                Out::BlockTextSet(fact::BlockTextSet { kind: kind.into(), lead, text })
            }
            Fact::BlockMarked { mark, status } => {
                Out::BlockMarked(fact::BlockMarked { mark, status: status.map(status_number) })
            }
            Fact::BlockMoved { order } => Out::BlockMoved(fact::BlockMoved { order: order.0 }),
            Fact::BlockDeleted => Out::BlockDeleted(v1::Nothing {}),
            Fact::TaskSet { fields, mark } => {
                Out::TaskSet(fact::TaskSet { fields: fields.into_iter().map(Into::into).collect(), mark })
            }
            Fact::ConflictRecorded(conflict) => Out::ConflictRecorded(conflict.into()),
            Fact::ConflictSettled(settled) => Out::ConflictSettled(settled.into()),
            Fact::ChangeMoved { path } => Out::ChangeMoved(fact::ChangeMoved { path }),
            Fact::PolicySet(policy) => Out::PolicySet(policy.into()),
            Fact::Claimed { claim, fields, mark } => Out::Claimed(fact::Claimed {
                claim: Some(claim.into()),
                fields: fields.into_iter().map(Into::into).collect(),
                mark,
            }),
            Fact::Released => Out::Released(v1::Nothing {}),
            Fact::Commented(comment) => Out::Commented(comment.into()),
            Fact::PointCreated(point) => Out::PointCreated(point.into()),
            Fact::PointRemoved => Out::PointRemoved(v1::Nothing {}),
            Fact::ChangeRestored { path } => Out::ChangeRestored(fact::ChangeRestored { path }),
            Fact::BlockRestored { order, block, fields } => Out::BlockRestored(fact::BlockRestored {
                order: order.0,
                block: Some(block.into()),
                fields: fields.into_iter().map(Into::into).collect(),
            }),
            Fact::ConflictRestored { settled } => {
                Out::ConflictRestored(fact::ConflictRestored { settled: settled.map(Into::into) })
            }
            Fact::RetentionCreated(keep) => Out::RetentionCreated(keep.into()),
            Fact::RetentionSet(keep) => Out::RetentionSet(keep.into()),
            Fact::HorizonMoved { to, time } => Out::HorizonMoved(fact::HorizonMoved { to: to.0, time_ms: time.0 }),
            Fact::Restored(restore) => Out::Restored(fact::Restored { cut: restore.cut.0, last: restore.last.0 }),
        };
        Self { fact: Some(fact) }
    }
}

fn status_number(status: Status) -> i32 {
    v1::TaskStatus::from(status).into()
}

impl TryFrom<v1::Fact> for Fact {
    type Error = ConvertError;

    fn try_from(fact: v1::Fact) -> Result<Self, ConvertError> {
        use fact::Fact as In;
        Ok(match required("fact", fact.fact)? {
            In::ProjectCreated(it) => Self::ProjectCreated { name: it.name, files: it.files },
            In::ChangeCreated(it) => {
                Self::ChangeCreated { project: record_id("change_created.project", it.project)?, path: it.path }
            }
            In::ChangeDeleted(_) => Self::ChangeDeleted,
            In::BlockInserted(it) => Self::BlockInserted {
                change: record_id("block_inserted.change", it.change)?,
                order: OrderKey(it.order),
                block: required("block_inserted.block", it.block)?.try_into()?,
                status: it.status.map(status).transpose()?,
            },
            In::BlockTextSet(it) => {
                Self::BlockTextSet { kind: byte("block_text_set.kind", it.kind)?, lead: it.lead, text: it.text }
            }
            In::BlockMarked(it) => Self::BlockMarked { mark: it.mark, status: it.status.map(status).transpose()? },
            In::BlockMoved(it) => Self::BlockMoved { order: OrderKey(it.order) },
            In::BlockDeleted(_) => Self::BlockDeleted,
            In::TaskSet(it) => Self::TaskSet { fields: all(it.fields)?, mark: it.mark },
            In::ConflictRecorded(it) => Self::ConflictRecorded(it.try_into()?),
            In::ConflictSettled(it) => Self::ConflictSettled(it.try_into()?),
            In::ChangeMoved(it) => Self::ChangeMoved { path: it.path },
            In::PolicySet(it) => Self::PolicySet(it.try_into()?),
            In::Claimed(it) => Self::Claimed {
                claim: required("claimed.claim", it.claim)?.into(),
                fields: all(it.fields)?,
                mark: it.mark,
            },
            In::Released(_) => Self::Released,
            In::Commented(it) => Self::Commented(it.try_into()?),
            In::PointCreated(it) => Self::PointCreated(it.into()),
            In::PointRemoved(_) => Self::PointRemoved,
            In::ChangeRestored(it) => Self::ChangeRestored { path: it.path },
            In::BlockRestored(it) => Self::BlockRestored {
                order: OrderKey(it.order),
                block: required("block_restored.block", it.block)?.try_into()?,
                fields: all(it.fields)?,
            },
            In::ConflictRestored(it) => {
                Self::ConflictRestored { settled: it.settled.map(TryInto::try_into).transpose()? }
            }
            In::RetentionCreated(it) => Self::RetentionCreated(it.into()),
            In::RetentionSet(it) => Self::RetentionSet(it.into()),
            In::HorizonMoved(it) => Self::HorizonMoved { to: Revision(it.to), time: ClusterTime(it.time_ms) },
            In::Restored(it) => Self::Restored(Restore { cut: Revision(it.cut), last: Revision(it.last) }),
        })
    }
}
