//! The crash drill: a workload made of a seed, a model of what it leaves, and the comparison after a crash.
//!
//! A child process works and prints the number of each operation that was acknowledged; it dies somewhere; the parent
//! opens the log and asks of which prefix of the operations it is the result. The prefix must contain everything
//! acknowledged. This says more than "acknowledged entries are there": it also says that there are no holes, that
//! nothing truncated has come back, that vote and entries fit together.
//!
//! After a crash the workload goes on with another seed, so that leftovers of the lost operations can't pass for new
//! ones. For tests only; compiled in with the feature `failpoints`.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::Write as _,
    time::SystemTime,
};

use bytes::Bytes;
use openraft::{RaftLogReader, alias::OneshotReceiverOf, storage::RaftLogStorage, type_config::TypeConfigExt};

use super::{LogConfig, LogError, LogStore};
use crate::types::{AppendDone, Entry, EntryPayload, LogId, Membership, NodeInfo, Payload, TypeConfig, Vote};

/// An operation's number, and where its answer will come.
type Pending = (u64, OneshotReceiverOf<TypeConfig, std::io::Result<()>>);

/// Appends that may be under way at once; so at most this many operations are done but not acknowledged, and the saved
/// commit positions among them.
pub const WINDOW: usize = 16;

/// One operation on the log.
#[derive(Clone, Debug)]
pub enum Op {
    /// Append these.
    Append(Vec<Entry>),
    /// Save this vote.
    Vote(Vote),
    /// Save this commit position; acknowledged by whatever follows it.
    Committed(Option<LogId>),
    /// Drop what follows.
    Truncate(Option<LogId>),
    /// Drop up to this.
    Purge(LogId),
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The last purged log id.
    pub purged: Option<LogId>,
    /// The entries present.
    pub entries: BTreeMap<u64, Entry>,
    /// The vote.
    pub vote: Option<Vote>,
    /// The commit position.
    pub committed: Option<LogId>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(entries) => self.entries.extend(entries.iter().map(|e| (e.log_id.index, e.clone()))),
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Committed(committed) => self.committed = *committed,
            Op::Truncate(after) => {
                let keep = after.map_or(0, |id| id.index + 1);
                self.entries.split_off(&keep);
            }
            Op::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
            }
        }
    }

    /// What an open log holds.
    ///
    /// # Errors
    /// Whatever reading the log reports.
    ///
    /// # Panics
    /// If the log's own idea of its end is not its last entry.
    pub async fn read(store: &mut LogStore) -> std::io::Result<Self> {
        let state = store.get_log_state().await?;
        let mut reader = store.get_log_reader().await;
        let entries = reader.try_get_log_entries(..).await?;
        let model = Self {
            purged: state.last_purged_log_id,
            entries: entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
            vote: reader.read_vote().await?,
            committed: store.read_committed().await?,
        };
        assert_eq!(model.last(), state.last_log_id, "the log's own idea of its end");
        Ok(model)
    }

    /// What differs, in a few words.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let mut out = String::new();
        let ours = (self.purged, self.last(), self.vote, self.committed);
        let theirs = (other.purged, other.last(), other.vote, other.committed);
        if ours != theirs {
            let _ = write!(out, "(purged, last, vote, committed): {ours:?} against {theirs:?}; ");
        }
        let different = self.entries.iter().find(|(index, entry)| other.entries.get(index) != Some(entry));
        if let Some((index, entry)) = different {
            let _ = write!(out, "entry {index}: {entry:?} against {:?}", other.entries.get(index));
        }
        out
    }
}

/// The operations so far and to come: per crash a seed and how many of its operations survived.
#[derive(Clone, Debug, Default)]
pub struct Script {
    done: Vec<(u64, u64)>,
    seed: u64,
}

