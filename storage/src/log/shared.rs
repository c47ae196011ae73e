//! What the store, its readers, its handles and the writer thread share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use rocksdb::DB;
use tokio::sync::watch;

use super::{
    error::LogError,
    identity::Lock,
    view::View,
    writer::{Job, Submitted},
};

/// The shared state of one open log.
#[derive(Debug)]
pub(crate) struct Shared {
    view: Mutex<View>,
    pub(crate) db: Arc<DB>,
    fatal: watch::Sender<Option<Arc<LogError>>>,
    durable: watch::Sender<Option<u64>>,
    free_bytes: AtomicU64,
    free_bytes_min: u64,
    /// A commit index that waits for another job; locked only while the view is, or by the writer thread.
    deferred: Mutex<Option<Submitted>>,
    /// Last, so that the database is closed before the next process may open it.
    _lock: Lock,
}

impl Shared {
    pub(crate) fn new(view: View, db: Arc<DB>, free_bytes_min: u64, lock: Lock) -> Self {
        Self {
            durable: watch::Sender::new(view.durable()),
            view: Mutex::new(view),
            db,
            fatal: watch::Sender::new(None),
            free_bytes: AtomicU64::new(0),
            free_bytes_min,
            deferred: Mutex::new(None),
            _lock: lock,
        }
    }

    /// The view, for a moment. Nothing is awaited and no disk is touched while it is held.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first error, if there was one.
    pub(crate) fn fatal(&self) -> Option<Arc<LogError>> {
        self.fatal.borrow().clone()
    }

    /// Fails if there was an error before.
    pub(crate) fn check(&self) -> Result<(), Arc<LogError>> {
        self.fatal().map_or(Ok(()), Err)
    }

    /// Latches the first error; later ones change nothing. Returns the latched one.
    pub(crate) fn fail(&self, error: LogError) -> Arc<LogError> {
        let mut latched = Arc::new(error);
        let first = self.fatal.send_if_modified(|fatal| {
            if let Some(earlier) = fatal {
                latched = Arc::clone(earlier);
                return false;
            }
            *fatal = Some(Arc::clone(&latched));
            true
        });
        if first {
            let error: &dyn std::error::Error = &latched;
            tracing::error!(error, "the log failed, this node has to stop");
        }
        latched
    }

    pub(crate) fn watch_fatal(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        self.fatal.subscribe()
    }

    pub(crate) fn watch_durable(&self) -> watch::Receiver<Option<u64>> {
        self.durable.subscribe()
    }

    /// Publishes the durable index of a view that is still held, so that watchers see changes in order.
    pub(crate) fn publish_durable(&self, view: &View) {
        self.durable.send_if_modified(|durable| {
            let changed = *durable != view.durable();
            *durable = view.durable();
            changed
        });
    }

    /// Takes note of jobs that have become durable.
    pub(crate) fn learn<'a>(&self, jobs: impl Iterator<Item = (&'a Job, u64)>) {
        let mut view = self.view();
        for (job, truncations) in jobs {
            match job {
                Job::Append { entries, .. } => {
                    if let Some(last) = entries.last() {
                        view.set_durable(last.log_id.index, truncations);
                    }
                }
                Job::Vote { vote, .. } => view.vote = Some(*vote),
                Job::Purge { upto, .. } => view.set_durable(upto.index, truncations),
                Job::Truncate { .. } | Job::Committed { .. } => {}
            }
        }
        self.publish_durable(&view);
    }

    /// Keeps a job that nobody waits for until the next one, or until the log rests. To be called with the view locked, so that
    /// jobs keep their order. One that is kept already is replaced: the newer commit index says all.
    pub(crate) fn defer(&self, submitted: Submitted) {
        *self.deferred.lock().unwrap_or_else(PoisonError::into_inner) = Some(submitted);
    }

    /// Takes the kept job out, if it is as asked for.
    pub(crate) fn take_deferred(&self, is_wanted: impl FnOnce(&Submitted) -> bool) -> Option<Submitted> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner).take_if(|submitted| is_wanted(submitted))
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.free_bytes() >= self.free_bytes_min && self.fatal.borrow().is_none()
    }
}
