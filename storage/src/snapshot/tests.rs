//! Round trips, and every way in which a snapshot can be wrong.

mod contents;

use std::path::PathBuf;

use zyflow_crypto::{DataKey, KeyId};
use zyflow_machine::command::Body;
use zyflow_machine::id::Revision;

use super::*;
use crate::tables::tests::harness::{LINEAGE, Node, batch, command, edit, insert_first, note, populate, ring};
use crate::tables::{EntryPayload, TablesError};

fn store(node: &Node) -> SnapshotStore {
    SnapshotStore::open(&node.dir.path().join("snapshots"), 2).unwrap()
}

/// A node with a past: edits, deletions, sessions, a membership.
fn filled(tasks: usize) -> Node {
    let mut node = Node::new(|_| {});
    node.apply(EntryPayload::Membership(b"three of us".to_vec())).unwrap();
    let (project, change, tasks) = populate(&mut node, tasks);
    node.run(Body::OpenSession);
    for task in &tasks {
        node.run(note(*task, &"some words of a note ".repeat(10)));
    }
    node.run(edit(change, Revision(3), vec![insert_first("new")]));
    let gone =
        node.run(Body::CreateChange { project, path: "gone.md".to_owned(), blocks: Vec::new(), ops: Vec::new() })[0];
    let base = node.tables().digest().unwrap().0;
    node.run(Body::DeleteChange { change: gone, base });
    node
}

fn install(node: &Node, file: &Path) -> Result<SnapshotMeta, SnapshotError> {
    node.tables().install_snapshot(file, &ring(), &LINEAGE)
}

#[test]
fn a_node_that_joins_by_snapshot_has_the_same_state_and_the_same_past() {
    let mut old = filled(400);
    let meta = old.tables().build_snapshot(&store(&old), &ring(), &LINEAGE).unwrap();
    assert_eq!(meta.digest, old.tables().digest().unwrap().1);
    assert_eq!(meta.membership.as_ref().unwrap().1, b"three of us");
    assert_eq!(store(&old).verify(&meta.file, &ring(), &LINEAGE).unwrap(), meta);
    assert_eq!(store(&old).newest(&ring(), &LINEAGE).unwrap().unwrap(), meta);

    let mut new = Node::new(|_| {});
    assert_eq!(install(&new, &meta.file).unwrap(), meta);
    assert_eq!(new.assert_digests_equal(), old.assert_digests_equal());
    assert_eq!(new.tables().applied_state().unwrap(), old.tables().applied_state().unwrap());
    for revision in [0, 1, 2, 3, 100, 300, meta.position.index] {
        let [mine, theirs] = [&new, &old].map(|node| node.tables().view(Some(Revision(revision))).unwrap());
        let projects = theirs.projects().unwrap();
        assert_eq!(mine.projects().unwrap(), projects);
        for (project, _) in projects {
            assert_eq!(mine.paths(project).unwrap(), theirs.paths(project).unwrap());
            for (change, _) in theirs.changes(project).unwrap() {
                assert_eq!(mine.blocks(change).unwrap(), theirs.blocks(change).unwrap());
            }
        }
    }
    // Both go on from there, and the new one is what it is after a kill too.
    new.log.clone_from(&old.log);
    for node in [&mut new, &mut old] {
        node.run(Body::CreateProject { name: "later".to_owned(), files: Vec::new() });
    }
    assert_eq!(new.reopen().unwrap(), 1);
    assert_eq!(new.assert_digests_equal(), old.assert_digests_equal());
}

#[test]
fn a_snapshot_replaces_what_a_node_that_is_behind_had() {
    let mut ahead = filled(50);
    let mut behind = Node::new(|_| {});
    for entry in ahead.log.iter().take(20).cloned() {
        behind.log.push(entry.clone());
        behind.tables().apply(entry).unwrap();
    }
    let project = behind.view().projects().unwrap()[0].0;
    let before = behind.view();
    behind.tables().flush().unwrap();
    let meta = ahead.tables().build_snapshot(&store(&ahead), &ring(), &LINEAGE).unwrap();
    install(&behind, &meta.file).unwrap();
    assert_eq!(behind.assert_digests_equal(), ahead.assert_digests_equal());
    assert_eq!(behind.tables().backlog_ops(), 0);
    assert_eq!(before.changes(project).unwrap().len(), 1, "a view from before still answers");
    // The same again changes nothing, an older one is refused and changes nothing.
    install(&behind, &meta.file).unwrap();
    ahead.run(Body::CreateProject { name: "later".to_owned(), files: Vec::new() });
    let error = install(&ahead, &meta.file).unwrap_err();
    assert!(matches!(error, SnapshotError::Older { .. }), "{error}");
    assert!(ahead.tables().fatal().borrow().is_none());
    ahead.assert_digests_equal();
}

