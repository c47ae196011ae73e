//! What a rollback costs: seconds until it is decided (the node answers then) and until SQLite has it, and memory.
//!
//! N tasks in changes of a given size; every one gets a note, or every change is deleted; then all of it goes back, and forward again. "cold" =
//! the tables were opened anew, so nothing is in memory.
//!
//! ```text
//! cargo run --release -p zyflow-storage --example rollback_cost -- [tasks] [folder]
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::watch;
use zeroize::Zeroizing;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::{Author, Batch, Body, Command, NewBlock, Scope, TaskField};
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::KIND_TASK;
use zyflow_storage::tables::{Entry, EntryPayload, Position, Tables, TablesConfig};

/// As in the node: rows are allocated on one thread and freed on another, which glibc's allocator pays dearly for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINEAGE: Lineage = Lineage(*b"rollback cost it");
const COMMANDS_PER_ENTRY: usize = 1_024;

/// A log that is being made and applied.
struct Bench {
    config: TablesConfig,
    key: Arc<LocalKey>,
    tables: Tables,
    durable: watch::Receiver<Option<u64>>,
    index: u64,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let tasks: usize = arguments.next().map_or(Ok(100_000), |text| text.parse()).context("tasks")?;
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{tasks} tasks");
    println!(
        "{:>10}  {:<8} {:<5} {:>9} {:>9} {:>11} {:>11} {:>8}",
        "per change", "what", "", "back s", "in SQL s", "forward s", "in SQL s", "peak MB"
    );
    for per_change in [10_000, 100] {
        for is_deleted in [false, true] {
            for is_cold in [false, true] {
                let dir = tempfile::Builder::new().prefix("rollback-cost").tempdir_in(&root)?;
                measure(dir.path(), tasks, per_change, is_deleted, is_cold)?;
            }
        }
    }
    Ok(())
}

fn measure(dir: &Path, tasks: usize, per_change: usize, is_deleted: bool, is_cold: bool) -> anyhow::Result<()> {
    let ring = KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])));
    let key = Arc::new(LocalKey::create_or_load(&dir.join("node.key"), &ring)?);
    let config = TablesConfig { writer_nice: 0, ..TablesConfig::new(dir.join("tables"), LINEAGE) };
    let (_durable, durable) = watch::channel(Some(u64::MAX));
    let tables = Tables::open(config.clone(), Arc::clone(&key), durable.clone())?;
    let mut bench = Bench { config, key, tables, durable, index: 0 };
    let (changes, ids) = bench.fill(tasks, per_change)?;
    let point = Revision(bench.index);
    if is_deleted {
        for change in changes {
            bench.run(vec![Body::DeleteChange { change, base: Revision(bench.index) }])?;
        }
    } else {
        let note = |task: &RecordId| {
            let fields = vec![TaskField::Note("another thought".to_owned())];
            Body::SetTask { task: *task, expected: None, fields, mark: None }
        };
        for chunk in ids.chunks(COMMANDS_PER_ENTRY) {
            bench.run(chunk.iter().map(note).collect())?;
        }
    }
    bench.tables.flush()?;
    let forward = Revision(bench.index);
    if is_cold {
        bench.reopen()?;
    }
    let (back, back_written) = bench.roll_back(point)?;
    if is_cold {
        bench.reopen()?;
    }
    let (forth, forth_written) = bench.roll_back(forward)?;
    println!(
        "{per_change:>10}  {:<8} {:<5} {:>9.2} {:>9.2} {:>11.2} {:>11.2} {:>8}",
        if is_deleted { "deleted" } else { "noted" },
        if is_cold { "cold" } else { "" },
        back.as_secs_f64(),
        back_written.as_secs_f64(),
        forth.as_secs_f64(),
        forth_written.as_secs_f64(),
        peak_mb()?
    );
    bench.tables.shutdown()?;
    Ok(())
}

impl Bench {
    fn run(&mut self, bodies: Vec<Body>) -> anyhow::Result<Vec<Vec<RecordId>>> {
        self.index += 1;
        let position = Position { term: 1, leader: 1, index: self.index };
        let command = |body| Command { request: None, author: Author::default(), body };
        let commands = bodies.into_iter().map(command).collect();
        let payload = EntryPayload::Batch(Batch { stamped: ClusterTime(self.index), commands });
        let outcomes = self.tables.apply(Entry { position, payload })?;
        outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Accepted { created, .. } => Ok(created),
                other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
                    bail!("not accepted: {other:?}")
                }
            })
            .collect()
    }

    fn create(&mut self, body: Body) -> anyhow::Result<Vec<RecordId>> {
        Ok(self.run(vec![body])?.concat())
    }

    /// A project with changes of `per_change` tasks each: the changes and the tasks.
    fn fill(&mut self, tasks: usize, per_change: usize) -> anyhow::Result<(Vec<RecordId>, Vec<RecordId>)> {
        let project = self.create(Body::CreateProject { name: "p".to_owned(), files: Vec::new() })?[0];
        let (mut changes, mut ids) = (Vec::new(), Vec::new());
        for number in 0..tasks.div_ceil(per_change) {
            let block = |at| NewBlock {
                kind: KIND_TASK,
                lead: "- [".to_owned(),
                mark: " ".to_owned(),
                text: format!("] {number}.{at} something that somebody has to do one day\n"),
            };
            let blocks = (0..per_change).map(block).collect();
            let path = format!("changes/{number}/tasks.md");
            let created = self.create(Body::CreateChange { project, path, blocks, ops: Vec::new() })?;
            changes.push(created[0]);
            ids.extend_from_slice(&created[1..]);
        }
        Ok((changes, ids))
    }

    /// Closes the tables and opens them, so that nothing of them is in memory.
    fn reopen(&mut self) -> anyhow::Result<()> {
        self.tables.shutdown()?;
        self.tables = Tables::open(self.config.clone(), Arc::clone(&self.key), self.durable.clone())?;
        Ok(())
    }

    /// How long it took until it was decided, and until it was written after that.
    fn roll_back(&mut self, to: Revision) -> anyhow::Result<(Duration, Duration)> {
        let start = Instant::now();
        let created = self.create(Body::Rollback { scope: Scope::All, to, expected: None })?;
        let decided = start.elapsed();
        if created.len() != 1 {
            bail!("nothing was to be done");
        }
        let start = Instant::now();
        self.tables.flush()?;
        Ok((decided, start.elapsed()))
    }
}

/// The most memory that this process ever had, in megabytes.
fn peak_mb() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}
