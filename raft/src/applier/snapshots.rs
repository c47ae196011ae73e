//! Snapshots between openraft's terms and storage's. What storage does blocks: it is called on threads for that.
//!
//! A snapshot that can't be built for want of room is left out: the log isn't purged then, and everything else goes on. One that can't
//! be installed stops this node; if the file is at fault it is set aside, so that the next start doesn't meet it again.

use std::io;
use std::path::PathBuf;

use openraft::RaftSnapshotBuilder;
use tracing::{error, info, warn};
use zyflow_storage::snapshot::{self, SnapshotError};
use zyflow_storage::types::{SnapshotMeta, TypeConfig};

use super::{Applier, ApplyError, Snapshot, SnapshotFile, log_id_of, stored_membership};
use crate::fatal::chain;

impl Applier {
    /// The newest complete snapshot of this node.
    pub(super) fn current(&self) -> Result<Option<Snapshot>, ApplyError> {
        let newest = self.snapshots.newest(&self.ring, &self.lineage);
        newest.map_err(failed("looking for the newest snapshot"))?.map(described).transpose()
    }

    /// How much of the disk must be free for a snapshot to be built.
    pub(super) fn room_needed(&self) -> Result<u64, ApplyError> {
        let newest = self.snapshots.newest_bytes().map_err(failed("looking how long the newest snapshot is"))?;
        let tables = self.tables.bytes_on_disk().map_err(ApplyError::State)?;
        Ok(room_for(self.disk_free_bytes_min, newest, tables))
    }

    /// Writes a snapshot of what is applied and durable. Storage reads it back to its last byte and adds it up: the log is purged on its
    /// word.
    fn build(&self) -> Result<Snapshot, ApplyError> {
        let built = self.tables.build_snapshot(&self.snapshots, &self.ring, &self.lineage);
        described(built.map_err(failed("building a snapshot"))?)
    }

    /// Replaces the state by the snapshot's.
    pub(super) fn install(&self, file: &SnapshotFile) -> Result<(), ApplyError> {
        let installed = self.tables.install_snapshot(&file.path, &self.ring, &self.lineage);
        if installed.is_err() {
            self.set_aside_if_bad(file);
        }
        installed.map(drop).map_err(failed("installing a snapshot"))
    }

    /// Whatever comes of it, this node stops for the reason that the installation gives.
    fn set_aside_if_bad(&self, file: &SnapshotFile) {
        let path = file.path.display();
        match self.snapshots.set_aside_if_bad(&file.path, &self.ring, &self.lineage) {
            Ok(true) => error!(%path, "a snapshot is bad and was set aside: the next start goes without it"),
            Ok(false) => {}
            Err(error) => error!(%path, reason = chain(&error), "a snapshot can't be looked at or set aside"),
        }
    }
}

/// What must stay free, and as much as a snapshot may take until an older one is deleted: what the newest one took, or all of the tables,
/// whose rows it holds.
fn room_for(free_min: u64, newest: u64, tables: u64) -> u64 {
    free_min.saturating_add(newest.max(tables))
}

/// Builds one snapshot.
pub(crate) struct SnapshotBuilder {
    pub(super) applier: Applier,
    /// openraft can't go on without it.
    pub(super) is_needed: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let built = self.applier.on_a_thread("building a snapshot", Applier::build).await;
        let Some(snapshot) = self.applier.stop(unless_out_of_room(built, self.is_needed))? else {
            return Ok(nothing_new());
        };
        info!(last = ?snapshot.meta.last_log_id, bytes = snapshot.snapshot.bytes, "built a snapshot");
        Ok(snapshot)
    }
}

/// `None` = the disk had no room for it, which is no reason to stop where it isn't needed.
fn unless_out_of_room(built: Result<Snapshot, ApplyError>, is_needed: bool) -> Result<Option<Snapshot>, ApplyError> {
    match built {
        Err(ApplyError::Snapshot { source, .. }) if !is_needed && source.is_out_of_room() => {
            warn!(reason = chain(&source), "no snapshot is built: the disk is full");
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// What openraft is told of a build that was left out: any error would end it, and a snapshot of nothing is never newer than what it
/// knows, so it purges nothing and goes on. It looks at the meta only.
fn nothing_new() -> Snapshot {
    Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotFile { path: PathBuf::new(), bytes: 0 } }
}

fn failed(doing: &'static str) -> impl FnOnce(SnapshotError) -> ApplyError {
    move |source| ApplyError::Snapshot { doing, source }
}

/// A snapshot as openraft passes it around.
pub(crate) fn described(meta: snapshot::SnapshotMeta) -> Result<Snapshot, ApplyError> {
    Ok(Snapshot {
        meta: SnapshotMeta {
            last_log_id: Some(log_id_of(meta.position)),
            last_membership: stored_membership(meta.membership)?,
        },
        snapshot: SnapshotFile { path: meta.file, bytes: meta.bytes },
    })
}

#[cfg(test)]
mod tests;
