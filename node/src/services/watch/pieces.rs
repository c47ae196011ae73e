//! A revision of many rows, converted piece by piece: a rollback of a hundred thousand records is one revision, and its events are
//! never in memory all at once.
//!
//! ```text
//!   rows       |----- 256 -----|----- 256 -----|-- ..
//!   commands   |-- a --|------------- b -------------|-- ..
//!                                ^ a piece may begin within a command: where that began is handed on
//! ```
//!
//! Not here: where the events go. Invariant: the pieces together are what [`Filter::events`] makes of the whole.

use std::sync::Arc;

use zyflow_api::v1::Event;
use zyflow_machine::id::EventId;
use zyflow_storage::tables::{Change, Row, TablesError, TablesView};

use super::filter::Filter;
use super::follower::ROWS_AT_ONCE;

/// See the module.
pub(super) struct Pieces {
    change: Arc<Change>,
    /// Rows that were converted.
    done: usize,
    /// The first event of the command that the last converted row belongs to.
    command: Option<EventId>,
}

impl Pieces {
    pub(super) fn new(change: Arc<Change>) -> Self {
        Self { change, done: 0, command: None }
    }

    pub(super) fn is_over(&self) -> bool {
        self.done >= self.change.rows.len()
    }

    /// The events of the next rows that the watch is about.
    pub(super) fn next(&mut self, filter: &Filter, view: &TablesView) -> Result<Vec<Event>, TablesError> {
        let rows: Vec<Arc<Row>> = self.change.rows.iter().skip(self.done).take(ROWS_AT_ONCE).cloned().collect();
        let (Some(first), Some(last)) = (rows.first().cloned(), rows.last().cloned()) else { return Ok(Vec::new()) };
        let before = self.done.checked_sub(1).and_then(|before| self.change.rows.get(before));
        let is_within = before.is_some_and(|before| before.provenance == first.provenance);
        let command = self.command.filter(|_| is_within).unwrap_or(first.stored.version);
        let of_last = rows.iter().rev().take_while(|row| row.provenance == last.provenance).last();
        let begun = of_last.map_or(last.stored.version, |row| row.stored.version);
        self.command = Some(if begun == first.stored.version { command } else { begun });
        self.done += rows.len();

        let piece = Change { revision: self.change.revision, rows };
        let mut events = filter.events(view, &piece)?;
        let (shown, wanted) = (first.stored.version.to_u64(), command.to_u64());
        for event in events.iter_mut().take_while(|event| event.correlation == shown) {
            event.correlation = wanted;
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::watch;
    use zeroize::Zeroizing;
    use zyflow_api::v1::WatchRequest;
    use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
    use zyflow_machine::command::{Author, Batch, Body, Command, NewBlock};
    use zyflow_machine::id::{ClusterTime, RecordId, Revision};
    use zyflow_machine::outcome::Outcome;
    use zyflow_machine::record::KIND_TASK;
    use zyflow_storage::tables::{Entry, EntryPayload, Position, Tables, TablesConfig};

    fn open(dir: &std::path::Path) -> Tables {
        let ring = KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])));
        let key = Arc::new(LocalKey::create_or_load(&dir.join("node.key"), &ring).unwrap());
        let durable = watch::Sender::new(Some(u64::MAX)).subscribe();
        Tables::open(TablesConfig::new(dir.join("tables"), Lineage([7; 16])), key, durable).unwrap()
    }

    fn apply(tables: &Tables, index: u64, commands: Vec<(&str, Body)>) -> Vec<Outcome> {
        let command = |(name, body): (&str, Body)| {
            let author = Author { name: name.to_owned(), ..Author::default() };
            Command { request: None, author, body }
        };
        let commands = commands.into_iter().map(command).collect();
        let batch = Batch { stamped: ClusterTime(1_000 * index), commands };
        let position = Position { term: 1, leader: 1, index };
        tables.apply(Entry { position, payload: EntryPayload::Batch(batch) }).unwrap()
    }

    fn change(project: RecordId, path: &str, count: usize) -> Body {
        let task = |at| NewBlock {
            kind: KIND_TASK,
            lead: "- [".to_owned(),
            mark: " ".to_owned(),
            text: format!("] task {at}\n"),
        };
        Body::CreateChange { project, path: path.to_owned(), blocks: (0..count).map(task).collect(), ops: Vec::new() }
    }

    #[test]
    fn the_pieces_together_are_the_whole_wherever_commands_begin() {
        let dir = tempfile::tempdir().unwrap();
        let tables = open(dir.path());
        let project = Body::CreateProject { name: "garden".to_owned(), files: Vec::new() };
        let made = apply(&tables, 1, vec![("ann", project)]);
        let Some(Outcome::Accepted { created, .. }) = made.first() else { panic!("not accepted: {made:?}") };
        let project = created[0];
        // One row for the change itself and one for each block: the second command begins with a piece, the third within one and lasts for
        // several.
        let counts = [
            ("ann", "a.md", ROWS_AT_ONCE - 1),
            ("ben", "b.md", 99),
            ("ann", "c.md", 3 * ROWS_AT_ONCE),
            ("ben", "d.md", 0),
        ];
        let commands = counts.map(|(name, path, count)| (name, change(project, path, count))).to_vec();
        let outcomes = apply(&tables, 2, commands);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })), "{outcomes:?}");

        let past = tables.changes_from(Revision(2), usize::MAX).unwrap();
        let (whole, view) = (&past.changes[0], tables.view(None).unwrap());
        let all = WatchRequest::default();
        let of_ben = WatchRequest { author: Some("ben".to_owned()), ..WatchRequest::default() };
        for (request, commands) in [(all, 4), (of_ben, 2)] {
            let filter = Filter::new(&request).unwrap();
            let (mut pieces, mut events) = (Pieces::new(Arc::clone(whole)), Vec::new());
            while !pieces.is_over() {
                let more = pieces.next(&filter, &view).unwrap();
                assert!(more.len() <= ROWS_AT_ONCE);
                events.extend(more);
            }
            assert!(events == filter.events(&view, whole).unwrap());
            let begun: std::collections::BTreeSet<u64> = events.iter().map(|event| event.correlation).collect();
            assert_eq!(begun.len(), commands);
        }
    }
}
