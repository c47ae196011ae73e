//! Watchers under the kill nemesis: nodes are killed and started again while writers write, and what each watcher was told
//! must be exactly what happened: nothing lost, nothing twice, in order.
//!
//! One watcher follows everything for the whole time, one follows a single task, and one stops after every few events and begins anew, at
//! another node, from the revision that was complete. At the end every node is asked for the same stretch of history by itself.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use tokio::sync::watch;
use tokio::time::timeout;
use zyflow_client::dev::{DevCluster, DevConfig};
use zyflow_client::moment::Moment;
use zyflow_client::watch::{Begin, News, Watch, WatchEvent, WatchFilter};
use zyflow_client::{Client, Session};
use zyflow_machine::id::{EventId, RecordId, Revision};

use crate::kill::{self, Plan, WITHIN, Written};

/// Events after which the restless watcher begins anew.
const RESTLESS_AFTER: usize = 40;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Events that the first watcher was told.
    pub events: u64,
    /// Acknowledged writes, each of which is among them.
    pub writes: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Times that the restless watcher began anew.
    pub begun_anew: u64,
}

/// An event, as far as it is compared.
type Told = (EventId, RecordId, &'static str);

/// Runs the plan and checks what the watchers were told.
///
/// # Errors
/// An event that was lost, repeated or out of order; nodes that tell different histories; a cluster that doesn't come back.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let config = DevConfig { dir: plan.dir.clone(), nodes: Some(3), zyflowd: plan.zyflowd.clone() };
    let mut cluster = DevCluster::start(config).await?;
    let client = cluster.client().clone();
    let tasks = kill::tasks(&client, plan.writers).await?;
    let start = Revision(client.revision(kill::linearizable()).await?.0 + 1);
    let (target, until) = watch::channel(None);
    let of_task = WatchFilter { task: tasks.first().copied(), ..WatchFilter::default() };
    let steady = tokio::spawn(follow(client.clone(), WatchFilter::default(), start, until.clone()));
    let narrow = tokio::spawn(follow(client.clone(), of_task.clone(), start, until.clone()));
    let restless = tokio::spawn(begin_anew(client.clone(), start, until));

    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> = (0..)
        .zip(&tasks)
        .map(|(slot, task)| {
            let session = Session::new(client.clone(), format!("writer-{slot}"), slot);
            tokio::spawn(kill::write(session, *task, stopped.clone()))
        })
        .collect();
    let kills = kill::torment(&mut cluster, &plan).await?;
    stop.send_replace(true);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await??);
    }
    let end = client.revision(kill::linearizable()).await?;
    target.send_replace(Some(end));
    let seed = || format!("seed {}", plan.seed);
    let told = timeout(WITHIN, steady).await.context("a watcher that never got to the end")???;
    let of_one = timeout(WITHIN, narrow).await.context("a watcher of a task that never got to the end")???;
    let (pieces, begun_anew) = timeout(WITHIN, restless).await.context("a restless watcher that got lost")???;
    let happened = histories(&client, start, end).await.with_context(seed)?;
    compare("the watcher of everything", &told, &happened).with_context(seed)?;
    compare("the watcher that began anew", &pieces, &happened).with_context(seed)?;
    let narrowed = history(&client, of_task, start, end).await?;
    ensure!(!narrowed.is_empty(), "nothing happened to the watched task");
    compare("the watcher of one task", &of_one, &narrowed).with_context(seed)?;
    let acked = acknowledged(&written, &told).with_context(seed)?;
    cluster.stop().await?;
    Ok(Report { events: u64::try_from(told.len())?, writes: acked, kills, begun_anew })
}

/// Follows until the target is known and reached.
async fn follow(
    client: Client,
    filter: WatchFilter,
    start: Revision,
    mut until: watch::Receiver<Option<Revision>>,
) -> anyhow::Result<Vec<Told>> {
    let mut watch = client.watch(filter, Begin::From(start), None, Some(WITHIN));
    let mut told = Vec::new();
    while !is_reached(&watch, &mut until) {
        // Where nothing happens any more, a watch says nothing new: the end may be known later than all events.
        tokio::select! {
            taken = take(&mut watch, &mut told) => {
                taken?;
            }
            changed = until.changed() => changed?,
        }
    }
    Ok(told)
}

