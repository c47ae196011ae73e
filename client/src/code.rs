//! Error codes: what a program decides by, and the page that a person reads.
//!
//! Each code has one exit code and one page in docs/errors, named after it; a test holds both. Codes are never used again
//! for something else.

use std::process::ExitCode;
use zyflow_api::v1::ErrorCode;

/// How a command ended, as its process tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// What was asked is done.
    Done,
    /// It failed, and trying again won't help by itself.
    Failed,
    /// The command line or the profile is wrong.
    Usage,
    /// Something that was named doesn't exist.
    NotFound,
    /// Two changes meet: look again, then decide.
    Conflict,
    /// No quorum, no connection, or no time left: retry later.
    Unavailable,
    /// The certificate doesn't allow it.
    Denied,
}

impl Exit {
    /// The number: 0 to 6, fixed.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
            Self::Denied => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A name fits several things.
    Ambiguous,
    /// A backup can't be made, verified or restored.
    Backup,
    /// A member is too far behind.
    Behind,
    /// A certificate or key can't be used.
    Certificate,
    /// A file is not lossless or can't be read as text.
    Check,
    /// Somebody else has the task.
    Claimed,
    /// A merge left conflicts.
    Conflict,
    /// No node of the profile can be reached.
    Connect,
    /// The caller may not do this.
    Denied,
    /// A local development cluster can't be started or kept.
    Dev,
    /// Nodes have different digests at one revision.
    Differs,
    /// The disk of a node is nearly full.
    DiskFull,
    /// A name is taken.
    Exists,
    /// Whether a request was applied isn't known any more.
    FateUnknown,
    /// A file on this machine can't be read or written.
    File,
    /// Specification and runtime state disagree.
    Inconsistent,
    /// What was asked is malformed.
    Invalid,
    /// Something is over a limit.
    Limit,
    /// A node has stopped serving for good.
    NodeFailed,
    /// No majority of voters answers.
    NoQuorum,
    /// Something that was named doesn't exist.
    NotFound,
    /// Only the leader can do this.
    NotLeader,
    /// Too much waits already.
    Overloaded,
    /// The node or the cluster isn't in a state for this.
    Precondition,
    /// The profile is missing or wrong.
    Profile,
    /// A node answered what this version doesn't understand.
    Protocol,
    /// The revision isn't there any more, or not yet.
    Revision,
    /// What a change builds on has changed.
    Stale,
    /// The node is shutting down.
    Stopping,
    /// A first binding differs: which side to take?
    TakeNeeded,
    /// Time is up.
    Timeout,
    /// The command line is wrong.
    Usage,
}

