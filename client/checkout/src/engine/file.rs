//! The state machine of one file.
//!
//! ```text
//!   hint ─▶ due ─▶ look ─┬─ nothing to do ─────────────▶ Synced
//!                        ├─ propose ─▶ flying ─▶ landed ─▶ due again
//!                        ├─ write, remove ─▶ Synced
//!                        └─ not now ─▶ waits: for a revision, a while, a person
//! ```

use tokio::time::Instant;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_spec::encode;

use super::run::Engine;
use crate::base::{Intent, Record};
use crate::cluster::Cluster;
use crate::config::{Timing, WritePolicy};
use crate::path::FilePath;
use crate::plan::{By, Input, Origin, Side, Step, Take, plan};
use crate::scan::{Found, Scanned, Stamp, look};
use crate::status::FileState;
use crate::text::KnownText;
use crate::write::{Way, WriteError, Writer, Written};

#[cfg(test)]
mod tests;

/// More files than this gone at once is a mass deletion, which a person must confirm: an archive move touches two or three.
const DELETIONS_MAX: usize = 3;

/// Doublings of the pause between tries.
const RETRY_DOUBLINGS_MAX: u32 = 5;

/// One file.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; the state they make up is `state`")]
pub(super) struct File {
    pub(super) record: Record,
    pub(super) state: FileState,
    pub(super) origin: Origin,
    pub(super) is_flying: bool,
    pub(super) retries: u32,
    pub(super) is_deletion_confirmed: bool,
    /// A text that was to be written before a restart, and wasn't.
    pub(super) abandoned: Option<String>,
    due: Option<Instant>,
    hint: Option<Pending>,
    behind: Option<Revision>,
    absent_since: Option<Instant>,
    emptied_since: Option<Instant>,
    seen: Option<Stamp>,
    /// The file as it was when it was closed after writing, or moved in: whole, whenever it is looked at.
    settled: Option<Stamp>,
    is_unsaved: bool,
    is_fresh: bool,
    is_there: bool,
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
            origin: Origin::Saved,
            is_flying: false,
            retries: 0,
            is_deletion_confirmed: false,
            abandoned: None,
            due: Some(now),
            hint: None,
            behind: None,
            absent_since: None,
            emptied_since: None,
            seen: None,
            settled: None,
            is_unsaved: false,
            is_fresh: true,
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

