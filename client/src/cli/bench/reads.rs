//! `zyflow bench --reads`: what reads cost, as ratios measured in one run against each other.
//!
//! ```text
//!   10,000 tasks in ten changes, listed ─▶ the revision P ─▶ some thousand edits, in SQLite everywhere
//!     one task, local            │ one task, linearizable          both asked of one follower, by 16 clients at once
//!     all tasks, now             │ all tasks, at P                 in turn, by one client
//!                                │   for the first time: once on each node;   again: on the follower
//!   all started anew: the first list of all is one of now on one node, one of the past on another
//! ```
//! It starts a cluster of its own on this machine, whose nodes keep no answers (`[cache]`): each is made anew. A list is one query whose
//! answer has all 10,000 tasks; its time ends when the answer is decoded here. Ratios of lists are times (2 = takes twice as long as the current one), so that what both share, the wire and the
//! decoding, is in them as it is for whoever asks.

use super::caches;
use super::flushed;
use super::load::Numbers;
use super::tasks::{self, Prepared};
use crate::cli::report::{Failure, Output, Report, accepted};
use crate::client::Client;
use crate::code::Code;
use crate::dev::{DevCluster, DevConfig};
use crate::profile::Profile;
use crate::read::{Consistency, Read};
use crate::session::Session;
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use zyflow_api::v1::{self, query_request, query_response};
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{RecordId, Revision};

/// Clients that ask for one task at once.
const POINT_CLIENTS: usize = 16;

/// Sessions that make the later edits.
const EDITORS: usize = 32;

/// How long one call may take.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// Current lists before the first one of the past, so that whatever warms up has done so.
const WARM_UPS: usize = 3;

/// What `--reads` is told.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReadsArgs {
    /// Measure queries and lists instead, of now and of the past, in a cluster of its own.
    #[arg(long, conflicts_with_all = ["clients", "size", "batch", "read", "conns", "sync"])]
    pub(super) reads: bool,
    /// With --reads: edits between the past that is read and now.
    #[arg(long, requires = "reads", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    edits: u32,
    /// With --reads: measure where caches of answers help instead, without any, in memory, and with a Redis where one is named.
    #[arg(long, requires = "reads")]
    caches: bool,
    /// With --caches: the Redis that the nodes share, redis://HOST:PORT.
    #[arg(long, requires = "caches", value_name = "ADDRESS")]
    redis: Option<String>,
}

/// Starts a cluster, measures and stops it.
pub(super) async fn run(args: &ReadsArgs, span: Duration) -> Result<Report, Failure> {
    let failed = |error| Failure::new(Code::File, format!("a temporary folder: {error}"));
    let temporary = tempfile::Builder::new().prefix("zyflow-bench-").tempdir().map_err(failed)?;
    let dir = temporary.path().join("dev");
    let mut cluster = DevCluster::start(DevConfig { dir, nodes: None, zyflowd: None }).await?;
    let measured = if args.caches {
        caches::measure(&mut cluster, args.redis.as_deref(), args.edits, span).await
    } else {
        measure(&mut cluster, args, span).await
    };
    cluster.stop().await?;
    let item = measured?;
    Ok(Output::One { item, revision: None }.into())
}

async fn measure(cluster: &mut DevCluster, args: &ReadsArgs, span: Duration) -> Result<Value, Failure> {
    let all = cluster.client().clone();
    let prepared = tasks::prepare(tasks::OF_READS, &all, WITHIN).await?;
    let plain = caches::read_configurations(cluster)?;
    caches::restart(cluster, &plain, caches::NO_CACHE).await?;
    let (follower, clients) = nodes(cluster).await?;
    for node in &clients {
        list(node, &prepared, None).await?;
    }
    let past = edit(&all, &prepared.tasks, args.edits).await?;
    let (first, ratio) = firsts(&clients, &prepared, past).await?;
    let (mut now, mut then) = (Vec::new(), Vec::new());
    let end = Instant::now() + span;
    while Instant::now() < end {
        now.push(list(&follower, &prepared, None).await?);
        then.push(list(&follower, &prepared, Some(past)).await?);
    }
    let (now, then) = (median(&mut now).as_secs_f64(), median(&mut then).as_secs_f64());
    let local = points(&follower, &prepared, Consistency::Local, span).await?;
    let linearizable = points(&follower, &prepared, Consistency::Linearizable, span).await?;
    caches::restart(cluster, &plain, caches::NO_CACHE).await?;
    let (_, clients) = nodes(cluster).await?;
    let cold = list(&clients[0], &prepared, Some(past)).await?;
    let cold_now = list(&clients[1], &prepared, None).await?;
    Ok(json!({
        "reads": true,
        "tasks": prepared.tasks.len(),
        "edits": args.edits,
        "seconds": span.as_secs(),
        "points_per_second_local": local.round(),
        "points_per_second_linearizable": linearizable.round(),
        "linearizable_rate_over_local": rounded(linearizable / local),
        "lists_per_second_now": rounded(1.0 / now),
        "lists_per_second_past": rounded(1.0 / then),
        "first_past_list_ms": rounded(first.as_secs_f64() * 1_000.0),
        "past_time_over_now_first": rounded(ratio),
        "past_time_over_now_again": rounded(then / now),
        "first_past_list_after_a_start_ms": rounded(cold.as_secs_f64() * 1_000.0),
        "past_time_over_now_first_of_all_after_a_start": rounded(cold.as_secs_f64() / cold_now.as_secs_f64()),
    }))
}

