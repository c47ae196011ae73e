//! Lists of the past: kept ones, bounded ones, and such as the horizon passed. That they are right at all is the model's to say
//! (`tables/tests/model.rs`).

use std::sync::Arc;

use zyflow_machine::command::{Anchor, BlockOp, Body, Scope};
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::record::Kind;
use zyflow_machine::view::View;

use super::{LookedPast, Reading, Then};
use crate::tables::overlay::Base;
use crate::tables::siblings::Siblings;
use crate::tables::tests::harness::{Node, edit, insert_first, note, populate};
use crate::tables::view::TablesView;
use crate::tables::{Found, TablesConfig, TablesError};

const TASKS: usize = 40;

/// A node whose tasks were noted at revisions 3 to 42, one after the other, all of it in SQLite; and the change.
fn noted(configure: impl FnOnce(&mut TablesConfig)) -> (Node, RecordId, Vec<RecordId>) {
    let mut node = Node::new(configure);
    let (_, change, tasks) = populate(&mut node, TASKS);
    for (at, task) in tasks.iter().enumerate() {
        node.run(note(*task, &format!("note {at}")));
    }
    node.tables().flush().unwrap();
    (node, change, tasks)
}

fn at(node: &Node, revision: u64) -> TablesView {
    node.tables().view(Some(Revision(revision))).unwrap()
}

/// The list as it is read record by record.
fn slowly(view: &TablesView, tasks: &[RecordId]) -> Vec<Found> {
    tasks.iter().map(|task| (*task, view.get(*task).unwrap().unwrap())).collect()
}

fn past(node: &Node) -> Arc<Base> {
    let base = node.tables().shared.overlay().unwrap().base();
    base.past.versions.run_pending_tasks();
    base.past.families.run_pending_tasks();
    base
}

#[test]
fn a_list_of_the_past_equals_what_is_read_record_by_record() {
    let (node, change, tasks) = noted(|_| {});
    for revision in [2, 3, 20, 41, 42] {
        let view = at(&node, revision);
        assert_eq!(view.blocks(change).unwrap(), slowly(&view, &tasks), "at {revision}");
    }
}

#[test]
fn a_list_is_read_once_and_versions_serve_other_revisions_too() {
    let (node, change, _) = noted(|_| {});
    let first = at(&node, 2).blocks(change).unwrap();
    let base = past(&node);
    // All of them were noted since.
    assert_eq!((base.past.families.entry_count(), base.past.versions.entry_count()), (1, 40));
    let other = at(&node, 12).blocks(change).unwrap();
    let shared = first[10..].iter().zip(&other[10..]).all(|(one, other)| Arc::ptr_eq(&one.1, &other.1));
    assert!(shared, "the thirty that weren't noted between the two revisions are the same in memory");
    // What is kept needs no SQLite.
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    connection.execute("DELETE FROM versions", []).unwrap();
    assert_eq!(at(&node, 2).blocks(change).unwrap(), first);
    assert_eq!(at(&node, 12).blocks(change).unwrap(), other);
}

#[test]
fn what_was_replaced_while_the_node_ran_is_kept() {
    let (node, change, tasks) = noted(|_| {});
    let expected = slowly(&at(&node, 12), &tasks);
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    connection.execute("UPDATE versions SET body = x'00'", []).unwrap();
    assert_eq!(at(&node, 12).blocks(change).unwrap(), expected);
}

/// What a change held, as it is read record by record.
fn slowly_all(view: &TablesView, ids: &[RecordId]) -> Vec<Found> {
    let mut found: Vec<Found> = ids.iter().filter_map(|id| Some((*id, view.get(*id).unwrap()?))).collect();
    found.retain(|(_, stored)| stored.record.is_some());
    found.sort_by(|one, other| one.1.order.cmp(&other.1.order));
    found
}

/// Blocks that were made, moved, deleted and brought back since; and the revisions that they were so at.
fn edited(configure: impl FnOnce(&mut TablesConfig)) -> (Node, RecordId, Vec<RecordId>) {
    let (mut node, change, mut tasks) = noted(configure);
    let base = Revision(42);
    let inserted = node.run(edit(change, base, vec![insert_first("new")]));
    tasks.extend(inserted);
    node.run(edit(change, base, vec![BlockOp::Move { block: tasks[7], after: Anchor::Start }]));
    node.run(edit(change, base, vec![BlockOp::Delete { block: tasks[9] }, BlockOp::Delete { block: tasks[8] }]));
    node.run(Body::Rollback { scope: Scope::Change(change), to: Revision(44), expected: None });
    node.run(edit(change, Revision(46), vec![BlockOp::Delete { block: tasks[3] }]));
    node.tables().flush().unwrap();
    assert_eq!(node.view().revision(), Revision(47));
    (node, change, tasks)
}

