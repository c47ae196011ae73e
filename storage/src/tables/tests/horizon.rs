//! The horizon: what lies before it can't be read, is deleted behind everybody's back, and comes back in no way.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OpenFlags};
use zyflow_machine::command::{BlockOp, Body};
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::record::Kind;
use zyflow_machine::view::View;

use super::harness::{LINEAGE, Node, batch, command, edit, note, populate, ring, wait_until};
use crate::snapshot::SnapshotStore;
use crate::tables::{EntryPayload, TablesError, Version};

fn compact(node: &mut Node, to: u64, time: u64) {
    node.run(Body::Compact { to: Revision(to), time: ClusterTime(time) });
}

/// Rows of a table, by SQLite alone.
fn count(node: &Node, table: &str) -> u64 {
    let connection = Connection::open_with_flags(node.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
        .unwrap()
        .try_into()
        .unwrap()
}

/// Writes everything and waits until nothing is left to delete.
fn settle(node: &Node, versions: u64) {
    node.tables().flush().unwrap();
    wait_until("what is let go of is deleted", || count(node, "versions") == versions);
}

/// Three tasks; the first gets a note at revisions 3 to 22, the second is deleted at 23.
fn busy() -> (Node, RecordId, Vec<RecordId>) {
    let mut node = Node::new(|_| {});
    let (_, change, tasks) = populate(&mut node, 3);
    for at in 3..=22 {
        node.run(note(tasks[0], &at.to_string()));
    }
    node.run(edit(change, Revision(22), vec![BlockOp::Delete { block: tasks[1] }]));
    (node, change, tasks)
}

#[test]
fn what_lies_before_the_horizon_is_deleted_and_the_rest_stays() {
    let (mut node, change, tasks) = busy();
    // A project, a change and three tasks; twenty notes; a deletion.
    settle(&node, 5 + 20 + 1);
    compact(&mut node, 12, 1000);
    // Of the notes up to 12 the last is left; the retention has two versions.
    settle(&node, 5 + 10 + 1 + 2);
    assert_eq!(node.tables().horizon().unwrap(), Revision(12));
    let history = node.view().history(tasks[0]).unwrap();
    assert_eq!(
        history.iter().map(|version| version.version.revision().0).collect::<Vec<_>>(),
        (12..=22).collect::<Vec<_>>()
    );
    let deleted = node.view().get(tasks[1]).unwrap().unwrap();
    assert_eq!((deleted.record.is_none(), deleted.version.revision()), (true, Revision(23)));
    compact(&mut node, 23, 1000);
    // Project, change, two tasks; the retention's last, which is before the horizon as little as its first.
    settle(&node, 2 + 2 + 3);
    assert_eq!(node.view().get(tasks[1]).unwrap(), None, "the deletion itself is let go of");
    assert_eq!(count(&node, "head"), 5);
    assert_eq!(node.view().blocks(change).unwrap().len(), 2);
    node.assert_digests_equal();
    assert_eq!(node.reopen().unwrap(), 0);
    assert_eq!(node.tables().horizon().unwrap(), Revision(23));
    node.assert_digests_equal();
}

#[test]
fn below_the_horizon_every_question_is_refused() {
    let (mut node, _, tasks) = busy();
    let pinned = node.tables().view(Some(Revision(11))).unwrap();
    compact(&mut node, 12, 1000);
    let is_refused = |error: TablesError| {
        assert!(matches!(error, TablesError::Compacted { .. }), "{error}");
    };
    for _ in 0..2 {
        is_refused(node.tables().view(Some(Revision(11))).unwrap_err());
        is_refused(pinned.get_at(tasks[0], Revision(11)).unwrap_err());
        is_refused(pinned.history(tasks[0]).unwrap_err());
        is_refused(pinned.tasks(&crate::tables::TaskFilter::default()).unwrap_err());
        is_refused(node.tables().changes_from(Revision(12), 10).unwrap_err());
        assert_eq!(node.tables().changes_from(Revision(13), 10).unwrap().changes[0].revision, Revision(13));
        let back = node.tables().changes_before(Revision(13), 10).unwrap();
        assert_eq!((back.changes.len(), back.reached), (1, Revision(13)));
        let back = node.tables().changes_before(Revision(12), 10).unwrap();
        assert_eq!((back.changes.len(), back.reached), (0, Revision(13)));
        assert!(node.tables().view(Some(Revision(12))).is_ok());
        settle(&node, 18);
    }
    assert!(node.tables().fatal().borrow().is_none(), "a question that comes too late is no damage");
}

/// The history of a change, read in parts of `limit` versions.
fn in_parts(node: &Node, change: RecordId, limit: usize) -> Vec<Version> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let mut part: Vec<Version> = Vec::new();
        let take = |version| {
            part.push(version);
            part.len() < limit
        };
        node.view().walk_change_history(change, before, take).unwrap();
        let Some(last) = part.last() else { return all };
        before = Some(last.version);
        all.extend(part);
    }
}

