//! The tables: the state in SQLite, derived from the log, a moment behind what was applied.
//!
//! ```text
//!   apply(entry) --> machine, over a view --> outcomes, at once
//!                       |  rows
//!                       v
//!                 overlay (memory) --> writer thread --> SQLite: versions, head, sessions, meta
//!                       ^                    ^
//!                 views read here first      only up to the log's durable watermark
//! ```
//!
//! SQLite is a projection: the log is the truth. So nothing waits for it; a crash loses what was not written yet, and the layer
//! above applies it again from [`Tables::applied_state`] on. A database that can't be believed is deleted, and then that state
//! is `None`: the layer above installs a snapshot if the log was purged, and replays the rest.
//!
//! Every version of every record is kept, from the horizon on, so a [`TablesView`] can show any of those revisions. On disk all
//! bodies are sealed under the node's own key; names are hashed (see `codec.rs`).
//!
//! Invariants: rows, sessions, the machine's header and the position in the log move in one transaction; SQLite never leads
//! the durable log; what was applied and isn't written is bounded; the first error is final.
//!
//! Deliberately not here: consensus, permissions, and what a command means.

mod apply;
mod backups;
mod codec;
mod config;
mod database;
mod digest;
mod entry;
mod error;
mod flush;
mod group;
mod hash;
mod kept;
mod links;
mod overlay;
mod past;
mod pinned;
mod pool;
mod purge;
mod query;
mod ranges;
mod read;
mod schema;
mod shared;
mod siblings;
mod snapshots;
mod sql;
mod state;
mod subscription;
mod undone;
mod view;
mod writer;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc::sync_channel};
use std::thread::JoinHandle;

use tokio::sync::{broadcast, mpsc, watch};
use zyflow_crypto::LocalKey;
use zyflow_machine::Digest;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::Retention;

pub use config::{Synchronous, TablesConfig};
pub use entry::{Change, Entry, EntryPayload, Position, Row};
pub use error::TablesError;
pub use past::Past;
pub use query::{Found, TaskFilter, Version};
pub use ranges::{RANGE_PARTS_MAX, RangeDigest};
pub use sql::{ExportTable, SqlAnswer, SqlError, SqlLimits, SqlRows, SqlValue};
pub use subscription::{Interest, News, Subscription};
pub use view::TablesView;

pub(crate) use backups::BackupSource;
pub(crate) use codec::{Body, Codec};
pub(crate) use database::chain;
pub(crate) use snapshots::{Installation, SnapshotSource, TravellingVersion};
pub(crate) use state::{SavedSession, SavedState};

use shared::Shared;
use view::Lane;
use writer::{Job, Reply, Writer};

