//! The state at one revision, read from the overlay, the cache and SQLite, in this order (see `overlay.rs` for why).
//!
//! A view costs nothing to hold: it pins a number, not a transaction. What it answers doesn't change while entries are applied
//! and written, because versions are never changed and every answer is the newest one at or before the number. Versions may be deleted
//! behind the horizon while they are read, so a reader looks at the horizon again when it has read.

use std::collections::BTreeSet;
use std::sync::Arc;

use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Kind;
use zyflow_machine::view::{Changed, Stored, View, is_gone};

use super::codec::Codec;
use super::error::TablesError;
use super::overlay::{Base, Looked, LookedFamily};
use super::pool::Pool;
use super::read::{self, Head, SealedVersion};
use super::shared::Shared;
use super::siblings::{Family, Siblings};

/// Whose reads they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Those of apply, which holds the applier and has a connection of its own.
    Apply,
    /// Everybody else's.
    Query,
}

/// The state at one revision.
#[derive(Clone)]
pub struct TablesView {
    shared: Arc<Shared>,
    at: Revision,
    lane: Lane,
}

impl std::fmt::Debug for TablesView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TablesView").field("at", &self.at).finish_non_exhaustive()
    }
}

impl TablesView {
    /// The newest state.
    pub(crate) fn newest(shared: &Arc<Shared>, lane: Lane) -> Result<Self, TablesError> {
        let at = shared.overlay()?.applied();
        Ok(Self { shared: Arc::clone(shared), at, lane })
    }

    /// The state at `at`.
    pub(crate) fn pinned(shared: &Arc<Shared>, at: Revision) -> Result<Self, TablesError> {
        let (applied, horizon, base) = {
            let overlay = shared.overlay()?;
            (overlay.applied(), overlay.retention().horizon, overlay.base())
        };
        if at > applied {
            return Err(TablesError::Future { revision: at, applied });
        }
        refuse_compacted(at, horizon)?;
        base.undone.refuse(at)?;
        Ok(Self { shared: Arc::clone(shared), at, lane: Lane::Query })
    }

    /// The revision that it shows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.at
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// A version, the newest at or before `at`, which isn't after the view's own revision.
    fn version_at(&self, id: RecordId, at: Revision) -> Result<Option<Arc<Stored>>, TablesError> {
        if id.0.revision() > at {
            return Ok(None);
        }
        let (looked, horizon) = {
            let overlay = self.shared.overlay()?;
            (overlay.look(id, at), overlay.retention().horizon)
        };
        refuse_compacted(at, horizon)?;
        let (base, drops) = match looked {
            Looked::Found(row) => return Ok(Some(Arc::clone(&row.stored))),
            Looked::Gone => return Ok(None),
            Looked::Below { base, drops } => (base, drops),
        };
        let found = self.version_below(id, at, &base, drops)?;
        self.refuse_compacted_since(at)?;
        Ok(found.filter(|stored| !is_gone(stored.version, stored.record.is_some(), horizon)))
    }

    /// The same from the cache and SQLite.
    fn version_below(
        &self,
        id: RecordId,
        at: Revision,
        base: &Base,
        drops: u64,
    ) -> Result<Option<Arc<Stored>>, TablesError> {
        let cached = base.cache.get(&id);
        if let Some(stored) = cached.as_ref().filter(|stored| stored.version.revision() <= at) {
            return Ok(Some(Arc::clone(stored)));
        }
        let connection = self.pool(base).lease()?;
        if cached.is_none() {
            let Some(newest) = read::newest(&connection, id)? else { return Ok(None) };
            if newest.version.revision() <= at {
                let stored = self.open(id, &newest)?;
                let overlay = self.shared.overlay()?;
                if overlay.may_cache(id, drops) {
                    base.cache.insert(id, Arc::clone(&stored));
                }
                return Ok(Some(stored));
            }
        }
        read::at(&connection, id, at)?.map(|sealed| self.open(id, &sealed)).transpose()
    }

