//! Backups that are whole come out as they went in, at every revision; and every way in which one can be wrong.

mod horizon;
mod start;

use std::path::{Path, PathBuf};

use zyflow_crypto::backup::{check, object_name};
use zyflow_crypto::{DataKey, KeyId};
use zyflow_machine::command::{Batch, Body};
use zyflow_machine::id::{ClusterTime, RecordId};
use zyflow_machine::record::Record;
use zyflow_machine::view::View;

use super::object::Reader;
use super::*;
use crate::layout::{Layout, LayoutError};
use crate::snapshot::SnapshotStore;
use crate::tables::tests::harness::{LINEAGE, Node, batch, command, edit, insert_first, note, populate, ring};
use crate::tables::{EntryPayload, TablesError, TravellingVersion};
use crate::types::NodeInfo;

/// A node whose backup goes to a folder.
struct Backed {
    node: Node,
    dir: tempfile::TempDir,
    after: Option<After>,
}

impl Backed {
    fn new() -> Self {
        Self { node: Node::new(|_| {}), dir: tempfile::tempdir().unwrap(), after: None }
    }

    /// Applies a command at a time.
    fn at(&mut self, time: u64, body: Body) -> Revision {
        let commands = vec![command(None, body)];
        self.node.apply(EntryPayload::Batch(Batch { stamped: ClusterTime(time), commands })).unwrap();
        self.node.tables().digest().unwrap().0
    }

    /// Writes one object; says whether there was one to write.
    fn object(&mut self, bytes: u64) -> bool {
        let Some(begun) = self.node.tables().begin_backup(self.after, bytes).unwrap() else { return false };
        let ring = ring();
        let sealing = Sealing { ring: &ring, lineage: &LINEAGE, cluster: "old", made_ms: 9_000 };
        let mut object = Vec::new();
        let (header, hash) = begun.write(&mut object, &sealing).unwrap();
        std::fs::write(self.dir.path().join(object_name(header.number)), &object).unwrap();
        let (last, oldest) = (Revision(header.last), Revision(header.oldest));
        self.after = Some(After { last, oldest, number: header.number, hash: Some(hash) });
        true
    }

    fn all(&mut self, bytes: u64) {
        while self.object(bytes) {}
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.path().join(object_name(number))
    }

    fn verify(&self) -> Result<Verified, BackupError> {
        let working = tempfile::tempdir().unwrap();
        Archive::open(self.dir.path())?.verify(&ring(), working.path())
    }

    fn restore(&self, data: &Path, to: Option<Moment>) -> Result<Restored, BackupError> {
        let working = tempfile::tempdir().unwrap();
        restore(&Archive::open(self.dir.path())?, &plan(data, to), &ring(), working.path())
    }

    /// The restored state, in tables.
    fn restored(&self, to: Option<Moment>) -> (Restored, Node) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let restored = self.restore(&data, to).unwrap();
        let layout = Layout::open(&data).unwrap();
        layout.expect(LINEAGE, 4).unwrap();
        let store = SnapshotStore::open(&layout.snapshots_dir(), 2).unwrap();
        let node = Node::new(|_| {});
        node.tables().install_snapshot(&store.list().unwrap()[0], &ring(), &LINEAGE).unwrap();
        (restored, node)
    }
}

fn plan(data: &Path, to: Option<Moment>) -> RestorePlan<'_> {
    let info = NodeInfo::at("127.0.0.1:1");
    RestorePlan { cluster: "new", lineage: LINEAGE, node: 4, info, data, to, now: ClusterTime(9_500) }
}

