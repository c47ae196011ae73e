//! Snapshots whose bytes are right and whose contents are wrong: made from damaged tables, or by a program that is.

use super::*;
use crate::snapshot::format::{mint_id, write_parts};
use crate::tables::TravellingVersion;

/// What a file holds, to be written anew and otherwise.
struct Contents {
    header: format::Header,
    versions: Vec<TravellingVersion>,
    sessions: Vec<(zyflow_machine::id::SessionId, Vec<u8>)>,
}

impl Contents {
    fn of(file: &Path) -> Self {
        let ring = ring();
        let mut reader = Reader::open(file, &ring, &LINEAGE).unwrap_or_else(|error| panic!("{error}"));
        let header = reader.header().unwrap();
        let (mut versions, mut sessions) = (Vec::new(), Vec::new());
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::Version(version) => versions.push(version),
                Item::Session(id, bytes) => sessions.push((id, bytes)),
            }
        }
        Self { header, versions, sessions }
    }

    /// Sealed and summed as it should be.
    fn write(&self, path: &Path) -> Result<(), SnapshotError> {
        let (state, digest) = (&self.header.state, Digest::from_bytes(self.header.digest));
        let parts = Parts { state, horizon: self.header.horizon, digest };
        write_parts(path, mint_id()?, &parts, &self.sessions, &ring(), &LINEAGE, |give| {
            self.versions.iter().try_for_each(give)
        })
    }
}

/// As [`filled`] makes a node: where a snapshot of it lies, and others with one thing wrong, with what is to be said of them.
fn bad_ones(node: &Node) -> (PathBuf, Vec<(PathBuf, &'static str)>) {
    let meta = node.tables().build_snapshot(&store(node), &ring(), &LINEAGE).unwrap();
    let mut bad = Vec::new();
    let mut add = |words: &'static str, spoil: &dyn Fn(&mut Contents)| {
        let mut contents = Contents::of(&meta.file);
        spoil(&mut contents);
        let path = node.dir.path().join(format!("bad {}", bad.len()));
        contents.write(&path).unwrap();
        bad.push((path, words));
    };
    // 1 the project, 2 the change, 3 to 7 the tasks, 8 to 12 their notes, 13 a block, 14 and 15 a change that came and went.
    for missing in [1, 8, 12, 13, 15] {
        add("adds up to", &|contents| drop(contents.versions.remove(missing - 1)));
    }
    for missing in [4, 14] {
        add("is missing", &|contents| drop(contents.versions.remove(missing - 1)));
    }
    add("out of order", &|contents| contents.versions.swap(3, 4));
    add("adds up to", &|contents| drop(contents.sessions.pop()));
    add("adds up to", &|contents| contents.header.digest[31] ^= 1);
    add("its horizon", &|contents| contents.header.horizon = Revision(1));
    add("of another state", &|contents| contents.header.state.position.index += 1);
    (meta.file, bad)
}

