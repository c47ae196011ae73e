//! Reads a chain with the key, and does it all again: each version must be what its fact makes of the version before, and the rows must
//! add up to the digest at the end of each settled object.
//!
//! The newest version of each record is kept in a working database of its own, sealed under a key of its own, in a folder that the
//! caller gives and removes: so a state of any size is replayed in a few MiB of memory. A record's version before the first one that is
//! kept is unknown, and what its fact made of it is believed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use zyflow_crypto::{KeyRing, LocalKey};
use zyflow_machine::Digest;
use zyflow_machine::event::Event;
use zyflow_machine::evolve::evolve;
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::record::{Record, Restore, Retention};

use super::archive::{Archive, Object};
use super::object::Reader;
use super::{BackupError, object};
use crate::tables::{Body, Codec, Row, TravellingVersion, chain};

const FILE: &str = "replay.sqlite";
const KEY_FILE: &str = "replay.key";

/// Kibibytes of pages that are kept in memory: 32 MiB.
const CACHE_KIB: u32 = 32 << 10;

/// Which state is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// That at a revision.
    Revision(Revision),
    /// The newest none of whose events is later.
    Time(ClusterTime),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision(revision) => write!(f, "revision {revision}"),
            Self::Time(time) => write!(f, "{} ms since 1970", time.0),
        }
    }
}

/// What was found in a backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Objects that were replayed.
    pub objects: usize,
    /// Versions in them.
    pub versions: u64,
    /// The oldest revision that can be restored.
    pub oldest: Revision,
    /// The newest revision that can be restored.
    pub newest: Revision,
    /// The digest of the rows there.
    pub digest: Digest,
    /// The cluster that it was made of, when its last object was made.
    pub cluster: String,
}

impl Archive {
    /// Replays every chain; `working` is a folder for what is needed meanwhile. Says what the newest chain holds, and counts all.
    ///
    /// # Errors
    /// Anything in it is not what was backed up, or the key is another.
    pub fn verify(&self, ring: &KeyRing, working: &Path) -> Result<Verified, BackupError> {
        let (mut objects, mut versions, mut newest) = (0, 0, None);
        for chain in self.chains() {
            let replayed = replay(chain, ring, working, None)?;
            objects += chain.len();
            versions += replayed.versions;
            newest = replayed.end.map(|end| (end, replayed.oldest, replayed.cluster)).or(newest);
        }
        let (end, oldest, cluster) = newest.ok_or(BackupError::Unsettled)?;
        Ok(Verified { objects, versions, oldest, newest: end.revision, digest: end.digest, cluster })
    }
}

/// A state that was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) digest: Digest,
    /// The time of the newest event.
    pub(super) time: Option<ClusterTime>,
    /// The record that says what is kept, with its newest version.
    pub(super) retention: Option<(RecordId, EventId, Retention)>,
}

/// What came of a chain.
pub(super) struct Replayed {
    pub(super) versions: u64,
    pub(super) oldest: Revision,
    /// The time of the newest event at the oldest revision, or of the first event of all.
    pub(super) oldest_time: Option<ClusterTime>,
    /// The last settled state; `None` = there is none.
    pub(super) end: Option<State>,
    /// When the last settled object was made, milliseconds since 1970.
    pub(super) made_ms: u64,
    /// The state at the moment that was wanted, if that is within the chain.
    pub(super) cut: Option<State>,
    /// Restores that the cluster had behind it, each with its own revision.
    pub(super) restores: Vec<(Revision, Restore)>,
    pub(super) cluster: String,
}

/// Replays a chain to its last object.
pub(super) fn replay(
    chain: &[Object],
    ring: &KeyRing,
    working: &Path,
    wanted: Option<Moment>,
) -> Result<Replayed, BackupError> {
    let oldest = Revision(chain.first().map_or(0, |base| base.checked.header.oldest));
    let mut replay = Replay {
        newest: Newest::create(working, ring)?,
        oldest,
        last: None,
        state: State { revision: Revision::default(), digest: Digest::ZERO, time: None, retention: None },
        wanted,
        came: Replayed {
            versions: 0,
            oldest,
            oldest_time: None,
            end: None,
            made_ms: 0,
            cut: None,
            restores: Vec::new(),
            cluster: String::new(),
        },
    };
    for object in chain {
        replay.object(object, ring)?;
    }
    replay.newest.remove(working)?;
    Ok(replay.came)
}