impl Script {
    /// A script that begins with an empty log.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { done: Vec::new(), seed }
    }

    /// Goes on with another seed after the first `survived` operations of the present one.
    pub fn crashed(&mut self, survived: u64, seed: u64) {
        self.done.push((self.seed, survived));
        self.seed = seed;
    }

    /// As an argument for a child process.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for (seed, count) in &self.done {
            let _ = write!(out, "{seed}:{count},");
        }
        out + &self.seed.to_string()
    }

    /// From an argument.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts: Vec<&str> = text.split(',').collect();
        let seed = parts.pop()?.parse().ok()?;
        let pair = |part: &str| {
            let (seed, count) = part.split_once(':')?;
            Some((seed.parse().ok()?, count.parse().ok()?))
        };
        Some(Self { done: parts.into_iter().map(pair).collect::<Option<_>>()?, seed })
    }

    /// The operations to come, with the model that they start from.
    #[must_use]
    pub fn operations(&self) -> Operations {
        let mut operations = Operations { model: Model::default(), random: Random(0) };
        for (seed, count) in &self.done {
            operations.random = Random(*seed);
            for _ in 0..*count {
                operations.step();
            }
        }
        operations.random = Random(self.seed);
        operations
    }

    /// How many operations of the present seed the log holds: at least those acknowledged, at most those that can have
    /// been begun when `reported` was the last number that the child reported at all.
    ///
    /// # Errors
    /// In words, if the log is not the result of any such prefix of the operations.
    pub fn survived(&self, acknowledged: u64, reported: u64, found: &Model) -> Result<u64, String> {
        let mut operations = self.operations();
        for _ in 0..acknowledged {
            operations.step();
        }
        let first = operations.model().difference(found);
        let mut count = acknowledged;
        let mut begun = 0;
        while operations.model() != found {
            if begun > WINDOW {
                return Err(format!("no prefix of at least {acknowledged} operations gives this log; {first}"));
            }
            let op = operations.step();
            count += 1;
            begun += usize::from(count > reported && !matches!(op, Op::Committed(_)));
        }
        Ok(count)
    }
}

/// An endless sequence of operations that a correct openraft could ask for.
#[derive(Clone, Debug)]
pub struct Operations {
    model: Model,
    random: Random,
}

impl Operations {
    /// What a log holds after the operations so far.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Makes the next operation and applies it to the model.
    pub fn step(&mut self) -> Op {
        let op = self.choose();
        self.model.apply(&op);
        op
    }

    fn choose(&mut self) -> Op {
        let other = self.choose_other();
        other.unwrap_or_else(|| {
            let count = if self.random.below(6) == 0 { 64 } else { 1 + self.random.below(8) };
            Op::Append(self.entries(count))
        })
    }

    /// Something else than an append, now and then.
    fn choose_other(&mut self) -> Option<Op> {
        let present = self.model.entries.len();
        match self.random.below(100) {
            0..4 => Some(Op::Vote(self.next_vote())),
            4..10 if present > 0 => Some(Op::Committed(self.model.last())),
            10..14 if present > 20 => {
                let last = self.model.last().map_or(0, |id| id.index);
                let keep = last - self.random.below(12);
                self.model.entries.get(&keep).map(|entry| Op::Truncate(Some(entry.log_id)))
            }
            14..16 if present > 400 => {
                let first = self.model.entries.first_key_value().map_or(0, |(index, _)| *index);
                let upto = first + self.random.below(u64::try_from(present).unwrap_or(u64::MAX) - 200);
                self.model.entries.get(&upto).map(|entry| Op::Purge(entry.log_id))
            }
            _ => None,
        }
    }

    fn next_vote(&mut self) -> Vote {
        let term = self.model.vote.map_or(0, |vote| vote.leader_id.term);
        match self.model.vote {
            Some(vote) if !vote.committed && self.random.below(2) == 0 => {
                Vote::new_committed(term, vote.leader_id.voted_for)
            }
            _ => Vote::new(term + 1, 1 + self.random.below(3)),
        }
    }

    fn entries(&mut self, count: u64) -> Vec<Entry> {
        let term = self.model.vote.map_or(0, |vote| vote.leader_id.term);
        let first = self.model.last().map_or(0, |id| id.index + 1);
        (first..first + count)
            .map(|index| Entry { log_id: LogId::new_term_index(term, index), payload: self.payload() })
            .collect()
    }

