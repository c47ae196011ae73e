//! What a checkout tells about itself: per file, whether it is in agreement with the cluster, and if not, why.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use zyflow_machine::id::Revision;

use crate::plan::By;

/// A checkout, as `zyflow checkout list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckoutStatus {
    /// The folder.
    pub root: PathBuf,
    /// The project it is bound to.
    pub project: String,
    /// Everything was looked at at least once.
    pub is_ready: bool,
    /// Why nothing is read or written at the moment, if so.
    pub paused: Option<String>,
    /// Things that a person should know: polling, refused globs, a project that doesn't exist.
    pub notes: Vec<String>,
    /// The cluster doesn't answer: edits wait here, in their files.
    pub offline: Option<Offline>,
    /// Files whose text is ours and not HEAD's: git calls them modified, and would refuse to check out a branch that has another
    /// text there. All of it is in the cluster, so `git checkout --force` or `git stash` loses nothing. Files that were removed
    /// are told until the next start.
    pub dirtied: Vec<String>,
    /// How many rescans that were asked for are done.
    pub rescans: u64,
    /// The newest revision that was applied here.
    pub applied: Revision,
    /// Its files by path.
    pub files: Vec<FileStatus>,
}

impl CheckoutStatus {
    /// The files that aren't in agreement with the cluster, for whatever reason.
    pub fn unsynced(&self) -> impl Iterator<Item = &FileStatus> {
        self.files.iter().filter(|file| file.state != FileState::Synced)
    }
}

/// The cluster doesn't answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Since when, by this machine's clock: for people, never compared.
    pub since: SystemTime,
    /// What the last try came to.
    pub reason: String,
}

/// One file of a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Path within the checkout.
    pub path: String,
    /// How it stands.
    pub state: FileState,
    /// Since when it isn't [`FileState::Synced`], by this machine's clock: for people, never compared. A restart begins anew.
    pub unsynced_since: Option<SystemTime>,
    /// The revision of the text that was last agreed on.
    pub revision: Option<Revision>,
    /// The newest text was written by us: what makes git call the file modified, unless it equals HEAD's.
    pub written_by: Option<By>,
    /// Replaced files of this path that are still watched, or hold bytes that can't be merged.
    pub kept: Vec<PathBuf>,
}

/// How a file stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileState {
    /// It hasn't been looked at yet.
    #[default]
    Unknown,
    /// Equal to the cluster's text.
    Synced,
    /// Under way: proposed, or waiting for a revision to be applied here.
    Syncing,
    /// Not in agreement, with the reason; tried again by itself.
    Unsynced(String),
    /// It can't be synced as it is, with the reason; left alone until it changes.
    Parked(String),
    /// It differs from the cluster's and was never agreed on: `--take cluster|local|merge`.
    NeedsTake,
    /// It is gone; the deletion spreads after a while.
    DeletionPending,
    /// It is gone together with many others; that spreads only if it is confirmed.
    DeletionHeld,
}

impl fmt::Display for FileState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unknown => "not looked at yet",
            Self::Synced => "in agreement with the cluster",
            Self::Syncing => "under way",
            Self::Unsynced(reason) | Self::Parked(reason) => reason,
            Self::NeedsTake => {
                "differs from the cluster's text and was never agreed on: say which to take, cluster, local or merge"
            }
            Self::DeletionPending => "gone; if it stays so, the deletion spreads in a while",
            Self::DeletionHeld => "gone in a way that may not be meant: bring it back, or confirm the deletion",
        })
    }
}
