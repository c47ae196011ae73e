//! Databases that can't be believed, and what lies on disk.

use std::os::unix::fs::FileExt;

use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{RecordId, Revision};

use super::harness::{LINEAGE, Node, edit, insert_first, local_key, note, populate};
use crate::tables::{RANGE_PARTS_MAX, Tables, TablesConfig, TablesError};

fn filled() -> Node {
    let mut node = Node::new(|_| {});
    let (_, _, tasks) = populate(&mut node, 300);
    for task in &tasks {
        node.run(note(*task, &"words ".repeat(20)));
    }
    node.tables().flush().unwrap();
    node
}

fn overwrite(path: &std::path::Path, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_built_anew() {
    let mut node = filled();
    let before = node.assert_digests_equal();
    node.tables().shutdown().unwrap();
    node.kill();
    overwrite(&node.database(), 0, &[0xff; 4096]);
    assert_eq!(node.reopen().unwrap(), node.log.len());
    assert!(node.tables().rebuilt().unwrap().contains("not a database"), "{:?}", node.tables().rebuilt());
    assert_eq!(node.assert_digests_equal(), before);
    assert_eq!(node.reopen().unwrap(), 0, "and that one is believed");
    assert_eq!(node.tables().rebuilt(), None);
}

#[test]
fn a_torn_page_is_found_after_an_unclean_stop() {
    let mut node = filled();
    let before = node.assert_digests_equal();
    node.tables().checkpoint().unwrap();
    node.kill();
    let middle = std::fs::metadata(node.database()).unwrap().len() / 8192 * 4096;
    overwrite(&node.database(), middle, &[0xa5; 4096]);
    // Only a clean stop, which this was not, would do without the check.
    assert_eq!(node.reopen().unwrap(), node.log.len());
    assert!(node.tables().rebuilt().is_some());
    assert_eq!(node.assert_digests_equal(), before);
}

#[test]
fn a_row_that_does_not_open_stops_the_tables_and_is_built_anew() {
    let mut node = filled();
    let (before, (_, task)) = (node.assert_digests_equal(), {
        let change = node.view().changes(node.view().projects().unwrap()[0].0).unwrap()[0].0;
        (change, node.view().blocks(change).unwrap()[7].0)
    });
    node.tables().shutdown().unwrap();
    node.kill();
    let swap =
        "UPDATE versions SET body = (SELECT o.body FROM versions o WHERE o.id <> versions.id LIMIT 1) WHERE id = ?1";
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    connection.execute(swap, [i64::try_from(task.to_u64()).unwrap()]).unwrap();
    connection.close().unwrap();
    assert_eq!(node.reopen().unwrap(), 0, "the structure of the file is good");
    let error = node.tables().recompute_digest().unwrap_err();
    assert!(error.to_string().contains("failed"), "{error}");
    assert!(node.tables().fatal().borrow().is_some());
    assert!(node.tables().flush().is_err() && node.tables().shutdown().is_err());
    assert_eq!(node.reopen().unwrap(), node.log.len());
    assert!(node.tables().rebuilt().unwrap().contains("authenticate"), "{:?}", node.tables().rebuilt());
    assert_eq!(node.assert_digests_equal(), before);
}

#[test]
fn a_database_that_is_gone_is_built_anew() {
    let mut node = filled();
    let before = node.assert_digests_equal();
    node.kill();
    std::fs::remove_file(node.database()).unwrap();
    assert_eq!(node.reopen().unwrap(), node.log.len());
    assert_eq!(node.assert_digests_equal(), before);
    node.kill();
    std::fs::remove_dir_all(&node.config.dir).unwrap();
    assert_eq!(node.reopen().unwrap(), node.log.len());
    assert_eq!(node.assert_digests_equal(), before);
}

#[test]
fn an_update_that_was_lost_shows_in_the_digest() {
    let node = filled();
    let before = node.assert_digests_equal();
    let (id, versions): (i64, i64) = {
        let connection = rusqlite::Connection::open(node.database()).unwrap();
        let lose = "UPDATE head SET version = (SELECT previous FROM versions v WHERE v.version = head.version) \
                    WHERE id = (SELECT id FROM versions WHERE previous IS NOT NULL LIMIT 1) RETURNING id, version";
        connection.query_row(lose, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert!(id > 0 && versions > 0);
    let recomputed = node.tables().recompute_digest().unwrap();
    assert_eq!(recomputed.0, before.0);
    assert_ne!(recomputed.1, before.1);
}

/// The one record in which two nodes differ, as `zyflow verify` finds it.
fn first_difference(one: &Node, other: &Node, at: Revision) -> Option<RecordId> {
    let (mut first, mut last) = (RecordId::from_u64(0), RecordId::from_u64(u64::MAX >> 1));
    loop {
        let ask = |node: &Node| node.tables().range_digests(at, (first, last), RANGE_PARTS_MAX).unwrap();
        let part = ask(one).into_iter().zip(ask(other)).find(|(one, other)| one.digest != other.digest)?;
        (first, last) = (part.0.first, part.0.last);
        if first == last {
            return Some(first);
        }
    }
}

#[test]
fn the_row_that_was_lost_or_does_not_open_is_found_by_ranges() {
    let (mut good, mut bad) = (Node::new(|_| {}), Node::new(|_| {}));
    let mut tasks = Vec::new();
    for node in [&mut good, &mut bad] {
        tasks = populate(node, 300).2;
        for task in &tasks {
            node.run(note(*task, "first"));
        }
    }
    let row = |task: RecordId| i64::try_from(task.to_u64()).unwrap();
    let at = good.assert_digests_equal().0;
    bad.assert_digests_equal();
    assert_eq!(first_difference(&good, &bad, at), None);
    let connection = rusqlite::Connection::open(bad.database()).unwrap();
    let lose =
        "UPDATE head SET version = (SELECT previous FROM versions v WHERE v.version = head.version) WHERE id = ?1";
    connection.execute(lose, [row(tasks[120])]).unwrap();
    assert_eq!(first_difference(&good, &bad, at), Some(tasks[120]));
    // An earlier row that doesn't open comes first, and the search goes on past it.
    let swap = "UPDATE versions SET body = x'00' WHERE id = ?1";
    connection.execute(swap, [row(tasks[7])]).unwrap();
    assert_eq!(first_difference(&good, &bad, at), Some(tasks[7]));
    assert!(bad.tables().fatal().borrow().is_none(), "looking doesn't stop the node");
    // What came later changes nothing of what is compared.
    good.run(note(tasks[120], "later"));
    assert_eq!(first_difference(&good, &bad, at), Some(tasks[7]));
}

#[test]
fn digests_are_kept_by_revision_and_follow_the_recomputed_ones() {
    let mut node = filled();
    let (at, before) = node.assert_digests_equal();
    node.run(Body::CreateProject { name: "another".to_owned(), files: Vec::new() });
    assert_eq!(node.tables().digest_at(at).unwrap(), Some(before));
    assert_eq!(node.tables().digest_at(Revision(at.0 + 1)).unwrap(), Some(node.tables().digest().unwrap().1));
    assert_eq!(node.tables().digest_at(Revision(at.0 + 2)).unwrap(), None);
    node.tables().flush().unwrap();
    let (mut begun, mut looks) = (None, 0);
    let stopped = node.tables().recompute_digest_while(
        |revision| begun = Some(revision),
        |_rows| {
            looks += 1;
            false
        },
    );
    // Fewer rows than a look is made after: it is read to its end.
    assert_eq!((begun, looks), (Some(Revision(at.0 + 1)), 0));
    assert_eq!(stopped.unwrap(), Some(node.tables().digest().unwrap()));
    node.tables().shutdown().unwrap();
    assert_eq!(node.reopen().unwrap(), 0);
    assert_eq!(node.tables().digest_at(at).unwrap(), None, "of before the start only the newest is known");
    assert_eq!(node.tables().digest_at(Revision(at.0 + 1)).unwrap(), Some(node.tables().digest().unwrap().1));
    node.tables().distrust("a majority has another digest");
    node.kill();
    assert!(node.reopen().unwrap() > 0);
    assert!(node.tables().rebuilt().unwrap().contains("majority"), "{:?}", node.tables().rebuilt());
}

#[test]
fn another_nodes_database_and_a_newer_one_are_refused_and_not_touched() {
    let mut node = filled();
    node.kill();
    let bytes = std::fs::metadata(node.database()).unwrap().len();
    let mut other = node.config.clone();
    other.lineage = zyflow_crypto::Lineage([9; 16]);
    let open = |config: TablesConfig| Tables::open(config, local_key(node.dir.path()), node.durable.subscribe());
    let error = open(other).unwrap_err();
    assert!(matches!(error, TablesError::OtherLineage { .. }), "{error}");
    let connection = rusqlite::Connection::open(node.database()).unwrap();
    connection.execute("UPDATE meta SET value = x'000000ff' WHERE key = 'schema'", []).unwrap();
    connection.close().unwrap();
    let error = open(node.config.clone()).unwrap_err();
    assert!(matches!(error, TablesError::NewerSchema { found: 255, .. }), "{error}");
    assert!(std::fs::metadata(node.database()).unwrap().len() >= bytes);
}

#[test]
fn a_node_with_another_key_builds_its_tables_anew() {
    let mut node = filled();
    let before = node.assert_digests_equal();
    node.kill();
    std::fs::remove_file(node.dir.path().join("node.key")).unwrap();
    node.key = local_key(node.dir.path());
    assert_eq!(node.reopen().unwrap(), node.log.len());
    assert_eq!(node.assert_digests_equal(), before);
}

#[test]
fn nothing_of_a_text_is_in_clear_on_disk() {
    let secrets = ["marmalade-project", "quince/hidden-path.md", "apricot-block", "damson-note", "medlar-assignee"];
    let mut node = Node::new(|_| {});
    let project = node.run(Body::CreateProject { name: secrets[0].to_owned(), files: vec![secrets[1].to_owned()] })[0];
    let created =
        node.run(Body::CreateChange { project, path: secrets[1].to_owned(), blocks: Vec::new(), ops: Vec::new() });
    let change = created[0];
    let block = node.run(edit(change, Revision(2), vec![insert_first(secrets[2])]))[0];
    node.run(note(block, secrets[3]));
    let assignee = TaskField::Assignee(Some(secrets[4].to_owned()));
    node.run(Body::SetTask { task: block, expected: None, fields: vec![assignee], mark: None });
    // An outcome that a session remembers can hold a name too.
    let session = zyflow_machine::id::SessionId(node.run(Body::OpenSession)[0].0);
    let request = Some(zyflow_machine::id::RequestId { session, seq: 1 });
    let again = Body::CreateProject { name: secrets[0].to_owned(), files: Vec::new() };
    node.apply(super::harness::batch(vec![super::harness::command(request, again)])).unwrap();
    node.assert_digests_equal();
    let found_in_files = |node: &Node, word: &str| {
        std::fs::read_dir(&node.config.dir).unwrap().any(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(word.len()).any(|window| window == word.as_bytes())
        })
    };
    for moment in ["in the WAL", "in the database"] {
        for secret in secrets {
            assert!(!found_in_files(&node, secret), "{secret} is in clear {moment}");
        }
        assert!(found_in_files(&node, "head_place"), "the search finds what is there {moment}");
        node.tables().checkpoint().unwrap();
    }
    assert_eq!(node.view().project_named(secrets[0]).unwrap().unwrap().0, project);
    assert_eq!(LINEAGE, node.config.lineage);
}

#[test]
fn what_a_crash_left_beside_the_database_is_cleared_away() {
    let mut node = filled();
    let before = node.assert_digests_equal();
    node.kill();
    let stray = node.config.dir.join("tables-000009.sqlite");
    std::fs::write(&stray, "half a snapshot").unwrap();
    std::fs::write(node.config.dir.join("tables-000009.sqlite-wal"), "x").unwrap();
    assert_eq!(node.reopen().unwrap(), 0);
    assert!(!stray.exists());
    assert_eq!(node.assert_digests_equal(), before);
}
