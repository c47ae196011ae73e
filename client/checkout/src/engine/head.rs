//! What git puts into the work tree is no edit of the person who ran it.
//!
//! ```text
//!   git pull:   work tree ─▶ index ─▶ HEAD            all of it is waited for, until git has left no new trace for a while
//!                 │
//!                 ▼ the text at HEAD, and not what was agreed on
//!     a text that the cluster had once      nothing new: the cluster's text goes back over it
//!     else, made from HEAD's text before    if the cluster had *that* once, it is the base, and what the commit changed is
//!                                           merged on top of the cluster's newest
//!     else                                  an edit like any other
//! ```
//!
//! Twenty checkouts pull one commit at once: each proposes its edits, but as a compare-and-set on the whole change
//! ([`EditMode::Strict`]). One is accepted; the others are told to look again, find the text that they hold, and have nothing
//! to say. So a commit becomes one command, whoever pulls it.
//!
//! A text counts as git's only as long as the file's metadata is what it was when git was done: a later save is an edit.

use std::collections::BTreeMap;

use tokio::time::Instant;
use zyflow_machine::command::{Body, EditMode};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_spec::{diff, parse};

use super::file::File;
use super::run::Engine;
use crate::cluster::{Cluster, ClusterError};
use crate::git::{Traces, text_at};
use crate::path::FilePath;
use crate::plan::{By, Proposal, Shown};
use crate::scan::Stamp;
use crate::status::FileState;
use crate::text::KnownText;

/// Most past texts of one change that are looked through for the one that git put back: a change has about 180 versions in the
/// longest history that was measured.
const RENDERINGS_MAX: usize = 256;

/// What git did since everything was last looked at.
#[derive(Debug, Default)]
pub(super) struct Head {
    seen: Option<Traces>,
    /// Where HEAD stood before, and until when git must leave no new trace.
    moving: Option<Moving>,
    /// When a stash last came or went.
    stashed: Option<Instant>,
}

#[derive(Debug)]
struct Moving {
    from: Traces,
    since: Instant,
    until: Instant,
}

/// How a file's text came there, if git put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// The commit that HEAD named before; `None` = HEAD didn't move.
    from: Option<String>,
    /// A stash came or went: its text is in no commit of this branch.
    is_stash: bool,
    /// The file's metadata when git was done.
    stamp: Option<Stamp>,
    /// When that was.
    since: Instant,
}

/// What git has to do with a text.
pub(super) enum Pulled {
    /// Nothing, or nothing that needs another base.
    Edit,
    /// It is in the index and not in HEAD, which git moves last: wait for that until then.
    HalfWay(Instant),
    /// Git made it from this text, which is what the plan must take as agreed on.
    From(Shown),
}

/// Texts that a change had, by their digest.
pub(super) type Renderings = BTreeMap<[u8; 32], Revision>;

impl Head {
    /// The commit that HEAD named at the last look; the outer `None` = nothing was looked at, or there is no git.
    pub(super) fn commit(&self) -> Option<&Option<String>> {
        self.seen.as_ref().map(|traces| &traces.commit)
    }

    /// When a stash last came or went.
    pub(super) fn stashed(&self) -> Option<Instant> {
        self.stashed
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.moving.as_ref().map(|moving| moving.until)
    }
}

impl<C: Cluster> Engine<C> {
    /// Whether git has left no new trace for a while; when it has left some, every file may hold what it put there.
    pub(super) fn is_git_quiet(&mut self, now: Instant) -> bool {
        let Some(git) = &self.git else { return true };
        let traces = git.traces();
        let (quiet, cap) = (self.config.timing.quiet, self.config.timing.quiet_cap);
        let before = self.head.seen.replace(traces.clone()).unwrap_or_else(|| {
            // The first look of this run: what HEAD was is remembered, the rest isn't.
            Traces { commit: self.binding.head.clone(), ..traces.clone() }
        });
        if before != traces {
            let (from, since) = match self.head.moving.take() {
                Some(moving) => (moving.from, moving.since),
                None => (before, now),
            };
            self.head.moving = Some(Moving { from, since, until: (now + quiet).min(since + cap) });
        }
        match &self.head.moving {
            None => true,
            Some(moving) if now < moving.until => false,
            Some(_) => {
                self.git_is_done(&traces, now);
                true
            }
        }
    }

    /// Whether git has done nothing since it was last looked at. Asked *after* a file was read and git was asked about it: git holds
    /// its lock while it writes the work tree and leaves a trace before it lets go, so a text that it put there is never taken for
    /// somebody's save.
    pub(super) fn is_git_still(&self) -> bool {
        let Some(git) = &self.git else { return true };
        self.reason_to_keep_still().is_none() && self.head.seen.as_ref() == Some(&git.traces())
    }

    fn git_is_done(&mut self, traces: &Traces, now: Instant) {
        let Some(Moving { from, .. }) = self.head.moving.take() else { return };
        let is_head_moved = from.commit != traces.commit;
        let before = from.commit.filter(|_| is_head_moved);
        let is_stash = from.stash != traces.stash;
        if is_stash {
            self.head.stashed = Some(now);
        }
        let paths: Vec<FilePath> = self.files.keys().cloned().collect();
        for path in paths {
            let stamp = self.stamp(&path);
            if let Some(file) = self.files.get_mut(&path) {
                // What git did before to the same text still counts: a pull, and then a refresh of the index.
                let old = file.jump.take().filter(|old| old.stamp == stamp);
                let from = before.clone().or_else(|| old.as_ref()?.from.clone());
                let is_stash = is_stash || old.as_ref().is_some_and(|old| old.is_stash);
                file.jump = Some(Jump { from, is_stash, stamp, since: old.map_or(now, |old| old.since) });
                file.due_now(now);
            }
        }
        self.scan_at = now;
    }

