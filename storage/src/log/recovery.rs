//! What a start accepts, and what it refuses. The reasons and the evidence are in docs/adr/0003-log-recovery.md.
//!
//! ```text
//! WAL      batch 7   batch 8   batch 9   ##torn##
//!          synced    synced    written, not synced: may be whole, torn or missing
//! ```
//!
//! One thread writes batches and syncs them in order, so after a power cut on an honest disk every synced batch is
//! readable, and damage can only be behind them: that is a healthy torn tail, and it starts. A batch that was synced
//! and can't be read means that the disk lost it, and then acknowledged entries or votes may be gone: that is refused.
//! A synced batch is known by two witnesses: the promises (another file), and a later batch that is still readable and
//! says `synced_through`. All looking happens before the database is opened for writing, which would destroy the second
//! witness; so a refusal repeats itself at every start.

use std::path::Path;

use rocksdb::DB;

use super::{
    error::LogError,
    promises::Promise,
    rocks,
    stored::{self, Mark},
    view::View,
};
use crate::types::Vote;

/// Refuses a log that lost what was synced. Changes nothing.
pub(crate) fn look(dir: &Path, write_buffer_bytes: usize, promise: &Promise) -> Result<(), LogError> {
    let found = mark(&rocks::open_to_look(dir, write_buffer_bytes)?)?;
    let behind = mark(&rocks::open_to_look_behind_damage(dir, write_buffer_bytes)?)?;
    let recovered = found.number;
    for (synced, evidence) in [
        (promise.synced_through, "the file of promises"),
        (behind.synced_through, "a later batch, readable behind the damage,"),
    ] {
        if recovered < synced {
            return Err(LogError::LostSyncedWrites { recovered, synced, evidence });
        }
    }
    Ok(())
}

/// Reads the whole log once: no hole, no damaged entry, the end where the last batch says it is.
pub(crate) fn load(db: &DB, promise: &Promise, memory_bytes: usize) -> Result<(Mark, View), LogError> {
    let mark = mark(db)?;
    let purged = rocks::get(db, stored::PURGED, |value| stored::decode_log_id(stored::PURGED, value))?.flatten();
    let mut view = View::new(purged, memory_bytes);
    rocks::walk(db, 0..u64::MAX, |index, entry| {
        match view.append(&[entry]) {
            Ok(()) => {}
            Err(LogError::NotNext { last: Some(last), .. }) if index > last.index => {
                return Err(LogError::Hole { expected: last.index + 1, found: Some(index) });
            }
            Err(error) => return Err(error),
        }
        // Opening has written everything recovered to table files and synced them.
        view.set_durable(index, 0);
        Ok(true)
    })?;
    if view.last() != mark.last {
        return Err(LogError::WrongTail { recorded: mark.last, found: view.last() });
    }
    view.committed =
        rocks::get(db, stored::COMMITTED, |value| stored::decode_log_id(stored::COMMITTED, value))?.flatten();
    view.vote = rocks::get(db, stored::VOTE, stored::decode_vote)?;
    keeps_promised_vote(view.vote, promise.vote)?;
    Ok((mark, view))
}

fn keeps_promised_vote(recovered: Option<Vote>, promised: Option<Vote>) -> Result<(), LogError> {
    match promised {
        Some(promised) if !recovered.is_some_and(|recovered| recovered >= promised) => {
            Err(LogError::LostVote { recovered, promised })
        }
        _ => Ok(()),
    }
}

fn mark(db: &DB) -> Result<Mark, LogError> {
    rocks::get(db, stored::MARK, Mark::decode)?.ok_or(LogError::Missing { what: "mark" })
}
