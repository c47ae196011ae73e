//! `zyflow replay`: does a range of the past again on a node, beside the state, and says whether it comes out the same.

use super::args::moment;
use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve;
use super::task_view::time;
use crate::code::Code;
use crate::moment::Moment;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use zyflow_api::v1::{ReplayMode, ReplayRequest, ReplayResult, ReplayStrategy};
use zyflow_machine::id::{ClusterTime, EventId, RecordId};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The state that it begins with: a revision, a time or a rollback point [default: before everything].
    #[arg(long, value_name = "REV|TIME|POINT", value_parser = moment, conflicts_with = "list")]
    from: Option<Moment>,
    /// The state that must come of it [default: the newest].
    #[arg(long, value_name = "REV|TIME|POINT", value_parser = moment, conflicts_with = "list")]
    to: Option<Moment>,
    /// What is compared.
    #[arg(long, value_enum, default_value_t = ModeArg::Safe)]
    mode: ModeArg,
    /// In which order [default: sequential; selective with --project, --change or --task].
    #[arg(long, value_enum)]
    strategy: Option<StrategyArg>,
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only of this change.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
    /// Only about this task.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Show what came of the newest replays of the node.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// Only count events.
    DryRun,
    /// Compare every version; stop at the first that differs.
    Safe,
    /// Compare the records at the end.
    Fast,
    /// Compare every version; tell each that differs, and how many events of each type there were.
    Verbose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StrategyArg {
    /// One event after the other.
    Sequential,
    /// Projects beside each other.
    Parallel,
    /// Only a project, a change or a task.
    Selective,
}

impl From<ModeArg> for ReplayMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::DryRun => Self::DryRun,
            ModeArg::Safe => Self::Safe,
            ModeArg::Fast => Self::Fast,
            ModeArg::Verbose => Self::Verbose,
        }
    }
}

impl From<StrategyArg> for ReplayStrategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Sequential => Self::Sequential,
            StrategyArg::Parallel => Self::Parallel,
            StrategyArg::Selective => Self::Selective,
        }
    }
}

pub(super) async fn run(context: &Context, args: ReplayArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    if args.list {
        let items = client.replays(context.within()).await?.iter().map(shown).collect();
        let columns =
            &["at", "from", "to", "mode", "strategy", "events", "records", "differences", "took_ms", "is_same"];
        return Ok(Output::List { columns, items, revision: None }.into());
    }
    let request = request(context, &client, args).await?;
    let is_watched = std::io::stderr().is_terminal();
    let result = client.replay(request, context.within(), |revision, events| {
        if is_watched {
            // Progress is a courtesy: a closed stderr doesn't stop the replay.
            let _ = write!(std::io::stderr(), "\r{events} events, at revision {revision} ");
        }
    });
    let result = result.await?;
    if is_watched {
        let _ = writeln!(std::io::stderr());
    }
    let failure = (result.difference_count > 0 || result.replayed != result.stored).then(|| {
        let message = format!(
            "{} of {} records differ between the replayed events and the stored state: compare the nodes with `zyflow verify`",
            result.difference_count, result.records
        );
        Failure::new(Code::Differs, message)
    });
    Ok(Report { output: Output::One { item: shown(&result), revision: None }, failure })
}

async fn request(context: &Context, client: &crate::Client, args: ReplayArgs) -> Result<ReplayRequest, Failure> {
    let named = args.project.as_deref();
    let project = match named {
        Some(name) => Some(resolve::project(client, context.read(), name).await?.value.id),
        None => None,
    };
    let change = match &args.change {
        Some(change) => Some(resolve::change(client, context.read(), named, change).await?.id),
        None => None,
    };
    let task = match &args.task {
        Some(task) => Some(resolve::task(client, context.read(), named, task).await?),
        None => None,
    };
    let is_narrow = project.or(change).or(task).is_some();
    let usual = if is_narrow { StrategyArg::Selective } else { StrategyArg::Sequential };
    Ok(ReplayRequest {
        after: args.from.map(Into::into),
        until: args.to.map(Into::into),
        mode: ReplayMode::from(args.mode).into(),
        strategy: ReplayStrategy::from(args.strategy.unwrap_or(usual)).into(),
        project: project.map(RecordId::to_u64),
        change: change.map(RecordId::to_u64),
        task: task.map(RecordId::to_u64),
    })
}

fn shown(result: &ReplayResult) -> Value {
    let hex = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| super::render::hex(bytes));
    let differing = result.differences.iter().map(|difference| {
        json!({
            "record": RecordId::from_u64(difference.record).to_string(),
            "event": difference.event.map(|event| EventId::from_u64(event).to_string()),
            "what": difference.what,
        })
    });
    json!({
        "at": time(ClusterTime(result.at_ms)),
        "from": result.from,
        "to": result.to,
        "mode": name(result.mode().as_str_name(), "REPLAY_MODE_"),
        "strategy": name(result.strategy().as_str_name(), "REPLAY_STRATEGY_"),
        "events": result.events,
        "records": result.records,
        "types": result.types.iter().map(|(name, count)| (name.clone(), (*count).into())).collect::<serde_json::Map<_, _>>(),
        "replayed": hex(&result.replayed),
        "stored": hex(&result.stored),
        "is_same": result.difference_count == 0 && result.replayed == result.stored,
        "differences": result.difference_count,
        "differing": differing.collect::<Vec<_>>(),
        "took_ms": result.took_ms,
    })
}

/// `REPLAY_MODE_DRY_RUN` is `dry-run`.
fn name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', "-")
}