    /// Stores where HEAD stands, once no file is on its way any more that git may have put there: after a crash before that, its move is
    /// seen again.
    pub(super) fn remember_head(&mut self) {
        let Some(commit) = self.head.commit().filter(|commit| **commit != self.binding.head) else { return };
        let is_under_way = |file: &File| match file.state {
            FileState::Unknown | FileState::Syncing | FileState::Unsynced(_) => file.jump.is_some(),
            FileState::Synced
            | FileState::Parked(_)
            | FileState::NeedsTake
            | FileState::DeletionPending
            | FileState::DeletionHeld => false,
        };
        if self.head.moving.is_none() && !self.files.values().any(is_under_way) {
            self.binding.head.clone_from(commit);
            self.remember_binding();
        }
    }

    /// What git has to do with the text that stands at `path`. A text that the cluster had once is remembered as shown, which it is.
    pub(super) fn pulled(
        &mut self,
        path: &FilePath,
        local: &str,
        change: RecordId,
        now: Instant,
    ) -> Result<Pulled, ClusterError> {
        let Some(file) = self.files.get(path) else { return Ok(Pulled::Edit) };
        let (Some(jump), Some((agreed, shown))) = (file.jump.clone(), file.record.agreed()) else {
            return Ok(Pulled::Edit);
        };
        let newest = shown.last().map(|newest| newest.text.clone());
        let Some(newest) = newest.filter(|newest| agreed == change && newest.text() != local) else {
            return Ok(Pulled::Edit);
        };
        let has = |commit: &str| self.text_of(path, commit).is_some_and(|text| text == local);
        if !jump.is_stash && !has("HEAD") {
            let until = jump.since + self.config.timing.git_hold;
            let is_half_way = jump.from.is_none() && now < until && has("");
            return Ok(if is_half_way { Pulled::HalfWay(until) } else { Pulled::Edit });
        }
        if let Some(past) = self.past(path, change, local)? {
            if let Some(file) = self.files.get_mut(path) {
                // Nobody meant it as an edit, so it stands there like a text of ours.
                file.record.learn(change, past.text, file.is_watched);
            }
            return Ok(Pulled::Edit);
        }
        let Some(before) = jump.from.and_then(|from| self.text_of(path, &from)) else { return Ok(Pulled::Edit) };
        let Some(base) = self.past(path, change, &before)? else { return Ok(Pulled::Edit) };
        // An edit of what stood there that was committed at once is no pull: the base is what takes the fewest edits.
        let document = parse(local);
        let is_nearer = diff(&base.text.blocks, &document).len() < diff(&newest.blocks, &document).len();
        Ok(if is_nearer { Pulled::From(base) } else { Pulled::Edit })
    }

    fn text_of(&self, path: &FilePath, commit: &str) -> Option<String> {
        text_at(self.root.path(), commit, path).unwrap_or_else(|error| {
            tracing::warn!(path = path.as_str(), %error, "git couldn't tell a file's text; it is taken for an edit");
            None
        })
    }

    /// `text` as the cluster had it once: among the shown texts, those that this run has seen, or those that the cluster still
    /// knows.
    fn past(&self, path: &FilePath, change: RecordId, text: &str) -> Result<Option<Shown>, ClusterError> {
        let Some(file) = self.files.get(path) else { return Ok(None) };
        if let Some(past) = file.record.shown.iter().rfind(|past| past.text.text() == text) {
            return Ok(Some(past.clone()));
        }
        let seen = file.renderings.get(blake3::hash(text.as_bytes()).as_bytes()).copied();
        let revisions = match seen {
            Some(revision) => vec![revision],
            None => self.cluster.revisions(change, RENDERINGS_MAX)?,
        };
        for revision in revisions {
            // One that the cluster doesn't keep any more is none that can be built on.
            let Ok(Some(document)) = self.cluster.document(change, Some(revision)) else { continue };
            let known = KnownText { revision, blocks: document.blocks };
            if !document.deleted && known.text() == text {
                return Ok(Some(Shown { text: known, by: By::Us }));
            }
        }
        Ok(None)
    }

    /// Remembers what the cluster's text of a file was.
    pub(super) fn note_rendering(&mut self, path: &FilePath, text: &KnownText) {
        if self.git.is_none() {
            return;
        }
        let Some(file) = self.files.get_mut(path) else { return };
        if file.renderings.len() >= RENDERINGS_MAX {
            let oldest = file.renderings.iter().min_by_key(|(_, revision)| **revision).map(|(digest, _)| *digest);
            oldest.and_then(|digest| file.renderings.remove(&digest));
        }
        file.renderings.insert(*blake3::hash(text.text().as_bytes()).as_bytes(), text.revision);
    }

    /// The file was looked at: if it was saved since git was done, git has no part in it any more.
    pub(super) fn note_save(&mut self, path: &FilePath, stamp: Option<Stamp>) {
        if let Some(file) = self.files.get_mut(path)
            && file.jump.as_ref().is_some_and(|jump| jump.stamp != stamp)
        {
            file.jump = None;
        }
    }

    /// What everybody who pulls a commit, or goes on after a restore, proposes alike must be accepted once.
    pub(super) fn fold_pulls(&self, path: &FilePath, proposal: &mut Proposal) {
        let is_jump =
            self.files.get(path).is_some_and(|file| file.jump.as_ref().is_some_and(|jump| jump.from.is_some()));
        if (is_jump || self.is_at_cut(path))
            && let Body::Edit { mode, .. } = &mut proposal.body
        {
            *mode = EditMode::Strict;
        }
    }
}