/// A handle on the tables; clones share them. When the last one is dropped the writer ends as if the process had been killed: call
/// [`Tables::shutdown`] for a clean end.
#[derive(Clone)]
pub struct Tables {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

/// Ends the writer when the last handle is gone.
struct Owner {
    /// Unbounded, but everyone who sends waits for the answer.
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Tables {
    /// Opens the tables in `config.dir`, or begins them. `durable` is the last log index that a power cut can't take.
    ///
    /// A database that can't be believed is deleted and begun anew, see [`Tables::rebuilt`].
    ///
    /// # Errors
    /// The folder belongs to another history or a newer release, or the disk fails.
    pub fn open(
        config: TablesConfig,
        key: Arc<LocalKey>,
        durable: watch::Receiver<Option<u64>>,
    ) -> Result<Self, TablesError> {
        let database = database::open(&config, &key)?;
        let shared = match Shared::new(config.clone(), Arc::clone(&key), &database) {
            Ok(shared) => Arc::new(shared),
            Err(error) if error.is_damage() => {
                // Rows and machine contradict each other: the next look at the folder must not believe it either.
                database::mark_damaged(&config.dir, &chain(&error));
                drop(database);
                let database = database::open(&config, &key)?;
                return Self::start(Arc::new(Shared::new(config, key, &database)?), database, durable);
            }
            Err(error) => return Err(error),
        };
        Self::start(shared, database, durable)
    }

    fn start(
        shared: Arc<Shared>,
        database: database::Database,
        durable: watch::Receiver<Option<u64>>,
    ) -> Result<Self, TablesError> {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let writer = Writer::new(Arc::clone(&shared), database, inbox, durable);
        let thread = std::thread::Builder::new()
            .name("tables-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(TablesError::file("start the writer of", &shared.config.dir))?;
        let owner = Owner { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, owner: Arc::new(owner) })
    }

    /// Why the database that was there at [`Tables::open`] could not be believed and was begun anew; `None` = it could.
    #[must_use]
    pub fn rebuilt(&self) -> Option<&str> {
        self.shared.rebuilt.as_deref()
    }

    /// The newest entry that was applied, and the newest membership with the entry that brought it. Right after
    /// [`Tables::open`], what SQLite holds: apply the entries after it again.
    ///
    /// # Errors
    /// A thread panicked before.
    #[expect(clippy::type_complexity, reason = "two positions and a membership are what a log's state machine tells")]
    pub fn applied_state(&self) -> Result<(Option<Position>, Option<(Position, Vec<u8>)>), TablesError> {
        let applier = self.shared.applier()?;
        Ok((applier.position, applier.membership.clone()))
    }

    /// Applies the entry after the last one: decides in memory, makes the result visible, answers. Writing it to SQLite follows. Waits where
    /// too much is waiting for SQLite, so it belongs on a thread that may wait. One caller at a time, in log order.
    ///
    /// # Errors
    /// Any error is final: this node can't go on.
    pub fn apply(&self, entry: Entry) -> Result<Vec<Outcome>, TablesError> {
        self.shared.apply(entry)
    }

    /// Moves when an entry is applied.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.shared.applied.subscribe()
    }

    /// Moves when entries are in SQLite.
    #[must_use]
    pub fn flushed(&self) -> watch::Receiver<Revision> {
        self.shared.flushed.subscribe()
    }

    /// Rows (and entries) that are applied and not in SQLite: what proposals are refused by.
    #[must_use]
    pub fn backlog_ops(&self) -> usize {
        self.shared.backlog_ops.load(Ordering::Relaxed)
    }

    /// Becomes the error that stopped the tables for good.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<TablesError>>> {
        self.shared.fatal()
    }