#[test]
fn what_contradicts_itself_is_not_kept_by_whoever_receives_it_and_stops_nobody() {
    let source = filled(5);
    let (good, bad) = bad_ones(&source);
    let target = Node::new(|_| {});
    let snapshots = store(&target);
    let send = |file: &Path| {
        let mut incoming = snapshots.receive("one", 0).unwrap();
        incoming.write(&std::fs::read(file).unwrap()).unwrap();
        incoming.finish(&ring(), &LINEAGE)
    };
    for (file, words) in bad {
        let error = send(&file).unwrap_err();
        assert!(matches!(error, SnapshotError::Inconsistent { .. }), "{words}: {error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert_eq!(std::fs::read_dir(target.dir.path().join("snapshots")).unwrap().count(), 0, "{words}");
    }
    assert!(target.tables().fatal().borrow().is_none());
    // Written by the same hand, with nothing wrong, it is taken.
    let same = source.dir.path().join("same");
    Contents::of(&good).write(&same).unwrap();
    install(&target, &send(&same).unwrap().file).unwrap();
    assert_eq!(target.assert_digests_equal(), source.assert_digests_equal());
}

#[test]
fn tables_that_lost_a_version_make_no_snapshot_and_are_built_anew() {
    let newest = "DELETE FROM versions WHERE version = (SELECT max(version) FROM versions)";
    let middle = "DELETE FROM versions WHERE version = (SELECT min(previous) FROM versions)";
    for (lose, words) in [(newest, "adds up to"), (middle, "is missing")] {
        let mut node = filled(5);
        let snapshots = store(&node);
        let older = node.tables().build_snapshot(&snapshots, &ring(), &LINEAGE).unwrap();
        node.run(Body::OpenSession);
        let before = node.assert_digests_equal();
        let connection = rusqlite::Connection::open(node.database()).unwrap();
        assert_eq!(connection.execute(lose, []).unwrap(), 1);
        drop(connection);

        let error = node.tables().build_snapshot(&snapshots, &ring(), &LINEAGE).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(node.tables().fatal().borrow().is_some(), "the tables go on with {words}");
        let files = std::fs::read_dir(node.dir.path().join("snapshots")).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files, [older.file], "the older one is there, and nothing else");

        assert_eq!(node.reopen().unwrap(), node.log.len());
        assert!(node.tables().rebuilt().unwrap().contains(words), "{:?}", node.tables().rebuilt());
        assert_eq!(node.assert_digests_equal(), before);
        node.tables().build_snapshot(&snapshots, &ring(), &LINEAGE).unwrap();
    }
}

#[test]
fn a_bad_file_is_set_aside_and_the_older_one_is_used() {
    let source = filled(5);
    let target = Node::new(|_| {});
    let snapshots = store(&target);
    let folder = target.dir.path().join("snapshots");
    let (good, bad) = bad_ones(&source);
    let older = folder.join(good.file_name().unwrap());
    std::fs::copy(&good, &older).unwrap();
    let newest = folder.join(format!("{}.snapshot", "9".repeat(20)));
    let refused = folder.join(format!("{}.snapshot.refused", "9".repeat(20)));
    let set_aside = |file: &Path| snapshots.set_aside_if_bad(file, &ring(), &LINEAGE).unwrap();
    let flipped = source.dir.path().join("flipped");
    let mut bytes = std::fs::read(&good).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&flipped, bytes).unwrap();
    for (file, words) in bad.into_iter().chain([(flipped, "a flipped bit")]) {
        std::fs::copy(&file, &newest).unwrap();
        assert_eq!(snapshots.newest_bytes().unwrap(), std::fs::metadata(&newest).unwrap().len());
        assert!(install(&target, &newest).is_err(), "{words} is installed");
        assert!(target.tables().fatal().borrow().is_none(), "{words} stops the tables");
        assert!(set_aside(&newest), "{words} is left where it was");
        assert_eq!(snapshots.list().unwrap(), std::slice::from_ref(&older));
        assert!(refused.exists());
    }
    // A stranger's key opens nothing, and says nothing against the file.
    let stranger = KeyRing::new(DataKey::new(KeyId(2), zeroize::Zeroizing::new([8; 32])));
    assert!(!snapshots.set_aside_if_bad(&older, &stranger, &LINEAGE).unwrap());
    assert!(!snapshots.set_aside_if_bad(&older, &ring(), &Lineage([1; 16])).unwrap());
    assert!(!set_aside(&older));
    install(&target, &older).unwrap();
    assert_eq!(target.assert_digests_equal(), source.assert_digests_equal());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_from_other_failures() {
    let source = filled(5);
    let (good, _) = bad_ones(&source);
    let contents = Contents::of(&good);
    let full = contents.write(Path::new("/dev/full")).unwrap_err();
    assert!(full.is_out_of_room(), "{full}");
    let missing = contents.write(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(!missing.is_out_of_room(), "{missing}");
}