#[test]
fn a_list_of_the_recent_past_asks_sqlite_for_nothing() {
    let (node, change, tasks) = edited(|_| {});
    node.view().blocks(change).unwrap();
    let expected: Vec<_> = (2..=47).map(|revision| slowly_all(&at(&node, revision), &tasks)).collect();
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    connection.execute_batch("DELETE FROM versions; DELETE FROM head;").unwrap();
    for (revision, expected) in (2..=47).zip(expected) {
        assert_eq!(at(&node, revision).blocks(change).unwrap(), expected, "at {revision}");
    }
}

/// The oldest links and some records have made room: what memory doesn't tell is read.
#[test]
fn what_memory_tells_no_more_is_read() {
    for (links, unknown) in [(30, 0), (8, 0), (0, 0), (500, 2), (500, 20)] {
        let (node, change, tasks) = edited(|config| config.past_links_max = links);
        node.view().blocks(change).unwrap();
        let base = past(&node);
        for revision in 2..=47 {
            for id in &tasks[..unknown] {
                base.cache.invalidate(id);
            }
            let view = at(&node, revision);
            let list = view.blocks(change).unwrap();
            assert_eq!(list, slowly_all(&view, &tasks), "at {revision} with {links} links and {unknown} unknown");
        }
    }
}

/// A deletion that was purged while it was looked for is none; anything else that is missing is damage.
#[test]
fn a_version_that_is_missing_is_damage_unless_the_horizon_has_passed_it() {
    let (mut node, change, tasks) = edited(|_| {});
    let view = at(&node, 45);
    let LookedPast::Partly(known) = view.look_past((Kind::Block, change)).unwrap() else { panic!("nothing is kept") };
    let missing = EventId::new(Revision(20), 900).unwrap();
    let find = || {
        let mut reading = Reading { view: &view, base: &known.base, connection: None };
        let mut then = Then::new(Siblings::new(Revision(45)), &known);
        then.siblings.set(tasks[0], b"a", true);
        reading.find(tasks[0], missing, &mut then).map(|()| then.siblings.len())
    };
    assert!(matches!(find(), Err(TablesError::Damaged { .. })));
    node.run(Body::Compact { to: Revision(20), time: ClusterTime(1000) });
    assert_eq!(find().unwrap(), 0);
}

#[test]
fn what_is_kept_is_bounded() {
    let (node, change, tasks) = noted(|config| {
        config.past_versions_bytes_max = 8 << 10;
        config.past_families_bytes_max = 100 << 10;
    });
    for revision in 2..=41 {
        let view = at(&node, revision);
        assert_eq!(view.blocks(change).unwrap(), slowly(&view, &tasks), "at {revision}");
        let base = past(&node);
        assert!(base.past.versions.weighted_size() <= 8 << 10, "at {revision}");
        assert!(base.past.families.weighted_size() <= 100 << 10, "at {revision}");
    }
    let base = past(&node);
    let kept = |revision| base.past.families.contains_key(&((Kind::Block, change), Revision(revision), Revision(0)));
    assert!(kept(41) && kept(40) && !kept(2), "the last few are kept");
}

/// A horizon that moves while a list is read, or after it was kept.
#[test]
fn below_the_horizon_there_is_no_answer_whatever_was_read_or_kept() {
    let (mut node, change, _) = noted(|_| {});
    let family = (Kind::Block, change);
    let (kept, reading) = (at(&node, 20), at(&node, 21));
    kept.blocks(change).unwrap();
    let looked = reading.look_past(family).unwrap();
    let LookedPast::Partly(known) = looked else { panic!("nothing of it is kept yet") };
    node.run(Body::Compact { to: Revision(30), time: ClusterTime(1000) });
    let compacted = |error: &TablesError| matches!(error, TablesError::Compacted { horizon: Revision(30), .. });
    let error = reading.read_past(family, &known).err().unwrap();
    assert!(compacted(&error), "read while it moved: {error}");
    let error = kept.blocks(change).unwrap_err();
    assert!(compacted(&error), "kept before it moved: {error}");
    assert_eq!(at(&node, 30).blocks(change).unwrap().len(), TASKS);
    assert!(node.tables().fatal().borrow().is_none(), "that is no fault of the tables");
}