    /// Everything that is applied from now on, in order. One that falls behind too far is told how much it missed, and looks at
    /// a view again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.shared.changes.subscribe()
    }

    /// The state at a revision; `None` = the newest applied.
    ///
    /// # Errors
    /// The revision isn't kept any more, or wasn't applied yet.
    pub fn view(&self, at: Option<Revision>) -> Result<TablesView, TablesError> {
        match at {
            None => TablesView::newest(&self.shared, Lane::Query),
            Some(at) => TablesView::pinned(&self.shared, at),
        }
    }

    /// The oldest revision that a view can show.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn horizon(&self) -> Result<Revision, TablesError> {
        Ok(self.retention()?.horizon)
    }

    /// How much of the history is kept, as of the newest applied entry.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn retention(&self) -> Result<Retention, TablesError> {
        Ok(self.shared.overlay()?.retention())
    }

    /// The newest applied revision and its digest, as the machine keeps it.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn digest(&self) -> Result<(Revision, Digest), TablesError> {
        let applier = self.shared.applier()?;
        Ok((applier.machine.revision(), applier.machine.digest()))
    }

    /// The digest at exactly this revision; `None` = it isn't kept any more, or not yet.
    ///
    /// # Errors
    /// A thread panicked before.
    pub fn digest_at(&self, revision: Revision) -> Result<Option<Digest>, TablesError> {
        Ok(self.shared.applier()?.digests.at(revision))
    }

    /// The digest of what SQLite holds, from SQLite alone, with the revision that it is at; that may be behind
    /// [`Tables::digest`], see [`Tables::flush`]. Reads everything.
    ///
    /// # Errors
    /// The tables can't be read, or hold what doesn't open: then they are marked to be rebuilt.
    pub fn recompute_digest(&self) -> Result<(Revision, Digest), TablesError> {
        // Nobody ends the reading.
        self.recompute_digest_while(|_begun| (), |_rows| true)?.ok_or(TablesError::Stopped)
    }

    /// The same for those who have time: `begun` is told the revision before the rows are read, `go_on` how many were read since it was
    /// last asked; it may wait, and ends the reading by `false`.
    ///
    /// # Errors
    /// As [`Tables::recompute_digest`].
    pub fn recompute_digest_while(
        &self,
        begun: impl FnOnce(Revision),
        go_on: impl FnMut(usize) -> bool,
    ) -> Result<Option<(Revision, Digest)>, TablesError> {
        let revision_of = |state: Option<&SavedState>| state.map_or(Revision::default(), SavedState::revision);
        let recompute = || {
            let base = self.shared.overlay()?.base();
            let connection = base.readers.lease()?;
            digest::recompute(&connection, &self.shared.codec, |state| begun(revision_of(state)), go_on)
        };
        let computed = self.shared.settle(recompute())?;
        Ok(computed.map(|(state, digest)| (revision_of(state.as_ref()), digest)))
    }

    /// The digests of the parts, at most [`RANGE_PARTS_MAX`], of a range of records at a revision, from SQLite alone. Unlike
    /// [`Tables::recompute_digest`] it goes on past rows that don't open.
    ///
    /// # Errors
    /// SQLite isn't at that revision yet, it isn't kept any more, or the database can't be read.
    pub fn range_digests(
        &self,
        at: Revision,
        (first, last): (RecordId, RecordId),
        parts: u64,
    ) -> Result<Vec<RangeDigest>, TablesError> {
        self.view(Some(at))?;
        let written = self.flush()?;
        if written < at {
            return Err(TablesError::Future { revision: at, applied: written });
        }
        let base = self.shared.overlay()?.base();
        let connection = base.readers.lease()?;
        let range = (first.to_u64(), last.to_u64());
        let digests = ranges::digests(&connection, &self.shared.codec, at, range, parts);
        self.view(Some(at))?;
        digests
    }

    /// Makes the next start build the tables anew from snapshot and log.
    pub fn distrust(&self, reason: &str) {
        database::mark_damaged(&self.shared.config.dir, reason);
    }

    /// Writes everything that is applied and durable to SQLite now, and gives the revision that SQLite is at. Waits for it.
    ///
    /// # Errors
    /// The tables failed or are shut down.
    pub fn flush(&self) -> Result<Revision, TablesError> {
        self.ask(|reply| Job::Flush { reply })
    }

    /// Writes everything that is applied and durable, leaves a clean database and ends the writer. Waits for it. Further entries are refused;
    /// views can still read.
    ///
    /// # Errors
    /// The tables failed, now or before.
    pub fn shutdown(&self) -> Result<(), TablesError> {
        match self.ask(|reply| Job::Stop { reply }) {
            // It was done before.
            Ok(()) | Err(TablesError::Stopped) => writer::join(&self.owner.thread),
            Err(error) => Err(error),
        }
    }

    /// Hands a job to the writer and waits for the answer.
    fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, TablesError> {
        let (reply, answer) = sync_channel(1);
        let sent = {
            let jobs = self.owner.jobs.lock().map_err(|_| TablesError::Poisoned)?;
            jobs.as_ref().is_some_and(|jobs| jobs.send(job(reply)).is_ok())
        };
        let ended = || self.shared.check().err().unwrap_or(TablesError::Stopped);
        if !sent {
            return Err(ended());
        }
        answer.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("dir", &self.shared.config.dir).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Ok(mut jobs) = self.jobs.lock() {
            jobs.take();
        }
        if let Err(error) = writer::join(&self.thread) {
            tracing::error!(%error, "the tables' writer panicked");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
