//! All that the machine may see of the state.

use crate::id::{EventId, RecordId, Revision};
use crate::record::{Kind, Record};
use std::sync::Arc;

/// A version of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The event that made it.
    pub version: EventId,
    /// Its kind, also where it is gone.
    pub kind: Kind,
    /// What it belongs to, also where it is gone.
    pub parent: RecordId,
    /// What it is ordered by, also where it is gone (a deleted block keeps its place, so that others can anchor to it).
    pub order: Vec<u8>,
    /// The record; `None` = deleted at `version`.
    pub record: Option<Record>,
}

/// A record that changed after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub id: RecordId,
    /// Its newest version.
    pub now: Arc<Stored>,
    /// The newest version at or before that revision; `None` = it was made later.
    pub then: Option<Arc<Stored>>,
}

/// Reads of the state at one point. Two implementations: the tables of a node, and a `BTreeMap` in tests.
///
/// What the retention lets go of is not there for any of these reads from the next entry on, whether or not the storage has deleted it
/// yet: outcomes depend on what they find, so each must give the same on every node. That is, with the horizon of the newest applied
/// [`crate::record::Retention`]: a record whose newest version is a deletion at or before the horizon doesn't exist and never did
/// ([`is_gone`]). Versions that were replaced by then aren't asked for: nobody may read below the horizon.
pub trait View {
    /// A read that failed: fatal for the node, never part of an outcome.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The newest version of a record, a deleted one included; `None` = there never was one.
    ///
    /// # Errors
    /// Where the storage can't be read.
    fn get(&self, id: RecordId) -> Result<Option<Arc<Stored>>, Self::Error>;

    /// The newest version at or before `revision`; `None` also where that is a deletion at or before the horizon, even if the record came back
    /// later.
    ///
    /// # Errors
    /// Where the storage can't be read, or `revision` is below the horizon.
    fn get_at(&self, id: RecordId, revision: Revision) -> Result<Option<Arc<Stored>>, Self::Error>;

    /// All records of that kind and parent, deleted ones included, whose newest version was made after `revision`, by id.
    ///
    /// # Errors
    /// Where the storage can't be read, or `revision` is below the horizon.
    fn changed(&self, kind: Kind, parent: RecordId, revision: Revision) -> Result<Vec<Changed>, Self::Error>;

    /// The live record of that kind, parent and order.
    ///
    /// # Errors
    /// Where the storage can't be read.
    fn find(&self, kind: Kind, parent: RecordId, order: &[u8]) -> Result<Option<RecordId>, Self::Error>;

    /// The first record of that kind and parent, deleted ones included, whose order is greater than `after` (`None` = the first of all).
    ///
    /// # Errors
    /// Where the storage can't be read.
    fn next(
        &self,
        kind: Kind,
        parent: RecordId,
        after: Option<&[u8]>,
    ) -> Result<Option<(Vec<u8>, RecordId)>, Self::Error>;

    /// All live records of that kind and parent, by order.
    ///
    /// # Errors
    /// Where the storage can't be read.
    fn children(&self, kind: Kind, parent: RecordId) -> Result<Vec<(Vec<u8>, RecordId)>, Self::Error>;
}

/// Whether a version is a deletion that the history no longer holds: then there is no such record.
#[must_use]
pub fn is_gone(version: EventId, is_live: bool, horizon: Revision) -> bool {
    !is_live && version.revision() <= horizon && horizon > Revision::default()
}
