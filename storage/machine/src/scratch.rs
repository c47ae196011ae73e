//! The state as a batch sees it while it is applied: the view below, and above it what the batch's own commands have done.
//!
//! ```text
//!   command n      before: what its records were when it began   -> undone as one where it is refused
//!   commands < n   latest: newest version of each touched record
//!   ------------------------------------------------------------
//!   view           the state at the revision before
//! ```
//!
//! Invariants: `places` holds exactly the address of every record in `latest`; a refused command leaves no row and no ordinal.

use crate::decide::{Decided, Halt};
use crate::digest::Digest;
use crate::event::{Event, Fact, RowChange};
use crate::evolve::evolve;
use crate::id::{EventId, ORDINALS_MAX, RecordId, Revision};
use crate::outcome::Reject;
use crate::record::Kind;
use crate::view::{Changed, Stored, View};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// An order and the record that stands there.
type Standing = (Vec<u8>, RecordId);
type Address = (Kind, RecordId, Vec<u8>, RecordId);

/// A view that can be written to, one command at a time.
pub(crate) struct Scratch<'v, V: View> {
    view: &'v V,
    revision: Revision,
    ordinal: u32,
    ordinal_at_start: u32,
    rows: Vec<RowChange>,
    latest: BTreeMap<RecordId, Arc<Stored>>,
    places: BTreeSet<Address>,
    before: BTreeMap<RecordId, Option<Arc<Stored>>>,
}

impl<'v, V: View> Scratch<'v, V> {
    pub(crate) fn new(view: &'v V, revision: Revision) -> Self {
        Self {
            view,
            revision,
            ordinal: 0,
            ordinal_at_start: 0,
            rows: Vec::new(),
            latest: BTreeMap::new(),
            places: BTreeSet::new(),
            before: BTreeMap::new(),
        }
    }

    /// The revision that is being made.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Keeps what the command did and begins the next one; returns its rows and the digest of all rows, which was `digest` before.
    pub(crate) fn commit(&mut self, digest: Digest) -> (Digest, impl Iterator<Item = RowChange>) {
        let digest = self.digest_after(digest);
        self.ordinal_at_start = self.ordinal;
        self.before.clear();
        (digest, self.rows.drain(..))
    }

    /// Each record that the command touched counts as it is now and not as it was, however often it was touched.
    fn digest_after(&self, mut digest: Digest) -> Digest {
        let of = |id, stored: &Stored| stored.record.as_ref().map_or(Digest::ZERO, |record| Digest::of_row(id, record));
        for (&id, before) in &self.before {
            if let Some(before) = before {
                digest = digest.remove(of(id, before));
            }
            if let Some(latest) = self.latest.get(&id) {
                digest = digest.add(of(id, latest));
            }
        }
        digest
    }

    /// Undoes the command.
    pub(crate) fn undo(&mut self) {
        for (id, before) in std::mem::take(&mut self.before) {
            self.set(id, before);
        }
        self.rows.clear();
        self.ordinal = self.ordinal_at_start;
    }

    /// The next position of this entry.
    pub(crate) fn take_id(&mut self) -> Result<EventId, Reject> {
        let id = EventId::new(self.revision, self.ordinal).ok_or_else(|| Reject::OverLimit {
            what: OUT_OF_ORDINALS.to_owned(),
            actual: u64::from(self.ordinal) + 1,
            limit: u64::from(ORDINALS_MAX),
        })?;
        self.ordinal += 1;
        Ok(id)
    }

    /// Makes a record; its id is the event's.
    pub(crate) fn create(&mut self, fact: Fact) -> Result<RecordId, Reject> {
        let id = self.take_id()?;
        let record = RecordId(id);
        self.put(Event { id, record, fact }, None);
        Ok(record)
    }

    /// Changes a record; `current` is its newest version.
    pub(crate) fn change(&mut self, record: RecordId, current: &Arc<Stored>, fact: Fact) -> Result<(), Reject> {
        let id = self.take_id()?;
        self.put(Event { id, record, fact }, Some(current));
        Ok(())
    }

    fn put(&mut self, event: Event, current: Option<&Arc<Stored>>) {
        let id = event.record;
        let row = evolve(event, current.map(Arc::as_ref))
            .expect("invariant: decide makes only facts that fit the record it read");
        self.before.entry(id).or_insert_with(|| current.cloned());
        let stored = Stored {
            version: row.version,
            kind: row.kind,
            parent: row.parent,
            order: row.order.clone(),
            record: row.record.clone(),
        };
        self.set(id, Some(Arc::new(stored)));
        self.rows.push(row);
    }

    fn set(&mut self, id: RecordId, stored: Option<Arc<Stored>>) {
        let address = |stored: &Stored| (stored.kind, stored.parent, stored.order.clone(), id);
        if let Some(old) = self.latest.remove(&id) {
            self.places.remove(&address(&old));
        }
        if let Some(new) = stored {
            self.places.insert(address(&new));
            self.latest.insert(id, new);
        }
    }