/// Edits, deletions, notes, a membership, at times that are 10 apart: (change, tasks).
fn fill(backed: &mut Backed) -> (RecordId, Vec<RecordId>) {
    backed.node.apply(EntryPayload::Membership(b"us".to_vec())).unwrap();
    let (project, change, tasks) = populate(&mut backed.node, 4);
    backed.node.run(Body::OpenSession);
    for (at, task) in (101..).zip(&tasks) {
        backed.at(at * 10, note(*task, &format!("note at {at}")));
    }
    let base = backed.node.tables().digest().unwrap().0;
    backed.at(2_000, edit(change, base, vec![insert_first("new")]));
    let gone = Body::CreateChange { project, path: "gone.md".to_owned(), blocks: Vec::new(), ops: Vec::new() };
    let gone = backed.node.run(gone)[0];
    let base = backed.node.tables().digest().unwrap().0;
    backed.at(3_000, Body::DeleteChange { change: gone, base });
    (change, tasks)
}

fn note_of(view: &impl View, task: RecordId) -> String {
    let stored = view.get(task).unwrap().unwrap();
    let Some(Record::Block(block)) = &stored.record else { panic!("no task") };
    block.task.as_ref().unwrap().note.value.clone()
}

/// Two nodes show the same at a revision.
fn assert_same_at(mine: &Node, theirs: &Node, at: Revision) {
    let [mine, theirs] = [mine, theirs].map(|node| node.tables().view(Some(at)).unwrap());
    let projects = theirs.projects().unwrap();
    assert_eq!(mine.projects().unwrap(), projects);
    for (project, _) in projects {
        assert_eq!(mine.paths(project).unwrap(), theirs.paths(project).unwrap());
        for (change, _) in theirs.changes(project).unwrap() {
            assert_eq!(mine.blocks(change).unwrap(), theirs.blocks(change).unwrap());
        }
    }
}

#[test]
fn a_restored_cluster_is_the_old_one_at_every_revision() {
    let mut backed = Backed::new();
    let (_, tasks) = fill(&mut backed);
    // An object for each revision that has versions.
    backed.all(1);
    backed.node.run(note(tasks[0], "later"));
    backed.all(OBJECT_BYTES);
    let verified = backed.verify().unwrap();
    let newest = backed.node.tables().digest().unwrap().0;
    assert_eq!((verified.oldest, verified.newest, verified.cluster.as_str()), (Revision(0), newest, "old"));
    assert_eq!(verified.objects, 10);
    for at in 0..=newest.0 {
        let (restored, node) = backed.restored(Some(Moment::Revision(Revision(at))));
        let begins = Revision(newest.0 + REVISIONS_AHEAD);
        assert_eq!((restored.cut, restored.last, restored.revision), (Revision(at), newest, begins));
        assert_eq!(node.assert_digests_equal().0, begins);
        for earlier in 0..=at {
            assert_same_at(&node, &backed.node, Revision(earlier));
        }
        let now = node.view();
        let then = backed.node.tables().view(Some(Revision(at))).unwrap();
        assert_eq!(now.projects().unwrap(), then.projects().unwrap());
        let roster = node.tables().applied_state().unwrap().1.unwrap();
        let roster = crate::codec::decode_roster(&roster.1).unwrap();
        assert_eq!(roster.membership.voter_ids().collect::<Vec<_>>(), [4]);
    }
}

