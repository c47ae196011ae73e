//! The past in the order in which it happened: what was applied from a revision on, and which revision a time means.
//!
//! ```text
//!      horizon                        flushed            applied
//!         |  versions, in version order  |  recent changes  |
//!         +------------------------------+------------------+----> revisions
//!            read from SQLite              read from memory
//! ```
//!
//! Cluster time never goes back, so the table of versions, which is in the order of revisions, is also in the order of times: a
//! time is found by halving, and no index is written for it (docs/adr/0014-the-past-is-read-from-versions.md).
//!
//! Deliberately not here: who asks, and what is shown of it. Invariant: a revision is never divided.

use std::sync::Arc;

use rusqlite::Connection;
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::record::Retention;

use super::entry::{Change, Row};
use super::error::TablesError;
use super::overlay::Base;
use super::schema::{from_sql, to_sql};
use super::shared::Shared;
use super::{Tables, read};

/// Revisions that were applied, each whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Past {
    /// Those that changed something, in order.
    pub changes: Vec<Arc<Change>>,
    /// Nothing else happened as far as this revision, itself included.
    pub reached: Revision,
}

/// Where the recent changes begin and end.
pub(crate) struct Edge {
    pub(crate) base: Arc<Base>,
    pub(crate) retention: Retention,
    /// Everything up to here is in SQLite.
    pub(crate) flushed: Revision,
    pub(crate) applied: Revision,
}

const FORWARD: &str = "\
    SELECT version, previous, body, id FROM versions WHERE version BETWEEN ?1 AND ?2 ORDER BY version LIMIT ?3";

const BACKWARD: &str = "\
    SELECT version, previous, body, id FROM versions WHERE version BETWEEN ?1 AND ?2 ORDER BY version DESC LIMIT ?3";

impl Tables {
    /// What was applied from `from` on, up to about `rows_max` rows (a revision is never divided); empty where `from` is still to come. Reads
    /// SQLite where that is long ago, so it belongs on a thread that may wait.
    ///
    /// # Errors
    /// [`TablesError::Compacted`] where events that old aren't kept; or the tables can't be read.
    pub fn changes_from(&self, from: Revision, rows_max: usize) -> Result<Past, TablesError> {
        self.shared.settle(self.shared.changes_from(from, rows_max))
    }

    /// As [`Tables::changes_from`], from memory alone; `None` = it is too long ago for that.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn recent_changes_from(&self, from: Revision, rows_max: usize) -> Result<Option<Past>, TablesError> {
        let overlay = self.shared.overlay()?;
        let is_kept = from >= oldest_event(overlay.retention());
        Ok(if is_kept { overlay.recent_from(from, rows_max) } else { None })
    }

    /// What was applied up to `to`, newest first, about `rows_max` rows of it; `reached` is the oldest revision looked at.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn changes_before(&self, to: Revision, rows_max: usize) -> Result<Past, TablesError> {
        self.shared.settle(self.shared.changes_before(to, rows_max))
    }

    /// The newest revision none of whose events is later than `time`.
    ///
    /// # Errors
    /// [`TablesError::BeforeFirst`] where that is before everything that is kept; or the tables can't be read.
    pub fn revision_at(&self, time: ClusterTime) -> Result<Revision, TablesError> {
        let found = self.shared.settle(self.shared.revision_at(time))?;
        self.standing(found)
    }

    /// The time of the newest event at or before `revision`; `None` = there is none.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn time_at(&self, revision: Revision) -> Result<Option<ClusterTime>, TablesError> {
        self.shared.settle(self.shared.time_at(revision))
    }
}

impl Shared {
    fn changes_from(&self, from: Revision, rows_max: usize) -> Result<Past, TablesError> {
        let (recent, edge) = {
            let overlay = self.overlay()?;
            (overlay.recent_from(from, rows_max), overlay.edge())
        };
        refuse_compacted(from, oldest_event(edge.retention))?;
        if let Some(recent) = recent {
            return Ok(recent);
        }
        let connection = edge.base.readers.lease()?;
        let (rows, is_cut) = self.rows(&connection, FORWARD, (from, edge.flushed), rows_max)?;
        // Behind the horizon, versions may have been deleted meanwhile.
        refuse_compacted(from, oldest_event(self.overlay()?.retention()))?;
        Ok(Past::of(rows, if is_cut { None } else { Some(edge.flushed) }))
    }

