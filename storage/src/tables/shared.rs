//! What the threads of the tables share, and in which order they lock it: first [`Applier`], then [`Overlay`]. Neither is
//! held while SQLite works.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, broadcast, watch};
use zyflow_crypto::LocalKey;
use zyflow_machine::Machine;
use zyflow_machine::id::Revision;

use super::codec::Codec;
use super::config::TablesConfig;
use super::database::{Database, chain, mark_damaged};
use super::entry::{Change, Position};
use super::error::TablesError;
use super::group::{Group, OpenGroup, Size};
use super::kept::KeptDigests;
use super::overlay::{Base, Overlay};
use super::state::{SavedState, StoredMembership};

/// Changes that a subscriber may be behind before it is told that it missed some: some ten milliseconds under full load.
/// They are shared with the overlay for most of that time.
pub(super) const SUBSCRIBER_LAG_MAX: usize = 1024;

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: TablesConfig,
    pub(crate) key: Arc<LocalKey>,
    pub(crate) codec: Codec,
    /// Why the database was begun anew at the start.
    pub(crate) rebuilt: Option<String>,
    /// The number of the database file in use.
    pub(crate) generation: AtomicU64,
    applier: Mutex<Applier>,
    overlay: RwLock<Overlay>,
    /// Signalled with the applier's lock when the backlog shrinks or the tables stop.
    pub(crate) room: Condvar,
    /// Copies of [`Applier::backlog`], for those who ask without locking.
    pub(crate) backlog_ops: AtomicUsize,
    /// Tells the writer that there is a group to close, or one that is closed.
    pub(crate) wake: Notify,
    pub(crate) applied: watch::Sender<Revision>,
    pub(crate) flushed: watch::Sender<Revision>,
    pub(crate) changes: broadcast::Sender<Arc<Change>>,
    fatal: watch::Sender<Option<Arc<TablesError>>>,
}

/// The machine and what it did that isn't in SQLite yet. One entry at a time is applied under its lock.
pub(crate) struct Applier {
    pub(crate) machine: Machine,
    pub(crate) position: Option<Position>,
    pub(crate) membership: StoredMembership,
    /// Of the newest revisions, those that this process has seen.
    pub(crate) digests: KeptDigests,
    pub(crate) open: Option<OpenGroup>,
    pub(crate) closed: VecDeque<Group>,
    /// Everything that was applied and isn't in SQLite.
    pub(crate) backlog: Size,
    pub(crate) is_stopped: bool,
}

impl Shared {
    /// The state that `database` holds.
    pub(crate) fn new(config: TablesConfig, key: Arc<LocalKey>, database: &Database) -> Result<Self, TablesError> {
        let applier = Applier::new(database)?;
        let revision = applier.machine.revision();
        let base = Base::new(&config, &database.path).above(database.undone.clone());
        Ok(Self {
            config,
            key,
            codec: database.codec.clone(),
            rebuilt: database.rebuilt.clone(),
            generation: AtomicU64::new(database.generation),
            applier: Mutex::new(applier),
            overlay: RwLock::new(Overlay::new(base, revision, database.retention)),
            room: Condvar::new(),
            backlog_ops: AtomicUsize::new(0),
            wake: Notify::new(),
            applied: watch::Sender::new(revision),
            flushed: watch::Sender::new(revision),
            changes: broadcast::Sender::new(SUBSCRIBER_LAG_MAX),
            fatal: watch::Sender::new(None),
        })
    }

    pub(crate) fn applier(&self) -> Result<MutexGuard<'_, Applier>, TablesError> {
        self.applier.lock().map_err(|_| TablesError::Poisoned)
    }

    pub(crate) fn overlay(&self) -> Result<RwLockReadGuard<'_, Overlay>, TablesError> {
        self.overlay.read().map_err(|_| TablesError::Poisoned)
    }

    pub(crate) fn overlay_mut(&self) -> Result<RwLockWriteGuard<'_, Overlay>, TablesError> {
        self.overlay.write().map_err(|_| TablesError::Poisoned)
    }

    pub(crate) fn fatal(&self) -> watch::Receiver<Option<Arc<TablesError>>> {
        self.fatal.subscribe()
    }

    /// Why the tables failed, if they did.
    pub(crate) fn check(&self) -> Result<(), TablesError> {
        match &*self.fatal.borrow() {
            Some(error) => Err(TablesError::Failed(Arc::clone(error))),
            None => Ok(()),
        }
    }

    /// Keeps the first fatal error for ever, and gives back what the caller is told. The caller doesn't hold the applier.
    pub(crate) fn latch(&self, error: TablesError) -> TablesError {
        if let TablesError::Failed(error) = error {
            return TablesError::Failed(error);
        }
        let error = Arc::new(error);
        let is_first = self.fatal.send_if_modified(|fatal| {
            let is_first = fatal.is_none();
            if is_first {
                *fatal = Some(Arc::clone(&error));
            }
            is_first
        });
        if is_first {
            let reason = chain(&*error);
            tracing::error!(reason, "the tables failed, this node can't go on with them");
            if error.is_damage() {
                mark_damaged(&self.config.dir, &reason);
            }
        }
        // Whoever waits for room looks at the error and begins to wait under this lock: so it misses nothing.
        drop(self.applier.lock());
        self.room.notify_all();
        self.wake.notify_one();
        TablesError::Failed(error)
    }

    /// Latches what a reader found out about the database; other failures are the reader's own.
    pub(crate) fn settle<T>(&self, result: Result<T, TablesError>) -> Result<T, TablesError> {
        match result {
            Err(error) if error.is_damage() => Err(self.latch(error)),
            other => other,
        }
    }
}

impl Applier {
    /// The state that `database` holds.
    pub(crate) fn new(database: &Database) -> Result<Self, TablesError> {
        let (machine, position, membership) = match &database.state {
            None => (Machine::new(), None, None),
            Some(state) => {
                let sessions = database.sessions.iter().cloned();
                let machine = Machine::restore(&state.machine, sessions)
                    .map_err(|source| TablesError::Undecodable { what: "the machine's state".to_owned(), source })?;
                if machine.revision() != state.revision() {
                    return Err(TablesError::damaged("the machine's header is of another entry than the rows"));
                }
                (machine, Some(state.position), state.membership.clone())
            }
        };
        let mut digests = KeptDigests::default();
        digests.keep(machine.revision(), machine.digest());
        let (closed, backlog) = (VecDeque::new(), Size::default());
        Ok(Self { machine, position, membership, digests, open: None, closed, backlog, is_stopped: false })
    }

    /// Closes the open group, if there is one: saves the machine as it is after the group's last entry.
    pub(crate) fn close_group(&mut self) {
        let (Some(open), Some(position)) = (self.open.take(), self.position) else { return };
        let machine = self.machine.save().header;
        let state = SavedState { position, membership: self.membership.clone(), machine };
        let sessions = self.machine.take_dirty_sessions();
        self.closed.push_back(Group { changes: open.changes, size: open.size, state, sessions });
    }

    /// Counts what SQLite has from now on.
    pub(crate) fn shrink_backlog(&mut self, size: Size, shown: &AtomicUsize) {
        self.backlog = self.backlog.minus(size);
        shown.store(self.backlog.ops, Ordering::Relaxed);
    }
}
