//! The one thread that writes: group commit.
//!
//! ```text
//! submit:   view changes, job queued        (caller's task; entries readable from here on)
//! writer:   drain what is queued -> one batch -> write -> sync -> promise, if it has a vote
//!           -> view learns what is durable -> callbacks, in the order of submission
//! ```
//!
//! Invariants: jobs reach the disk in the order in which they were submitted; no callback runs before the sync of its
//! batch; the first error is final and answers every job after it; `save_committed` alone costs neither a sync nor a
//! wake-up, it rides with the next job or is synced when the queue falls idle.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use rocksdb::WriteBatch;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    error::{LogError, to_io},
    failpoint,
    io::LogIo,
    promises::Promise,
    shared::Shared,
    stored::{self, Mark},
};
use crate::types::{AppendDone, Entry, LogId, Vote};

/// Entries of one batch, in bytes: large enough that a sync is shared by thousands of entries, small enough that the
/// first of them doesn't wait for megabytes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Jobs of one batch, so that a flood of tiny ones ends too.
const BATCH_JOBS_MAX: usize = 1024;
/// After this long without a job, what is synced is promised: the window in which a disk could lose the last batches
/// unnoticed.
const IDLE: Duration = Duration::from_millis(50);
/// Under load the same happens this often; one sync more in a second is not felt.
const PROMISE_PERIOD: Duration = Duration::from_secs(1);
/// How often free space is looked at.
const FREE_SPACE_PERIOD: Duration = Duration::from_secs(1);

/// The answer to a job that is waited for.
pub(crate) type Done = oneshot::Sender<Result<(), Arc<LogError>>>;

/// What to do to the log.
pub(crate) enum Job {
    Append { entries: Vec<Entry>, done: AppendDone },
    Vote { vote: Vote, done: Done },
    Committed { committed: Option<LogId> },
    Truncate { gone: std::ops::Range<u64>, done: Done },
    Purge { upto: LogId, gone: std::ops::Range<u64>, done: Done },
}

/// A job with what its submission found.
pub(crate) struct Submitted {
    pub job: Job,
    /// The last log id after this job.
    pub last: Option<LogId>,
    /// How many truncations there had been after it.
    pub truncations: u64,
    /// Its share of the queue, free again when it is done.
    pub _share: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitted").field("last", &self.last).finish_non_exhaustive()
    }
}

