//! The log as openraft sees it: operations are submitted to the writer thread, in order.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Instant,
};

use openraft::storage::{LogState, RaftLogStorage};
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    error::{LogError, to_io},
    identity::{self, Identity},
    io::{LogIo, RocksIo},
    promises::Promises,
    reader::LogReader,
    recovery, rocks,
    shared::Shared,
    stored::{self, Mark},
    view::View,
    writer::{Done, Job, Submitted, Writer},
};
use crate::types::{AppendDone, Entry, LogId, TypeConfig, Vote};

/// Newest entries kept in memory, in bytes: replication and apply hardly ever go to the disk, and a follower may be
/// some 30,000 entries of 350 bytes behind.
pub const MEMORY_BYTES: usize = 16 << 20;
/// Proposals are to be refused below this much free disk: room for a memtable flush, a compaction and a snapshot.
pub const FREE_BYTES_MIN: u64 = 1 << 30;
/// WAL files filled once at the start, so that real writes find files to reuse: the current one and the next.
const WAL_FILES_WARMED: usize = 2;
/// The queue to the writer thread, in bytes of entries; submitting waits when it is full.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// What the queue is counted in; the smallest job takes one unit, so this bounds their number too.
const QUEUE_UNIT_BYTES: usize = 1024;

/// Where a log is, whose it is, and how much it may use.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The folder of the log alone.
    pub dir: PathBuf,
    /// Whose log it must be.
    pub identity: Identity,
    /// Below this many free bytes [`LogHandle::is_writable`] says no.
    pub free_bytes_min: u64,
    /// Memory for the newest entries, in bytes.
    pub memory_bytes: usize,
    /// Memory of one memtable and size of one WAL file, in bytes.
    pub write_buffer_bytes: usize,
    /// Whether opening prepares WAL files for reuse, which writes twice `write_buffer_bytes`.
    pub warm: bool,
}

impl LogConfig {
    /// The defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, identity: Identity) -> Self {
        Self {
            dir: dir.into(),
            identity,
            free_bytes_min: FREE_BYTES_MIN,
            memory_bytes: MEMORY_BYTES,
            write_buffer_bytes: rocks::WRITE_BUFFER_BYTES,
            warm: true,
        }
    }
}

/// Watches an open log from outside openraft. Cheap to clone; doesn't keep the writer thread alive.
#[derive(Clone, Debug)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

impl LogHandle {
    /// Becomes the first error. The process has to stop then.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        self.shared.watch_fatal()
    }

    /// The last index up to which every entry is on disk here; `None` while there is none. It falls when a tail of
    /// entries that were never committed is replaced, so what is at or below both it and the commit index stays.
    #[must_use]
    pub fn durable_watermark(&self) -> watch::Receiver<Option<u64>> {
        self.shared.watch_durable()
    }

    /// The bytes free on the log's file system, at most a second or two old.
    #[must_use]
    pub fn free_space(&self) -> u64 {
        self.shared.free_bytes()
    }

    /// Whether proposals should be accepted: the disk has room and the log has not failed.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }
}

