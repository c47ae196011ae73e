//! The services of `zyflow.v1`, each a thin translation between the wire and a handle. No decision is made here.

pub mod admin;
pub mod backup;
mod export;
pub mod join;
mod members;
pub(crate) mod moment;
pub mod propose;
pub mod query;
pub mod replay;
mod sql;
pub mod watch;
pub mod wire;

use zyflow_api::ApiError;
use zyflow_api::v1::ErrorCode;
use zyflow_raft::{Fate, MembershipError, ProposeError, ReadError};
use zyflow_storage::tables::TablesError;

/// A proposal's failure, as clients are told. Its fate is in the message and decides the code: only `Deadline` may have happened.
pub(crate) fn propose_error(error: &ProposeError) -> ApiError {
    let code = match error {
        ProposeError::NoQuorum { .. } => ErrorCode::NoQuorum,
        ProposeError::DeadlineExceeded { .. } | ProposeError::Lost { .. } | ProposeError::Stopping(Fate::Unknown) => {
            ErrorCode::Deadline
        }
        ProposeError::Overloaded { .. } => ErrorCode::Overloaded,
        ProposeError::DiskFull { .. } => ErrorCode::DiskFull,
        ProposeError::ClockAhead { .. } => ErrorCode::Precondition,
        ProposeError::TooLarge { .. } | ProposeError::Malformed { .. } => ErrorCode::Invalid,
        ProposeError::Stopping(Fate::Nothing) => ErrorCode::Stopping,
        ProposeError::Fatal(_) => ErrorCode::NodeFailed,
    };
    ApiError::new(code, error.to_string())
}

/// A read's failure, as clients are told.
pub(crate) fn read_error(error: &ReadError) -> ApiError {
    let code = match error {
        ReadError::NoQuorum(_) => ErrorCode::NoQuorum,
        ReadError::Behind { .. } | ReadError::DeadlineExceeded => ErrorCode::Deadline,
        ReadError::Stopping => ErrorCode::Stopping,
        ReadError::Fatal(_) => ErrorCode::NodeFailed,
    };
    ApiError::new(code, error.to_string())
}

/// A membership change's failure, as clients are told.
pub(crate) fn membership_error(error: &MembershipError) -> ApiError {
    let code = match error {
        MembershipError::NotLeader { .. } => ErrorCode::NotLeader,
        MembershipError::AlreadyInitialised(_)
        | MembershipError::Removed { .. }
        | MembershipError::Elsewhere { .. }
        | MembershipError::AddressTaken { .. } => ErrorCode::Exists,
        MembershipError::NotA { .. } => ErrorCode::NotFound,
        MembershipError::Lagging { .. } => ErrorCode::Behind,
        MembershipError::Outnumbered { .. } => ErrorCode::NoQuorum,
        MembershipError::Refused(_) | MembershipError::LearnersCertificate { .. } => ErrorCode::Precondition,
        MembershipError::DeadlineExceeded { .. } => ErrorCode::Deadline,
        MembershipError::Fatal(_) => ErrorCode::NodeFailed,
    };
    ApiError::new(code, error.to_string())
}

/// A failure of the local tables, as clients are told.
pub(crate) fn tables_error(error: &TablesError) -> ApiError {
    if let TablesError::BeforeFirst { time, revision, first } = error {
        let (time, first) = (moment::shown(*time), moment::shown(*first));
        let message = format!(
            "nothing is kept of {time}: the oldest revision is {revision}, of {first}; ask for that time or a later one"
        );
        return ApiError::new(ErrorCode::Revision, message);
    }
    let is_revision =
        matches!(error, TablesError::Compacted { .. } | TablesError::Future { .. } | TablesError::Undone { .. });
    let code = if is_revision { ErrorCode::Revision } else { ErrorCode::NodeFailed };
    ApiError::new(code, error.to_string())
}
