//! What has been applied and isn't in SQLite yet, and where readers find the rest.
//!
//! ```text
//!             apply                          writer
//!               |  publish                     |  1. COMMIT   2. into the cache   3. drop
//!               v                              v
//!     +--------------------+        +--------------------+        +----------------+
//!     | overlay (newest)   |  --->  | cache (opened)     |  --->  | SQLite         |
//!     +--------------------+        +--------------------+        +----------------+
//!        a reader looks here first, then here, then here: never the other way round
//! ```
//!
//! Invariants. A row is in the overlay from its publication until SQLite has it, without a gap: so a reader that finds nothing
//! here and looks into SQLite *afterwards* finds it there. What the cache holds is at least as new as what SQLite held when
//! the last row was dropped: readers put a row there only if nothing was dropped since they looked ([`Overlay::drops`]) and
//! nothing newer is here. Chains are in version order.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use moka::sync::Cache;
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::record::Retention;
use zyflow_machine::view::{Stored, is_gone};

use super::config::TablesConfig;
use super::entry::{Change, Row, text_bytes};
use super::hash::HashIds;
use super::past::{Edge, Past, RecentTime};
use super::pinned::PastCache;
use super::pool::Pool;
use super::siblings::{Families, Family, Siblings};
use super::undone::Undone;

/// Bytes of a cached record besides its texts: fields with their revisions, allocations, the cache's own entry.
pub(super) const CACHED_FIXED_BYTES: usize = 768;

/// What lies below the overlay: one database and the cache of it.
pub(crate) struct Base {
    /// For those who ask.
    pub(crate) readers: Pool,
    /// For apply alone, which must not wait for those who ask.
    pub(crate) apply_reader: Pool,
    /// The newest versions that SQLite has, opened.
    pub(crate) cache: Cache<RecordId, Arc<Stored>, HashIds>,
    /// What was read of the past.
    pub(crate) past: PastCache,
    /// What restores have undone.
    pub(crate) undone: Undone,
}

impl Base {
    pub(crate) fn new(config: &TablesConfig, path: &std::path::Path) -> Self {
        let weigh = |_: &RecordId, stored: &Arc<Stored>| {
            u32::try_from(CACHED_FIXED_BYTES + stored.order.len() + text_bytes(stored)).unwrap_or(u32::MAX)
        };
        Self {
            readers: Pool::new(path, config.readers_max),
            apply_reader: Pool::new(path, 1),
            cache: Cache::builder()
                .max_capacity(config.cache_bytes_max)
                .weigher(weigh)
                .build_with_hasher(HashIds::default()),
            past: PastCache::new(config),
            undone: Undone::default(),
        }
    }

    /// The same, above restores.
    pub(crate) fn above(self, undone: Undone) -> Self {
        Self { undone, ..self }
    }
}

/// See the module.
pub(crate) struct Overlay {
    base: Arc<Base>,
    applied: Revision,
    /// Everything up to here is in SQLite.
    flushed: Revision,
    /// As of the newest applied entry.
    retention: Retention,
    chains: HashMap<RecordId, Vec<Arc<Row>>, HashIds>,
    members: HashMap<Family, BTreeSet<RecordId>, HashIds>,
    families: Families,
    drops: u64,
    /// Applied changes with rows that SQLite hasn't got, in order.
    recent: VecDeque<Arc<Change>>,
}

/// What the overlay knows about a record at a revision.
pub(crate) enum Looked {
    /// This is it.
    Found(Arc<Row>),
    /// There is no such record any more.
    Gone,
    /// Ask what lies below; `drops` allows to put the answer into the cache.
    Below { base: Arc<Base>, drops: u64 },
}

/// What the overlay knows about a family at a revision.
pub(crate) enum LookedFamily {
    /// All of it.
    Kept(Arc<Siblings>),
    /// These; what lies below has the others.
    Partly { base: Arc<Base>, rows: Vec<Arc<Row>>, horizon: Revision },
}

/// What the overlay knows about a family at a revision that SQLite has moved on from.
pub(crate) struct KnownPast {
    /// What has the rest.
    pub(crate) base: Arc<Base>,
    /// The newest at or before the revision, of the records that have one here.
    pub(crate) rows: Vec<Arc<Row>>,
    /// The other records that are here, each with the version that the oldest one here replaced.
    pub(crate) replaced: HashMap<RecordId, Option<EventId>, HashIds>,
    /// The places of now.
    pub(crate) newest: Option<Arc<Siblings>>,
    /// What was deleted by then isn't there.
    pub(crate) horizon: Revision,
}

