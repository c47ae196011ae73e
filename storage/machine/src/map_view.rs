//! The state in a `BTreeMap`, with all of its history: for tests of this crate and of others, and as a reference for the tables.

use crate::digest::Digest;
use crate::event::RowChange;
use crate::id::{RecordId, Revision};
use crate::machine::Effects;
use crate::record::{Kind, Record};
use crate::view::{Changed, Stored, View, is_gone};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

/// Every version of every record. A read below the horizon panics here: nothing may ask for that, as no table has an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapView {
    versions: BTreeMap<RecordId, Vec<Arc<Stored>>>,
    /// Where the newest version of each record stands, deleted ones included.
    places: BTreeSet<(Kind, RecordId, Vec<u8>, RecordId)>,
}

impl MapView {
    /// Without records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the rows of a batch.
    ///
    /// # Panics
    /// Where a row doesn't follow the version that it names as its previous one.
    pub fn commit(&mut self, rows: &[RowChange]) {
        for row in rows {
            self.put(row);
        }
    }

    /// Stores what a batch did.
    ///
    /// # Panics
    /// As [`Self::commit`].
    pub fn commit_effects(&mut self, effects: &Effects) {
        for (row, _) in &effects.rows {
            self.put(row);
        }
    }

    /// All live records.
    pub fn records(&self) -> impl Iterator<Item = (RecordId, &Record)> {
        self.versions.iter().filter_map(|(id, versions)| Some((*id, versions.last()?.record.as_ref()?)))
    }

    /// Every version of a record, oldest first.
    #[must_use]
    pub fn history(&self, id: RecordId) -> &[Arc<Stored>] {
        self.versions.get(&id).map_or(&[], Vec::as_slice)
    }

    /// All records of that kind and parent, deleted ones included, by order.
    pub fn all(&self, kind: Kind, parent: RecordId) -> impl Iterator<Item = RecordId> {
        self.siblings(kind, parent, &[]).map(|(_, id)| id)
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub fn horizon(&self) -> Revision {
        let mut kept = self.live(Kind::Retention, RecordId::ROOT);
        let retention = kept.next().and_then(|(_, id)| self.newest(id)?.record.as_ref());
        match retention {
            Some(Record::Retention(retention)) => retention.horizon,
            _ => Revision::default(),
        }
    }

    /// Deletes what no read finds any more: versions that were replaced by the horizon, and records that were deleted by then.
    pub fn purge(&mut self) {
        self.purge_to(self.horizon());
    }

    /// The same for a later horizon than the map's own: what is left then of a past state.
    pub fn purge_to(&mut self, horizon: Revision) {
        for versions in self.versions.values_mut() {
            let behind = versions.partition_point(|stored| stored.version.revision() <= horizon);
            let is_kept = |newest: usize| versions[newest].record.is_some() || newest + 1 == versions.len();
            let first = behind.checked_sub(1).map_or(0, |newest| if is_kept(newest) { newest } else { behind });
            versions.drain(..first);
        }
        let (versions, places) = (&mut self.versions, &mut self.places);
        versions.retain(|id, versions| {
            let Some(last) = versions.last() else { return false };
            let is_gone = is_gone(last.version, last.record.is_some(), horizon);
            if is_gone {
                places.remove(&(last.kind, last.parent, last.order.clone(), *id));
            }
            !is_gone
        });
    }

    /// The digest of all rows, from the rows alone.
    #[must_use]
    pub fn rows_digest(&self) -> Digest {
        self.records().map(|(id, record)| Digest::of_row(id, record)).sum()
    }

    /// The canonical text of a change.
    #[must_use]
    pub fn text(&self, change: RecordId) -> String {
        let mut text = String::new();
        for (_, id) in self.live(Kind::Block, change) {
            if let Some(Record::Block(block)) = self.newest(id).and_then(|stored| stored.record.as_ref()) {
                text.extend([&block.lead, &block.mark.value, &block.text.value].map(String::as_str));
            }
        }
        text
    }

    fn put(&mut self, row: &RowChange) {
        let versions = self.versions.entry(row.id).or_default();
        let previous = versions.last().map(|stored| stored.version);
        assert_eq!(
            row.previous, previous,
            "row {} of record {} doesn't follow its previous version",
            row.version, row.id
        );
        assert!(previous < Some(row.version), "row {} of record {} is older than the one before", row.version, row.id);
        if let Some(old) = versions.last() {
            self.places.remove(&(old.kind, old.parent, old.order.clone(), row.id));
        }
        self.places.insert((row.kind, row.parent, row.order.clone(), row.id));
        versions.push(Arc::new(Stored {
            version: row.version,
            kind: row.kind,
            parent: row.parent,
            order: row.order.clone(),
            record: row.record.clone(),
        }));
    }

    fn newest(&self, id: RecordId) -> Option<&Arc<Stored>> {
        self.versions.get(&id)?.last()
    }

    fn is_live(&self, id: RecordId) -> bool {
        self.newest(id).is_some_and(|stored| stored.record.is_some())
    }

    fn siblings(&self, kind: Kind, parent: RecordId, from: &[u8]) -> impl Iterator<Item = (&Vec<u8>, RecordId)> {
        let from = (kind, parent, from.to_vec(), RecordId::ROOT);
        let places = self.places.range((Bound::Included(from), Bound::Unbounded));
        places.take_while(move |place| (place.0, place.1) == (kind, parent)).map(|place| (&place.2, place.3))
    }

    fn live(&self, kind: Kind, parent: RecordId) -> impl Iterator<Item = (&Vec<u8>, RecordId)> {
        self.siblings(kind, parent, &[]).filter(|(_, id)| self.is_live(*id))
    }
}

impl View for MapView {
    type Error = Infallible;

