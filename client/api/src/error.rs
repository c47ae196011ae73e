//! The errors of a service, and their way through a gRPC status.
//!
//! ```text
//!   ApiError --From--> tonic::Status { code, message, details = v1::Error, encoded } --from_status--> ApiError
//! ```
//! The gRPC code is for proxies and dashboards; our own code in the details is what clients decide by. A status without
//! details (a proxy's, tonic's own) gets the nearest code.

use crate::v1::{Error, ErrorCode, LeaderHint};
use prost::Message;
use tonic::{Code, Status};

/// Why a service could not do what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What a program decides by.
    pub code: ErrorCode,
    /// What happened, to what, and what to do next.
    pub message: String,
    /// Where the leader is, where that helps and is known.
    pub leader: Option<LeaderHint>,
}

impl ApiError {
    /// An error without a leader hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), leader: None }
    }

    /// The error that a gRPC status carries; by its code alone where it carries none of ours.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let carried = Error::decode(status.details()).ok().filter(|error| error.code() != ErrorCode::Unspecified);
        carried.map_or_else(|| Self::new(nearest(status.code()), status.message()), Self::from)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { code: error.code(), message: error.message, leader: error.leader }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self { code: error.code.into(), message: error.message, leader: error.leader }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = grpc_code(error.code);
        let message = error.message.clone();
        Self::with_details(code, message, Error::from(error).encode_to_vec().into())
    }
}

impl From<crate::ConvertError> for ApiError {
    fn from(error: crate::ConvertError) -> Self {
        Self::new(ErrorCode::Invalid, error.to_string())
    }
}

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::Unspecified => Code::Unknown,
        ErrorCode::NoQuorum
        | ErrorCode::Stopping
        | ErrorCode::NodeFailed
        | ErrorCode::NotLeader
        | ErrorCode::Behind => Code::Unavailable,
        ErrorCode::Deadline => Code::DeadlineExceeded,
        ErrorCode::Overloaded | ErrorCode::DiskFull => Code::ResourceExhausted,
        ErrorCode::Denied => Code::PermissionDenied,
        ErrorCode::Invalid => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::Revision => Code::OutOfRange,
        ErrorCode::Exists => Code::AlreadyExists,
        ErrorCode::TakeNeeded | ErrorCode::Precondition => Code::FailedPrecondition,
    }
}

fn nearest(code: Code) -> ErrorCode {
    match code {
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Deadline,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        Code::PermissionDenied | Code::Unauthenticated => ErrorCode::Denied,
        Code::InvalidArgument | Code::Unimplemented => ErrorCode::Invalid,
        Code::NotFound => ErrorCode::NotFound,
        Code::OutOfRange => ErrorCode::Revision,
        Code::AlreadyExists => ErrorCode::Exists,
        Code::FailedPrecondition => ErrorCode::Precondition,
        Code::Internal | Code::DataLoss => ErrorCode::NodeFailed,
        Code::Unavailable | Code::Aborted => ErrorCode::Stopping,
        Code::Ok | Code::Unknown => ErrorCode::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_message_and_hint_survive_the_status() {
        for number in 1..=15 {
            let error = ApiError {
                code: ErrorCode::try_from(number).unwrap(),
                message: "node 2 has no quorum".to_owned(),
                leader: Some(LeaderHint { node_id: 3, api_address: "127.0.0.1:7203".to_owned() }),
            };
            assert_eq!(ApiError::from_status(&error.clone().into()), error);
        }
        assert!(ErrorCode::try_from(16).is_err(), "a new code: extend the range above");
    }

    #[test]
    fn a_status_of_somebody_else_gets_the_nearest_code() {
        let refused = ApiError::from_status(&Status::permission_denied("no"));
        assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::Denied, "no"));
        let garbage = Status::with_details(Code::NotFound, "gone", vec![0xff, 0xff].into());
        assert_eq!(ApiError::from_status(&garbage).code, ErrorCode::NotFound);
    }
}
