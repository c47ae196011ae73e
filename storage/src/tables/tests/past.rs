//! The past: what happened from a revision on, and which revision a time means, wherever the rows are by now.

use std::sync::Arc;

use zyflow_machine::command::{Batch, Body};
use zyflow_machine::event::Fact;
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::view::View;

use super::harness::{Node, command, note, populate};
use crate::tables::{Change, EntryPayload, TablesError, read};

/// Applies commands as one entry that the leader stamped `time`.
fn stamped(node: &mut Node, time: u64, bodies: Vec<Body>) {
    let commands = bodies.into_iter().map(|body| command(None, body)).collect();
    node.apply(EntryPayload::Batch(Batch { stamped: ClusterTime(time), commands })).unwrap();
}

/// Everything from `from` on, read in steps of about `rows_max` rows.
fn all_from(node: &Node, from: u64, rows_max: usize) -> Vec<Arc<Change>> {
    let applied = *node.tables().applied().borrow();
    let (mut from, mut all) = (Revision(from), Vec::new());
    while from <= applied {
        let past = node.tables().changes_from(from, rows_max).unwrap();
        assert!(past.reached >= from, "each step gets on");
        assert!(past.changes.iter().all(|change| (from..=past.reached).contains(&change.revision)));
        all.extend(past.changes);
        from = Revision(past.reached.0 + 1);
    }
    all
}

/// Everything up to the newest, read backwards in steps, turned round.
fn all_before(node: &Node, rows_max: usize) -> Vec<Arc<Change>> {
    let (mut to, mut all) = (*node.tables().applied().borrow(), Vec::new());
    loop {
        let past = node.tables().changes_before(to, rows_max).unwrap();
        if past.reached > to {
            break;
        }
        all.extend(past.changes);
        let Some(before) = past.reached.0.checked_sub(1) else { break };
        to = Revision(before);
    }
    all.reverse();
    all
}

fn notes(changes: &[Arc<Change>]) -> Vec<(u64, RecordId)> {
    let rows = changes.iter().flat_map(|change| &change.rows);
    let sets = rows.filter(|row| matches!(row.fact, Fact::TaskSet { .. }));
    sets.map(|row| (row.stored.version.revision().0, row.id)).collect()
}

/// A node with notes at revisions 3 to 42, some entries without events between them, and one revision of 30 events.
fn busy() -> (Node, Vec<RecordId>, Vec<Arc<Change>>) {
    let mut node = Node::new(|_| {});
    let mut changes = node.tables().subscribe();
    let (_, _, tasks) = populate(&mut node, 30);
    for at in 3..=42_u64 {
        match at {
            10 | 11 | 40 => drop(node.apply(EntryPayload::Blank).unwrap()),
            20 => stamped(&mut node, 1000, tasks.iter().map(|task| note(*task, "all")).collect()),
            _ => stamped(&mut node, 1000, vec![note(tasks[0], &at.to_string())]),
        }
    }
    let mut seen = Vec::new();
    while let Ok(change) = changes.try_recv() {
        seen.push(change);
    }
    seen.retain(|change| !change.rows.is_empty());
    (node, tasks, seen)
}

#[test]
fn what_happened_is_the_same_in_memory_in_sqlite_and_half_in_each() {
    let (mut node, tasks, seen) = busy();
    let check = |node: &Node, seen: &[Arc<Change>]| {
        for rows_max in [1, 7, 30, 1_000] {
            assert_eq!(all_from(node, 0, rows_max), seen, "in steps of {rows_max}");
            assert_eq!(all_before(node, rows_max), seen, "backwards in steps of {rows_max}");
            let later: Vec<_> = seen.iter().filter(|change| change.revision >= Revision(21)).cloned().collect();
            assert_eq!(all_from(node, 21, rows_max), later);
        }
    };
    check(&node, &seen);
    assert_eq!(node.tables().flush().unwrap(), Revision(42));
    assert!(node.tables().recent_changes_from(Revision(42), 1).unwrap().is_none(), "that is in SQLite only");
    check(&node, &seen);
    let mut changes = node.tables().subscribe();
    stamped(&mut node, 1000, vec![note(tasks[1], "43")]);
    let both: Vec<_> = seen.iter().cloned().chain([changes.try_recv().unwrap()]).collect();
    check(&node, &both);
    assert_eq!(notes(&node.tables().recent_changes_from(Revision(43), 1).unwrap().unwrap().changes), [(43, tasks[1])]);
    assert_eq!(node.reopen().unwrap(), 1, "the last entry is applied again");
    check(&node, &both);
}

