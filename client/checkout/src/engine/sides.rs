//! The cluster's side of every path, and what of it moved.

use std::time::Duration;

use tokio::time::Instant;
use zyflow_machine::id::RecordId;

use super::run::Engine;
use crate::cluster::{Cluster, ClusterError, Touched};
use crate::globs::Globs;
use crate::path::FilePath;
use crate::plan::Side;
use crate::text::{KnownText, strategies};

/// How long a project that doesn't exist is not asked for again unless something is applied.
pub(super) const PROJECT_RETRY: Duration = Duration::from_secs(1);

impl<C: Cluster> Engine<C> {
    /// Something was applied: makes due what it is about.
    pub(super) fn cluster_moved(&mut self, now: Instant) -> Result<(), ClusterError> {
        let since = self.looked_at;
        let applied = *self.applied.borrow_and_update();
        self.applied_then = applied;
        for file in self.files.values_mut() {
            file.applied(applied, now);
        }
        match self.cluster.touched(since) {
            Touched::Changes { up_to, changes } => {
                self.looked_at = up_to;
                let mut unknown = changes;
                for (path, (change, _)) in &self.sides {
                    if unknown.remove(change)
                        && let Some(file) = self.files.get_mut(path)
                    {
                        file.due_now(now);
                    }
                }
                self.is_list_due |= !unknown.is_empty() || self.project.is_none();
            }
            Touched::Unknown => {
                self.looked_at = applied;
                self.is_list_due = true;
                self.due_where_documents_differ(now)?;
            }
        }
        self.wake(now);
        Ok(())
    }

    fn due_where_documents_differ(&mut self, now: Instant) -> Result<(), ClusterError> {
        for (path, (change, _)) in &self.sides {
            let Some(file) = self.files.get_mut(path) else { continue };
            let document = self.cluster.document(*change, None)?;
            let is_same = document.is_some_and(|document| {
                !document.deleted && file.record.base().is_some_and(|base| base.blocks == document.blocks)
            });
            if !is_same {
                file.due_now(now);
            }
        }
        Ok(())
    }

    /// Reads the project and its changes anew.
    pub(super) fn list(&mut self, now: Instant) -> Result<(), ClusterError> {
        let Some((project, record)) = self.cluster.project(&self.config.project)? else {
            self.project = None;
            self.scan_at = now + PROJECT_RETRY;
            self.is_list_due = true;
            return Ok(());
        };
        if self.policy != record.policy.value {
            self.strategies = strategies(&record.policy.value);
            self.policy = record.policy.value;
        }
        if self.project != Some(project) || self.globs_source != record.files {
            self.project = Some(project);
            self.globs = Globs::new(&record.files);
            self.globs_source = record.files;
            self.scan_at = now;
        }
        let mut paths = self.cluster.paths(project)?;
        self.note_moves(&paths, now);
        // A live change hides deleted ones of the same path, and a later one an earlier one.
        paths.sort_by_key(|(_, change, is_deleted)| (!is_deleted, *change));
        for (path, change, is_deleted) in paths {
            let Ok(path) = FilePath::parse(&path) else {
                tracing::debug!(path, "change has a path that no checkout can hold");
                continue;
            };
            if !self.globs.is_file(&path) {
                continue;
            }
            let side = (change, is_deleted);
            let is_new = self.sides.insert(path.clone(), side) != Some(side);
            if is_new && (!is_deleted || self.files.contains_key(&path)) {
                self.file(&path, now).due_now(now);
            }
        }
        Ok(())
    }

    /// The cluster's side of a path.
    pub(super) fn side(&self, path: &FilePath) -> Result<Side, ClusterError> {
        let recorded = self.files.get(path).and_then(|file| file.record.change);
        let listed = self.sides.get(path).map(|(change, _)| *change);
        let Some(change) = listed.or(recorded) else { return Ok(Side::Absent) };
        self.side_of(change)
    }

    fn side_of(&self, change: RecordId) -> Result<Side, ClusterError> {
        Ok(match self.cluster.document(change, None)? {
            None => Side::Absent,
            Some(document) if document.deleted => Side::Deleted { change, at: document.revision },
            Some(document) => {
                Side::Live { change, text: KnownText { revision: document.revision, blocks: document.blocks } }
            }
        })
    }
}
