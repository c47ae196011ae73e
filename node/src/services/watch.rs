//! The Watch service: what happens, from any revision that is kept, on any node. Ordered, each event once, none left out, a revision never divided
//! (but for parts that say so), to be resumed anywhere from the last revision received, with bookmarks while nothing happens.
//!
//! A watch begins where everything that was acknowledged before the call is known, so one that goes on from another node
//! never begins behind it. Where the newest so many events begin is looked for after that, while the caller listens: in a long history
//! it takes as long as it takes. Not here: reconnecting (`zyflow_client::watch`).

pub(crate) mod filter;
mod follower;
mod pieces;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zyflow_api::ApiError;
use zyflow_api::v1::moment::Moment as Kind;
use zyflow_api::v1::watch_server::Watch;
use zyflow_api::v1::{ErrorCode, Moment, WatchRequest, WatchResponse};
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_raft::{Consensus, Consistency};
use zyflow_storage::tables::{Tables, TablesError};

use crate::services::moment::{revision_of, shown};
use crate::services::{read_error, tables_error};
use filter::Filter;
use follower::Follower;

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
        let newest = request.newest.map(|newest| usize::try_from(newest).unwrap_or(usize::MAX));
        let end = until.map_or(applied, |until| until.min(applied));
        let sent = self.begin(request, applied, end)?;
        let (tx, last_word) = queue;
        let now = Instant::now();
        Ok(Follower {
            consensus: self.consensus.clone(),
            tables: self.tables.clone(),
            filter,
            sent,
            newest,
            barrier: Some(applied),
            until,
            spoken: now,
            quorum_seen: now,
            tx,
            last_word,
            stopped: self.stopped.clone(),
            _place: place,
        })
    }

    /// The revision after which a watch begins; `end` where it is the newest events up to there that are wanted.
    fn begin(&self, request: WatchRequest, applied: Revision, end: Revision) -> Result<Revision, ApiError> {
        let sent = match (request.from, request.after, request.newest) {
            (None, None, None) => applied,
            (Some(from), None, None) => self.seen(Revision(from.saturating_sub(1)))?,
            (None, Some(after), None) => self.seen(self.after(after)?)?,
            (None, None, Some(_)) => return Ok(end),
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

    /// The revision that a watch begins after. What is before the first event of all is the beginning: nothing of it is missing.
    fn after(&self, after: Moment) -> Result<Revision, ApiError> {
        let time = match &after.moment {
            Some(Kind::TimeMs(time)) => Some(ClusterTime(*time)),
            Some(Kind::Revision(_) | Kind::Point(_)) | None => None,
        };
        let refused = match revision_of(&self.tables, after) {
            Ok(revision) => return Ok(revision),
            Err(refused) => refused,
        };
        let Some(time) = time else { return Err(refused) };
        let Err(TablesError::BeforeFirst { .. }) = self.tables.revision_at(time) else { return Err(refused) };
        let horizon = self.tables.horizon().map_err(|error| tables_error(&error))?;
        if horizon == Revision::default() {
            return Ok(horizon);
        }
        // Of the horizon's own revision only the newest versions are kept, so its time is too early for events.
        let (time, first) = (shown(time), Revision(horizon.0 + 1));
        let message = format!(
            "not all that happened after {time} is kept: the oldest events are those of revision {first}; begin with that one"
        );
        Err(ApiError::new(ErrorCode::Revision, message))
    }

    /// What the caller says that it has seen, unless a restore has undone that: then it must look at the state first.
    fn seen(&self, sent: Revision) -> Result<Revision, ApiError> {
        self.tables.refuse_undone(sent).map_err(|error| tables_error(&error))?;
        Ok(sent)
    }
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
