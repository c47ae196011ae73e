//! What a record was, and all that is in a change: versions newest first, from numbers, each opened only when it is asked for.
//!
//! ```text
//!   overlay: rows that SQLite may not have --+
//!   SQLite: numbers by the chains, no bodies +--> numbers, newest first --> behind the horizon: the newest of each --> open, give, ...
//! ```
//!
//! Of what is behind the horizon a record has only its newest version, whether or not the rest is deleted yet; and that only if it lives.
//! Deliberately not here: whether the revision may still be read. Whoever walks looks at the horizon again afterwards.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::Connection;
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::record::Kind;
use zyflow_machine::view::is_gone;

use super::Version;
use crate::tables::entry::Row;
use crate::tables::error::TablesError;
use crate::tables::overlay::Base;
use crate::tables::read;
use crate::tables::view::TablesView;

/// The versions of a record, or of one and of those that belong to it, before SQLite is asked.
pub(super) struct History<'v> {
    view: &'v TablesView,
    record: RecordId,
    /// The kinds of the records that belong to it and count too.
    kinds: &'v [Kind],
    /// Versions that SQLite may not have yet.
    here: BTreeMap<EventId, Arc<Row>>,
    base: Arc<Base>,
    horizon: Revision,
}

impl<'v> History<'v> {
    /// Looks into the overlay, which must be done before SQLite is asked: what is written meanwhile is in both, and never in none.
    pub(super) fn begin(view: &'v TablesView, record: RecordId, kinds: &'v [Kind]) -> Result<Self, TablesError> {
        let at = view.revision();
        let overlay = view.shared().overlay()?;
        let (mut rows, base) = overlay.look_chain(record, at);
        for kind in kinds {
            let (_, members) = overlay.look_members((*kind, record), at);
            for member in members {
                rows.extend(overlay.look_chain(member.id, at).0);
            }
        }
        let horizon = overlay.retention().horizon;
        let here = rows.into_iter().map(|row| (row.stored.version, row)).collect();
        Ok(Self { view, record, kinds, here, base, horizon })
    }

    /// Gives `take` those before `before`, newest first, until it answers `false`.
    pub(super) fn walk(
        &self,
        before: Option<EventId>,
        mut take: impl FnMut(Version) -> bool,
    ) -> Result<(), TablesError> {
        let connection = self.view.pool(&self.base).lease()?;
        for (version, id) in self.numbers(&connection)? {
            if before.is_some_and(|before| version >= before) {
                continue;
            }
            let Some(opened) = self.opened(&connection, version, id)? else { continue };
            let is_gone = is_gone(version, opened.stored.record.is_some(), self.horizon);
            if !is_gone && !take(opened) {
                break;
            }
        }
        Ok(())
    }

    /// All of them, newest first; of what is behind the horizon the newest of each record.
    fn numbers(&self, connection: &Connection) -> Result<Vec<(EventId, RecordId)>, TablesError> {
        let at = self.view.revision();
        let mut numbers = read::record_versions(connection, self.record, at)?;
        for kind in self.kinds {
            numbers.extend(read::family_versions(connection, *kind, self.record, at)?);
        }
        numbers.retain(|(version, _)| !self.here.contains_key(version));
        numbers.extend(self.here.values().map(|row| (row.stored.version, row.id)));
        numbers.sort_unstable_by_key(|(version, _)| Reverse(*version));
        let mut behind = BTreeSet::new();
        numbers.retain(|(version, id)| version.revision() > self.horizon || behind.insert(*id));
        Ok(numbers)
    }

    /// A version; `None` = the history has let go of it since its number was read.
    fn opened(&self, connection: &Connection, version: EventId, id: RecordId) -> Result<Option<Version>, TablesError> {
        if let Some(row) = self.here.get(&version) {
            return Ok(Some(Version {
                version,
                stored: Arc::clone(&row.stored),
                fact: row.fact.clone(),
                provenance: Arc::clone(&row.provenance),
            }));
        }
        let shared = self.view.shared();
        let Some(sealed) = read::version(connection, version)? else {
            if version.revision() <= shared.overlay()?.retention().horizon {
                return Ok(None);
            }
            return Err(TablesError::damaged(format!("version {version} of {id} is missing")));
        };
        let body = shared.codec.open_body(version, id, sealed.previous, &sealed.body)?;
        let row = body.row(version, id, sealed.previous)?;
        Ok(Some(Version { version, stored: row.stored, fact: row.fact, provenance: row.provenance }))
    }
}
