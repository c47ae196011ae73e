//! What a command has to say.

use crate::code::Code;
use crate::dev::DevError;
use crate::error::ClientError;
use serde_json::Value;
use zyflow_machine::id::Revision;
use zyflow_machine::outcome::{Outcome, Reject};

/// A result, and a failure where there is one in spite of it (`verify` shows all nodes and fails if they differ).
#[derive(Debug)]
pub struct Report {
    /// For stdout.
    pub output: Output,
    /// For stderr and the exit code.
    pub failure: Option<Failure>,
}

/// What is printed.
#[derive(Debug)]
pub enum Output {
    /// Nothing.
    Nothing,
    /// Exactly these bytes, where people read; the value, where programs do.
    Text {
        /// For people.
        text: Vec<u8>,
        /// For programs.
        value: Value,
    },
    /// Several things of a kind.
    List {
        /// Fields of the things that a table shows, in order.
        columns: &'static [&'static str],
        /// JSON objects.
        items: Vec<Value>,
        /// What it is true at.
        revision: Option<Revision>,
    },
    /// One thing.
    One {
        /// A JSON object.
        item: Value,
        /// What it is true at.
        revision: Option<Revision>,
    },
}

/// Why a command fails.
#[derive(Debug)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// What happened, to what, and what to do next.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Output> for Report {
    fn from(output: Output) -> Self {
        Self { output, failure: None }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<DevError> for Failure {
    fn from(error: DevError) -> Self {
        let code = match &error {
            DevError::Profile(_) => Code::Profile,
            DevError::Client(source) => source.code(),
            DevError::SetUp { source, .. } => source.code(),
            DevError::Nodes(_) | DevError::OtherNodes { .. } => Code::Usage,
            DevError::NoZyflowd
            | DevError::InUse(_)
            | DevError::NotOurs(_)
            | DevError::File { .. }
            | DevError::Damaged { .. }
            | DevError::Certificates { .. }
            | DevError::Data { .. }
            | DevError::Ports(_)
            | DevError::Spawn { .. }
            | DevError::Process { .. }
            | DevError::Ended { .. }
            | DevError::Silent { .. }
            | DevError::Killed { .. }
            | DevError::NoLeader { .. }
            | DevError::Outcome { .. }
            | DevError::NoSuchNode(_) => Code::Dev,
        };
        Self::new(code, error.to_string())
    }
}

/// The revision and the new records of an accepted command; everything else is a failure that names `what`.
pub(super) fn accepted(outcome: Outcome, what: &str) -> Result<(Revision, Vec<zyflow_machine::id::RecordId>), Failure> {
    match outcome {
        Outcome::Accepted { revision, created } => Ok((revision, created)),
        Outcome::Duplicate(first) => accepted(*first, what),
        Outcome::Stale { revision, fields } => {
            let fields: Vec<String> = fields
                .iter()
                .map(|stale| format!("{} of {} at {}", stale.field, stale.record, stale.changed_at.revision()))
                .collect();
            let message = format!(
                "{what} has changed meanwhile ({}), seen at revision {revision}: look at it again, then repeat the command",
                fields.join(", ")
            );
            Err(Failure::new(Code::Stale, message))
        }
        Outcome::Rejected(reject) => Err(rejected(&reject, what)),
    }
}

fn rejected(reject: &Reject, what: &str) -> Failure {
    let (code, next) = match reject {
        Reject::NotFound { .. } => (Code::NotFound, "; list what there is and name it again"),
        Reject::Exists { .. } => (Code::Exists, "; use that one, or choose another name"),
        Reject::WrongKind { .. } | Reject::Invalid(_) => (Code::Invalid, "; correct it and repeat the command"),
        Reject::OverLimit { .. } => (Code::Limit, "; make it smaller and repeat the command"),
        Reject::SessionExpired | Reject::RequestTooOld { .. } => (Code::FateUnknown, "; look before you repeat it"),
        Reject::Claimed { until, .. } => {
            let message = format!("{what}: {reject} until {}; take another, or wait", super::task_view::time(*until));
            return Failure::new(Code::Claimed, message);
        }
        Reject::NoRevision { .. } => (Code::Revision, "; choose one of those"),
        Reject::Transition { .. } => (Code::Invalid, "; `zyflow project policy` shows the steps that it allows"),
    };
    Failure::new(code, format!("{what}: {reject}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_machine::id::RecordId;

    #[test]
    fn outcomes_become_exit_codes() {
        let exit = |outcome| accepted(outcome, "task 1.2").map_or_else(|failure| failure.code.exit().number(), |_| 0);
        let revision = Revision(9);
        let accepted_outcome = Outcome::Accepted { revision, created: vec![] };
        let id = RecordId::from_u64(5);
        assert_eq!(exit(Outcome::Duplicate(Box::new(accepted_outcome.clone()))), 0);
        assert_eq!(exit(accepted_outcome), 0);
        assert_eq!(exit(Outcome::Stale { revision, fields: vec![] }), 4);
        assert_eq!(exit(Outcome::Rejected(Reject::NotFound { what: "task".to_owned(), id })), 3);
        let exists = Reject::Exists { what: "project".to_owned(), name: "a".to_owned(), id };
        assert_eq!(exit(Outcome::Rejected(exists)), 4);
        assert_eq!(exit(Outcome::Rejected(Reject::Invalid("no".to_owned()))), 2);
        let none = Reject::NoRevision { revision: Revision(1), oldest: Revision(3), newest: Revision(9) };
        assert_eq!(exit(Outcome::Rejected(none)), 3);
        assert_eq!(exit(Outcome::Rejected(Reject::SessionExpired)), 5);
    }
}