    /// The newest version of a record as it was when the command began.
    pub(crate) fn before(&self, id: RecordId, current: &Arc<Stored>) -> Option<Arc<Stored>> {
        self.before.get(&id).map_or_else(|| Some(Arc::clone(current)), Clone::clone)
    }

    /// See [`View::get`].
    pub(crate) fn get(&self, id: RecordId) -> Decided<Option<Arc<Stored>>, V> {
        match self.latest.get(&id) {
            Some(stored) => Ok(Some(Arc::clone(stored))),
            None => self.view.get(id).map_err(Halt::View),
        }
    }

    /// Whether a command before this one of the same entry has changed anything.
    pub(crate) fn is_touched(&self) -> bool {
        self.latest.values().any(|stored| stored.version.revision() == self.revision)
    }

    /// See [`View::get_at`]; `revision` is before this entry's.
    pub(crate) fn get_at(&self, id: RecordId, revision: Revision) -> Decided<Option<Arc<Stored>>, V> {
        self.view.get_at(id, revision).map_err(Halt::View)
    }

    /// See [`View::changed`]; `revision` is before this entry's.
    pub(crate) fn changed(&self, kind: Kind, parent: RecordId, revision: Revision) -> Decided<Vec<Changed>, V> {
        let mut changed = self.view.changed(kind, parent, revision).map_err(Halt::View)?;
        changed.retain(|each| !self.latest.contains_key(&each.id));
        let from = (kind, parent, Vec::new(), RecordId::ROOT);
        let here = self.places.range(from..).take_while(|place| (place.0, place.1) == (kind, parent));
        for (_, _, _, id) in here {
            let Some(now) = self.latest.get(id).filter(|now| now.version.revision() > revision) else { continue };
            let then = self.view.get_at(*id, revision).map_err(Halt::View)?;
            changed.push(Changed { id: *id, now: Arc::clone(now), then });
        }
        changed.sort_unstable_by_key(|each| each.id);
        Ok(changed)
    }

    /// See [`View::find`].
    pub(crate) fn find(&self, kind: Kind, parent: RecordId, order: &[u8]) -> Decided<Option<RecordId>, V> {
        let from = (kind, parent, order.to_vec(), RecordId::ROOT);
        let here = self
            .places
            .range(from..)
            .take_while(|place| (place.0, place.1, place.2.as_slice()) == (kind, parent, order));
        for (_, _, _, id) in here {
            if self.latest.get(id).is_some_and(|stored| stored.record.is_some()) {
                return Ok(Some(*id));
            }
        }
        let below = self.view.find(kind, parent, order).map_err(Halt::View)?;
        Ok(below.filter(|id| !self.latest.contains_key(id)))
    }

    /// See [`View::next`].
    pub(crate) fn next(&self, kind: Kind, parent: RecordId, after: Option<&[u8]>) -> Decided<Option<Standing>, V> {
        let here = self.next_here(kind, parent, after);
        let mut below = self.view.next(kind, parent, after).map_err(Halt::View)?;
        while let Some((order, id)) = &below
            && self.has_left(*id, order)
        {
            // A live one may stand where a deleted one did.
            let other = self.view.find(kind, parent, order).map_err(Halt::View)?;
            if let Some(other) = other.filter(|other| !self.has_left(*other, order)) {
                below = Some((order.clone(), other));
                break;
            }
            below = self.view.next(kind, parent, Some(order)).map_err(Halt::View)?;
        }
        Ok(match (here, below) {
            (Some(here), Some(below)) => Some(here.min(below)),
            (here, below) => here.or(below),
        })
    }

    fn has_left(&self, id: RecordId, order: &[u8]) -> bool {
        self.latest.get(&id).is_some_and(|stored| stored.order != order)
    }

    fn next_here(&self, kind: Kind, parent: RecordId, after: Option<&[u8]>) -> Option<Standing> {
        let last = RecordId::from_u64(u64::MAX);
        let from = match after {
            Some(order) => Bound::Excluded((kind, parent, order.to_vec(), last)),
            None => Bound::Included((kind, parent, Vec::new(), RecordId::ROOT)),
        };
        let place = self.places.range((from, Bound::Unbounded)).next();
        place.filter(|place| (place.0, place.1) == (kind, parent)).map(|place| (place.2.clone(), place.3))
    }

    /// See [`View::children`].
    pub(crate) fn children(&self, kind: Kind, parent: RecordId) -> Decided<Vec<Standing>, V> {
        let mut all = self.view.children(kind, parent).map_err(Halt::View)?;
        all.retain(|(_, id)| !self.latest.contains_key(id));
        let from = (kind, parent, Vec::new(), RecordId::ROOT);
        for (_, _, order, id) in self.places.range(from..).take_while(|place| (place.0, place.1) == (kind, parent)) {
            if self.latest.get(id).is_some_and(|stored| stored.record.is_some()) {
                all.push((order.clone(), *id));
            }
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// What is over its limit when an entry has no ordinal left.
pub(crate) const OUT_OF_ORDINALS: &str = "row changes of one entry";
