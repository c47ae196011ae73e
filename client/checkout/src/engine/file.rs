//! The state machine of one file.
//!
//! ```text
//!   hint ─▶ due ─▶ look ─┬─ nothing to do ─────────────▶ Synced
//!                        ├─ propose ─▶ flying ─▶ landed ─▶ due again
//!                        ├─ write, remove ─▶ Synced
//!                        └─ not now ─▶ waits: for a revision, a while, a person
//! ```

use std::time::SystemTime;

use tokio::time::Instant;
use zyflow_machine::command::Body;
use zyflow_machine::id::Revision;

use super::half::{Held, Writing};
use super::head::{Jump, Pulled, Renderings};
use super::run::Engine;
use crate::base::Record;
use crate::cluster::Cluster;
use crate::config::Timing;
use crate::path::FilePath;
use crate::plan::{Input, Origin, Shown, Side, Step, Take, plan};
use crate::scan::{Found, Scanned, Stamp, look};
use crate::status::FileState;
use crate::text::KnownText;

#[cfg(test)]
mod tests;

/// Doublings of the pause between tries.
const RETRY_DOUBLINGS_MAX: u32 = 5;

/// One file.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; the state they make up is `state`")]
pub(super) struct File {
    pub(super) record: Record,
    pub(super) state: FileState,
    /// How its text came there, if git put it there.
    pub(super) jump: Option<Jump>,
    /// The cluster's texts that this run has seen.
    pub(super) renderings: Renderings,
    /// BLAKE3 of the bytes that were found last.
    pub(super) digest: Option<[u8; 32]>,
    /// Since when it isn't in agreement.
    pub(super) unsynced_since: Option<SystemTime>,
    pub(super) is_flying: bool,
    pub(super) retries: u32,
    pub(super) is_deletion_confirmed: bool,
    /// A text that was to be written before a restart, and wasn't.
    pub(super) abandoned: Option<String>,
    due: Option<Instant>,
    hint: Option<Pending>,
    behind: Option<Revision>,
    pub(super) absent_since: Option<Instant>,
    /// The path that its change has now, where that is another.
    pub(super) moved_to: Option<String>,
    /// Whether its text stands elsewhere since it is gone; `None` = not looked for yet.
    pub(super) is_moved: Option<bool>,
    pub(super) emptied_since: Option<Instant>,
    /// A text that isn't believed yet, as its writer may be half way through.
    pub(super) half: Option<Held>,
    pub(super) seen: Option<Stamp>,
    /// The file as it was when it was closed after writing, or moved in: whole, whenever it is looked at.
    settled: Option<Stamp>,
    is_unsaved: bool,
    is_fresh: bool,
    /// It was in agreement since the start: what comes from now on comes at once.
    pub(super) is_watched: bool,
    pub(super) is_there: bool,
}

/// A hint that waits for the file to get quiet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    /// Quiet if nothing happens before.
    until: Instant,
    /// Read whatever happens.
    last: Instant,
    stamp: Option<Stamp>,
}

