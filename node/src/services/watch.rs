//! The Watch service: what is applied on this node from now on, in order, each event once, a revision never divided.
//!
//! A watch begins at the newest revision; one that asks for an older one is told to read the state first and where to go on
//! (`Lagged`), as is one that is too slow. So a client that follows that advice misses nothing.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zyflow_api::convert::record_id;
use zyflow_api::v1::watch_response::{Bookmark, Events, Item, Lagged};
use zyflow_api::v1::watch_server::Watch;
use zyflow_api::v1::{Event, RecordKind, WatchRequest, WatchResponse};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Kind, Record};
use zyflow_machine::view::View;
use zyflow_storage::tables::{Change, Row, Tables};

use crate::services::tables_error;

/// Answers that wait for a slow caller before it is told that it lags.
const WAITING_MAX: usize = 256;

type Answer = Result<WatchResponse, Status>;

/// The service.
#[derive(Clone)]
pub struct WatchService {
    tables: Tables,
}

impl WatchService {
    /// Watches `tables`.
    #[must_use]
    pub fn new(tables: Tables) -> Self {
        Self { tables }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let project = request.project.map(|id| record_id("project", id)).transpose();
        let change = request.change.map(|id| record_id("change", id)).transpose();
        let to_status = |error| Status::from(zyflow_api::ApiError::from(error));
        let filter = Filter { project: project.map_err(to_status)?, change: change.map_err(to_status)? };
        // Subscribed before the newest revision is read: what is applied in between comes twice at most, and is left out below.
        let changes = self.tables.subscribe();
        let applied = *self.tables.applied().borrow();
        let (tx, rx) = mpsc::channel(WAITING_MAX);
        let from = request.from.map_or(Revision(applied.0 + 1), Revision);
        let follower = Follower { tables: self.tables.clone(), filter, sent: applied, tx };
        tokio::spawn(follower.run(from, changes));
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

struct Filter {
    project: Option<RecordId>,
    change: Option<RecordId>,
}

/// Feeds one watch. Ends with the caller, or when it is told that it lags.
struct Follower {
    tables: Tables,
    filter: Filter,
    sent: Revision,
    tx: mpsc::Sender<Answer>,
}

impl Follower {
    async fn run(mut self, from: Revision, mut changes: broadcast::Receiver<Arc<Change>>) {
        if from <= self.sent {
            let reason = format!("revision {from} is in the past: read the state at {}, then watch on", self.sent);
            return self.tell_lag(reason).await;
        }
        loop {
            let received = tokio::select! {
                received = changes.recv() => received,
                () = self.tx.closed() => return,
            };
            let item = match received {
                Ok(change) if change.revision <= self.sent => continue,
                Ok(change) => self.item(&change),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.sent = *self.tables.applied().borrow();
                    return self.tell_lag(format!("{missed} revisions came faster than they were taken")).await;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if self.tx.send(item).await.is_err() {
                return;
            }
        }
    }

    async fn tell_lag(&self, reason: String) {
        let lagged = Lagged { resume_from: self.sent.0 + 1, reason };
        // The caller may have gone meanwhile; then nobody needs to know.
        let _ = self.tx.send(Ok(WatchResponse { item: Some(Item::Lagged(lagged)) })).await;
    }

    fn item(&mut self, change: &Change) -> Answer {
        self.sent = change.revision;
        let mut events = Vec::new();
        for row in &change.rows {
            let place = self.place(row)?;
            let is_wanted = self.filter.project.is_none_or(|wanted| place.project == Some(wanted))
                && self.filter.change.is_none_or(|wanted| place.change == Some(wanted));
            if is_wanted {
                events.push(event(row, &place));
            }
        }
        let revision = change.revision.0;
        let item = if events.is_empty() {
            Item::Bookmark(Bookmark { revision })
        } else {
            Item::Events(Events { revision, events })
        };
        Ok(WatchResponse { item: Some(item) })
    }

    /// The change and the project that a row belongs to.
    fn place(&self, row: &Row) -> Result<Place, Status> {
        let (change, project) = match row.stored.kind {
            Kind::Project => (None, Some(row.id)),
            Kind::Change => (Some(row.id), Some(row.stored.parent)),
            Kind::Block | Kind::Conflict => (Some(row.stored.parent), self.parent(row.stored.parent)?),
            Kind::Comment => match self.parent(row.stored.parent)? {
                Some(change) => (Some(change), self.parent(change)?),
                None => (None, None),
            },
            Kind::Point => (None, None),
        };
        Ok(Place { change, project })
    }

    /// What a record belongs to.
    fn parent(&self, id: RecordId) -> Result<Option<RecordId>, Status> {
        let view = self.tables.view(None).map_err(|error| tables_error(&error))?;
        let stored = view.get(id).map_err(|error| tables_error(&error))?;
        Ok(stored.map(|stored| stored.parent))
    }
}

struct Place {
    change: Option<RecordId>,
    project: Option<RecordId>,
}

fn event(row: &Row, place: &Place) -> Event {
    Event {
        id: row.stored.version.to_u64(),
        record: row.id.to_u64(),
        kind: RecordKind::from(row.stored.record.as_ref().map_or(row.stored.kind, Record::kind)).into(),
        change: place.change.map(RecordId::to_u64),
        project: place.project.map(RecordId::to_u64),
        provenance: Some((*row.provenance).clone().into()),
        fact: Some(row.fact.clone().into()),
    }
}
