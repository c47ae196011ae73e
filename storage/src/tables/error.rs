//! Why tables fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zyflow_crypto::LocalKeyError;
use zyflow_machine::format::FormatError;
use zyflow_machine::id::{ClusterTime, Revision};

use super::entry::Position;

/// Why tables fail. [`TablesError::Compacted`], [`TablesError::Future`], [`TablesError::Undone`] and [`TablesError::BeforeFirst`] are the reader's mistake; all else means that
/// this node can't go on with these tables.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The file system.
    #[error("tables: cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// SQLite.
    #[error("tables: SQLite cannot {doing}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// A newer release wrote the database.
    #[error(
        "the tables in {} have schema {found}, this release knows {known}: start the newer release, or delete the folder to \
         have it rebuilt from snapshot and log", dir.display()
    )]
    NewerSchema {
        /// The folder.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that is known here.
        known: u32,
    },
    /// The database was derived from another history.
    #[error("the tables in {} belong to lineage {found}, not {expected}: this is another node's folder", dir.display())]
    OtherLineage {
        /// The folder.
        dir: PathBuf,
        /// Its lineage.
        found: String,
        /// The lineage of this node.
        expected: String,
    },
    /// A row can't be sealed or opened.
    #[error("tables: cannot {doing} {what}")]
    Sealing {
        /// `seal` or `open`.
        doing: &'static str,
        /// Which row.
        what: String,
        /// Why.
        source: LocalKeyError,
    },
    /// The contents of the database contradict themselves.
    #[error("the tables are damaged ({what}): they are rebuilt from snapshot and log at the next start")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// Something stored can't be decoded.
    #[error("the tables are damaged ({what}): they are rebuilt from snapshot and log at the next start")]
    Undecodable {
        /// What it was.
        what: String,
        /// Why it can't be decoded.
        source: FormatError,
    },
    /// An entry that isn't the one after the last.
    #[error("an entry was given out of order: {given} after {applied:?}")]
    OutOfOrder {
        /// The newest that was applied.
        applied: Option<Position>,
        /// What came.
        given: Position,
    },
    /// The past that is asked for isn't kept any more.
    #[error("revision {revision} is no longer kept, the oldest is {horizon}: ask for a later one")]
    Compacted {
        /// What was asked for.
        revision: Revision,
        /// The oldest that there is.
        horizon: Revision,
    },
    /// The revision that is asked for hasn't happened here.
    #[error(
        "revision {revision} has not been applied here yet, the newest is {applied}: wait for it, or ask for an older one"
    )]
    Future {
        /// What was asked for.
        revision: Revision,
        /// The newest that there is.
        applied: Revision,
    },
    /// The revision that is asked for was undone by a restore from a backup.
    #[error(
        "revision {revision} was undone: the cluster was restored from a backup, to the state at revision {cut}; look at the \
         state, then go on from revision {at}"
    )]
    Undone {
        /// What was asked for.
        revision: Revision,
        /// What was gone back to.
        cut: Revision,
        /// Where the history goes on.
        at: Revision,
    },
    /// The time that is asked for is before everything that is kept.
    #[error(
        "nothing is kept of that time ({} ms since 1970): the oldest is revision {revision}, of {} ms", .time.0, .first.0
    )]
    BeforeFirst {
        /// What was asked for.
        time: ClusterTime,
        /// The oldest revision that is kept.
        revision: Revision,
        /// Its time.
        first: ClusterTime,
    },
    /// No randomness for a new database.
    #[error("tables: the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The tables were shut down.
    #[error("the tables are shut down")]
    Stopped,
    /// They failed before; this is why.
    #[error("the tables failed before: {0}")]
    Failed(#[source] Arc<TablesError>),
    /// A thread that held a part of the state panicked, so the state can't be believed.
    #[error("a thread panicked while it changed the tables in memory: restart the node")]
    Poisoned,
}

impl TablesError {
    pub(super) fn sqlite(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { doing, source }
    }

    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    /// Is the database at fault, so that rebuilding it helps?
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Undecodable { .. } => true,
            Self::Sealing { source, .. } => {
                matches!(source, LocalKeyError::Malformed { .. } | LocalKeyError::Authentication)
            }
            Self::Sqlite { source, .. } => is_corruption(source),
            Self::File { .. }
            | Self::NewerSchema { .. }
            | Self::OtherLineage { .. }
            | Self::OutOfOrder { .. }
            | Self::Compacted { .. }
            | Self::Future { .. }
            | Self::Undone { .. }
            | Self::BeforeFirst { .. }
            | Self::Random(_)
            | Self::Stopped
            | Self::Failed(_)
            | Self::Poisoned => false,
        }
    }

    /// Does it mean that these tables must not go on (and not only that the question was wrong)?
    pub(super) fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::Compacted { .. }
                | Self::Future { .. }
                | Self::Undone { .. }
                | Self::BeforeFirst { .. }
                | Self::Stopped
        )
    }
}

fn is_corruption(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(code) => {
            matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation)
        }
        // A column of another type, a missing row: the schema is ours, so the contents are wrong.
        None => matches!(
            error,
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::QueryReturnedNoRows
        ),
    }
}
