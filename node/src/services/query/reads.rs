//! Which reads are done where they are asked, and which on threads that may wait.
//!
//! ```text
//!   the cluster's thread: consensus, RPCs --- a task or a conflict of now, by its id ---> memory, hardly ever one row of SQLite
//!           |                                                                                            4 connections
//!           +-- all else: lists, histories, the past, digests --> at most 3 at once, each on a thread --> SQLite, the applier's lock
//! ```
//!
//! One thread keeps the cluster together, and a leader that doesn't answer for a second isn't leader any more: so whatever may read more than
//! some rows, or wait for a lock or a connection, isn't done there. A thread costs more than the few look-ups of a record, so those stay.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use zyflow_api::ApiError;
use zyflow_api::v1::query_request::Query;
use zyflow_api::v1::{self, ErrorCode, query_response};
use zyflow_machine::id::ClusterTime;
use zyflow_storage::tables::{Tables, TablesView};

use super::Reader;
use crate::cluster::wall_clock_ms;
use crate::services::moment::view_at;
use crate::services::tables_error;
use crate::services::wire::Encoded;

/// Reads at once that may wait: one less than the tables have connections, so that a record that isn't in memory finds one free.
const WAITING_MAX: usize = 3;

/// The tables, and the threads that read them.
#[derive(Clone)]
pub(super) struct Reads {
    pub(super) tables: Tables,
    places: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn new(tables: Tables) -> Self {
        Self { tables, places: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// The state at that moment. A number is looked at in memory; which revision a time or a point is must be read.
    pub(super) async fn view_at(&self, at: Option<u64>, moment: Option<v1::Moment>) -> Result<TablesView, ApiError> {
        if moment.is_none() {
            return view_at(&self.tables, at, None);
        }
        let tables = self.tables.clone();
        self.waiting(move || view_at(&tables, at, moment)).await
    }

    /// The clock that belongs to a view: of the past, the time of its newest event, the same on every node.
    pub(super) async fn clock_at(&self, view: &TablesView, is_past: bool) -> Result<ClusterTime, ApiError> {
        if !is_past {
            return Ok(ClusterTime(wall_clock_ms()));
        }
        let (tables, revision) = (self.tables.clone(), view.revision());
        let time = self.waiting(move || tables.time_at(revision).map_err(|error| tables_error(&error))).await?;
        Ok(time.unwrap_or_default())
    }

    /// The digest of the newest state, which is asked of the applier: it may be waiting for SQLite.
    pub(super) async fn digest(&self) -> Result<Encoded, ApiError> {
        let tables = self.tables.clone();
        let (revision, digest) = self.waiting(move || tables.digest().map_err(|error| tables_error(&error))).await?;
        let digest = v1::StateDigest { digest: digest.to_bytes().to_vec() };
        let answer = Encoded::bytes_of(query_response::Answer::Digest(digest));
        Ok(Encoded { revision, time: ClusterTime(wall_clock_ms()), answer })
    }

    /// Answers from a view, encoded.
    pub(super) async fn answer(
        &self,
        view: TablesView,
        now: ClusterTime,
        query: Query,
        is_past: bool,
    ) -> Result<Bytes, ApiError> {
        let is_here = !is_past && is_by_id(&query);
        let answer = move || Ok(Encoded::bytes_of(Reader { view: &view, now }.answer(query)?));
        if is_here { answer() } else { self.waiting(answer).await }
    }

    /// Reads on a thread that may wait, as soon as there is a place.
    async fn waiting<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let closed = |_| ApiError::new(ErrorCode::Stopping, "this node reads nothing any more: ask another one");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        let panicked = |_| ApiError::new(ErrorCode::NodeFailed, "reading the tables panicked: ask another node");
        let read = move || {
            // Until it is done, also where nobody waits for it any more.
            let _place = place;
            read()
        };
        tokio::task::spawn_blocking(read).await.map_err(panicked)?
    }
}

/// Whether the answer is one record that is found by its id, with the names of what it stands in.
fn is_by_id(query: &Query) -> bool {
    matches!(query, Query::Task(_) | Query::Conflict(_))
}
