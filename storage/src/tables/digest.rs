//! The digest of what SQLite holds, from SQLite alone.
//!
//! The machine keeps its digest up to date change by change, so it only proves that it was consistent with itself. This one reads
//! every live record and session back from disk, opens them, and adds them up: a lost write, a wrong head, a stale page or a
//! record that no longer opens shows here.

use rusqlite::Connection;
use zyflow_machine::Digest;
use zyflow_machine::id::RecordId;
use zyflow_machine::session::digest_of_saved;

use super::codec::Codec;
use super::database::load_state;
use super::error::TablesError;
use super::read::{SealedVersion, raw_version};
use super::schema::from_sql;
use super::state::SavedState;

const LIVE: &str = "\
    SELECT v.version, v.previous, v.body, h.id FROM head h JOIN versions v ON v.version = h.version WHERE h.live = 1";

/// Rows between two looks at whether to go on.
const ROWS_PER_LOOK: usize = 1_024;

/// The state that the database is at and its digest, in one read transaction; of the state, `None` = nothing was applied yet.
///
/// `begun` is told the state before the rows are read; `go_on` is told how many rows were read since it was last asked, may take its
/// time, and ends the reading by `false`: then there is no result.
pub(crate) fn recompute(
    connection: &Connection,
    codec: &Codec,
    begun: impl FnOnce(Option<&SavedState>),
    mut go_on: impl FnMut(usize) -> bool,
) -> Result<Option<(Option<SavedState>, Digest)>, TablesError> {
    let failed = || TablesError::sqlite("read all records");
    let transaction = connection.unchecked_transaction().map_err(failed())?;
    let (state, sessions) = load_state(&transaction, codec)?;
    begun(state.as_ref());
    let mut digest = Digest::ZERO;
    let mut statement = transaction.prepare(LIVE).map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    let mut read = 0;
    while let Some(row) = rows.next().map_err(failed())? {
        read += 1;
        if read % ROWS_PER_LOOK == 0 && !go_on(ROWS_PER_LOOK) {
            return Ok(None);
        }
        let sealed = SealedVersion::from_raw(raw_version(row).map_err(failed())?)?;
        let id = RecordId::from_u64(from_sql(row.get(3).map_err(failed())?)?);
        let body = codec.open_body(sealed.version, id, sealed.previous, &sealed.body)?;
        digest = digest.add(Digest::of_encoded_row(id, body.encoded_record()?));
    }
    for (id, bytes) in sessions {
        let part = digest_of_saved(id, &bytes)
            .map_err(|source| TablesError::Undecodable { what: format!("session {}", id.0), source })?;
        digest = digest.add(part);
    }
    Ok(Some((state, digest)))
}
