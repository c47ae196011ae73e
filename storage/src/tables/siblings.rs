//! The records of one kind and parent in order, in memory, for documents that are being worked on.
//!
//! An edit asks for neighbours, a rendering for all blocks in order: both would scan SQLite. So the places (order, id, whether
//! it lives) of recently used parents are kept, changed by apply as it changes them, and given out as shared copies. What
//! isn't here is read from SQLite and the overlay, with the same answer.
//!
//! Invariants: a list that is here is that of the newest applied revision; it is right for every revision from `changed_at` on.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Kind;

use super::hash::HashIds;

/// Kind and parent: what siblings share.
pub(crate) type Family = (Kind, RecordId);

/// Bytes of a place, about.
pub(super) const PLACE_BYTES: usize = 150;

/// Places kept, over all families: at about 150 bytes each 45 MB. Three of the largest changes, or 3,000 of a usual size.
const PLACES_MAX: usize = 300_000;

/// How much is given up at once when there is too much, so that looking for the oldest is rare.
const EVICTED_PART: usize = 8;

/// The places of one family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Siblings {
    /// Whether a record lives, by its place. Orders of deleted and of live records may be equal (a file made anew).
    by_order: BTreeMap<(Arc<[u8]>, RecordId), bool>,
    orders: HashMap<RecordId, Arc<[u8]>, HashIds>,
    changed_at: Revision,
}

impl Siblings {
    /// None so far, known at `at`.
    pub(crate) fn new(at: Revision) -> Self {
        Self { changed_at: at, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_order.len()
    }

    /// Is the record there, with that order and life?
    pub(crate) fn has(&self, id: RecordId, order: &[u8], is_live: bool) -> bool {
        let at = self.orders.get(&id).filter(|known| ***known == *order);
        at.is_some_and(|order| self.by_order.get(&(Arc::clone(order), id)) == Some(&is_live))
    }

    /// Puts a record to its place.
    pub(crate) fn set(&mut self, id: RecordId, order: &[u8], is_live: bool) {
        let order: Arc<[u8]> = order.into();
        if let Some(before) = self.orders.insert(id, Arc::clone(&order)) {
            self.by_order.remove(&(before, id));
        }
        self.by_order.insert((order, id), is_live);
    }

    /// The same as they were at `at`, as far as nothing else is said of them.
    pub(crate) fn at(&self, at: Revision) -> Self {
        Self { changed_at: at, ..self.clone() }
    }

    /// Forgets a record.
    pub(crate) fn remove(&mut self, id: RecordId) {
        if let Some(order) = self.orders.remove(&id) {
            self.by_order.remove(&(order, id));
        }
    }

    /// The first, deleted ones included, whose order is greater than `after`.
    pub(crate) fn next(&self, after: Option<&[u8]>) -> Option<(Vec<u8>, RecordId)> {
        let first = match after {
            None => self.by_order.first_key_value(),
            // No id is greater than the largest, so this is past all of that order.
            Some(after) => self.by_order.range((Bound::Excluded((after.into(), last())), Bound::Unbounded)).next(),
        };
        first.map(|((order, id), _)| (order.to_vec(), *id))
    }

    /// The first live one of that order.
    pub(crate) fn find(&self, order: &[u8]) -> Option<RecordId> {
        let range = (order.into(), RecordId::ROOT)..=(order.into(), last());
        self.by_order.range(range).find_map(|((_, id), is_live)| is_live.then_some(*id))
    }

    /// All, deleted ones included, in order; those that share one by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&[u8], RecordId, bool)> {
        self.by_order.iter().map(|((order, id), is_live)| (&**order, *id, *is_live))
    }

    /// All live ones, in order.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&[u8], RecordId)> {
        self.by_order.iter().filter(|(_, is_live)| **is_live).map(|((order, id), _)| (&**order, *id))
    }
}

/// The largest id that there can be.
fn last() -> RecordId {
    RecordId::from_u64(u64::MAX)
}

/// The families that are kept.
#[derive(Default)]
pub(crate) struct Families {
    kept: HashMap<Family, Kept, HashIds>,
    places: usize,
    clock: AtomicU64,
}

struct Kept {
    siblings: Arc<Siblings>,
    used: AtomicU64,
}

