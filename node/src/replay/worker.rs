//! One lane of a replay: events in, versions made of them, differences out. Knows no tables: a test gives it maps.
//!
//! A record that was deleted by the horizon isn't there at the start, and comes back where a rollback restores it. The deletion that its
//! event follows on isn't kept any more; it is taken to have been one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zyflow_machine::Digest;
use zyflow_machine::event::{Event, Fact};
use zyflow_machine::evolve::evolve;
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::view::{Stored, View};
use zyflow_storage::tables::Row;

use super::{DIFFERENCES_TOLD_MAX, Difference, Mode};

/// See the module.
pub(super) struct Worker<'v, V: View> {
    start: &'v V,
    /// The revision that the start shows.
    from: Revision,
    end: &'v V,
    mode: Mode,
    /// What was made of each record so far; see the module above for how much that is.
    latest: BTreeMap<RecordId, Arc<Stored>>,
    /// In a dry run, which records there were events of.
    touched: BTreeSet<RecordId>,
    part: Part,
}

/// What came of one lane.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) events: u64,
    pub(super) records: u64,
    pub(super) types: BTreeMap<&'static str, u64>,
    pub(super) replayed: Digest,
    pub(super) stored: Digest,
    pub(super) differences: Vec<Difference>,
    pub(super) difference_count: u64,
    /// The sums are those at the end; else there are none.
    pub(super) is_compared: bool,
}