#[test]
fn what_was_undone_is_refused_by_name_and_the_cluster_goes_on() {
    let mut backed = Backed::new();
    let (_, tasks) = fill(&mut backed);
    backed.all(OBJECT_BYTES);
    let last = backed.node.tables().digest().unwrap().0;
    let cut = Revision(last.0 - 3);
    let (restored, mut node) = backed.restored(Some(Moment::Revision(cut)));
    for undone in [cut.0 + 1, last.0, last.0 + 500_000, restored.revision.0 - 1] {
        let error = node.tables().view(Some(Revision(undone))).unwrap_err();
        assert!(matches!(&error, TablesError::Undone { cut: to, at, .. } if (*to, *at) == (cut, restored.revision)));
    }
    // Who watched up to the cut has seen nothing that was undone; who is told to go on from R names the revision before it.
    for seen in [cut.0, restored.revision.0 - 1, restored.revision.0] {
        node.tables().refuse_undone(Revision(seen)).unwrap();
    }
    for seen in [cut.0 + 1, restored.revision.0 - 2] {
        assert!(node.tables().refuse_undone(Revision(seen)).unwrap_err().to_string().contains("go on from revision"));
    }
    // Nobody's time lies in between.
    assert_eq!(node.tables().revision_at(ClusterTime(9_400)).unwrap(), cut);
    assert_eq!(node.tables().revision_at(ClusterTime(9_500)).unwrap(), restored.revision);
    let position = node.tables().applied_state().unwrap().0.unwrap();
    node.log = vec![crate::tables::Entry { position, payload: EntryPayload::Blank }];
    let base = Revision(cut.0 + 1);
    let stale = Body::SetTask { task: tasks[0], expected: Some(base), fields: Vec::new(), mark: None };
    let outcomes = node.apply(batch(vec![command(None, stale)])).unwrap();
    assert!(format!("{outcomes:?}").contains("was undone"), "{outcomes:?}");
    node.run(note(tasks[0], "goes on"));
    assert_eq!(note_of(&node.view(), tasks[0]), "goes on");
    node.assert_digests_equal();
    // The node's own database says the same after a start.
    node.reopen().unwrap();
    assert!(node.tables().view(Some(base)).is_err());
    // And it can be backed up again, in a chain of its own, and so restored.
    let mut again = Backed { node, dir: tempfile::tempdir().unwrap(), after: None };
    again.all(OBJECT_BYTES);
    let (twice, node) = again.restored(Some(Moment::Revision(restored.revision)));
    assert_eq!(twice.cut, restored.revision);
    assert!(node.tables().view(Some(base)).is_err() && node.tables().view(Some(twice.last)).is_err());
    let error = again.restore(&again.dir.path().join("x"), Some(Moment::Revision(base))).unwrap_err();
    assert!(matches!(error, BackupError::Undone { .. }), "{error}");
}

#[test]
fn a_time_between_two_events_is_the_state_after_the_first() {
    let mut backed = Backed::new();
    let (_, tasks) = fill(&mut backed);
    let first = backed.at(5_000, note(tasks[1], "first"));
    let second = backed.at(6_000, note(tasks[1], "second"));
    assert_eq!(second.0, first.0 + 1);
    backed.all(300);
    let to = |time| Some(Moment::Time(ClusterTime(time)));
    for (time, cut, expected) in
        [(5_000, first, "first"), (5_999, first, "first"), (6_000, second, "second"), (8_999, second, "second")]
    {
        let (restored, node) = backed.restored(to(time));
        assert_eq!((restored.cut, note_of(&node.view(), tasks[1]).as_str()), (cut, expected), "{time}");
    }
    let nowhere = backed.dir.path().join("nowhere");
    let error = backed.restore(&nowhere, to(999)).unwrap_err().to_string();
    assert!(error.contains("holds nothing of 999 ms") && error.contains("revision 0, of 1000 ms"), "{error}");
    let error = backed.restore(&nowhere, to(9_001)).unwrap_err().to_string();
    assert!(error.contains("ends before 9001 ms") && error.contains(&format!("revision {second}")), "{error}");
    let error = backed.restore(&nowhere, Some(Moment::Revision(Revision(second.0 + 1)))).unwrap_err();
    assert!(matches!(error, BackupError::TooNew { newest, .. } if newest == second), "{error}");
    assert!(!nowhere.exists(), "a refusal makes nothing");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found_without_a_key_and_nothing_is_made() {
    let mut backed = Backed::new();
    let project = backed.node.run(Body::CreateProject { name: "garden".to_owned(), files: Vec::new() })[0];
    backed.all(OBJECT_BYTES);
    backed.node.run(note_like(project));
    backed.all(OBJECT_BYTES);
    let data = backed.dir.path().join("data");
    for number in [1, 2] {
        let path = backed.path(number);
        let good = std::fs::read(&path).unwrap();
        assert!(!good.windows(6).any(|window| window == b"garden"), "no name is in clear");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            let error = Archive::open(backed.dir.path()).expect_err("a flipped bit is not found").to_string();
            assert!(error.contains(&object_name(number)), "bit {bit} of {number}: {error}");
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(Archive::open(backed.dir.path()).is_err(), "{length} bytes of {number}");
        }
        assert!(backed.restore(&data, None).is_err() && !data.exists());
        std::fs::write(&path, &good).unwrap();
    }
    backed.verify().unwrap();
    backed.restore(&data, None).unwrap();
}

