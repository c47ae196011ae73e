//! A watch that outlives its connections: goes on at any node from where it stood, so that nothing is lost and nothing comes twice.
//!
//! ```text
//!   node A  --- events 7, 8 --- bookmark 9 --x            broken, or silent for too long
//!   node B                                     from 10 --- events 12 ---
//! ```
//!
//! Where it stands is the newest revision that a node has said to be complete; in the middle of a revision that came in
//! parts, it begins that revision again and leaves out the events that it has given out. A node that knows less than
//! another isn't believed about the difference: it waits until it knows as much before it answers.

use crate::channel::status_error;
use crate::client::Client;
use crate::error::ClientError;
use crate::moment::Moment;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use v1::watch_response::{Events, Item};
use zyflow_api::convert::{event_id, record_id};
use zyflow_api::{ConvertError, v1};
use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::record::Kind;

/// A node says something once a second, also while it looks for the beginning; one that is silent for so long is taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long a node may take to begin: it waits up to ten seconds for a quorum, and says so then.
const BEGIN_WITHIN: Duration = Duration::from_secs(12);

/// First pause before the next node is asked; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// Longest pause before the next node is asked.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Which events; what is absent doesn't restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Of this project.
    pub project: Option<RecordId>,
    /// Of this change.
    pub change: Option<RecordId>,
    /// About this task: its block, comments on it, conflicts about it.
    pub task: Option<RecordId>,
    /// Of these types, each one of [`Fact::NAMES`].
    pub types: Vec<String>,
    /// By this author.
    pub author: Option<String>,
}

/// Where a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what happens from now on.
    Now,
    /// With this revision.
    From(Revision),
    /// With what happened after this moment.
    After(Moment),
    /// With the newest so many events, and maybe some more of the same revision.
    Newest(u32),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// Its position.
    pub id: EventId,
    /// The record that it is about.
    pub record: RecordId,
    /// That record's kind.
    pub kind: Kind,
    /// The project that it belongs to.
    pub project: Option<RecordId>,
    /// The change that it belongs to.
    pub change: Option<RecordId>,
    /// The block that it is about.
    pub task: Option<RecordId>,
    /// The project's name now; empty where it is gone.
    pub project_name: String,
    /// The change's path now; empty where it is gone.
    pub change_path: String,
    /// The first event of its command: events with the same one happened together.
    pub correlation: EventId,
    /// Who, when, and by which request.
    pub provenance: Provenance,
    /// What happened.
    pub fact: Fact,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Events of one revision, in order.
    Events {
        /// The revision.
        revision: Revision,
        /// The events.
        events: Vec<WatchEvent>,
        /// There are more of this revision: they come next.
        has_more: bool,
    },
    /// All that the watch is about, up to and including this revision, was told. The first one comes once all was told that was there
    /// when the watch began; what comes after it is new.
    Bookmark(Revision),
}

/// See the module.
pub struct Watch {
    client: Client,
    filter: WatchFilter,
    begin: Begin,
    until: Option<Moment>,
    patience: Option<Duration>,
    node: usize,
    stream: Option<Streaming<v1::WatchResponse>>,
    /// Everything up to here was given out.
    complete: Option<Revision>,
    /// The newest event that was given out.
    last: Option<EventId>,
    /// The first bookmark was given out.
    is_caught_up: bool,
    is_over: bool,
}

impl Client {
    /// Follows what happens, across broken connections and dead nodes. `until` ends it; `patience` is how long it may find no node that
    /// answers, `None` = for ever.
    #[must_use]
    pub fn watch(&self, filter: WatchFilter, begin: Begin, until: Option<Moment>, patience: Option<Duration>) -> Watch {
        Watch {
            client: self.clone(),
            filter,
            begin,
            until,
            patience,
            node: self.preferred(),
            stream: None,
            complete: None,
            last: None,
            is_caught_up: false,
            is_over: false,
        }
    }
}

