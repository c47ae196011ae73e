//! Which files git calls modified because of us, so that a person who is told "your local changes would be overwritten" can see whose
//! they are.
//!
//! Looked at after a write and when HEAD moved, one file at a time, so that no save waits for more than one `git cat-file`; that runs
//! once per file and commit.

use std::collections::{BTreeMap, BTreeSet};

use super::run::Engine;
use crate::cluster::Cluster;
use crate::git::text_at;
use crate::path::FilePath;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Dirt {
    /// The commit that the rest is about.
    commit: Option<String>,
    is_begun: bool,
    /// Digests of HEAD's texts; `None` = it has none there.
    texts: BTreeMap<FilePath, Option<[u8; 32]>>,
    /// To be looked at.
    due: BTreeSet<FilePath>,
    /// Files that we removed.
    removed: BTreeSet<FilePath>,
    pub(super) paths: BTreeSet<FilePath>,
}

impl Dirt {
    /// A file was written by us, or by somebody else over us.
    pub(super) fn note(&mut self, path: &FilePath) {
        self.removed.remove(path);
        self.due.insert(path.clone());
    }

    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// A file was removed by us.
    pub(super) fn note_removed(&mut self, path: &FilePath) {
        self.removed.insert(path.clone());
        self.due.insert(path.clone());
    }
}

impl<C: Cluster> Engine<C> {
    /// Looks at the first file that is due.
    pub(super) fn look_at_dirt(&mut self) {
        let Some(commit) = self.head.commit() else { return };
        if self.dirt.is_begun && self.dirt.due.is_empty() && self.dirt.commit == *commit {
            return;
        }
        if !self.dirt.is_begun || self.dirt.commit != *commit {
            self.dirt.is_begun = true;
            self.dirt.commit.clone_from(commit);
            self.dirt.texts.clear();
            let ours = self.files.iter().filter(|(_, file)| file.record.wrote.is_some());
            let all: Vec<FilePath> = ours.map(|(path, _)| path).chain(&self.dirt.removed).cloned().collect();
            self.dirt.due.extend(all);
        }
        let Some(path) = self.dirt.due.pop_first() else { return };
        if self.is_dirtied(&path) {
            self.dirt.paths.insert(path);
        } else {
            self.dirt.paths.remove(&path);
        }
    }

    fn is_dirtied(&mut self, path: &FilePath) -> bool {
        let ours = self.files.get(path).filter(|file| file.is_ours()).and_then(|file| file.record.base());
        let ours = ours.map(|text| *blake3::hash(text.text().as_bytes()).as_bytes());
        if ours.is_none() && !self.dirt.removed.contains(path) {
            return false;
        }
        let head = if let Some(known) = self.dirt.texts.get(path) {
            *known
        } else {
            let Ok(text) = text_at(self.root.path(), "HEAD", path) else { return false };
            let digest = text.map(|text| *blake3::hash(text.as_bytes()).as_bytes());
            self.dirt.texts.insert(path.clone(), digest);
            digest
        };
        head != ours
    }
}
