//! What a backup reads of a database: the versions after a revision, in one read transaction, up to about as many bytes as it
//! wants. Nobody waits for it: writers go on beside a reader.
//!
//! ```text
//!        what still stood then          everything
//!   -1 ───────────────────── oldest ────────────────────▶ versions      (oldest = the horizon when the chain began)
//! ```
//!
//! Versions are appended and never changed, so what several such reads give, one after the other and on whatever node, is what
//! one would have given; as long as the horizon doesn't pass what is still to be read. What nodes do not have in common is what lies
//! before the horizon and is let go of: one has deleted it, another not yet. So none of it is given, and the versions up to the oldest
//! revision can be divided too.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::{Digest, Machine};

use super::Tables;
use super::database::{self, load_retention, load_state};
use super::error::TablesError;
use super::read::last_of;
use super::schema::{self, from_sql, to_sql};
use super::shared::Shared;
use super::snapshots::{TravellingVersion, give_versions};
use super::undone::Undone;

const SIZES: &str = "SELECT version, length(body), id FROM versions WHERE version > ?1 ORDER BY version";

const HEAD: &str = "SELECT version, live FROM head WHERE id = ?1";

/// As [`super::read::AT`], the number alone.
const NEWEST_AT: &str = "\
    WITH RECURSIVE chain (version, previous) AS ( \
        SELECT v.version, v.previous FROM head h CROSS JOIN versions v ON v.version = h.version WHERE h.id = ?1 \
        UNION ALL \
        SELECT v.version, v.previous FROM chain c CROSS JOIN versions v ON v.version = c.previous WHERE c.version > ?2 \
    ) \
    SELECT version FROM chain WHERE version <= ?2";

/// Bytes of a version besides its body, roughly.
const VERSION_FIXED_BYTES: u64 = 32;

/// Versions after a revision: settled when this is made, read when they are asked for.
pub(crate) struct BackupSource {
    shared: Arc<Shared>,
    connection: Connection,
    after: Option<Revision>,
    /// The oldest revision that the chain can show.
    pub(crate) oldest: Revision,
    /// They are all versions up to this revision.
    pub(crate) last: Revision,
    /// The newest revision in the database.
    pub(crate) newest: Revision,
    /// Of all live rows at `last`; `None` where there is more: then nobody knows it.
    pub(crate) digest: Option<Digest>,
}

impl BackupSource {
    /// Begins the transaction. `after` is the last revision of a chain that is gone on with, and the oldest that it can show; `None` = a
    /// chain begins, with the oldest version there is. Gives `None` where nothing was applied after it.
    pub(crate) fn open(
        tables: &Tables,
        after: Option<(Revision, Revision)>,
        bytes_max: u64,
    ) -> Result<Option<Self>, TablesError> {
        let shared = Arc::clone(&tables.shared);
        let generation = shared.generation.load(std::sync::atomic::Ordering::Relaxed);
        let connection = schema::open_reader(&database::path_of(&shared.config.dir, generation))?;
        connection.execute_batch("BEGIN").map_err(TablesError::sqlite("begin to read a backup"))?;
        let (state, sessions) = load_state(&connection, &shared.codec)?;
        let Some(state) = state else { return Ok(None) };
        let (horizon, newest) = (load_retention(&connection, &shared.codec)?.horizon, state.revision());
        if let Some((last, oldest)) = after {
            // Before its oldest revision a chain holds what still stood then. Who hasn't come so far doesn't know what that is, and who
            // has let go of more doesn't have it.
            let needed = last.max(oldest);
            if needed > newest {
                return Err(TablesError::Future { revision: needed, applied: newest });
            }
            if needed < horizon {
                return Err(TablesError::Compacted { revision: Revision(last.0 + 1), horizon });
            }
            let undone = Undone::load(&connection, &shared.codec)?;
            undone.refuse(last)?;
            undone.refuse(needed)?;
            if last == newest {
                return Ok(None);
            }
        }
        let (after, oldest) = after.map_or((None, horizon), |(last, oldest)| (Some(last), oldest));
        let cut = cut(&connection, (after, oldest), bytes_max)?;
        let machine = Machine::restore(&state.machine, sessions.into_iter())
            .map_err(|source| TablesError::Undecodable { what: "the machine's state".to_owned(), source })?;
        let digest = cut.is_none().then(|| machine.rows_digest());
        Ok(Some(Self { shared, connection, after, oldest, last: cut.unwrap_or(newest), newest, digest }))
    }

