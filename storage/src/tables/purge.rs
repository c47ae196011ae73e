//! Deletes from SQLite what the history lets go of (docs/adr/0017), some at a time, behind the horizon.
//!
//! ```text
//!      ... | deleted already |  being looked at  | the horizon |  kept ...
//!          0 ------------ purged ------------- last of horizon ----------> versions
//!
//!   each version v between `purged` and the horizon, in order:
//!     the one before it was replaced by the horizon          -> deleted
//!     v is a deletion, and the newest of its record          -> deleted, and the record with it
//! ```
//!
//! Each version is looked at once, when it comes to lie behind the horizon, so a purge costs what it deletes and not what there is.
//! Nothing that is deleted here is found by any read ([`zyflow_machine::view::is_gone`]), so nobody can tell when it happens; a reader that
//! is on its way looks at the horizon again after it has read. The place moves in the transaction of the deletions.

use rusqlite::{Connection, TransactionBehavior};
use zyflow_machine::id::{RecordId, Revision};

use super::error::TablesError;
use super::read::last_of;
use super::schema::{from_sql, meta, put_meta, to_sql};

/// Versions looked at in one transaction: some ten milliseconds, which a group of entries may have to wait.
const VERSIONS_AT_ONCE: i64 = 1_000;

/// How far the deleting has come.
#[derive(Debug)]
pub(crate) struct Purge {
    /// As of what is in SQLite.
    pub(crate) horizon: Revision,
    /// The last version that was looked at.
    purged: i64,
}

const NEXT: &str = "\
    SELECT version, previous, id FROM versions WHERE version > ?1 AND version <= ?2 ORDER BY version LIMIT ?3";
const DELETE_VERSION: &str = "DELETE FROM versions WHERE version = ?1";
const DELETE_HEAD: &str = "DELETE FROM head WHERE id = ?1 AND version = ?2 AND live = 0";

impl Purge {
    /// Goes on behind `purged`.
    pub(crate) fn new(horizon: Revision, purged: u64) -> Self {
        Self { horizon, purged: to_sql(purged) }
    }

    /// Whether there may be something to delete.
    pub(crate) fn is_due(&self) -> bool {
        self.horizon > Revision::default() && self.purged < last_of(self.horizon)
    }

    /// Deletes some; gives the records that are gone with it.
    pub(crate) fn step(&mut self, connection: &mut Connection) -> Result<Vec<RecordId>, TablesError> {
        let failed = || TablesError::sqlite("delete what the history lets go of");
        let last = last_of(self.horizon);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed())?;
        let mut gone = Vec::new();
        let purged = {
            let mut next = transaction.prepare_cached(NEXT).map_err(failed())?;
            let mut delete_version = transaction.prepare_cached(DELETE_VERSION).map_err(failed())?;
            let mut delete_head = transaction.prepare_cached(DELETE_HEAD).map_err(failed())?;
            let found: Vec<(i64, Option<i64>, i64)> = next
                .query_map((self.purged, last, VERSIONS_AT_ONCE), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .and_then(Iterator::collect)
                .map_err(failed())?;
            let is_all = i64::try_from(found.len()).unwrap_or(i64::MAX) < VERSIONS_AT_ONCE;
            for (version, previous, id) in &found {
                if let Some(previous) = previous {
                    delete_version.execute([previous]).map_err(failed())?;
                }
                if delete_head.execute((id, version)).map_err(failed())? == 1 {
                    delete_version.execute([version]).map_err(failed())?;
                    gone.push(RecordId::from_u64(from_sql(*id)?));
                }
            }
            if is_all { last } else { found.last().map_or(last, |(version, _, _)| *version) }
        };
        put_meta(&transaction, meta::PURGED, &from_sql(purged)?.to_be_bytes())?;
        transaction.commit().map_err(failed())?;
        self.purged = purged;
        if !self.is_due() {
            tracing::info!(horizon = self.horizon.0, "deleted what the history lets go of");
        }
        Ok(gone)
    }
}
