//! What a crash may take, and what it may not.

use std::process::Command as Process;

use rusqlite::{Connection, OpenFlags};
use zyflow_machine::id::{RecordId, Revision};

use super::harness::{Node, edit, insert_first, local_key, note, populate, wait_until};
use crate::tables::{EntryPayload, Tables, TablesConfig};

/// The largest revision of any row in the database, as a second connection sees it.
fn newest_row(node: &Node) -> u64 {
    let connection = Connection::open_with_flags(node.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let query = "SELECT coalesce(max(version), 0) FROM versions";
    let version: i64 = connection.query_row(query, [], |row| row.get(0)).unwrap();
    u64::try_from(version).unwrap() >> 20
}

#[test]
fn what_was_flushed_is_there_after_a_kill_and_the_rest_is_replayed_once() {
    let mut node = Node::new(|_| {});
    let (_, change, tasks) = populate(&mut node, 20);
    for task in &tasks {
        node.run(note(*task, "before"));
    }
    let flushed = node.tables().flush().unwrap();
    assert_eq!(flushed, Revision(22));
    for task in &tasks {
        node.run(note(*task, "after"));
    }
    node.run(edit(change, Revision(2), vec![insert_first("new")]));
    let (before, blocks) = (node.tables().digest().unwrap(), node.view().blocks(change).unwrap());
    assert_eq!(node.reopen().unwrap(), 21, "only what was not flushed is applied again");
    assert_eq!(node.tables().digest().unwrap(), before);
    assert_eq!(node.view().blocks(change).unwrap(), blocks);
    assert_eq!(node.view().history(tasks[0]).unwrap().len(), 3);
    assert_eq!(node.assert_digests_equal(), before);
}

#[test]
fn nothing_past_the_durable_watermark_is_written() {
    let mut node = Node::new(|config| config.flush_ops_max = 3);
    node.durable.send_replace(Some(12));
    let (_, _, tasks) = populate(&mut node, 10);
    for task in &tasks {
        node.run(note(*task, "words"));
    }
    assert_eq!(node.tables().flush().unwrap(), Revision(12));
    for _ in 0..20 {
        node.run(note(tasks[0], "more"));
        node.run(note(tasks[0], "less"));
        assert!(node.tables().flush().unwrap() <= Revision(12));
        assert!(newest_row(&node) <= 12);
    }
    node.durable.send_replace(Some(30));
    let mut flushed = node.tables().flushed();
    wait_until("the writer follows the watermark by itself", || flushed.borrow_and_update().0 >= 29);
    assert!(newest_row(&node) <= 30);
    // A clean stop writes no more than a flush does.
    node.tables().shutdown().unwrap();
    assert!(newest_row(&node) <= 30);
    node.durable.send_replace(Some(u64::MAX));
    let before = node.tables().digest().unwrap();
    assert!(node.reopen().unwrap() > 20);
    assert_eq!(node.assert_digests_equal(), before);
}

#[test]
fn a_log_that_begins_at_zero_is_applied() {
    let mut node = Node::new(|_| {});
    node.durable.send_replace(None);
    let position = crate::tables::Position { term: 0, leader: 0, index: 0 };
    let entry = crate::tables::Entry { position, payload: EntryPayload::Membership(b"us".to_vec()) };
    node.tables().apply(entry.clone()).unwrap();
    node.log.push(entry);
    node.tables().flush().unwrap();
    assert_eq!(node.reopen().unwrap(), 1, "not even the first entry was durable");
    node.durable.send_replace(Some(0));
    node.tables().flush().unwrap();
    assert_eq!(node.reopen().unwrap(), 0);
    assert_eq!(node.tables().applied_state().unwrap(), (Some(position), Some((position, b"us".to_vec()))));
    node.durable.send_replace(Some(u64::MAX));
    populate(&mut node, 1);
    node.assert_digests_equal();
}

#[test]
fn sessions_survive_and_answer_a_repeated_request_once() {
    use super::harness::{batch, command};
    use zyflow_machine::command::Body;
    use zyflow_machine::id::{RequestId, SessionId};
    use zyflow_machine::outcome::Outcome;
    let mut node = Node::new(|_| {});
    let (_, _, tasks) = populate(&mut node, 1);
    let session = SessionId(node.run(Body::OpenSession)[0].0);
    let request = Some(RequestId { session, seq: 1 });
    let payload = batch(vec![command(request, note(tasks[0], "once"))]);
    let first = node.apply(payload.clone()).unwrap();
    node.tables().shutdown().unwrap();
    assert_eq!(node.reopen().unwrap(), 0);
    let again = node.apply(payload).unwrap();
    assert_eq!(again, [Outcome::Duplicate(Box::new(first[0].clone()))]);
    assert_eq!(node.view().history(tasks[0]).unwrap().len(), 2);
    node.run(Body::CreateProject { name: "other".to_owned(), files: Vec::new() });
    node.apply(batch(vec![command(Some(RequestId { session, seq: 2 }), Body::CloseSession)])).unwrap();
    node.assert_digests_equal();
    node.reopen().unwrap();
    node.assert_digests_equal();
}

const CHILD: &str = "ZYFLOW_TABLES_CRASH_CHILD";

/// Runs in a process of its own, which it aborts in the middle of writing.
fn child(dir: &std::path::Path) -> ! {
    let mut node = Node::new(|config| {
        config.dir = dir.join("tables");
        config.flush_ops_max = 16;
        config.flush_interval = std::time::Duration::ZERO;
    });
    node.kill();
    node.key = local_key(dir);
    node.reopen().unwrap();
    fill(&mut node, || {});
    std::process::abort()
}

/// The same log every time.
fn fill(node: &mut Node, mut then: impl FnMut()) {
    let (_, change, tasks) = populate(node, 50);
    for round in 0..40 {
        for task in &tasks {
            node.run(note(*task, &format!("round {round}")));
        }
        node.run(edit(change, Revision(2), vec![insert_first(&format!("round {round}"))]));
        then();
    }
}

#[test]
fn a_process_that_is_aborted_loses_nothing_that_the_log_has() {
    if let Some(dir) = std::env::var_os(CHILD) {
        child(dir.as_ref());
    }
    let mut node = Node::new(|_| {});
    node.kill();
    std::fs::remove_dir_all(&node.config.dir).unwrap();
    let name = "tables::tests::crash::a_process_that_is_aborted_loses_nothing_that_the_log_has";
    let output = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, node.dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    // The log as the child had it, which is made by a node of its own.
    let mut whole = Node::new(|_| {});
    fill(&mut whole, || {});
    node.log.clone_from(&whole.log);
    let replayed = node.reopen().unwrap();
    assert!(replayed < whole.log.len(), "the child wrote something: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(node.tables().rebuilt(), None, "a crash is no damage");
    assert_eq!(node.assert_digests_equal(), whole.assert_digests_equal());
    let ids: Vec<RecordId> = node.view().projects().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn two_nodes_with_one_log_have_one_digest_whatever_they_flush_when() {
    let mut lazy = Node::new(|_| {});
    let mut eager = Node::new(|config| {
        config.flush_interval = std::time::Duration::ZERO;
        config.flush_ops_max = 2;
    });
    fill(&mut lazy, || {});
    fill(&mut eager, || {});
    assert_eq!(lazy.assert_digests_equal(), eager.assert_digests_equal());
}

#[test]
fn a_stopped_handle_refuses_and_still_reads() {
    let mut node = Node::new(|_| {});
    let (project, ..) = populate(&mut node, 2);
    node.tables().shutdown().unwrap();
    node.tables().shutdown().unwrap();
    assert!(node.apply(EntryPayload::Blank).unwrap_err().to_string().contains("shut down"));
    assert_eq!(node.view().changes(project).unwrap().len(), 1);
    assert!(node.tables().fatal().borrow().is_none());
    let clean = Connection::open_with_flags(node.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let marks: i64 = clean.query_row("SELECT count(*) FROM meta WHERE key = 'in-use'", [], |row| row.get(0)).unwrap();
    assert_eq!(marks, 0);
}

#[test]
fn an_entry_out_of_order_is_refused_for_good() {
    let mut node = Node::new(|_| {});
    populate(&mut node, 1);
    let skipped = crate::tables::Position { term: 1, leader: 1, index: 9 };
    let entry = crate::tables::Entry { position: skipped, payload: EntryPayload::Blank };
    let error = node.tables().apply(entry).unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");
    assert!(node.tables().fatal().borrow().is_some());
    assert!(node.apply(EntryPayload::Blank).is_err());
    // Empty tables whose log was purged need a snapshot first.
    let fresh = tempfile::tempdir().unwrap();
    let durable = node.durable.subscribe();
    let config = TablesConfig::new(fresh.path().join("tables"), super::harness::LINEAGE);
    let tables = Tables::open(config, local_key(fresh.path()), durable).unwrap();
    let late = crate::tables::Entry { position: skipped, payload: EntryPayload::Blank };
    assert!(tables.apply(late).is_err());
}