struct Replay {
    newest: Newest,
    oldest: Revision,
    last: Option<EventId>,
    state: State,
    /// Until it was passed.
    wanted: Option<Moment>,
    came: Replayed,
}

impl Replay {
    fn object(&mut self, given: &Object, ring: &KeyRing) -> Result<(), BackupError> {
        let name = given.name();
        let (mut reader, object::Contents { cluster, digest, .. }) = Reader::open(given.open()?, &name, ring)?;
        let header = reader.header().clone();
        self.newest.begin()?;
        while let Some(version) = reader.next()? {
            let revision = version.version.revision();
            if !(header.first..=header.last).contains(&revision.0) {
                return Err(BackupError::damaged(&name, "it holds versions of other revisions than it says"));
            }
            self.step(&version, &name)?;
        }
        self.newest.commit()?;
        if reader.finish()? != given.checked {
            return Err(BackupError::damaged(&name, "it changed while it was read"));
        }
        self.state.revision = Revision(header.last);
        if let Some(digest) = digest.map(Digest::from_bytes) {
            if digest != self.state.digest {
                let found = self.state.digest;
                let reason = format!("its rows add up to {found} and not to {digest}");
                return Err(BackupError::damaged(&name, reason));
            }
            self.came.end = Some(self.state);
            self.came.made_ms = header.made_ms;
            self.came.cluster = cluster;
            // A moment after the last version and before the object's end.
            if let Some(Moment::Revision(revision)) = self.wanted
                && revision.0 <= header.last
            {
                self.cut_at(revision);
            }
        }
        Ok(())
    }

    fn step(&mut self, given: &TravellingVersion, name: &str) -> Result<(), BackupError> {
        let damaged = |what: &str| BackupError::damaged(name, format!("version {} {what}", given.version));
        if self.last >= Some(given.version) {
            return Err(damaged("is out of order"));
        }
        let row = given.body.row(given.version, given.id, given.previous);
        let row = row.map_err(|error| damaged(&format!("can't be read: {}", chain(&error))))?;
        let (revision, time) = (given.version.revision(), row.provenance.time);
        if self.state.time > Some(time) {
            return Err(damaged("is older than the one before it"));
        }
        let is_passed = match self.wanted {
            Some(Moment::Revision(wanted)) => revision > wanted,
            Some(Moment::Time(wanted)) => time > wanted,
            None => false,
        };
        if is_passed {
            let wanted = match self.wanted {
                Some(Moment::Revision(wanted)) => wanted,
                Some(Moment::Time(_)) | None => Revision(revision.0 - 1),
            };
            self.cut_at(wanted);
        }
        let before = self.newest.get(given.id)?;
        self.compare(given, &row, before.as_ref()).map_err(damaged)?;
        if let Some((version, body)) = &before
            && body.stored(*version)?.record.is_some()
        {
            self.state.digest = self.state.digest.remove(Digest::of_encoded_row(given.id, body.encoded_record()?));
        }
        if row.stored.record.is_some() {
            self.state.digest = self.state.digest.add(Digest::of_encoded_row(given.id, given.body.encoded_record()?));
        }
        if let Some(Record::Restore(restore)) = &row.stored.record {
            self.came.restores.push((revision, *restore));
        }
        if let Some(Record::Retention(retention)) = &row.stored.record {
            self.state.retention = Some((given.id, given.version, *retention));
        }
        if revision <= self.oldest || self.came.oldest_time.is_none() {
            self.came.oldest_time = Some(time);
        }
        self.newest.put(given)?;
        (self.last, self.state.time) = (Some(given.version), Some(time));
        self.came.versions += 1;
        Ok(())
    }

    /// Notes the state before the next version as that at `revision`. Nothing where that is before the oldest one.
    fn cut_at(&mut self, revision: Revision) {
        self.wanted = None;
        if revision >= self.oldest {
            self.came.cut = Some(State { revision, ..self.state });
        }
    }