impl<'v, V: View> Worker<'v, V> {
    pub(super) fn new((start, from): (&'v V, Revision), end: &'v V, mode: Mode) -> Self {
        let (latest, touched) = (BTreeMap::new(), BTreeSet::new());
        Self { start, from, end, mode, latest, touched, part: Part::default() }
    }

    /// Does one event again; whether to go on.
    pub(super) fn step(&mut self, row: &Row) -> Result<bool, V::Error> {
        self.part.events += 1;
        *self.part.types.entry(row.fact.name()).or_default() += 1;
        if self.mode == Mode::DryRun {
            self.touched.insert(row.id);
            return Ok(true);
        }
        let current = match self.latest.get(&row.id) {
            Some(latest) => Some(Arc::clone(latest)),
            None => self.start.get(row.id)?.or_else(|| self.let_go(row)),
        };
        let event = Event { id: row.stored.version, record: row.id, fact: row.fact.clone() };
        let made = evolve(event, current.as_deref());
        let Ok(made) = made else {
            self.differs(row.id, Some(row.stored.version), "the event doesn't fit the record before it");
            // To go on from what is stored tells more than to stop here.
            self.latest.insert(row.id, Arc::clone(&row.stored));
            return Ok(self.mode != Mode::Safe);
        };
        let is_chained = made.previous == row.previous;
        let made = Stored {
            version: made.version,
            kind: made.kind,
            parent: made.parent,
            order: made.order,
            record: made.record,
        };
        if self.mode != Mode::Fast {
            if !is_chained {
                self.differs(row.id, Some(row.stored.version), "another version came before it");
            } else if made != *row.stored {
                self.differs(row.id, Some(row.stored.version), "the event makes another version than the stored one");
            }
        }
        self.latest.insert(row.id, Arc::new(made));
        Ok(self.mode != Mode::Safe || self.part.difference_count == 0)
    }

    /// What came of it where the rest of the events won't come: nothing is held against the end.
    pub(super) fn stop(mut self) -> Part {
        self.part.records = self.records();
        self.part
    }

    /// Holds what was made against the state at the end.
    pub(super) fn finish(mut self) -> Result<Part, V::Error> {
        self.part.records = self.records();
        if self.mode == Mode::DryRun {
            return Ok(self.part);
        }
        for (id, made) in std::mem::take(&mut self.latest) {
            let stored = self.end.get(id)?;
            let of = |stored: &Stored| stored.record.as_ref().map_or(Digest::ZERO, |record| Digest::of_row(id, record));
            self.part.replayed = self.part.replayed.add(of(&made));
            self.part.stored = self.part.stored.add(stored.as_deref().map_or(Digest::ZERO, of));
            if stored.as_ref() != Some(&made) {
                self.differs(id, None, "the state at the end has another version");
            }
        }
        self.part.is_compared = true;
        Ok(self.part)
    }

    fn records(&self) -> u64 {
        u64::try_from(self.latest.len() + self.touched.len()).unwrap_or(u64::MAX)
    }

    /// The deletion before a row that restores what isn't there at the start: the history has let go of it.
    fn let_go(&self, row: &Row) -> Option<Arc<Stored>> {
        let is_restored = matches!(row.fact, Fact::BlockRestored { .. } | Fact::ChangeRestored { .. });
        let version = row.previous.filter(|previous| is_restored && previous.revision() <= self.from)?;
        let Stored { kind, parent, order, .. } = &*row.stored;
        Some(Arc::new(Stored { version, kind: *kind, parent: *parent, order: order.clone(), record: None }))
    }

    fn differs(&mut self, record: RecordId, event: Option<EventId>, what: &str) {
        self.part.difference_count += 1;
        if self.part.differences.len() < DIFFERENCES_TOLD_MAX {
            let (record, event) = (record.to_u64(), event.map(EventId::to_u64));
            self.part.differences.push(Difference { record, event, what: what.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_machine::command::{Author, Batch, Body, Command, NewBlock, TaskField};
    use zyflow_machine::id::ClusterTime;
    use zyflow_machine::{Machine, MapView};

    /// A short history: the state before its last part, the state after it, and the events between.
    fn history() -> (MapView, MapView, Vec<Row>) {
        let (mut machine, mut map) = (Machine::new(), MapView::new());
        let mut rows = Vec::new();
        let mut apply = |revision: u64, body: Body, map: &mut MapView| {
            let command = Command { request: None, author: Author::default(), body };
            let batch = Batch { stamped: ClusterTime(revision), commands: vec![command] };
            let effects = machine.apply(&*map, Revision(revision), &batch).unwrap();
            map.commit_effects(&effects);
            for (row, provenance) in effects.rows {
                let stored = Stored {
                    version: row.version,
                    kind: row.kind,
                    parent: row.parent,
                    order: row.order,
                    record: row.record,
                };
                let row =
                    Row { id: row.id, stored: Arc::new(stored), previous: row.previous, fact: row.fact, provenance };
                rows.push(row);
            }
        };
        apply(1, Body::CreateProject { name: "p".to_owned(), files: Vec::new() }, &mut map);
        let project = map.records().next().unwrap().0;
        let block = NewBlock {
            kind: zyflow_machine::record::KIND_TASK,
            lead: "- [".to_owned(),
            mark: " ".to_owned(),
            text: "] one\n".to_owned(),
        };
        let blocks = vec![block.clone(), block];
        apply(2, Body::CreateChange { project, path: "tasks.md".to_owned(), blocks, ops: Vec::new() }, &mut map);
        let before = map.clone();
        let task = map.records().last().unwrap().0;
        for (revision, note) in [(3, "a"), (4, "b"), (5, "c")] {
            let fields = vec![TaskField::Note(note.to_owned())];
            apply(revision, Body::SetTask { task, expected: None, fields, mark: None }, &mut map);
        }
        let rows = rows.into_iter().filter(|row| row.stored.version.revision() > Revision(2)).collect();
        (before, map, rows)
    }

    fn replay(mode: Mode, start: &MapView, end: &MapView, rows: &[Row]) -> Part {
        let mut worker = Worker::new((start, Revision(2)), end, mode);
        for row in rows {
            if !worker.step(row).unwrap() {
                return worker.stop();
            }
        }
        worker.finish().unwrap()
    }

    #[test]
    fn events_make_of_the_state_before_the_state_after() {
        let (before, after, rows) = history();
        for mode in [Mode::Safe, Mode::Fast, Mode::Verbose] {
            let part = replay(mode, &before, &after, &rows);
            assert_eq!((part.events, part.records, part.difference_count), (3, 1, 0), "{mode:?}");
            assert_eq!(part.replayed, part.stored);
            assert_eq!(part.types, BTreeMap::from([("task-set", 3)]));
        }
        let part = replay(Mode::DryRun, &before, &after, &rows);
        assert_eq!((part.events, part.records, part.replayed), (3, 1, Digest::ZERO));
    }

    #[test]
    fn an_event_that_says_something_else_is_found() {
        let (before, after, mut rows) = history();
        let other = |note: &str| Fact::TaskSet { fields: vec![TaskField::Note(note.to_owned())], mark: None };
        rows[1].fact = other("never");
        let safe = replay(Mode::Safe, &before, &after, &rows);
        assert_eq!((safe.events, safe.difference_count, safe.is_compared), (2, 1, false), "stops there");
        assert_eq!(safe.differences[0].event, Some(rows[1].stored.version.to_u64()));
        // What the next event overwrites is found only where each version is looked at.
        assert_eq!(replay(Mode::Fast, &before, &after, &rows).difference_count, 0);
        rows[2].fact = other("never");
        let verbose = replay(Mode::Verbose, &before, &after, &rows);
        assert_eq!((verbose.events, verbose.difference_count), (3, 3), "{:?}", verbose.differences);
        let fast = replay(Mode::Fast, &before, &after, &rows);
        assert_eq!(fast.difference_count, 1);
        assert_ne!(fast.replayed, fast.stored);
    }

    #[test]
    fn an_event_that_is_missing_is_found() {
        let (before, after, mut rows) = history();
        rows.remove(1);
        assert_eq!(replay(Mode::Safe, &before, &after, &rows).difference_count, 1);
        rows.pop();
        assert_eq!(replay(Mode::Fast, &before, &after, &rows).difference_count, 1);
    }

    #[test]
    fn a_record_that_is_not_there_is_a_difference_unless_it_is_restored() {
        let (_, after, rows) = history();
        let part = replay(Mode::Safe, &MapView::new(), &after, &rows);
        assert_eq!((part.events, part.difference_count), (1, 1), "{:?}", part.differences);
    }
}
