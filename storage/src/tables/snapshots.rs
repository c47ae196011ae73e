//! The two ends of a snapshot: everything a database holds, read in one transaction; and a database filled from it.
//!
//! How it travels in between is `crate::snapshot`'s business. Bodies leave the tables opened (the node's own key opens nothing
//! elsewhere) and are sealed anew where they arrive.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use zyflow_machine::id::{EventId, RecordId, Revision, SessionId};
use zyflow_machine::{Digest, Machine};

use super::codec::Body;
use super::database::{self, Database, load_retention, load_state};
use super::digest;
use super::error::TablesError;
use super::flush::{INSERT_HEAD, moves, status_of, write_session, write_state};
use super::read::{SealedVersion, raw_version};
use super::schema::{self, from_sql, to_sql};
use super::shared::{Applier, Shared};
use super::state::{SavedSession, SavedState};
use super::undone::Undone;
use super::writer::Job;
use super::{Position, Row, Tables};

/// Versions written in one transaction of an installation: the WAL stays small, and a page is written a few times only.
const INSTALLED_AT_ONCE: usize = 16_384;

/// A version as it travels.
pub(crate) struct TravellingVersion {
    pub(crate) version: EventId,
    pub(crate) id: RecordId,
    pub(crate) previous: Option<EventId>,
    pub(crate) body: Body,
}

/// Everything that a database holds, at one moment: opened when this is made, read when it is asked for.
pub(crate) struct SnapshotSource {
    shared: Arc<Shared>,
    connection: Connection,
    pub(crate) state: SavedState,
    pub(crate) sessions: Vec<SavedSession>,
    pub(crate) horizon: Revision,
    pub(crate) digest: Digest,
}

impl SnapshotSource {
    /// Begins the transaction. `None` = nothing was applied yet.
    pub(crate) fn open(tables: &Tables) -> Result<Option<Self>, TablesError> {
        let shared = Arc::clone(&tables.shared);
        let generation = shared.generation.load(std::sync::atomic::Ordering::Relaxed);
        let connection = schema::open_reader(&database::path_of(&shared.config.dir, generation))?;
        connection.execute_batch("BEGIN").map_err(TablesError::sqlite("begin to read a snapshot"))?;
        let (state, sessions) = load_state(&connection, &shared.codec)?;
        let Some(state) = state else { return Ok(None) };
        let horizon = load_retention(&connection, &shared.codec)?.horizon;
        let machine = Machine::restore(&state.machine, sessions.iter().cloned())
            .map_err(|source| TablesError::Undecodable { what: "the machine's state".to_owned(), source })?;
        Ok(Some(Self { shared, connection, state, sessions, horizon, digest: machine.digest() }))
    }

    /// Gives every version, in version order.
    pub(crate) fn for_each_version<E: From<TablesError>>(
        &self,
        give: impl FnMut(&TravellingVersion) -> Result<(), E>,
    ) -> Result<(), E> {
        give_versions(&self.connection, &self.shared, (-1, i64::MAX), give)
    }
}

const VERSIONS: &str =
    "SELECT version, previous, body, id FROM versions WHERE version > ?1 AND version <= ?2 ORDER BY version";

/// Gives the versions after the first number, up to the last, opened and in version order.
pub(super) fn give_versions<E: From<TablesError>>(
    connection: &Connection,
    shared: &Shared,
    (after, last): (i64, i64),
    mut give: impl FnMut(&TravellingVersion) -> Result<(), E>,
) -> Result<(), E> {
    let failed = || TablesError::sqlite("read versions that travel");
    let mut statement = connection.prepare(VERSIONS).map_err(failed())?;
    let mut rows = statement.query((after, last)).map_err(failed())?;
    while let Some(row) = rows.next().map_err(failed())? {
        let sealed = SealedVersion::from_raw(raw_version(row).map_err(failed())?)?;
        let id = RecordId::from_u64(from_sql(row.get(3).map_err(failed())?)?);
        let body = shared.settle(shared.codec.open_body(sealed.version, id, sealed.previous, &sealed.body))?;
        give(&TravellingVersion { version: sealed.version, id, previous: sealed.previous, body })?;
    }
    Ok(())
}

