//! The writer thread: takes groups of entries, waits until the log holds them durably, writes each in one transaction.
//!
//! ```text
//!   open group --(full, or old enough, or asked)--> closed --(durable >= its last index)--> COMMIT --> cache --> overlay drops it
//! ```
//!
//! Invariants: nothing past the log's durable watermark is ever written, or SQLite would lead the log after a power cut; the
//! groups are written in order; the first error is final. No lock is held while SQLite works.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, watch};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::view::Stored;

use super::database::{self, Database};
use super::error::TablesError;
use super::flush::write_group;
use super::group::Group;
use super::overlay::Base;
use super::purge::Purge;
use super::schema::{self, delete_meta, meta};
use super::shared::{Applier, Shared};

/// Records dropped from the overlay under one lock: some ten microseconds.
const DROPPED_AT_ONCE: usize = 256;

/// Where the answer to a job goes.
pub(crate) type Reply<T> = SyncSender<Result<T, TablesError>>;

/// What the writer is asked to do besides writing.
pub(crate) enum Job {
    /// Write all that is durable, whatever its age.
    Flush { reply: Reply<Revision> },
    /// Make what is written survive a power cut.
    Checkpoint { reply: Reply<()> },
    /// Go on with another database.
    Replace { database: Box<Database>, reply: Reply<()> },
    /// Write all that is durable, leave a clean database, end.
    Stop { reply: Reply<()> },
}

enum Event {
    Job(Job),
    /// Something was applied, a deadline passed, or the log has become more durable.
    Look,
    /// Nothing else is to be done, and there is something to delete.
    Purge,
    /// All handles are gone: end as if the process did.
    Abandoned,
}

