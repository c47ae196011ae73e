//! What it costs to join a large cluster, on real processes: seconds and memory, by the log and by a snapshot, and to start with that
//! much.
//!
//! `cargo run -p zyflow-tests --example join -- [TASKS]` (1,000,000): three nodes hold so many tasks, each made by an event of its own;
//! node 4 joins while the log still has all of them. Then tasks are changed until the log is cut, and node 5 joins by a snapshot, is stopped
//! in order and killed, and started again each time. `./x bench --join` does this with a release build.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use zyflow_client::read::{Consistency, Read};
use zyflow_client::{Client, Profile, Session};
use zyflow_machine::command::{Body, NewBlock, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::outcome::Outcome;
use zyflow_tests::Harness;
use zyflow_tests::spare::Spare;

/// Tasks of one change: a file of 400 KB.
const TASKS_PER_CHANGE: usize = 10_000;

/// Longest wait for one step.
const WITHIN: Duration = Duration::from_mins(20);

/// Writers that make the log grow.
const WRITERS: usize = 16;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tasks: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let harness = Harness::start(3).await?;
    let client = harness.cluster.client().clone();
    let since = Instant::now();
    let made = fill(&client, tasks).await?;
    say("three nodes hold it", since);
    println!("  tasks {tasks}, events {}", tasks + tasks.div_ceil(TASKS_PER_CHANGE));
    settle(&harness).await?;
    for id in 1..=3 {
        tell(&format!("node {id}"), harness.cluster.pid(id).context("it runs")?)?;
    }

    let since = Instant::now();
    let by_log = join(&harness, 4).await?;
    say("node 4 joined by the log", since);
    tell("node 4", by_log.pid())?;

    let since = Instant::now();
    let changed = cut_log(&harness, &client, &made).await?;
    say("the log was cut", since);
    println!("  tasks changed {changed}");
    let since = Instant::now();
    let mut by_snapshot = join(&harness, 5).await?;
    say("node 5 joined by a snapshot", since);
    let said = zyflow_tests::text(&by_snapshot.log);
    ensure!(said.contains("installed a snapshot"), "node 5 got no snapshot");
    tell("node 5", by_snapshot.pid())?;

    by_snapshot.terminate()?;
    let since = Instant::now();
    by_snapshot.start_again(&harness)?;
    ready(&harness, &by_snapshot, "local").await?;
    say("node 5 started after it was stopped in order", since);
    tell("node 5", by_snapshot.pid())?;
    by_snapshot.kill()?;
    let since = Instant::now();
    by_snapshot.start_again(&harness)?;
    ready(&harness, &by_snapshot, "local").await?;
    say("node 5 started after it was killed", since);
    settle(&harness).await?;
    // The same past, on a node that joined by a snapshot, and one digest on all five.
    let early = ["--at", "10", "-o", "json", "change", "list"];
    let alone = by_snapshot.profile(&harness)?;
    let (there, here) = (zyflow_tests::zyflow(Some(&alone), &early)?, harness.zyflow(&early)?);
    ensure!(there.code == 0 && there.out == here.out, "another past: {there:?} {here:?}");
    let everybody = everybody(&harness, &[&by_log, &by_snapshot])?;
    let verified = zyflow_tests::zyflow(Some(&everybody), &["--timeout", "10m", "verify"])?;
    println!("{}", verified.out.trim_end());
    ensure!(verified.code == 0, "{verified:?}");
    Ok(())
}

/// A profile of the three and of those that joined.
fn everybody(harness: &Harness, joined: &[&Spare]) -> anyhow::Result<PathBuf> {
    let mut profile = Profile::load(&harness.cluster.layout().profile())?;
    profile.endpoints.extend(joined.iter().map(|spare| spare.api.clone()));
    let path = harness.folder().join("everybody.toml");
    std::fs::write(&path, toml::to_string(&profile)?)?;
    Ok(path)
}

fn say(what: &str, since: Instant) {
    println!("{what}: {:.1} s", since.elapsed().as_secs_f64());
}

/// Resident memory of a process, now and at most, and the bytes of its tables.
fn tell(name: &str, pid: u32) -> anyhow::Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = |key: &str| -> anyhow::Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context("the kernel tells it")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    };
    println!("  {name}: resident {} MiB, at most {} MiB", line("VmRSS:")?, line("VmHWM:")?);
    Ok(())
}

