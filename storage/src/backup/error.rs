//! Why backups fail.

use std::path::{Path, PathBuf};

use zyflow_crypto::backup::ObjectError;
use zyflow_crypto::{LocalKeyError, OpenError, SealError};
use zyflow_machine::id::Revision;

use super::Moment;
use crate::layout::LayoutError;
use crate::snapshot::SnapshotError;
use crate::tables::TablesError;

/// Why a backup can't be made, verified or restored. Where it is about a restore, nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system.
    #[error("backup: cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An object can't be sent on.
    #[error("backup: an object can't be written")]
    Write(#[source] std::io::Error),
    /// There is no object.
    #[error("{} holds no object of a backup: name the folder that `zyflow backup create` wrote to", dir.display())]
    Empty {
        /// Where.
        dir: PathBuf,
    },
    /// An object is wrong by itself or in its place.
    #[error("object {name}: {source}. What is before it can still be restored: move it and all later ones away")]
    Object {
        /// Its name.
        name: String,
        /// What is wrong.
        source: ObjectError,
    },
    /// An object's contents are wrong.
    #[error(
        "object {name} is damaged ({reason}): take it from another copy of the backup, or restore from an older one"
    )]
    Damaged {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A chunk doesn't open.
    #[error("chunk {chunk} of object {name} doesn't open with this key")]
    Open {
        /// The object's name.
        name: String,
        /// Which chunk, from 0.
        chunk: u32,
        /// Why.
        source: OpenError,
    },
    /// A chunk can't be sealed.
    #[error("a chunk of a backup can't be sealed")]
    Seal(#[from] SealError),
    /// The key of what is kept for a moment.
    #[error("backup: the key of the working files")]
    Key(#[from] LocalKeyError),
    /// SQLite, about what is kept for a moment.
    #[error("backup: SQLite cannot {doing}")]
    Working {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// No randomness.
    #[error("backup: the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// A moment before everything that is kept.
    #[error("the backup holds nothing of {wanted}: the oldest that can be restored is revision {oldest}{}", shown(.time_ms.as_ref()))]
    TooOld {
        /// What was asked for.
        wanted: Moment,
        /// The oldest there is.
        oldest: Revision,
        /// Its time, milliseconds since 1970.
        time_ms: Option<u64>,
    },
    /// A moment after everything that was backed up.
    #[error("the backup ends before {wanted}: the newest that can be restored is revision {newest}{}", shown(.time_ms.as_ref()))]
    TooNew {
        /// What was asked for.
        wanted: Moment,
        /// The newest there is.
        newest: Revision,
        /// Its time, milliseconds since 1970.
        time_ms: Option<u64>,
    },
    /// A moment that an earlier restore undid.
    #[error(
        "revision {wanted} was undone by an earlier restore, which went back to {cut} and on at {at}: choose one of these"
    )]
    Undone {
        /// What was asked for.
        wanted: Revision,
        /// What was gone back to.
        cut: Revision,
        /// Where it went on.
        at: Revision,
    },
    /// No object of the backup ends with the state of a node.
    #[error("the backup was broken off before its first end: run `zyflow backup create` again, it goes on from there")]
    Unsettled,
    /// The old cluster's name.
    #[error(
        "the backup is of the cluster `{0}`: give the new one another name in `node.cluster` and in its certificates, so that \
         no node of the old one can talk to it"
    )]
    SameCluster(String),
    /// The configuration is of another history.
    #[error("the backup is of lineage {found}, the configuration names {expected}: write `lineage = \"{found}\"`")]
    OtherLineage {
        /// The backup's.
        found: String,
        /// The configuration's.
        expected: String,
    },
    /// Revisions are used up.
    #[error("the backup ends at revision {0}: there is no room for another million")]
    RevisionsUsedUp(Revision),
    /// The new data folder.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The snapshot that the new cluster begins with.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The tables, or a version that can't be read.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

fn shown(time_ms: Option<&u64>) -> String {
    time_ms.map_or_else(String::new, |time| format!(", of {time} ms since 1970"))
}

impl BackupError {
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    pub(super) fn damaged(name: &str, reason: impl Into<String>) -> Self {
        Self::Damaged { name: name.to_owned(), reason: reason.into() }
    }

    pub(super) fn object(name: &str) -> impl FnOnce(ObjectError) -> Self {
        move |source| Self::Object { name: name.to_owned(), source }
    }

    pub(super) fn working(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Working { doing, source }
    }

    /// A person made a mistake, and the backup is as good as it was.
    #[must_use]
    pub fn is_wish(&self) -> bool {
        matches!(
            self,
            Self::TooOld { .. }
                | Self::TooNew { .. }
                | Self::Undone { .. }
                | Self::SameCluster(_)
                | Self::OtherLineage { .. }
                | Self::Layout(_)
        )
    }
}
