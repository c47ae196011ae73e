//! Readers while entries are applied and written: what a view shows belongs to its revision, at whatever moment it looks.

use std::sync::atomic::{AtomicBool, Ordering};

use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Kind, Record};
use zyflow_machine::view::View;

use super::harness::{Node, edit, insert_first, note, populate};
use crate::tables::TablesView;

const ROUNDS: u64 = 600;

fn note_of(view: &TablesView, task: RecordId) -> String {
    match view.get(task).unwrap().unwrap().record.clone() {
        Some(Record::Block(block)) => block.task.unwrap().note.value,
        other => panic!("no task: {other:?}"),
    }
}

/// From the third entry on: odd revisions set the first task's note to the revision, even ones insert a block.
fn check(view: &TablesView, change: RecordId, task: RecordId) {
    let revision = view.revision().0;
    let noted = if revision % 2 == 1 { revision } else { revision - 1 };
    let expected = if noted < 3 { String::new() } else { noted.to_string() };
    assert_eq!(note_of(view, task), expected, "at {revision}");
    let blocks = view.children(Kind::Block, change).unwrap();
    assert_eq!(u64::try_from(blocks.len()).unwrap(), 4 + (revision - 2) / 2, "at {revision}");
    let newest = view.next(Kind::Block, change, None).unwrap().unwrap().1;
    if revision >= 4 {
        assert_eq!(newest.0.revision(), Revision(revision / 2 * 2), "at {revision}");
    }
}

#[test]
fn a_view_is_true_at_its_revision_while_everything_moves() {
    let mut node = Node::new(|config| {
        config.flush_interval = std::time::Duration::ZERO;
        config.flush_ops_max = 3;
        // Too small for anything to stay, so that every reader goes down to SQLite.
        config.cache_bytes_max = 2000;
    });
    let (_, change, tasks) = populate(&mut node, 4);
    let (task, tables, is_done) = (tasks[0], node.tables().clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..3_u64 {
            let (tables, is_done) = (&tables, &is_done);
            scope.spawn(move || {
                let mut pinned = tables.view(None).unwrap();
                let mut looks = reader;
                while !is_done.load(Ordering::Relaxed) {
                    check(&tables.view(None).unwrap(), change, task);
                    check(&pinned, change, task);
                    looks += 1;
                    if looks % 20 == 0 {
                        pinned = tables.view(None).unwrap();
                    }
                }
            });
        }
        for _ in 0..ROUNDS {
            let revision = node.tables().digest().unwrap().0.0 + 1;
            node.run(note(task, &revision.to_string()));
            node.run(edit(change, Revision(revision), vec![insert_first("block")]));
        }
        is_done.store(true, Ordering::Relaxed);
    });
    for revision in [2, 3, 4, 5, 100, 101, ROUNDS * 2] {
        check(&tables.view(Some(Revision(revision))).unwrap(), change, task);
    }
    node.assert_digests_equal();
}
