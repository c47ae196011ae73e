//! A model of a log on a disk: what is durable, what isn't yet, and what a crash leaves.
//!
//! ```text
//!   openraft --submit--> memory (readable at once) + pending --after a simulated sync--> platter, then the callbacks
//!                                                     crash: some prefix of pending reaches the platter, the rest is gone
//! ```
//!
//! Operations become durable in the order of submission and many at once, as in the real log; how long a sync takes is drawn
//! from the seed. Deliberately not here: damage to what is durable, and IO errors: both end a real node for good.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::RaftLogReader;
use openraft::storage::{LogState, RaftLogStorage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use zyflow_raft::log::{Log, LogWatch};
use zyflow_storage::log::LogError;
use zyflow_storage::types::{AppendDone, Entry, LogId, NodeId, TypeConfig, Vote};

use crate::Plant;
use crate::facts::Facts;

/// How long a sync takes on a disk that is well, in milliseconds.
const SYNC_MS: RangeInclusive<u64> = 0..=6;
/// How long a log that lies about durability takes to write what it has confirmed already.
const LATE_MS: RangeInclusive<u64> = 200..=1500;

/// What a log consists of, in memory or on the platter.
#[derive(Clone, Debug, Default)]
struct Image {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Clone, Debug)]
enum Op {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    Truncate(Option<LogId>),
    Purge(LogId),
}

impl Image {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Committed(committed) => self.committed = *committed,
            Op::Append(entries) => self.entries.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone()))),
            Op::Truncate(after) => {
                let keep_to = after.map_or(0, |id| id.index + 1);
                self.entries.retain(|index, _| *index < keep_to);
            }
            Op::Purge(upto) => {
                self.entries.retain(|index, _| *index > upto.index);
                self.purged = Some(*upto);
            }
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }
}

/// The disk of one node; it outlives the node's process.
pub struct Disk {
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    platter: Image,
    memory: Image,
    pending: VecDeque<Op>,
    /// Added to every sync while the disk is slow, in milliseconds.
    stall_ms: u64,
    plant: Option<Plant>,
    durable: watch::Sender<Option<u64>>,
}

impl Disk {
    pub fn new(seed: u64, plant: Option<Plant>) -> Arc<Self> {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            platter: Image::default(),
            memory: Image::default(),
            pending: VecDeque::new(),
            stall_ms: 0,
            plant,
            durable: watch::Sender::new(None),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("invariant: the simulation has one thread and stops at the first panic")
    }

    /// The entry that the running node sees at `index`.
    pub fn entry(&self, index: u64) -> Option<Entry> {
        self.state().memory.entries.get(&index).cloned()
    }

    /// Whether a power cut now would leave that entry.
    pub fn keeps(&self, id: LogId) -> bool {
        let state = self.state();
        let is_purged = state.platter.purged.is_some_and(|purged| purged.index >= id.index);
        is_purged || state.platter.entries.get(&id.index).is_some_and(|entry| entry.log_id == id)
    }

    /// The last index up to which the node may believe that everything is durable.
    pub fn durable(&self) -> Option<u64> {
        *self.state().durable.borrow()
    }

    /// Every sync takes this much longer from now on.
    pub fn stall(&self, stall_ms: u64) {
        self.state().stall_ms = stall_ms;
    }

    /// The power goes: some of what was under way is written, in order, the rest is lost. Gives how much of each.
    pub fn crash(&self) -> (usize, usize) {
        let mut state = self.state();
        let pending: Vec<Op> = std::mem::take(&mut state.pending).into();
        let written = match state.rng.random_range(0..3) {
            0 => 0,
            1 => pending.len(),
            _ => state.rng.random_range(0..=pending.len()),
        };
        for op in &pending[..written] {
            state.platter.apply(op);
        }
        if let Some(Op::Append(entries)) = pending.get(written) {
            let torn = state.rng.random_range(0..=entries.len());
            state.platter.apply(&Op::Append(entries[..torn].to_vec()));
        }
        if state.plant == Some(Plant::ForgetVotes) {
            state.platter.vote = None;
        }
        state.memory = state.platter.clone();
        (written, pending.len() - written)
    }

    fn delay(&self) -> Duration {
        let mut state = self.state();
        let sync = if state.lies() { state.rng.random_range(LATE_MS) } else { state.rng.random_range(SYNC_MS) };
        Duration::from_millis(sync + state.stall_ms)
    }

    /// The first `count` pending operations are durable now.
    fn sync(&self, count: usize) {
        let mut state = self.state();
        for _ in 0..count {
            let op = state.pending.pop_front().expect("invariant: what is synced was submitted");
            state.platter.apply(&op);
        }
        state.publish();
    }
}

impl State {
    /// Whether it confirms what it hasn't written.
    fn lies(&self) -> bool {
        self.plant == Some(Plant::AckBeforeDurable)
    }