/// As [`follow`], with a new watch every now and then.
async fn begin_anew(
    client: Client,
    start: Revision,
    mut until: watch::Receiver<Option<Revision>>,
) -> anyhow::Result<(Vec<Told>, u64)> {
    let (mut told, mut from, mut begun) = (Vec::new(), start, 0);
    loop {
        // Every watch begins at the node that is asked first, which others of this client move about.
        client.prefer(usize::try_from(begun % 3)?)?;
        let mut watch = client.watch(WatchFilter::default(), Begin::From(from), None, Some(WITHIN));
        let enough = told.len() + RESTLESS_AFTER;
        let mut has_more = false;
        while told.len() < enough || has_more {
            if is_reached(&watch, &mut until) {
                return Ok((told, begun));
            }
            tokio::select! {
                taken = take(&mut watch, &mut told) => has_more = taken?,
                changed = until.changed() => changed?,
            }
        }
        from = Revision(watch.complete().context("a watch that told events knows where it stands")?.0 + 1);
        begun += 1;
    }
}

fn is_reached(watch: &Watch, until: &mut watch::Receiver<Option<Revision>>) -> bool {
    until.borrow_and_update().is_some_and(|until| watch.complete().is_some_and(|complete| complete >= until))
}

/// Takes one piece of news; whether more of the same revision follows.
async fn take(watch: &mut Watch, told: &mut Vec<Told>) -> anyhow::Result<bool> {
    match watch.next().await? {
        Some(News::Events { events, has_more, .. }) => {
            told.extend(events.iter().map(seen));
            Ok(has_more)
        }
        Some(News::Bookmark(_)) => Ok(false),
        None => anyhow::bail!("a watch without an end has ended"),
    }
}

fn seen(event: &WatchEvent) -> Told {
    (event.id, event.record, event.fact.name())
}

/// What happened from `start` to `end`, as every node tells it by itself.
async fn histories(client: &Client, start: Revision, end: Revision) -> anyhow::Result<Vec<Told>> {
    let mut all = Vec::new();
    for node in 0..client.endpoints().len() {
        client.prefer(node)?;
        all.push(history(client, WatchFilter::default(), start, end).await?);
    }
    ensure!(all.windows(2).all(|pair| pair[0] == pair[1]), "the nodes tell different histories");
    all.pop().context("a cluster has nodes")
}

async fn history(client: &Client, filter: WatchFilter, start: Revision, end: Revision) -> anyhow::Result<Vec<Told>> {
    let until = Some(Moment::Revision(end));
    let mut watch = client.watch(filter, Begin::From(start), until, Some(WITHIN));
    let mut told = Vec::new();
    while let Some(news) = watch.next().await? {
        if let News::Events { events, .. } = news {
            told.extend(events.iter().map(seen));
        }
    }
    Ok(told)
}

/// A watcher may have been told more than the stretch that is compared: it ends where it learns that it may.
fn compare(who: &str, told: &[Told], happened: &[Told]) -> anyhow::Result<()> {
    if let Some(pair) = told.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        anyhow::bail!("{who} was told {} after {}", pair[1].0, pair[0].0);
    }
    let last = happened.last().map(|event| event.0);
    let known: BTreeSet<&Told> = told.iter().collect();
    let missed: Vec<_> = happened.iter().filter(|event| !known.contains(event)).collect();
    ensure!(
        missed.is_empty(),
        "{who} missed {} of {} events, the first is {:?}",
        missed.len(),
        happened.len(),
        missed[0]
    );
    let real: BTreeSet<&Told> = happened.iter().collect();
    let made_up = told.iter().find(|event| Some(event.0) <= last && !real.contains(event));
    ensure!(made_up.is_none(), "{who} was told what never happened: {made_up:?}");
    Ok(())
}

/// Every acknowledged write was told, at its revision.
fn acknowledged(written: &[Written], told: &[Told]) -> anyhow::Result<u64> {
    let sets: BTreeSet<(RecordId, Revision)> =
        told.iter().filter(|event| event.2 == "task-set").map(|event| (event.1, event.0.revision())).collect();
    let mut count = 0;
    for writer in written {
        for (number, revision) in &writer.acknowledged {
            ensure!(sets.contains(&(writer.task, *revision)), "write {number} of {} wasn't told", writer.task);
            count += 1;
        }
    }
    Ok(count)
}
