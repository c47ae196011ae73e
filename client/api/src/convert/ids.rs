//! Ids, authors, statuses: the small things that everything else is made of.

use super::{ConvertError, required};
use crate::v1;
use zyflow_machine::command::Author;
use zyflow_machine::event::Provenance;
use zyflow_machine::id::{ClusterTime, EventId, RecordId, RequestId, SessionId};
use zyflow_machine::record::{ConflictClass, Kind, Priority, Status};

/// Largest stored id: ids fit SQLite's signed integers.
const ID_MAX: u64 = i64::MAX.cast_unsigned();

/// The event id that `stored` is; `field` names it in the error.
///
/// # Errors
/// Where it is over the largest id.
pub fn event_id(field: &'static str, stored: u64) -> Result<EventId, ConvertError> {
    if stored > ID_MAX {
        return Err(ConvertError::OutOfRange { field, value: stored, limit: ID_MAX });
    }
    Ok(EventId::from_u64(stored))
}

/// The record id that `stored` is; `field` names it in the error.
///
/// # Errors
/// Where it is over the largest id.
pub fn record_id(field: &'static str, stored: u64) -> Result<RecordId, ConvertError> {
    event_id(field, stored).map(RecordId)
}

pub(super) fn record_ids<C: FromIterator<RecordId>>(field: &'static str, ids: Vec<u64>) -> Result<C, ConvertError> {
    ids.into_iter().map(|id| record_id(field, id)).collect()
}

pub(super) fn optional_id(field: &'static str, id: Option<u64>) -> Result<Option<RecordId>, ConvertError> {
    id.map(|id| record_id(field, id)).transpose()
}

/// A code that a machine type holds in a byte.
pub(super) fn byte(field: &'static str, value: u32) -> Result<u8, ConvertError> {
    u8::try_from(value).map_err(|_| ConvertError::OutOfRange { field, value: value.into(), limit: u8::MAX.into() })
}

pub(super) fn status(value: i32) -> Result<Status, ConvertError> {
    let known = v1::TaskStatus::try_from(value).ok().and_then(|status| Status::try_from(status).ok());
    known.ok_or(ConvertError::UnknownValue { field: "status", value })
}

pub(super) fn priority(value: i32) -> Result<Priority, ConvertError> {
    match v1::Priority::try_from(value) {
        Ok(v1::Priority::Low) => Ok(Priority::Low),
        Ok(v1::Priority::Medium) => Ok(Priority::Medium),
        Ok(v1::Priority::High) => Ok(Priority::High),
        Ok(v1::Priority::Unspecified) | Err(_) => Err(ConvertError::UnknownValue { field: "priority", value }),
    }
}

pub(super) fn conflict_class(value: i32) -> Result<ConflictClass, ConvertError> {
    match v1::ConflictClass::try_from(value) {
        Ok(v1::ConflictClass::Data) => Ok(ConflictClass::Data),
        Ok(v1::ConflictClass::Structure) => Ok(ConflictClass::Structure),
        Ok(v1::ConflictClass::Version) => Ok(ConflictClass::Version),
        Ok(v1::ConflictClass::Dependency) => Ok(ConflictClass::Dependency),
        Ok(v1::ConflictClass::Permission) => Ok(ConflictClass::Permission),
        Ok(v1::ConflictClass::Schema) => Ok(ConflictClass::Schema),
        Ok(v1::ConflictClass::Unspecified) | Err(_) => Err(ConvertError::UnknownValue { field: "class", value }),
    }
}

impl From<Status> for v1::TaskStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Todo => Self::Todo,
            Status::InProgress => Self::InProgress,
            Status::Review => Self::Review,
            Status::Blocked => Self::Blocked,
            Status::Done => Self::Done,
            Status::Cancelled => Self::Cancelled,
            Status::Archived => Self::Archived,
        }
    }
}

impl TryFrom<v1::TaskStatus> for Status {
    type Error = ConvertError;