fn note_like(project: RecordId) -> Body {
    Body::CreateChange { project, path: "a/tasks.md".to_owned(), blocks: Vec::new(), ops: Vec::new() }
}

#[test]
fn objects_that_are_swapped_missing_repeated_or_another_backups_are_found() {
    let mut backed = Backed::new();
    fill(&mut backed);
    backed.all(200);
    let count = u32::try_from(Archive::open(backed.dir.path()).unwrap().objects().len()).unwrap();
    assert!(count >= 4, "{count}");
    let all: Vec<Vec<u8>> = (1..=count).map(|number| std::fs::read(backed.path(number)).unwrap()).collect();
    let refused = |objects: &[(u32, &Vec<u8>)]| {
        let dir = tempfile::tempdir().unwrap();
        for (number, bytes) in objects {
            std::fs::write(dir.path().join(object_name(*number)), bytes).unwrap();
        }
        Archive::open(dir.path()).map(drop).map_err(|error| error.to_string())
    };
    let whole: Vec<(u32, &Vec<u8>)> = (1..).zip(&all).collect();
    refused(&whole).unwrap();
    let mut swapped = whole.clone();
    (swapped[1].1, swapped[2].1) = (swapped[2].1, swapped[1].1);
    assert!(refused(&swapped).unwrap_err().contains("it has the number of another one"));
    let mut missing = whole.clone();
    missing.remove(2);
    assert!(refused(&missing).unwrap_err().contains("its number isn't the next one"));
    assert!(refused(&whole[1..]).unwrap_err().contains("nothing is there before it"));
    let mut repeated = whole.clone();
    repeated[2].1 = repeated[1].1;
    assert!(refused(&repeated).unwrap_err().contains("it has the number of another one"));
    // The same cut, made anew: it has another id, and so another hash.
    let mut other = Backed { after: None, ..backed };
    std::fs::remove_dir_all(other.dir.path()).unwrap();
    std::fs::create_dir(other.dir.path()).unwrap();
    other.all(400);
    let replaced = std::fs::read(other.path(2)).unwrap();
    let mut mixed = whole.clone();
    mixed[1].1 = &replaced;
    assert!(refused(&mixed).unwrap_err().contains("it names another object"));
    // What is missing at the end can't be seen.
    refused(&whole[..3]).unwrap();
}

#[test]
fn a_header_that_was_changed_with_its_checksum_is_found_with_the_key() {
    let mut backed = Backed::new();
    fill(&mut backed);
    backed.all(OBJECT_BYTES);
    let path = backed.path(1);
    let good = std::fs::read(&path).unwrap();
    let mut header = check(good.as_slice()).unwrap().header;
    header.last += 1;
    let end = good.len() - 32;
    let mut bad = header.encode().to_vec();
    bad.extend_from_slice(&good[112..end]);
    bad.extend_from_slice(blake3::hash(&bad).as_bytes());
    std::fs::write(&path, &bad).unwrap();
    Archive::open(backed.dir.path()).unwrap();
    let error = backed.verify().unwrap_err().to_string();
    assert!(error.contains("its header isn't the one that was sealed"), "{error}");
}

