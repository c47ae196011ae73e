//! Whether the checkout may be touched at all right now: not while a person paused it, while git is in the middle of something, on
//! another branch than the bound one, or when the folder itself is gone.

use tokio::time::Instant;

use super::run::Engine;
use crate::cluster::Cluster;

/// Open, or closed for a reason.
#[derive(Debug, Default)]
pub(super) struct Gate {
    reason: Option<String>,
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
}