    fn due_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
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
            let is_whole = stamp.is_none() || stamp == self.seen || stamp == self.settled || self.is_fresh;
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
        if std::mem::take(&mut file.is_fresh) {
            file.abandoned = file.record.settle_intent(local);
        }
        if self.look_at_displaced(path, side, now) || self.hold_emptied(path, local, now) {
            return;
        }
        let take = self.take_of(path);
        let (Some(file), Some(project)) = (self.files.get_mut(path), self.project) else { return };
        if local.is_some() {
            file.absent_since = None;
            file.is_deletion_confirmed = false;
        }
        let input = Input {
            path: path.as_str(),
            project,
            agreed: file.record.agreed(),
            local,
            origin: file.origin,
            cluster: side,
            take,
            is_deletion_confirmed: file.is_deletion_confirmed,
        };
        let step = plan(&input);
        self.follow(path, step, scanned, now);
    }

    /// Files that differed at the first binding wait for a word; later ones are merged.
    fn take_of(&self, path: &FilePath) -> Option<Take> {
        let is_asked = !self.binding.is_bound || self.binding.asked.contains(path.as_str());
        if is_asked { self.take } else { Some(Take::Merge) }
    }

    /// A file that was emptied is not believed at once: many tools truncate before they write.
    fn hold_emptied(&mut self, path: &FilePath, local: Option<&str>, now: Instant) -> bool {
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

    fn follow(&mut self, path: &FilePath, step: Step, scanned: Option<Scanned>, now: Instant) {
        let applied = *self.applied.borrow();
        let Some(file) = self.files.get_mut(path) else { return };
        match step {
            Step::Settled => self.settled(path),
            Step::Learn { change, text } => {
                file.record.show(change, text, By::Writer);
                self.binding.asked.remove(path.as_str());
                if self.save(path, now) {
                    self.settled(path);
                }
            }
            Step::Propose(proposal) => self.launch(path, *proposal, None, now),
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

    fn settled(&mut self, path: &FilePath) {
        if let Some(file) = self.files.get_mut(path) {
            file.state = FileState::Synced;
            file.origin = Origin::Saved;
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

    #[expect(clippy::needless_pass_by_value, reason = "a step of a plan is done once: it takes what the plan gave")]
    fn write(
        &mut self,
        path: &FilePath,
        change: RecordId,
        seen: Option<KnownText>,
        text: KnownText,
        scanned: Option<Scanned>,
        now: Instant,
    ) {
        if let Err(reason) = self.may_write(path, scanned.as_ref()) {
            return self.retry(path, reason, now);
        }
        let Some(file) = self.files.get_mut(path) else { return };
        if let Some(seen) = seen {
            file.record.show(change, seen, By::Writer);
        }
        let before = file.record.base().cloned();
        let encoding = scanned.as_ref().map(|scanned| scanned.encoding).unwrap_or_default();
        let bytes = encode(&text.text(), encoding);
        file.record.intent = Some(Intent { change, text: text.clone() });
        if !self.save(path, now) {
            return;
        }
        if let Some(reason) = self.reason_to_keep_still() {
            return self.retry(path, reason, now);
        }
        let written = match &scanned {
            Some(scanned) => self.writer(|writer| writer.replace(path, scanned, &bytes)),
            None => self.writer(|writer| writer.create(path, &bytes)),
        };
        let Some(file) = self.files.get_mut(path) else { return };
        file.record.intent = None;
        let (kept, is_displaced) = match written {
            Ok(Written::Done { kept }) => (kept, false),
            Ok(Written::Displaced { kept }) => (Some(kept), true),
            Ok(Written::Changed) => return file.due_now(now),
            Err(error) => return self.retry(path, error.to_string(), now),
        };
        file.record.wrote = Some(*blake3::hash(&bytes).as_bytes());
        file.record.show(change, text, By::Us);
        file.is_there = true;
        if let Some(name) = kept {
            let digest = scanned.as_ref().filter(|_| !is_displaced).map(|scanned| scanned.digest);
            self.keep_file(path, &name, before, digest, now);
        }
        self.binding.asked.remove(path.as_str());
        tracing::debug!(path = path.as_str(), is_displaced, "file was written");
        if self.save(path, now) {
            self.settled(path);
        }
        let stamp = self.stamp(path);
        if let Some(file) = self.files.get_mut(path) {
            file.seen = stamp;
            if is_displaced {
                file.due_now(now);
            }
        }
    }

    fn writer<T>(&self, act: impl FnOnce(&Writer<'_>) -> Result<T, WriteError>) -> Result<T, WriteError> {
        #[cfg(test)]
        let (before_swap, way) = (self.seams.before_swap.clone(), self.seams.way.unwrap_or(Way::Exchange));
        #[cfg(test)]
        let before_swap = |path: &FilePath| before_swap.iter().for_each(|seam| seam(path));
        #[cfg(not(test))]
        let (before_swap, way) = (|_: &FilePath| (), Way::Exchange);
        act(&Writer { root: &self.root, keep: &self.keep, way, before_swap: &before_swap })
    }

    /// Whether the policy lets us write over what was scanned.
    fn may_write(&mut self, path: &FilePath, scanned: Option<&Scanned>) -> Result<(), String> {
        match self.config.policy {
            WritePolicy::Off => return Err("the write policy is `off`".to_owned()),
            WritePolicy::Always => return Ok(()),
            WritePolicy::Clean => {}
        }
        let (Some(git), Some(scanned)) = (&self.git, scanned) else { return Ok(()) };
        if self.files.get(path).is_some_and(|file| file.record.wrote == Some(scanned.digest)) {
            return Ok(());
        }
        match self.blobs.is_clean(self.root.path(), &git.head(), path, &scanned.bytes) {
            Ok(Some(true) | None) => Ok(()),
            Ok(Some(false)) => Err("has changes that aren't committed, and the write policy is `clean`".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn remove(&mut self, path: &FilePath, scanned: &Scanned, now: Instant) {
        if let Err(reason) = self.may_write(path, Some(scanned)) {
            return self.retry(path, reason, now);
        }
        let written = self.writer(|writer| writer.remove(path, scanned));
        let Some(file) = self.files.get_mut(path) else { return };
        let before = file.record.base().cloned();
        match written {
            Ok(Written::Done { kept: Some(name) }) => self.keep_file(path, &name, before, Some(scanned.digest), now),
            Ok(Written::Displaced { kept }) => self.keep_file(path, &kept, before, None, now),
            Ok(Written::Done { kept: None }) => {}
            Ok(Written::Changed) => return file.due_now(now),
            Err(error) => return self.retry(path, error.to_string(), now),
        }
        tracing::info!(path = path.as_str(), "file was removed, as its change is deleted");
        // At once: a file that somebody makes there from now on is a new one, even with the same text.
        self.forget(path, now);
        if let Some(file) = self.files.get_mut(path) {
            file.due_now(now);
        }
    }

    fn forget(&mut self, path: &FilePath, now: Instant) {
        if let Err(error) = self.store.remove(path) {
            return self.retry(path, format!("what is agreed on could not be removed: {error}"), now);
        }
        if let Some(file) = self.files.get_mut(path) {
            file.record = Record::new(path.as_str());
            file.absent_since = None;
            file.is_deletion_confirmed = false;
        }
        self.settled(path);
    }

    /// A deletion waits; many at once wait for a person.
    fn await_deletion(&mut self, path: &FilePath, now: Instant) {
        let grace = self.config.timing.deletion_grace;
        let Some(file) = self.files.get_mut(path) else { return };
        let since = *file.absent_since.get_or_insert(now);
        if now < since + grace {
            file.state = FileState::DeletionPending;
            file.due_at(since + grace);
            return;
        }
        let is_gone = |file: &&File| file.absent_since.is_some();
        let gone = self.files.values().filter(is_gone).count();
        let agreed = self.files.values().filter(|file| file.record.agreed().is_some()).count();
        let is_mass = gone > DELETIONS_MAX || (gone > 1 && gone == agreed);
        let Some(file) = self.files.get_mut(path) else { return };
        if is_mass {
            file.state = FileState::DeletionHeld;
        } else {
            file.is_deletion_confirmed = true;
            file.due_now(now);
        }
    }
}