impl File {
    pub(super) fn new(record: Record, now: Instant) -> Self {
        Self {
            record,
            state: FileState::Unknown,
            jump: None,
            renderings: Renderings::new(),
            digest: None,
            unsynced_since: None,
            is_flying: false,
            retries: 0,
            is_deletion_confirmed: false,
            abandoned: None,
            due: Some(now),
            hint: None,
            behind: None,
            absent_since: None,
            moved_to: None,
            is_moved: None,
            emptied_since: None,
            half: None,
            seen: None,
            settled: None,
            is_unsaved: false,
            is_fresh: true,
            is_watched: false,
            is_there: false,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        if self.is_flying { None } else { self.due }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    pub(super) fn due_now(&mut self, now: Instant) {
        self.due_at(now);
    }

    pub(super) fn due_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The file stands there: whatever was thought about its absence is void.
    pub(super) fn there_again(&mut self) {
        self.absent_since = None;
        self.is_moved = None;
        self.is_deletion_confirmed = false;
    }

    /// Whether its bytes are those that we wrote last.
    pub(super) fn is_ours(&self) -> bool {
        self.is_there && self.record.wrote.is_some() && self.record.wrote == self.digest
    }

    /// Keeps the time since when the file isn't in agreement in step with its state.
    pub(super) fn note_time(&mut self) {
        match self.state {
            FileState::Synced => self.unsynced_since = None,
            FileState::Unknown
            | FileState::Syncing
            | FileState::Unsynced(_)
            | FileState::Parked(_)
            | FileState::NeedsTake
            | FileState::DeletionPending
            | FileState::DeletionHeld => {
                self.unsynced_since.get_or_insert_with(SystemTime::now);
            }
        }
    }

    pub(super) fn is_looked_at(&self) -> bool {
        self.state != FileState::Unknown
    }

    /// Whether it is worth a line in the status.
    pub(super) fn is_shown(&self) -> bool {
        self.is_there || !self.record.shown.is_empty() || self.record.flight.is_some()
    }

    /// The file may have changed. One that was closed after writing and didn't shrink is looked at once; else it must be quiet.
    pub(super) fn hint(&mut self, stamp: Option<Stamp>, is_settled: bool, now: Instant, timing: &Timing) {
        let has_shrunk = match (self.seen, stamp) {
            (Some(seen), Some(stamp)) => stamp.bytes < seen.bytes,
            (_, None) => true,
            (None, Some(stamp)) => stamp.bytes == 0,
        };
        if is_settled && !has_shrunk {
            self.hint = None;
            self.settled = stamp;
            self.due_now(now);
            return;
        }
        let first = self.hint.map_or(now, |pending| pending.first);
        // A writer that empties a file and pauses has it open: the rest of the text isn't deleted, it is on its way.
        let is_being_written = has_shrunk && !is_settled && stamp.is_some();
        let (quiet, cap) =
            if is_being_written { (timing.quiet_cap, timing.emptied_hold) } else { (timing.quiet, timing.quiet_cap) };
        let last = first + cap;
        let until = (now + quiet).min(last).max(now);
        self.hint = Some(Pending { first, until, last, stamp });
        self.due = Some(until);
    }

    /// Whether the file may be taken for whole, whoever asks. What nobody closed has to be quiet, even if no hint of it came yet.
    fn is_quiet(&mut self, stamp: Option<Stamp>, now: Instant, timing: &Timing) -> bool {
        let Some(pending) = self.hint else {
            // One that was just made is empty for a moment.
            let is_fresh = self.is_fresh && stamp.is_some_and(|stamp| stamp.bytes > 0);
            let is_whole = stamp.is_none() || stamp == self.seen || stamp == self.settled || is_fresh;
            if !is_whole {
                self.hint(stamp, false, now, timing);
            }
            return is_whole;
        };
        let is_over_cap = now >= pending.last;
        if pending.stamp != stamp && !is_over_cap {
            self.hint(stamp, false, now, timing);
            return false;
        }
        if now < pending.until && !is_over_cap {
            self.due = Some(pending.until);
            return false;
        }
        self.hint = None;
        true
    }

    /// Waits for a revision to be applied here.
    pub(super) fn wait_for(&mut self, need: Revision, applied: Revision, now: Instant) {
        if applied >= need {
            self.due_now(now);
        } else {
            self.behind = Some(need);
            self.state = FileState::Syncing;
        }
    }

    pub(super) fn applied(&mut self, applied: Revision, now: Instant) {
        if self.behind.is_some_and(|need| need <= applied) {
            self.behind = None;
            self.due_now(now);
        }
    }

    pub(super) fn confirm_deletion(&mut self, now: Instant) {
        if self.state == FileState::DeletionHeld {
            self.is_deletion_confirmed = true;
            self.due_now(now);
        }
    }
}

impl<C: Cluster> Engine<C> {
    pub(super) fn stamp(&self, path: &FilePath) -> Option<Stamp> {
        let folder = self.root.folder_of(path).ok()?;
        folder.metadata(path.split().1).ok().flatten().as_ref().map(Stamp::from)
    }

    /// Looks at a file and does what follows.
    pub(super) fn look(&mut self, path: &FilePath, now: Instant) {
        let stamp = self.stamp(path);
        let timing = self.config.timing;
        let Some(file) = self.files.get_mut(path) else { return };
        if file.is_flying || !file.is_quiet(stamp, now, &timing) {
            return;
        }
        file.due = None;
        file.is_there = stamp.is_some();
        if file.record.flight.is_some() {
            return self.fly(path);
        }
        if let Some(error) = self.damaged.get(&path.hash()) {
            file.state = FileState::Parked(error.to_string());
            return;
        }
        if file.is_unsaved && !self.save(path, now) {
            return;
        }
        match self.leave_undone(path, now) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.retry(path, error.to_string(), now),
        }
        match self.side(path) {
            Ok(side) => self.look_against(path, &side, now),
            Err(error) => self.retry(path, error.to_string(), now),
        }
    }

    fn look_against(&mut self, path: &FilePath, side: &Side, now: Instant) {
        let timing = self.config.timing;
        let found = look(&self.root, path);
        let Some(file) = self.files.get_mut(path) else { return };
        let scanned = match found {
            Found::Absent => None,
            Found::Text(scanned) => Some(scanned),
            Found::Parked(reason) => {
                file.state = FileState::Parked(reason.to_string());
                return;
            }
            Found::Unstable => return file.hint(None, false, now, &timing),
        };
        let local = scanned.as_ref().map(|scanned| scanned.text.as_str());
        file.seen = scanned.as_ref().map(|scanned| scanned.stamp);
        let digest = scanned.as_ref().map(|scanned| scanned.digest);
        if std::mem::replace(&mut file.digest, digest) != digest {
            self.dirt.note(path);
        }
        self.note_save(path, scanned.as_ref().map(|scanned| scanned.stamp));
        let Some(file) = self.files.get_mut(path) else { return };
        if std::mem::take(&mut file.is_fresh) {
            file.abandoned = file.record.settle_intent(local);
        }
        if self.look_at_displaced(path, side, now) || self.hold_emptied(path, local, now) {
            return;
        }
        let Ok(start) = self.start(path, side, local, now) else { return };
        let take = self.take_of(path);
        let is_base = |file: &File| file.record.base().map(KnownText::text).as_deref() == local;
        let is_moving = !self.files.get(path).is_some_and(is_base) && !self.is_git_still();
        let (Some(file), Some(project)) = (self.files.get_mut(path), self.project) else { return };
        if is_moving {
            return file.due_now(now);
        }
        if local.is_some() {
            file.there_again();
        }
        let Some(file) = self.files.get(path) else { return };
        let agreed = file.record.agreed();
        let input = Input {
            path: path.as_str(),
            project,
            agreed: agreed.map(|(change, shown)| (change, start.as_ref().map_or(shown, std::slice::from_ref))),
            local,
            origin: Origin::Saved,
            cluster: side,
            take,
            is_deletion_confirmed: file.is_deletion_confirmed,
            strategies: &self.strategies,
        };
        let mut step = plan(&input);
        if let Step::Propose(proposal) = step {
            match self.writing(path, &proposal.body, scanned.as_ref(), now) {
                Writing::Done => {}
                writing @ (Writing::Held(_) | Writing::Changed) => return self.hold_half(path, &writing, now),
            }
            let is_new = matches!(proposal.body, Body::CreateChange { .. });
            let moved = local.filter(|_| is_new).and_then(|text| self.moved_here(path, text));
            match moved.map_or_else(|| self.with_fields(&input, *proposal), Ok) {
                Ok(proposal) => step = Step::Propose(Box::new(proposal)),
                Err(error) => return self.retry(path, error.to_string(), now),
            }
        }
        let is_leaving = file.moved_to.is_some();
        if is_leaving {
            self.leave(path, step, scanned, now);
        } else {
            self.follow(path, step, scanned, now);
        }
    }

    /// Where git put the text there, the text that it was made from. `Err` = that can't be told now, and is looked at again.
    fn start(&mut self, path: &FilePath, side: &Side, local: Option<&str>, now: Instant) -> Result<Option<Shown>, ()> {
        let (Side::Live { change, text }, Some(local)) = (side, local) else { return Ok(None) };
        self.note_rendering(path, text);
        let newest = |file: &File| file.record.base().map(KnownText::text);
        let before = self.files.get(path).and_then(newest);
        match self.pulled(path, local, *change, now) {
            Ok(Pulled::From(start)) => Ok(Some(start)),
            Ok(Pulled::Edit) if self.files.get(path).and_then(newest) == before => Ok(None),
            Ok(Pulled::Edit) => self.save(path, now).then_some(None).ok_or(()),
            Ok(Pulled::HalfWay(until)) => {
                if let Some(file) = self.files.get_mut(path) {
                    file.state = FileState::Syncing;
                    file.due_at(until);
                }
                Err(())
            }
            Err(error) => {
                self.retry(path, error.to_string(), now);
                Err(())
            }
        }
    }

    /// Files that differed at the first binding wait for a word; later ones are merged.
    fn take_of(&self, path: &FilePath) -> Option<Take> {
        let is_asked = !self.binding.is_bound || self.binding.asked.contains(path.as_str());
        if is_asked { self.take } else { Some(Take::Merge) }
    }

    pub(super) fn follow(&mut self, path: &FilePath, step: Step, scanned: Option<Scanned>, now: Instant) {
        let applied = *self.applied.borrow();
        let Some(file) = self.files.get_mut(path) else { return };
        match step {
            Step::Settled => self.settled(path),
            Step::Learn { change, text } => {
                file.record.learn(change, text, file.is_watched);
                self.binding.asked.remove(path.as_str());
                if self.save(path, now) {
                    self.settled(path);
                }
            }
            Step::Propose(mut proposal) => {
                self.fold_pulls(path, &mut proposal);
                self.launch(path, *proposal, None, now);
            }
            Step::Write { change, seen, text } => self.write(path, change, seen, text, scanned, now),
            Step::Remove => match scanned {
                Some(scanned) => self.remove(path, &scanned, now),
                None => file.due_now(now),
            },
            Step::Forget => self.forget(path, now),
            Step::AwaitDeletion => self.await_deletion(path, now),
            Step::NeedsTake => {
                file.state = FileState::NeedsTake;
                if self.binding.asked.insert(path.as_str().to_owned()) && self.binding.is_bound {
                    self.remember_binding();
                }
            }
            Step::Behind { need } if applied < need => file.wait_for(need, applied, now),
            // The document is unknown here although everything up to the base is applied: another history, or a lost one.
            Step::Behind { .. } => self.retry(path, "the cluster doesn't know this file's change".to_owned(), now),
        }
    }

    pub(super) fn settled(&mut self, path: &FilePath) {
        if let Some(file) = self.files.get_mut(path) {
            file.state = FileState::Synced;
            file.is_watched = true;
            file.jump = None;
            file.retries = 0;
        }
    }

    /// Something failed: the file says why, and is looked at again after a pause.
    pub(super) fn retry(&mut self, path: &FilePath, reason: String, now: Instant) {
        let base = self.config.timing.retry;
        let Some(file) = self.files.get_mut(path) else { return };
        if file.retries == 0 {
            tracing::warn!(path = path.as_str(), reason, "file is not in agreement; tried again");
        }
        file.due = Some(now + base * 2_u32.pow(file.retries.min(RETRY_DOUBLINGS_MAX)));
        file.retries = file.retries.saturating_add(1);
        file.state = FileState::Unsynced(reason);
    }

    /// Stores what is remembered of a file. Where that fails it is tried again before anything else is done with the file.
    pub(super) fn save(&mut self, path: &FilePath, now: Instant) -> bool {
        let Some(file) = self.files.get_mut(path) else { return false };
        match self.store.save(path, &file.record) {
            Ok(()) => {
                file.is_unsaved = false;
                true
            }
            Err(error) => {
                file.is_unsaved = true;
                self.retry(path, format!("what is agreed on could not be stored: {error}"), now);
                false
            }
        }
    }
}