    /// The places of a family at the view's revision.
    pub(crate) fn siblings(&self, family: Family) -> Result<Arc<Siblings>, TablesError> {
        let looked = self.shared.overlay()?.look_family(family, self.at);
        let (base, rows, horizon) = match looked {
            LookedFamily::Kept(siblings) => return Ok(siblings),
            LookedFamily::Partly { base, rows, horizon } => (base, rows, horizon),
        };
        if let Some(pinned) = self.pinned_family(family)? {
            return Ok(pinned.siblings());
        }
        refuse_compacted(self.at, horizon)?;
        let mut siblings = Siblings::new(self.at);
        let heads = {
            let connection = self.pool(&base).lease()?;
            read::family(&connection, family.0, family.1)?
        };
        for head in heads.iter().filter(|head| !is_gone(head.version, head.is_live, horizon)) {
            self.place(family.0, head, &mut siblings)?;
        }
        for row in rows {
            let is_live = row.stored.record.is_some();
            if is_gone(row.stored.version, is_live, horizon) {
                // SQLite may not have heard of the deletion.
                siblings.remove(row.id);
            } else {
                siblings.set(row.id, &row.stored.order, is_live);
            }
        }
        self.refuse_compacted_since(self.at)?;
        let siblings = Arc::new(siblings);
        self.shared.overlay_mut()?.keep_family(family, &siblings, self.at, (&base, horizon));
        Ok(siblings)
    }

    /// Puts what SQLite knows of a record to its place at the view's revision.
    fn place(&self, kind: Kind, head: &Head, siblings: &mut Siblings) -> Result<(), TablesError> {
        let is_now = head.version.revision() <= self.at;
        if is_now && Codec::keeps_order(kind) {
            siblings.set(head.id, &head.place, head.is_live);
        } else if let Some(stored) = self.version_at(head.id, self.at)? {
            siblings.set(head.id, &stored.order, stored.record.is_some());
        }
        Ok(())
    }

    /// The records of a family that changed after `since`, with what they were then.
    fn changed_since(&self, family: Family, since: Revision) -> Result<Vec<Changed>, TablesError> {
        let (base, rows, horizon) = {
            let overlay = self.shared.overlay()?;
            let (base, rows) = overlay.look_members(family, self.at);
            (base, rows, overlay.retention().horizon)
        };
        refuse_compacted(since, horizon)?;
        let (mut ids, mut past) = {
            let connection = self.pool(&base).lease()?;
            // The ids first: who changes in between was in the overlay before.
            let ids: BTreeSet<RecordId> = read::changed(&connection, family.0, family.1, since)?.into_iter().collect();
            (ids, read::past(&connection, family.0, family.1, since)?)
        };
        ids.extend(rows.iter().filter(|row| row.stored.version.revision() > since).map(|row| row.id));
        let mut changed = Vec::with_capacity(ids.len());
        for id in ids {
            let now = self.version_at(id, self.at)?.filter(|now| now.version.revision() > since);
            let Some(now) = now else { continue };
            let then = match past.remove(&id) {
                Some(sealed) => Some(self.open(id, &sealed)?),
                None => self.version_at(id, since)?,
            };
            let then = then.filter(|then| !is_gone(then.version, then.record.is_some(), horizon));
            changed.push(Changed { id, now, then });
        }
        self.refuse_compacted_since(since)?;
        Ok(changed)
    }