#[test]
fn another_key_or_another_history_is_refused() {
    let mut backed = Backed::new();
    fill(&mut backed);
    backed.all(OBJECT_BYTES);
    let (archive, working) = (Archive::open(backed.dir.path()).unwrap(), tempfile::tempdir().unwrap());
    let stranger = KeyRing::new(DataKey::new(KeyId(2), zeroize::Zeroizing::new([8; 32])));
    let error = archive.verify(&stranger, working.path()).unwrap_err();
    assert!(matches!(error, BackupError::Open { chunk: 0, .. }), "{error}");
    let data = backed.dir.path().join("data");
    let other = RestorePlan { lineage: Lineage([1; 16]), ..plan(&data, None) };
    let error = restore(&archive, &other, &ring(), working.path()).unwrap_err();
    assert!(matches!(error, BackupError::OtherLineage { .. }), "{error}");
    let same = RestorePlan { cluster: "old", ..plan(&data, None) };
    let error = restore(&archive, &same, &ring(), working.path()).unwrap_err();
    assert!(matches!(error, BackupError::SameCluster(_)), "{error}");
    assert!(!data.exists());
}

/// Every version of an object, changed on the way by `change`, sealed again as who has the key could.
fn rewritten(backed: &Backed, change: impl Fn(usize, TravellingVersion) -> Option<TravellingVersion>) {
    let (path, ring) = (backed.path(1), ring());
    let bytes = std::fs::read(&path).unwrap();
    let (mut reader, contents) = Reader::open(bytes.as_slice(), &object_name(1), &ring).unwrap();
    let (mut versions, mut at) = (Vec::new(), 0);
    while let Some(version) = reader.next().unwrap() {
        versions.extend(change(at, version));
        at += 1;
    }
    let header = reader.header().clone();
    let sealing = Sealing { ring: &ring, lineage: &LINEAGE, cluster: "old", made_ms: header.made_ms };
    let digest = contents.digest.map(zyflow_machine::Digest::from_bytes);
    let mut out = Vec::new();
    object::write(&mut out, &header, digest, &sealing, |give| versions.iter().try_for_each(give)).unwrap();
    std::fs::write(&path, out).unwrap();
}

#[test]
fn replaying_finds_versions_that_are_not_what_their_events_make() {
    let error_of = |change: &dyn Fn(usize, TravellingVersion) -> Option<TravellingVersion>| {
        let mut backed = Backed::new();
        fill(&mut backed);
        backed.all(OBJECT_BYTES);
        rewritten(&backed, change);
        backed.verify().map(drop).map_err(|error| error.to_string())
    };
    error_of(&|_, version| Some(version)).unwrap();
    // 0 the project, 1 the change, 2 to 5 tasks, 6 to 9 their notes.
    let lacks_first = error_of(&|at, version| (at != 2).then_some(version)).unwrap_err();
    assert!(lacks_first.contains("doesn't follow the version before it of its record"), "{lacks_first}");
    let lacks_last = error_of(&|at, version| (at != 9).then_some(version)).unwrap_err();
    assert!(lacks_last.contains("add up to"), "{lacks_last}");
    let changed = error_of(&|at, version| {
        let body = version.body.row(version.version, version.id, version.previous).unwrap();
        let mut row = body;
        if at == 6 {
            let mut stored = (*row.stored).clone();
            if let Some(Record::Block(block)) = &mut stored.record {
                block.text.value.push('!');
            }
            row.stored = std::sync::Arc::new(stored);
        }
        Some(TravellingVersion { body: crate::tables::Body::of_row(&row), ..version })
    });
    assert!(changed.unwrap_err().contains("is not what its event makes of the version before it"));
}