    /// Gives every version that still stood at the oldest revision or is later, in version order.
    pub(crate) fn for_each_version<E: From<TablesError>>(
        &self,
        mut give: impl FnMut(&TravellingVersion) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut standing = Standing::at(&self.connection, self.oldest);
        give_versions(&self.connection, &self.shared, (start(self.after), last_of(self.last)), |given| {
            if standing.holds(given.version, given.id)? { give(given) } else { Ok(()) }
        })
    }
}

/// Which versions there are for whoever can't look back behind a revision, however much of the rest is deleted already: the later ones; and
/// of those up to it the newest of each record, unless that is a deletion and nothing came after it (ADR 17).
struct Standing<'a> {
    connection: &'a Connection,
    oldest: Revision,
    /// The newest up to `oldest`, of records that have later ones: else each of many versions would walk the same chain.
    newest: BTreeMap<RecordId, EventId>,
}

impl<'a> Standing<'a> {
    fn at(connection: &'a Connection, oldest: Revision) -> Self {
        Self { connection, oldest, newest: BTreeMap::new() }
    }

    fn holds(&mut self, version: EventId, id: RecordId) -> Result<bool, TablesError> {
        // Where nothing was ever let go of, that is so of everything.
        if self.oldest == Revision::default() || version.revision() > self.oldest {
            return Ok(true);
        }
        if let Some(newest) = self.newest.get(&id) {
            return Ok(*newest == version);
        }
        let failed = || TablesError::sqlite("look for what stood at the horizon");
        let missing = || TablesError::damaged(format!("version {version} of {id} belongs to no record"));
        let (key, last) = (to_sql(id.to_u64()), last_of(self.oldest));
        let mut head = self.connection.prepare_cached(HEAD).map_err(failed())?;
        let found = head.query_row([key], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)));
        let (head, is_live) = found.optional().map_err(failed())?.ok_or_else(missing)?;
        if head <= last {
            return Ok(is_live && head == to_sql(version.to_u64()));
        }
        let mut newest = self.connection.prepare_cached(NEWEST_AT).map_err(failed())?;
        let found = newest.query_row((key, last), |row| row.get::<_, i64>(0)).optional().map_err(failed())?;
        let newest = EventId::from_u64(from_sql(found.ok_or_else(missing)?)?);
        self.newest.insert(id, newest);
        Ok(newest == version)
    }
}

/// The revision after which about `bytes_max` bytes are full, where more revisions follow; a revision is never divided.
fn cut(
    connection: &Connection,
    (after, oldest): (Option<Revision>, Revision),
    bytes_max: u64,
) -> Result<Option<Revision>, TablesError> {
    let failed = || TablesError::sqlite("measure versions for a backup");
    let mut standing = Standing::at(connection, oldest);
    let mut statement = connection.prepare(SIZES).map_err(failed())?;
    let mut rows = statement.query([start(after)]).map_err(failed())?;
    let (mut bytes, mut full): (u64, Option<Revision>) = (0, None);
    while let Some(row) = rows.next().map_err(failed())? {
        let version = EventId::from_u64(from_sql(row.get(0).map_err(failed())?)?);
        if !standing.holds(version, RecordId::from_u64(from_sql(row.get(2).map_err(failed())?)?))? {
            continue;
        }
        let revision = version.revision();
        if full.is_some_and(|full| revision > full) {
            return Ok(full);
        }
        bytes += VERSION_FIXED_BYTES + from_sql(row.get(1).map_err(failed())?)?;
        if bytes >= bytes_max {
            full = Some(revision);
        }
    }
    Ok(None)
}

/// Every version that is wanted is larger than this.
fn start(after: Option<Revision>) -> i64 {
    after.map_or(-1, last_of)
}
