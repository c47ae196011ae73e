//! The Watch service: what happens, from any revision that is kept, on any node. Ordered, each event once, none left out, a revision never divided
//! (but for parts that say so), to be resumed anywhere from the last revision received, with bookmarks while nothing happens.
//!
//! A watch begins where everything that was acknowledged before the call is known, so one that goes on from another node
//! never begins behind it. Not here: reconnecting (`zyflow_client::watch`).

pub(crate) mod filter;
mod follower;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zyflow_api::ApiError;
use zyflow_api::v1::watch_server::Watch;
use zyflow_api::v1::{ErrorCode, WatchRequest, WatchResponse};
use zyflow_machine::id::Revision;
use zyflow_raft::{Consensus, Consistency};
use zyflow_storage::tables::{Tables, TablesError};

use crate::services::moment::revision_of;
use crate::services::{read_error, tables_error};
use filter::Filter;
use follower::{Follower, ROWS_AT_ONCE};

/// Answers that wait for a slow caller: with parts of 256 KiB, 16 MiB a watch at most, mostly far less.
const WAITING_MAX: usize = 64;

/// Watches of one node at once: some gigabytes if all of them are as slow as they may be.
const WATCHES_MAX: usize = 256;

/// How long a watch waits at its beginning until this node knows all that was acknowledged: a few elections.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);

type Answer = Result<WatchResponse, Status>;

/// The service.
#[derive(Clone)]
pub struct WatchService {
    consensus: Consensus,
    tables: Tables,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl WatchService {
    /// Watches `tables`, as far as `consensus` says that they are fresh, until `stopped`.
    #[must_use]
    pub fn new(consensus: Consensus, tables: Tables, stopped: watch::Receiver<bool>) -> Self {
        Self { consensus, tables, places: Arc::new(Semaphore::new(WATCHES_MAX)), stopped }
    }

    async fn follower(
        &self,
        request: WatchRequest,
        queue: (mpsc::Sender<Answer>, mpsc::OwnedPermit<Answer>),
    ) -> Result<Follower, ApiError> {
        let full = || {
            let message = format!("this node feeds {WATCHES_MAX} watches already: try another one");
            ApiError::new(ErrorCode::Overloaded, message)
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())?;
        let filter = Arc::new(Filter::new(&request)?);
        let deadline = Instant::now() + BARRIER_TIMEOUT;
        let applied = self.consensus.read_barrier(Consistency::Linearizable, deadline).await;
        let applied = applied.map_err(|error| read_error(&error))?;
        let until = request.until.clone().map(|until| revision_of(&self.tables, until)).transpose()?;
        let end = until.map_or(applied, |until| until.min(applied));
        let sent = self.begin(request, Arc::clone(&filter), applied, end).await?;
        let (tx, last_word) = queue;
        let (consensus, tables, stopped) = (self.consensus.clone(), self.tables.clone(), self.stopped.clone());
        Ok(Follower { consensus, tables, filter, sent, until, tx, last_word, stopped, _place: place })
    }

    /// The revision after which a watch begins.
    async fn begin(
        &self,
        request: WatchRequest,
        filter: Arc<Filter>,
        applied: Revision,
        end: Revision,
    ) -> Result<Revision, ApiError> {
        let sent = match (request.from, request.after, request.newest) {
            (None, None, None) => applied,
            (Some(from), None, None) => self.seen(Revision(from.saturating_sub(1)))?,
            (None, Some(after), None) => self.seen(revision_of(&self.tables, after)?)?,
            (None, None, Some(newest)) => {
                let tables = self.tables.clone();
                let wanted = usize::try_from(newest).unwrap_or(usize::MAX);
                let looking = tokio::task::spawn_blocking(move || before_newest(&tables, &filter, end, wanted));
                let panicked = |_| ApiError::new(ErrorCode::NodeFailed, "reading the past panicked: ask another node");
                looking.await.map_err(panicked)?.map_err(|error| tables_error(&error))?
            }
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                let message = "`from`, `after` and `newest` all say where to begin: give one of them";
                return Err(ApiError::new(ErrorCode::Invalid, message));
            }
        };
        // Refused now and not by the first page, so that the caller learns it from the call.
        if sent > applied {
            let future = TablesError::Future { revision: Revision(sent.0 + 1), applied };
            return Err(tables_error(&future));
        }
        let horizon = self.tables.horizon().map_err(|error| tables_error(&error))?;
        if horizon > Revision::default() && sent < horizon {
            let from = Revision(sent.0 + 1);
            return Err(tables_error(&TablesError::Compacted { revision: from, horizon: Revision(horizon.0 + 1) }));
        }
        Ok(sent)
    }

    /// What the caller says that it has seen, unless a restore has undone that: then it must look at the state first.
    fn seen(&self, sent: Revision) -> Result<Revision, ApiError> {
        self.tables.refuse_undone(sent).map_err(|error| tables_error(&error))?;
        Ok(sent)
    }
}

/// The revision after which the newest `wanted` events up to `end` are; the oldest one where there are fewer.
fn before_newest(tables: &Tables, filter: &Filter, end: Revision, wanted: usize) -> Result<Revision, TablesError> {
    let view = tables.view(None)?;
    let (mut to, mut count) = (end, 0);
    while count < wanted {
        let past = tables.changes_before(to, ROWS_AT_ONCE)?;
        for change in &past.changes {
            count += filter.count(&view, change)?;
            if count >= wanted {
                return Ok(Revision(change.revision.0.saturating_sub(1)));
            }
        }
        let before = Revision(past.reached.0.saturating_sub(1));
        if before >= to || before == Revision::default() {
            return tables.horizon();
        }
        to = before;
    }
    Ok(end)
}

fn tables_status(error: &TablesError) -> Status {
    tables_error(error).into()
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (tx, rx) = mpsc::channel(WAITING_MAX + 1);
        let last_word = tx.clone().reserve_owned().await;
        let last_word = last_word.map_err(|_| ApiError::new(ErrorCode::Stopping, "the watch ended before it began"))?;
        let follower = self.follower(request.into_inner(), (tx, last_word)).await?;
        tokio::spawn(follower.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}
