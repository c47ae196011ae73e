//! The questions that are put to SQLite. Each is one statement, so each sees one committed state.
//!
//! The newest version of a record is at its head; an older one is found by walking the chain of previous versions back.
//! Bodies are opened by the caller, after the statement is done with.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Params, Row as SqlRow};
use zyflow_machine::id::{EventId, ORDINALS_MAX, RecordId, Revision};
use zyflow_machine::record::Kind;

use super::error::TablesError;
use super::schema::{from_sql, to_sql};

/// A version as it is stored.
pub(crate) struct SealedVersion {
    pub(crate) version: EventId,
    pub(crate) previous: Option<EventId>,
    pub(crate) body: Vec<u8>,
}

/// A row of the head table.
pub(crate) struct Head {
    pub(crate) id: RecordId,
    pub(crate) version: EventId,
    pub(crate) is_live: bool,
    /// As [`super::codec::Codec::place`] made it.
    pub(crate) place: Vec<u8>,
}

const NEWEST: &str = "\
    SELECT v.version, v.previous, v.body FROM head h JOIN versions v ON v.version = h.version WHERE h.id = ?1";

/// `CROSS JOIN` keeps SQLite to this order: it would rather scan all versions up to `?2` and look each up in the chain.
pub(crate) const AT: &str = "\
    WITH RECURSIVE chain (version, previous) AS ( \
        SELECT v.version, v.previous FROM head h JOIN versions v ON v.version = h.version WHERE h.id = ?1 \
        UNION ALL \
        SELECT v.version, v.previous FROM chain c CROSS JOIN versions v ON v.version = c.previous WHERE c.version > ?2 \
    ) \
    SELECT v.version, v.previous, v.body FROM chain c CROSS JOIN versions v ON v.version = c.version WHERE c.version <= ?2";

/// The numbers alone: `previous` stands before the body of a row, so not even the pages of a large one are read.
pub(crate) const RECORD_VERSIONS: &str = "\
    WITH RECURSIVE chain (id, version, previous) AS ( \
        SELECT h.id, v.version, v.previous FROM head h CROSS JOIN versions v ON v.version = h.version WHERE h.id = ?1 \
        UNION ALL \
        SELECT c.id, v.version, v.previous FROM chain c CROSS JOIN versions v ON v.version = c.previous \
    ) \
    SELECT version, id FROM chain WHERE version <= ?2";

/// As [`RECORD_VERSIONS`], of all records of a kind and parent at once.
pub(crate) const FAMILY_VERSIONS: &str = "\
    WITH RECURSIVE chain (id, version, previous) AS ( \
        SELECT h.id, v.version, v.previous FROM head h CROSS JOIN versions v ON v.version = h.version \
        WHERE h.kind = ?1 AND h.parent = ?2 \
        UNION ALL \
        SELECT c.id, v.version, v.previous FROM chain c CROSS JOIN versions v ON v.version = c.previous \
    ) \
    SELECT version, id FROM chain WHERE version <= ?3";

const FAMILY: &str = "SELECT id, version, live, ord FROM head WHERE kind = ?1 AND parent = ?2";

const CHANGED: &str = "SELECT id FROM head WHERE kind = ?1 AND parent = ?2 AND version > ?3";

/// `CROSS` keeps the family outside: SQLite would rather go through all versions after the revision, once for each family.
const PAST: &str = "\
    WITH RECURSIVE chain (id, version, previous) AS ( \
        SELECT h.id, v.version, v.previous FROM head h CROSS JOIN versions v ON v.version = h.version \
        WHERE h.kind = ?1 AND h.parent = ?2 AND h.version > ?3 \
        UNION ALL \
        SELECT c.id, v.version, v.previous FROM chain c CROSS JOIN versions v ON v.version = c.previous \
        WHERE c.version > ?3 \
    ) \
    SELECT v.version, v.previous, v.body, c.id FROM chain c CROSS JOIN versions v ON v.version = c.version \
    WHERE c.version <= ?3";

