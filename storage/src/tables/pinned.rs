//! Families as they were: what a list of the past reads, read at once and kept for a while.
//!
//! ```text
//!   heads of the family --+-- not after the revision: that is the version
//!                         +-- later: its chain back, those of the whole family in one statement
//!   version --> cache of the newest --> cache of past versions --> SQLite, one row by its key, opened
//!                       |  replaced here               ^
//!                       +------------------------------+
//! ```
//!
//! A version never changes, so what is kept by its version is never stale; and a family at a revision never changes either. What may end is
//! that they can be read at all: the horizon moves on. So it is looked at after everything was read, and each time something kept is given
//! out: below it there is no answer, whatever is still in memory.
//!
//! Deliberately not here: the newest state, and every revision that SQLite hasn't moved on from. There the overlay and the cache of
//! the newest answer as fast, see `view.rs`. Memory is bounded by [`TablesConfig`]; a family that is larger than all that may be kept is
//! read each time.

use std::collections::HashMap;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use rusqlite::Connection;
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::view::{Stored, is_gone};

use super::codec::Codec;
use super::config::TablesConfig;
use super::entry::{Row, text_bytes};
use super::error::TablesError;
use super::hash::HashIds;
use super::overlay::{Base, CACHED_FIXED_BYTES};
use super::query::Found;
use super::read;
use super::siblings::{Family, PLACE_BYTES, Siblings};
use super::view::{TablesView, refuse_compacted};

/// What was read of the past of one database.
pub(crate) struct PastCache {
    /// Versions, opened; mostly such as aren't the newest any more.
    versions: Cache<EventId, Arc<Stored>, HashIds>,
    families: Cache<Key, Arc<PinnedFamily>, HashIds>,
}

/// A family at a revision; what was deleted by the horizon, the last of these, isn't in it.
type Key = (Family, Revision, Revision);

/// A family at a revision.
pub(crate) struct PinnedFamily {
    siblings: Arc<Siblings>,
    /// Those that live, in order.
    live: Vec<Found>,
}

/// What is known about a family at a revision before SQLite is asked.
enum LookedPast {
    /// SQLite hasn't moved on from that revision.
    Recent,
    /// All of it.
    Kept(Arc<PinnedFamily>),
    /// These; SQLite has the others.
    Partly { base: Arc<Base>, rows: Vec<Arc<Row>>, horizon: Revision },
}

impl PastCache {
    pub(crate) fn new(config: &TablesConfig) -> Self {
        let weigh_version = |_: &EventId, stored: &Arc<Stored>| to_weight(bytes_of(stored));
        let weigh_family = |_: &Key, family: &Arc<PinnedFamily>| to_weight(family.bytes());
        Self {
            versions: Cache::builder()
                .max_capacity(config.past_versions_bytes_max)
                .weigher(weigh_version)
                .build_with_hasher(HashIds::default()),
            // Whoever looks at a revision looks at it some times and then never again: how often says nothing.
            families: Cache::builder()
                .max_capacity(config.past_families_bytes_max)
                .weigher(weigh_family)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(HashIds::default()),
        }
    }

    /// Keeps a version that was the newest until now.
    pub(crate) fn keep(&self, replaced: &Arc<Stored>) {
        self.versions.insert(replaced.version, Arc::clone(replaced));
    }
}

fn bytes_of(stored: &Stored) -> usize {
    CACHED_FIXED_BYTES + stored.order.len() + text_bytes(stored)
}

fn to_weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl PinnedFamily {
    /// Those that live, in order.
    pub(crate) fn live(&self) -> &[Found] {
        &self.live
    }

    pub(crate) fn siblings(&self) -> Arc<Siblings> {
        Arc::clone(&self.siblings)
    }

    /// Records that other revisions have too are counted in each.
    fn bytes(&self) -> usize {
        let live: usize = self.live.iter().map(|(_, stored)| bytes_of(stored)).sum();
        live + self.siblings.len() * PLACE_BYTES
    }
}

