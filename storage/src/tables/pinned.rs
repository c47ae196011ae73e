//! Families as they were: what a list of the past reads, read at once and kept for a while.
//!
//! ```text
//!   family of now, in memory --+-- not after the revision: that is the version
//!   (else its heads in SQLite) +-- later: its chain back, by the links (else those of the whole family in one statement)
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
use std::sync::{Arc, RwLock};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use rusqlite::Connection;
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::view::{Stored, is_gone};

use super::codec::Codec;
use super::config::TablesConfig;
use super::entry::text_bytes;
use super::error::TablesError;
use super::hash::HashIds;
use super::links::{Links, Walked};
use super::overlay::{Base, CACHED_FIXED_BYTES, KnownPast};
use super::pool::Lease;
use super::query::Found;
use super::read;
use super::siblings::{Family, PLACE_BYTES, Siblings};
use super::view::{TablesView, refuse_compacted};

/// A family of which more than this part isn't in memory is read from SQLite as a whole: record by record it would take longer.
const UNKNOWN_PART: usize = 16;

/// What was read of the past of one database.
pub(crate) struct PastCache {
    /// Versions, opened; mostly such as aren't the newest any more.
    versions: Cache<EventId, Arc<Stored>, HashIds>,
    /// What the newest ones replaced, in the order of the writer, which alone adds to them.
    pub(crate) links: RwLock<Links>,
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
    /// Some of it.
    Partly(KnownPast),
}

/// A family as it was, while it is put together.
struct Then {
    siblings: Siblings,
    found: HashMap<RecordId, Arc<Stored>, HashIds>,
}

/// Where versions are read: in memory, and only if need be from SQLite.
struct Reading<'a> {
    view: &'a TablesView,
    base: &'a Base,
    connection: Option<Lease<'a>>,
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
            links: RwLock::new(Links::new(config.past_links_max)),
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
            LookedPast::Partly(known) => self.read_past(family, &known).map(Some),
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
        Ok(LookedPast::Partly(self.shared().overlay()?.look_past(family, at)))
    }

    fn read_past(&self, family: Family, known: &KnownPast) -> Result<Arc<PinnedFamily>, TablesError> {
        let at = self.revision();
        let pinned = self.family_of(family, known);
        // What lies below the horizon may have been half removed while it was read: then neither rows nor errors mean anything.
        self.refuse_compacted_since(at)?;
        let pinned = Arc::new(pinned?);
        known.base.past.families.insert((family, at, known.horizon), Arc::clone(&pinned));
        Ok(pinned)
    }

    fn family_of(&self, family: Family, known: &KnownPast) -> Result<PinnedFamily, TablesError> {
        let mut reading = Reading { view: self, base: &known.base, connection: None };
        let then = match reading.remembered(known)? {
            Some(then) => then,
            None => reading.read(family, known)?,
        };
        let live = then.siblings.live().filter_map(|(_, id)| Some((id, Arc::clone(then.found.get(&id)?))));
        Ok(PinnedFamily { live: live.collect(), siblings: Arc::new(then.siblings) })
    }
}

impl Then {
    fn new(siblings: Siblings, known: &KnownPast) -> Self {
        let found = known.rows.iter().map(|row| (row.id, Arc::clone(&row.stored))).collect();
        Self { siblings, found }
    }

    /// Puts what was found to its place.
    fn place(mut self, horizon: Revision) -> Self {
        self.found.retain(|id, stored| {
            let is_live = stored.record.is_some();
            if is_gone(stored.version, is_live, horizon) {
                self.siblings.remove(*id);
                return false;
            }
            if !self.siblings.has(*id, &stored.order, is_live) {
                self.siblings.set(*id, &stored.order, is_live);
            }
            true
        });
        self
    }
}