    fn try_from(status: v1::TaskStatus) -> Result<Self, ConvertError> {
        match status {
            v1::TaskStatus::Todo => Ok(Self::Todo),
            v1::TaskStatus::InProgress => Ok(Self::InProgress),
            v1::TaskStatus::Review => Ok(Self::Review),
            v1::TaskStatus::Blocked => Ok(Self::Blocked),
            v1::TaskStatus::Done => Ok(Self::Done),
            v1::TaskStatus::Cancelled => Ok(Self::Cancelled),
            v1::TaskStatus::Archived => Ok(Self::Archived),
            v1::TaskStatus::Unspecified => Err(ConvertError::UnknownValue { field: "status", value: 0 }),
        }
    }
}

impl From<Priority> for v1::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Medium => Self::Medium,
            Priority::High => Self::High,
        }
    }
}

impl From<ConflictClass> for v1::ConflictClass {
    fn from(class: ConflictClass) -> Self {
        match class {
            ConflictClass::Data => Self::Data,
            ConflictClass::Structure => Self::Structure,
            ConflictClass::Version => Self::Version,
            ConflictClass::Dependency => Self::Dependency,
            ConflictClass::Permission => Self::Permission,
            ConflictClass::Schema => Self::Schema,
        }
    }
}

impl From<Kind> for v1::RecordKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Project => Self::Project,
            Kind::Change => Self::Change,
            Kind::Block => Self::Block,
            Kind::Conflict => Self::Conflict,
            Kind::Comment => Self::Comment,
            Kind::Point => Self::Point,
            Kind::Retention => Self::Retention,
            Kind::Restore => Self::Restore,
        }
    }
}

impl TryFrom<v1::RecordKind> for Kind {
    type Error = ConvertError;

    fn try_from(kind: v1::RecordKind) -> Result<Self, ConvertError> {
        match kind {
            v1::RecordKind::Project => Ok(Self::Project),
            v1::RecordKind::Change => Ok(Self::Change),
            v1::RecordKind::Block => Ok(Self::Block),
            v1::RecordKind::Conflict => Ok(Self::Conflict),
            v1::RecordKind::Comment => Ok(Self::Comment),
            v1::RecordKind::Point => Ok(Self::Point),
            v1::RecordKind::Retention => Ok(Self::Retention),
            v1::RecordKind::Restore => Ok(Self::Restore),
            v1::RecordKind::Unspecified => Err(ConvertError::UnknownValue { field: "kind", value: 0 }),
        }
    }
}

impl From<Author> for v1::Author {
    fn from(author: Author) -> Self {
        Self { name: author.name, clock_ms: author.clock_ms }
    }
}

impl From<v1::Author> for Author {
    fn from(author: v1::Author) -> Self {
        Self { name: author.name, clock_ms: author.clock_ms }
    }
}

impl From<RequestId> for v1::RequestId {
    fn from(request: RequestId) -> Self {
        Self { session: request.session.0.to_u64(), seq: request.seq }
    }
}

impl TryFrom<v1::RequestId> for RequestId {
    type Error = ConvertError;

    fn try_from(request: v1::RequestId) -> Result<Self, ConvertError> {
        Ok(Self { session: SessionId(event_id("request_id.session", request.session)?), seq: request.seq })
    }
}

impl From<Provenance> for v1::Provenance {
    fn from(provenance: Provenance) -> Self {
        Self {
            author: Some(provenance.author.into()),
            time_ms: provenance.time.0,
            request: provenance.request.map(Into::into),
        }
    }
}

impl TryFrom<v1::Provenance> for Provenance {
    type Error = ConvertError;

    fn try_from(provenance: v1::Provenance) -> Result<Self, ConvertError> {
        Ok(Self {
            author: required("provenance.author", provenance.author)?.into(),
            time: ClusterTime(provenance.time_ms),
            request: provenance.request.map(TryInto::try_into).transpose()?,
        })
    }
}
