//! Files that were replaced or taken away: still linked, since a writer may hold them open. Whatever is written into one is merged
//! like any other edit; it is dropped when it was quiet for a while and holds nothing new.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::half::{Held, Writing, lacks};
use super::run::Engine;
use crate::beneath::Folder;
use crate::cluster::Cluster;
use crate::path::{FilePath, TEMPORARY_PREFIX};
use crate::plan::{Input, Origin, Side, plan_displaced};
use crate::scan::{Found, Scanned};
use crate::text::KnownText;
use crate::write::Keep;
use zyflow_machine::command::{BlockOp, Body};

/// A file in the keep.
pub(super) struct KeptFile {
    path: FilePath,
    /// The newest text that whoever writes into it can have seen; `None` = any shown text.
    start: Option<KnownText>,
    /// BLAKE3 of the content that is accounted for.
    known: Option<[u8; 32]>,
    /// It is dropped after this, if nothing happens.
    until: Instant,
    /// A text that isn't believed yet, as its writer may be half way through.
    half: Option<Held>,
    /// When it is looked at.
    due: Option<Instant>,
    /// It holds something that isn't accounted for.
    is_pending: bool,
    /// It holds something that can't be merged: it stays until a person removes it.
    is_stuck: bool,
}

impl KeptFile {
    /// It is kept for a person to look at, and no more done about it.
    fn stick(&mut self) {
        self.is_stuck = true;
        self.is_pending = false;
        self.due = None;
    }
}

impl KeptFile {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl<C: Cluster> Engine<C> {
    /// Takes over a file that was put into the keep. `known` = its content is accounted for.
    pub(super) fn keep_file(
        &mut self,
        path: &FilePath,
        name: &str,
        start: Option<KnownText>,
        known: Option<[u8; 32]>,
        now: Instant,
    ) {
        let until = now + self.config.timing.keep;
        let is_pending = known.is_none();
        let (path, due) = (path.clone(), Some(until));
        let kept = KeptFile { path, start, known, until, half: None, due, is_pending, is_stuck: false };
        self.kept.insert(name.to_owned(), kept);
        if let Some(digest) = known {
            self.account(name, digest);
        }
    }

    /// The content of a kept file is accounted for. Its name says so too: after a crash nothing else could tell it from an edit, and an
    /// old text taken for an edit would undo all that came after it.
    fn account(&mut self, name: &str, digest: [u8; 32]) {
        let Some(mut kept) = self.kept.remove(name) else { return };
        kept.known = Some(digest);
        kept.is_pending = false;
        let is_noted = Keep::is_accounted(name, &digest);
        let noted = if is_noted { Ok(name.to_owned()) } else { self.keep.account(name, &kept.path, &digest) };
        let name = noted.unwrap_or_else(|error| {
            tracing::warn!(%error, name, "a replaced file could not be marked as accounted for");
            name.to_owned()
        });
        self.kept.insert(name, kept);
    }

    pub(super) fn kept_of(&self, path: &FilePath) -> Vec<PathBuf> {
        self.kept.iter().filter(|(_, kept)| kept.path == *path).map(|(name, _)| self.keep.path().join(name)).collect()
    }

    /// A hint about a kept file. One that is still open is waited for, as half a text must not be taken for a deletion of the rest.
    pub(super) fn kept_was_touched(&mut self, name: &Path, is_settled: bool, now: Instant) {
        let keep = self.config.timing.keep;
        let Some(kept) = name.to_str().and_then(|name| self.kept.get_mut(name)) else { return };
        kept.until = now + keep;
        kept.due = Some(if is_settled { now } else { kept.until });
    }

    /// Looks at kept files that are due: drops those that are done with, and has the others merged.
    pub(super) fn look_at_kept(&mut self, now: Instant) {
        let due: Vec<String> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.due.is_some_and(|due| due <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let found = self.keep.read(&name);
            let Some(kept) = self.kept.get_mut(&name) else { continue };
            let is_same = matches!(&found, Found::Text(text) if Some(text.digest) == kept.known);
            match found {
                Found::Absent => {
                    self.kept.remove(&name);
                }
                _ if is_same && now >= kept.until => self.drop_kept(&name, now),
                _ if is_same => kept.due = Some(kept.until),
                Found::Text(_) | Found::Unstable | Found::Parked(_) => {
                    kept.is_pending = true;
                    kept.due = Some(now + self.config.timing.keep);
                    let path = kept.path.clone();
                    self.file(&path, now).due_now(now);
                }
            }
        }
    }