    fn publish(&mut self) {
        let platter = if self.lies() { &self.memory } else { &self.platter };
        let behind =
            |entry: &&Entry| self.memory.entries.get(&entry.log_id.index).is_some_and(|e| e.log_id == entry.log_id);
        let durable = platter.entries.values().rev().find(behind).map(|entry| entry.log_id);
        self.durable.send_replace(durable.or(platter.purged).map(|id| id.index));
    }
}

enum Done {
    Nobody,
    Append(AppendDone),
    Waiter(oneshot::Sender<()>),
}

impl Done {
    fn answer(self) {
        match self {
            Self::Nobody => {}
            Self::Append(done) => done.io_completed(Ok(())),
            // Whoever waited may be gone.
            Self::Waiter(done) => drop(done.send(())),
        }
    }
}

/// The log of one running node.
pub struct ModelLog {
    reader: ModelReader,
    node: NodeId,
    facts: Arc<Facts>,
    queue: mpsc::UnboundedSender<Done>,
}

/// Reads it.
#[derive(Clone)]
pub struct ModelReader(Arc<Disk>);

impl ModelLog {
    /// Finds what is on the disk, and starts the task that syncs: it ends with the log.
    pub fn open(node: NodeId, disk: Arc<Disk>, facts: Arc<Facts>) -> Self {
        let (queue, mut submitted) = mpsc::unbounded_channel::<Done>();
        disk.state().publish();
        let writing = Arc::clone(&disk);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while submitted.recv_many(&mut batch, usize::MAX).await > 0 {
                tokio::time::sleep(writing.delay()).await;
                writing.sync(batch.len());
                batch.drain(..).for_each(Done::answer);
            }
        });
        Self { reader: ModelReader(disk), node, facts, queue }
    }

    fn submit(&self, op: Op, done: Done) -> Result<(), io::Error> {
        let lies = {
            let mut state = self.reader.0.state();
            if let Op::Append(entries) = &op {
                let mut before = state.memory.last();
                for entry in entries {
                    self.facts.appended(self.node, before, entry);
                    before = Some(entry.log_id);
                }
            }
            state.memory.apply(&op);
            state.pending.push_back(op);
            state.publish();
            state.lies()
        };
        let done = if lies {
            done.answer();
            Done::Nobody
        } else {
            done
        };
        self.queue.send(done).map_err(|_| io::Error::other("the log is closed"))
    }

    async fn finish(&self, op: Op) -> Result<(), io::Error> {
        let (done, finished) = oneshot::channel();
        self.submit(op, Done::Waiter(done))?;
        finished.await.map_err(io::Error::other)
    }
}

impl RaftLogReader<TypeConfig> for ModelReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let bounds: (Bound<u64>, Bound<u64>) = (range.start_bound().cloned(), range.end_bound().cloned());
        Ok(self.0.state().memory.entries.range(bounds).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.state().memory.vote)
    }
}

impl RaftLogStorage<TypeConfig> for ModelLog {
    type LogReader = ModelReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.reader.0.state();
        Ok(LogState { last_purged_log_id: state.memory.purged, last_log_id: state.memory.last() })
    }

    async fn get_log_reader(&mut self) -> ModelReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.finish(Op::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.submit(Op::Committed(committed), Done::Nobody)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.reader.0.state().memory.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: AppendDone) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        self.submit(Op::Append(entries.into_iter().collect()), Done::Append(callback))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.finish(Op::Truncate(last_log_id)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.finish(Op::Purge(log_id)).await
    }
}

impl Log for ModelLog {
    fn watch(&self) -> Arc<dyn LogWatch> {
        Arc::new(self.reader.clone())
    }

    async fn check_state(&self, applied: Option<LogId>, snapshot: Option<LogId>) -> Result<(), Arc<LogError>> {
        let Some(applied) = applied else { return Ok(()) };
        let (log, found) = {
            let state = self.reader.0.state();
            (state.memory.last(), state.memory.entries.get(&applied.index).map(|entry| entry.log_id))
        };
        match found {
            _ if log.is_none_or(|log| log.index < applied.index) => {
                Err(Arc::new(LogError::BehindState { log, applied, snapshot }))
            }
            Some(found) if found != applied => Err(Arc::new(LogError::OtherThanState { log: found, applied })),
            Some(_) | None => Ok(()),
        }
    }
}

impl LogWatch for ModelReader {
    fn fatal(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        // It never fails: whoever waits is told that nobody can.
        watch::channel(None).1
    }

    fn durable_watermark(&self) -> watch::Receiver<Option<u64>> {
        self.0.state().durable.subscribe()
    }

    fn free_space(&self) -> u64 {
        u64::MAX
    }
}