impl Reading<'_> {
    /// The family from what it is now, each record as many versions back as it takes; `None` = too little of that is in memory.
    fn remembered(&mut self, known: &KnownPast) -> Result<Option<Then>, TablesError> {
        let Some(newest) = &known.newest else { return Ok(None) };
        let at = self.view.revision();
        let mut then = Then::new(newest.at(at), known);
        let (mut changed, mut unknown) = (Vec::new(), Vec::new());
        for (_, id, _) in newest.all() {
            if then.found.contains_key(&id) {
                continue;
            }
            match known.replaced.get(&id) {
                Some(Some(version)) => changed.push((id, *version)),
                Some(None) => then.siblings.remove(id),
                // Whatever is newer by now, its chain leads back to what was asked for.
                None => match self.base.cache.get(&id) {
                    Some(stored) if stored.version.revision() <= at => drop(then.found.insert(id, stored)),
                    Some(stored) => changed.push((id, stored.version)),
                    None => unknown.push(id),
                },
            }
        }
        let links = self.base.past.links.read().map_err(|_| TablesError::Poisoned)?;
        let mut versions = Vec::with_capacity(changed.len());
        for (id, newer) in changed {
            match links.walk(newer, at) {
                Walked::To(version) => versions.push((id, version)),
                Walked::Before => then.siblings.remove(id),
                Walked::Off => unknown.push(id),
            }
        }
        drop(links);
        if unknown.len() > newest.len() / UNKNOWN_PART {
            return Ok(None);
        }
        for (id, version) in versions {
            self.find(id, version, &mut then)?;
        }
        for id in unknown {
            match read::at(self.connection()?, id, at)? {
                Some(sealed) => drop(then.found.insert(id, self.view.open(id, &sealed)?)),
                None => then.siblings.remove(id),
            }
        }
        Ok(Some(then.place(known.horizon)))
    }

    /// The family from the heads of its records and their chains.
    fn read(&mut self, (kind, parent): Family, known: &KnownPast) -> Result<Then, TablesError> {
        let at = self.view.revision();
        let mut then = Then::new(Siblings::new(at), known);
        // The heads first: who changes in between has the same version at the revision afterwards, one step further down.
        let heads = read::family(self.connection()?, kind, parent)?;
        let past = read::past_versions(self.connection()?, kind, parent, at)?;
        for head in heads.iter().filter(|head| !is_gone(head.version, head.is_live, known.horizon)) {
            if then.found.contains_key(&head.id) {
                continue;
            }
            let is_newest = head.version.revision() <= at;
            if is_newest && !head.is_live && Codec::keeps_order(kind) {
                then.siblings.set(head.id, &head.place, false);
                continue;
            }
            let version = if is_newest { Some(head.version) } else { past.get(&head.id).copied() };
            // Without one it was made later.
            let Some(version) = version else { continue };
            self.find(head.id, version, &mut then)?;
        }
        Ok(then.place(known.horizon))
    }

    /// Adds a version that SQLite has; or had, if it is a deletion that the history has let go of meanwhile.
    fn find(&mut self, id: RecordId, version: EventId, then: &mut Then) -> Result<(), TablesError> {
        match self.opened(id, version)? {
            Some(stored) => drop(then.found.insert(id, stored)),
            None if version.revision() <= self.view.shared().overlay()?.retention().horizon => then.siblings.remove(id),
            None => return Err(TablesError::damaged(format!("version {version} of {id} is missing"))),
        }
        Ok(())
    }

    fn opened(&mut self, id: RecordId, version: EventId) -> Result<Option<Arc<Stored>>, TablesError> {
        if let Some(newest) = self.base.cache.get(&id).filter(|newest| newest.version == version) {
            return Ok(Some(newest));
        }
        if let Some(kept) = self.base.past.versions.get(&version) {
            return Ok(Some(kept));
        }
        let Some(sealed) = read::version(self.connection()?, version)? else { return Ok(None) };
        let stored = self.view.open(id, &sealed)?;
        self.base.past.versions.insert(version, Arc::clone(&stored));
        Ok(Some(stored))
    }

    /// The connection, leased when it is first needed.
    fn connection(&mut self) -> Result<&Connection, TablesError> {
        let lease = match self.connection.take() {
            Some(lease) => lease,
            None => self.view.pool(self.base).lease()?,
        };
        Ok(self.connection.insert(lease))
    }
}

#[cfg(test)]
mod tests;