impl Code {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 32] = [
        Self::Ambiguous,
        Self::Backup,
        Self::Behind,
        Self::Certificate,
        Self::Check,
        Self::Claimed,
        Self::Conflict,
        Self::Connect,
        Self::Denied,
        Self::Dev,
        Self::Differs,
        Self::DiskFull,
        Self::Exists,
        Self::FateUnknown,
        Self::File,
        Self::Inconsistent,
        Self::Invalid,
        Self::Limit,
        Self::NodeFailed,
        Self::NoQuorum,
        Self::NotFound,
        Self::NotLeader,
        Self::Overloaded,
        Self::Precondition,
        Self::Profile,
        Self::Protocol,
        Self::Revision,
        Self::Stale,
        Self::Stopping,
        Self::TakeNeeded,
        Self::Timeout,
        Self::Usage,
    ];

    /// As it is printed, and as its page in docs/errors is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ambiguous => "E-AMBIGUOUS",
            Self::Backup => "E-BACKUP",
            Self::Behind => "E-BEHIND",
            Self::Certificate => "E-CERTIFICATE",
            Self::Check => "E-CHECK",
            Self::Claimed => "E-CLAIMED",
            Self::Conflict => "E-CONFLICT",
            Self::Connect => "E-CONNECT",
            Self::Denied => "E-DENIED",
            Self::Dev => "E-DEV",
            Self::Differs => "E-DIFFERS",
            Self::DiskFull => "E-DISK-FULL",
            Self::Exists => "E-EXISTS",
            Self::FateUnknown => "E-FATE-UNKNOWN",
            Self::File => "E-FILE",
            Self::Inconsistent => "E-INCONSISTENT",
            Self::Invalid => "E-INVALID",
            Self::Limit => "E-LIMIT",
            Self::NodeFailed => "E-NODE-FAILED",
            Self::NoQuorum => "E-NO-QUORUM",
            Self::NotFound => "E-NOT-FOUND",
            Self::NotLeader => "E-NOT-LEADER",
            Self::Overloaded => "E-OVERLOADED",
            Self::Precondition => "E-PRECONDITION",
            Self::Profile => "E-PROFILE",
            Self::Protocol => "E-PROTOCOL",
            Self::Revision => "E-REVISION",
            Self::Stale => "E-STALE",
            Self::Stopping => "E-STOPPING",
            Self::TakeNeeded => "E-TAKE-NEEDED",
            Self::Timeout => "E-TIMEOUT",
            Self::Usage => "E-USAGE",
        }
    }

    /// The exit code of a command that fails with it.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Backup
            | Self::Check
            | Self::Dev
            | Self::Differs
            | Self::File
            | Self::Inconsistent
            | Self::Precondition
            | Self::Protocol => Exit::Failed,
            Self::Ambiguous | Self::Certificate | Self::Invalid | Self::Limit | Self::Profile | Self::Usage => {
                Exit::Usage
            }
            Self::NotFound | Self::Revision => Exit::NotFound,
            Self::Claimed | Self::Conflict | Self::Exists | Self::Stale | Self::TakeNeeded => Exit::Conflict,
            Self::Behind
            | Self::Connect
            | Self::DiskFull
            | Self::FateUnknown
            | Self::NodeFailed
            | Self::NoQuorum
            | Self::NotLeader
            | Self::Overloaded
            | Self::Stopping
            | Self::Timeout => Exit::Unavailable,
            Self::Denied => Exit::Denied,
        }
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Unspecified => Self::Protocol,
            ErrorCode::NoQuorum => Self::NoQuorum,
            ErrorCode::Deadline => Self::Timeout,
            ErrorCode::Overloaded => Self::Overloaded,
            ErrorCode::DiskFull => Self::DiskFull,
            ErrorCode::Stopping => Self::Stopping,
            ErrorCode::NodeFailed => Self::NodeFailed,
            ErrorCode::Denied => Self::Denied,
            ErrorCode::Invalid => Self::Invalid,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Revision => Self::Revision,
            ErrorCode::NotLeader => Self::NotLeader,
            ErrorCode::Exists => Self::Exists,
            ErrorCode::TakeNeeded => Self::TakeNeeded,
            ErrorCode::Precondition => Self::Precondition,
            ErrorCode::Behind => Self::Behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let pages = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../docs/errors");
        for code in Code::ALL {
            let page = pages.join(format!("{}.md", code.as_str()));
            let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            assert!(text.starts_with(&format!("# {}", code.as_str())), "{} has another title", page.display());
            let exit = format!("Exit code: {}.", code.exit().number());
            assert!(text.contains(&exit), "{} must say `{exit}`", page.display());
        }
        for entry in std::fs::read_dir(&pages).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_known = Code::ALL.iter().any(|code| format!("{}.md", code.as_str()) == name);
            assert!(is_known || !name.starts_with("E-"), "{name} is the page of no code");
        }
    }

    #[test]
    fn all_lists_each_code_once_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn exit_codes_are_the_fixed_ones() {
        let exits = [
            (Code::Check, 1),
            (Code::Usage, 2),
            (Code::NotFound, 3),
            (Code::Stale, 4),
            (Code::Conflict, 4),
            (Code::NoQuorum, 5),
            (Code::Timeout, 5),
            (Code::Denied, 6),
        ];
        for (code, number) in exits {
            assert_eq!(code.exit().number(), number, "{}", code.as_str());
        }
        assert_eq!(Exit::Done.number(), 0);
    }
}