impl Overlay {
    /// Nothing but what lies below, which is the state at `flushed`.
    pub(crate) fn new(base: Base, flushed: Revision, retention: Retention) -> Self {
        Self {
            base: Arc::new(base),
            applied: flushed,
            flushed,
            retention,
            chains: HashMap::default(),
            members: HashMap::default(),
            families: Families::default(),
            drops: 0,
            recent: VecDeque::new(),
        }
    }

    pub(crate) fn applied(&self) -> Revision {
        self.applied
    }

    pub(crate) fn flushed(&self) -> Revision {
        self.flushed
    }

    /// How much of the history is kept, and the oldest revision that can be read.
    pub(crate) fn retention(&self) -> Retention {
        self.retention
    }

    pub(crate) fn base(&self) -> Arc<Base> {
        Arc::clone(&self.base)
    }

    /// Makes an applied entry visible.
    pub(crate) fn publish(&mut self, change: &Arc<Change>) {
        // The first entry of a log has index 0.
        let is_first = self.applied == Revision::default();
        assert!(change.revision > self.applied || is_first, "entries are published in order");
        for row in &change.rows {
            let stored = &row.stored;
            let family = (stored.kind, stored.parent);
            self.families.follow(family, row.id, &stored.order, stored.record.is_some(), change.revision);
            let chain = self.chains.entry(row.id).or_default();
            if chain.is_empty() {
                self.members.entry(family).or_default().insert(row.id);
            }
            chain.push(Arc::clone(row));
        }
        if !change.rows.is_empty() {
            self.recent.push_back(Arc::clone(change));
        }
        self.applied = change.revision;
        if let Some(retention) = change.rows.iter().rev().find_map(|row| row.retention()) {
            if retention.horizon != self.retention.horizon {
                // Deleted records that they hold are gone from here on.
                self.families.clear();
            }
            self.retention = retention;
        }
    }

    /// Everything up to `revision` is in SQLite from now on, though some of it may still be here.
    pub(crate) fn mark_flushed(&mut self, revision: Revision) {
        self.flushed = revision;
        // The writer still holds them, so nothing is freed under the lock.
        while self.recent.front().is_some_and(|change| change.revision <= revision) {
            self.recent.pop_front();
        }
    }