/// See the module.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    jobs: mpsc::UnboundedReceiver<Job>,
    durable: watch::Receiver<Option<u64>>,
    is_durable_open: bool,
    /// Closed, and waiting for the log.
    next: Option<Group>,
    /// When the open group is old enough.
    due: Option<Instant>,
    purge: Purge,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        database: Database,
        jobs: mpsc::UnboundedReceiver<Job>,
        durable: watch::Receiver<Option<u64>>,
    ) -> Self {
        let purge = Purge::new(database.retention.horizon, database.purged);
        let connection = database.connection;
        Self { shared, connection, jobs, durable, is_durable_open: true, next: None, due: None, purge }
    }

    /// Works until it is told to stop, all handles are gone, or something fails.
    pub(crate) fn run(mut self) {
        let _told = ToldOfPanic(Arc::clone(&self.shared));
        yield_to_others(self.shared.config.writer_nice);
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let failed = TablesError::file("make a timer for", &self.shared.config.dir)(error);
                self.shared.latch(failed);
                return;
            }
        };
        loop {
            let event = runtime.block_on(self.select());
            match self.handle(event) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.shared.latch(error);
                    return;
                }
            }
        }
    }

    async fn select(&mut self) -> Event {
        let due = self.due.map(tokio::time::Instant::from_std);
        let timer = async move {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let has_to_purge = self.purge.is_due();
        tokio::select! {
            biased;
            job = self.jobs.recv() => job.map_or(Event::Abandoned, Event::Job),
            () = self.shared.wake.notified() => Event::Look,
            changed = self.durable.changed(), if self.is_durable_open && self.next.is_some() => {
                // Without a log the watermark stays where it is.
                self.is_durable_open = changed.is_ok();
                Event::Look
            }
            () = timer => Event::Look,
            // What is deleted is seen by nobody, so it waits for everything else.
            () = std::future::ready(()), if has_to_purge => Event::Purge,
        }
    }

    /// Whether to go on.
    fn handle(&mut self, event: Event) -> Result<bool, TablesError> {
        self.shared.check()?;
        match event {
            Event::Look => self.advance(false)?,
            Event::Purge => self.purge_some()?,
            Event::Job(Job::Flush { reply }) => {
                let flushed = self.advance(true).and_then(|()| Ok(self.shared.overlay()?.flushed()));
                return answer(&self.shared, &reply, flushed);
            }
            Event::Job(Job::Checkpoint { reply }) => {
                let done = schema::checkpoint(&self.connection);
                return answer(&self.shared, &reply, done);
            }
            Event::Job(Job::Replace { database, reply }) => {
                let done = self.replace(*database);
                return answer(&self.shared, &reply, done);
            }
            Event::Job(Job::Stop { reply }) => {
                let done = self.stop();
                // Whoever asked may be gone.
                drop(reply.send(done));
                return Ok(false);
            }
            Event::Abandoned => return Ok(false),
        }
        Ok(true)
    }

    /// Writes what may be written: closed groups as far as they are durable, and the open one if it is old or `now`.
    fn advance(&mut self, now: bool) -> Result<(), TablesError> {
        loop {
            if self.next.is_none() {
                self.next = self.take_group(now)?;
            }
            let Some(group) = self.next.take() else { return Ok(()) };
            if Some(group.state.position.index) > *self.durable.borrow_and_update() {
                self.next = Some(group);
                self.due = None;
                return Ok(());
            }
            self.write(&group)?;
        }
    }

    /// The next group, if one is closed or due.
    fn take_group(&mut self, now: bool) -> Result<Option<Group>, TablesError> {
        let mut applier = self.shared.applier()?;
        if applier.closed.is_empty() {
            let due = applier.open.as_ref().map(|open| open.since + self.shared.config.flush_interval);
            if due.is_some_and(|due| now || due <= Instant::now()) {
                applier.close_group();
            } else {
                self.due = due;
            }
        }
        let group = applier.closed.pop_front();
        if group.is_some() {
            self.due = None;
        }
        Ok(group)
    }

    fn write(&mut self, group: &Group) -> Result<(), TablesError> {
        write_group(&mut self.connection, &self.shared.codec, group)?;
        let rows = group.changes.iter().rev().flat_map(|change| change.rows.iter().rev());
        if let Some(retention) = rows.into_iter().find_map(|row| row.retention()) {
            self.purge.horizon = retention.horizon;
        }
        let revision = group.state.revision();
        let ids = self.fill_cache(group)?;
        // Before anything is dropped: readers take it that all later rows are in the overlay.
        self.shared.overlay_mut()?.mark_flushed(revision);
        for ids in ids.chunks(DROPPED_AT_ONCE) {
            let dropped = self.shared.overlay_mut()?.drop_flushed(ids, revision);
            drop(dropped);
        }
        self.shared.flushed.send_replace(revision);
        let mut applier = self.shared.applier()?;
        applier.shrink_backlog(group.size, &self.shared.backlog_ops);
        drop(applier);
        self.shared.room.notify_all();
        Ok(())
    }

    /// Puts what is in SQLite now into the cache, before the overlay drops it; and what that replaces, which is opened already, among
    /// the past versions: the recent past is what is asked for most.
    fn fill_cache(&self, group: &Group) -> Result<Vec<RecordId>, TablesError> {
        let base = self.shared.overlay()?.base();
        let rows = || group.changes.iter().flat_map(|change| &change.rows);
        // Before the cache: whoever finds a version there finds its link.
        base.past
            .links
            .write()
            .map_err(|_| TablesError::Poisoned)?
            .extend(rows().map(|row| (row.stored.version, row.previous)));
        let mut newest: BTreeMap<RecordId, &Arc<Stored>> = BTreeMap::new();
        for row in rows() {
            if let Some(replaced) = newest.insert(row.id, &row.stored) {
                base.past.keep(replaced);
            }
        }
        for (id, stored) in &newest {
            if let Some(replaced) = base.cache.get(id) {
                base.past.keep(&replaced);
            }
            base.cache.insert(*id, Arc::clone(stored));
        }
        Ok(newest.into_keys().collect())
    }

    /// Deletes some of what the history lets go of.
    fn purge_some(&mut self) -> Result<(), TablesError> {
        let gone = self.purge.step(&mut self.connection)?;
        let base = self.shared.overlay()?.base();
        for id in gone {
            base.cache.invalidate(&id);
        }
        Ok(())
    }

    /// Goes on with a database that is ahead of everything that was applied here.
    fn replace(&mut self, database: Database) -> Result<(), TablesError> {
        let revision = database.state.as_ref().map_or(Revision::default(), super::state::SavedState::revision);
        let mut applier = self.shared.applier()?;
        let position = database.state.as_ref().map(|state| state.position);
        assert!(position >= applier.position, "a database that is behind never replaces one");
        let mut replacement = Applier::new(&database)?;
        replacement.is_stopped = applier.is_stopped;
        database::make_current(&self.shared.config.dir, database.generation)?;
        let base = Base::new(&self.shared.config, &database.path).above(database.undone.clone());
        self.shared.overlay_mut()?.replace(base, revision, database.retention);
        *applier = replacement;
        self.shared.backlog_ops.store(0, Ordering::Relaxed);
        drop(applier);
        self.next = None;
        self.due = None;
        self.connection = database.connection;
        self.purge = Purge::new(database.retention.horizon, database.purged);
        self.shared.generation.store(database.generation, Ordering::Relaxed);
        self.shared.applied.send_replace(revision);
        self.shared.flushed.send_replace(revision);
        self.shared.room.notify_all();
        database::remove_others(&self.shared.config.dir, Some(database.generation))
    }

    fn stop(&mut self) -> Result<(), TablesError> {
        self.shared.applier()?.is_stopped = true;
        self.shared.room.notify_all();
        self.advance(true)?;
        delete_meta(&self.connection, meta::IN_USE)?;
        schema::checkpoint_all(&self.connection)
    }
}

/// Stops the tables if the writer panics: else apply would wait for room that nobody makes.
struct ToldOfPanic(Arc<Shared>);

impl Drop for ToldOfPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.latch(TablesError::Poisoned);
        }
    }
}

/// Gives the answer to whoever asked, and the error also to the loop: what fails here is final.
fn answer<T>(shared: &Shared, reply: &Reply<T>, result: Result<T, TablesError>) -> Result<bool, TablesError> {
    // Whoever asked may be gone.
    match result {
        Ok(value) => {
            drop(reply.send(Ok(value)));
            Ok(true)
        }
        Err(error) => {
            let error = shared.latch(error);
            let TablesError::Failed(cause) = &error else { return Err(error) };
            drop(reply.send(Err(TablesError::Failed(Arc::clone(cause)))));
            Err(error)
        }
    }
}

/// Lets the threads that answer clients go first. Where the system refuses, it is only slower.
fn yield_to_others(nice: i32) {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), nice) {
        tracing::warn!(%error, nice, "the tables' writer runs at normal priority");
    }
}

/// Joins a thread; a panic in it was a bug, and what it left behind is latched by whoever finds a poisoned lock.
pub(crate) fn join(thread: &std::sync::Mutex<Option<std::thread::JoinHandle<()>>>) -> Result<(), TablesError> {
    let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    thread.map_or(Ok(()), |thread| thread.join().map_err(|_| TablesError::Poisoned))
}
