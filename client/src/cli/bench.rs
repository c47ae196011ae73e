//! `zyflow bench`: durable operations per second, and how long each takes.
//!
//! One operation is a `task set` of a note of the given size on one of 10,000 tasks, by a numbered request in a session, over
//! mutual TLS; it counts once its outcome is here. Each client has one outstanding batch of `--batch` operations (1 unless
//! said otherwise) and its own session; clients share connections. The run ends when every node's SQLite has the last
//! operation, and the rate counts until then: a backlog that is merely put off wins nothing. With `--read` an operation is
//! a query of one task instead. With `--sync` it is a save of a file instead, until all other checkouts have it: see `sync`. With `--reads`
//! it measures queries and lists, of now and of the past, against each other: see `reads`.

mod caches;
mod load;
mod reads;
mod sync;
mod tasks;

use super::context::Context;
use super::report::{Failure, Output, Report};
use crate::client::Client;
use crate::code::Code;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use load::{Load, Tally};
use serde_json::json;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zyflow_machine::id::Revision;

/// Longest that a run waits for the SQLite of all nodes: more than the largest backlog that a node lets arise.
const FLUSH_DEADLINE: Duration = Duration::from_mins(2);

/// Pause between two looks at what the nodes have flushed; part of the measured time, so it is short.
const FLUSH_POLL: Duration = Duration::from_millis(2);

/// Most clients: sessions are limited, and a single thread drives them.
const CLIENTS_MAX: u16 = 4096;

/// Largest note that the machine takes, in bytes.
const SIZE_MAX: u32 = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// How many clients propose at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u16,
    /// How long they propose.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Bytes of a note.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=i64::from(SIZE_MAX)))]
    size: u32,
    /// Operations that one client has outstanding.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    batch: u16,
    /// Measure reads of this consistency instead.
    #[arg(long, value_enum)]
    read: Option<ReadArg>,
    /// Connections that the clients share.
    #[arg(long, default_value_t = NonZeroUsize::MIN.saturating_add(3))]
    conns: NonZeroUsize,
    #[command(flatten)]
    sync: sync::SyncArgs,
    #[command(flatten)]
    reads: reads::ReadsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReadArg {
    /// What the asked node has applied.
    Local,
    /// Everything acknowledged before.
    Linearizable,
}

pub(super) async fn run(context: &Context, args: BenchArgs) -> Result<Report, Failure> {
    if args.sync.sync {
        return Box::pin(sync::run(&args.sync, Duration::from_secs(args.seconds))).await;
    }
    if args.reads.reads {
        return Box::pin(reads::run(&args.reads, Duration::from_secs(args.seconds))).await;
    }
    let client = Client::with_connections(&context.profile()?, args.conns)?;
    // Learns where the leader is: the clients go there, unless --node says otherwise.
    client.node_statuses(context.within()).await;
    if let Some(node) = context.node()? {
        client.prefer(node)?;
    }
    let tasks = Arc::new(tasks::prepare(tasks::OF_WRITES, &client, context.within()).await?.tasks);
    let begin = Instant::now();
    let load = Load {
        client: client.clone(),
        tasks,
        size: usize::try_from(args.size).map_err(|_| Failure::new(Code::Usage, "--size is too large here"))?,
        batch: usize::from(args.batch),
        end: begin + Duration::from_secs(args.seconds),
        within: context.within(),
        consistency: args.read.map(|read| match read {
            ReadArg::Local => crate::read::Consistency::Local,
            ReadArg::Linearizable => crate::read::Consistency::Linearizable,
        }),
    };
    let tally = load::run(&Arc::new(load), usize::from(args.clients)).await?;
    if args.read.is_none() {
        flushed(&client, tally.newest, context.within()).await?;
    }
    Ok(report(&args, &tally, begin.elapsed()))
}

/// Until every node's SQLite has `revision`.
async fn flushed(client: &Client, revision: Revision, within: Duration) -> Result<(), Failure> {
    let end = Instant::now() + FLUSH_DEADLINE;
    let mut node = 0;
    while node < client.endpoints().len() {
        let status = client.node_status(node, within).await?;
        if status.flushed >= revision.0 {
            node += 1;
        } else if Instant::now() >= end {
            let message = format!(
                "node {} has {} of {revision} in SQLite after {FLUSH_DEADLINE:?}: see `zyflow doctor`",
                status.node_id, status.flushed
            );
            return Err(Failure::new(Code::Timeout, message));
        } else {
            sleep(FLUSH_POLL).await;
        }
    }
    Ok(())
}

fn report(args: &BenchArgs, tally: &Tally, elapsed: Duration) -> Report {
    let operations = u32::try_from(tally.micros.len()).unwrap_or(u32::MAX);
    let rate = f64::from(operations) / elapsed.as_secs_f64();
    let micros: &Histogram<u64> = &tally.micros;
    let item = json!({
        "clients": args.clients,
        "size_bytes": args.size,
        "batch": args.batch,
        "conns": args.conns.get().min(usize::from(args.clients)),
        "read": args.read.and_then(|read| read.to_possible_value()).map(|value| value.get_name().to_owned()),
        "ops": operations,
        "seconds": (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        "ops_per_second": rate.round(),
        "p50_us": micros.value_at_quantile(0.5),
        "p99_us": micros.value_at_quantile(0.99),
        "max_us": micros.max(),
        "errors": tally.errors,
    });
    let failure = (operations == 0).then(|| {
        let message = format!("no operation was done, {} failed; the last: {}", tally.errors, tally.last_error);
        Failure::new(tally.last_code.unwrap_or(Code::Timeout), message)
    });
    Report { output: Output::One { item, revision: None }, failure }
}