    /// Drops the versions of `ids` up to `revision`, which SQLite and the cache have; they are returned so that memory is
    /// freed outside the lock.
    pub(crate) fn drop_flushed(&mut self, ids: &[RecordId], revision: Revision) -> Vec<Arc<Row>> {
        let mut dropped = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(chain) = self.chains.get_mut(id) else { continue };
            let flushed = chain.partition_point(|row| row.stored.version.revision() <= revision);
            dropped.extend(chain.drain(..flushed));
            if chain.is_empty()
                && let Some(row) = dropped.last()
            {
                self.chains.remove(id);
                let family = (row.stored.kind, row.stored.parent);
                if let Some(members) = self.members.get_mut(&family) {
                    members.remove(id);
                    if members.is_empty() {
                        self.members.remove(&family);
                    }
                }
            }
        }
        self.drops += 1;
        dropped
    }

    /// Begins anew over another database, which is the state at `flushed`.
    pub(crate) fn replace(&mut self, base: Base, flushed: Revision, retention: Retention) {
        let drops = self.drops + 1;
        *self = Self { drops, ..Self::new(base, flushed, retention) };
    }

    /// The newest version at or before `at`.
    pub(crate) fn look(&self, id: RecordId, at: Revision) -> Looked {
        match self.chains.get(&id).and_then(|chain| newest(chain, at)) {
            Some(row) if self.is_gone(row) => Looked::Gone,
            Some(row) => Looked::Found(Arc::clone(row)),
            None => Looked::Below { base: Arc::clone(&self.base), drops: self.drops },
        }
    }

    /// All versions that are here up to `at`, oldest first, and what has the older ones.
    pub(crate) fn look_chain(&self, id: RecordId, at: Revision) -> (Vec<Arc<Row>>, Arc<Base>) {
        let chain = self.chains.get(&id).map_or(&[][..], Vec::as_slice);
        let known = chain.iter().filter(|row| row.stored.version.revision() <= at).cloned().collect();
        (known, Arc::clone(&self.base))
    }

    /// The family at `at`.
    pub(crate) fn look_family(&self, family: Family, at: Revision) -> LookedFamily {
        if let Some(kept) = self.families.get(family, at) {
            return LookedFamily::Kept(kept);
        }
        let (base, rows) = self.look_members(family, at);
        LookedFamily::Partly { base, rows, horizon: self.retention.horizon }
    }

    fn is_gone(&self, row: &Row) -> bool {
        is_gone(row.stored.version, row.stored.record.is_some(), self.retention.horizon)
    }

    /// The rows that are here of a family, each the newest at or before `at`, and what lies below.
    pub(crate) fn look_members(&self, family: Family, at: Revision) -> (Arc<Base>, Vec<Arc<Row>>) {
        let members = self.members.get(&family).into_iter().flatten();
        let rows = members.filter_map(|id| newest(self.chains.get(id)?, at)).cloned().collect();
        (Arc::clone(&self.base), rows)
    }

    /// The family at `at`, and what helps to find the rest of it.
    pub(crate) fn look_past(&self, family: Family, at: Revision) -> KnownPast {
        let (base, rows) = self.look_members(family, at);
        let members = self.members.get(&family).into_iter().flatten();
        let oldest = members.filter_map(|id| Some((*id, self.chains.get(id)?.first()?)));
        let replaced =
            oldest.filter(|(_, row)| row.stored.version.revision() > at).map(|(id, row)| (id, row.previous)).collect();
        let newest = self.families.newest(family);
        KnownPast { base, rows, replaced, newest, horizon: self.retention.horizon }
    }

    /// Where the recent changes begin and end.
    pub(crate) fn edge(&self) -> Edge {
        Edge { base: Arc::clone(&self.base), flushed: self.flushed, applied: self.applied, retention: self.retention }
    }

    /// What was applied from `from` on, about `rows_max` rows, if all of that is recent.
    pub(crate) fn recent_from(&self, from: Revision, rows_max: usize) -> Option<Past> {
        if from <= self.flushed && from <= self.applied {
            return None;
        }
        let first = self.recent.partition_point(|change| change.revision < from);
        let mut past = Past { changes: Vec::new(), reached: self.applied };
        let mut rows = 0;
        for change in self.recent.range(first..) {
            if rows > 0 && rows + change.rows.len() > rows_max {
                past.reached = past.changes.last().map_or(self.flushed, |change| change.revision);
                break;
            }
            rows += change.rows.len();
            past.changes.push(Arc::clone(change));
        }
        Some(past)
    }

    /// The recent changes up to `to`, newest first.
    pub(crate) fn recent_before(&self, to: Revision) -> Vec<Arc<Change>> {
        let after = self.recent.partition_point(|change| change.revision <= to);
        self.recent.range(..after).rev().cloned().collect()
    }

    /// What the recent changes say about a time.
    pub(crate) fn recent_times(&self, time: ClusterTime) -> RecentTime {
        let later = self.recent.partition_point(|change| time_of(change) <= Some(time));
        let first_later = self.recent.get(later).and_then(|change| Some((change.revision, time_of(change)?)));
        match (later, first_later) {
            (0, Some((first, at))) => RecentTime::Before(first, at),
            (0, None) => RecentTime::None,
            (_, Some((first, _))) => RecentTime::Within(Revision(first.0 - 1)),
            (_, None) => RecentTime::Within(self.applied),
        }
    }

    /// The time of the newest recent event at or before `revision`.
    pub(crate) fn recent_time_at(&self, revision: Revision) -> Option<ClusterTime> {
        let after = self.recent.partition_point(|change| change.revision <= revision);
        time_of(self.recent.get(after.checked_sub(1)?)?)
    }

    /// May what was read below go into the cache? Only if it is certainly the newest that SQLite has.
    pub(crate) fn may_cache(&self, id: RecordId, drops: u64) -> bool {
        self.drops == drops && !self.chains.contains_key(&id)
    }

    /// Keeps a family that was read at `at` from `base`, if it is certainly unchanged since.
    pub(crate) fn keep_family(
        &mut self,
        family: Family,
        siblings: &Arc<Siblings>,
        at: Revision,
        (base, horizon): (&Arc<Base>, Revision),
    ) {
        // A later change would be here still (nothing past `at` was dropped), as a member with a later version.
        let is_same_base = Arc::ptr_eq(base, &self.base) && self.retention.horizon == horizon;
        let is_later = |id: &RecordId| {
            self.chains.get(id).and_then(|chain| chain.last()).is_some_and(|row| row.stored.version.revision() > at)
        };
        let is_changed = self.members.get(&family).is_some_and(|members| members.iter().any(is_later));
        if is_same_base && self.flushed <= at && !is_changed {
            self.families.keep(family, Arc::clone(siblings));
        }
    }
}

