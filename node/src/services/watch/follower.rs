//! Feeds one watch: reads on from where it stands, as fast as the caller takes it.
//!
//! ```text
//!     stored versions            recent changes           still to come
//!   ---------------------+------------------------+----------------------> revisions
//!            ^ sent: everything up to here is in the caller's queue
//!   read a page, filter it, queue it; at the end wait until something is applied, or it is time for a bookmark
//! ```
//!
//! There is no queue of changes for a watch: whoever is slow simply reads older ones later. So a slow caller costs what its answers take
//! ([`super::WAITING_MAX`]), misses nothing, and is told only where it takes nothing at all for too long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::Status;
use zyflow_api::ApiError;
use zyflow_api::v1::watch_response::{Bookmark, Events, Item, Lagged};
use zyflow_api::v1::{ErrorCode, WatchResponse};
use zyflow_machine::id::Revision;
use zyflow_raft::Consensus;
use zyflow_storage::tables::{Past, Tables};

use super::filter::{Filter, parts};
use super::{Answer, tables_status};

/// Rows that are read at once.
pub(super) const ROWS_AT_ONCE: usize = 256;

/// Longest time without a word to the caller: it takes a connection that is silent for some of these for a broken one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(1);

/// A caller that takes nothing for so long is told to come back.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// A node that has known of no quorum for so long sends its callers to others: a few elections.
const WITHOUT_QUORUM_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Follower {
    pub(super) consensus: Consensus,
    pub(super) tables: Tables,
    pub(super) filter: Arc<Filter>,
    /// Everything up to here was sent.
    pub(super) sent: Revision,
    pub(super) until: Option<Revision>,
    pub(super) tx: mpsc::Sender<Answer>,
    /// Room for the last word to a caller whose queue is full.
    pub(super) last_word: mpsc::OwnedPermit<Answer>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// Why a watch ends.
enum End {
    /// The caller is gone.
    Gone,
    /// The caller is told this.
    Told(Answer),
}

impl Follower {
    pub(super) async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        let end = tokio::select! {
            end = self.follow() => end,
            // An error means that whoever could say so is gone, which is a stop too.
            _ = stopped.wait_for(|stop| *stop) => Err(stopping()),
        };
        match end {
            // Whoever has all it asked for sees the stream end.
            Ok(()) | Err(End::Gone) => {}
            Err(End::Told(last)) => drop(self.last_word.send(last)),
        }
    }

    async fn follow(&mut self) -> Result<(), End> {
        let mut applied = self.tables.applied();
        let mut bookmarks = interval(BOOKMARK_INTERVAL);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quorum_seen = Instant::now();
        loop {
            self.catch_up(&mut applied, &mut bookmarks).await?;
            if self.until.is_some_and(|until| self.sent >= until) {
                return self.bookmark().await;
            }
            tokio::select! {
                changed = applied.changed() => {
                    if changed.is_err() {
                        return Err(stopping());
                    }
                }
                _ = bookmarks.tick() => {
                    if self.consensus.status().has_quorum {
                        quorum_seen = Instant::now();
                    } else if quorum_seen.elapsed() > WITHOUT_QUORUM_MAX {
                        let alone = "this node has no quorum, so it may not hear what happens: watch on another one";
                        return Err(End::Told(Err(ApiError::new(ErrorCode::NoQuorum, alone).into())));
                    }
                    self.bookmark().await?;
                }
                () = self.tx.closed() => return Err(End::Gone),
            }
        }
    }

    /// Sends all that is applied, page by page.
    async fn catch_up(
        &mut self,
        applied: &mut watch::Receiver<Revision>,
        bookmarks: &mut tokio::time::Interval,
    ) -> Result<(), End> {
        let mut spoken = Instant::now();
        loop {
            let newest = *applied.borrow_and_update();
            if self.sent >= self.until.map_or(newest, |until| until.min(newest)) {
                return Ok(());
            }
            let from = Revision(self.sent.0 + 1);
            let recent = self.tables.recent_changes_from(from, ROWS_AT_ONCE).map_err(|error| told(&error))?;
            let (messages, reached) = match recent {
                Some(past) => messages(&self.tables, &self.filter, &past, self.until)?,
                None => self.read(from).await?,
            };
            let is_silent = messages.is_empty();
            for message in messages {
                if let Some(Item::Events(events)) = &message.item {
                    self.sent = Revision(events.revision.saturating_sub(1));
                }
                self.send(message).await?;
            }
            self.sent = reached;
            if !is_silent {
                spoken = Instant::now();
                bookmarks.reset();
            } else if spoken.elapsed() >= BOOKMARK_INTERVAL {
                spoken = Instant::now();
                self.bookmark().await?;
            }
        }
    }

    /// A page of what is long ago, read on a thread that may wait.
    async fn read(&self, from: Revision) -> Result<(Vec<WatchResponse>, Revision), End> {
        let (tables, filter, until) = (self.tables.clone(), Arc::clone(&self.filter), self.until);
        let reading = tokio::task::spawn_blocking(move || {
            let past = tables.changes_from(from, ROWS_AT_ONCE).map_err(|error| told(&error))?;
            messages(&tables, &filter, &past, until)
        });
        reading.await.unwrap_or_else(|_| {
            let panicked = ApiError::new(ErrorCode::NodeFailed, "reading the past panicked: watch on another node");
            Err(End::Told(Err(panicked.into())))
        })
    }

    async fn bookmark(&mut self) -> Result<(), End> {
        let end = self.until.is_some_and(|until| self.sent >= until);
        let bookmark = Bookmark { revision: self.sent.0, end };
        self.send(WatchResponse { item: Some(Item::Bookmark(bookmark)) }).await
    }

    async fn send(&mut self, message: WatchResponse) -> Result<(), End> {
        match timeout(TAKEN_WITHIN, self.tx.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(End::Gone),
            Err(_elapsed) => {
                let reason = format!("nothing was taken for {} s", TAKEN_WITHIN.as_secs());
                let lagged = Lagged { resume_from: self.sent.0 + 1, reason };
                Err(End::Told(Ok(WatchResponse { item: Some(Item::Lagged(lagged)) })))
            }
        }
    }
}

fn stopping() -> End {
    End::Told(Err(ApiError::new(ErrorCode::Stopping, "this node stops: watch on another one").into()))
}

/// What a page says to a watch, and how far it leads.
fn messages(
    tables: &Tables,
    filter: &Filter,
    past: &Past,
    until: Option<Revision>,
) -> Result<(Vec<WatchResponse>, Revision), End> {
    let view = tables.view(None).map_err(|error| told(&error))?;
    let reached = until.map_or(past.reached, |until| past.reached.min(until));
    let mut messages = Vec::new();
    for change in past.changes.iter().filter(|change| change.revision <= reached) {
        let events = filter.events(&view, change).map_err(|error| told(&error))?;
        if events.is_empty() {
            continue;
        }
        let parts = parts(events);
        let last = parts.len() - 1;
        messages.extend(parts.into_iter().enumerate().map(|(at, events)| {
            let events = Events { revision: change.revision.0, events, more: at < last };
            WatchResponse { item: Some(Item::Events(events)) }
        }));
    }
    Ok((messages, reached))
}

fn told(error: &zyflow_storage::tables::TablesError) -> End {
    let status: Status = tables_status(error);
    End::Told(Err(status))
}