#[test]
fn a_folder_that_is_not_empty_or_was_left_half_done_is_refused() {
    let mut backed = Backed::new();
    fill(&mut backed);
    backed.all(OBJECT_BYTES);
    let dir = tempfile::tempdir().unwrap();
    let stray = dir.path().join("zyflowd.toml");
    std::fs::write(&stray, "mine").unwrap();
    let error = backed.restore(dir.path(), None).unwrap_err();
    assert!(matches!(error, BackupError::Layout(LayoutError::Foreign { .. })), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
    std::fs::remove_file(&stray).unwrap();
    backed.restore(dir.path(), None).unwrap();
    let error = backed.restore(dir.path(), None).unwrap_err();
    assert!(matches!(error, BackupError::Layout(LayoutError::Exists { .. })), "{error}");

    // As a crash leaves it: no node starts from it, and no restore goes into it.
    let half = tempfile::tempdir().unwrap();
    let crashed = std::panic::catch_unwind(|| {
        Layout::create_filled::<LayoutError>(half.path(), (LINEAGE, 4), |_| panic!("the power goes"))
    });
    assert!(crashed.is_err());
    for refused in [Layout::open(half.path()), Layout::create(half.path(), LINEAGE, 4)] {
        assert!(matches!(refused, Err(LayoutError::Unfinished { .. })), "{refused:?}");
    }
    let error = backed.restore(half.path(), None).unwrap_err();
    assert!(matches!(error, BackupError::Layout(LayoutError::Unfinished { .. })), "{error}");

    // What fails on the way leaves nothing.
    let failed = tempfile::tempdir().unwrap();
    let error = Layout::create_filled(failed.path(), (LINEAGE, 4), |layout| {
        std::fs::write(layout.snapshots_dir().join("part"), "x").unwrap();
        Err(LayoutError::Missing { dir: PathBuf::new() })
    });
    assert!(error.is_err());
    assert_eq!(std::fs::read_dir(failed.path()).unwrap().count(), 0);
}

#[test]
fn a_backup_that_was_broken_off_goes_on_and_can_not_be_restored_before_its_end() {
    let mut backed = Backed::new();
    fill(&mut backed);
    assert!(backed.object(1) && backed.object(1));
    assert!(matches!(backed.verify().unwrap_err(), BackupError::Unsettled));
    let data = backed.dir.path().join("data");
    assert!(matches!(backed.restore(&data, None).unwrap_err(), BackupError::Unsettled));
    backed.all(1);
    backed.verify().unwrap();
    let settled = backed.after.unwrap().last;
    for at in 0..3 {
        backed.node.run(Body::CreateProject { name: format!("after {at}"), files: Vec::new() });
    }
    assert!(backed.object(1), "and not to the end");
    assert_eq!(backed.restored(None).0.cut, settled);
    // A new base begins a chain of its own, and the newest that has the moment is taken.
    backed.after = backed.after.map(|after| After { hash: None, ..after });
    backed.all(OBJECT_BYTES);
    let newest = backed.node.tables().digest().unwrap().0;
    assert_eq!((backed.restored(None).0.cut, backed.verify().unwrap().newest), (newest, newest));
    assert_eq!(Archive::open(backed.dir.path()).unwrap().chains().len(), 2);
}

#[test]
fn what_a_node_has_not_or_no_more_is_refused() {
    let mut backed = Backed::new();
    fill(&mut backed);
    backed.all(OBJECT_BYTES);
    assert!(!backed.object(1), "there is nothing new");
    let ahead = backed.after.map(|after| After { last: Revision(after.last.0 + 1), ..after });
    let error = backed.node.tables().begin_backup(ahead, 1).err().unwrap();
    assert!(matches!(error, BackupError::Tables(TablesError::Future { .. })), "{error}");
    // After a restore the old chain can't be gone on with from what was undone.
    let last = backed.after.unwrap().last;
    let (_, node) = backed.restored(Some(Moment::Revision(Revision(last.0 - 1))));
    let error = node.tables().begin_backup(backed.after, 1).err().unwrap();
    assert!(matches!(error, BackupError::Tables(TablesError::Undone { .. })), "{error}");
    let empty = Node::new(|_| {});
    assert!(empty.tables().begin_backup(None, 1).unwrap().is_none());
}