/// The log of one node. Dropping it waits for what was submitted to reach the disk.
#[derive(Debug)]
pub struct LogStore {
    shared: Arc<Shared>,
    /// Taken when the store is dropped.
    queue: Option<mpsc::Sender<Submitted>>,
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Creates the log of a new node. Done once in the life of a node: an empty log in place of a lost one would forget
    /// votes and acknowledged entries. Blocks.
    ///
    /// # Errors
    /// [`LogError::AlreadyInitialised`] if there is anything in the folder; else what failed. A creation that was
    /// interrupted leaves nothing behind that a second attempt would mind.
    pub fn init(config: &LogConfig) -> Result<(), LogError> {
        let dir = &config.dir;
        if dir.exists() && std::fs::read_dir(dir).map_err(LogError::file("list", dir))?.next().is_some() {
            return Err(LogError::AlreadyInitialised { dir: dir.clone() });
        }
        let mut name = dir.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        if new.exists() {
            std::fs::remove_dir_all(&new).map_err(LogError::file("remove the unfinished", &new))?;
        }
        std::fs::create_dir_all(rocks::dir(&new)).map_err(LogError::file("create", &new))?;
        let db = rocks::create(&rocks::dir(&new), config.write_buffer_bytes)?;
        let mut batch = rocksdb::WriteBatch::new();
        batch.put(stored::MARK, Mark { number: 1, synced_through: 0, last: None }.encode());
        db.write_opt(batch, &rocks::unsynced()).map_err(LogError::database("write the first batch"))?;
        db.flush_wal(true).map_err(LogError::database("sync the first batch"))?;
        drop(db);
        Promises::create(&new)?;
        identity::create(&new, &config.identity)?;
        sync_dir(&new)?;
        std::fs::rename(&new, dir).map_err(LogError::file("rename the finished log to", dir))?;
        sync_dir(dir.parent().unwrap_or(Path::new("/")))
    }

    /// Opens the log of an initialised node: checks whose it is and that nothing synced is missing, reads all of it
    /// once, and starts the writer thread. Blocks, for as long as reading the log takes.
    ///
    /// # Errors
    /// What is wrong with the log; see [`LogError`]. A tail torn by a power cut is not an error.
    pub fn open(config: &LogConfig) -> Result<Self, LogError> {
        Self::open_with(config, |io| Box::new(io))
    }

    pub(crate) fn open_with(
        config: &LogConfig,
        wrap: impl FnOnce(RocksIo) -> Box<dyn LogIo>,
    ) -> Result<Self, LogError> {
        let lock = identity::check(&config.dir, &config.identity)?;
        let promises = Promises::open(&config.dir)?;
        let promise = promises.newest();
        let rocks = rocks::dir(&config.dir);
        recovery::look(&rocks, config.write_buffer_bytes, &promise)?;
        let db = Arc::new(rocks::open(&rocks, config.write_buffer_bytes)?);
        let (mark, view) = recovery::load(&db, &promise, config.memory_bytes)?;
        if config.warm {
            rocks::warm(&db, config.write_buffer_bytes, WAL_FILES_WARMED)?;
        }
        let io = wrap(RocksIo::new(config.dir.clone(), Arc::clone(&db), promises));
        let (queue, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::new(view, db, config.free_bytes_min, lock));
        let mut writer = Writer {
            io,
            shared: Arc::clone(&shared),
            queue: receiver,
            number: mark.number,
            last: mark.last,
            synced: mark.number,
            promise,
            promised_at: Instant::now(),
            looked_at: Instant::now(),
            value: Vec::new(),
        };
        writer.begin()?;
        let thread = std::thread::Builder::new()
            .name("zyflow-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| LogError::Thread { source })?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES));
        Ok(Self { shared, queue: Some(queue), room, thread: Some(thread) })
    }

    /// A handle to watch the log with, to be taken before the store is given to openraft.
    #[must_use]
    pub fn handle(&self) -> LogHandle {
        LogHandle { shared: Arc::clone(&self.shared) }
    }

    /// Becomes the first error; see [`LogHandle::fatal`].
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        self.shared.watch_fatal()
    }

    /// The last fsynced index; see [`LogHandle::durable_watermark`].
    #[must_use]
    pub fn durable_watermark(&self) -> watch::Receiver<Option<u64>> {
        self.shared.watch_durable()
    }