#[test]
fn a_change_has_the_histories_of_all_that_is_in_it_newest_first_and_in_parts() {
    let (mut node, change, tasks) = busy();
    let check = |node: &Node| {
        let view = node.view();
        let ids = [change].into_iter().chain(tasks.iter().copied());
        let mut expected: Vec<Version> = ids.flat_map(|id| view.history(id).unwrap()).collect();
        expected.sort_by_key(|version| std::cmp::Reverse(version.version));
        for limit in [1, 4, 100] {
            assert_eq!(in_parts(node, change, limit), expected, "in parts of {limit}");
            let some = &expected[..limit.min(expected.len())];
            assert_eq!(view.change_history(change, limit).unwrap(), some, "the newest {limit}");
        }
        expected.len()
    };
    // The change, its tasks, the notes, the deletion.
    assert_eq!(check(&node), 1 + 3 + 20 + 1);
    node.tables().flush().unwrap();
    node.run(note(tasks[2], "half of it isn't in SQLite"));
    assert_eq!(check(&node), 26);
    compact(&mut node, 12, 1000);
    for _ in 0..2 {
        assert_eq!(check(&node), 1 + 11 + 2 + 2, "one version of each that lived at the horizon, and what came after");
        node.tables().flush().unwrap();
    }
    compact(&mut node, 23, 1000);
    for _ in 0..2 {
        assert_eq!(check(&node), 1 + 1 + 2, "nothing of what was deleted by the horizon");
        node.tables().flush().unwrap();
    }
    assert!(node.tables().fatal().borrow().is_none());
}

#[test]
fn a_time_before_the_horizon_is_refused_and_its_own_is_known() {
    let (mut node, _, tasks) = busy();
    let stamp = |node: &mut Node, time: u64| {
        let commands = vec![command(None, note(tasks[2], &time.to_string()))];
        let entry = zyflow_machine::command::Batch { stamped: ClusterTime(time), commands };
        node.apply(EntryPayload::Batch(entry)).unwrap();
    };
    stamp(&mut node, 5000);
    stamp(&mut node, 9000);
    compact(&mut node, 24, 5000);
    for versions in [0, 2 + 2 + 1 + 2] {
        for (time, revision) in [(5000, 24), (8999, 24), (9000, 26)] {
            assert_eq!(node.tables().revision_at(ClusterTime(time)).unwrap(), Revision(revision), "at {time}");
        }
        let error = node.tables().revision_at(ClusterTime(4999)).unwrap_err();
        let TablesError::BeforeFirst { revision, first, .. } = error else { panic!("{error}") };
        assert_eq!((revision, first), (Revision(24), ClusterTime(5000)));
        assert_eq!(node.tables().time_at(Revision(24)).unwrap(), Some(ClusterTime(5000)));
        if versions > 0 {
            settle(&node, versions);
        }
    }
    assert_eq!(node.tables().time_at(Revision(24)).unwrap(), Some(ClusterTime(5000)));
    let error = node.tables().revision_at(ClusterTime(4999)).unwrap_err();
    assert!(matches!(error, TablesError::BeforeFirst { .. }), "{error}");
}