#[test]
fn what_is_still_to_come_is_an_empty_answer() {
    let (node, _, _) = busy();
    for _ in 0..2 {
        let past = node.tables().changes_from(Revision(50), 10).unwrap();
        assert_eq!((past.changes.len(), past.reached), (0, Revision(42)));
        node.tables().flush().unwrap();
    }
}

#[test]
fn a_time_means_the_newest_revision_that_is_not_later() {
    let mut node = Node::new(|_| {});
    let (_, _, tasks) = populate(&mut node, 1);
    // The clock of a new leader may be behind: its stamps count as the largest before.
    for stamp in [1000, 1000, 2000, 1500, 3000, 3000, 9000] {
        let at = node.log.len().to_string();
        stamped(&mut node, stamp, vec![note(tasks[0], &at)]);
        node.apply(EntryPayload::Blank).unwrap();
    }
    // Revisions 1 to 6 are of 1000, 7 to 10 of 2000, 11 to 14 of 3000, 15 of 9000; every second one has no event.
    let expected =
        [(1000, 6), (1001, 6), (1999, 6), (2000, 10), (2999, 10), (3000, 14), (8999, 14), (9000, 16), (10_000, 16)];
    let check = |node: &Node| {
        for (time, revision) in expected {
            assert_eq!(node.tables().revision_at(ClusterTime(time)).unwrap(), Revision(revision), "at {time}");
        }
        let error = node.tables().revision_at(ClusterTime(999)).unwrap_err();
        let TablesError::BeforeFirst { revision, first, .. } = error else { panic!("{error}") };
        assert_eq!((revision, first), (Revision(1), ClusterTime(1000)));
        let times = [(0, None), (1, Some(1000)), (6, Some(1000)), (7, Some(2000)), (10, Some(2000)), (16, Some(9000))];
        for (revision, time) in times {
            assert_eq!(node.tables().time_at(Revision(revision)).unwrap(), time.map(ClusterTime), "of {revision}");
        }
    };
    check(&node);
    node.tables().flush().unwrap();
    check(&node);
    assert!(node.tables().fatal().borrow().is_none(), "a wrong question isn't an error of the tables");
    let empty = Node::new(|_| {});
    assert_eq!(empty.tables().revision_at(ClusterTime(5)).unwrap(), Revision(0), "nothing has happened at all");
}

/// Reading a version of long ago costs a step per later version of that record, never a scan of the others.
#[test]
fn a_past_version_is_found_by_steps_along_its_chain() {
    let (node, _, _) = busy();
    node.tables().flush().unwrap();
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    for query in [read::AT, read::RECORD_VERSIONS, read::FAMILY_VERSIONS] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let parameters = rusqlite::params_from_iter(std::iter::repeat_n(1, statement.parameter_count()));
        let steps = statement.query_map(parameters, |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        let scans = |step: &String| step.contains("rowid<?") || step.contains("rowid>?") || step.starts_with("SCAN v");
        assert!(!steps.iter().any(scans), "{steps:#?}");
    }
}

/// Old bodies that don't open show whether somebody tries to.
#[test]
fn a_history_opens_no_more_than_is_asked_for() {
    let (node, tasks, _) = busy();
    node.tables().flush().unwrap();
    let change = node.view().get(tasks[0]).unwrap().unwrap().parent;
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    let damage = "UPDATE versions SET body = zeroblob(8) WHERE version <= ?1";
    connection.execute(damage, [read::last_of(Revision(19))]).unwrap();
    let newest = node.view().change_history(change, 10).unwrap();
    let revisions: Vec<u64> = newest.iter().map(|version| version.version.revision().0).collect();
    assert_eq!(revisions, [42, 41, 39, 38, 37, 36, 35, 34, 33, 32]);
    let mut some = Vec::new();
    let before = newest.last().map(|version| version.version);
    node.view()
        .walk_history(tasks[0], before, |version| {
            some.push(version.version.revision().0);
            some.len() < 3
        })
        .unwrap();
    assert_eq!(some, [31, 30, 29]);
    assert!(node.view().history(tasks[0]).is_err(), "all of it is damaged");
}