    fn payload(&mut self) -> EntryPayload {
        match self.random.below(40) {
            0 => EntryPayload::Blank,
            1 => {
                let voter = self.random.below(5);
                let node = NodeInfo::at(format!("node-{voter}:1"));
                EntryPayload::Membership(Membership::from(BTreeMap::from([(voter, node)])))
            }
            _ => {
                let words = 1 + self.random.below(90);
                let bytes: Vec<u8> = (0..words).flat_map(|_| self.random.next_u64().to_le_bytes()).collect();
                EntryPayload::Normal(Payload(Bytes::from(bytes)))
            }
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and the same everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0; the tiny bias doesn't matter here.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }
}

/// The settings of a drill: buffers small enough that WAL files are switched, recycled and flushed all the time.
#[must_use]
pub fn config(dir: impl Into<std::path::PathBuf>) -> LogConfig {
    let mut config = LogConfig::new(dir, super::Identity { lineage: *b"the crash drill.", node: 1 });
    config.free_bytes_min = 0;
    config.memory_bytes = 64 << 10;
    config.write_buffer_bytes = 256 << 10;
    config
}

/// The child: opens the log, works through `count` operations, and writes a line with the number of operations
/// acknowledged whenever there are more.
///
/// # Errors
/// What the log reports.
pub async fn work(config: &LogConfig, script: &Script, count: u64) -> Result<(), DrillError> {
    let mut store = LogStore::open(config).map_err(DrillError::Open)?;
    let mut operations = script.operations();
    let mut pending: VecDeque<Pending> = VecDeque::new();
    report(0)?;
    for number in 1..=count {
        match operations.step() {
            Op::Append(entries) => {
                let (done, finished) = TypeConfig::oneshot();
                store.append(entries, AppendDone::signal(done)).await?;
                pending.push_back((number, finished));
                if pending.len() == WINDOW {
                    acknowledge_first(&mut pending).await?;
                }
                continue;
            }
            Op::Committed(committed) => {
                store.save_committed(committed).await?;
                continue;
            }
            Op::Vote(vote) => store.save_vote(&vote).await?,
            Op::Truncate(after) => store.truncate_after(after).await?,
            Op::Purge(upto) => store.purge(upto).await?,
        }
        while !pending.is_empty() {
            acknowledge_first(&mut pending).await?;
        }
        report(number)?;
    }
    while !pending.is_empty() {
        acknowledge_first(&mut pending).await?;
    }
    Ok(())
}

async fn acknowledge_first(pending: &mut VecDeque<Pending>) -> Result<(), DrillError> {
    let Some((number, finished)) = pending.pop_front() else { return Ok(()) };
    finished.await.map_err(|_| DrillError::Lost { number })??;
    report(number)
}

fn report(number: u64) -> Result<(), DrillError> {
    let line = format!("acknowledged {number} at {}\n", now_ns());
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(DrillError::Report)
}

/// The time on this machine's clock, in nanoseconds since 1970; comparable between processes.
#[must_use]
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The last number that a child reported before the given time; nothing if it had not opened the log by then.
#[must_use]
pub fn acknowledged(output: &str, before_ns: u64) -> Option<u64> {
    // A line without its end may lack digits; the test harness may have begun the first line.
    let complete = output.rsplit_once('\n')?.0;
    let reports = complete.lines().filter_map(|line| {
        let (number, at) = line.rsplit_once("acknowledged ")?.1.split_once(" at ")?;
        Some((number.parse().ok()?, at.parse().ok()?))
    });
    reports.filter(|(_, at): &(u64, u64)| *at < before_ns).map(|(number, _)| number).next_back()
}

/// What ends a drill in the child.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The log could not be opened.
    #[error("could not open the log")]
    Open(#[source] LogError),
    /// An operation failed.
    #[error("an operation on the log failed")]
    Operation(#[from] std::io::Error),
    /// The parent doesn't listen.
    #[error("could not report")]
    Report(#[source] std::io::Error),
    /// A callback was dropped.
    #[error("operation {number} was never answered")]
    Lost {
        /// Its number.
        number: u64,
    },
}
