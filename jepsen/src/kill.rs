//! The first nemesis: SIGKILL. Writers set numbered notes through sessions while nodes are killed and started again; afterwards
//! nothing that was acknowledged may be missing, no number may have gone back, and all nodes must have one digest.
//!
//! Each writer owns a task and writes 1, 2, 3, ... to it, one at a time. The revisions of its acknowledgements must grow, its task's history
//! must hold every acknowledged number exactly once and in order, and the last state must be the last number or one whose answer was lost.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::watch;
use zyflow_client::dev::{DevCluster, DevConfig};
use zyflow_client::read::{Consistency, Read, TaskFilter};
use zyflow_client::{Client, Session};
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::event::Fact;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;

/// A write or a read that takes longer has failed: no fault here lasts that long.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// A cluster that needs so much more than the span for the kills doesn't come back after them.
const LATE_MAX: Duration = Duration::from_mins(3);

/// Between two kills: an election, a catch-up and some work.
const BETWEEN_KILLS: Duration = Duration::from_millis(2_500);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long, at least.
    pub span: Duration,
    /// How many nodes are killed, at least: a slow machine takes more than the span for them.
    pub kills_min: u64,
    /// Writers, at most as many as the demo's files have tasks.
    pub writers: usize,
    /// Which node is killed when.
    pub seed: u64,
    /// The folder of the cluster; absent or empty.
    pub dir: PathBuf,
    /// The `zyflowd` to run; `None` = beside this program.
    pub zyflowd: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Acknowledged writes.
    pub writes: u64,
    /// Nodes killed.
    pub kills: u64,
    /// The longest time in which no writer was acknowledged.
    pub gap: Duration,
}

pub(crate) struct Written {
    pub(crate) task: RecordId,
    pub(crate) acknowledged: Vec<(u64, Revision)>,
    pub(crate) gap: Duration,
}

/// Runs the plan and checks the history.
///
/// # Errors
/// A violation, or a cluster that doesn't come back.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let config = DevConfig { dir: plan.dir.clone(), nodes: Some(3), zyflowd: plan.zyflowd.clone() };
    let mut cluster = DevCluster::start(config).await?;
    let client = cluster.client().clone();
    let tasks = tasks(&client, plan.writers).await?;
    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> = tasks
        .iter()
        .enumerate()
        .map(|(slot, task)| {
            let session = Session::new(client.clone(), format!("writer-{slot}"), slot);
            tokio::spawn(write(session, *task, stopped.clone()))
        })
        .collect();
    let kills = torment(&mut cluster, &plan).await?;
    stop.send_replace(true);
    let mut report = Report { writes: 0, kills, gap: Duration::ZERO };
    for writer in writers {
        let written = writer.await??;
        report.writes += u64::try_from(written.acknowledged.len())?;
        report.gap = report.gap.max(written.gap);
        check(&client, &written).await.with_context(|| format!("seed {}, task {}", plan.seed, written.task))?;
    }
    agree(&client).await.with_context(|| format!("seed {}", plan.seed))?;
    cluster.stop().await?;
    Ok(report)
}

pub(crate) fn linearizable() -> Read {
    Read { consistency: Consistency::Linearizable, at: None, within: WITHIN }
}

/// The first tasks of the cluster, as soon as its checkouts have brought them in.
pub(crate) async fn tasks(client: &Client, count: usize) -> anyhow::Result<Vec<RecordId>> {
    let since = Instant::now();
    loop {
        let found = client.tasks(linearizable(), TaskFilter::default()).await?.value.tasks;
        if found.len() >= count {
            return Ok(found.iter().take(count).map(|task| task.block.id).collect());
        }
        ensure!(since.elapsed() < WITHIN, "the cluster has {} tasks, {count} are needed", found.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills one node after another, never a second before the first is back: a majority is always there.
pub(crate) async fn torment(cluster: &mut DevCluster, plan: &Plan) -> anyhow::Result<u64> {
    let since = Instant::now();
    let mut state = plan.seed;
    let mut kills = 0;
    while since.elapsed() < plan.span || kills < plan.kills_min {
        ensure!(since.elapsed() < plan.span + LATE_MAX, "{kills} kills took {:?}", since.elapsed());
        tokio::time::sleep(BETWEEN_KILLS / 2).await;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Every other time the leader: that is where most can go wrong.
        let victim = if kills % 2 == 0 { cluster.wait_for_leader().await? } else { 1 + (state >> 33) % 3 };
        cluster.kill(victim).await?;
        kills += 1;
        tokio::time::sleep(BETWEEN_KILLS / 2).await;
        cluster.restart(victim).await?;
    }
    Ok(kills)
}

pub(crate) async fn write(session: Session, task: RecordId, stopped: watch::Receiver<bool>) -> anyhow::Result<Written> {
    let mut written = Written { task, acknowledged: Vec::new(), gap: Duration::ZERO };
    let mut last = Instant::now();
    let mut number = 0;
    while !*stopped.borrow() {
        number += 1;
        let fields = vec![TaskField::Note(number.to_string())];
        match session.propose(Body::SetTask { task, expected: None, fields, mark: None }, WITHIN).await? {
            Outcome::Accepted { revision, .. } => written.acknowledged.push((number, revision)),
            other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
                anyhow::bail!("write {number} was answered by {other:?}")
            }
        }
        written.gap = written.gap.max(last.elapsed());
        last = Instant::now();
    }
    Ok(written)
}

/// The task's history holds every acknowledged number exactly once, in order, at the revision that was told.
async fn check(client: &Client, written: &Written) -> anyhow::Result<()> {
    let history = client.history(linearizable(), written.task).await?.value;
    let mut numbers: Vec<(u64, Revision)> = Vec::new();
    for version in &history {
        if let Fact::TaskSet { fields, .. } = &version.fact {
            for field in fields {
                if let TaskField::Note(note) = field {
                    numbers.push((note.parse().context("a note that no writer wrote")?, version.version.revision()));
                }
            }
        }
    }
    ensure!(numbers.windows(2).all(|pair| pair[0].0 < pair[1].0), "a write was applied twice or out of order");
    let lost: Vec<_> = written.acknowledged.iter().filter(|write| !numbers.contains(write)).take(5).collect();
    ensure!(lost.is_empty(), "acknowledged, but not in the history: {lost:?}");
    Ok(())
}

/// All nodes have the same digest at one revision.
pub(crate) async fn agree(client: &Client) -> anyhow::Result<()> {
    use zyflow_api::v1::{VerifyRequest, admin_client::AdminClient};
    let revision = client.revision(linearizable()).await?.0;
    let mut answers = Vec::new();
    for node in 0..client.endpoints().len() {
        let request = VerifyRequest { revision: Some(revision), recompute: true };
        let verify = |mut admin: AdminClient<_>| async move { admin.verify(request).await };
        let answer = client.admin(node, WITHIN, verify).await?;
        ensure!(
            answer.stored.is_some_and(|stored| stored.matches),
            "node {}: SQLite and digest differ",
            answer.node_id
        );
        answers.push((answer.revision, answer.digest));
    }
    ensure!(answers.windows(2).all(|pair| pair[0] == pair[1]), "the nodes differ at revision {revision}");
    Ok(())
}
