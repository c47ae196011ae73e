//! One group of entries as one transaction.
//!
//! Every version is appended; of each record that changed, the head is written once, as it is after the last of them. Its
//! place is written only where it changed, because that is what its index costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use zyflow_machine::event::Fact;
use zyflow_machine::id::{RecordId, SessionId};
use zyflow_machine::record::{Record, Status};

use super::codec::Codec;
use super::entry::Row;
use super::error::TablesError;
use super::group::Group;
use super::schema::{meta, put_meta, to_sql};
use super::state::SavedState;

/// What a transaction does to the head of one record.
struct HeadWrite<'a> {
    newest: &'a Arc<Row>,
    is_new: bool,
    is_moved: bool,
}

/// Writes a group: all of it or nothing.
pub(crate) fn write_group(connection: &mut Connection, codec: &Codec, group: &Group) -> Result<(), TablesError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(TablesError::sqlite("begin a transaction"))?;
    let heads = append_versions(&transaction, codec, group)?;
    write_heads(&transaction, codec, &heads)?;
    for (id, session) in &group.sessions {
        write_session(&transaction, codec, *id, session.as_deref())?;
    }
    write_state(&transaction, &group.state)?;
    transaction.commit().map_err(TablesError::sqlite("commit a transaction"))
}

/// Sets where in the log the tables are.
pub(crate) fn write_state(connection: &Connection, state: &SavedState) -> Result<(), TablesError> {
    put_meta(connection, meta::APPLIED, &state.encode())
}

/// Writes a session; `None` = deletes it.
pub(crate) fn write_session(
    connection: &Connection,
    codec: &Codec,
    id: SessionId,
    session: Option<&[u8]>,
) -> Result<(), TablesError> {
    let key = to_sql(id.0.to_u64());
    let written = match session {
        Some(bytes) => {
            let sealed = codec.seal_session(id, bytes)?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO sessions (id, body) VALUES (?1, ?2)")
                .and_then(|mut statement| statement.execute((key, sealed)))
        }
        None => connection
            .prepare_cached("DELETE FROM sessions WHERE id = ?1")
            .and_then(|mut statement| statement.execute([key])),
    };
    written.map(drop).map_err(TablesError::sqlite("write a session"))
}

fn append_versions<'a>(
    transaction: &Transaction<'_>,
    codec: &Codec,
    group: &'a Group,
) -> Result<BTreeMap<RecordId, HeadWrite<'a>>, TablesError> {
    let failed = || TablesError::sqlite("append a version");
    let mut append = transaction
        .prepare_cached("INSERT INTO versions (version, id, previous, body) VALUES (?1, ?2, ?3, ?4)")
        .map_err(failed())?;
    let mut heads: BTreeMap<RecordId, HeadWrite<'a>> = BTreeMap::new();
    for row in group.changes.iter().flat_map(|change| &change.rows) {
        let body = codec.seal_row(row)?;
        let previous = row.previous.map(|previous| to_sql(previous.to_u64()));
        append
            .execute((to_sql(row.stored.version.to_u64()), to_sql(row.id.to_u64()), previous, body))
            .map_err(failed())?;
        let head =
            heads.entry(row.id).or_insert(HeadWrite { newest: row, is_new: row.previous.is_none(), is_moved: false });
        head.newest = row;
        head.is_moved |= moves(&row.fact);
    }
    Ok(heads)
}

fn write_heads(
    transaction: &Transaction<'_>,
    codec: &Codec,
    heads: &BTreeMap<RecordId, HeadWrite<'_>>,
) -> Result<(), TablesError> {
    let failed = || TablesError::sqlite("write the head of a record");
    for (id, head) in heads {
        let stored = &head.newest.stored;
        let is_live = stored.record.is_some();
        let (key, version) = (to_sql(id.to_u64()), to_sql(stored.version.to_u64()));
        let status = status_of(stored.record.as_ref());
        let place = || codec.place(stored.kind, stored.parent, &stored.order);
        let written = if head.is_new {
            let parent = to_sql(stored.parent.to_u64());
            transaction.prepare_cached(INSERT_HEAD).and_then(|mut statement| {
                statement.execute((key, stored.kind.code(), parent, place(), is_live, status, version))
            })
        } else if head.is_moved {
            transaction
                .prepare_cached("UPDATE head SET ord = ?2, live = ?3, status = ?4, version = ?5 WHERE id = ?1")
                .and_then(|mut statement| statement.execute((key, place(), is_live, status, version)))
        } else {
            transaction
                .prepare_cached("UPDATE head SET live = ?2, status = ?3, version = ?4 WHERE id = ?1")
                .and_then(|mut statement| statement.execute((key, is_live, status, version)))
        };
        if written.map_err(failed())? != 1 {
            return Err(TablesError::damaged(format!("the head of {id} is missing")));
        }
    }
    Ok(())
}

/// Also what a snapshot's installation does.
pub(crate) const INSERT_HEAD: &str =
    "INSERT INTO head (id, kind, parent, ord, live, status, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Can the order of the record be another after this?
pub(crate) fn moves(fact: &Fact) -> bool {
    match fact {
        Fact::BlockMoved { .. }
        | Fact::ChangeMoved { .. }
        | Fact::BlockRestored { .. }
        | Fact::ChangeRestored { .. } => true,
        Fact::ProjectCreated { .. }
        | Fact::PolicySet(_)
        | Fact::ChangeCreated { .. }
        | Fact::ChangeDeleted
        | Fact::BlockInserted { .. }
        | Fact::BlockTextSet { .. }
        | Fact::BlockMarked { .. }
        | Fact::BlockDeleted
        | Fact::TaskSet { .. }
        | Fact::Claimed { .. }
        | Fact::Released
        | Fact::ConflictRecorded(_)
        | Fact::ConflictSettled(_)
        | Fact::Commented(_)
        | Fact::PointCreated(_)
        | Fact::PointRemoved
        | Fact::ConflictRestored { .. }
        | Fact::RetentionCreated(_)
        | Fact::RetentionSet(_)
        | Fact::HorizonMoved { .. }
        | Fact::Restored(_) => false,
    }
}

/// The status of a live task, as the head table has it for questions in SQL.
pub(crate) fn status_of(record: Option<&Record>) -> Option<u8> {
    let Some(Record::Block(block)) = record else { return None };
    block.task.as_ref().map(|task| match task.status.value {
        Status::Todo => 0,
        Status::InProgress => 1,
        Status::Review => 2,
        Status::Blocked => 3,
        Status::Done => 4,
        Status::Cancelled => 5,
        Status::Archived => 6,
    })
}
