//! Feeds one watch: reads on from where it stands, as fast as the caller takes it.
//!
//! ```text
//!     stored versions            recent changes           still to come
//!   ---------------------+------------------------+----------------------> revisions
//!            ^ sent: everything up to here is in the caller's queue
//!   read a page, filter it, queue it; at the end wait until something is applied, or it is time for a word to the caller
//! ```
//!
//! There is no queue of changes for a watch: whoever is slow simply reads older ones later. So a slow caller costs what its answers take
//! ([`super::WAITING_MAX`]), misses nothing, and is told only where it takes nothing at all for too long.
//!
//! The first bookmark tells the caller that it has all that was there when it called. So until then a node that only says that it is there
//! does so by a part without events, which promises no more than what is before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;
use zyflow_api::ApiError;
use zyflow_api::v1::watch_response::{Bookmark, Events, Item, Lagged};
use zyflow_api::v1::{ErrorCode, Event, WatchResponse};
use zyflow_machine::id::Revision;
use zyflow_raft::Consensus;
use zyflow_storage::tables::{Change, Past, Tables, TablesError};

use super::filter::{Filter, parts};
use super::pieces::Pieces;
use super::{Answer, tables_status};

/// Rows that are read at once, and converted at once: what the thread that runs consensus may be kept from its work for.
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
    /// So many events up to `sent` are wanted too: where those begin is still to be looked for.
    pub(super) newest: Option<usize>,
    /// What was applied when the watch began, until a bookmark has said that all of it was sent.
    pub(super) barrier: Option<Revision>,
    pub(super) until: Option<Revision>,
    /// When the caller was last told how far it has come.
    pub(super) spoken: Instant,
    /// When this node last knew of a quorum.
    pub(super) quorum_seen: Instant,
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

/// What a page says to a watch.
enum Page {
    /// The events of each revision that has some.
    Events(Vec<(Revision, Vec<Event>)>),
    /// Too many rows to convert them at once.
    Large(Vec<Arc<Change>>),
}

