//! Files and changes that move: one change keeps its tasks, whichever side moves it.
//!
//! ```text
//!   here:       mv a/tasks.md b/tasks.md  ─▶ b has a's text and a is gone ─▶ MoveChange, with b bound to a's change once accepted
//!   elsewhere:  the change's path is another ─▶ what the old file holds beyond it is proposed, then the old file is removed and
//!                                              the new one made by the ordinary write
//! ```
//! A file counts as moved here when the text that was agreed on stands at the new path word for word, or when OpenSpec's archive put it
//! there (`changes/x/` becomes `changes/archive/DATE-x/`), where its edits may come along. Anything else is a new file beside a deleted
//! one: no text is lost by that, but the tasks begin anew.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use zyflow_machine::command::Body;
use zyflow_machine::id::{RecordId, Revision};

use super::run::Engine;
use crate::cluster::Cluster;
use crate::path::FilePath;
use crate::plan::{Proposal, Step};
use crate::scan::{Found, Scanned, look};

/// Where OpenSpec puts a change that is done.
const ARCHIVE: &str = "archive/";

impl<C: Cluster> Engine<C> {
    /// Notes which files' changes have another path now. `listed` are the paths of all changes as the cluster has them.
    pub(super) fn note_moves(&mut self, listed: &[(String, RecordId, bool)], now: Instant) {
        let at: BTreeSet<(&str, RecordId)> = listed.iter().map(|(path, change, _)| (path.as_str(), *change)).collect();
        let live: BTreeMap<RecordId, &str> = listed
            .iter()
            .filter(|(_, _, is_deleted)| !is_deleted)
            .map(|(path, change, _)| (*change, path.as_str()))
            .collect();
        self.sides.retain(|path, (change, _)| at.contains(&(path.as_str(), *change)) || !live.contains_key(change));
        for (path, file) in &mut self.files {
            let change = file.record.change.filter(|change| !at.contains(&(path.as_str(), *change)));
            let place = change.and_then(|change| live.get(&change)).map(|place| (*place).to_owned());
            if file.moved_to != place {
                file.moved_to = place;
                file.due_now(now);
            }
        }
    }

    /// What to do with a file whose change has another path, instead of what its plan says: its edits still go to the change.
    pub(super) fn leave(&mut self, path: &FilePath, step: Step, scanned: Option<Scanned>, now: Instant) {
        let is_claimed = self.files.get(path).and_then(|file| file.moved_to.as_deref()).is_some_and(|place| {
            let is_arriving = |path: &FilePath| self.files.get(path).is_some_and(|file| file.record.flight.is_some());
            FilePath::parse(place).is_ok_and(|place| is_arriving(&place))
        });
        if is_claimed {
            // The new path takes over what is remembered here once its command is answered.
            return self.wait(path, now);
        }
        match (step, scanned) {
            (step @ (Step::Propose(_) | Step::NeedsTake | Step::Behind { .. }), scanned) => {
                self.follow(path, step, scanned, now);
            }
            (_, Some(scanned)) => self.remove(path, &scanned, now),
            (_, None) => self.forget(path, now),
        }
    }

    fn wait(&mut self, path: &FilePath, now: Instant) {
        let pause = self.config.timing.retry;
        if let Some(file) = self.files.get_mut(path) {
            file.due_at(now + pause);
        }
    }

    /// The command for a file that is new here, if it is one that was moved.
    pub(super) fn moved_here(&self, path: &FilePath, text: &str) -> Option<Proposal> {
        let is_it = |from: &FilePath, base: &str| base == text || is_archive_of(path.as_str(), from.as_str());
        let mut gone = self.files.iter().filter(|(from, file)| {
            let is_idle = *from != path && file.record.flight.is_none() && file.moved_to.is_none();
            let base = file.record.base().filter(|_| is_idle).map(crate::text::KnownText::text);
            base.is_some_and(|base| is_it(from, &base)) && matches!(look(&self.root, from), Found::Absent)
        });
        let (from, file) = gone.next()?;
        let change = file.record.change?;
        let body = Body::MoveChange { change, path: path.as_str().to_owned(), from: from.as_str().to_owned() };
        Some(Proposal { body, text: None, ids: Vec::new(), start: None })
    }

    /// A move was accepted: what was remembered of the old path is what is agreed on at the new one.
    pub(super) fn move_accepted(
        &mut self,
        path: &FilePath,
        from: &str,
        change: RecordId,
        revision: Revision,
        now: Instant,
    ) {
        tracing::info!(path = path.as_str(), from, "the file's change was moved with it");
        let old = FilePath::parse(from).ok();
        let shown = old.as_ref().and_then(|old| self.files.get(old)).map(|file| file.record.shown.clone());
        let Some(file) = self.files.get_mut(path) else { return };
        file.record.flight = None;
        if let Some(shown) = shown.filter(|shown| !shown.is_empty()) {
            file.record.change = Some(change);
            file.record.shown = shown;
        }
        let applied = *self.applied.borrow();
        if let Some(file) = self.files.get_mut(path) {
            file.wait_for(revision, applied, now);
        }
        self.sides.insert(path.clone(), (change, false));
        self.is_list_due = true;
        if self.save(path, now)
            && let Some(old) = old
        {
            self.forget(&old, now);
        }
    }
}

/// Whether `new` is where OpenSpec archives the file at `old`.
fn is_archive_of(new: &str, old: &str) -> bool {
    let Some((changes, rest)) = old.rsplit_once("changes/") else { return false };
    let Some((name, file)) = rest.split_once('/') else { return false };
    let dated = new
        .strip_prefix(changes)
        .and_then(|new| new.strip_prefix("changes/"))
        .and_then(|new| new.strip_prefix(ARCHIVE));
    let Some((dated, archived)) = dated.and_then(|dated| dated.split_once('/')) else { return false };
    archived == file && (dated == name || dated.strip_suffix(name).is_some_and(|date| date.ends_with('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archived_change_is_known_by_its_name() {
        let old = "openspec/changes/add-login/tasks.md";
        assert!(is_archive_of("openspec/changes/archive/2026-01-02-add-login/tasks.md", old));
        assert!(is_archive_of("openspec/changes/archive/add-login/tasks.md", old));
        assert!(!is_archive_of("openspec/changes/archive/2026-01-02-login/tasks.md", old));
        assert!(!is_archive_of("openspec/changes/archive/2026-01-02-add-login/other.md", old));
        assert!(!is_archive_of("openspec/changes/login/tasks.md", "tasks.md"));
    }
}
