//! Backups of a cluster whose history begins late: what still stood then is divided like the rest, whatever each node has deleted.

use rusqlite::Connection;
use zyflow_machine::command::{BlockOp, Body};
use zyflow_machine::id::{ClusterTime, ORDINAL_BITS, Revision};

use super::{Backed, assert_same_at, fill};
use crate::backup::{After, Archive, BackupError, Moment, OBJECT_BYTES};
use crate::tables::TablesError;
use crate::tables::tests::harness::{Node, edit, note, wait_until};

/// A node with a past of many versions, deletions among them, which the horizon is about to pass: up to the second value.
fn late() -> (Backed, Revision) {
    let mut backed = Backed::new();
    let (change, tasks) = fill(&mut backed);
    for round in 0..10 {
        for task in &tasks {
            backed.node.run(note(*task, &format!("round {round}")));
        }
    }
    let base = backed.node.tables().digest().unwrap().0;
    backed.node.run(edit(change, base, vec![BlockOp::Delete { block: tasks[3] }]));
    let horizon = backed.node.tables().digest().unwrap().0;
    backed.node.run(note(tasks[0], "after the horizon"));
    (backed, horizon)
}

fn compact(backed: &mut Backed, to: Revision) {
    backed.node.run(Body::Compact { to, time: ClusterTime(2_000) });
    backed.node.tables().flush().unwrap();
}

/// The node's database, and another file beside it as `copy`.
fn attached(backed: &Backed, name: &str) -> Connection {
    let connection = Connection::open(backed.node.database()).unwrap();
    let copy = backed.node.dir.path().join(name);
    connection.execute("ATTACH ?1 AS copy", [copy.to_str().unwrap()]).unwrap();
    connection
}

/// Remembers which rows there are; gives how many versions.
fn remember(backed: &Backed, name: &str) -> u64 {
    backed.node.tables().flush().unwrap();
    let connection = attached(backed, name);
    let copy =
        "CREATE TABLE copy.versions AS SELECT * FROM main.versions; CREATE TABLE copy.head AS SELECT * FROM main.head";
    connection.execute_batch(copy).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM copy.versions", [], |row| row.get(0)).unwrap();
    count.try_into().unwrap()
}

/// Changes the rows of a node that doesn't run, as if it had come less or more far with deleting; then it runs again.
fn change(backed: &mut Backed, name: &str, sql: &str) {
    backed.node.kill();
    attached(backed, name).execute_batch(sql).unwrap();
    backed.node.reopen().unwrap();
}

const PUT_BACK: &str = "\
    INSERT OR IGNORE INTO main.versions SELECT * FROM copy.versions; \
    INSERT OR IGNORE INTO main.head SELECT * FROM copy.head";
const TAKE_AWAY: &str = "\
    DELETE FROM main.versions WHERE version NOT IN (SELECT version FROM copy.versions); \
    DELETE FROM main.head WHERE id NOT IN (SELECT id FROM copy.head)";

/// Waits until all that the horizon has passed is deleted.
fn wait_for_deleting(backed: &Backed, horizon: Revision) {
    let is_past = |version: &str| format!("{version} >> {ORDINAL_BITS} <= {horizon}");
    let left = format!(
        "SELECT (SELECT count(*) FROM versions n JOIN versions v ON v.version = n.previous WHERE {}) \
              + (SELECT count(*) FROM head WHERE live = 0 AND {})",
        is_past("n.version"),
        is_past("version")
    );
    let connection = Connection::open(backed.node.database()).unwrap();
    wait_until("what is let go of is deleted", || {
        connection.query_row(&left, [], |row| row.get::<_, i64>(0)).unwrap() == 0
    });
}

