//! Which file is the database, and what makes one believable.
//!
//! ```text
//!   tables/CURRENT                  names the file in use; replaced by rename, so there is always one answer
//!   tables/tables-000002.sqlite     the file in use (with -wal and -shm)
//!   tables/tables-000003.sqlite     one that is being built from a snapshot; or left by a crash: deleted at the next start
//!   tables/DAMAGED                  a running process found damage: don't believe the file, whatever it looks like
//! ```
//!
//! A database that can't be believed is deleted, and another begun: all of it can be derived again from snapshot and log. But
//! one of a newer release or of another history is refused, since deleting it would hide a mistake.

use fs_err as fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use zyflow_crypto::{Lineage, LocalKey};
use zyflow_machine::id::{EventId, RecordId, SessionId};
use zyflow_machine::record::{Kind, Retention};

use super::codec::{Codec, sealing};
use super::config::TablesConfig;
use super::error::TablesError;
use super::read;
use super::schema::{self, from_sql, get_meta, meta, put_meta};
use super::state::{SavedSession, SavedState};
use super::undone::Undone;
use crate::layout::replace_file;

const CURRENT_FILE: &str = "CURRENT";
const DAMAGED_FILE: &str = "DAMAGED";
const PREFIX: &str = "tables-";
const LOOKUP_CONTEXT: &[u8] = b"meta lookup";

/// A database that is open for writing, with all that isn't rows.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) generation: u64,
    pub(crate) codec: Codec,
    pub(crate) retention: Retention,
    /// The last version up to which what the history lets go of is deleted.
    pub(crate) purged: u64,
    /// What restores have undone.
    pub(crate) undone: Undone,
    /// `None` = nothing was applied yet.
    pub(crate) state: Option<SavedState>,
    pub(crate) sessions: Vec<SavedSession>,
    /// Why the database that was there could not be believed.
    pub(crate) rebuilt: Option<String>,
}

/// Opens the database of a folder, or begins one.
pub(crate) fn open(config: &TablesConfig, key: &Arc<LocalKey>) -> Result<Database, TablesError> {
    let dir = &config.dir;
    fs::create_dir_all(dir).map_err(TablesError::file("create", dir))?;
    let current = current(dir)?;
    remove_others(dir, current)?;
    let Some(generation) = current else {
        return begin(config, key, 1, None);
    };
    match load(config, key, generation) {
        Ok(database) => Ok(database),
        Err(error) if error.is_damage() => {
            let reason = chain(&error);
            tracing::warn!(reason, "the tables can't be believed, they are built anew from snapshot and log");
            let database = begin(config, key, generation + 1, Some(reason))?;
            remove_others(dir, Some(generation + 1))?;
            Ok(database)
        }
        Err(error) => Err(error),
    }
}

/// Notes that the database in use must not be believed at the next start.
pub(crate) fn mark_damaged(dir: &Path, reason: &str) {
    if let Err(error) = replace_file(&dir.join(DAMAGED_FILE), reason.as_bytes()) {
        tracing::error!(%error, "cannot mark the tables as damaged: delete their folder before the next start");
    }
}

/// A new, empty database, not in use yet.
pub(crate) fn create(
    config: &TablesConfig,
    key: &Arc<LocalKey>,
    generation: u64,
    lookup: Option<[u8; 32]>,
) -> Result<Database, TablesError> {
    let path = path_of(&config.dir, generation);
    remove_database(&path)?;
    let lookup = lookup.map_or_else(random_lookup, Ok)?;
    let mut connection = schema::open_writer(&path, true, config.synchronous)?;
    schema::migrate(&mut connection, &config.dir)?;
    let sealed =
        key.seal(LOOKUP_CONTEXT, &lookup).map_err(|source| sealing("seal", "the key of names".to_owned(), source))?;
    put_meta(&connection, meta::LINEAGE, &config.lineage.0)?;
    put_meta(&connection, meta::LOOKUP, &sealed)?;
    put_meta(&connection, meta::IN_USE, &[1])?;
    Ok(Database {
        connection,
        path,
        generation,
        codec: Codec::new(Arc::clone(key), lookup),
        retention: Retention::default(),
        purged: 0,
        undone: Undone::default(),
        state: None,
        sessions: Vec::new(),
        rebuilt: None,
    })
}

/// Makes a database the one in use: the point of no return of a replacement.
pub(crate) fn make_current(dir: &Path, generation: u64) -> Result<(), TablesError> {
    let path = dir.join(CURRENT_FILE);
    replace_file(&path, format!("{generation}\n").as_bytes()).map_err(TablesError::file("replace", &path))
}

/// Removes what no longer is in use.
pub(crate) fn remove_others(dir: &Path, current: Option<u64>) -> Result<(), TablesError> {
    let failed = || TablesError::file("clear", dir);
    let kept = current.map(name_of);
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_kept = kept.as_ref().is_some_and(|kept| name.starts_with(kept));
        if name.starts_with(PREFIX) && !is_kept {
            fs::remove_file(entry.path()).map_err(failed())?;
        }
    }
    Ok(())
}

fn begin(
    config: &TablesConfig,
    key: &Arc<LocalKey>,
    generation: u64,
    rebuilt: Option<String>,
) -> Result<Database, TablesError> {
    let database = create(config, key, generation, None)?;
    make_current(&config.dir, generation)?;
    let marker = config.dir.join(DAMAGED_FILE);
    match fs::remove_file(&marker) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(TablesError::file("remove", &marker)(error)),
    }
    Ok(Database { rebuilt, ..database })
}