    /// The live record of that place, where the order of a kind never changes, without reading its siblings.
    fn find_placed(&self, kind: Kind, parent: RecordId, order: &[u8]) -> Result<Option<RecordId>, TablesError> {
        let looked = self.shared.overlay()?.look_family((kind, parent), self.at);
        let (base, rows, horizon) = match looked {
            LookedFamily::Kept(siblings) => return Ok(siblings.find(order)),
            LookedFamily::Partly { base, rows, horizon } => (base, rows, horizon),
        };
        refuse_compacted(self.at, horizon)?;
        let is_it = |stored: &Stored| stored.order == order && stored.record.is_some();
        let here = rows.iter().filter(|row| is_it(&row.stored)).map(|row| row.id).min();
        let place = self.shared.codec.place(kind, parent, order);
        let placed = {
            let connection = self.pool(&base).lease()?;
            read::placed(&connection, kind, parent, &place)?
        };
        let mut found = here;
        for id in placed.into_iter().take_while(|id| here.is_none_or(|here| *id < here)) {
            if self.version_at(id, self.at)?.is_some_and(|stored| is_it(&stored)) {
                found = Some(id);
                break;
            }
        }
        self.refuse_compacted_since(self.at)?;
        Ok(found)
    }

    pub(super) fn open(&self, id: RecordId, sealed: &SealedVersion) -> Result<Arc<Stored>, TablesError> {
        let body = self.shared.codec.open_body(sealed.version, id, sealed.previous, &sealed.body)?;
        Ok(Arc::new(body.stored(sealed.version)?))
    }

    pub(crate) fn pool<'b>(&self, base: &'b Base) -> &'b Pool {
        match self.lane {
            Lane::Apply => &base.apply_reader,
            Lane::Query => &base.readers,
        }
    }

    /// What was read at a revision holds only if the horizon hasn't passed it meanwhile.
    pub(crate) fn refuse_compacted_since(&self, at: Revision) -> Result<(), TablesError> {
        refuse_compacted(at, self.shared.overlay()?.retention().horizon)
    }

    /// Apply latches its errors itself, once it has let go of the applier.
    pub(crate) fn settle<T>(&self, result: Result<T, TablesError>) -> Result<T, TablesError> {
        match self.lane {
            Lane::Apply => result,
            Lane::Query => self.shared.settle(result),
        }
    }
}

/// May the order of a record of that kind change while it lives? Whoever makes the first fact that renames a project or a
/// point answers yes here, and writes the order in `flush.rs`.
fn may_move(kind: Kind) -> bool {
    match kind {
        Kind::Block | Kind::Change => true,
        Kind::Project | Kind::Conflict | Kind::Comment | Kind::Point | Kind::Retention | Kind::Restore => false,
    }
}

pub(super) fn refuse_compacted(revision: Revision, horizon: Revision) -> Result<(), TablesError> {
    if revision < horizon {
        return Err(TablesError::Compacted { revision, horizon });
    }
    Ok(())
}

impl View for TablesView {
    type Error = TablesError;

    fn get(&self, id: RecordId) -> Result<Option<Arc<Stored>>, TablesError> {
        self.settle(self.version_at(id, self.at))
    }

    fn get_at(&self, id: RecordId, revision: Revision) -> Result<Option<Arc<Stored>>, TablesError> {
        self.settle(self.version_at(id, revision.min(self.at)))
    }

    fn changed(&self, kind: Kind, parent: RecordId, revision: Revision) -> Result<Vec<Changed>, TablesError> {
        self.settle(self.changed_since((kind, parent), revision))
    }

    fn find(&self, kind: Kind, parent: RecordId, order: &[u8]) -> Result<Option<RecordId>, TablesError> {
        self.settle(if may_move(kind) {
            self.siblings((kind, parent)).map(|siblings| siblings.find(order))
        } else {
            self.find_placed(kind, parent, order)
        })
    }

    fn next(
        &self,
        kind: Kind,
        parent: RecordId,
        after: Option<&[u8]>,
    ) -> Result<Option<(Vec<u8>, RecordId)>, TablesError> {
        self.settle(self.siblings((kind, parent)).map(|siblings| siblings.next(after)))
    }

    fn children(&self, kind: Kind, parent: RecordId) -> Result<Vec<(Vec<u8>, RecordId)>, TablesError> {
        let siblings = self.settle(self.siblings((kind, parent)))?;
        Ok(siblings.live().map(|(order, id)| (order.to_vec(), id)).collect())
    }
}
