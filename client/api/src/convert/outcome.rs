//! Outcomes: what a proposer is told.

use super::ids::{event_id, record_id, record_ids, status};
use super::{ConvertError, required};
use crate::v1;
use v1::{outcome, rejected};
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::outcome::{Outcome, Reject, StaleField};

/// How deep `duplicate` may nest: a duplicate is of a first answer, so once. More is a hostile message.
const DUPLICATE_DEPTH_MAX: u64 = 1;

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        let outcome = match outcome {
            Outcome::Accepted { revision, created } => outcome::Outcome::Accepted(outcome::Accepted {
                revision: revision.0,
                created: created.into_iter().map(RecordId::to_u64).collect(),
            }),
            Outcome::Stale { revision, fields } => outcome::Outcome::Stale(outcome::Stale {
                revision: revision.0,
                fields: fields.into_iter().map(Into::into).collect(),
            }),
            Outcome::Rejected(reject) => outcome::Outcome::Rejected(reject.into()),
            Outcome::Duplicate(first) => outcome::Outcome::Duplicate(Box::new((*first).into())),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = ConvertError;

    fn try_from(outcome: v1::Outcome) -> Result<Self, ConvertError> {
        convert(outcome, 0)
    }
}

fn convert(outcome: v1::Outcome, depth: u64) -> Result<Outcome, ConvertError> {
    Ok(match required("outcome", outcome.outcome)? {
        outcome::Outcome::Accepted(accepted) => Outcome::Accepted {
            revision: Revision(accepted.revision),
            created: record_ids("accepted.created", accepted.created)?,
        },
        outcome::Outcome::Stale(stale) => {
            Outcome::Stale { revision: Revision(stale.revision), fields: super::command::all(stale.fields)? }
        }
        outcome::Outcome::Rejected(rejected) => Outcome::Rejected(rejected.try_into()?),
        outcome::Outcome::Duplicate(first) => {
            if depth >= DUPLICATE_DEPTH_MAX {
                let (field, limit) = ("depth of duplicate", DUPLICATE_DEPTH_MAX);
                return Err(ConvertError::OutOfRange { field, value: depth + 1, limit });
            }
            Outcome::Duplicate(Box::new(convert(*first, depth + 1)?))
        }
    })
}

impl From<StaleField> for outcome::StaleField {
    fn from(stale: StaleField) -> Self {
        Self { record: stale.record.to_u64(), field: stale.field, changed_at: stale.changed_at.to_u64() }
    }
}

impl TryFrom<outcome::StaleField> for StaleField {
    type Error = ConvertError;

    fn try_from(stale: outcome::StaleField) -> Result<Self, ConvertError> {
        Ok(Self {
            record: record_id("stale.record", stale.record)?,
            field: stale.field,
            changed_at: event_id("stale.changed_at", stale.changed_at)?,
        })
    }
}

impl From<Reject> for v1::Rejected {
    fn from(reject: Reject) -> Self {
        use rejected::{
            Claimed, Exists, NoRevision, NotFound, OverLimit, Reason, RequestTooOld, Transition, WrongKind,
        };
        let reason = match reject {
            Reject::NotFound { what, id } => Reason::NotFound(NotFound { what, id: id.to_u64() }),
            Reject::Exists { what, name, id } => Reason::Exists(Exists { what, name, id: id.to_u64() }),
            Reject::WrongKind { what, id } => Reason::WrongKind(WrongKind { what, id: id.to_u64() }),
            Reject::OverLimit { what, actual, limit } => Reason::OverLimit(OverLimit { what, actual, limit }),
            Reject::Invalid(message) => Reason::Invalid(message),
            Reject::SessionExpired => Reason::SessionExpired(v1::Nothing {}),
            Reject::RequestTooOld { seq, window } => Reason::RequestTooOld(RequestTooOld { seq, window }),
            Reject::Claimed { task, holder, until } => {
                Reason::Claimed(Claimed { task: task.to_u64(), holder, until_ms: until.0 })
            }
            Reject::Transition { task, from, to } => Reason::Transition(Transition {
                task: task.to_u64(),
                from: v1::TaskStatus::from(from).into(),
                to: v1::TaskStatus::from(to).into(),
            }),
            Reject::NoRevision { revision, oldest, newest } => {
                Reason::NoRevision(NoRevision { revision: revision.0, oldest: oldest.0, newest: newest.0 })
            }
        };
        Self { reason: Some(reason) }
    }
}

impl TryFrom<v1::Rejected> for Reject {
    type Error = ConvertError;

    fn try_from(rejected: v1::Rejected) -> Result<Self, ConvertError> {
        use rejected::Reason;
        Ok(match required("rejected.reason", rejected.reason)? {
            Reason::NotFound(it) => Self::NotFound { what: it.what, id: record_id("not_found.id", it.id)? },
            Reason::Exists(it) => Self::Exists { what: it.what, name: it.name, id: record_id("exists.id", it.id)? },
            Reason::WrongKind(it) => Self::WrongKind { what: it.what, id: record_id("wrong_kind.id", it.id)? },
            Reason::OverLimit(it) => Self::OverLimit { what: it.what, actual: it.actual, limit: it.limit },
            Reason::Invalid(message) => Self::Invalid(message),
            Reason::SessionExpired(_) => Self::SessionExpired,
            Reason::RequestTooOld(it) => Self::RequestTooOld { seq: it.seq, window: it.window },
            Reason::Claimed(it) => Self::Claimed {
                task: record_id("claimed.task", it.task)?,
                holder: it.holder,
                until: ClusterTime(it.until_ms),
            },
            Reason::Transition(it) => Self::Transition {
                task: record_id("transition.task", it.task)?,
                from: status(it.from)?,
                to: status(it.to)?,
            },
            Reason::NoRevision(it) => Self::NoRevision {
                revision: Revision(it.revision),
                oldest: Revision(it.oldest),
                newest: Revision(it.newest),
            },
        })
    }
}
