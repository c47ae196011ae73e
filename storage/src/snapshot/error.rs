//! Why snapshots fail.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zyflow_crypto::{OpenError, SealError};

use crate::tables::{Position, TablesError};

/// Why a snapshot can't be made, read or installed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is nothing to hold.
    #[error("nothing was applied yet, so there is nothing to make a snapshot of")]
    Empty,
    /// The file system.
    #[error("snapshot: cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file isn't what was written.
    #[error("the snapshot {} is damaged ({reason}): take it again from another node or backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is what was written, and that is no state.
    #[error("the snapshot {} contradicts itself ({reason}): it was made from damaged tables", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        reason: String,
    },
    /// A newer release wrote it.
    #[error("the snapshot {} has format {found}, this release knows {known}: upgrade this node", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest format that is known here.
        known: u16,
    },
    /// A chunk doesn't open.
    #[error("chunk {chunk} of the snapshot {} doesn't open", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Which chunk, from 0.
        chunk: u32,
        /// Why.
        source: OpenError,
    },
    /// A chunk can't be sealed.
    #[error("a chunk of a snapshot can't be sealed")]
    Seal(#[from] SealError),
    /// No randomness for its id.
    #[error("snapshot: the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// It is behind.
    #[error("the snapshot is of entry {offered}, {applied:?} is applied here already")]
    Older {
        /// What it is of.
        offered: Position,
        /// What is applied.
        applied: Option<Position>,
    },
    /// The tables.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

impl SnapshotError {
    /// Is it only that there is no room on the disk?
    #[must_use]
    pub fn is_out_of_room(&self) -> bool {
        matches!(self, Self::File { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }

    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn inconsistent(path: &Path, reason: impl Into<String>) -> Self {
        Self::Inconsistent { path: path.to_owned(), reason: reason.into() }
    }
}
