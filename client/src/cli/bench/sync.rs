//! `zyflow bench --sync`: how long an edit takes from the save in one checkout to the bytes on disk in all others.
//!
//! ```text
//!   edit in memory ─▶ write beside ─▶ rename over │ here the clock starts
//!                                                 ▼
//!                           stat of the file in every other checkout, once a millisecond
//!                                                 │ another inode, size or time: read it, compare every byte
//!                                                 ▼
//!                                  the last one holds them: here it stops
//! ```
//! It starts a cluster of its own: the nodes on this machine, the checkouts spread over them, all of one project, the same files in each.
//! Edits are made one at a time at a steady rate, in a random file of a random checkout: a box ticked, a line reworded or a task added. One
//! that is due while the last is still on its way waits for it, and is counted as late; its own time starts with its own save. Looking costs
//! a few per cent of a core. The first edit of each checkout is not counted, since it opens the session of that checkout.

use super::load::Numbers;
use crate::cli::report::{Failure, Output, Report};
use crate::code::Code;
use crate::dev::{CHECKOUTS_MAX, DevCluster, DevConfig};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Pause between two looks at the files that are awaited; a figure is at most this and the runtime's millisecond too long.
const POLL: Duration = Duration::from_millis(1);

/// Pause between two looks while the first files go round.
const SPREAD_POLL: Duration = Duration::from_millis(50);

/// The first files are everywhere within this: a thousand of them, each written durably.
const SPREAD_WITHIN: Duration = Duration::from_mins(5);

/// An edit that isn't everywhere after this is an error, and ends the run.
const EDIT_WITHIN: Duration = Duration::from_secs(30);

/// Tasks of a file at first: a common size among real ones.
const TASKS: usize = 40;

/// Tasks under one heading.
const TASKS_PER_HEADING: usize = 8;

/// Most files of one checkout.
const FILES_MAX: u16 = 999;

/// What `--sync` is told.
#[derive(Debug, Args)]
pub(in crate::cli) struct SyncArgs {
    /// Measure saves instead, from disk to disk, in a cluster of its own.
    #[arg(long, conflicts_with_all = ["clients", "size", "batch", "read", "conns"])]
    pub(super) sync: bool,
    /// With --sync: how many checkouts, spread over three nodes.
    #[arg(long, requires = "sync", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=CHECKOUTS_MAX))]
    checkouts: u64,
    /// With --sync: files in each checkout.
    #[arg(long, requires = "sync", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=i64::from(FILES_MAX)))]
    files: u16,
    /// With --sync: edits a second, one at a time.
    #[arg(long, requires = "sync", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rate: u16,
    /// With --sync: where the cluster is kept [default: a temporary folder, removed afterwards].
    #[arg(long, requires = "sync", value_name = "D")]
    dir: Option<PathBuf>,
}

/// Starts a cluster, measures and stops it.
pub(super) async fn run(args: &SyncArgs, span: Duration) -> Result<Report, Failure> {
    let temporary =
        tempfile::Builder::new().prefix("zyflow-bench-").tempdir().map_err(file_failure("a temporary folder"))?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().join("dev"));
    let mut cluster = DevCluster::start(DevConfig { dir, nodes: None, zyflowd: None }).await?;
    let measured = measure(&mut cluster, args, span).await;
    cluster.stop().await?;
    measured
}

