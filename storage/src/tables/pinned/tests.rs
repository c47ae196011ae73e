//! Lists of the past: kept ones, bounded ones, and such as the horizon passed. That they are right at all is the model's to say
//! (`tables/tests/model.rs`).

use std::sync::Arc;

use zyflow_machine::command::Body;
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::record::Kind;
use zyflow_machine::view::View;

use super::LookedPast;
use crate::tables::overlay::Base;
use crate::tables::tests::harness::{Node, note, populate};
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
    let LookedPast::Partly { base, rows, horizon } = looked else { panic!("nothing is known of it yet") };
    node.run(Body::Compact { to: Revision(30), time: ClusterTime(1000) });
    let compacted = |error: &TablesError| matches!(error, TablesError::Compacted { horizon: Revision(30), .. });
    let error = reading.read_past(family, (&base, horizon), rows).err().unwrap();
    assert!(compacted(&error), "read while it moved: {error}");
    let error = kept.blocks(change).unwrap_err();
    assert!(compacted(&error), "kept before it moved: {error}");
    assert_eq!(at(&node, 30).blocks(change).unwrap().len(), TASKS);
    assert!(node.tables().fatal().borrow().is_none(), "that is no fault of the tables");
}
