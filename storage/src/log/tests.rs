//! The log as a whole: group commit, failures of the disk, what a start refuses and what it accepts.

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    RaftLogReader,
    alias::OneshotReceiverOf,
    storage::{RaftLogStorage, RaftLogStorageExt},
    type_config::TypeConfigExt,
};
use rocksdb::WriteBatch;

use super::{
    drill,
    error::LogError,
    io::{LogIo, RocksIo},
    promises::Promise,
    store::{LogConfig, LogStore},
};
use crate::types::{AppendDone, Entry, EntryPayload, LogId, Payload, TypeConfig, Vote};

/// Where the answer to an append will come.
type Answer = OneshotReceiverOf<TypeConfig, std::io::Result<()>>;

mod commit;
mod recovery;
mod state;

const DEADLINE: Duration = Duration::from_secs(20);

/// What the disk of a test is told to do, and what was asked of it.
#[derive(Debug, Default)]
struct Disk {
    writes: AtomicU64,
    syncs: AtomicU64,
    promises: AtomicU64,
    fail_write: AtomicBool,
    fail_sync: AtomicBool,
    fail_promise: AtomicBool,
    free_bytes: Mutex<Option<u64>>,
    /// While held, a sync waits; and whether one does.
    held: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Disk {
    fn hold(&self) {
        self.held.lock().unwrap().0 = true;
    }

    fn release(&self) {
        self.held.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// Waits until the writer thread stands in a sync.
    fn wait_until_a_sync_waits(&self) {
        let held = self.held.lock().unwrap();
        let (held, timeout) = self.changed.wait_timeout_while(held, DEADLINE, |(_, waits)| !*waits).unwrap();
        assert!(held.1 && !timeout.timed_out(), "no sync came");
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

/// A disk that counts, waits and fails.
struct TestIo {
    inner: RocksIo,
    disk: Arc<Disk>,
}

impl TestIo {
    fn outcome(fails: &AtomicBool) -> Result<(), LogError> {
        if fails.load(Ordering::SeqCst) {
            return Err(LogError::file("write", "the disk of the test")(std::io::Error::other("planted failure")));
        }
        Ok(())
    }
}

impl LogIo for TestIo {
    fn write(&mut self, batch: WriteBatch) -> Result<(), LogError> {
        self.disk.writes.fetch_add(1, Ordering::SeqCst);
        Self::outcome(&self.disk.fail_write)?;
        self.inner.write(batch)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let mut held = self.disk.held.lock().unwrap();
        held.1 = held.0;
        self.disk.changed.notify_all();
        // Not for ever: a test that fails while it holds the disk must end.
        held = self.disk.changed.wait_timeout_while(held, DEADLINE, |(held, _)| *held).unwrap().0;
        held.1 = false;
        drop(held);
        Self::outcome(&self.disk.fail_sync)?;
        self.inner.sync()?;
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn promise(&mut self, promise: Promise) -> Result<(), LogError> {
        Self::outcome(&self.disk.fail_promise)?;
        self.disk.promises.fetch_add(1, Ordering::SeqCst);
        self.inner.promise(promise)
    }

    fn free_bytes(&mut self) -> Result<u64, LogError> {
        let told = *self.disk.free_bytes.lock().unwrap();
        told.map_or_else(|| self.inner.free_bytes(), Ok)
    }
}

/// The settings of a test.
fn config(dir: &Path) -> LogConfig {
    let mut config = drill::config(dir.join("log"));
    config.warm = false;
    config
}

fn init(dir: &Path) -> LogConfig {
    let config = config(dir);
    LogStore::init(&config).unwrap();
    config
}

fn open(config: &LogConfig) -> (LogStore, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let io_disk = Arc::clone(&disk);
    let store = LogStore::open_with(config, |inner| Box::new(TestIo { inner, disk: io_disk })).unwrap();
    (store, disk)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = EntryPayload::Normal(Payload(format!("{term}.{index}").repeat(20).into_bytes().into()));
    Entry { log_id: id(term, index), payload }
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index)).collect()
}

/// Appends without waiting.
async fn append(store: &mut LogStore, entries: Vec<Entry>) -> Answer {
    let (done, finished) = TypeConfig::oneshot();
    store.append(entries, AppendDone::signal(done)).await.unwrap();
    finished
}

async fn indexes(store: &LogStore) -> Vec<u64> {
    store.reader().try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
}
