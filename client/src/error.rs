//! Why a call to the cluster failed, and what that means to the caller.

use crate::code::Code;
use crate::profile::ProfileError;
use std::time::Duration;
use zyflow_api::{ApiError, ConvertError};
use zyflow_crypto::TlsError;
use zyflow_machine::outcome::Reject;

/// Why a call to the cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No usable profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile's certificates can't be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// An endpoint that isn't one.
    #[error("`{address}` is no address that can be called: write HOST:PORT")]
    Address {
        /// As it stands in the profile.
        address: String,
    },
    /// There is no such endpoint in the profile.
    #[error("the profile has no node {number}: it names {count}, counted from 1")]
    NoSuchNode {
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A node can't be reached, or the connection broke.
    #[error("{reason}")]
    Unreachable {
        /// Which.
        address: String,
        /// The whole chain of what went wrong, with the address.
        reason: String,
    },
    /// A service answered with an error.
    #[error("{error}")]
    Service {
        /// The node that answered.
        address: String,
        /// What it said.
        error: ApiError,
    },
    /// Time is up.
    #[error("no answer within {waited:?}{}; check `zyflow status`, or wait longer with --timeout", because(.last.as_deref()))]
    Deadline {
        /// How long we waited.
        waited: Duration,
        /// What the last try said.
        last: Option<Box<ClientError>>,
        /// A proposal that was sent may still be applied.
        may_apply: bool,
    },
    /// A request was sent and its session is gone: whether it was applied isn't known any more.
    #[error(
        "the session of the request is gone ({reject}), so whether it was applied isn't known: look before you repeat it"
    )]
    FateUnknown {
        /// What the machine said.
        reject: Reject,
    },
    /// A node sent something that this version doesn't understand.
    #[error("{address} answered {problem}: use the same version of zyflow and zyflowd")]
    Protocol {
        /// Which.
        address: String,
        /// What was wrong with it.
        problem: String,
    },
}

fn because(last: Option<&ClientError>) -> String {
    last.map_or_else(String::new, |last| format!(" (last: {last})"))
}

impl ClientError {
    /// The code for programs.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Profile(_) | Self::Address { .. } => Code::Profile,
            Self::Certificate(_) => Code::Certificate,
            Self::NoSuchNode { .. } => Code::Usage,
            Self::Unreachable { .. } => Code::Connect,
            Self::Service { error, .. } => error.code.into(),
            Self::Deadline { last, .. } => deadline_code(last.as_deref()),
            Self::FateUnknown { .. } => Code::FateUnknown,
            Self::Protocol { .. } => Code::Protocol,
        }
    }

    /// The answer of a node that can't be converted.
    pub(crate) fn convert(address: &str, error: &ConvertError) -> Self {
        Self::Protocol { address: address.to_owned(), problem: error.to_string() }
    }
}

/// What kept us from an answer until the deadline says more than that the time is up.
fn deadline_code(last: Option<&ClientError>) -> Code {
    match last.map(ClientError::code) {
        Some(code @ (Code::NoQuorum | Code::Connect | Code::Overloaded | Code::NotLeader)) => code,
        Some(_) | None => Code::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_api::v1::ErrorCode;

    #[test]
    fn a_deadline_tells_what_kept_us_from_an_answer() {
        let last = |last| ClientError::Deadline { waited: Duration::from_secs(1), last, may_apply: false };
        let service = |code| {
            let error = ApiError::new(code, "no majority answers");
            Some(Box::new(ClientError::Service { address: "a:1".to_owned(), error }))
        };
        assert_eq!(last(None).code(), Code::Timeout);
        assert_eq!(last(service(ErrorCode::NoQuorum)).code(), Code::NoQuorum);
        assert_eq!(last(service(ErrorCode::Deadline)).code(), Code::Timeout);
        assert_eq!(
            last(service(ErrorCode::NoQuorum)).to_string(),
            "no answer within 1s (last: no majority answers); check `zyflow status`, or wait longer with --timeout"
        );
    }
}
