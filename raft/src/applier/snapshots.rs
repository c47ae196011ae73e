//! Snapshots between openraft's terms and storage's. All of it blocks: called on threads for that.

use zyflow_storage::snapshot::{self, SnapshotError};
use zyflow_storage::types::SnapshotMeta;

use super::{Applier, ApplyError, Snapshot, SnapshotFile, log_id_of, stored_membership};

impl Applier {
    /// The newest complete snapshot of this node.
    pub(super) fn current(&self) -> Result<Option<Snapshot>, ApplyError> {
        let newest = self.snapshots.newest(&self.ring, &self.lineage);
        newest.map_err(failed("looking for the newest snapshot"))?.map(described).transpose()
    }

    /// Writes a snapshot of what is applied and durable, and reads it back to its last byte: the log is purged on its word.
    pub(super) fn build(&self) -> Result<Snapshot, ApplyError> {
        let built = self.tables.build_snapshot(&self.snapshots, &self.ring, &self.lineage);
        let built = built.map_err(failed("building a snapshot"))?;
        let verified = self.snapshots.verify(&built.file, &self.ring, &self.lineage);
        described(verified.map_err(failed("reading back a snapshot"))?)
    }

    /// Replaces the state by the snapshot's.
    pub(super) fn install(&self, file: &SnapshotFile) -> Result<(), ApplyError> {
        let installed = self.tables.install_snapshot(&file.path, &self.ring, &self.lineage);
        installed.map(drop).map_err(failed("installing a snapshot"))
    }
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
