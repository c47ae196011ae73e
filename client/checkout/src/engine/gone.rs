//! Files that are gone: which deletions spread by themselves, and which wait for a person.
//!
//! | what is seen | what follows |
//! |---|---|
//! | gone for a moment (git, editors) | nothing: a grace |
//! | a few files | the deletion spreads after the grace |
//! | many, or all that there were | held until it is confirmed |
//! | moved, as OpenSpec's archive does: the same text stands elsewhere | spreads after the grace, and counts as none of the many |
//! | gone with a stash (`git stash -u`) | held: it comes back with the stash |
//!
//! A file that moved to another synced path takes its change along (`moves`); what is left here is about moves out of what is synced.

use tokio::time::Instant;

use super::file::File;
use super::run::Engine;
use crate::cluster::Cluster;
use crate::path::FilePath;
use crate::scan::{Found, look, read};
use crate::status::FileState;

/// More files than this gone at once is a mass deletion, which a person must confirm: a person removes two or three.
const DELETIONS_MAX: usize = 3;

/// Where OpenSpec puts a change that is done: `changes/x/` becomes `changes/archive/DATE-x/`.
const ARCHIVE: &str = "archive";

impl<C: Cluster> Engine<C> {
    /// A deletion waits; many at once wait for a person.
    pub(super) fn await_deletion(&mut self, path: &FilePath, now: Instant) {
        let grace = self.config.timing.deletion_grace;
        let Some(file) = self.files.get_mut(path) else { return };
        let since = *file.absent_since.get_or_insert(now);
        if now < since + grace {
            file.state = FileState::DeletionPending;
            file.due_at(since + grace);
            return;
        }
        // A stash is noted first and taken out of the work tree then, or the other way round: both at about the same time.
        let hold = self.config.timing.git_hold;
        let is_stashed = self.head.stashed().is_some_and(|at| at + hold >= since && since + hold >= at);
        let is_held = is_stashed || (!self.is_moved(path) && self.is_mass_deletion());
        let Some(file) = self.files.get_mut(path) else { return };
        if is_held {
            file.state = FileState::DeletionHeld;
        } else {
            file.is_deletion_confirmed = true;
            file.due_now(now);
        }
    }

    fn is_mass_deletion(&mut self) -> bool {
        let gone: Vec<FilePath> =
            self.files.iter().filter(|(_, file)| file.absent_since.is_some()).map(|(path, _)| path.clone()).collect();
        let lost = gone.iter().filter(|path| !self.is_moved(path)).count();
        let is_agreed = |file: &&File| file.record.agreed().is_some();
        let agreed = self.files.values().filter(is_agreed).count();
        lost > DELETIONS_MAX || (lost > 1 && lost == agreed)
    }

    /// Whether the text of a file that is gone stands elsewhere now. Looked for once per absence.
    fn is_moved(&mut self, path: &FilePath) -> bool {
        let Some(file) = self.files.get(path) else { return false };
        if let Some(is_moved) = file.is_moved {
            return is_moved;
        }
        let text = file.record.base().map(|base| (base.revision, base.text()));
        let is_moved = text.is_some_and(|(revision, text)| {
            let is_later = |file: &File| file.record.change.is_none_or(|change| change.0.revision() > revision);
            let others = self.files.iter().filter(|(other, file)| *other != path && file.is_there && is_later(file));
            let mut texts = others.map(|(other, _)| look(&self.root, other));
            texts.any(|found| is_text(&found, &text)) || self.is_archived(path, &text)
        });
        if let Some(file) = self.files.get_mut(path) {
            file.is_moved = Some(is_moved);
            if is_moved {
                tracing::info!(path = path.as_str(), "the file was moved");
            }
        }
        is_moved
    }

    /// Whether OpenSpec's archive, which no glob may be about, has the text under the change's name.
    fn is_archived(&self, path: &FilePath, text: &str) -> bool {
        let (folder, name) = path.split();
        let Some((changes, change)) = folder.rsplit_once('/') else { return false };
        let archive = format!("{changes}/{ARCHIVE}");
        let Ok(entries) = self.root.folder(&archive).and_then(|folder| folder.entries()) else { return false };
        let is_of_change =
            |dated: &str| dated == change || dated.strip_suffix(change).is_some_and(|d| d.ends_with('-'));
        entries.iter().filter(|entry| entry.is_utf8 && entry.is_folder && is_of_change(&entry.name)).any(|entry| {
            let folder = self.root.folder(&format!("{archive}/{}", entry.name));
            folder.is_ok_and(|folder| is_text(&read(&folder, name), text))
        })
    }
}

fn is_text(found: &Found, text: &str) -> bool {
    matches!(found, Found::Text(scanned) if scanned.text == text)
}