#[test]
fn what_begins_is_settled_though_the_tables_move_on() {
    let mut node = filled(10);
    let begun = node.tables().begin_snapshot().unwrap();
    let then = node.tables().digest().unwrap();
    node.run(Body::CreateProject { name: "later".to_owned(), files: Vec::new() });
    node.tables().flush().unwrap();
    let meta = begun.write(&store(&node), &ring(), &LINEAGE).unwrap();
    assert_eq!((Revision(meta.position.index), meta.digest), then);
    let new = Node::new(|_| {});
    install(&new, &meta.file).unwrap();
    assert_eq!(new.assert_digests_equal(), then);
}

#[test]
fn every_flipped_byte_and_every_cut_is_found_and_changes_nothing() {
    let source = filled(30);
    let snapshots = store(&source);
    let meta = source.tables().build_snapshot(&snapshots, &ring(), &LINEAGE).unwrap();
    let good = std::fs::read(&meta.file).unwrap();
    let target = Node::new(|_| {});
    let bad = target.dir.path().join("bad");
    let check = |what: &str, bytes: &[u8], installs: bool| {
        std::fs::write(&bad, bytes).unwrap();
        assert!(snapshots.verify(&bad, &ring(), &LINEAGE).is_err(), "{what} is not found");
        if installs {
            assert!(install(&target, &bad).is_err(), "{what} is installed");
            assert!(target.tables().fatal().borrow().is_none(), "{what}");
        }
    };
    let (count, step) = (good.len(), good.len() / 1500);
    // All of the beginning, where every byte has a meaning of its own, all of the end, and many between.
    let places = (0..200).chain((200..count - 100).step_by(step.max(1))).chain(count - 100..count);
    for (number, at) in places.enumerate() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&format!("a flip at {at}"), &bytes, number % 50 == 0);
    }
    for cut in (0..count).step_by(count / 60).chain(count - 40..count) {
        check(&format!("a cut at {cut}"), &good[..cut], cut % 7 == 0);
    }
    check("an appended byte", &[&good[..], &[0]].concat(), true);
    assert_eq!(target.tables().applied_state().unwrap(), (None, None));
    std::fs::write(&bad, &good).unwrap();
    install(&target, &bad).unwrap();
    assert_eq!(target.assert_digests_equal(), source.assert_digests_equal());
}

/// Offsets of the chunks' length fields, and of the trailer.
fn chunks(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![24];
    while *offsets.last().unwrap() + 32 < bytes.len() {
        let at = *offsets.last().unwrap();
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        offsets.push(at + 4 + usize::try_from(length).unwrap());
    }
    offsets
}

#[test]
fn chunks_that_change_places_are_found_even_with_a_right_checksum() {
    let source = filled(3000);
    let snapshots = store(&source);
    let build = || {
        let meta = source.tables().build_snapshot(&snapshots, &ring(), &LINEAGE).unwrap();
        std::fs::read(meta.file).unwrap()
    };
    let (one, two) = (build(), build());
    let at = chunks(&one);
    assert!(at.len() > 5, "several chunks: {at:?}");
    let part = |bytes: &[u8], number: usize| bytes[at[number]..at[number + 1]].to_vec();
    let last = at.len() - 2;
    let all = |bytes: &[u8]| (0..=last).map(|number| part(bytes, number)).collect::<Vec<_>>();
    let bad = source.dir.path().join("bad");
    let outcome = |parts: Vec<Vec<u8>>| {
        let mut bytes = [one[..24].to_vec(), parts.concat()].concat();
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        std::fs::write(&bad, &bytes).unwrap();
        snapshots.verify(&bad, &ring(), &LINEAGE).map_err(|error| error.to_string())
    };
    outcome(all(&one)).unwrap();
    let mut swapped = all(&one);
    swapped.swap(1, 2);
    let mut dropped = all(&one);
    dropped.remove(2);
    let mut repeated = all(&one);
    repeated.insert(2, repeated[1].clone());
    let mut mixed = all(&one);
    mixed[1] = part(&two, 1);
    for (what, parts) in [("swapped", swapped), ("dropped", dropped), ("repeated", repeated), ("mixed", mixed)] {
        let error = outcome(parts).unwrap_err();
        assert!(error.contains("a chunk is of another place or another snapshot"), "{what}: {error}");
    }
    let mut cut = all(&one);
    cut.pop();
    outcome(cut).unwrap_err();
}