    fn compare(
        &self,
        given: &TravellingVersion,
        row: &Row,
        before: Option<&(EventId, Body)>,
    ) -> Result<(), &'static str> {
        let missing = "doesn't follow the version before it of its record";
        let stored = match (before, given.previous) {
            (Some((version, _)), Some(previous)) if *version != previous => return Err(missing),
            (Some((version, body)), Some(_)) => {
                Some(body.stored(*version).map_err(|_| "follows a version that can't be read")?)
            }
            (None, None) => None,
            // What was before the oldest revision isn't kept.
            (None, Some(previous)) if previous.revision() <= self.oldest => return Ok(()),
            (None, Some(_)) | (Some(_), None) => return Err(missing),
        };
        let event = Event { id: given.version, record: given.id, fact: row.fact.clone() };
        let made = evolve(event, stored.as_ref()).map_err(|_| "tells of what can't have happened")?;
        let is_same = made.record == row.stored.record
            && (made.kind, made.parent, &made.order) == (row.stored.kind, row.stored.parent, &row.stored.order);
        if is_same { Ok(()) } else { Err("is not what its event makes of the version before it") }
    }
}

/// The newest version of each record so far.
struct Newest {
    connection: Connection,
    codec: Codec,
}

impl Newest {
    fn create(working: &Path, ring: &KeyRing) -> Result<Self, BackupError> {
        // What an earlier replay left that ended badly is of no use, and may be under another key.
        remove_left(working)?;
        let key = LocalKey::create_or_load(&working.join(KEY_FILE), ring)?;
        let connection =
            Connection::open(working.join(FILE)).map_err(BackupError::working("open the working database"))?;
        let setup = format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB}; \
             PRAGMA locking_mode = EXCLUSIVE; \
             CREATE TABLE newest (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, previous INTEGER, body BLOB NOT NULL) STRICT;"
        );
        connection.execute_batch(&setup).map_err(BackupError::working("set up the working database"))?;
        Ok(Self { connection, codec: Codec::new(Arc::new(key), [0; 32]) })
    }

    fn begin(&self) -> Result<(), BackupError> {
        self.connection.execute_batch("BEGIN").map_err(BackupError::working("begin"))
    }

    fn commit(&self) -> Result<(), BackupError> {
        self.connection.execute_batch("COMMIT").map_err(BackupError::working("commit"))
    }

    fn get(&self, id: RecordId) -> Result<Option<(EventId, Body)>, BackupError> {
        let failed = || BackupError::working("read a version");
        let mut statement = self
            .connection
            .prepare_cached("SELECT version, previous, body FROM newest WHERE id = ?1")
            .map_err(failed())?;
        let found = statement.query_row([sql(id.to_u64())], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Vec<u8>>(2)?))
        });
        let Some((version, previous, sealed)) = found.optional().map_err(failed())? else { return Ok(None) };
        let version = EventId::from_u64(version.cast_unsigned());
        let previous = previous.map(|previous| EventId::from_u64(previous.cast_unsigned()));
        Ok(Some((version, self.codec.open_body(version, id, previous, &sealed)?)))
    }

    fn put(&self, given: &TravellingVersion) -> Result<(), BackupError> {
        let sealed = self.codec.seal_body(given.version, given.id, given.previous, given.body.plain())?;
        let (id, version) = (sql(given.id.to_u64()), sql(given.version.to_u64()));
        let previous = given.previous.map(|previous| sql(previous.to_u64()));
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO newest (id, version, previous, body) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut put| put.execute((id, version, previous, sealed)))
            .map(drop)
            .map_err(BackupError::working("keep a version"))
    }

    fn remove(self, working: &Path) -> Result<(), BackupError> {
        drop(self.connection);
        for file in [FILE, KEY_FILE] {
            let path = working.join(file);
            fs_err::remove_file(&path).map_err(BackupError::file("remove", &path))?;
        }
        Ok(())
    }
}

fn remove_left(working: &Path) -> Result<(), BackupError> {
    for file in [FILE, KEY_FILE] {
        let path = working.join(file);
        match fs_err::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::file("remove", &path)(error)),
        }
    }
    Ok(())
}

/// Ids are at most 63 bits long, which the reader has checked.
fn sql(id: u64) -> i64 {
    id.cast_signed()
}