    /// Refuses a log that ends before the state machine that was fed from it. To be called at the start, before
    /// openraft, which would take the gap for an installed snapshot and go on.
    ///
    /// # Errors
    /// [`LogError::BehindState`] or [`LogError::OtherThanState`].
    pub async fn check_state(&self, applied: Option<LogId>, snapshot: Option<LogId>) -> Result<(), Arc<LogError>> {
        let (log, present) = {
            let view = self.shared.view();
            (view.last(), view.present())
        };
        let Some(applied) = applied else { return Ok(()) };
        if snapshot.is_some_and(|snapshot| snapshot.index >= applied.index) {
            // The snapshot may have come from another node; the log before it is of no use.
            return Ok(());
        }
        if log.is_none_or(|log| log.index < applied.index) {
            return Err(Arc::new(LogError::BehindState { log, applied, snapshot }));
        }
        if !present.contains(&applied.index) {
            return Ok(());
        }
        let entries = self.reader().read(applied.index..applied.index + 1, None).await?;
        match entries.first() {
            Some(entry) if entry.log_id != applied => {
                Err(Arc::new(LogError::OtherThanState { log: entry.log_id, applied }))
            }
            _ => Ok(()),
        }
    }

    /// A reader, as openraft gets them.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    #[cfg(test)]
    pub(crate) fn shared_for_test(&self) -> &Shared {
        &self.shared
    }

    /// Changes the view and queues the job in one step, so that both see jobs in one order.
    async fn submit(
        &self,
        bytes: usize,
        job: impl FnOnce(&mut View) -> Result<Job, LogError>,
    ) -> Result<(), Arc<LogError>> {
        self.shared.check()?;
        let units = (bytes / QUEUE_UNIT_BYTES + 1).min(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES);
        let units = u32::try_from(units).expect("invariant: the queue has fewer units than that");
        let closed = |_| Arc::new(LogError::Closed);
        let share = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(closed)?;
        let mut view = self.shared.view();
        let job = job(&mut view).map_err(|error| self.shared.fail(error))?;
        self.shared.publish_durable(&view);
        let submitted = Submitted { job, last: view.last(), truncations: view.truncations(), _share: share };
        let queue = self.queue.as_ref().ok_or_else(|| Arc::new(LogError::Closed))?;
        let deferred = if matches!(submitted.job, Job::Committed { .. }) {
            self.shared.defer(submitted);
            return Ok(());
        } else {
            self.shared.take_deferred(|_| true)
        };
        for submitted in deferred.into_iter().chain([submitted]) {
            queue.send(submitted).map_err(|_| Arc::new(LogError::Closed))?;
        }
        Ok(())
    }

    /// Submits a job and waits until it is on disk.
    async fn finish(
        &self,
        bytes: usize,
        job: impl FnOnce(&mut View, Done) -> Result<Job, LogError>,
    ) -> Result<(), io::Error> {
        let (done, finished) = oneshot::channel();
        self.submit(bytes, |view| job(view, done)).await.map_err(|error| to_io(&error))?;
        let outcome = finished.await.unwrap_or_else(|_| Err(Arc::new(LogError::Closed)));
        outcome.map_err(|error| to_io(&error))
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the log panicked");
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.shared.check().map_err(|error| to_io(&error))?;
        let view = self.shared.view();
        Ok(LogState { last_purged_log_id: view.purged(), last_log_id: view.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.finish(0, |_, done| Ok(Job::Vote { vote, done })).await
    }

    /// Returns at once, and doesn't wake the writer thread: it goes with the next job, in order, or is written when the log rests.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let job = |view: &mut View| {
            view.committed = committed;
            Ok(Job::Committed { committed })
        };
        self.submit(0, job).await.map_err(|error| to_io(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.shared.check().map_err(|error| to_io(&error))?;
        Ok(self.shared.view().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: AppendDone) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let bytes = entries.iter().map(super::view::cost).sum();
        let job = |view: &mut View| {
            view.append(&entries)?;
            Ok(Job::Append { entries, done: callback })
        };
        self.submit(bytes, job).await.map_err(|error| to_io(&error))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.finish(0, |view, done| Ok(Job::Truncate { gone: view.truncate(last_log_id), done })).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.finish(0, |view, done| Ok(Job::Purge { upto: log_id, gone: view.purge(log_id), done })).await
    }
}

fn sync_dir(dir: &Path) -> Result<(), LogError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let open = std::fs::File::open(dir).map_err(LogError::file("open", dir))?;
    open.sync_all().map_err(LogError::file("sync", dir))
}
