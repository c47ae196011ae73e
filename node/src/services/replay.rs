//! The Replay service: one replay of the past at a time, on a thread of its own; what came of it is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zyflow_api::ApiError;
use zyflow_api::v1::replay_response::{Item, Progress};
use zyflow_api::v1::replay_server::Replay;
use zyflow_api::v1::{self, ErrorCode, ReplayMode, ReplayStrategy};
use zyflow_machine::id::Revision;
use zyflow_raft::{Consensus, Consistency};
use zyflow_storage::tables::Tables;

use crate::cluster::wall_clock_ms;
use crate::replay::store::Store;
use crate::replay::{self, Mode, Plan, Strategy, Verdict};
use crate::services::moment::revision_of;
use crate::services::watch::filter::Filter;
use crate::services::{read_error, tables_error};

/// How long a replay waits at its beginning until this node knows all that was acknowledged: a few elections.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers that wait for a slow caller; then the replay waits too.
const WAITING_MAX: usize = 16;

/// How often it says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

type Answer = Result<v1::ReplayResponse, Status>;

/// The service.
#[derive(Clone)]
pub struct ReplayService {
    consensus: Consensus,
    tables: Tables,
    store: Store,
    turn: Arc<Semaphore>,
}

impl ReplayService {
    /// Replays what `tables` have; keeps what came of it in `folder`.
    #[must_use]
    pub fn new(consensus: Consensus, tables: Tables, folder: &std::path::Path) -> Self {
        Self { consensus, tables, store: Store::new(folder), turn: Arc::new(Semaphore::new(1)) }
    }

    async fn plan(&self, request: v1::ReplayRequest) -> Result<Plan, ApiError> {
        let invalid = |message: &str| ApiError::new(ErrorCode::Invalid, message);
        let mode = match request.mode() {
            ReplayMode::DryRun => Mode::DryRun,
            ReplayMode::Safe => Mode::Safe,
            ReplayMode::Fast => Mode::Fast,
            ReplayMode::Verbose => Mode::Verbose,
            ReplayMode::Unspecified => return Err(invalid("the replay's mode is missing or unknown")),
        };
        let is_narrow = request.project.or(request.change).or(request.task).is_some();
        let strategy = match request.strategy() {
            ReplayStrategy::Sequential => Strategy::Sequential,
            ReplayStrategy::Parallel => Strategy::Parallel,
            ReplayStrategy::Selective => Strategy::Selective,
            ReplayStrategy::Unspecified => return Err(invalid("the replay's strategy is missing or unknown")),
        };
        if is_narrow != (strategy == Strategy::Selective) {
            let message = "only the strategy selective takes a project, a change or a task, and it needs one of them";
            return Err(invalid(message));
        }
        let filter = Filter::new(&v1::WatchRequest {
            project: request.project,
            change: request.change,
            task: request.task,
            ..v1::WatchRequest::default()
        })?;
        let deadline = tokio::time::Instant::now() + BARRIER_TIMEOUT;
        let applied = self.consensus.read_barrier(Consistency::Linearizable, deadline).await;
        let applied = applied.map_err(|error| read_error(&error))?;
        let from = request.after.map(|after| revision_of(&self.tables, after)).transpose()?;
        let to = request.until.map(|until| revision_of(&self.tables, until)).transpose()?;
        let (from, to) = (from.unwrap_or(Revision(0)), to.unwrap_or(applied));
        if from > to {
            return Err(invalid(&format!("a replay goes forward: {from} is after {to}")));
        }
        // Both must be there before anything begins.
        for revision in [from, to] {
            self.tables.view(Some(revision)).map_err(|error| tables_error(&error))?;
        }
        Ok(Plan { from, to, mode, strategy, filter })
    }
}

#[tonic::async_trait]
impl Replay for ReplayService {
    type ReplayStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn replay(&self, request: Request<v1::ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let busy = |_| ApiError::new(ErrorCode::Overloaded, "this node replays already: wait, or ask another one");
        let turn = Arc::clone(&self.turn).try_acquire_owned().map_err(busy)?;
        let plan = self.plan(request.into_inner()).await?;
        let (tx, rx) = mpsc::channel(WAITING_MAX);
        let (tables, store) = (self.tables.clone(), self.store.clone());
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let last = replayed(&tables, &plan, &tx).and_then(|verdict| {
                let kept = store.keep(&verdict);
                kept.map_err(|error| ApiError::new(ErrorCode::NodeFailed, error.to_string()))?;
                Ok(v1::ReplayResponse { item: Some(Item::Result(shown(verdict))) })
            });
            // The caller may have gone meanwhile; what came of it is kept.
            drop(tx.blocking_send(last.map_err(Status::from)));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn replays(&self, _: Request<v1::ReplaysRequest>) -> Result<Response<v1::ReplaysResponse>, Status> {
        let store = self.store.clone();
        let panicked = |_| ApiError::new(ErrorCode::NodeFailed, "reading what came of replays panicked");
        let all = tokio::task::spawn_blocking(move || store.all()).await.map_err(panicked)?;
        let all = all.map_err(|error| ApiError::new(ErrorCode::NodeFailed, error.to_string()))?;
        Ok(Response::new(v1::ReplaysResponse { results: all.into_iter().map(shown).collect() }))
    }
}

/// Replays, and tells how far it is; ends early where nobody listens any more.
fn replayed(tables: &Tables, plan: &Plan, tx: &mpsc::Sender<Answer>) -> Result<Verdict, ApiError> {
    let begun = Instant::now();
    let mut told = begun;
    let mut is_left = false;
    let mut progress = |revision: Revision, events: u64| {
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let progress = Progress { revision: revision.0, events };
            is_left |= tx.blocking_send(Ok(v1::ReplayResponse { item: Some(Item::Progress(progress)) })).is_err();
        }
        !is_left
    };
    let verdict = replay::run(tables, plan, &mut progress).map_err(|error| tables_error(&error))?;
    if is_left {
        return Err(ApiError::new(ErrorCode::Stopping, "nobody waits for the replay any more"));
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Verdict { took_ms, at_ms: wall_clock_ms(), ..verdict })
}

fn shown(verdict: Verdict) -> v1::ReplayResult {
    let mode = match verdict.mode {
        Mode::DryRun => ReplayMode::DryRun,
        Mode::Safe => ReplayMode::Safe,
        Mode::Fast => ReplayMode::Fast,
        Mode::Verbose => ReplayMode::Verbose,
    };
    let strategy = match verdict.strategy {
        Strategy::Sequential => ReplayStrategy::Sequential,
        Strategy::Parallel => ReplayStrategy::Parallel,
        Strategy::Selective => ReplayStrategy::Selective,
    };
    let (replayed, stored) = verdict.digests.unzip();
    let difference =
        |it: replay::Difference| v1::ReplayDifference { record: it.record, event: it.event, what: it.what };
    v1::ReplayResult {
        from: verdict.from,
        to: verdict.to,
        mode: mode.into(),
        strategy: strategy.into(),
        events: verdict.events,
        records: verdict.records,
        types: verdict.types.into_iter().collect(),
        replayed,
        stored,
        differences: verdict.differences.into_iter().map(difference).collect(),
        difference_count: verdict.difference_count,
        took_ms: verdict.took_ms,
        at_ms: verdict.at_ms,
    }
}