/// As [`PAST`], without the bodies: the last step of each chain is known from the one before.
const PAST_VERSIONS: &str = "\
    WITH RECURSIVE chain (id, previous) AS ( \
        SELECT h.id, v.previous FROM head h CROSS JOIN versions v ON v.version = h.version \
        WHERE h.kind = ?1 AND h.parent = ?2 AND h.version > ?3 \
        UNION ALL \
        SELECT c.id, v.previous FROM chain c CROSS JOIN versions v ON v.version = c.previous WHERE c.previous > ?3 \
    ) \
    SELECT id, previous FROM chain WHERE previous <= ?3";

const VERSION: &str = "SELECT version, previous, body FROM versions WHERE version = ?1";

const PLACED: &str = "SELECT id FROM head WHERE kind = ?1 AND parent = ?2 AND ord = ?3 ORDER BY id";

/// The newest version of a record.
pub(crate) fn newest(connection: &Connection, id: RecordId) -> Result<Option<SealedVersion>, TablesError> {
    connection
        .prepare_cached(NEWEST)
        .and_then(|mut statement| statement.query_row([to_sql(id.to_u64())], raw_version).optional())
        .map_err(TablesError::sqlite("read a record"))?
        .map(SealedVersion::from_raw)
        .transpose()
}

/// The newest version of a record at or before a revision.
pub(crate) fn at(connection: &Connection, id: RecordId, at: Revision) -> Result<Option<SealedVersion>, TablesError> {
    connection
        .prepare_cached(AT)
        .and_then(|mut statement| statement.query_row((to_sql(id.to_u64()), last_of(at)), raw_version).optional())
        .map_err(TablesError::sqlite("read a past version"))?
        .map(SealedVersion::from_raw)
        .transpose()
}

/// The numbers of all versions of a record up to a revision, in no order.
pub(crate) fn record_versions(
    connection: &Connection,
    id: RecordId,
    at: Revision,
) -> Result<Vec<(EventId, RecordId)>, TablesError> {
    versions(connection, RECORD_VERSIONS, (to_sql(id.to_u64()), last_of(at)))
}

/// The numbers of all versions of all records of a kind and parent up to a revision, deleted ones included, in no order.
pub(crate) fn family_versions(
    connection: &Connection,
    kind: Kind,
    parent: RecordId,
    at: Revision,
) -> Result<Vec<(EventId, RecordId)>, TablesError> {
    versions(connection, FAMILY_VERSIONS, (kind.code(), to_sql(parent.to_u64()), last_of(at)))
}

fn versions(
    connection: &Connection,
    query: &str,
    parameters: impl Params,
) -> Result<Vec<(EventId, RecordId)>, TablesError> {
    let failed = || TablesError::sqlite("read the numbers of versions");
    let mut statement = connection.prepare_cached(query).map_err(failed())?;
    let raw = |row: &SqlRow<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let rows = statement.query_map(parameters, raw).map_err(failed())?;
    rows.map(|row| {
        let (version, id) = row.map_err(failed())?;
        Ok((EventId::from_u64(from_sql(version)?), RecordId::from_u64(from_sql(id)?)))
    })
    .collect()
}

/// The heads of all records of a kind and parent, deleted ones included.
pub(crate) fn family(connection: &Connection, kind: Kind, parent: RecordId) -> Result<Vec<Head>, TablesError> {
    let failed = || TablesError::sqlite("read siblings");
    let mut statement = connection.prepare_cached(FAMILY).map_err(failed())?;
    let raw = |row: &SqlRow<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let rows = statement.query_map((kind.code(), to_sql(parent.to_u64())), raw).map_err(failed())?;
    rows.map(|row| {
        let (id, version, is_live, place) = row.map_err(failed())?;
        let (id, version) = (RecordId::from_u64(from_sql(id)?), EventId::from_u64(from_sql(version)?));
        Ok(Head { id, version, is_live, place })
    })
    .collect()
}

