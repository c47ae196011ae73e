//! Texts that may be half of what their writer is writing: they are waited for before a deletion in them is believed.
//!
//! | what is seen | what follows |
//! |---|---|
//! | emptied | held for a while: many tools truncate before they write |
//! | lacks lines, and somebody has it open for writing | held until it is closed, or nobody wrote to it for long |
//! | lacks lines, and our write replaced it at that moment | the same, after a quiet time: no close was heard |
//!
//! Half a text that is believed deletes the rest for everybody, and when the rest arrives it looks like an old buffer. A text that only adds
//! loses nothing by being read early. When a hint may be trusted is decided elsewhere (`file`).

use tokio::time::Instant;
use zyflow_machine::command::{BlockOp, Body};

use super::run::Engine;
use crate::cluster::Cluster;
use crate::path::FilePath;
use crate::scan::{Scanned, Stamp};
use crate::status::FileState;

/// A text that is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The file as it was read.
    stamp: Stamp,
    /// Since when it is like that.
    since: Instant,
}

impl Held {
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What is held, `before` being what was held at the last look.
    pub(super) fn renew(before: Option<Self>, stamp: Stamp, now: Instant) -> Self {
        before.filter(|held| held.stamp == stamp).unwrap_or(Self { stamp, since: now })
    }
}

/// What is known of the writer of a text.
pub(super) enum Writing {
    /// The text is whole.
    Done,
    /// It may be half, and is held.
    Held(Held),
    /// It changed since it was read.
    Changed,
}

impl<C: Cluster> Engine<C> {
    /// A file that was emptied is not believed at once: many tools truncate before they write.
    pub(super) fn hold_emptied(&mut self, path: &FilePath, local: Option<&str>, now: Instant) -> bool {
        let hold = self.config.timing.emptied_hold;
        let Some(file) = self.files.get_mut(path) else { return false };
        let is_emptied = local == Some("") && file.record.base().is_some_and(|base| !base.blocks.is_empty());
        if !is_emptied {
            file.emptied_since = None;
            return false;
        }
        let since = *file.emptied_since.get_or_insert(now);
        if now >= since + hold {
            return false;
        }
        file.state = FileState::Unsynced("the file is empty; that is believed after a while".to_owned());
        file.due_at(since + hold);
        true
    }

    /// Whether the writer of a file is done with it, where the text in it takes something away.
    pub(super) fn writing(&self, path: &FilePath, body: &Body, scanned: Option<&Scanned>, now: Instant) -> Writing {
        let Some(scanned) = scanned.filter(|scanned| lacks(body, &scanned.text)) else { return Writing::Done };
        let before = self.files.get(path).and_then(|file| file.half);
        self.writing_of(path.split().1, scanned.stamp, before, now, || self.stamp(path))
    }

    /// The file isn't taken for whole: it is looked at again when its writer may be done.
    pub(super) fn hold_half(&mut self, path: &FilePath, writing: &Writing, now: Instant) {
        let again = now + self.config.timing.quiet_cap;
        let Some(file) = self.files.get_mut(path) else { return };
        if let Writing::Held(held) = writing {
            file.half = Some(*held);
            let reason = "lines are missing, and the file is still open for writing: its close is waited for";
            file.state = FileState::Unsynced(reason.to_owned());
            file.due_at(again);
        } else {
            file.due_now(now);
        }
    }

    /// Whether whoever has the file of this name and stamp open is done. `look` looks at it anew.
    pub(super) fn writing_of(
        &self,
        name: &str,
        stamp: Stamp,
        before: Option<Held>,
        now: Instant,
        look: impl FnOnce() -> Option<Stamp>,
    ) -> Writing {
        let held = Held::renew(before, stamp, now);
        if self.is_open(name, stamp) && now < held.since + self.config.timing.writer_hold {
            return Writing::Held(held);
        }
        // Whoever closed it after it was read and before it was asked for wrote the rest meanwhile.
        if look() == Some(stamp) { Writing::Done } else { Writing::Changed }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests can blind it")]
    fn is_open(&self, name: &str, stamp: Stamp) -> bool {
        crate::writers::is_open_for_writing(name, stamp)
    }

    #[cfg(test)]
    fn is_open(&self, name: &str, stamp: Stamp) -> bool {
        !self.seams.is_blind && crate::writers::is_open_for_writing(name, stamp)
    }
}

/// Whether `body`, read from `text`, is what it would be if the rest of the text were still to come.
pub(super) fn lacks(body: &Body, text: &str) -> bool {
    let Body::Edit { ops, conflicts, .. } = body else { return false };
    // The last line may be cut within.
    let is_cut = !text.ends_with('\n') && ops.iter().any(|op| !matches!(op, BlockOp::Insert { .. }));
    // A line that is missing here and was edited elsewhere is no deletion but a conflict.
    is_cut || !conflicts.is_empty() || ops.iter().any(|op| matches!(op, BlockOp::Delete { .. }))
}