#[test]
fn a_snapshot_of_another_lineage_or_under_another_key_does_not_open() {
    let source = filled(3);
    let meta = source.tables().build_snapshot(&store(&source), &ring(), &LINEAGE).unwrap();
    let target = Node::new(|_| {});
    let other = Lineage([1; 16]);
    let error = target.tables().install_snapshot(&meta.file, &ring(), &other).unwrap_err();
    assert!(matches!(error, SnapshotError::Open { chunk: 0, .. }), "{error}");
    let stranger = KeyRing::new(DataKey::new(KeyId(2), zeroize::Zeroizing::new([8; 32])));
    let error = target.tables().install_snapshot(&meta.file, &stranger, &LINEAGE).unwrap_err();
    assert!(matches!(error, SnapshotError::Open { chunk: 0, .. }), "{error}");
    let text = std::fs::read(&meta.file).unwrap();
    assert!(!text.windows(6).any(|window| window == b"garden"), "no name is in clear");
}

#[test]
fn the_newest_are_kept_and_what_was_not_finished_is_cleared() {
    let mut node = filled(2);
    let snapshots = store(&node);
    let mut files: Vec<PathBuf> = Vec::new();
    for round in 0..4 {
        node.run(Body::CreateProject { name: format!("round {round}"), files: Vec::new() });
        files.insert(0, node.tables().build_snapshot(&snapshots, &ring(), &LINEAGE).unwrap().file);
    }
    assert_eq!(snapshots.list().unwrap(), files[..2]);
    let stray = node.dir.path().join("snapshots/00ff.tmp");
    std::fs::write(&stray, "half").unwrap();
    assert_eq!(store(&node).list().unwrap(), files[..2]);
    assert!(!stray.exists());
}

#[test]
fn a_snapshot_that_is_received_is_kept_only_if_it_is_whole() {
    let source = filled(20);
    let meta = source.tables().build_snapshot(&store(&source), &ring(), &LINEAGE).unwrap();
    let bytes = std::fs::read(&meta.file).unwrap();
    let target = Node::new(|_| {});
    let snapshots = store(&target);
    let send = |bytes: &[u8]| {
        let mut incoming = snapshots.receive("one", 0).unwrap();
        bytes.chunks(1000).for_each(|part| incoming.write(part).unwrap());
        incoming.finish(&ring(), &LINEAGE)
    };
    assert!(send(&bytes[..bytes.len() - 1]).is_err());
    assert_eq!(std::fs::read_dir(target.dir.path().join("snapshots")).unwrap().count(), 0);
    let received = send(&bytes).unwrap();
    assert_eq!((received.position, received.digest, &received.id), (meta.position, meta.digest, &meta.id));
    install(&target, &received.file).unwrap();
    assert_eq!(target.assert_digests_equal(), source.assert_digests_equal());
}

#[test]
fn what_has_arrived_of_a_snapshot_stays_for_the_transfer_to_go_on_with() {
    let source = filled(20);
    let meta = source.tables().build_snapshot(&store(&source), &ring(), &LINEAGE).unwrap();
    let bytes = std::fs::read(&meta.file).unwrap();
    let target = Node::new(|_| {});
    let snapshots = store(&target);
    let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let arrived = |name: &str| store(&target).arrived(name).unwrap();
    assert_eq!(arrived("one"), Arrived { bytes: 0, hash: hash(b"") });
    let mut incoming = snapshots.receive("one", 0).unwrap();
    incoming.write(&bytes[..1000]).unwrap();
    assert_eq!(incoming.hash_with(&bytes[1000..1100]), hash(&bytes[..1100]));
    drop(incoming);
    assert_eq!(arrived("one"), Arrived { bytes: 1000, hash: hash(&bytes[..1000]) });
    assert_eq!(arrived("another").bytes, 0);
    let error = snapshots.receive("one", 1001).unwrap_err();
    assert!(error.to_string().contains("1000 bytes are here"), "{error}");
    // The sender has other bytes there than have arrived: it goes on from before them.
    let mut incoming = snapshots.receive("one", 600).unwrap();
    assert_eq!(incoming.written(), 600);
    incoming.write(&bytes[600..]).unwrap();
    let received = incoming.finish(&ring(), &LINEAGE).unwrap();
    assert_eq!(received.digest, meta.digest);
    assert_eq!(arrived("one").bytes, 0, "it isn't half here any more");
    // One at a time is half here.
    drop(snapshots.receive("two", 0).unwrap().write(b"half"));
    drop(snapshots.receive("three", 0).unwrap().write(b"half"));
    assert_eq!((arrived("two").bytes, arrived("three").bytes), (0, 4));
}

