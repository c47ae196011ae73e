//! Doing the past again, beside the state: the events of a range, through the machine's own `evolve`, from the state at one
//! revision on, held against the stored versions on the way and against the state at another revision at the end.
//!
//! ```text
//!   view at `from` ──> scratch: only the records that events touch ──evolve──> versions ──?──> stored versions
//!                                                                 └──> at the end ──?──> view at `to`
//! ```
//!
//! Nothing is written but what came of it. Events of different projects never touch the same record, so projects may be
//! replayed beside each other; what belongs to no project (rollback points) counts as one of its own. A lane that didn't get all of its
//! events (in mode safe another lane found a difference, or nobody listens any more) holds nothing against the end: half a replay differs
//! from it everywhere.
//!
//! Memory: where something is compared, the newest version of each record that the range is about, opened; so it grows with the records and
//! not with the events, some 1 to 2 KiB a task: 1 to 2 GB for a million of them. A replay of a project, a change or a later part of the
//! past takes less; a dry run keeps their ids alone.

mod worker;

pub(crate) mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::{Deserialize, Serialize};
use zyflow_machine::Digest;
use zyflow_machine::id::Revision;
use zyflow_storage::tables::{Row, Tables, TablesError, TablesView};

use crate::services::watch::filter::{Filter, project_of};
use worker::Worker;

/// Rows read at once.
const ROWS_AT_ONCE: usize = 1_024;

/// Pages that wait for a worker: it never waits for the reader, and memory stays small.
const PAGES_WAITING_MAX: usize = 4;

/// Projects replayed beside each other, where there are so many processors.
const WORKERS_MAX: usize = 8;

/// Differences that are told; all are counted.
pub(crate) const DIFFERENCES_TOLD_MAX: usize = 100;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Nothing: events are counted.
    DryRun,
    /// Each version, until one differs.
    Safe,
    /// The records at the end.
    Fast,
    /// Each version.
    Verbose,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Strategy {
    /// One event after the other.
    Sequential,
    /// Projects beside each other.
    Parallel,
    /// Only the events that are asked for.
    Selective,
}

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) from: Revision,
    pub(crate) to: Revision,
    pub(crate) mode: Mode,
    pub(crate) strategy: Strategy,
    pub(crate) filter: Filter,
}

/// A record that the events make another one of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    pub(crate) record: u64,
    /// `None` = at the end.
    pub(crate) event: Option<u64>,
    pub(crate) what: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) mode: Mode,
    pub(crate) strategy: Strategy,
    pub(crate) events: u64,
    pub(crate) records: u64,
    pub(crate) types: BTreeMap<String, u64>,
    /// Hash sums of the touched records: as replayed, and as stored. `None` = the end wasn't reached everywhere, or nothing is compared.
    pub(crate) digests: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) differences: Vec<Difference>,
    pub(crate) difference_count: u64,
    pub(crate) took_ms: u64,
    pub(crate) at_ms: u64,
}

/// How far it is: the revision, and events so far.
pub(crate) type Progress<'p> = dyn FnMut(Revision, u64) -> bool + 'p;

/// Replays the range, on this thread and some more; `progress` says whether to go on.
///
/// # Errors
/// A revision that isn't kept, or tables that can't be read.
pub(crate) fn run(tables: &Tables, plan: &Plan, progress: &mut Progress<'_>) -> Result<Verdict, TablesError> {
    let (start, end) = (tables.view(Some(plan.from))?, tables.view(Some(plan.to))?);
    let count = match plan.strategy {
        Strategy::Sequential | Strategy::Selective => 1,
        Strategy::Parallel => std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
    };
    let parts = in_lanes(&start, &end, plan.mode, count, |lanes| feed(tables, plan, &end, lanes, progress))?;
    Ok(united(plan, parts))
}

/// Rows for one worker, in order.
type Page = Vec<Arc<Row>>;