async fn measure(cluster: &mut DevCluster, args: &SyncArgs, span: Duration) -> Result<Report, Failure> {
    let mut field = Field::new(cluster, args);
    field.plant()?;
    cluster.ensure_checkouts(args.checkouts).await?;
    field.wait_until_spread().await?;
    for checkout in 0..field.roots.len() {
        field.edit_and_wait(checkout).await?;
    }
    let mut all = histogram();
    let mut first = histogram();
    let mut late = 0_u32;
    let mut ticks = interval(Duration::from_secs(1) / u32::from(args.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + span;
    while Instant::now() < end {
        let before = Instant::now();
        let due = ticks.tick().await;
        late += u32::from(due < before && !all.is_empty());
        let checkout = field.numbers.below(field.roots.len());
        let took = field.edit_and_wait(checkout).await?;
        first.saturating_record(micros(took.first));
        all.saturating_record(micros(took.all));
    }
    let item = json!({
        "sync": true,
        "nodes": cluster.client().endpoints().len(),
        "checkouts": args.checkouts,
        "files": args.files,
        "rate": args.rate,
        "seconds": span.as_secs(),
        "edits": all.len(),
        "late": late,
        "p50_us": all.value_at_quantile(0.5),
        "p99_us": all.value_at_quantile(0.99),
        "max_us": all.max(),
        "first_p50_us": first.value_at_quantile(0.5),
        "first_p99_us": first.value_at_quantile(0.99),
        "errors": 0,
    });
    Ok(Output::One { item, revision: None }.into())
}

/// Longest time that is told apart: ten minutes, longer than any measurement waits.
const MICROS_MAX: u64 = 600_000_000;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3)
        .expect("invariant: the bounds are in order and three digits are possible")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn file_failure(what: &str) -> impl FnOnce(std::io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::new(Code::File, format!("{what}: {error}"))
}

/// All files of all checkouts, and what is done with them.
struct Field {
    roots: Vec<PathBuf>,
    files: Vec<PathBuf>,
    numbers: Numbers,
    edits: u64,
}

/// How long one edit took.
struct Took {
    /// Until the first other checkout had it.
    first: Duration,
    /// Until the last one had.
    all: Duration,
}

impl Field {
    fn new(cluster: &DevCluster, args: &SyncArgs) -> Self {
        let root = |number| cluster.layout().checkout(number);
        Self {
            roots: (1..=args.checkouts).map(root).collect(),
            files: (1..=args.files).map(|number| PathBuf::from(format!("specs/{number:03}-bench/tasks.md"))).collect(),
            numbers: Numbers::new(0),
            edits: 0,
        }
    }

    /// Makes the files in the first checkout.
    fn plant(&self) -> Result<(), Failure> {
        for (number, file) in self.files.iter().enumerate() {
            let path = self.roots[0].join(file);
            if path.exists() {
                continue;
            }
            let folder = path.parent().unwrap_or(&self.roots[0]);
            std::fs::create_dir_all(folder).map_err(file_failure("a folder of the benchmark"))?;
            save(&path, &first_text(number + 1))?;
        }
        Ok(())
    }

    async fn wait_until_spread(&self) -> Result<(), Failure> {
        let end = Instant::now() + SPREAD_WITHIN;
        for file in &self.files {
            let wanted = read(&self.roots[0].join(file))?;
            for root in &self.roots {
                while read(&root.join(file))? != wanted {
                    if Instant::now() > end {
                        let message = format!("{} isn't in {} after {SPREAD_WITHIN:?}", file.display(), root.display());
                        return Err(Failure::new(Code::Timeout, message));
                    }
                    sleep(SPREAD_POLL).await;
                }
            }
        }
        Ok(())
    }

    /// Saves one edit of a random file in a checkout, and waits until every other checkout has those bytes.
    async fn edit_and_wait(&mut self, checkout: usize) -> Result<Took, Failure> {
        let file = self.files[self.numbers.below(self.files.len())].clone();
        let here = self.roots[checkout].join(&file);
        let text = String::from_utf8_lossy(&read(&here)?).into_owned();
        let edited = self.edited(&text);
        let others = self.roots.iter().enumerate().filter(|(other, _)| *other != checkout);
        let mut awaited: Vec<Awaited> = others.map(|(_, root)| Awaited::new(root.join(&file))).collect();
        save(&here, &edited)?;
        let saved = Instant::now();
        let mut first = None;
        loop {
            let mut left = Vec::with_capacity(awaited.len());
            for mut other in awaited {
                if other.has(edited.as_bytes())? {
                    first.get_or_insert_with(|| saved.elapsed());
                } else {
                    left.push(other);
                }
            }
            let all = saved.elapsed();
            awaited = left;
            if awaited.is_empty() {
                return Ok(Took { first: first.unwrap_or(all), all });
            }
            if all > EDIT_WITHIN {
                let paths: Vec<String> = awaited.iter().map(|other| other.path.display().to_string()).collect();
                let message =
                    format!("an edit saved in {} isn't in {} after {EDIT_WITHIN:?}", here.display(), paths.join(", "));
                return Err(Failure::new(Code::Timeout, message));
            }
            sleep(POLL).await;
        }
    }

    /// A tick, a word more or a new task, in turn, at a random place.
    fn edited(&mut self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tasks: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("- [")).collect();
        self.edits += 1;
        let Some(at) = tasks.get(self.numbers.below(tasks.len())).copied() else { return text.to_owned() };
        let line = lines[at].clone();
        match self.edits % 3 {
            0 => lines.insert(at + 1, format!("- [ ] added by edit {}", self.edits)),
            1 if line.contains("[ ]") => lines[at] = line.replacen("[ ]", "[x]", 1),
            1 => lines[at] = line.replacen("[x]", "[ ]", 1),
            _ => {
                let words = line.split(" (edit ").next().unwrap_or(&line);
                lines[at] = format!("{words} (edit {})", self.edits);
            }
        }
        lines.join("\n") + "\n"
    }
}

