//! `zyflow bench --reads --caches`: where answers that are kept help, and where they don't.
//!
//! ```text
//!   for each of: no cache | memory | memory and Redis        all nodes restarted, so that each begins with nothing
//!     lists of now, quiet      lists of now, while somebody writes      one task, by 16 clients
//!     a list of the past: first on one node, then first on another, then again
//! ```
//! Times are medians, in milliseconds, of one query whose answer has all 10,000 tasks, at one follower.

use super::reads::{WITHIN, edit, list, median, nodes, points, rounded};
use super::tasks::{self, Prepared};
use crate::cli::report::{Failure, accepted};
use crate::client::Client;
use crate::code::Code;
use crate::dev::DevCluster;
use crate::read::Consistency;
use crate::session::Session;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::Revision;

/// Writes a second beside the lists: so many that each list is of another revision than the one before.
const WRITES_PER_SECOND: u32 = 200;

/// Lists before the first one that counts.
const WARM_UPS: usize = 3;

/// The section of a node that keeps no answers.
pub(super) const NO_CACHE: &str = "[cache]\nenabled = false\n";

/// Measures all that there is.
pub(super) async fn measure(
    cluster: &mut DevCluster,
    redis: Option<&str>,
    edits: u32,
    span: Duration,
) -> Result<Value, Failure> {
    let all = cluster.client().clone();
    let prepared = tasks::prepare(tasks::OF_READS, &all, WITHIN).await?;
    let past = edit(&all, &prepared.tasks, edits).await?;
    let plain = read_configurations(cluster)?;
    let mut modes = vec![("none", NO_CACHE.to_owned()), ("memory", String::new())];
    if let Some(address) = redis {
        modes.push(("memory and redis", format!("[cache]\nredis = \"{address}\"\n")));
    }
    let mut figures = Vec::new();
    for (name, section) in modes {
        restart(cluster, &plain, &section).await?;
        figures.push(of_mode(cluster, &prepared, (name, past), span).await?);
    }
    Ok(
        json!({ "reads": true, "caches": figures, "tasks": prepared.tasks.len(), "edits": edits, "seconds": span.as_secs() }),
    )
}

async fn of_mode(
    cluster: &mut DevCluster,
    prepared: &Prepared,
    (name, past): (&str, Revision),
    span: Duration,
) -> Result<Value, Failure> {
    let all = cluster.client().clone();
    let (follower, nodes) = nodes(cluster).await?;
    for node in &nodes {
        for _ in 0..WARM_UPS {
            list(node, prepared, None).await?;
        }
    }
    let quiet = lists(&follower, prepared, None, span).await?;
    let writing = tokio::select! {
        listed = lists(&follower, prepared, None, span) => listed?,
        failed = write(&all, prepared) => return Err(failed),
    };
    let first = list(&nodes[0], prepared, Some(past)).await?;
    // What is kept is kept beside: a list that is no part of this gives it the time.
    list(&nodes[0], prepared, None).await?;
    let elsewhere = list(&nodes[1], prepared, Some(past)).await?;
    list(&follower, prepared, Some(past)).await?;
    let again = lists(&follower, prepared, Some(past), span).await?;
    let points = points(&follower, prepared, Consistency::Local, span).await?;
    let millis = |time: Duration| rounded(time.as_secs_f64() * 1_000.0);
    Ok(json!({
        "kept": name,
        "list_now_quiet_ms": millis(quiet),
        "list_now_under_writes_ms": millis(writing),
        "list_past_first_ms": millis(first),
        "list_past_first_elsewhere_ms": millis(elsewhere),
        "list_past_again_ms": millis(again),
        "points_per_second": points.round(),
    }))
}

/// The median of lists, one after the other.
async fn lists(
    client: &Client,
    prepared: &Prepared,
    at: Option<Revision>,
    span: Duration,
) -> Result<Duration, Failure> {
    let end = Instant::now() + span;
    let mut times = Vec::new();
    while Instant::now() < end {
        times.push(list(client, prepared, at).await?);
    }
    Ok(median(&mut times))
}

/// Writes steadily, until it fails.
async fn write(client: &Client, prepared: &Prepared) -> Failure {
    let session = Session::new(client.clone(), "zyflow bench", 0);
    let mut ticks = interval(Duration::from_secs(1) / WRITES_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (at, task) in prepared.tasks.iter().cycle().enumerate() {
        ticks.tick().await;
        let fields = vec![TaskField::Assignee(Some(format!("writer-{}", at % 1_000)))];
        let body = Body::SetTask { task: *task, expected: None, fields, mark: None };
        let written = match session.propose(body, WITHIN).await {
            Ok(outcome) => accepted(outcome, "a task of the benchmark"),
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = written {
            return failure;
        }
    }
    Failure::new(Code::Protocol, "there are no tasks to write to")
}

pub(super) fn read_configurations(cluster: &DevCluster) -> Result<Vec<(u64, String)>, Failure> {
    let read = |id| {
        let path = cluster.layout().config(id);
        let text = std::fs::read_to_string(&path);
        text.map(|text| (id, text)).map_err(|error| Failure::new(Code::File, format!("{}: {error}", path.display())))
    };
    cluster.layout().node_ids().map(read).collect()
}

/// Starts every node again with a section more in its configuration.
pub(super) async fn restart(cluster: &mut DevCluster, plain: &[(u64, String)], section: &str) -> Result<(), Failure> {
    for (id, text) in plain {
        cluster.stop_node(*id).await?;
        let path = cluster.layout().config(*id);
        let written = std::fs::write(&path, format!("{text}\n{section}"));
        written.map_err(|error| Failure::new(Code::File, format!("{}: {error}", path.display())))?;
        cluster.restart(*id).await?;
    }
    cluster.wait_for_leader().await?;
    Ok(())
}