/// Replays what `feed` puts into each of `count` lanes. `feed` says whether that was all that there is.
fn in_lanes(
    start: &TablesView,
    end: &TablesView,
    mode: Mode,
    count: usize,
    feed: impl FnOnce(&[SyncSender<Page>]) -> Result<bool, TablesError>,
) -> Result<Vec<worker::Part>, TablesError> {
    let is_all = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut lanes = Vec::with_capacity(count);
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            let (tx, rx) = sync_channel(PAGES_WAITING_MAX);
            let worker = Worker::new((start, start.revision()), end, mode);
            let is_all = &is_all;
            workers.push(scope.spawn(move || work(worker, &rx, is_all)));
            lanes.push(tx);
        }
        let given = feed(&lanes).map(|all| is_all.store(all, Ordering::Release));
        // Only now do the lanes see their end, and how it came.
        drop(lanes);
        let parts: Result<Vec<_>, TablesError> =
            workers.into_iter().map(|worker| worker.join().unwrap_or(Err(TablesError::Poisoned))).collect();
        given.and(parts)
    })
}

/// Gives each row to the worker of its project; whether all were given. A worker that has ended (in mode safe, at the first difference) ends
/// it all.
fn feed(
    tables: &Tables,
    plan: &Plan,
    end: &TablesView,
    lanes: &[SyncSender<Page>],
    progress: &mut Progress<'_>,
) -> Result<bool, TablesError> {
    let mut from = Revision(plan.from.0 + 1);
    let mut events = 0;
    while from <= plan.to {
        let past = tables.changes_from(from, ROWS_AT_ONCE)?;
        let mut pages = vec![Vec::new(); lanes.len()];
        for row in past.changes.iter().filter(|change| change.revision <= plan.to).flat_map(|change| &change.rows) {
            if !plan.filter.wants(end, row)? {
                continue;
            }
            events += 1;
            let lane = if lanes.len() == 1 { 0 } else { lane_of(end, row, lanes.len())? };
            pages[lane].push(Arc::clone(row));
        }
        for (lane, page) in lanes.iter().zip(pages) {
            if !page.is_empty() && lane.send(page).is_err() {
                return Ok(false);
            }
        }
        if !progress(past.reached.min(plan.to), events) {
            return Ok(false);
        }
        from = Revision(past.reached.0 + 1);
    }
    Ok(true)
}

fn lane_of(view: &TablesView, row: &Row, count: usize) -> Result<usize, TablesError> {
    let project = project_of(view, row)?.map_or(0, zyflow_machine::id::RecordId::to_u64);
    // Ids of projects differ in their revisions, not in their low bits.
    let hash = project.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Ok(usize::try_from(hash).unwrap_or(0) % count)
}

fn work(
    mut worker: Worker<'_, TablesView>,
    rx: &Receiver<Page>,
    is_all: &AtomicBool,
) -> Result<worker::Part, TablesError> {
    while let Ok(page) = rx.recv() {
        for row in &page {
            if !worker.step(row)? {
                return Ok(worker.stop());
            }
        }
    }
    if is_all.load(Ordering::Acquire) { worker.finish() } else { Ok(worker.stop()) }
}

fn united(plan: &Plan, parts: Vec<worker::Part>) -> Verdict {
    let mut verdict = Verdict {
        from: plan.from.0,
        to: plan.to.0,
        mode: plan.mode,
        strategy: plan.strategy,
        events: 0,
        records: 0,
        types: BTreeMap::new(),
        digests: None,
        differences: Vec::new(),
        difference_count: 0,
        took_ms: 0,
        at_ms: 0,
    };
    let (mut replayed, mut stored) = (Digest::ZERO, Digest::ZERO);
    let mut is_compared = plan.mode != Mode::DryRun;
    for part in parts {
        is_compared &= part.is_compared;
        verdict.events += part.events;
        verdict.records += part.records;
        verdict.difference_count += part.difference_count;
        verdict.differences.extend(part.differences);
        for (name, count) in part.types {
            *verdict.types.entry(name.to_owned()).or_default() += count;
        }
        replayed = replayed.add(part.replayed);
        stored = stored.add(part.stored);
    }
    verdict.differences.truncate(DIFFERENCES_TOLD_MAX);
    if is_compared {
        verdict.digests = Some((replayed.to_bytes().to_vec(), stored.to_bytes().to_vec()));
    }
    verdict
}
