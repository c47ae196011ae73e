//! What a backup reads of a database: the versions after a revision, in one read transaction, up to about as many bytes as it
//! wants. Nobody waits for it: writers go on beside a reader.
//!
//! Versions are appended and never changed, so what several such reads give, one after the other and on whatever node, is what
//! one would have given; as long as the horizon doesn't pass what is still to be read.

use std::sync::Arc;

use rusqlite::Connection;
use zyflow_machine::id::{EventId, Revision};
use zyflow_machine::{Digest, Machine};

use super::Tables;
use super::database::{self, load_retention, load_state};
use super::error::TablesError;
use super::read::last_of;
use super::schema::{self, from_sql};
use super::shared::Shared;
use super::snapshots::{TravellingVersion, give_versions};
use super::undone::Undone;

const SIZES: &str = "SELECT version, length(body) FROM versions WHERE version > ?1 ORDER BY version";

/// Bytes of a version besides its body, roughly.
const VERSION_FIXED_BYTES: u64 = 32;

/// Versions after a revision: settled when this is made, read when they are asked for.
pub(crate) struct BackupSource {
    shared: Arc<Shared>,
    connection: Connection,
    after: Option<Revision>,
    /// The oldest revision that can be read here.
    pub(crate) horizon: Revision,
    /// They are all versions up to this revision.
    pub(crate) last: Revision,
    /// The newest revision in the database.
    pub(crate) newest: Revision,
    /// Of all live rows at `last`; `None` where there is more: then nobody knows it.
    pub(crate) digest: Option<Digest>,
}

impl BackupSource {
    /// Begins the transaction. `after` = `None` begins with the oldest version there is. `None` = nothing was applied after it.
    pub(crate) fn open(tables: &Tables, after: Option<Revision>, bytes_max: u64) -> Result<Option<Self>, TablesError> {
        let shared = Arc::clone(&tables.shared);
        let generation = shared.generation.load(std::sync::atomic::Ordering::Relaxed);
        let connection = schema::open_reader(&database::path_of(&shared.config.dir, generation))?;
        connection.execute_batch("BEGIN").map_err(TablesError::sqlite("begin to read a backup"))?;
        let (state, sessions) = load_state(&connection, &shared.codec)?;
        let Some(state) = state else { return Ok(None) };
        let (horizon, newest) = (load_retention(&connection, &shared.codec)?.horizon, state.revision());
        if let Some(after) = after {
            if after > newest {
                return Err(TablesError::Future { revision: after, applied: newest });
            }
            if after < horizon {
                return Err(TablesError::Compacted { revision: Revision(after.0 + 1), horizon });
            }
            Undone::load(&connection, &shared.codec)?.refuse(after)?;
            if after == newest {
                return Ok(None);
            }
        }
        let cut = cut(&connection, (after, horizon), bytes_max)?;
        let machine = Machine::restore(&state.machine, sessions.into_iter())
            .map_err(|source| TablesError::Undecodable { what: "the machine's state".to_owned(), source })?;
        let digest = cut.is_none().then(|| machine.rows_digest());
        Ok(Some(Self { shared, connection, after, horizon, last: cut.unwrap_or(newest), newest, digest }))
    }

    /// Gives every version, in version order.
    pub(crate) fn for_each_version<E: From<TablesError>>(
        &self,
        give: impl FnMut(&TravellingVersion) -> Result<(), E>,
    ) -> Result<(), E> {
        give_versions(&self.connection, &self.shared, (start(self.after), last_of(self.last)), give)
    }
}

/// The revision after which about `bytes_max` bytes are full, where more revisions follow; a revision is never divided. Nor is what is at
/// or before the horizon, as some of it may be deleted before the rest is read.
fn cut(
    connection: &Connection,
    (after, horizon): (Option<Revision>, Revision),
    bytes_max: u64,
) -> Result<Option<Revision>, TablesError> {
    let failed = || TablesError::sqlite("measure versions for a backup");
    let mut statement = connection.prepare(SIZES).map_err(failed())?;
    let mut rows = statement.query([start(after)]).map_err(failed())?;
    let (mut bytes, mut full): (u64, Option<Revision>) = (0, None);
    while let Some(row) = rows.next().map_err(failed())? {
        let revision = EventId::from_u64(from_sql(row.get(0).map_err(failed())?)?).revision();
        if full.is_some_and(|full| revision > full) {
            return Ok(full);
        }
        bytes += VERSION_FIXED_BYTES + from_sql(row.get(1).map_err(failed())?)?;
        if bytes >= bytes_max && revision >= horizon {
            full = Some(revision);
        }
    }
    Ok(None)
}

/// Every version that is wanted is larger than this.
fn start(after: Option<Revision>) -> i64 {
    after.map_or(-1, last_of)
}