/// All events of a revision have one time.
fn time_of(change: &Change) -> Option<ClusterTime> {
    change.rows.first().map(|row| row.provenance.time)
}

fn newest(chain: &[Arc<Row>], at: Revision) -> Option<&Arc<Row>> {
    chain.iter().rev().find(|row| row.stored.version.revision() <= at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_crypto::Lineage;
    use zyflow_machine::command::{Author, TaskField};
    use zyflow_machine::event::{Fact, Provenance};
    use zyflow_machine::record::Kind;

    const FAMILY: Family = (Kind::Block, RecordId::ROOT);

    fn id() -> RecordId {
        RecordId(EventId::new(Revision(1), 0).unwrap())
    }

    fn overlay() -> Overlay {
        let config = TablesConfig::new("nowhere".into(), Lineage([0; 16]));
        Overlay::new(Base::new(&config, "nowhere".as_ref()), Revision(0), Retention::default())
    }

    /// One version of the one record.
    fn change(revision: u64) -> Arc<Change> {
        let version = EventId::new(Revision(revision), 0).unwrap();
        let stored = Stored { version, kind: FAMILY.0, parent: FAMILY.1, order: vec![1], record: None };
        let fact = Fact::TaskSet { fields: vec![TaskField::Note(String::new())], mark: None };
        let provenance = Provenance { author: Author::default(), time: ClusterTime(0), request: None };
        let row = Row { id: id(), stored: Arc::new(stored), previous: None, fact, provenance: Arc::new(provenance) };
        Arc::new(Change { revision: Revision(revision), rows: vec![Arc::new(row)] })
    }

    fn drops(overlay: &Overlay, at: u64) -> Option<u64> {
        match overlay.look(id(), Revision(at)) {
            Looked::Found(_) | Looked::Gone => None,
            Looked::Below { drops, .. } => Some(drops),
        }
    }

    #[test]
    fn what_was_read_below_is_cached_only_if_nothing_newer_can_be_there() {
        let mut overlay = overlay();
        let before = drops(&overlay, 9).unwrap();
        assert!(overlay.may_cache(id(), before));
        overlay.publish(&change(1));
        assert!(!overlay.may_cache(id(), before), "a newer version is here");
        overlay.mark_flushed(Revision(1));
        assert_eq!(overlay.drop_flushed(&[id()], Revision(1)).len(), 1);
        assert!(!overlay.may_cache(id(), before), "a newer version was here meanwhile");
        assert!(overlay.may_cache(id(), drops(&overlay, 9).unwrap()));
    }

    #[test]
    fn only_what_is_written_is_dropped_and_each_revision_sees_its_own() {
        let mut overlay = overlay();
        for revision in 1..=3 {
            overlay.publish(&change(revision));
        }
        assert!(drops(&overlay, 0).is_some());
        overlay.mark_flushed(Revision(2));
        assert_eq!(overlay.drop_flushed(&[id()], Revision(2)).len(), 2);
        assert!(drops(&overlay, 2).is_some(), "that is in SQLite");
        assert!(drops(&overlay, 3).is_none());
        overlay.drop_flushed(&[id()], Revision(3));
        assert!(overlay.chains.is_empty() && overlay.members.is_empty());
    }

    #[test]
    fn a_family_is_kept_only_if_it_is_certainly_that_of_the_newest_revision() {
        let is_kept = |overlay: &mut Overlay, at: u64| {
            let base = overlay.base();
            overlay.keep_family(FAMILY, &Arc::new(Siblings::new(Revision(at))), Revision(at), (&base, Revision(0)));
            matches!(overlay.look_family(FAMILY, Revision(9)), LookedFamily::Kept(_))
        };
        let mut overlay = overlay();
        overlay.publish(&change(5));
        assert!(!is_kept(&mut overlay, 4), "it changed later");
        overlay.mark_flushed(Revision(5));
        overlay.drop_flushed(&[id()], Revision(5));
        assert!(!is_kept(&mut overlay, 4), "it may have changed later, nobody knows any more");
        let other = overlay.base();
        overlay.replace(
            Base::new(&TablesConfig::new("other".into(), Lineage([0; 16])), "other".as_ref()),
            Revision(5),
            Retention::default(),
        );
        overlay.keep_family(FAMILY, &Arc::new(Siblings::new(Revision(5))), Revision(5), (&other, Revision(0)));
        assert!(matches!(overlay.look_family(FAMILY, Revision(9)), LookedFamily::Partly { .. }), "of another database");
        assert!(is_kept(&mut overlay, 5));
    }
}
