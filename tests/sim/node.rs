//! One simulated machine: its disk and folder, and the process that runs on it from one crash to the next.
//!
//! The log is the model; the tables are the real ones, in a folder. Their writer thread only works when this module asks it to and
//! waits for it, so what SQLite holds at a crash depends on the seed alone; they are told that an entry is durable only then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::Command;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::Record;
use zyflow_raft::{Clock, Consensus, ConsensusConfig, Consistency, NodeId, NodeInfo, ProposeError, ReadError};
use zyflow_storage::tables::{Synchronous, Tables, TablesConfig};

use crate::Plant;
use crate::facts::Facts;
use crate::log::{Disk, ModelLog};
use crate::net::{CLUSTER, SimNet, host_of};

/// How often SQLite gets what is durable.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// The tables' writer never begins by itself.
const NEVER: Duration = Duration::from_hours(24);
/// Wall clocks begin here, in milliseconds since 1970.
const CLOCK_MS: u64 = 1_700_000_000_000;
/// Entries between snapshots: none are made, see `sim.rs`.
const SNAPSHOT_ENTRIES: u64 = 1_000_000;

/// What a client asks a node for.
pub enum Ask {
    Propose { command: Command, patience: Duration, reply: oneshot::Sender<Result<Outcome, ProposeError>> },
    Read { change: RecordId, patience: Duration, reply: oneshot::Sender<Result<Read, ReadError>> },
}

/// A revision, and how often each line stands in the change at it.
pub struct Read {
    pub revision: Revision,
    pub lines: BTreeMap<String, usize>,
}

/// See the module.
pub struct Machine {
    pub id: NodeId,
    pub disk: Arc<Disk>,
    voters: Vec<NodeId>,
    dir: PathBuf,
    clock_ahead_ms: u64,
    plant: Option<Plant>,
    facts: Arc<Facts>,
    running: Mutex<Option<Running>>,
}

/// What is there while the process runs.
#[derive(Clone)]
pub struct Running {
    pub consensus: Consensus,
    pub tables: Tables,
    asks: mpsc::UnboundedSender<Ask>,
    flushable: watch::Sender<Option<u64>>,
}

struct SimClock {
    ahead_ms: u64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        CLOCK_MS + self.ahead_ms + u64::try_from(elapsed.as_millis()).expect("invariant: a run takes a minute")
    }
}

fn lineage() -> Lineage {
    Lineage([0x51; 16])
}

impl Machine {
    pub fn new(
        id: NodeId,
        voters: Vec<NodeId>,
        dir: PathBuf,
        disk: Arc<Disk>,
        plant: Option<Plant>,
        facts: Arc<Facts>,
    ) -> Self {
        // Clocks differ by less than they do where nobody sets them.
        let clock_ahead_ms = id * 700;
        Self { id, disk, voters, dir, clock_ahead_ms, plant, facts, running: Mutex::new(None) }
    }

    /// What runs on it now.
    pub fn running(&self) -> Option<Running> {
        self.slot().clone()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().expect("invariant: the simulation has one thread and stops at the first panic")
    }

    /// Asks the process; it may be gone, and the answer may never come.
    pub fn ask(&self, ask: Ask) {
        if let Some(running) = self.slot().as_ref() {
            // Closed only while the process stops.
            drop(running.asks.send(ask));
        }
    }