/// A file that should soon hold an edit.
struct Awaited {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What changes when a file is replaced or written.
type Stamp = (u64, u64, i64, i64);

impl Awaited {
    fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// Whether it holds these bytes. Reads them only where the file isn't the one that was read before.
    fn has(&mut self, wanted: &[u8]) -> Result<bool, Failure> {
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| stamp(&metadata));
        if stamp.is_none() || stamp == self.seen {
            return Ok(false);
        }
        self.seen = stamp;
        Ok(read(&self.path)? == wanted)
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

/// What a file holds; nothing where it isn't there (yet).
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(file_failure(&path.display().to_string())(error)),
    }
}

/// Saves as most editors do: a new file beside it, then a rename over it.
fn save(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("md.editor-tmp");
    let saved = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    saved.map_err(file_failure(&path.display().to_string()))
}

fn first_text(number: usize) -> String {
    let line = |task: usize| {
        let (heading, nth) = (task / TASKS_PER_HEADING + 1, task % TASKS_PER_HEADING + 1);
        let over = if nth == 1 { format!("\n## {heading}. Part {heading}\n\n") } else { String::new() };
        format!("{over}- [ ] {heading}.{nth} Change module {task} so that request {nth} is answered in order\n")
    };
    let lines: String = (0..TASKS).map(line).collect();
    format!("# Tasks {number}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field() -> Field {
        Field { roots: Vec::new(), files: Vec::new(), numbers: Numbers::new(0), edits: 0 }
    }

    #[test]
    fn every_edit_changes_one_line() {
        let mut field = field();
        let mut text = first_text(1);
        assert_eq!(text.matches("- [ ]").count(), TASKS);
        for _ in 0..300 {
            let edited = field.edited(&text);
            let changed = edited.lines().filter(|line| !text.lines().any(|old| old == *line)).count();
            let grew = edited.lines().count() - text.lines().count();
            assert!(edited != text && changed <= 1 && grew <= 1, "{changed} {grew}");
            text = edited;
        }
    }

    #[test]
    fn a_file_is_read_when_it_is_another_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.md");
        let mut awaited = Awaited::new(path.clone());
        assert!(!awaited.has(b"new\n").unwrap());
        save(&path, "old\n").unwrap();
        assert!(!awaited.has(b"new\n").unwrap());
        let seen = awaited.seen;
        assert!(seen.is_some() && !awaited.has(b"new\n").unwrap() && awaited.seen == seen);
        save(&path, "new\n").unwrap();
        assert!(awaited.has(b"new\n").unwrap());
    }

    #[test]
    fn times_are_told_apart() {
        let mut times = histogram();
        for micros in [1_000, 20_000, 20_000, 90_000] {
            times.saturating_record(micros);
        }
        assert_eq!((times.value_at_quantile(0.5) / 100, times.max() / 1_000), (200, 90));
    }
}
