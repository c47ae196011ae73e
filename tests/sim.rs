//! Seeded simulation of the consensus layer: real `zyflow-raft`, openraft, tonic services, machine and tables on simulated machines with
//! simulated time, network and log disks; clients; faults; and invariants that are looked at after every step.
//!
//! ```text
//!   cargo test -p zyflow-tests --test sim                      20 seeds, one that is repeated, four planted bugs
//!   ZYFLOW_SIM_SEED=17 cargo test -p zyflow-tests --test sim   that seed with its trace; add ZYFLOW_SIM_LOG=debug for logs,
//!                                                              ZYFLOW_SIM_PLANT=forget-requests for a planted bug
//! ```
//!
//! **One seed, one process.** Random numbers of libraries (election timeouts, `select!`, hash maps, sealing) come from thread and
//! process state. `mad-turmoil` answers `getrandom` from the seed, once per process, so nothing that ships needs a feature or a
//! parameter for it. It also makes the system's clocks stand still in this binary, simulated hosts have tokio's paused ones; so this
//! target has its own `main` and only starts processes of itself.
//!
//! Not here: snapshots (files and threads of their own, for which simulated time can't wait), TLS, `RocksDB`, power cuts that reach
//! SQLite. Tests with real ones are in their crates.

#[path = "sim/chaos.rs"]
mod chaos;
#[path = "sim/client.rs"]
mod client;
#[path = "sim/facts.rs"]
mod facts;
#[path = "sim/log.rs"]
mod log;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/run.rs"]
mod run;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};

/// Seeds that must hold.
const SEEDS: u64 = 20;
/// Seeds within which a planted bug must be caught.
const PLANT_SEEDS: u64 = 8;
/// What a process says by its exit code if it saw a violation.
const VIOLATED: u8 = 3;

/// What it says if anything panicked.
const PANICKED: i32 = 101;

const SEED: &str = "ZYFLOW_SIM_SEED";
const PLANT: &str = "ZYFLOW_SIM_PLANT";
const TRACE: &str = "ZYFLOW_SIM_TRACE";
const LOG: &str = "ZYFLOW_SIM_LOG";

/// A bug that the simulation must find. All of them are in the simulation's own parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The log confirms what it has not written yet. What only the model can know of this is not held against it.
    AckBeforeDurable,
    /// A crash takes the vote.
    ForgetVotes,
    /// The request ids of commands are lost.
    ForgetRequests,
    /// Linearizable reads are answered with what is there.
    LocalReads,
}

impl Plant {
    const ALL: [Self; 4] = [Self::AckBeforeDurable, Self::ForgetVotes, Self::ForgetRequests, Self::LocalReads];

    fn name(self) -> &'static str {
        match self {
            Self::AckBeforeDurable => "ack-before-durable",
            Self::ForgetVotes => "forget-votes",
            Self::ForgetRequests => "forget-requests",
            Self::LocalReads => "local-reads",
        }
    }
}

type Check = fn() -> anyhow::Result<()>;

fn main() -> ExitCode {
    if let Ok(seed) = std::env::var(SEED) {
        return one(&seed).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        });
    }
    let checks: [(&str, Check); 3] = [
        ("sim::all_seeds_hold", all_seeds_hold),
        ("sim::a_seed_repeats_itself", a_seed_repeats_itself),
        ("sim::planted_bugs_are_caught", planted_bugs_are_caught),
    ];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str);
    let mut code = ExitCode::SUCCESS;
    for (name, check) in checks.into_iter().filter(|(name, _)| name.contains(filter)) {
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
            continue;
        }
        match check() {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                println!("test {name} ... FAILED\n{error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Runs one seed in this process.
fn one(seed: &str) -> anyhow::Result<ExitCode> {
    let seed = seed.parse().with_context(|| format!("{SEED}={seed} is no number"))?;
    let plant = match std::env::var(PLANT) {
        Ok(name) => Some(Plant::ALL.into_iter().find(|plant| plant.name() == name).context("no such planted bug")?),
        Err(_) => None,
    };
    if let Ok(filter) = std::env::var(LOG) {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    std::panic::set_hook(Box::new(|panic| {
        // Wherever it is, in a task of a node too: nothing may go on, and nothing may wait for a thread that is gone.
        eprintln!("{panic}\n{}", std::backtrace::Backtrace::capture());
        std::process::exit(PANICKED);
    }));
    let report = run::run(seed, plant)?;
    match std::env::var(TRACE) {
        Ok(file) => std::fs::write(file, &report.trace)?,
        Err(_) => print!("{}", report.trace),
    }
    println!("seed {seed}: {}", report.summary);
    let Some(violation) = report.violation else { return Ok(ExitCode::SUCCESS) };
    println!("violated: {}: {}", violation.invariant, violation.seen);
    Ok(ExitCode::from(VIOLATED))
}

/// Runs one seed in a process of its own.
fn spawn(seed: u64, plant: Option<Plant>, trace: &Path) -> anyhow::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(SEED, seed.to_string()).env(TRACE, trace).env_remove(LOG).env_remove(PLANT);
    if let Some(plant) = plant {
        command.env(PLANT, plant.name());
    }
    command.output().context("starting a process for a seed")
}

/// Does `work` for each of `items`, on all processors, and gives the results in order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((at, item)) =
                    usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|at| Some((at, items.get(at)?)))
                {
                    let result = work(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn all_seeds_hold() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let seeds: Vec<u64> = (1..=SEEDS).collect();
    let outputs = in_parallel(&seeds, |seed| spawn(*seed, None, &dir.path().join(seed.to_string())));
    let mut failed = Vec::new();
    for (seed, output) in seeds.iter().zip(outputs) {
        let output = output?;
        print!("  {}", text(&output));
        if !output.status.success() {
            failed.push(*seed);
        }
    }
    ensure!(
        failed.is_empty(),
        "seeds {failed:?} failed; to see one: {SEED}={} cargo test -p zyflow-tests --test sim",
        failed[0]
    );
    Ok(())
}

fn a_seed_repeats_itself() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let files: Vec<PathBuf> = ["first", "second"].iter().map(|name| dir.path().join(name)).collect();
    for output in in_parallel(&files, |file| spawn(1, None, file)) {
        let output = output?;
        ensure!(output.status.success(), "{}", text(&output));
    }
    let (first, second) = (std::fs::read_to_string(&files[0])?, std::fs::read_to_string(&files[1])?);
    ensure!(first.lines().count() > 1000, "a trace of {} lines says little", first.lines().count());
    let differs = first.lines().zip(second.lines()).find(|(first, second)| first != second);
    ensure!(first == second, "the same seed took two ways, first here: {differs:?}");
    Ok(())
}

fn planted_bugs_are_caught() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let caught = in_parallel(&Plant::ALL, |plant| {
        for seed in 1..=PLANT_SEEDS {
            let output = spawn(seed, Some(*plant), &dir.path().join(plant.name()))?;
            if output.status.code() == Some(VIOLATED.into()) {
                let text = text(&output);
                let violation = text.lines().find(|line| line.starts_with("violated")).unwrap_or_default();
                return Ok(format!("{} caught by seed {seed}: {violation}", plant.name()));
            }
            ensure!(output.status.success(), "{}", text(&output));
        }
        bail!("{} was not caught by any of {PLANT_SEEDS} seeds", plant.name())
    });
    for line in caught {
        println!("  {}", line?);
    }
    Ok(())
}
