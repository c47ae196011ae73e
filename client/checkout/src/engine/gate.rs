//! Whether the checkout may be touched at all right now: not while a person paused it, while git is in the middle of something, on
//! another branch than the bound one, or when the folder itself is gone.

use tokio::time::Instant;

use super::run::Engine;
use crate::cluster::Cluster;
use crate::git::Git;
use crate::scan::Stamp;

/// Open, or closed for a reason.
#[derive(Debug, Default)]
pub(super) struct Gate {
    reason: Option<String>,
    /// git's index when everything was last looked at.
    index: Option<Stamp>,
}

impl Gate {
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.reason.is_some()
    }

    pub(super) fn close(&mut self, reason: String) {
        self.reason = Some(reason);
    }
}

impl<C: Cluster> Engine<C> {
    /// Whether anything may be looked at. After the gate was closed everything is looked at anew.
    pub(super) fn pass_gate(&mut self, now: Instant) -> bool {
        let reason = self.reason_to_keep_still();
        if reason != self.gate.reason {
            tracing::info!(root = %self.config.root.display(), paused = reason, "checkout was paused or goes on");
        }
        let was_closed = std::mem::replace(&mut self.gate.reason, reason).is_some();
        if was_closed && self.gate.reason.is_none() {
            self.scan_at = now;
            self.is_list_due = true;
        }
        self.gate.reason.is_none()
    }

    /// Why nothing may be touched, if so.
    pub(super) fn reason_to_keep_still(&self) -> Option<String> {
        if self.wishes.borrow().is_paused {
            return Some("paused by request".to_owned());
        }
        if !self.root.is_in_place() {
            return Some("the folder is gone or was replaced; restart the checkout when it is back".to_owned());
        }
        let git = self.git.as_ref()?;
        if let Some(operation) = git.operation() {
            return Some(operation.to_owned());
        }
        let bound = self.binding.branch.as_ref()?;
        match git.head().branch {
            Some(branch) if branch == *bound => None,
            Some(branch) => Some(format!("on branch {branch}, and the checkout is bound to {bound}")),
            None => Some(format!("HEAD is detached, and the checkout is bound to {bound}")),
        }
    }

    /// Whether git did something since everything was last looked at: another HEAD, or another index. A file that then is exactly an
    /// older text was put there by git, and nobody meant to revert what others did since.
    pub(super) fn note_head(&mut self) -> bool {
        let Some(git) = &self.git else { return false };
        let commit = git.head().commit;
        let index = index_stamp(git);
        let is_index_moved = self.gate.index.is_some() && self.gate.index != index;
        let is_head_moved = self.binding.head != commit;
        self.gate.index = index;
        if is_head_moved {
            self.binding.head = commit;
            self.remember_binding();
        }
        is_head_moved || is_index_moved
    }
}

fn index_stamp(git: &Git) -> Option<Stamp> {
    git.dir().join("index").symlink_metadata().ok().as_ref().map(Stamp::from)
}