impl Families {
    /// The list, if it is kept and right for `at`.
    pub(crate) fn get(&self, family: Family, at: Revision) -> Option<Arc<Siblings>> {
        let kept = self.kept.get(&family).filter(|kept| kept.siblings.changed_at <= at)?;
        kept.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(&kept.siblings))
    }

    /// The list of now, if it is kept.
    pub(crate) fn newest(&self, family: Family) -> Option<Arc<Siblings>> {
        self.get(family, Revision(u64::MAX))
    }

    /// Keeps a list that is right for the newest applied revision.
    pub(crate) fn keep(&mut self, family: Family, siblings: Arc<Siblings>) {
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        self.places += siblings.len();
        if let Some(before) = self.kept.insert(family, Kept { siblings, used }) {
            self.places -= before.siblings.len();
        }
        if self.places > PLACES_MAX {
            self.evict();
        }
    }

    /// Follows a change that apply makes at `revision`. Content alone changes nothing here.
    pub(crate) fn follow(&mut self, family: Family, id: RecordId, order: &[u8], is_live: bool, revision: Revision) {
        let Some(kept) = self.kept.get_mut(&family) else { return };
        if kept.siblings.has(id, order, is_live) {
            return;
        }
        let siblings = Arc::make_mut(&mut kept.siblings);
        let before = siblings.len();
        siblings.set(id, order, is_live);
        siblings.changed_at = revision;
        self.places += siblings.len() - before;
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.places = 0;
    }

    /// Forgets the families that were not used for longest.
    fn evict(&mut self) {
        let mut ages: Vec<(u64, Family)> =
            self.kept.iter().map(|(family, kept)| (kept.used.load(Ordering::Relaxed), *family)).collect();
        ages.sort_unstable();
        for (_, family) in ages {
            if self.places <= PLACES_MAX - PLACES_MAX / EVICTED_PART {
                return;
            }
            if let Some(kept) = self.kept.remove(&family) {
                self.places -= kept.siblings.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_machine::id::EventId;

    fn id(revision: u64) -> RecordId {
        RecordId(EventId::new(Revision(revision), 0).unwrap())
    }

    fn family(parent: u64) -> Family {
        (Kind::Block, id(parent))
    }

    #[test]
    fn deleted_ones_keep_their_place_and_are_not_found() {
        let mut siblings = Siblings::new(Revision(0));
        siblings.set(id(1), b"b", true);
        siblings.set(id(2), b"d", true);
        siblings.set(id(1), b"b", false);
        assert_eq!(siblings.next(None), Some((b"b".to_vec(), id(1))));
        assert_eq!(siblings.next(Some(b"b")), Some((b"d".to_vec(), id(2))));
        assert_eq!(siblings.next(Some(b"d")), None);
        assert_eq!(siblings.find(b"b"), None);
        siblings.set(id(3), b"b", true);
        assert_eq!(siblings.find(b"b"), Some(id(3)));
        assert_eq!(siblings.next(Some(b"b")), Some((b"d".to_vec(), id(2))), "past all that share an order");
        siblings.set(id(2), b"a", true);
        assert_eq!(siblings.live().map(|(_, id)| id).collect::<Vec<_>>(), [id(2), id(3)]);
    }

    #[test]
    fn a_list_is_given_for_the_revisions_it_is_right_for() {
        let mut families = Families::default();
        families.keep(family(1), Arc::new(Siblings::new(Revision(5))));
        assert!(families.get(family(1), Revision(4)).is_none());
        families.follow(family(1), id(9), b"a", true, Revision(9));
        families.follow(family(1), id(9), b"a", true, Revision(12));
        assert!(families.get(family(1), Revision(8)).is_none());
        assert_eq!(families.get(family(1), Revision(9)).unwrap().len(), 1, "content alone doesn't move it");
        let held = families.get(family(1), Revision(9)).unwrap();
        families.follow(family(1), id(13), b"b", true, Revision(13));
        assert_eq!(held.len(), 1, "what was given out stays as it was");
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let mut families = Families::default();
        let mut large = Siblings::new(Revision(0));
        for at in 0..u32::try_from(PLACES_MAX / 3).unwrap() {
            large.set(RecordId(EventId::new(Revision(7), at).unwrap()), &at.to_be_bytes(), true);
        }
        let large = Arc::new(large);
        for parent in 1..=3 {
            families.keep(family(parent), Arc::clone(&large));
        }
        assert!(families.get(family(1), Revision(0)).is_some());
        families.keep(family(4), Arc::clone(&large));
        let kept: Vec<u64> = (1..=4).filter(|parent| families.get(family(*parent), Revision(0)).is_some()).collect();
        assert_eq!(kept, [1, 4]);
        assert!(families.places <= PLACES_MAX);
    }
}
