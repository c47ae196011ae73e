//! An applier by itself, over real tables, with as much room on its disk as a test says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::RaftStateMachine;
use tokio::sync::watch;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::{Author, Batch, Body, Command};
use zyflow_machine::id::ClusterTime;
use zyflow_storage::log::LogError;
use zyflow_storage::snapshot::SnapshotStore;
use zyflow_storage::tables::{Entry, EntryPayload, Position, Tables, TablesConfig};

use super::*;
use crate::log::LogWatch;
use crate::metrics::Counters;

const LINEAGE: Lineage = Lineage([0x5a; 16]);
/// What the log wants to stay free.
const FREE_MIN: u64 = 1_000;

/// A log of which everything is durable, on a disk with so much room.
#[derive(Default)]
struct Room(AtomicU64);

impl LogWatch for Room {
    fn fatal(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        watch::channel(None).1
    }

    fn durable_watermark(&self) -> watch::Receiver<Option<u64>> {
        watch::channel(Some(u64::MAX)).1
    }

    fn free_space(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A node whose tables lie in a folder of that name, and whose snapshots are those of all nodes in `dir`.
fn applier(dir: &Path, name: &str, room: &Arc<Room>) -> Applier {
    let ring = Arc::new(KeyRing::new(DataKey::new(KeyId(1), [0x42; 32].into())));
    let key = Arc::new(LocalKey::create_or_load(&dir.join(format!("{name}.key")), &ring).unwrap());
    let config = TablesConfig::new(dir.join(name), LINEAGE);
    let log: Arc<dyn LogWatch> = Arc::<Room>::clone(room);
    Applier {
        tables: Tables::open(config, key, log.durable_watermark()).unwrap(),
        snapshots: SnapshotStore::open(&dir.join("snapshots"), 2).unwrap(),
        log,
        disk_free_bytes_min: FREE_MIN,
        snapshots_inline: true,
        ring,
        lineage: LINEAGE,
        counters: Arc::new(Counters::default()),
        removed: watch::Sender::new(BTreeSet::new()),
        fatal: watch::Sender::new(None),
    }
}

fn apply(applier: &Applier, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let body = Body::CreateProject { name: format!("project {index}"), files: vec!["tasks.md".to_owned()] };
        let author = Author { name: "test".to_owned(), clock_ms: 0 };
        let commands = vec![Command { request: None, author, body }];
        let payload = EntryPayload::Batch(Batch { stamped: ClusterTime(1_000), commands });
        let position = Position { term: 1, leader: 0, index };
        applier.tables.apply(Entry { position, payload }).unwrap();
    }
}

#[tokio::test]
async fn no_snapshot_is_built_that_would_fill_the_disk() {
    let (dir, room) = (tempfile::tempdir().unwrap(), Arc::new(Room::default()));
    let mut applier = applier(dir.path(), "tables", &room);
    apply(&applier, 1..=50);
    applier.tables.flush().unwrap();
    let tables = applier.tables.bytes_on_disk().unwrap();
    assert!(tables > 10_000, "with its WAL: {tables}");
    for (free, is_built) in [(FREE_MIN + tables - 1, false), (FREE_MIN + tables, true)] {
        room.0.store(free, Ordering::Relaxed);
        assert_eq!(applier.try_create_snapshot_builder(false).await.is_some(), is_built, "{free}");
    }
    // Where openraft can't go on without one, it is tried.
    room.0.store(0, Ordering::Relaxed);
    assert!(applier.try_create_snapshot_builder(true).await.is_some());
    assert!(applier.fatal.borrow().is_none());
}

#[test]
fn a_snapshot_may_take_as_much_as_the_last_one_or_the_tables() {
    assert_eq!(room_for(10, 0, 5), 15);
    assert_eq!(room_for(10, 7, 5), 17);
    assert_eq!(room_for(u64::MAX, 7, 5), u64::MAX);
}

#[test]
fn a_build_without_room_is_left_out_unless_it_is_needed() {
    let failed = |kind: io::ErrorKind| {
        let source = SnapshotError::File { doing: "write", path: PathBuf::from("x"), source: kind.into() };
        Err(ApplyError::Snapshot { doing: "building a snapshot", source })
    };
    assert!(unless_out_of_room(failed(io::ErrorKind::StorageFull), false).unwrap().is_none());
    assert!(unless_out_of_room(failed(io::ErrorKind::StorageFull), true).is_err());
    assert!(unless_out_of_room(failed(io::ErrorKind::PermissionDenied), false).is_err());
    assert!(unless_out_of_room(Ok(nothing_new()), false).unwrap().is_some());
    assert_eq!(nothing_new().meta.last_log_id, None, "never newer than what openraft knows");
}

#[test]
fn a_snapshot_that_went_bad_stops_one_start_and_not_the_next() {
    let (dir, room) = (tempfile::tempdir().unwrap(), Arc::new(Room::default()));
    let source = applier(dir.path(), "source", &room);
    apply(&source, 1..=20);
    let older = source.build().unwrap();
    let digest = source.tables.digest().unwrap();
    apply(&source, 21..=40);
    let newest = source.build().unwrap();
    assert_eq!(source.current().unwrap().unwrap().meta, newest.meta);
    let file = &newest.snapshot.path;
    let bytes = std::fs::read(file).unwrap();
    let with_flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        std::fs::write(file, bytes).unwrap();
    };

    with_flipped(bytes.len() - 10);
    let target = applier(dir.path(), "target", &room);
    let current = target.current().unwrap().unwrap();
    assert_eq!(current.meta, newest.meta);
    assert!(target.install(&current.snapshot).is_err());
    let current = target.current().unwrap().unwrap();
    assert_eq!(current.meta, older.meta);
    // Its header, which is all that is looked at before.
    with_flipped(200);
    let current = target.current().unwrap().unwrap();
    assert_eq!(current.meta, older.meta);
    target.install(&current.snapshot).unwrap();
    assert_eq!(target.tables.digest().unwrap(), digest);
}