    fn changes_before(&self, to: Revision, rows_max: usize) -> Result<Past, TablesError> {
        let (recent, edge) = {
            let overlay = self.overlay()?;
            (overlay.recent_before(to), overlay.edge())
        };
        let oldest = oldest_event(edge.retention);
        if to < oldest {
            return Ok(Past { changes: Vec::new(), reached: oldest });
        }
        let recent: Vec<_> = recent.into_iter().filter(|change| change.revision >= oldest).collect();
        if !recent.is_empty() {
            return Ok(Past { changes: recent, reached: oldest.max(Revision(edge.flushed.0 + 1)) });
        }
        let to = to.min(edge.flushed);
        if to < oldest {
            return Ok(Past { changes: Vec::new(), reached: oldest });
        }
        let connection = edge.base.readers.lease()?;
        let (mut rows, is_cut) = self.rows(&connection, BACKWARD, (oldest, to), rows_max)?;
        let oldest = oldest_event(self.overlay()?.retention());
        rows.retain(|row| row.stored.version.revision() >= oldest);
        let is_cut = is_cut && !rows.is_empty();
        let mut past = Past::of(rows, if is_cut { None } else { Some(oldest) });
        for change in &mut past.changes {
            // Within a revision events stand in their order, whichever way the revisions go.
            *change = Arc::new(Change {
                revision: change.revision,
                rows: change.rows.iter().rev().map(Arc::clone).collect(),
            });
        }
        Ok(past)
    }

    /// Rows between two revisions in the order of `query`, about `rows_max`, and whether that left some out: whole revisions always.
    fn rows(
        &self,
        connection: &Connection,
        query: &str,
        (first, last): (Revision, Revision),
        rows_max: usize,
    ) -> Result<(Vec<Arc<Row>>, bool), TablesError> {
        let mut rows = self.some_rows(connection, query, (first, last), rows_max)?;
        let Some(edge) = rows.last().map(|row| row.stored.version.revision()).filter(|_| rows.len() >= rows_max) else {
            return Ok((rows, false));
        };
        // The last revision may be cut: it is read whole, after the others or alone.
        rows.retain(|row| row.stored.version.revision() != edge);
        if rows.is_empty() {
            rows = self.some_rows(connection, query, (edge, edge), usize::MAX)?;
        }
        Ok((rows, true))
    }

    fn some_rows(
        &self,
        connection: &Connection,
        query: &str,
        (first, last): (Revision, Revision),
        rows_max: usize,
    ) -> Result<Vec<Arc<Row>>, TablesError> {
        let failed = || TablesError::sqlite("read what happened");
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let mut statement = connection.prepare_cached(query).map_err(failed())?;
        let raw = |row: &rusqlite::Row<'_>| Ok((read::raw_version(row)?, row.get::<_, i64>(3)?));
        let found = statement.query_map((first_of(first), read::last_of(last), limit), raw).map_err(failed())?;
        found
            .map(|found| {
                let (version, id) = found.map_err(failed())?;
                self.open_row(&read::SealedVersion::from_raw(version)?, RecordId::from_u64(from_sql(id)?))
            })
            .collect()
    }

    fn open_row(&self, sealed: &read::SealedVersion, id: RecordId) -> Result<Arc<Row>, TablesError> {
        let body = self.codec.open_body(sealed.version, id, sealed.previous, &sealed.body)?;
        Ok(Arc::new(body.row(sealed.version, id, sealed.previous)?))
    }