    fn drop_kept(&mut self, name: &str, now: Instant) {
        match self.keep.remove(name) {
            Ok(()) => {
                self.kept.remove(name);
            }
            Err(error) => {
                tracing::warn!(%error, name, "a replaced file could not be removed");
                if let Some(kept) = self.kept.get_mut(name) {
                    kept.due = Some(now + self.config.timing.keep);
                }
            }
        }
    }

    /// Has the first kept file of `path` that holds something new merged. Whether the file itself has to wait for that.
    pub(super) fn look_at_displaced(&mut self, path: &FilePath, side: &Side, now: Instant) -> bool {
        let pending: Vec<String> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.path == *path && kept.is_pending)
            .map(|(name, _)| name.clone())
            .collect();
        pending.iter().any(|name| self.merge_kept(path, name, side, now))
    }

    /// Whether the file has to wait: the content of this kept file is being proposed, or can't be yet.
    fn merge_kept(&mut self, path: &FilePath, name: &str, side: &Side, now: Instant) -> bool {
        let Some(text) = self.text_of_kept(path, name, now) else { return false };
        let (Some(kept), Some(file), Some(project)) = (self.kept.get(name), self.files.get_mut(path), self.project)
        else {
            return false;
        };
        // An emptied leftover is a writer's truncation, never the wish to delete everything.
        if text.text.is_empty() || Some(text.digest) == kept.known || file.abandoned.as_ref() == Some(&text.text) {
            self.account(name, text.digest);
            return false;
        }
        let applied = *self.applied.borrow();
        let need = file.record.shown.iter().map(|shown| shown.text.revision).max().unwrap_or_default();
        if matches!(side, Side::Live { text, .. } if text.revision < need) {
            file.wait_for(need, applied, now);
            return true;
        }
        let is_earlier = kept.start.is_none();
        let (Some(kept), Some(file)) = (self.kept.get(name), self.files.get(path)) else { return false };
        let input = Input {
            path: path.as_str(),
            project,
            agreed: file.record.agreed(),
            local: None,
            origin: Origin::Displaced,
            cluster: side,
            take: None,
            is_deletion_confirmed: false,
            strategies: &self.strategies,
        };
        let Some(proposal) = plan_displaced(&input, &text.text, kept.start.as_ref()) else {
            self.account(name, text.digest);
            return false;
        };
        match self.writing_of_kept(name, kept, &proposal.body, &text, now) {
            Writing::Done => {}
            writing @ (Writing::Held(_) | Writing::Changed) => {
                self.hold_kept(path, name, &writing, now);
                return false;
            }
        }
        let proposal = match self.with_fields(&input, *proposal) {
            Ok(proposal) => Box::new(proposal),
            Err(error) => {
                self.retry(path, error.to_string(), now);
                return true;
            }
        };
        // Of an earlier run's file nobody knows what its writer had seen. What it adds is merged; what it lacks may just be older.
        let Some(kept) = self.kept.get_mut(name) else { return false };
        if is_earlier && takes_something_away(&proposal.body) {
            tracing::warn!(
                path = path.as_str(),
                name,
                "a replaced file of an earlier run lacks newer text; it is kept to look at"
            );
            kept.stick();
            return false;
        }
        self.launch(path, *proposal, Some(name.to_owned()), now);
        true
    }

    /// The text of a kept file; `None` = it has none that can be merged now.
    fn text_of_kept(&mut self, path: &FilePath, name: &str, now: Instant) -> Option<Scanned> {
        let kept = self.kept.get_mut(name)?;
        match self.keep.read(name) {
            Found::Text(text) => return Some(text),
            Found::Absent => {
                self.kept.remove(name);
            }
            Found::Unstable => kept.due = Some(now + self.config.timing.quiet),
            Found::Parked(reason) => {
                tracing::warn!(path = path.as_str(), name, %reason, "replaced bytes can't be merged; they are kept");
                kept.stick();
            }
        }
        None
    }

