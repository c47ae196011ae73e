//! The tables themselves: their schema, its migrations, and how connections are set up.
//!
//! ```text
//!   versions   every version of every record: appended in version order, never changed         (MVCC)
//!   head       the newest version of each record, with the few columns that are asked for      (one index: place)
//!   sessions   what the machine remembers of clients
//!   meta       last applied entry, membership, machine header, ...: moves with the rows
//!   spans      a view: valid_to is derived, never stored
//! ```

use std::path::Path;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::config::Synchronous;
use super::error::TablesError;

/// Each entry leads from the schema of its index to the next.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE versions (
        version  INTEGER PRIMARY KEY,
        id       INTEGER NOT NULL,
        previous INTEGER,
        body     BLOB NOT NULL
    ) STRICT;
    CREATE TABLE head (
        id      INTEGER PRIMARY KEY,
        kind    INTEGER NOT NULL,
        parent  INTEGER NOT NULL,
        ord     BLOB NOT NULL,
        live    INTEGER NOT NULL,
        status  INTEGER,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX head_place ON head (kind, parent, ord);
    CREATE TABLE sessions (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE VIEW spans AS
        SELECT id, version AS valid_from, lead(version) OVER (PARTITION BY id ORDER BY version) AS valid_to
        FROM versions;
"];

/// Bytes of a page. Bodies of half a kibibyte fit it several times; smaller pages are dearer
/// (docs/adr/0004-tables-append-only.md).
const PAGE_BYTES: u32 = 4096;

/// Pages in the WAL after which a commit copies them into the database: 16 MiB, so that a page which changes often is copied
/// once, and a copy takes some ten milliseconds, which the backlog hides.
const WAL_PAGES_MAX: i32 = 4096;

/// A WAL that grew past this, because a reader held it, is cut once it starts anew: 64 MiB.
const WAL_BYTES_KEPT_MAX: u32 = 64 << 20;

/// Kibibytes of pages that the writer keeps: 64 MiB.
const WRITER_CACHE_KIB: u32 = 64 << 10;

/// Kibibytes of pages that each reader keeps: 8 MiB; opened records are cached above.
const READER_CACHE_KIB: u32 = 8 << 10;

/// Statements that each connection keeps prepared: all that there are.
const STATEMENTS_MAX: usize = 32;

/// The schema of this release.
pub(crate) fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("invariant: a constant far below 2^32")
}

/// Opens for writing; the file is there, or `create` says to make it.
pub(crate) fn open_writer(path: &Path, create: bool, synchronous: Synchronous) -> Result<Connection, TablesError> {
    let created = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | created;
    let connection = Connection::open_with_flags(path, flags).map_err(TablesError::sqlite("open the database"))?;
    let setup = format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {}; \
         PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {WAL_BYTES_KEPT_MAX}; \
         PRAGMA cache_size = -{WRITER_CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;",
        synchronous.pragma()
    );
    connection.execute_batch(&setup).map_err(TablesError::sqlite("set up the writing connection"))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.wal_hook(Some(checkpoint_when_large));
    Ok(connection)
}

/// SQLite's own automatic checkpoint does the same but swallows errors.
fn checkpoint_when_large(wal: &Wal, pages: i32) -> rusqlite::Result<()> {
    if pages >= WAL_PAGES_MAX { wal.checkpoint() } else { Ok(()) }
}

/// Copies the WAL into the database as far as readers allow, both synced: what was committed survives a power cut from here on.
pub(crate) fn checkpoint(connection: &Connection) -> Result<(), TablesError> {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .map_err(TablesError::sqlite("checkpoint the database"))
}

/// Copies all of the WAL into the database, both synced, and empties it; waits some seconds for readers, then leaves the rest.
pub(crate) fn checkpoint_all(connection: &Connection) -> Result<(), TablesError> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(TablesError::sqlite("checkpoint the whole database"))
}

/// Opens for reading a database that a writer has open.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, TablesError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(TablesError::sqlite("open the database to read"))?;
    let setup = format!(
        "PRAGMA query_only = ON; PRAGMA cache_size = -{READER_CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
    );
    connection.execute_batch(&setup).map_err(TablesError::sqlite("set up a reading connection"))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Brings the database to the schema of this release, in one transaction.
///
/// # Errors
/// [`TablesError::NewerSchema`] where a newer release has been here.
pub(crate) fn migrate(connection: &mut Connection, dir: &Path) -> Result<(), TablesError> {
    let failed = || TablesError::sqlite("migrate the database");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed())?;
    let found = schema_of(&transaction)?;
    if found > known() {
        return Err(TablesError::NewerSchema { dir: dir.to_owned(), found, known: known() });
    }
    if found == known() {
        return Ok(());
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration).map_err(failed())?;
    }
    put_meta(&transaction, meta::SCHEMA, &known().to_be_bytes())?;
    transaction.commit().map_err(failed())
}

fn schema_of(connection: &Connection) -> Result<u32, TablesError> {
    let tables = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get::<_, i64>(0))
        .map_err(TablesError::sqlite("look for the schema"))?;
    if tables == 0 {
        return Ok(0);
    }
    let stored =
        get_meta(connection, meta::SCHEMA)?.ok_or_else(|| TablesError::damaged("the schema's number is missing"))?;
    let bytes = stored.as_slice().try_into().map_err(|_| TablesError::damaged("the schema's number is malformed"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// The keys of the meta table.
pub(crate) mod meta {
    /// The number of the schema: u32, big endian.
    pub(crate) const SCHEMA: &str = "schema";
    /// The history: 16 bytes.
    pub(crate) const LINEAGE: &str = "lineage";
    /// The key of hashed names, sealed.
    pub(crate) const LOOKUP: &str = "lookup";
    /// Last applied entry, membership, machine header: see `state.rs`.
    pub(crate) const APPLIED: &str = "applied";
    /// The last version up to which what the history lets go of is deleted: u64, big endian.
    pub(crate) const PURGED: &str = "purged";
    /// There while a process uses the database: left behind, it tells of an unclean stop.
    pub(crate) const IN_USE: &str = "in-use";
}

/// A value of the meta table.
pub(crate) fn get_meta(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, TablesError> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")
        .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
        .map_err(TablesError::sqlite("read the meta table"))
}

/// Sets a value of the meta table.
pub(crate) fn put_meta(connection: &Connection, key: &str, value: &[u8]) -> Result<(), TablesError> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .and_then(|mut statement| statement.execute((key, value)))
        .map_err(TablesError::sqlite("write the meta table"))?;
    Ok(())
}

/// Removes a value of the meta table.
pub(crate) fn delete_meta(connection: &Connection, key: &str) -> Result<(), TablesError> {
    connection
        .execute("DELETE FROM meta WHERE key = ?1", [key])
        .map_err(TablesError::sqlite("write the meta table"))?;
    Ok(())
}

/// An id or version as SQLite stores it.
pub(crate) fn to_sql(id: u64) -> i64 {
    i64::try_from(id).expect("invariant: ids are at most 63 bits long (zyflow_machine::id)")
}

/// An id or version as it was stored.
pub(crate) fn from_sql(stored: i64) -> Result<u64, TablesError> {
    u64::try_from(stored).map_err(|_| TablesError::damaged("an id is negative"))
}