/// What a look at older events has found.
enum Back {
    /// The revision after which the wanted events are.
    Begin(Revision),
    /// So many events are still missing, and they are in this revision or before it.
    Older(Revision, usize),
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
        if let Some(wanted) = self.newest {
            self.sent = self.before_newest(wanted).await?;
            self.newest = None;
        }
        let mut applied = self.tables.applied();
        loop {
            self.catch_up(&mut applied).await?;
            if self.is_over() {
                return self.bookmark().await;
            }
            let next_word = self.spoken + BOOKMARK_INTERVAL;
            tokio::select! {
                changed = applied.changed() => {
                    if changed.is_err() {
                        return Err(stopping());
                    }
                }
                () = sleep_until(next_word) => self.say_how_far().await?,
                () = self.tx.closed() => return Err(End::Gone),
            }
        }
    }

    /// The revision after which the newest `wanted` events up to `sent` are; the oldest one where there are fewer.
    async fn before_newest(&mut self, wanted: usize) -> Result<Revision, End> {
        let (mut found, mut to, mut missing) = (self.sent, self.sent, wanted);
        while missing > 0 {
            let (tables, filter) = (self.tables.clone(), Arc::clone(&self.filter));
            match self.wait_for(move || look_back(&tables, &filter, to, missing)).await? {
                Back::Begin(begin) => (found, missing) = (begin, 0),
                Back::Older(older, more) => (to, missing) = (older, more),
            }
        }
        // It may have moved during a long search: what is still kept is told then.
        Ok(found.max(self.tables.horizon().map_err(|error| told(&error))?))
    }

    /// Sends all that is applied, page by page.
    async fn catch_up(&mut self, applied: &mut watch::Receiver<Revision>) -> Result<(), End> {
        while !self.is_over() {
            self.say_caught_up().await?;
            if self.spoken.elapsed() >= BOOKMARK_INTERVAL {
                self.say_how_far().await?;
            }
            if self.sent >= *applied.borrow_and_update() {
                return Ok(());
            }
            let (from, until) = (Revision(self.sent.0 + 1), self.until);
            let recent = self.tables.recent_changes_from(from, ROWS_AT_ONCE).map_err(|error| told(&error))?;
            let (page, reached) = if let Some(past) = recent {
                page_of(&self.tables, &self.filter, past, until).map_err(|error| told(&error))?
            } else {
                // What is long ago is read on a thread that may wait.
                let (tables, filter) = (self.tables.clone(), Arc::clone(&self.filter));
                self.wait_for(move || read_page(&tables, &filter, from, until)).await?
            };
            self.send_page(page).await?;
            self.sent = reached;
        }
        Ok(())
    }

    async fn send_page(&mut self, page: Page) -> Result<(), End> {
        match page {
            Page::Events(revisions) => {
                for (revision, events) in revisions {
                    self.arrive_at(revision).await?;
                    let last = self.send_full_parts(revision, events).await?;
                    self.send_events(revision, last, false).await?;
                }
            }
            Page::Large(changes) => {
                for change in changes {
                    self.arrive_at(change.revision).await?;
                    self.send_large(change).await?;
                }
            }
        }
        Ok(())
    }

    /// Converts and sends one piece after the other, on a thread that may wait; what doesn't fill a message waits for the next piece.
    async fn send_large(&mut self, change: Arc<Change>) -> Result<(), End> {
        let revision = change.revision;
        let (mut pieces, mut waiting) = (Pieces::new(change), Vec::new());
        while !pieces.is_over() {
            let (tables, filter) = (self.tables.clone(), Arc::clone(&self.filter));
            let (rest, events) = self.wait_for(move || next_piece(&tables, &filter, pieces)).await?;
            pieces = rest;
            waiting.extend(events);
            waiting = self.send_full_parts(revision, waiting).await?;
        }
        if waiting.is_empty() { Ok(()) } else { self.send_events(revision, waiting, false).await }
    }

    /// Sends events as far as they fill messages, and gives back the last of them: whether more follow isn't known here.
    async fn send_full_parts(&mut self, revision: Revision, events: Vec<Event>) -> Result<Vec<Event>, End> {
        let mut parts = parts(events);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send_events(revision, part, true).await?;
        }
        Ok(last)
    }

    async fn send_events(&mut self, revision: Revision, events: Vec<Event>, more: bool) -> Result<(), End> {
        self.send(Item::Events(Events { revision: revision.0, events, more })).await
    }

    /// All before this revision was sent.
    async fn arrive_at(&mut self, revision: Revision) -> Result<(), End> {
        self.sent = Revision(revision.0.saturating_sub(1));
        self.say_caught_up().await
    }

    /// A bookmark as soon as all was sent that was there when the watch began, before anything newer.
    async fn say_caught_up(&mut self) -> Result<(), End> {
        if self.barrier.is_none_or(|barrier| self.sent < barrier) {
            return Ok(());
        }
        self.barrier = None;
        self.bookmark().await
    }

    /// That this node is there, and how far the caller has come. Ends the watch where the node is no good for it any more.
    async fn say_how_far(&mut self) -> Result<(), End> {
        let status = self.consensus.status();
        if let Some(reason) = status.fatal {
            let failed = format!("this node serves nothing any more ({reason}): watch on another one");
            return Err(End::Told(Err(ApiError::new(ErrorCode::NodeFailed, failed).into())));
        }
        if status.has_quorum {
            self.quorum_seen = Instant::now();
        } else if self.quorum_seen.elapsed() > WITHOUT_QUORUM_MAX {
            let alone = "this node has no quorum, so it may not hear what happens: watch on another one";
            return Err(End::Told(Err(ApiError::new(ErrorCode::NoQuorum, alone).into())));
        }
        if self.barrier.is_none() {
            return self.bookmark().await;
        }
        self.spoken = Instant::now();
        self.send_events(self.next(), Vec::new(), true).await
    }

    async fn bookmark(&mut self) -> Result<(), End> {
        self.spoken = Instant::now();
        let bookmark = Bookmark { revision: self.sent.0, end: self.is_over() };
        self.send(Item::Bookmark(bookmark)).await
    }

    /// The revision that the caller lacks. Where it isn't known yet where the watch begins, nothing is complete: before revision 0 there
    /// is nothing.
    fn next(&self) -> Revision {
        if self.newest.is_some() { Revision::default() } else { Revision(self.sent.0 + 1) }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| self.sent >= until)
    }

    /// Does what may take long on a thread that may wait, and keeps the caller company meanwhile.
    async fn wait_for<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, TablesError> + Send + 'static,
    ) -> Result<T, End> {
        let mut working = tokio::task::spawn_blocking(work);
        loop {
            let next_word = self.spoken + BOOKMARK_INTERVAL;
            tokio::select! {
                done = &mut working => {
                    let panicked = "reading the past panicked: watch on another node";
                    let panicked = |_| End::Told(Err(ApiError::new(ErrorCode::NodeFailed, panicked).into()));
                    return done.map_err(panicked)?.map_err(|error| told(&error));
                }
                () = sleep_until(next_word) => self.say_how_far().await?,
                () = self.tx.closed() => return Err(End::Gone),
            }
        }
    }

    async fn send(&mut self, item: Item) -> Result<(), End> {
        match timeout(TAKEN_WITHIN, self.tx.send(Ok(WatchResponse { item: Some(item) }))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(End::Gone),
            Err(_elapsed) => {
                let reason = format!("nothing was taken for {} s", TAKEN_WITHIN.as_secs());
                let lagged = Lagged { resume_from: self.next().0, reason };
                Err(End::Told(Ok(WatchResponse { item: Some(Item::Lagged(lagged)) })))
            }
        }
    }
}