/// Each object is read as another node would: one that has deleted what the horizon passed, and one that has deleted nothing.
#[test]
fn what_stood_at_the_horizon_is_divided_however_much_of_the_rest_is_deleted() {
    let (mut backed, horizon) = late();
    remember(&backed, "all");
    compact(&mut backed, horizon);
    wait_for_deleting(&backed, horizon);
    let left = remember(&backed, "left");
    for round in 0.. {
        let (name, sql) = if round % 2 == 0 { ("all", PUT_BACK) } else { ("left", TAKE_AWAY) };
        change(&mut backed, name, sql);
        if !backed.object(1) {
            break;
        }
    }
    let archive = Archive::open(backed.dir.path()).unwrap();
    let before = archive.objects().iter().filter(|object| object.checked.header.last < horizon.0).count();
    assert!(before > 2, "what is before the horizon is {before} objects");
    change(&mut backed, "left", TAKE_AWAY);
    let (verified, newest) = (backed.verify().unwrap(), backed.node.tables().digest().unwrap().0);
    assert_eq!((verified.oldest, verified.newest, verified.versions), (horizon, newest, left));
    for at in [horizon, newest] {
        let (restored, node) = backed.restored(Some(Moment::Revision(at)));
        assert_eq!((restored.cut, restored.oldest, node.tables().horizon().unwrap()), (at, horizon, horizon));
        assert_same_at(&node, &backed.node, at);
        node.assert_digests_equal();
    }
}

#[test]
fn what_stood_at_the_horizon_is_gone_on_with_only_where_that_is_known() {
    let (mut backed, horizon) = late();
    compact(&mut backed, horizon);
    assert!(backed.object(1));
    let after = backed.after.unwrap();
    assert!(after.last < horizon && after.oldest == horizon, "{after:?}");
    // A node that is behind doesn't know what was replaced by then.
    let mut behind = Node::new(|_| {});
    behind.run(Body::CreateProject { name: "garden".to_owned(), files: Vec::new() });
    let early = After { last: Revision(1), ..after };
    let error = behind.tables().begin_backup(Some(early), 1).err().unwrap();
    assert!(
        matches!(error, BackupError::Tables(TablesError::Future { revision, .. }) if revision == horizon),
        "{error}"
    );
    // One whose horizon has moved on lacks what stood at the old one, and a new chain is whole all the same.
    compact(&mut backed, Revision(horizon.0 + 1));
    let error = backed.node.tables().begin_backup(Some(after), 1).err().unwrap();
    assert!(matches!(error, BackupError::Tables(TablesError::Compacted { .. })), "{error}");
    backed.after = Some(After { hash: None, ..after });
    backed.all(OBJECT_BYTES);
    let newest = backed.node.tables().digest().unwrap().0;
    assert_eq!((backed.verify().unwrap().newest, backed.restored(None).0.cut), (newest, newest));
}

#[test]
fn a_horizon_that_moved_after_the_cut_is_where_the_restored_history_begins() {
    let mut backed = Backed::new();
    let (_, tasks) = fill(&mut backed);
    let cut = backed.node.tables().digest().unwrap().0;
    let horizon = Revision(cut.0 - 2);
    for round in 0..3 {
        backed.node.run(note(tasks[0], &format!("round {round}")));
    }
    backed.node.run(Body::Compact { to: horizon, time: ClusterTime(2_000) });
    backed.node.tables().flush().unwrap();
    backed.all(300);
    assert_eq!(backed.verify().unwrap().oldest, horizon);
    for at in [cut, horizon] {
        let (restored, node) = backed.restored(Some(Moment::Revision(at)));
        assert_eq!((restored.cut, restored.oldest, node.tables().horizon().unwrap()), (at, horizon, horizon));
        assert_same_at(&node, &backed.node, at);
        node.assert_digests_equal();
        let error = node.tables().view(Some(Revision(horizon.0 - 1))).unwrap_err();
        assert!(matches!(error, TablesError::Compacted { .. }), "{error}");
    }
    let error =
        backed.restore(&backed.dir.path().join("x"), Some(Moment::Revision(Revision(horizon.0 - 1)))).unwrap_err();
    assert!(matches!(error, BackupError::TooOld { oldest, .. } if oldest == horizon), "{error}");
    // Past the end of the backup, there is no going on.
    let last = backed.after.unwrap().last;
    for _ in 0..3 {
        backed.node.run(note(tasks[0], "more"));
    }
    backed.node.run(Body::Compact { to: Revision(last.0 + 2), time: ClusterTime(2_000) });
    let error = backed.node.tables().begin_backup(backed.after, 1).err().unwrap();
    assert!(matches!(error, BackupError::Tables(TablesError::Compacted { .. })), "{error}");
}
