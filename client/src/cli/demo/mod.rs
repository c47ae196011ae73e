//! `zyflow demo`: a cluster of three nodes with five checkouts, either to play with or led through a script.
//!
//! ```text
//!   mod      arguments, start and stop          editors  who edits at once, and when    account  what became of each token
//!   script   the steps, and how to add one      habits   what an editor does to a text   command  the real command line
//!   steps    steps about files                  file     one tasks.md in one checkout    load     writers that never stop
//!   decisions  claims, conflicts, consistency
//!   failover steps about nodes                  latency  edits one after the other       frame    a line per step, waiting
//! ```
//! Every step checks what it did; the first that fails ends the script with exit code 1, and the folder is kept so that one can
//! look.

mod account;
mod command;
mod decisions;
mod editors;
mod failover;
mod file;
mod frame;
mod habits;
mod latency;
mod load;
mod random;
mod rollback;
mod script;
mod steps;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::args::duration;
use super::context::Context;
use super::dev::{self, Signals};
use super::report::{Failure, Output, Report};
use crate::code::Code;
use crate::dev::{DevCluster, DevConfig};
use frame::Frame;
use script::Demo;

/// The file that most steps edit.
const CHANGE: &str = "openspec/changes/add-login/tasks.md";

/// The file on which edits are measured: another, so that the editors' file doesn't begin with hundreds of lines.
const MEASURED: &str = "tasks.md";

/// Checkouts besides the one of each node: two nodes have two, as a machine with two work trees does.
const CHECKOUTS_BESIDE: u64 = 2;

/// One step may wait this long for what it awaits.
const WITHIN: Duration = Duration::from_secs(30);

/// All is in agreement this soon after the last edit. Ten editors make more work than a development build does at once on two cores.
const QUIET_WITHIN: Duration = Duration::from_mins(1);

/// The p99 of an edit from disk to disk that the script demands; what it aims at is a tenth. It runs a development build beside
/// whatever else the machine does.
const EDIT_P99_MAX: Duration = Duration::from_secs(1);

/// What `zyflow demo` is told.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Lead the cluster through a script, a line per step, and stop: exit code 0 or 1.
    #[arg(long)]
    once: bool,
    /// Where everything is kept [default: a new temporary folder with --once, else zyflow-dev].
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: u64,
    /// Edits that are measured one after the other.
    #[arg(long, value_name = "N", default_value_t = 500)]
    edits: u32,
    /// How long ten editors edit at once.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    editors: Duration,
}

/// Runs the demo.
pub(super) async fn run(context: &Context, args: DemoArgs) -> Result<Report, Failure> {
    let began = Instant::now();
    let checkouts = args.nodes.saturating_add(CHECKOUTS_BESIDE);
    if !args.once {
        let dir = args.dir.unwrap_or_else(|| PathBuf::from("zyflow-dev"));
        return dev::run(context, dev::DevArgs { nodes: Some(args.nodes), checkouts: Some(checkouts), dir }).await;
    }
    // From here on a signal ends the script in order, whatever it is doing.
    let mut signals = Signals::new()?;
    let temporary = tempfile::Builder::new().prefix("zyflow-demo-").tempdir();
    let temporary = temporary.map_err(|error| Failure::new(Code::File, format!("no temporary folder: {error}")))?;
    // Where the folder is temporary, it is kept if a step fails, so that one can look.
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().join("dev"));
    let config = DevConfig { dir: dir.clone(), nodes: Some(args.nodes), zyflowd: None };
    let cluster = tokio::select! {
        started = dev::start(config, Some(checkouts)) => started?,
        () = signals.any() => return Err(Failure::new(Code::Dev, "stopped before the cluster was up")),
    };
    let length = Length { edits: args.edits, editors: args.editors };
    match Box::pin(once(cluster, began, length, std::io::stdout(), signals)).await {
        Ok(()) => Ok(Output::Nothing.into()),
        Err(error) => {
            let kept = if args.dir.is_none() { temporary.keep().join("dev") } else { dir };
            Err(Failure::new(Code::Dev, format!("{error:#}; the cluster's folder is kept: {}", kept.display())))
        }
    }
}

/// How long the script is.
#[derive(Clone, Copy, Debug)]
struct Length {
    /// Edits that are measured one after the other.
    edits: u32,
    /// How long ten editors edit at once.
    editors: Duration,
}

/// Leads the cluster through the script, or as far as a signal lets it, and stops it.
///
/// # Errors
/// The step that failed, or that a signal came.
async fn once(
    cluster: DevCluster,
    began: Instant,
    length: Length,
    out: impl Write,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let mut frame = Frame::new(out, began);
    let mut demo = Demo::new(cluster)?;
    let nodes = demo.cluster.client().endpoints().len();
    let started = format!("{nodes} nodes with mutual TLS, a leader, {} checkouts", demo.checkouts.len());
    frame.done("start", began, Ok(started))?;
    let result = tokio::select! {
        led = demo.lead(&mut frame, length) => led,
        () = signals.any() => Err(anyhow::anyhow!("stopped by a signal")),
    };
    let stopping = Instant::now();
    let stopped = demo.cluster.stop().await;
    result?;
    let ended = stopped.map(|()| "every node ended by itself".to_owned());
    frame.done("stop", stopping, ended.map_err(Into::into))?;
    frame.end()
}