impl TablesView {
    /// The family as it was; `None` = SQLite hasn't moved on from the view's revision, so the overlay and the cache of the newest
    /// answer as fast.
    pub(crate) fn pinned_family(&self, family: Family) -> Result<Option<Arc<PinnedFamily>>, TablesError> {
        match self.look_past(family)? {
            LookedPast::Recent => Ok(None),
            LookedPast::Kept(pinned) => Ok(Some(pinned)),
            LookedPast::Partly { base, rows, horizon } => self.read_past(family, (&base, horizon), rows).map(Some),
        }
    }

    fn look_past(&self, family: Family) -> Result<LookedPast, TablesError> {
        let at = self.revision();
        let (base, horizon) = {
            let overlay = self.shared().overlay()?;
            if overlay.flushed() <= at {
                return Ok(LookedPast::Recent);
            }
            (overlay.base(), overlay.retention().horizon)
        };
        refuse_compacted(at, horizon)?;
        if let Some(kept) = base.past.families.get(&(family, at, horizon)) {
            return Ok(LookedPast::Kept(kept));
        }
        // Before SQLite is asked: what is written meanwhile is in both, and never in none.
        let (base, rows) = self.shared().overlay()?.look_members(family, at);
        Ok(LookedPast::Partly { base, rows, horizon })
    }

    fn read_past(
        &self,
        family: Family,
        (base, horizon): (&Base, Revision),
        rows: Vec<Arc<Row>>,
    ) -> Result<Arc<PinnedFamily>, TablesError> {
        let at = self.revision();
        let pinned = self.family_of(family, (base, horizon), rows);
        // What lies below the horizon may have been half removed while it was read: then neither rows nor errors mean anything.
        self.refuse_compacted_since(at)?;
        let pinned = Arc::new(pinned?);
        base.past.families.insert((family, at, horizon), Arc::clone(&pinned));
        Ok(pinned)
    }

    fn family_of(
        &self,
        (kind, parent): Family,
        (base, horizon): (&Base, Revision),
        rows: Vec<Arc<Row>>,
    ) -> Result<PinnedFamily, TablesError> {
        let at = self.revision();
        let mut siblings = Siblings::new(at);
        let mut found: HashMap<RecordId, Arc<Stored>, HashIds> =
            rows.into_iter().map(|row| (row.id, Arc::clone(&row.stored))).collect();
        let connection = self.pool(base).lease()?;
        // The heads first: who changes in between has the same version at the revision afterwards, one step further down.
        let heads = read::family(&connection, kind, parent)?;
        let past = read::past_versions(&connection, kind, parent, at)?;
        for head in heads.iter().filter(|head| !is_gone(head.version, head.is_live, horizon)) {
            if found.contains_key(&head.id) {
                continue;
            }
            let is_newest = head.version.revision() <= at;
            if is_newest && !head.is_live && Codec::keeps_order(kind) {
                siblings.set(head.id, &head.place, false);
                continue;
            }
            let version = if is_newest { Some(head.version) } else { past.get(&head.id).copied() };
            // Without one it was made later.
            let Some(version) = version else { continue };
            found.insert(head.id, self.opened(&connection, base, head.id, version)?);
        }
        drop(connection);
        found.retain(|_, stored| !is_gone(stored.version, stored.record.is_some(), horizon));
        for (id, stored) in &found {
            siblings.set(*id, &stored.order, stored.record.is_some());
        }
        let live = siblings.live().filter_map(|(_, id)| found.get(&id).map(|stored| (id, Arc::clone(stored))));
        Ok(PinnedFamily { live: live.collect(), siblings: Arc::new(siblings) })
    }

    /// A version that SQLite has.
    fn opened(
        &self,
        connection: &Connection,
        base: &Base,
        id: RecordId,
        version: EventId,
    ) -> Result<Arc<Stored>, TablesError> {
        if let Some(newest) = base.cache.get(&id).filter(|newest| newest.version == version) {
            return Ok(newest);
        }
        if let Some(kept) = base.past.versions.get(&version) {
            return Ok(kept);
        }
        let missing = || TablesError::damaged(format!("version {version} of {id} is missing"));
        let sealed = read::version(connection, version)?.ok_or_else(missing)?;
        let stored = self.open(id, &sealed)?;
        base.past.versions.insert(version, Arc::clone(&stored));
        Ok(stored)
    }
}

#[cfg(test)]
mod tests;