    /// The process: serves until the machine crashes.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let _stopping = Stopping(Arc::clone(&self));
        match self.start().await {
            Ok((running, asks)) => self.serve(running, asks).await,
            Err(why) => {
                self.facts.fail("every node starts again", format!("node {}: {why:#}", self.id));
                std::future::pending().await
            }
        }
    }

    async fn start(&self) -> anyhow::Result<(Running, mpsc::UnboundedReceiver<Ask>)> {
        let ring = Arc::new(KeyRing::new(DataKey::new(KeyId(1), [0x42; 32].into())));
        let key = Arc::new(LocalKey::create_or_load(&self.dir.join("node.key"), &ring)?);
        let (flushable, durable) = watch::channel(self.disk.durable());
        let mut config = TablesConfig::new(self.dir.join("tables"), lineage());
        config.flush_interval = NEVER;
        config.flush_ops_max = config.backlog_ops_max;
        config.synchronous = Synchronous::Off;
        let tables = Tables::open(config, key, durable)?;
        // Its writer has begun and waits, before anything else draws random numbers.
        tables.flush()?;
        let advertise = format!("{}:7000", host_of(self.id));
        let mut config =
            ConsensusConfig::new(self.id, CLUSTER.to_owned(), lineage(), advertise, self.dir.join("snapshots"));
        config.disk_free_bytes_min = 0;
        config.snapshot_entries = SNAPSHOT_ENTRIES;
        config.snapshots_inline = true;
        config.clock = Arc::new(SimClock { ahead_ms: self.clock_ahead_ms });
        let net = Arc::new(SimNet::bind(self.id, Arc::clone(&self.facts)).await?);
        let log = ModelLog::open(self.id, Arc::clone(&self.disk), Arc::clone(&self.facts));
        let consensus = Consensus::start_over(config, log, tables.clone(), ring, net).await?;
        let (asks, asked) = mpsc::unbounded_channel();
        let running = Running { consensus, tables, asks, flushable };
        *self.slot() = Some(running.clone());
        Ok((running, asked))
    }

    /// Makes a cluster of all machines; done once, while all of them run and are empty.
    pub async fn initialize(&self) {
        let info = |id: &NodeId| (*id, NodeInfo::at(format!("{}:7000", host_of(*id))));
        let members = self.voters.iter().map(info).collect();
        if let Some(running) = self.running()
            && let Err(error) = running.consensus.initialize(members).await
        {
            self.facts.fail("a cluster can be made", error.to_string());
        }
    }

    async fn serve(&self, running: Running, mut asked: mpsc::UnboundedReceiver<Ask>) -> turmoil::Result {
        if self.disk.durable().is_none() && self.id == 1 {
            self.initialize().await;
        }
        let mut flushes = tokio::time::interval(FLUSH_INTERVAL);
        loop {
            tokio::select! {
                biased;
                ask = asked.recv() => match ask {
                    Some(ask) => drop(tokio::spawn(answer(running.clone(), ask, self.plant))),
                    None => return Ok(()),
                },
                _ = flushes.tick() => self.flush(&running),
            }
        }
    }

    /// Gives SQLite everything that is applied, if all of that is durable.
    pub fn flush(&self, running: &Running) {
        let durable = self.disk.durable();
        if Some(running.tables.applied().borrow().0) > durable {
            return;
        }
        running.flushable.send_replace(durable);
        if let Err(error) = running.tables.flush() {
            self.facts.fail("no node fails", format!("node {}: flushing: {error}", self.id));
        }
    }
}

/// Runs when the process is dropped, which is how it crashes.
struct Stopping(Arc<Machine>);

impl Drop for Stopping {
    fn drop(&mut self) {
        let machine = &self.0;
        drop(machine.slot().take());
        let (written, lost) = machine.disk.crash();
        machine.facts.stopped(machine.id);
        machine.facts.note(&format!("node {} stops: {written} writes reach the disk, {lost} are lost", machine.id));
    }
}

async fn answer(running: Running, ask: Ask, plant: Option<Plant>) {
    // Whoever asked may have given up.
    match ask {
        Ask::Propose { mut command, patience, reply } => {
            if plant == Some(Plant::ForgetRequests) {
                command.request = None;
            }
            drop(reply.send(running.consensus.propose(command, Instant::now() + patience).await));
        }
        Ask::Read { change, patience, reply } => {
            let consistency =
                if plant == Some(Plant::LocalReads) { Consistency::Local } else { Consistency::Linearizable };
            let barrier = running.consensus.read_barrier(consistency, Instant::now() + patience).await;
            drop(reply.send(barrier.map(|revision| Read { revision, lines: lines(&running.tables, change) })));
        }
    }
}

/// How often each line stands in a change; no line if there is no such change yet.
pub fn lines(tables: &Tables, change: RecordId) -> BTreeMap<String, usize> {
    let blocks =
        tables.view(None).and_then(|view| view.blocks(change)).expect("the tables of a running node can be read");
    let mut lines = BTreeMap::new();
    for (_, stored) in blocks {
        if let Some(Record::Block(block)) = &stored.record {
            *lines.entry(block.text.value.clone()).or_insert(0) += 1;
        }
    }
    lines
}
