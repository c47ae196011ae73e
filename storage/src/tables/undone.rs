//! Which revisions a restore from a backup has undone: they were given out once, by the cluster that was backed up, and are no part of this
//! history. Whoever saw one of them is told where the history goes on, instead of something that was never so.
//!
//! ```text
//!            cut                                   at
//!   ---------|. . . . . . . . . . . . . . . . . . .|---------> revisions
//!     shown    undone: refused, named                shown
//! ```
//!
//! Only a restore makes such a record, and it comes with a whole database: so they are read once, when one is opened or installed.

use std::sync::Arc;

use rusqlite::Connection;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Kind, Record, Restore};

use super::Tables;
use super::codec::Codec;
use super::error::TablesError;
use super::read::{SealedVersion, raw_version};
use super::schema::from_sql;

const RESTORES: &str = "\
    SELECT v.version, v.previous, v.body, h.id FROM head h JOIN versions v ON v.version = h.version WHERE h.kind = ?1";

/// All restores that this history has behind it, each with the revision at which it went on.
#[derive(Clone, Debug)]
pub(crate) struct Undone(Arc<[(Revision, Restore)]>);

impl Default for Undone {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl Undone {
    /// Reads them.
    pub(crate) fn load(connection: &Connection, codec: &Codec) -> Result<Self, TablesError> {
        let failed = || TablesError::sqlite("look for restores");
        let mut statement = connection.prepare(RESTORES).map_err(failed())?;
        let mut rows = statement.query([Kind::Restore.code()]).map_err(failed())?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let sealed = SealedVersion::from_raw(raw_version(row).map_err(failed())?)?;
            let id = RecordId::from_u64(from_sql(row.get(3).map_err(failed())?)?);
            let body = codec.open_body(sealed.version, id, sealed.previous, &sealed.body)?;
            if let Some(Record::Restore(restore)) = body.stored(sealed.version)?.record {
                found.push((id.0.revision(), restore));
            }
        }
        Ok(Self(found.into()))
    }

    /// Refuses a revision that was undone.
    pub(crate) fn refuse(&self, revision: Revision) -> Result<(), TablesError> {
        match self.0.iter().find(|(at, restore)| restore.undid(revision, *at)) {
            Some((at, restore)) => Err(TablesError::Undone { revision, cut: restore.cut, at: *at }),
            None => Ok(()),
        }
    }

    /// The revision so many before `from`, those that were undone left out.
    fn back(&self, from: Revision, count: u64) -> Revision {
        let (mut from, mut count) = (from.0, count);
        let mut restores = self.0.to_vec();
        restores.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, restore) in restores {
            if from < at.0 || from - at.0 >= count {
                continue;
            }
            count -= from - at.0 + 1;
            from = restore.cut.0;
        }
        Revision(from.saturating_sub(count))
    }

    /// The revision whose state stood then: of one that was undone, the one that was gone back to.
    fn standing(&self, revision: Revision) -> Revision {
        let undone = self.0.iter().find(|(at, restore)| restore.undid(revision, *at));
        undone.map_or(revision, |(_, restore)| restore.cut)
    }
}

impl Tables {
    /// Every restore from a backup that this history has behind it, with the revision at which it went on.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn restores(&self) -> Result<Vec<(Revision, Restore)>, TablesError> {
        Ok(self.shared.overlay()?.base().undone.0.to_vec())
    }

    /// Refuses a revision after which whoever saw it can't go on, as it was undone by a restore.
    ///
    /// # Errors
    /// [`TablesError::Undone`], naming the revision to go on from; or a thread panicked before.
    pub fn refuse_undone(&self, revision: Revision) -> Result<(), TablesError> {
        match self.shared.overlay()?.base().undone.refuse(revision) {
            // The last one before the history goes on is what those name who were told so.
            Err(TablesError::Undone { at, .. }) if revision.0 + 1 == at.0 => Ok(()),
            other => other,
        }
    }

    /// The revision that lies `count` revisions before `from`; those that a restore has undone don't count.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn back(&self, from: Revision, count: u64) -> Result<Revision, TablesError> {
        Ok(self.shared.overlay()?.base().undone.back(from, count))
    }

    /// As [`Undone::standing`].
    pub(super) fn standing(&self, revision: Revision) -> Result<Revision, TablesError> {
        Ok(self.shared.overlay()?.base().undone.standing(revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_undone_is_refused_and_does_not_count() {
        let restore = |cut, last| Restore { cut: Revision(cut), last: Revision(last) };
        // 1 .. 10, 100 .. 120, 1000 ..
        let undone = Undone(Arc::new([(Revision(100), restore(10, 40)), (Revision(1000), restore(120, 150))]));
        let back = |from, count| undone.back(Revision(from), count).0;
        assert_eq!([back(1005, 0), back(1005, 5), back(1005, 6), back(1005, 26)], [1005, 1000, 120, 100]);
        assert_eq!([back(1005, 27), back(1005, 36), back(1005, 37), back(1005, 900)], [10, 1, 0, 0]);
        assert_eq!([back(110, 3), back(110, 11), back(9, 4)], [107, 10, 5]);
        for (revision, standing) in [(10, 10), (11, 10), (99, 10), (100, 100), (121, 120), (999, 120), (1000, 1000)] {
            let revision = Revision(revision);
            assert_eq!(undone.standing(revision), Revision(standing));
            assert_eq!(undone.refuse(revision).is_err(), revision != Revision(standing));
        }
    }
}