/// A database that is being filled; not in use until [`Installation::finish`] says so.
pub(crate) struct Installation {
    tables: Tables,
    database: Database,
    horizon: Revision,
    pending: usize,
    last: Option<EventId>,
}

/// Both only where the newest version so far is the previous one of the next.
const UPDATE_HEAD: &str = "UPDATE head SET live = ?3, status = ?4, version = ?5 WHERE id = ?1 AND version = ?2";
const MOVE_HEAD: &str = "UPDATE head SET live = ?3, status = ?4, version = ?5, ord = ?6 WHERE id = ?1 AND version = ?2";

impl Installation {
    /// Begins an empty database beside the one in use.
    pub(crate) fn begin(tables: &Tables, horizon: Revision) -> Result<Self, TablesError> {
        let shared = &tables.shared;
        let generation = shared.generation.load(std::sync::atomic::Ordering::Relaxed) + 1;
        let database = database::create(&shared.config, &shared.key, generation, Some(shared.codec.lookup()))?;
        // Nobody uses it yet, so nothing needs to survive until it is complete.
        run(&database.connection, "PRAGMA synchronous = OFF; BEGIN")?;
        Ok(Self { tables: tables.clone(), database, horizon, pending: 0, last: None })
    }

    /// Adds a version; they come in version order.
    pub(crate) fn add_version(&mut self, given: &TravellingVersion) -> Result<(), TablesError> {
        if self.last >= Some(given.version) {
            return Err(TablesError::damaged("the versions of a snapshot are out of order"));
        }
        self.last = Some(given.version);
        let codec = &self.database.codec;
        let row = given.body.row(given.version, given.id, given.previous)?;
        let sealed = codec.seal_body(given.version, given.id, given.previous, given.body.plain())?;
        let failed = || TablesError::sqlite("install a version");
        let connection = &self.database.connection;
        let (version, id) = (to_sql(given.version.to_u64()), to_sql(given.id.to_u64()));
        connection
            .prepare_cached("INSERT INTO versions (version, id, previous, body) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut append| append.execute((version, id, given.previous.map(|it| to_sql(it.to_u64())), sealed)))
            .map_err(failed())?;
        self.put_head(given, &row)?;
        self.pending += 1;
        if self.pending == INSTALLED_AT_ONCE {
            self.pending = 0;
            run(connection, "COMMIT; BEGIN")?;
        }
        Ok(())
    }

    /// Sets the head of a record to a version that follows the one it is at.
    fn put_head(&self, given: &TravellingVersion, row: &Row) -> Result<(), TablesError> {
        let failed = || TablesError::sqlite("install the head of a record");
        let (connection, codec) = (&self.database.connection, &self.database.codec);
        let (version, id) = (to_sql(given.version.to_u64()), to_sql(given.id.to_u64()));
        let stored = &row.stored;
        let (is_live, status) = (stored.record.is_some(), status_of(stored.record.as_ref()));
        let place = codec.place(stored.kind, stored.parent, &stored.order);
        let is_moved = moves(&row.fact);
        let written = match given.previous {
            // What was replaced by the horizon isn't kept.
            Some(previous) if previous.revision() > self.horizon || self.is_known(id)? => {
                let previous = to_sql(previous.to_u64());
                connection.prepare_cached(if is_moved { MOVE_HEAD } else { UPDATE_HEAD }).and_then(|mut update| {
                    if is_moved {
                        update.execute((id, previous, is_live, status, version, place))
                    } else {
                        update.execute((id, previous, is_live, status, version))
                    }
                })
            }
            Some(_) | None => connection.prepare_cached(INSERT_HEAD).and_then(|mut insert| {
                insert.execute((
                    id,
                    stored.kind.code(),
                    to_sql(stored.parent.to_u64()),
                    place,
                    is_live,
                    status,
                    version,
                ))
            }),
        };
        if written.map_err(failed())? != 1 {
            let what = format!("the version before {} of {} is missing in a snapshot", given.version, given.id);
            return Err(TablesError::damaged(what));
        }
        Ok(())
    }

    fn is_known(&self, id: i64) -> Result<bool, TablesError> {
        let failed = || TablesError::sqlite("look for a record");
        let mut known = self.database.connection.prepare_cached("SELECT 1 FROM head WHERE id = ?1").map_err(failed())?;
        known.exists([id]).map_err(failed())
    }

    /// Adds a session.
    pub(crate) fn add_session(&self, id: SessionId, bytes: &[u8]) -> Result<(), TablesError> {
        write_session(&self.database.connection, &self.database.codec, id, Some(bytes))
    }

    /// Makes the filled database the one in use, if it adds up to `digest`. A crash before the last step leaves the old one.
    pub(crate) fn finish(mut self, state: &SavedState, expected: Digest) -> Result<(), TablesError> {
        let (connection, horizon) = (&self.database.connection, self.horizon);
        write_state(connection, state)?;
        self.database.retention = load_retention(connection, &self.database.codec)?;
        if self.database.retention.horizon != horizon {
            return Err(TablesError::damaged("the horizon of a snapshot is not the one that its rows say"));
        }
        run(connection, "COMMIT")?;
        let computed = digest::recompute(connection, &self.database.codec, |_begun| (), |_rows| true)?;
        let (_, found) = computed.expect("invariant: nobody ended the reading");
        if found != expected {
            return Err(TablesError::damaged(format!("a snapshot adds up to {found} and not to {expected}")));
        }
        let synchronous = self.tables.shared.config.synchronous.pragma();
        run(connection, &format!("PRAGMA synchronous = {synchronous}"))?;
        schema::checkpoint_all(connection)?;
        let path = &self.database.path;
        fs_err::File::open(path).and_then(|file| file.sync_all()).map_err(TablesError::file("sync", path))?;
        let dir = &self.tables.shared.config.dir;
        crate::layout::sync_folder(dir).map_err(TablesError::file("sync", dir))?;
        let (state, sessions) = load_state(connection, &self.database.codec)?;
        self.database.undone = Undone::load(connection, &self.database.codec)?;
        self.database.state = state;
        self.database.sessions = sessions;
        // Else the writer would find it out, and take the tables that are in use for damaged.
        Applier::new(&self.database)?;
        let database = Box::new(self.database);
        self.tables.ask(|reply| Job::Replace { database, reply })
    }
}

impl Tables {
    /// Makes what SQLite holds survive a power cut: at least up to what [`Tables::flushed`] shows now.
    ///
    /// # Errors
    /// The tables failed or are shut down.
    pub fn checkpoint(&self) -> Result<(), TablesError> {
        self.ask(|reply| Job::Checkpoint { reply })
    }

    /// Bytes that the database has on disk.
    ///
    /// # Errors
    /// The file system fails.
    pub fn bytes_on_disk(&self) -> Result<u64, TablesError> {
        let generation = self.shared.generation.load(std::sync::atomic::Ordering::Relaxed);
        let database = database::path_of(&self.shared.config.dir, generation);
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        let mut bytes = 0;
        for file in [database, PathBuf::from(wal)] {
            match fs_err::metadata(&file) {
                Ok(found) => bytes += found.len(),
                // There is no WAL yet, or another database has just replaced this one.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(TablesError::file("stat", &file)(error)),
            }
        }
        Ok(bytes)
    }

    /// Takes it up that somebody who read all of the tables found this out: damage stops them for good, and they are built anew at the
    /// next start.
    pub(crate) fn blame(&self, error: TablesError) -> TablesError {
        if error.is_damage() { self.shared.latch(error) } else { error }
    }

    /// The newest applied entry.
    pub(crate) fn position(&self) -> Result<Option<Position>, TablesError> {
        Ok(self.shared.applier()?.position)
    }
}

fn run(connection: &Connection, sql: &str) -> Result<(), TablesError> {
    connection.execute_batch(sql).map_err(TablesError::sqlite("install a snapshot"))
}