/// Changes of many tasks each.
async fn fill(client: &Client, tasks: usize) -> anyhow::Result<Vec<RecordId>> {
    let session = Session::new(client.clone(), "filler".to_owned(), 0);
    let created = accepted(&session, Body::CreateProject { name: "million".to_owned(), files: Vec::new() }).await?;
    let mut made = Vec::with_capacity(tasks);
    while made.len() < tasks {
        let count = TASKS_PER_CHANGE.min(tasks - made.len());
        let block = |number: usize| NewBlock {
            kind: 2,
            lead: "- [".to_owned(),
            mark: " ".to_owned(),
            text: format!("] {number} what somebody has to do\n"),
        };
        let blocks = (0..count).map(|at| block(made.len() + at)).collect();
        let path = format!("{:04}/tasks.md", made.len() / TASKS_PER_CHANGE);
        let body = Body::CreateChange { project: created[0], path, blocks, ops: Vec::new() };
        made.extend(accepted(&session, body).await?.into_iter().skip(1));
    }
    Ok(made)
}

async fn accepted(session: &Session, body: Body) -> anyhow::Result<Vec<RecordId>> {
    match session.propose(body, WITHIN).await? {
        Outcome::Accepted { created, .. } => Ok(created),
        other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
            anyhow::bail!("not accepted: {other:?}")
        }
    }
}

/// Starts a node and makes it a learner that has everything; `zyflow cluster add` waits for that.
async fn join(harness: &Harness, id: u64) -> anyhow::Result<Spare> {
    let spare = Spare::start(harness, id)?;
    let number = id.to_string();
    let said = harness.zyflow(&["--timeout", "20m", "cluster", "add", &number, &spare.peer, "--api", &spare.api])?;
    ensure!(said.code == 0, "{said:?}");
    // What has arrived isn't applied yet: the node itself must answer for all that was acknowledged.
    ready(harness, &spare, "linearizable").await?;
    Ok(spare)
}

/// Changes tasks until the leader's log doesn't begin at the beginning any more.
async fn cut_log(harness: &Harness, client: &Client, tasks: &[RecordId]) -> anyhow::Result<usize> {
    let mut changed = 0;
    for round in tasks.chunks(WRITERS * 100).cycle() {
        let shares = round.chunks(round.len().div_ceil(WRITERS));
        let writers: Vec<_> = shares
            .enumerate()
            .map(|(slot, share)| {
                let (session, share) = (Session::new(client.clone(), "changer".to_owned(), slot), share.to_vec());
                tokio::spawn(async move {
                    for task in share {
                        let fields = vec![TaskField::Note("changed".repeat(30))];
                        accepted(&session, Body::SetTask { task, expected: None, fields, mark: None }).await?;
                        let fields = vec![TaskField::Note(String::new())];
                        accepted(&session, Body::SetTask { task, expected: None, fields, mark: None }).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        changed += 2 * round.len();
        // The log is cut up to a snapshot, but for its newest part.
        let has_built = |id| zyflow_tests::text(&harness.cluster.layout().log(id)).contains("built a snapshot");
        if (1..=3).all(has_built) {
            break;
        }
    }
    let read = Read { consistency: Consistency::Linearizable, at: None, within: WITHIN };
    client.revision(read).await?;
    Ok(changed)
}

fn members(harness: &Harness) -> anyhow::Result<Vec<Value>> {
    let said = harness.zyflow(&["-o", "json", "cluster", "status"])?;
    ensure!(said.code == 0, "{said:?}");
    Ok(serde_json::from_str(&said.out)?)
}

/// Waits until no node is behind.
async fn settle(harness: &Harness) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        let lags: Vec<Option<u64>> = members(harness)?.iter().map(|member| member["lag"].as_u64()).collect();
        if lags.iter().all(|lag| *lag == Some(0)) {
            return Ok(());
        }
        ensure!(since.elapsed() < WITHIN, "nodes stay behind: {lags:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the node itself answers, as fresh as that.
async fn ready(harness: &Harness, spare: &Spare, consistency: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    let profile = spare.profile(harness)?;
    loop {
        let said = zyflow_tests::zyflow(Some(Path::new(&profile)), &["--consistency", consistency, "project", "list"])?;
        if said.code == 0 {
            return Ok(());
        }
        ensure!(since.elapsed() < WITHIN, "it doesn't serve: {said:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
