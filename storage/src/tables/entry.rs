//! What goes into the tables and what comes out: entries, rows, changes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zyflow_machine::command::Batch;
use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::record::{Record, Retention};
use zyflow_machine::view::Stored;

/// Where an entry stands in the log: a log id, without openraft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The term of the leader that made it.
    pub term: u64,
    /// The leader that made it.
    pub leader: u64,
    /// Its log index: its revision once it is applied.
    pub index: u64,
}

impl Position {
    /// The revision that the entry makes.
    #[must_use]
    pub fn revision(self) -> Revision {
        Revision(self.index)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.leader, self.index)
    }
}

/// A committed entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What it holds.
    pub payload: EntryPayload,
}

/// What an entry holds.
#[derive(Clone, Debug)]
pub enum EntryPayload {
    /// Nothing: a leader's first entry.
    Blank,
    /// A membership, opaque here.
    Membership(Vec<u8>),
    /// Commands.
    Batch(Batch),
}

/// A version of a record, with what happened and who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which record.
    pub id: RecordId,
    /// What it is from now on.
    pub stored: Arc<Stored>,
    /// The version before, where there was one.
    pub previous: Option<EventId>,
    /// What happened.
    pub fact: Fact,
    /// Who did it, and when.
    pub provenance: Arc<Provenance>,
}

impl Row {
    /// The retention from here on, where the row is about that.
    pub(super) fn retention(&self) -> Option<Retention> {
        match &self.stored.record {
            Some(Record::Retention(retention)) => Some(*retention),
            _ => None,
        }
    }
}

/// What one applied entry changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry's revision.
    pub revision: Revision,
    /// In version order; empty where nothing changed.
    pub rows: Vec<Arc<Row>>,
}

/// Bytes that a row takes in memory, roughly: what it carries and what carries it.
pub(super) fn weight(row: &Row) -> usize {
    // The record is kept twice while it is new (as a version and in its fact), its fixed part is about 1 KiB.
    const FIXED_BYTES: usize = 1024;
    FIXED_BYTES + 2 * text_bytes(&row.stored) + row.stored.order.len()
}

/// Bytes of the texts of a version.
pub(super) fn text_bytes(stored: &Stored) -> usize {
    let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    match &stored.record {
        None | Some(Record::Restore(_) | Record::Retention(_)) => 0,
        Some(Record::Project(project)) => project.name.len() + project.files.iter().map(String::len).sum::<usize>(),
        Some(Record::Change(change)) => change.path.len(),
        Some(Record::Block(block)) => {
            let task = block
                .task
                .as_ref()
                .map_or(0, |task| task.note.value.len() + task.labels.value.iter().map(String::len).sum::<usize>());
            block.lead.len() + block.mark.value.len() + block.text.value.len() + task
        }
        Some(Record::Conflict(conflict)) => {
            let settled = conflict.settled.as_ref().map_or(0, |settled| of(&settled.settlement.value));
            of(&conflict.base) + of(&conflict.spec) + of(&conflict.runtime) + settled
        }
        Some(Record::Comment(comment)) => comment.text.len(),
        Some(Record::Point(point)) => point.name.len() + point.note.len(),
    }
}