/// The first list of the past on each node: the median of the times, and of the ratios to current ones there.
async fn firsts(nodes: &[Client], prepared: &Prepared, past: Revision) -> Result<(Duration, f64), Failure> {
    let (mut first, mut ratios) = (Vec::new(), Vec::new());
    for node in nodes {
        let mut now = Vec::new();
        for _ in 0..WARM_UPS {
            now.push(list(node, prepared, None).await?);
        }
        let took = list(node, prepared, Some(past)).await?;
        first.push(took);
        ratios.push(took.as_secs_f64() / median(&mut now).as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    Ok((median(&mut first), ratios[ratios.len() / 2]))
}

/// A client of a follower alone, and one of each node alone.
pub(super) async fn nodes(cluster: &mut DevCluster) -> Result<(Client, Vec<Client>), Failure> {
    let leader = cluster.wait_for_leader().await?;
    let (mut follower, mut nodes) = (None, Vec::new());
    for id in cluster.layout().node_ids() {
        let profile = Profile::load(&cluster.layout().profile_of(id)).map_err(crate::ClientError::from)?;
        let client = Client::new(&profile)?;
        if id != leader {
            follower = Some(client.clone());
        }
        nodes.push(client);
    }
    let follower = follower.ok_or_else(|| Failure::new(Code::Dev, "the cluster has no follower"))?;
    Ok((follower, nodes))
}

/// Three digits are more than a run is true to.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Edits random tasks, until all of it is in every node's SQLite; gives the revision before the first of them.
pub(super) async fn edit(client: &Client, tasks: &[RecordId], edits: u32) -> Result<Revision, Failure> {
    let read = Read { consistency: Consistency::Linearizable, at: None, within: WITHIN };
    let before = client.revision(read).await?;
    let editors = (0..EDITORS).map(|editor| async move {
        let session = Session::new(client.clone(), "zyflow bench", editor);
        let mut numbers = Numbers::new(editor);
        let mut newest = before;
        let share = (usize::try_from(edits).unwrap_or(usize::MAX) + editor) / EDITORS;
        for _ in 0..share {
            let task = tasks[numbers.below(tasks.len())];
            let fields = vec![TaskField::Assignee(Some(format!("agent-{}", numbers.below(100))))];
            let body = Body::SetTask { task, expected: None, fields, mark: None };
            newest = newest.max(accepted(session.propose(body, WITHIN).await?, "a task of the benchmark")?.0);
        }
        Ok::<Revision, Failure>(newest)
    });
    let newest = try_join_all(editors).await?.into_iter().max().unwrap_or(before);
    flushed(client, newest, WITHIN).await?;
    Ok(before)
}

/// How long one list takes.
pub(super) async fn list(client: &Client, prepared: &Prepared, at: Option<Revision>) -> Result<Duration, Failure> {
    let filter = v1::TaskFilter { project: Some(prepared.project.to_u64()), ..v1::TaskFilter::default() };
    let request = v1::QueryRequest {
        consistency: Some(Consistency::Local.into()),
        at: at.map(|revision| revision.0),
        moment: None,
        query: Some(query_request::Query::Tasks(query_request::Tasks { filter: Some(filter) })),
    };
    let began = Instant::now();
    let response = client.query(request, WITHIN).await?;
    let took = began.elapsed();
    let listed = match response.answer {
        Some(query_response::Answer::Tasks(list)) => list.tasks.len(),
        _ => 0,
    };
    if listed != prepared.tasks.len() {
        let message = format!("a list has {listed} of {} tasks", prepared.tasks.len());
        return Err(Failure::new(Code::Protocol, message));
    }
    Ok(took)
}

/// Queries of one task in a second.
pub(super) async fn points(
    client: &Client,
    prepared: &Prepared,
    consistency: Consistency,
    span: Duration,
) -> Result<f64, Failure> {
    let read = Read { consistency, at: None, within: WITHIN };
    let began = Instant::now();
    let asking = (0..POINT_CLIENTS).map(|number| async move {
        let mut numbers = Numbers::new(number);
        let mut count = 0_u32;
        while began.elapsed() < span {
            client.task(read, prepared.tasks[numbers.below(prepared.tasks.len())]).await?;
            count += 1;
        }
        Ok::<u32, Failure>(count)
    });
    let count: u32 = try_join_all(asking).await?.into_iter().sum();
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_times_are_below_the_median() {
        let mut times: Vec<Duration> = [9, 1, 5, 100, 3].map(Duration::from_millis).to_vec();
        assert_eq!(median(&mut times), Duration::from_millis(5));
        assert_eq!(median(&mut []), Duration::ZERO);
    }

    #[test]
    fn ratios_have_three_digits() {
        assert_eq!(rounded(1.0 / 3.0).to_string(), "0.333");
    }
}