fn read_page(
    tables: &Tables,
    filter: &Filter,
    from: Revision,
    until: Option<Revision>,
) -> Result<(Page, Revision), TablesError> {
    page_of(tables, filter, tables.changes_from(from, ROWS_AT_ONCE)?, until)
}

/// What a page says to a watch, and how far it leads. Converts what can be converted at once.
fn page_of(
    tables: &Tables,
    filter: &Filter,
    past: Past,
    until: Option<Revision>,
) -> Result<(Page, Revision), TablesError> {
    let reached = until.map_or(past.reached, |until| past.reached.min(until));
    let mut changes = past.changes;
    changes.retain(|change| change.revision <= reached);
    if changes.iter().map(|change| change.rows.len()).sum::<usize>() > ROWS_AT_ONCE {
        return Ok((Page::Large(changes), reached));
    }
    let view = tables.view(None)?;
    let mut revisions = Vec::new();
    for change in changes {
        let events = filter.events(&view, &change)?;
        if !events.is_empty() {
            revisions.push((change.revision, events));
        }
    }
    Ok((Page::Events(revisions), reached))
}

fn next_piece(tables: &Tables, filter: &Filter, mut pieces: Pieces) -> Result<(Pieces, Vec<Event>), TablesError> {
    let events = pieces.next(filter, &tables.view(None)?)?;
    Ok((pieces, events))
}

/// Looks for the last `missing` events at or before `to`, in one page.
fn look_back(tables: &Tables, filter: &Filter, to: Revision, mut missing: usize) -> Result<Back, TablesError> {
    let view = tables.view(None)?;
    let past = tables.changes_before(to, ROWS_AT_ONCE)?;
    for change in &past.changes {
        let found = filter.count(&view, change)?;
        if found >= missing {
            return Ok(Back::Begin(Revision(change.revision.0.saturating_sub(1))));
        }
        missing -= found;
    }
    let before = Revision(past.reached.0.saturating_sub(1));
    if before >= to || before == Revision::default() {
        return tables.horizon().map(Back::Begin);
    }
    Ok(Back::Older(before, missing))
}

fn stopping() -> End {
    End::Told(Err(ApiError::new(ErrorCode::Stopping, "this node stops: watch on another one").into()))
}

fn told(error: &TablesError) -> End {
    let status: Status = tables_status(error);
    End::Told(Err(status))
}

#[cfg(test)]
mod tests;