    /// Whether the writer of a kept file is done with it. Of one that was just displaced no close was heard: it has to be quiet, too.
    fn writing_of_kept(&self, name: &str, kept: &KeptFile, body: &Body, text: &Scanned, now: Instant) -> Writing {
        if !lacks(body, &text.text) {
            return Writing::Done;
        }
        let held = Held::renew(kept.half, text.stamp, now);
        if now < held.since() + self.config.timing.quiet {
            return Writing::Held(held);
        }
        self.writing_of(name, text.stamp, Some(held), now, || self.keep.stamp(name))
    }

    fn hold_kept(&mut self, path: &FilePath, name: &str, writing: &Writing, now: Instant) {
        let timing = self.config.timing;
        let (Some(kept), Some(file)) = (self.kept.get_mut(name), self.files.get_mut(path)) else { return };
        if let Writing::Held(held) = writing {
            kept.half = Some(*held);
            let quiet = held.since() + timing.quiet;
            file.due_at(if now < quiet { quiet } else { now + timing.quiet_cap });
        } else {
            file.due_now(now);
        }
    }

    /// The content of a kept file was accepted as `text`.
    pub(super) fn displaced_accepted(&mut self, name: &str, text: &KnownText) {
        let Some(kept) = self.kept.get_mut(name) else { return };
        kept.start = Some(text.clone());
        kept.is_pending = false;
        // What it holds now may be newer than what was accepted: equal text is accounted for, anything else is an edit of it.
        if let Found::Text(found) = self.keep.read(name) {
            if found.text == text.text() {
                self.account(name, found.digest);
            } else {
                kept.is_pending = true;
            }
        }
    }

    /// What an earlier run left in the keep.
    pub(super) fn find_leftovers(&mut self, now: Instant) {
        let names = match self.keep.names() {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "replaced files of an earlier run can't be listed");
                return;
            }
        };
        for name in names {
            self.adopt(&name, now);
        }
    }

    fn adopt(&mut self, name: &str, now: Instant) {
        // One with the prefix was in the middle of a swap: it holds our text, or what came out.
        let hash = name.trim_start_matches(TEMPORARY_PREFIX).split('-').next().unwrap_or_default();
        let Some(path) = self.files.keys().find(|path| path.hash() == hash).cloned() else {
            tracing::warn!(name, "a replaced file belongs to no file that is known; it is left alone");
            return;
        };
        let known = match self.keep.read(name) {
            Found::Text(text) if Keep::is_accounted(name, &text.digest) => Some(text.digest),
            Found::Text(_) | Found::Absent | Found::Unstable | Found::Parked(_) => None,
        };
        self.keep_file(&path, name, None, known, now);
    }

    /// Temporaries that an earlier run left in the work tree hold our text, or what we had just swapped out.
    pub(super) fn adopt_temporaries(&mut self, temporaries: &[(String, String)], now: Instant) {
        for (folder_path, name) in temporaries {
            let hash = name.trim_start_matches(TEMPORARY_PREFIX).split('-').next().unwrap_or_default().to_owned();
            let path = self.files.keys().find(|path| path.hash() == hash && path.split().0 == folder_path).cloned();
            let Some(path) = path else {
                tracing::warn!(
                    folder_path,
                    name,
                    "a temporary file belongs to no file that is known; it is left alone"
                );
                continue;
            };
            let taken = self.root.folder(folder_path).and_then(|folder: Folder| self.keep.take(&folder, name, &path));
            match taken {
                Ok(kept) => self.keep_file(&path, &kept, None, None, now),
                Err(error) => tracing::warn!(%error, name, "a temporary file could not be put away"),
            }
        }
    }
}

/// Whether a command deletes text or takes words out of it.
fn takes_something_away(body: &Body) -> bool {
    let takes = |op: &BlockOp| matches!(op, BlockOp::Delete { .. } | BlockOp::SetText { .. } | BlockOp::SetMark { .. });
    if let Body::Edit { ops, .. } = body { ops.iter().any(takes) } else { matches!(body, Body::DeleteChange { .. }) }
}