#[test]
fn a_snapshot_is_installed_from_before_and_after_the_deleting() {
    let (mut node, _, tasks) = busy();
    node.run(note(tasks[0], "last"));
    // Two versions of one record in the horizon's own revision: the first is gone, though it is not before the horizon.
    node.apply(batch(vec![command(None, note(tasks[2], "one")), command(None, note(tasks[2], "two"))])).unwrap();
    compact(&mut node, 25, 1000);
    let install = |node: &Node| {
        let store = SnapshotStore::open(&node.dir.path().join("snapshots"), 1).unwrap();
        let built = node.tables().build_snapshot(&store, &ring(), &LINEAGE).unwrap();
        let target = Node::new(|_| {});
        target.tables().install_snapshot(&built.file, &ring(), &LINEAGE).unwrap();
        assert_eq!(target.tables().horizon().unwrap(), Revision(25));
        assert_eq!(target.assert_digests_equal(), node.assert_digests_equal());
        assert_eq!(target.view().history(tasks[2]).unwrap(), node.view().history(tasks[2]).unwrap());
        assert_eq!(target.view().get(tasks[1]).unwrap(), None);
        target
    };
    let early = install(&node);
    settle(&node, 2 + 2 + 2);
    install(&node);
    settle(&early, 2 + 2 + 2);
}

#[test]
fn readers_of_the_past_get_their_answer_or_are_refused_while_it_is_deleted() {
    let mut node = Node::new(|config| {
        config.flush_interval = std::time::Duration::ZERO;
        // Too small for anything to stay, so that every reader goes down to SQLite.
        config.cache_bytes_max = 2000;
    });
    let (_, change, tasks) = populate(&mut node, 20);
    let (tables, is_done) = (node.tables().clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (tables, is_done, tasks) = (&tables, &is_done, &tasks);
            scope.spawn(move || {
                let mut answers = 0_u64;
                while !is_done.load(Ordering::Relaxed) || answers == 0 {
                    // Right at the horizon, where the deleting is.
                    let at = tables.horizon().unwrap().max(Revision(2));
                    match tables.view(Some(at)).and_then(|view| view.blocks(change)) {
                        Ok(blocks) => {
                            assert_eq!(blocks.len(), tasks.len(), "at {at}");
                            answers += 1;
                        }
                        Err(error) => assert!(matches!(error, TablesError::Compacted { .. }), "{error}"),
                    }
                }
            });
        }
        for round in 0..200_u64 {
            for task in &tasks {
                node.run(note(*task, &round.to_string()));
            }
            let newest = node.tables().digest().unwrap().0;
            compact(&mut node, newest.0, 1000);
        }
        is_done.store(true, Ordering::Relaxed);
    });
    node.tables().flush().unwrap();
    // Project, change, tasks, and the retention's newest two, of which the last is after the horizon.
    settle(&node, 2 + 20 + 2);
    assert!(node.tables().fatal().borrow().is_none());
    assert!(EventId::new(node.tables().horizon().unwrap(), 0).is_some());
    node.assert_digests_equal();
}

/// SQLite has the block, its deletion waits for the log, and the horizon has passed that already.
#[test]
fn a_deletion_that_sqlite_has_not_heard_of_is_let_go_of_too() {
    let mut node = Node::new(|_| {});
    let (_, change, tasks) = populate(&mut node, 3);
    node.tables().flush().unwrap();
    node.durable.send_replace(Some(2));
    node.run(edit(change, Revision(2), vec![BlockOp::Delete { block: tasks[1] }]));
    compact(&mut node, 3, 1000);
    assert_eq!(node.tables().flush().unwrap(), Revision(2));
    let left: Vec<RecordId> =
        node.view().children(Kind::Block, change).unwrap().into_iter().map(|(_, id)| id).collect();
    assert_eq!(left, [tasks[0], tasks[2]]);
    assert_eq!(node.view().get(tasks[1]).unwrap(), None);
    node.run(Body::DeleteChange { change, base: Revision(4) });
    node.durable.send_replace(Some(u64::MAX));
    node.assert_digests_equal();
}
