//! Backups: all versions there are, in a chain of sealed objects, and a new cluster that begins with them.
//!
//! ```text
//!   tables --(read transactions, up to some MiB each)--> object 1 <- object 2 <- object 3 ...      each names the one before
//!   objects --(opened, put in order)--> replay: each version again from its fact and the version before; rows add up to the digest?
//!           --(cut at a moment)--> a data folder with one snapshot: the first voter of a new cluster
//!
//!   old   ....... cut ........ last                     (what came after the cut is undone)
//!   new   ....... cut          |   + 1,000,000 = R: "restored", then whatever comes
//! ```
//!
//! Versions are appended in the order of revisions and never changed, so a base and what follows it are the same thing: versions up to a
//! revision. A base only begins where a node's past begins. So a large one is several objects, each small enough to be sent and
//! stored as one piece, and one that was broken off is simply gone on with. Why, and what the format is not:
//! docs/adr/0018-backups-are-versions-in-a-chain.md.
//!
//! Invariants: what is written holds no text in clear; nothing is restored that doesn't replay; the revisions of the new cluster
//! are above all that anybody has seen of the old one, and below them stands what was undone.
//!
//! Deliberately not here: where objects are kept, and who asks for one.

mod archive;
mod error;
mod object;
mod replay;
mod restore;

use std::io::Write;

use zyflow_crypto::backup::{Header, ObjectHash};
use zyflow_crypto::{KeyRing, Lineage};
use zyflow_machine::id::Revision;

pub use archive::{Archive, Object};
pub use error::BackupError;
pub use replay::{Moment, Verified};
pub use restore::{REVISIONS_AHEAD, RestorePlan, Restored, restore};

use crate::tables::{BackupSource, Tables};

/// Bytes of versions in one object, about: 32 MiB. Small enough to be held in memory by whoever stores it, large enough that a backup of
/// some GiB is some hundred objects.
pub const OBJECT_BYTES: u64 = 32 << 20;

/// What the objects before hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// All versions up to this revision.
    pub last: Revision,
    /// The oldest revision that they can show.
    pub oldest: Revision,
    /// The number of the last of them.
    pub number: u32,
    /// Its hash; `None` = the next one begins a chain of its own, and holds everything.
    pub hash: Option<ObjectHash>,
}

/// Who seals an object, and in whose name.
#[derive(Clone, Copy, Debug)]
pub struct Sealing<'a> {
    /// Under which key.
    pub ring: &'a KeyRing,
    /// Of which history.
    pub lineage: &'a Lineage,
    /// Of which cluster: it is sealed, and a restore must choose another name.
    pub cluster: &'a str,
    /// When, milliseconds since 1970.
    pub made_ms: u64,
}

impl Tables {
    /// Begins the next object of a backup: what it holds is settled when this returns, however much is applied before it is written.
    /// `None` = nothing was applied after the last one. Waits for SQLite.
    ///
    /// # Errors
    /// What follows the last object isn't kept any more, was undone by a restore, or hasn't been applied here; or this node doesn't know
    /// yet what still stood at the chain's oldest revision; or the tables can't be read.
    pub fn begin_backup(&self, after: Option<After>, bytes: u64) -> Result<Option<BegunBackup>, BackupError> {
        self.flush()?;
        let from = after.filter(|after| after.hash.is_some());
        let Some(source) = BackupSource::open(self, from.map(|after| (after.last, after.oldest)), bytes)? else {
            return Ok(None);
        };
        Ok(Some(BegunBackup { source, after }))
    }
}

/// An object whose contents are settled and not written yet.
pub struct BegunBackup {
    source: BackupSource,
    after: Option<After>,
}

impl BegunBackup {
    /// It holds everything up to this revision.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.source.last
    }

    /// How far the node was when it began.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.source.newest
    }

    /// Writes it; gives its header and its hash.
    ///
    /// # Errors
    /// The tables can't be read, or the object not be written.
    pub fn write(self, sink: impl Write, sealing: &Sealing<'_>) -> Result<(Header, ObjectHash), BackupError> {
        let Self { source, after } = self;
        let previous = after.and_then(|after| after.hash);
        let first = after.filter(|_| previous.is_some()).map_or(0, |after| after.last.0 + 1);
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(BackupError::Random)?;
        let header = Header {
            lineage: *sealing.lineage,
            number: after.map_or(1, |after| after.number + 1),
            oldest: source.oldest.0,
            first,
            last: source.last.0,
            is_settled: source.digest.is_some(),
            made_ms: sealing.made_ms,
            previous,
            id,
        };
        let hash = object::write(sink, &header, source.digest, sealing, |give| source.for_each_version(give))?;
        Ok((header, hash))
    }
}

#[cfg(test)]
mod tests;
