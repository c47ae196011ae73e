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
//! Each deletion is a command of its own, often too small for the cluster to make a rollback point with it. So once held ones are confirmed, the
//! checkout asks for a point first, and nothing is deleted before that is there:
//!
//! ```text
//!   held ─▶ confirmed: wanted ─▶ CreatePoint: asked ─┬─ accepted ─────▶ each deletion is proposed
//!              ▲                                     ├─ no answer ────▶ wanted, after a pause
//!              └─────────────────────────────────────┘  refused ──────▶ held on, and the status says why
//! ```
//!
//! A file that moved to another synced path takes its change along (`moves`); what is left here is about moves out of what is synced.

use std::collections::BTreeSet;

use tokio::time::Instant;
use zyflow_machine::command::Body;
use zyflow_machine::outcome::Outcome;

use super::file::File;
use super::flight::Cargo;
use super::run::Engine;
use crate::cluster::Cluster;
use crate::path::FilePath;
use crate::scan::{Found, look, read};
use crate::status::FileState;

/// More files than this gone at once is a mass deletion, which a person must confirm: a person removes two or three.
const DELETIONS_MAX: usize = 3;

/// Where OpenSpec puts a change that is done: `changes/x/` becomes `changes/archive/DATE-x/`.
const ARCHIVE: &str = "archive";

/// Held deletions that a person has confirmed, until the rollback point before them is made.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    /// Files for which no point was asked for yet.
    wanted: BTreeSet<FilePath>,
    /// Files for which one is under way.
    asked: BTreeSet<FilePath>,
    /// When the next point is asked for.
    due: Option<Instant>,
    /// Why there is no point, where the cluster refused one.
    refused: Option<String>,
}

impl Confirmed {
    pub(super) fn due(&self) -> Option<Instant> {
        if self.asked.is_empty() { self.due } else { None }
    }
}

impl<C: Cluster> Engine<C> {
    /// Confirms the deletions that are held now.
    pub(super) fn confirm_deletions(&mut self, now: Instant) {
        let asked = &self.confirmed.asked;
        let is_new = |path: &FilePath, file: &File| file.state == FileState::DeletionHeld && !asked.contains(path);
        let held = self.files.iter().filter(|(path, file)| is_new(path, file));
        let held: BTreeSet<FilePath> = held.map(|(path, _)| path.clone()).collect();
        self.confirmed.refused = None;
        if !held.is_empty() {
            self.confirmed.wanted = held;
            self.confirmed.due = Some(now);
        }
    }

    /// Asks for the point before deletions that were confirmed. What was applied here has the files as they were: one that somebody has edited
    /// since isn't deleted.
    pub(super) fn ask_for_point(&mut self, now: Instant) {
        if self.confirmed.due().is_none_or(|due| due > now) {
            return;
        }
        self.confirmed.due = None;
        let mut wanted = std::mem::take(&mut self.confirmed.wanted);
        wanted.retain(|path| self.files.get(path).is_some_and(|file| file.absent_since.is_some()));
        if wanted.is_empty() {
            return;
        }
        let at = *self.applied.borrow();
        let body = Body::CreatePoint {
            name: format!("before-deletion-{at}"),
            at: Some(at),
            note: format!("{} files of {} were deleted in a checkout", wanted.len(), self.config.project),
            is_automatic: true,
        };
        self.confirmed.asked = wanted;
        self.send(Cargo::Point, None, body);
    }

    /// The point is there: the deletions spread. Where the cluster refused it they are held on, until they are confirmed again.
    pub(super) fn point_decided(&mut self, outcome: &Outcome, now: Instant) {
        let asked = std::mem::take(&mut self.confirmed.asked);
        let reason = match outcome {
            Outcome::Accepted { .. } => {
                for path in asked {
                    if let Some(file) = self.files.get_mut(&path) {
                        file.confirm_deletion(now);
                    }
                }
                return;
            }
            Outcome::Rejected(reject) => reject.to_string(),
            Outcome::Stale { .. } | Outcome::Duplicate(_) => format!("the cluster answered {outcome:?}"),
        };
        tracing::warn!(root = %self.config.root.display(), reason, "no rollback point before a confirmed deletion");
        self.confirmed.refused = Some(reason);
    }

    /// Whether there is a point isn't known: another one does no harm.
    pub(super) fn point_unanswered(&mut self, now: Instant) {
        let asked = std::mem::take(&mut self.confirmed.asked);
        self.confirmed.wanted.extend(asked);
        self.confirmed.due = Some(now + self.config.timing.retry);
    }

    /// Why deletions that were confirmed are held on.
    pub(super) fn refused_deletions(&self) -> Option<String> {
        let reason = self.confirmed.refused.as_ref()?;
        let is_held = self.files.values().any(|file| file.state == FileState::DeletionHeld);
        is_held.then(|| {
            format!(
                "the confirmed deletions wait, as no rollback point could be made before them: {reason}; mend that and \
                 confirm them again"
            )
        })
    }

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