    fn revision_at(&self, time: ClusterTime) -> Result<Revision, TablesError> {
        let (recent, edge) = {
            let overlay = self.overlay()?;
            (overlay.recent_times(time), overlay.edge())
        };
        let Retention { horizon, horizon_time, .. } = edge.retention;
        if horizon > Revision::default() && time < horizon_time {
            return Err(TablesError::BeforeFirst { time, revision: horizon, first: horizon_time });
        }
        // What is older than the first recent event is in SQLite.
        let (before_recent, first_recent) = match recent {
            RecentTime::Within(revision) => return Ok(revision),
            RecentTime::Before(first, at) => (Revision(first.0 - 1), Some((first, at))),
            RecentTime::None => (edge.applied, None),
        };
        let connection = edge.base.readers.lease()?;
        let first = self.first_kept(&connection, &edge)?.or(first_recent);
        if let Some((revision, first)) = first.filter(|(_, first)| time < *first) {
            return Err(TablesError::BeforeFirst { time, revision, first });
        }
        let kept = edge.retention.horizon.max(Revision(1));
        // Of all revisions from `low` to `high`, the first one with an event later than `time`; `high` = there is none.
        let (mut low, mut high) = (kept.0, edge.flushed.0 + 1);
        while low < high {
            let middle = Revision(low + (high - low) / 2);
            match self.dated(&connection, middle)? {
                Some((revision, found)) if found > time => high = revision.0,
                Some(_) | None => low = middle.0 + 1,
            }
        }
        Ok(if high > edge.flushed.0 { before_recent } else { Revision(high - 1) })
    }

    /// The oldest revision that can be read, with its time: the horizon, or that of the first event in SQLite.
    fn first_kept(&self, connection: &Connection, edge: &Edge) -> Result<Option<(Revision, ClusterTime)>, TablesError> {
        let Retention { horizon, horizon_time, .. } = edge.retention;
        if horizon > Revision::default() {
            return Ok(Some((horizon, horizon_time)));
        }
        let rows = self.some_rows(connection, FORWARD, (Revision::default(), edge.flushed), 1)?;
        Ok(rows.first().map(|row| (row.stored.version.revision(), row.provenance.time)))
    }

    /// The newest event in SQLite at or before a revision, with its time.
    fn dated(
        &self,
        connection: &Connection,
        revision: Revision,
    ) -> Result<Option<(Revision, ClusterTime)>, TablesError> {
        let rows = self.some_rows(connection, BACKWARD, (Revision::default(), revision), 1)?;
        Ok(rows.first().map(|row| (row.stored.version.revision(), row.provenance.time)))
    }

    fn time_at(&self, revision: Revision) -> Result<Option<ClusterTime>, TablesError> {
        let (recent, edge) = {
            let overlay = self.overlay()?;
            (overlay.recent_time_at(revision), overlay.edge())
        };
        if recent.is_some() {
            return Ok(recent);
        }
        let connection = edge.base.readers.lease()?;
        let Retention { horizon, horizon_time, .. } = edge.retention;
        let found = self.dated(&connection, revision.min(edge.flushed))?.filter(|(found, _)| *found > horizon);
        // Events at and before the horizon may be deleted; its time is kept with it.
        Ok(found.map(|(_, time)| time).or((horizon > Revision::default()).then_some(horizon_time)))
    }
}

/// What the recent changes say about a time.
pub(crate) enum RecentTime {
    /// This is the newest revision that isn't later.
    Within(Revision),
    /// All of them are later, from this one on, which is of that time.
    Before(Revision, ClusterTime),
    /// There are none.
    None,
}

impl Past {
    /// Groups rows by their revisions; `reached` where the rows don't say it.
    fn of(rows: Vec<Arc<Row>>, reached: Option<Revision>) -> Self {
        let mut changes: Vec<Change> = Vec::new();
        for row in rows {
            let revision = row.stored.version.revision();
            match changes.last_mut() {
                Some(change) if change.revision == revision => change.rows.push(row),
                Some(_) | None => changes.push(Change { revision, rows: vec![row] }),
            }
        }
        let last = changes.last().map(|change| change.revision);
        let reached = reached.or(last).unwrap_or_default();
        Self { changes: changes.into_iter().map(Arc::new).collect(), reached }
    }
}

/// The oldest revision whose events are all kept: of the horizon's own, and older ones, only the newest versions are.
fn oldest_event(Retention { horizon, .. }: Retention) -> Revision {
    if horizon == Revision::default() { Revision::default() } else { Revision(horizon.0 + 1) }
}

fn refuse_compacted(from: Revision, oldest: Revision) -> Result<(), TablesError> {
    if from < oldest { Err(TablesError::Compacted { revision: from, horizon: oldest }) } else { Ok(()) }
}

/// The smallest version that a revision can hold.
fn first_of(revision: Revision) -> i64 {
    EventId::new(revision, 0).map_or(i64::MAX, |first| to_sql(first.to_u64()))
}
