//! What the tables cost: microseconds an operation, decided (apply, overlay included) and written (SQLite, sealing included).
//!
//! One operation = `SetTask` of a note of 256 bytes on one of N tasks, in entries of 32 commands; 4,096 operations a transaction. Each
//! variant changes one thing of the layout or the setting, so that it has a price. CPU time is that of the thread that does the
//! work, wall time that of the caller who waits for it.
//!
//! ```text
//! cargo run --release -p zyflow-storage --example tables_cost -- [operations] [folder] [words in the variant's name]
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::Connection;
use tokio::sync::watch;
use zeroize::Zeroizing;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::{Author, Batch, Body, Command, NewBlock, TaskField};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::KIND_TASK;
use zyflow_storage::tables::{Entry, EntryPayload, Position, Synchronous, Tables, TablesConfig};

/// As in the node: rows are allocated on one thread and freed on another, which glibc's allocator pays dearly for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINEAGE: Lineage = Lineage(*b"tables cost test");
const NOTE_BYTES: usize = 256;
const COMMANDS_PER_ENTRY: usize = 32;
const OPS_PER_FLUSH: usize = 4096;
const TASKS_PER_CHANGE: usize = 100;
const SESSIONS: usize = 64;

/// What is different about a variant.
struct Variant {
    name: &'static str,
    synchronous: Synchronous,
    ops_per_flush: usize,
    /// Run on the empty database.
    prepare: &'static str,
    has_sessions: bool,
}

const BASE: Variant = Variant {
    name: "as it is (NORMAL, 4 KiB pages)",
    synchronous: Synchronous::Normal,
    ops_per_flush: OPS_PER_FLUSH,
    prepare: "",
    has_sessions: false,
};

const VARIANTS: [Variant; 9] = [
    BASE,
    Variant { name: "synchronous OFF", synchronous: Synchronous::Off, ..BASE },
    Variant { name: "with 64 sessions", has_sessions: true, ..BASE },
    Variant { name: "1,024 a transaction", ops_per_flush: 1024, ..BASE },
    Variant { name: "64 a transaction", ops_per_flush: 64, ..BASE },
    Variant { name: "without the place index", prepare: "DROP INDEX head_place", ..BASE },
    Variant {
        name: "plus an index (status) on head",
        prepare: "CREATE INDEX head_status ON head (status, version)",
        ..BASE
    },
    Variant {
        name: "plus an index (id, version) on versions",
        prepare: "CREATE INDEX versions_id ON versions (id, version)",
        ..BASE
    },
    Variant { name: "8 KiB pages", prepare: "PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM", ..BASE },
];

/// A log that is being made and applied.
struct Bench {
    tables: Tables,
    index: u64,
    sessions: Vec<SessionId>,
    seq: u64,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let operations: usize = arguments.next().map_or(Ok(100_000), |text| text.parse()).context("operations")?;
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let wanted = arguments.next().unwrap_or_default();
    println!("{operations} operations of {NOTE_BYTES} bytes; microseconds an operation");
    println!(
        "{:>7}  {:<40} {:>9} {:>9} {:>9} {:>9} {:>11} {:>10}",
        "tasks", "variant", "apply", "apply cpu", "write", "write cpu", "longest ms", "MB on disk"
    );
    for tasks in [10_000, 100_000] {
        for variant in VARIANTS.iter().filter(|variant| variant.name.contains(&wanted)) {
            let dir = tempfile::Builder::new().prefix("tables-cost").tempdir_in(&root)?;
            measure(dir.path(), tasks, operations, variant)?;
        }
    }
    Ok(())
}

fn measure(dir: &Path, tasks: usize, operations: usize, variant: &Variant) -> anyhow::Result<()> {
    let ring = KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])));
    let key = Arc::new(LocalKey::create_or_load(&dir.join("node.key"), &ring)?);
    let config = TablesConfig {
        synchronous: variant.synchronous,
        flush_interval: Duration::from_hours(1),
        flush_ops_max: usize::MAX,
        backlog_ops_max: usize::MAX,
        backlog_bytes_max: usize::MAX,
        writer_nice: 0,
        ..TablesConfig::new(dir.join("tables"), LINEAGE)
    };
    prepare(&config, &key, variant)?;
    let (_durable, watermark) = watch::channel(Some(u64::MAX));
    let tables = Tables::open(config, key, watermark)?;
    let mut bench = Bench { tables, index: 1, sessions: Vec::new(), seq: 0 };
    let ids = bench.fill(tasks)?;
    if variant.has_sessions {
        bench.open_sessions()?;
    }
    bench.tables.flush()?;
    bench.tables.checkpoint()?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let [mut apply, mut apply_cpu, mut write, mut write_cpu] = [Duration::ZERO; 4];
    let (mut done, mut longest) = (0, Duration::ZERO);
    while done < operations {
        let batches = bench.batches(&ids, variant.ops_per_flush, &mut random)?;
        let (wall, cpu) = (Instant::now(), cpu_time("self")?);
        for batch in batches {
            bench.apply(EntryPayload::Batch(batch))?;
        }
        apply += wall.elapsed();
        apply_cpu += cpu_time("self")?.saturating_sub(cpu);
        let (wall, cpu) = (Instant::now(), cpu_time("tables-writer")?);
        bench.tables.flush()?;
        longest = longest.max(wall.elapsed());
        write += wall.elapsed();
        write_cpu += cpu_time("tables-writer")?.saturating_sub(cpu);
        done += variant.ops_per_flush;
    }
    let count = u32::try_from(done)?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    println!(
        "{tasks:>7}  {:<40} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>11} {:>10}",
        variant.name,
        micros(apply),
        micros(apply_cpu),
        micros(write),
        micros(write_cpu),
        longest.as_millis(),
        disk_bytes(&dir.join("tables"))? >> 20,
    );
    bench.tables.shutdown()?;
    Ok(())
}