impl Watch {
    /// What comes next; `None` = `until` is reached. Dropping the future loses nothing but time: call it again.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `REVISION` where the watch would begin below the horizon or in the future.
    pub async fn next(&mut self) -> Result<Option<News>, ClientError> {
        let mut silent_since = Instant::now();
        let mut backoff = BACKOFF_MIN;
        loop {
            if self.is_over {
                return Ok(None);
            }
            match self.step().await {
                Ok(Some(news)) => return Ok(Some(news)),
                // Something that was told before: the node is there.
                Ok(None) => silent_since = Instant::now(),
                Err(error) => {
                    self.stream = None;
                    if !crate::client::may_pass(&error) {
                        return Err(error);
                    }
                    if self.patience.is_some_and(|patience| silent_since.elapsed() >= patience) {
                        let waited = silent_since.elapsed();
                        return Err(ClientError::Deadline { waited, last: Some(Box::new(error)), may_apply: false });
                    }
                    self.node = (self.node + 1) % self.client.endpoints().len();
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Everything up to this revision was given out; `None` = no node has answered yet.
    #[must_use]
    pub fn complete(&self) -> Option<Revision> {
        self.complete
    }

    /// One message of a node; `None` = nothing new in it.
    async fn step(&mut self) -> Result<Option<News>, ClientError> {
        let address = self.client.address(self.node).to_owned();
        if self.stream.is_none() {
            self.stream = Some(self.connect(&address).await?);
        }
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let silent = || ClientError::Unreachable {
            address: address.clone(),
            reason: format!("{address} was silent for {} s; check that the node runs", SILENCE_MAX.as_secs()),
        };
        let received = timeout(SILENCE_MAX, stream.message()).await.map_err(|_elapsed| silent())?;
        let Some(message) = received.map_err(|status| status_error(&address, &status))? else {
            let reason = format!("{address} ended the watch; check that the node runs");
            return Err(ClientError::Unreachable { address, reason });
        };
        let item = message.item.ok_or(ConvertError::Missing { field: "item" });
        match item.map_err(|error| ClientError::convert(&address, &error))? {
            Item::Events(events) => self.events(events).map_err(|error| ClientError::convert(&address, &error)),
            Item::Bookmark(bookmark) => {
                let revision = Revision(bookmark.revision);
                // The first one is news also where the last event was of its own revision: nothing older comes any more.
                let is_new = !self.is_caught_up || self.complete.is_none_or(|complete| complete < revision);
                self.is_caught_up = true;
                self.complete = self.complete.max(Some(revision));
                self.is_over = bookmark.end;
                Ok(is_new.then_some(News::Bookmark(revision)))
            }
            // We were too slow, and go on where we stood.
            Item::Lagged(_) => {
                self.stream = None;
                Ok(None)
            }
        }
    }

    async fn connect(&self, address: &str) -> Result<Streaming<v1::WatchResponse>, ClientError> {
        let client = v1::watch_client::WatchClient::new(self.client.channel(self.node, 0));
        let mut client = client.max_decoding_message_size(zyflow_api::MESSAGE_BYTES_MAX);
        let asked = timeout(BEGIN_WITHIN, client.watch(self.request())).await;
        let answered = asked.map_err(|_elapsed| ClientError::Unreachable {
            address: address.to_owned(),
            reason: format!("{address} did not begin a watch within {} s", BEGIN_WITHIN.as_secs()),
        })?;
        answered.map(tonic::Response::into_inner).map_err(|status| status_error(address, &status))
    }

    fn request(&self) -> v1::WatchRequest {
        let filter = self.filter.clone();
        let mut request = v1::WatchRequest {
            project: filter.project.map(RecordId::to_u64),
            change: filter.change.map(RecordId::to_u64),
            task: filter.task.map(RecordId::to_u64),
            types: filter.types,
            author: filter.author,
            until: self.until.clone().map(Into::into),
            ..v1::WatchRequest::default()
        };
        match (self.complete, &self.begin) {
            (Some(complete), _) => request.from = Some(complete.0 + 1),
            (None, Begin::Now) => {}
            (None, Begin::From(revision)) => request.from = Some(revision.0),
            (None, Begin::After(moment)) => request.after = Some(moment.clone().into()),
            (None, Begin::Newest(count)) => request.newest = Some(*count),
        }
        request
    }

    fn events(&mut self, events: Events) -> Result<Option<News>, ConvertError> {
        let revision = Revision(events.revision);
        let all = events.events.into_iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let new: Vec<WatchEvent> =
            all.into_iter().filter(|event| self.last.is_none_or(|last| last < event.id)).collect();
        self.last = new.last().map(|event| event.id).or(self.last);
        // Of a revision of which a part is still to come only the ones before are complete; before revision 0 there is none, and the
        // node is still looking for the beginning.
        let complete = if events.more { revision.0.checked_sub(1).map(Revision) } else { Some(revision) };
        self.complete = self.complete.max(complete);
        let has_more = events.more;
        Ok((!new.is_empty()).then_some(News::Events { revision, events: new, has_more }))
    }
}

fn event(event: v1::Event) -> Result<WatchEvent, ConvertError> {
    let kind = event.kind();
    let missing = |field| ConvertError::Missing { field };
    Ok(WatchEvent {
        id: event_id("event.id", event.id)?,
        record: record_id("event.record", event.record)?,
        kind: kind.try_into()?,
        project: event.project.map(|id| record_id("event.project", id)).transpose()?,
        change: event.change.map(|id| record_id("event.change", id)).transpose()?,
        task: event.task.map(|id| record_id("event.task", id)).transpose()?,
        project_name: event.project_name,
        change_path: event.change_path,
        correlation: event_id("event.correlation", event.correlation)?,
        provenance: event.provenance.ok_or(missing("event.provenance"))?.try_into()?,
        fact: event.fact.ok_or(missing("event.fact"))?.try_into()?,
    })
}