/// The records of a kind and parent whose newest version is after a revision.
pub(crate) fn changed(
    connection: &Connection,
    kind: Kind,
    parent: RecordId,
    after: Revision,
) -> Result<Vec<RecordId>, TablesError> {
    let failed = || TablesError::sqlite("read what changed");
    let mut statement = connection.prepare_cached(CHANGED).map_err(failed())?;
    let rows = statement
        .query_map((kind.code(), to_sql(parent.to_u64()), last_of(after)), |row| row.get::<_, i64>(0))
        .map_err(failed())?;
    rows.map(|id| Ok(RecordId::from_u64(from_sql(id.map_err(failed())?)?))).collect()
}

/// Of those that [`changed`] gives, the newest version at or before the revision; one that was made later has none.
pub(crate) fn past(
    connection: &Connection,
    kind: Kind,
    parent: RecordId,
    at: Revision,
) -> Result<BTreeMap<RecordId, SealedVersion>, TablesError> {
    let failed = || TablesError::sqlite("read what was before a change");
    let mut statement = connection.prepare_cached(PAST).map_err(failed())?;
    let raw = |row: &SqlRow<'_>| Ok((raw_version(row)?, row.get::<_, i64>(3)?));
    let rows = statement.query_map((kind.code(), to_sql(parent.to_u64()), last_of(at)), raw).map_err(failed())?;
    rows.map(|row| {
        let (version, id) = row.map_err(failed())?;
        Ok((RecordId::from_u64(from_sql(id)?), SealedVersion::from_raw(version)?))
    })
    .collect()
}

/// Of the records that changed after a revision, which version was the newest at or before it; one that was made later has none.
pub(crate) fn past_versions(
    connection: &Connection,
    kind: Kind,
    parent: RecordId,
    at: Revision,
) -> Result<BTreeMap<RecordId, EventId>, TablesError> {
    let failed = || TablesError::sqlite("read which versions were the newest");
    let mut statement = connection.prepare_cached(PAST_VERSIONS).map_err(failed())?;
    let raw = |row: &SqlRow<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let rows = statement.query_map((kind.code(), to_sql(parent.to_u64()), last_of(at)), raw).map_err(failed())?;
    rows.map(|row| {
        let (id, version) = row.map_err(failed())?;
        Ok((RecordId::from_u64(from_sql(id)?), EventId::from_u64(from_sql(version)?)))
    })
    .collect()
}

/// One version by its number.
pub(crate) fn version(connection: &Connection, version: EventId) -> Result<Option<SealedVersion>, TablesError> {
    connection
        .prepare_cached(VERSION)
        .and_then(|mut statement| statement.query_row([to_sql(version.to_u64())], raw_version).optional())
        .map_err(TablesError::sqlite("read a version"))?
        .map(SealedVersion::from_raw)
        .transpose()
}

/// The records whose newest version has that place, deleted ones included, oldest first.
pub(crate) fn placed(
    connection: &Connection,
    kind: Kind,
    parent: RecordId,
    place: &[u8],
) -> Result<Vec<RecordId>, TablesError> {
    let failed = || TablesError::sqlite("find a record by its name");
    let mut statement = connection.prepare_cached(PLACED).map_err(failed())?;
    let rows = statement
        .query_map((kind.code(), to_sql(parent.to_u64()), place), |row| row.get::<_, i64>(0))
        .map_err(failed())?;
    rows.map(|id| Ok(RecordId::from_u64(from_sql(id.map_err(failed())?)?))).collect()
}

type RawVersion = (i64, Option<i64>, Vec<u8>);

pub(crate) fn raw_version(row: &SqlRow<'_>) -> rusqlite::Result<RawVersion> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

impl SealedVersion {
    pub(crate) fn from_raw((version, previous, body): RawVersion) -> Result<Self, TablesError> {
        let event = |stored| from_sql(stored).map(EventId::from_u64);
        Ok(Self { version: event(version)?, previous: previous.map(event).transpose()?, body })
    }
}

/// The largest version that a revision can hold.
pub(crate) fn last_of(revision: Revision) -> i64 {
    EventId::new(revision, ORDINALS_MAX - 1).map_or(i64::MAX, |last| to_sql(last.to_u64()))
}
