//! `zyflow dev`: a cluster on this machine, until Ctrl-C.

use super::context::Context;
use super::report::{Failure, Output, Report};
use crate::code::Code;
use crate::dev::{CHECKOUTS_MAX, DevCluster, DevConfig, DevError, DevLayout};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::interval;

/// How often the processes are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// How many nodes [default: 3, or as many as the folder has].
    #[arg(long, value_name = "N")]
    pub(super) nodes: Option<u64>,
    /// How many checkouts, over all nodes [default: one per node, or as many as the folder has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=CHECKOUTS_MAX))]
    pub(super) checkouts: Option<u64>,
    /// Where everything is kept; a folder made by an earlier start is started again.
    #[arg(long, value_name = "D", default_value = "zyflow-dev")]
    pub(super) dir: PathBuf,
}

pub(super) async fn run(_context: &Context, args: DevArgs) -> Result<Report, Failure> {
    // From here on a signal ends the command in order, whatever it is doing.
    let mut signals = Signals::new()?;
    let config = DevConfig { dir: args.dir, nodes: args.nodes, zyflowd: None };
    say("starting; Ctrl-C stops it")?;
    let mut cluster = tokio::select! {
        started = start(config, args.checkouts) => started?,
        () = signals.any() => return Err(Failure::new(Code::Dev, "stopped before the cluster was up")),
    };
    describe(&cluster)?;
    let ended = watch(&mut cluster, &mut signals).await?;
    say("stopping")?;
    cluster.stop().await?;
    say("stopped")?;
    match ended {
        None => Ok(Output::Nothing.into()),
        Some(message) => Err(Failure::new(Code::Dev, message)),
    }
}

pub(super) async fn start(config: DevConfig, checkouts: Option<u64>) -> Result<DevCluster, DevError> {
    let mut cluster = DevCluster::start(config).await?;
    if let Some(checkouts) = checkouts {
        cluster.ensure_checkouts(checkouts).await?;
    }
    Ok(cluster)
}

/// Until a signal comes, or no node is left. A node that ends alone is told: killing one is what a demonstration does.
async fn watch(cluster: &mut DevCluster, signals: &mut Signals) -> Result<Option<String>, Failure> {
    let mut ticks = interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            () = signals.any() => return Ok(None),
            _ = ticks.tick() => {
                while let Some((id, status)) = cluster.ended() {
                    say(&ended(cluster.layout(), id, status))?;
                }
                if cluster.layout().node_ids().all(|id| cluster.pid(id).is_none()) {
                    return Ok(Some("no node runs any more: the logs in the folder say why".to_owned()));
                }
            }
        }
    }
}

fn ended(layout: &DevLayout, id: u64, status: ExitStatus) -> String {
    format!(
        "node {id} ended ({status}); its log is {}, and a new `zyflow dev` starts it again",
        layout.log(id).display()
    )
}

/// What ends a command in order.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Code::Dev, format!("signals can't be received: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate()).map_err(failed)? })
    }

    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn describe(cluster: &DevCluster) -> Result<(), Failure> {
    let layout = cluster.layout();
    for id in layout.node_ids() {
        let ports = layout.ports(id).ok_or_else(|| Failure::new(Code::Dev, format!("node {id} has no ports")))?;
        let pid = cluster.pid(id).map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        say(&format!(
            "node {id}  pid {pid}  api 127.0.0.1:{}  metrics http://127.0.0.1:{}/metrics  checkout {}  log {}",
            ports.api,
            ports.http,
            layout.checkout(id).display(),
            layout.log(id).display()
        ))?;
    }
    let beside = layout.checkout_numbers().filter(|number| !layout.node_ids().contains(number));
    for number in beside {
        say(&format!("node {}  checkout {} too", layout.node_of(number), layout.checkout(number).display()))?;
    }
    say(&format!("ready: export ZYFLOW_PROFILE={}", layout.profile().display()))
}

/// One line for whoever watches. Not the command's result: it runs for hours, so each line is out at once.
fn say(line: &str) -> Result<(), Failure> {
    let written = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
    written.map_err(|error| Failure::new(Code::File, format!("stdout can't be written: {error}")))
}