#[test]
fn the_database_without_its_wal_is_as_far_as_the_snapshot() {
    let mut node = filled(200);
    let copy = node.dir.path().join("copy.sqlite");
    let rows_without_wal = |node: &Node| {
        std::fs::copy(node.database(), &copy).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        connection
            .query_row("SELECT max(version) >> 20 FROM versions", [], |row| row.get::<_, Option<i64>>(0))
            .ok()
            .flatten()
    };
    node.tables().flush().unwrap();
    assert_eq!(rows_without_wal(&node), None, "so far it is all in the WAL");
    let meta = node.tables().build_snapshot(&store(&node), &ring(), &LINEAGE).unwrap();
    assert_eq!(rows_without_wal(&node), i64::try_from(meta.position.index).ok());
    node.run(Body::OpenSession);
    node.assert_digests_equal();
}

#[test]
fn there_is_no_snapshot_of_nothing() {
    let node = Node::new(|_| {});
    let error = node.tables().build_snapshot(&store(&node), &ring(), &LINEAGE).unwrap_err();
    assert!(matches!(error, SnapshotError::Empty), "{error}");
    assert!(store(&node).newest(&ring(), &LINEAGE).unwrap().is_none());
}

#[test]
fn a_crash_while_installing_leaves_the_old_state_or_the_new() {
    let source = filled(40);
    let meta = source.tables().build_snapshot(&store(&source), &ring(), &LINEAGE).unwrap();
    let mut target = Node::new(|_| {});
    populate(&mut target, 3);
    let old = target.assert_digests_equal();
    // Before the last step: the filled database lies there, and isn't in use.
    let ring = ring();
    let mut reader = Reader::open(&meta.file, &ring, &LINEAGE).unwrap_or_else(|error| panic!("{error}"));
    let header = reader.header().unwrap();
    let mut installation = Installation::begin(target.tables(), header.horizon).unwrap();
    while let Some(item) = reader.next().unwrap() {
        if let Item::Version(version) = item {
            installation.add_version(&version).unwrap();
        }
    }
    drop(installation);
    assert_eq!(std::fs::read_dir(&target.config.dir).unwrap().filter(is_database).count(), 2);
    assert_eq!(target.reopen().unwrap(), 0);
    assert_eq!(target.assert_digests_equal(), old);
    assert_eq!(std::fs::read_dir(&target.config.dir).unwrap().filter(is_database).count(), 1);
    // After it.
    install(&target, &meta.file).unwrap();
    target.log.clear();
    assert_eq!(target.reopen().unwrap(), 0);
    assert_eq!(target.assert_digests_equal(), source.assert_digests_equal());
}

fn is_database(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "sqlite")
}

/// Installs a snapshot without its n-th version.
fn install_without(target: &Node, file: &Path, missing: usize) -> Result<(), TablesError> {
    let ring = ring();
    let mut reader = Reader::open(file, &ring, &LINEAGE).unwrap_or_else(|error| panic!("{error}"));
    let header = reader.header().unwrap();
    let mut installation = Installation::begin(target.tables(), header.horizon).unwrap();
    let mut count = 0;
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Version(version) => {
                count += 1;
                if count != missing {
                    installation.add_version(&version)?;
                }
            }
            Item::Session(id, bytes) => installation.add_session(id, &bytes).unwrap(),
        }
    }
    installation.finish(&header.state, Digest::from_bytes(header.digest))
}

#[test]
fn a_snapshot_that_lacks_a_version_is_refused() {
    let source = filled(5);
    let meta = source.tables().build_snapshot(&store(&source), &ring(), &LINEAGE).unwrap();
    let target = Node::new(|_| {});
    // 1 the project, 2 the change, 3 to 7 the tasks, 8 to 12 their notes, 13 a block, 14 and 15 a change that came and went.
    for missing in [4, 14] {
        let error = install_without(&target, &meta.file, missing).unwrap_err().to_string();
        assert!(error.contains("is missing in a snapshot"), "{missing}: {error}");
    }
    for missing in [1, 8, 12, 13, 15] {
        let error = install_without(&target, &meta.file, missing).unwrap_err().to_string();
        assert!(error.contains("a snapshot adds up to"), "{missing}: {error}");
    }
    assert_eq!(target.tables().applied_state().unwrap(), (None, None));
    assert!(target.apply_is_possible());
    install(&Node::new(|_| {}), &meta.file).unwrap();
}

impl Node {
    fn apply_is_possible(&self) -> bool {
        let position = crate::tables::Position { term: 1, leader: 1, index: 1 };
        let payload = batch(vec![command(None, Body::OpenSession)]);
        self.tables().apply(crate::tables::Entry { position, payload }).is_ok()
    }
}