/// Changes the empty database as the variant wants it.
fn prepare(config: &TablesConfig, key: &Arc<LocalKey>, variant: &Variant) -> anyhow::Result<()> {
    if variant.prepare.is_empty() {
        return Ok(());
    }
    let (_durable, watermark) = watch::channel(None);
    Tables::open(config.clone(), Arc::clone(key), watermark)?.shutdown()?;
    let connection = Connection::open(config.dir.join("tables-000001.sqlite"))?;
    connection.execute_batch(variant.prepare).context(variant.name)
}

impl Bench {
    fn apply(&mut self, payload: EntryPayload) -> anyhow::Result<Vec<Outcome>> {
        let position = Position { term: 1, leader: 1, index: self.index };
        self.index += 1;
        Ok(self.tables.apply(Entry { position, payload })?)
    }

    fn run(&mut self, body: Body) -> anyhow::Result<Vec<RecordId>> {
        let outcomes =
            self.apply(EntryPayload::Batch(Batch { stamped: ClusterTime(1), commands: vec![command(None, body)] }))?;
        match outcomes.into_iter().next() {
            Some(Outcome::Accepted { created, .. }) => Ok(created),
            other => anyhow::bail!("not accepted: {other:?}"),
        }
    }

    fn fill(&mut self, tasks: usize) -> anyhow::Result<Vec<RecordId>> {
        let project = self.run(Body::CreateProject { name: "cost".to_owned(), files: Vec::new() })?;
        let project = *project.first().context("a project was made")?;
        let mut ids = Vec::with_capacity(tasks);
        for number in 0..tasks / TASKS_PER_CHANGE {
            let block = |at: usize| NewBlock {
                kind: KIND_TASK,
                lead: "- [".to_owned(),
                mark: " ".to_owned(),
                text: format!("] {number}.{at} A task as people write them, of some length\n"),
            };
            let blocks = (0..TASKS_PER_CHANGE).map(block).collect();
            let created =
                self.run(Body::CreateChange { project, path: format!("{number}/tasks.md"), blocks, ops: Vec::new() })?;
            ids.extend(created.into_iter().skip(1));
        }
        Ok(ids)
    }

    fn open_sessions(&mut self) -> anyhow::Result<()> {
        for _ in 0..SESSIONS {
            let created = self.run(Body::OpenSession)?;
            self.sessions.extend(created.into_iter().map(|id| SessionId(id.0)));
        }
        Ok(())
    }

    fn batches(&mut self, ids: &[RecordId], operations: usize, random: &mut u64) -> anyhow::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for _ in 0..operations / COMMANDS_PER_ENTRY {
            let mut commands = Vec::with_capacity(COMMANDS_PER_ENTRY);
            for _ in 0..COMMANDS_PER_ENTRY {
                let place = usize::try_from(next(random) >> 16)? % ids.len();
                let task = *ids.get(place).context("below the length")?;
                let text = format!("{:0>NOTE_BYTES$}", next(random));
                let body = Body::SetTask { task, expected: None, fields: vec![TaskField::Note(text)], mark: None };
                commands.push(command(self.request()?, body));
            }
            batches.push(Batch { stamped: ClusterTime(1), commands });
        }
        Ok(batches)
    }

    /// The sessions take turns.
    fn request(&mut self) -> anyhow::Result<Option<RequestId>> {
        if self.sessions.is_empty() {
            return Ok(None);
        }
        let turn = self.seq;
        self.seq += 1;
        let sessions = u64::try_from(self.sessions.len())?;
        let session = *self.sessions.get(usize::try_from(turn % sessions)?).context("below the length")?;
        Ok(Some(RequestId { session, seq: turn / sessions + 1 }))
    }
}

fn command(request: Option<RequestId>, body: Body) -> Command {
    Command { request, author: Author { name: "bench".to_owned(), clock_ms: 0 }, body }
}

/// Marsaglia 2003, xorshift: the same tasks in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Time on a processor of this thread (`self`) or of the thread of that name, by the kernel's account.
fn cpu_time(thread: &str) -> anyhow::Result<Duration> {
    let read = |path: &Path| -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(path.join("schedstat"))?;
        let nanoseconds = text.split(' ').next().context("a number stands first")?.parse()?;
        Ok(Duration::from_nanos(nanoseconds))
    };
    if thread == "self" {
        return read(Path::new("/proc/thread-self"));
    }
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim() == thread {
            return read(&path);
        }
    }
    anyhow::bail!("there is no thread named {thread}")
}

fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
