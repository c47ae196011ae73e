//! Snapshots: the whole state at one entry, in one file, for a node that lacks the log before it.
//!
//! ```text
//!   tables --(one read transaction)--> chunks, each sealed under the data key --> tmp --fsync--> read back
//!          --(adds up to the digest?)--> rename --> fsync folder
//!   file   --(every chunk opened and checked)--> a new database --(adds up to the digest?)--> swapped in
//! ```
//!
//! A snapshot holds all versions from the horizon on, so that a node which joined by one can show the same past; sessions, the
//! machine's header, membership and position. It travels between nodes, so it is sealed under the cluster's data key and not
//! the node's own.
//!
//! Invariants: a file that gets its final name is complete, and adds up to the digest that it says: the log is purged on its word; what is
//! installed was verified to its last byte; a crash while installing leaves the old state or the new.
//!
//! Deliberately not here: when snapshots are made, how they are sent, what the log is purged up to.

mod error;
mod format;
mod incoming;
mod store;
mod tally;

use std::path::Path;

use zyflow_crypto::{KeyRing, Lineage};
use zyflow_machine::Digest;

pub use error::SnapshotError;
pub use incoming::{Arrived, IncomingSnapshot};
pub use store::{SnapshotMeta, SnapshotStore};

use crate::tables::{Installation, SnapshotSource, Tables, TablesError};
pub(crate) use format::Parts;
use format::{Item, Reader};

impl Tables {
    /// Writes everything that is durable and applied to a new snapshot in `to`. Afterwards SQLite itself survives a power cut with at
    /// least what the snapshot covers: so the log may be purged up to the snapshot's position. Waits for disks.
    ///
    /// # Errors
    /// As [`BegunSnapshot::write`]; and [`SnapshotError::Empty`] if nothing was applied yet.
    pub fn build_snapshot(
        &self,
        to: &SnapshotStore,
        ring: &KeyRing,
        lineage: &Lineage,
    ) -> Result<SnapshotMeta, SnapshotError> {
        self.begin_snapshot()?.write(to, ring, lineage)
    }

    /// Begins a snapshot: what it holds is settled when this returns, however much is applied before it is written.
    ///
    /// # Errors
    /// [`SnapshotError::Empty`] if nothing was applied yet; else the tables can't be read.
    pub fn begin_snapshot(&self) -> Result<BegunSnapshot, SnapshotError> {
        self.flush()?;
        let source = SnapshotSource::open(self)?.ok_or(SnapshotError::Empty)?;
        Ok(BegunSnapshot { tables: self.clone(), source })
    }

    /// Replaces the state by that of a snapshot. Every byte is verified before anything is replaced. Waits for disks. A snapshot of what
    /// is applied here already changes nothing.
    ///
    /// # Errors
    /// The file is damaged, of another lineage, under a key that isn't there, or older than what is applied: nothing is
    /// changed. The tables fail: then they fail for good.
    pub fn install_snapshot(
        &self,
        file: &Path,
        ring: &KeyRing,
        lineage: &Lineage,
    ) -> Result<SnapshotMeta, SnapshotError> {
        let mut reader = Reader::open(file, ring, lineage)?;
        let header = reader.header()?;
        let (offered, applied) = (header.state.position, self.position()?);
        if applied > Some(offered) {
            return Err(SnapshotError::Older { offered, applied });
        }
        if applied == Some(offered) {
            return store::meta(file, ring, lineage);
        }
        let mut installation = Installation::begin(self, header.horizon)?;
        while let Some(item) = reader.next()? {
            match item {
                Item::Version(version) => installation.add_version(&version)?,
                Item::Session(id, bytes) => installation.add_session(id, &bytes)?,
            }
        }
        let digest = Digest::from_bytes(header.digest);
        let meta = store::meta(file, ring, lineage)?;
        installation.finish(&header.state, digest)?;
        Ok(meta)
    }
}

/// A snapshot whose contents are settled and not written yet.
pub struct BegunSnapshot {
    tables: Tables,
    source: SnapshotSource,
}

impl BegunSnapshot {
    /// Writes it, reads it back, and adds it up.
    ///
    /// # Errors
    /// The tables can't be read or the file not written. Where the tables don't add up to their digest, they are at fault: they stop for
    /// good and are marked to be built anew, which the older snapshot and the log are still there for. No file stays of what failed.
    pub fn write(self, to: &SnapshotStore, ring: &KeyRing, lineage: &Lineage) -> Result<SnapshotMeta, SnapshotError> {
        let meta = to.add(&self.source, ring, lineage).map_err(|error| self.blame(error))?;
        // Else the log could be purged past what a power cut leaves of the database.
        self.tables.checkpoint()?;
        Ok(meta)
    }

    /// Tells the tables what their snapshot showed about them.
    fn blame(&self, error: SnapshotError) -> SnapshotError {
        match error {
            SnapshotError::Inconsistent { reason, .. } => {
                let what = format!("a snapshot of them contradicts itself: {reason}");
                self.tables.blame(TablesError::Damaged { what }).into()
            }
            SnapshotError::Tables(found) => self.tables.blame(found).into(),
            other @ (SnapshotError::Empty
            | SnapshotError::File { .. }
            | SnapshotError::Damaged { .. }
            | SnapshotError::NewerFormat { .. }
            | SnapshotError::Open { .. }
            | SnapshotError::Seal(_)
            | SnapshotError::Random(_)
            | SnapshotError::Older { .. }) => other,
        }
    }
}

#[cfg(test)]
mod tests;