fn load(config: &TablesConfig, key: &Arc<LocalKey>, generation: u64) -> Result<Database, TablesError> {
    let path = path_of(&config.dir, generation);
    refuse_marked(&config.dir)?;
    if !path.exists() {
        return Err(TablesError::damaged("the database is missing"));
    }
    let mut connection = schema::open_writer(&path, false, config.synchronous)?;
    check(&connection)?;
    schema::migrate(&mut connection, &config.dir)?;
    check_lineage(&connection, config)?;
    let codec = Codec::new(Arc::clone(key), load_lookup(&connection, key)?);
    let (state, sessions) = load_state(&connection, &codec)?;
    let retention = load_retention(&connection, &codec)?;
    let purged = load_purged(&connection)?;
    let undone = Undone::load(&connection, &codec)?;
    put_meta(&connection, meta::IN_USE, &[1])?;
    Ok(Database { connection, path, generation, codec, retention, purged, undone, state, sessions, rebuilt: None })
}

fn refuse_marked(dir: &Path) -> Result<(), TablesError> {
    let marker = dir.join(DAMAGED_FILE);
    if !marker.exists() {
        return Ok(());
    }
    let reason = fs::read_to_string(&marker).map_err(TablesError::file("read", &marker))?;
    Err(TablesError::damaged(reason))
}

/// After an unclean stop the structure of the whole file is checked; what it takes grows with the file.
fn check(connection: &Connection) -> Result<(), TablesError> {
    let was_in_use = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get::<_, i64>(0))
        .map_err(TablesError::sqlite("look at the database"))?
        == 0
        || get_meta(connection, meta::IN_USE)?.is_some();
    if !was_in_use {
        return Ok(());
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(TablesError::sqlite("check the database"))?;
    if verdict == "ok" { Ok(()) } else { Err(TablesError::damaged(verdict)) }
}

fn check_lineage(connection: &Connection, config: &TablesConfig) -> Result<(), TablesError> {
    let found = get_meta(connection, meta::LINEAGE)?.ok_or_else(|| TablesError::damaged("the lineage is missing"))?;
    if found == config.lineage.0 {
        return Ok(());
    }
    let found = <[u8; 16]>::try_from(found).map_err(|_| TablesError::damaged("the lineage is malformed"))?;
    Err(TablesError::OtherLineage {
        dir: config.dir.clone(),
        found: Lineage(found).to_string(),
        expected: config.lineage.to_string(),
    })
}

fn load_lookup(connection: &Connection, key: &LocalKey) -> Result<[u8; 32], TablesError> {
    let sealed =
        get_meta(connection, meta::LOOKUP)?.ok_or_else(|| TablesError::damaged("the key of names is missing"))?;
    let plain =
        key.open(LOOKUP_CONTEXT, &sealed).map_err(|source| sealing("open", "the key of names".to_owned(), source))?;
    plain.try_into().map_err(|_| TablesError::damaged("the key of names is malformed"))
}

/// The saved state and its sessions, as one connection sees them.
pub(crate) fn load_state(
    connection: &Connection,
    codec: &Codec,
) -> Result<(Option<SavedState>, Vec<SavedSession>), TablesError> {
    let state = get_meta(connection, meta::APPLIED)?.map(|bytes| SavedState::decode(&bytes)).transpose()?;
    let failed = || TablesError::sqlite("read the sessions");
    let mut statement = connection.prepare("SELECT id, body FROM sessions ORDER BY id").map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let id = SessionId(EventId::from_u64(from_sql(row.get(0).map_err(failed())?)?));
        let sealed: Vec<u8> = row.get(1).map_err(failed())?;
        sessions.push((id, codec.open_session(id, &sealed)?));
    }
    Ok((state, sessions))
}

/// How much of the history is kept, as the rows say.
pub(crate) fn load_retention(connection: &Connection, codec: &Codec) -> Result<Retention, TablesError> {
    let heads = read::family(connection, Kind::Retention, RecordId::ROOT)?;
    let Some(head) = heads.iter().find(|head| head.is_live) else { return Ok(Retention::default()) };
    let missing = || TablesError::damaged("the retention has a place but no version");
    let sealed = read::newest(connection, head.id)?.ok_or_else(missing)?;
    let body = codec.open_body(sealed.version, head.id, sealed.previous, &sealed.body)?;
    body.row(sealed.version, head.id, sealed.previous)?.retention().ok_or_else(missing)
}

fn load_purged(connection: &Connection) -> Result<u64, TablesError> {
    let Some(bytes) = get_meta(connection, meta::PURGED)? else { return Ok(0) };
    let bytes = bytes.try_into().map_err(|_| TablesError::damaged("the place of the purge is malformed"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn current(dir: &Path) -> Result<Option<u64>, TablesError> {
    let path = dir.join(CURRENT_FILE);
    match fs::read_to_string(&path) {
        // Not a number: nothing that is there is in use, so it is all cleared away and derived again.
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TablesError::file("read", &path)(error)),
    }
}

fn random_lookup() -> Result<[u8; 32], TablesError> {
    let mut lookup = [0; 32];
    getrandom::fill(&mut lookup).map_err(TablesError::Random)?;
    Ok(lookup)
}

fn name_of(generation: u64) -> String {
    format!("{PREFIX}{generation:06}.sqlite")
}

pub(crate) fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(name_of(generation))
}

fn remove_database(path: &Path) -> Result<(), TablesError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        let file = PathBuf::from(file);
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(TablesError::file("remove", &file)(error)),
        }
    }
    Ok(())
}

/// An error with all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