/// The thread's state.
pub(crate) struct Writer {
    pub io: Box<dyn LogIo>,
    pub shared: Arc<Shared>,
    pub queue: Receiver<Submitted>,
    /// The last batch written, and its last log id.
    pub number: u64,
    pub last: Option<LogId>,
    /// The last batch synced.
    pub synced: u64,
    pub promise: Promise,
    pub promised_at: Instant,
    pub looked_at: Instant,
    /// Reused for each value.
    pub value: Vec<u8>,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            match self.queue.recv_timeout(self.patience()) {
                Ok(first) => self.work(first),
                Err(RecvTimeoutError::Timeout) => self.rest_fully(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.rest_fully();
                    return;
                }
            }
        }
    }

    /// The first batch after a start: its sync proves that the log can be written.
    pub(crate) fn begin(&mut self) -> Result<(), LogError> {
        self.look_at_free_space()?;
        let batch = WriteBatch::new();
        self.write(batch, self.last)?;
        self.sync()?;
        self.keep_promise()
    }

    fn patience(&self) -> Duration {
        if self.promise.synced_through < self.number { IDLE } else { FREE_SPACE_PERIOD }
    }

    fn work(&mut self, first: Submitted) {
        let mut jobs = vec![first];
        let mut bytes = jobs.iter().map(|submitted| submitted.job.bytes()).sum::<usize>();
        while bytes < BATCH_BYTES_MAX
            && jobs.len() < BATCH_JOBS_MAX
            && let Ok(next) = self.queue.try_recv()
        {
            bytes += next.job.bytes();
            jobs.push(next);
        }
        let outcome = match self.shared.fatal() {
            Some(error) => Err(error),
            None => self.commit(&jobs, bytes).map_err(|error| self.shared.fail(error)),
        };
        for submitted in jobs {
            submitted.job.answer(&outcome);
        }
        if outcome.is_ok() && self.promised_at.elapsed() >= PROMISE_PERIOD {
            self.rest();
        }
    }

    /// Takes the jobs to the disk and tells the view.
    fn commit(&mut self, jobs: &[Submitted], bytes: usize) -> Result<(), LogError> {
        let mut batch = WriteBatch::with_capacity_bytes(bytes + 1024);
        let (mut wait, mut vote) = (false, None);
        for submitted in jobs {
            self.add(&submitted.job, &mut batch);
            match &submitted.job {
                Job::Vote { vote: new, .. } => (wait, vote) = (true, Some(*new)),
                Job::Append { .. } | Job::Truncate { .. } | Job::Purge { .. } => wait = true,
                Job::Committed { .. } => {}
            }
        }
        let last = jobs.last().map_or(self.last, |submitted| submitted.last);
        failpoint::pass(failpoint::BEFORE_WRITE);
        self.write(batch, last)?;
        failpoint::pass(failpoint::AFTER_WRITE_BEFORE_SYNC);
        if !wait {
            return Ok(());
        }
        self.sync()?;
        failpoint::pass(failpoint::AFTER_SYNC_BEFORE_PROMISE);
        if vote.is_some() {
            self.promise.vote = vote;
            self.keep_promise()?;
        }
        failpoint::pass(failpoint::AFTER_SYNC_BEFORE_CALLBACK);
        self.shared.learn(jobs.iter().map(|submitted| (&submitted.job, submitted.truncations)));
        Ok(())
    }

    fn add(&mut self, job: &Job, batch: &mut WriteBatch) {
        match job {
            Job::Append { entries, .. } => {
                for entry in entries {
                    let key = stored::entry_key(entry.log_id.index);
                    stored::encode_entry(&key, entry, &mut self.value);
                    batch.put(key, &self.value);
                }
            }
            Job::Vote { vote, .. } => batch.put(stored::VOTE, stored::encode_vote(vote)),
            Job::Committed { committed } => {
                batch.put(stored::COMMITTED, stored::encode_log_id(stored::COMMITTED, committed.as_ref()));
            }
            Job::Truncate { gone, .. } => {
                // Point deletes: a tail is short, and range tombstones there would slow every later read of the end.
                for index in gone.clone() {
                    batch.delete(stored::entry_key(index));
                }
            }
            Job::Purge { upto, gone, .. } => {
                batch.delete_range(stored::entry_key(gone.start), stored::entry_key(gone.end));
                batch.put(stored::PURGED, stored::encode_log_id(stored::PURGED, Some(upto)));
            }
        }
    }

    fn write(&mut self, mut batch: WriteBatch, last: Option<LogId>) -> Result<(), LogError> {
        let mark = Mark { number: self.number + 1, synced_through: self.synced, last };
        batch.put(stored::MARK, mark.encode());
        self.io.write(batch)?;
        self.number = mark.number;
        self.last = last;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.io.sync()?;
        self.synced = self.number;
        Ok(())
    }

    /// Promises that everything synced so far will be found again.
    fn keep_promise(&mut self) -> Result<(), LogError> {
        let promise = Promise { synced_through: self.synced, ..self.promise };
        self.io.promise(promise)?;
        self.promise = promise;
        self.promised_at = Instant::now();
        Ok(())
    }

    /// Writes the commit index that waited for another job, and rests.
    fn rest_fully(&mut self) {
        let written = self.last;
        // One above what is written belongs after an append that was queued a moment ago.
        let is_written = |submitted: &Submitted| match &submitted.job {
            Job::Committed { committed } => {
                committed.as_ref().map(|id| id.index) <= written.as_ref().map(|id| id.index)
            }
            Job::Append { .. } | Job::Vote { .. } | Job::Truncate { .. } | Job::Purge { .. } => true,
        };
        if let Some(mut submitted) = self.shared.take_deferred(is_written) {
            // Its log may have gone on meanwhile: what this batch ends with is what was written before it.
            submitted.last = written;
            self.work(submitted);
        }
        self.rest();
    }

    /// What is done when there is nothing to do.
    fn rest(&mut self) {
        if self.shared.fatal().is_some() {
            return;
        }
        if let Err(error) = self.tidy() {
            self.shared.fail(error);
        }
    }

    fn tidy(&mut self) -> Result<(), LogError> {
        if self.synced < self.number {
            self.sync()?;
        }
        if self.promise.synced_through < self.synced {
            self.keep_promise()?;
        }
        if self.looked_at.elapsed() >= FREE_SPACE_PERIOD { self.look_at_free_space() } else { Ok(()) }
    }

    fn look_at_free_space(&mut self) -> Result<(), LogError> {
        self.shared.set_free_bytes(self.io.free_bytes()?);
        self.looked_at = Instant::now();
        Ok(())
    }
}

impl Job {
    /// About how many bytes it adds to a batch.
    pub(crate) fn bytes(&self) -> usize {
        const RECORD_BYTES: usize = 64;
        match self {
            Self::Append { entries, .. } => entries.iter().map(super::view::cost).sum(),
            Self::Truncate { gone, .. } => {
                usize::try_from(gone.end - gone.start).unwrap_or(usize::MAX / RECORD_BYTES).saturating_mul(RECORD_BYTES)
            }
            Self::Vote { .. } | Self::Committed { .. } | Self::Purge { .. } => RECORD_BYTES,
        }
    }

    /// Tells whoever waits for the job. A waiter that has gone away has no use for the answer.
    pub(crate) fn answer(self, outcome: &Result<(), Arc<LogError>>) {
        match self {
            Self::Append { done, .. } => done.io_completed(outcome.as_ref().map_err(to_io).copied()),
            Self::Vote { done, .. } | Self::Truncate { done, .. } | Self::Purge { done, .. } => {
                if done.send(outcome.clone()).is_err() {
                    tracing::debug!("nobody waits for a log operation any more");
                }
            }
            Self::Committed { .. } => {}
        }
    }
}