    fn get(&self, id: RecordId) -> Result<Option<Arc<Stored>>, Infallible> {
        let horizon = self.horizon();
        Ok(self.newest(id).filter(|stored| !is_gone(stored.version, stored.record.is_some(), horizon)).cloned())
    }

    fn get_at(&self, id: RecordId, revision: Revision) -> Result<Option<Arc<Stored>>, Infallible> {
        let (versions, horizon) = (self.history(id), self.horizon());
        assert!(revision >= horizon, "{id} at {revision} is below the horizon {horizon}");
        let after = versions.partition_point(|stored| stored.version.revision() <= revision);
        let found = after.checked_sub(1).map(|last| &versions[last]);
        Ok(found.filter(|stored| !is_gone(stored.version, stored.record.is_some(), horizon)).cloned())
    }

    fn changed(&self, kind: Kind, parent: RecordId, revision: Revision) -> Result<Vec<Changed>, Infallible> {
        assert!(revision >= self.horizon(), "what changed since {revision} is below the horizon {}", self.horizon());
        let all: BTreeSet<RecordId> = self.all(kind, parent).collect();
        let newer = all.into_iter().filter_map(|id| {
            let now = self.newest(id).filter(|now| now.version.revision() > revision)?;
            Some((id, Arc::clone(now)))
        });
        newer.map(|(id, now)| Ok(Changed { id, now, then: self.get_at(id, revision)? })).collect()
    }

    fn find(&self, kind: Kind, parent: RecordId, order: &[u8]) -> Result<Option<RecordId>, Infallible> {
        let mut here = self.siblings(kind, parent, order).take_while(|(place, _)| *place == order);
        Ok(here.find(|(_, id)| self.is_live(*id)).map(|(_, id)| id))
    }

    fn next(
        &self,
        kind: Kind,
        parent: RecordId,
        after: Option<&[u8]>,
    ) -> Result<Option<(Vec<u8>, RecordId)>, Infallible> {
        let mut from = self.siblings(kind, parent, after.unwrap_or_default());
        let horizon = self.horizon();
        let is_there = |id: RecordId| {
            self.newest(id).is_some_and(|stored| !is_gone(stored.version, stored.record.is_some(), horizon))
        };
        let next = from.find(|(order, id)| after.is_none_or(|after| order.as_slice() > after) && is_there(*id));
        Ok(next.map(|(order, id)| (order.clone(), id)))
    }

    fn children(&self, kind: Kind, parent: RecordId) -> Result<Vec<(Vec<u8>, RecordId)>, Infallible> {
        Ok(self.live(kind, parent).map(|(order, id)| (order.clone(), id)).collect())
    }
}
