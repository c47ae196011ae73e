//! The proposer's loop: wait for one event, then decide without waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::WriteResult;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, error};
use zyflow_machine::format;
use zyflow_machine::id::ClusterTime;
use zyflow_storage::types::TypeConfig;

use super::batch::{SealedBatch, Sealer};
use super::forward::{ForwardLink, fate_of, retry_or_lose};
use super::{Answer, COMMANDS_PER_ENTRY_MAX, ENTRIES_PER_WRITE_MAX, PROPOSALS_WAITING_MAX, Proposal, RETRY_PAUSE};
use crate::error::{Fate, ProposeError};
use crate::shared::{Route, Shared, stopped};

/// The task that owns every proposal of this node between its caller and the log or the leader.
pub(crate) struct Proposer {
    shared: Arc<Shared>,
    sealer: Sealer,
    rx: mpsc::Receiver<Proposal>,
    stop: watch::Receiver<bool>,
    /// Could not be passed on yet, oldest first.
    waiting: VecDeque<Proposal>,
    /// Handed to openraft; each gives back what has to be proposed again.
    writes: FuturesUnordered<BoxFuture<'static, Vec<Proposal>>>,
    link: Option<ForwardLink>,
    returned_tx: mpsc::UnboundedSender<Vec<Proposal>>,
    returned: mpsc::UnboundedReceiver<Vec<Proposal>>,
    /// Nothing is passed on before this.
    rest_until: Option<Instant>,
    /// Why nothing is passed on though this node leads.
    obstacle: Option<ProposeError>,
}

enum Event {
    Arrived(Vec<Proposal>),
    Back(Vec<Proposal>),
    LeaderChanged,
    Room,
    Woke,
    Stop,
}

impl Proposer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sealer: Sealer,
        rx: mpsc::Receiver<Proposal>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (returned_tx, returned) = mpsc::unbounded_channel();
        Self {
            shared,
            sealer,
            rx,
            stop,
            waiting: VecDeque::new(),
            writes: FuturesUnordered::new(),
            link: None,
            returned_tx,
            returned,
            rest_until: None,
            obstacle: None,
        }
    }

    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let mut leadership = self.shared.raft.server_metrics();
        loop {
            let event = self.next_event(&mut leadership).await;
            match event {
                Event::Arrived(proposals) => self.waiting.extend(proposals),
                Event::Back(proposals) => self.take_back(proposals),
                Event::LeaderChanged => self.rest_until = None,
                Event::Room => {}
                Event::Woke => self.expire(),
                Event::Stop => break,
            }
            self.pass_on().await;
        }
        self.rx.close();
        while let Ok(proposal) = self.rx.try_recv() {
            self.waiting.push_back(proposal);
        }
        let failed = self.shared.fatal.borrow().as_ref().map(ToString::to_string);
        for proposal in self.waiting {
            let fate = fate_of(&proposal);
            let error = failed.clone().map_or(ProposeError::Stopping(fate), ProposeError::Fatal);
            proposal.ticket.answer(Answer::Error(error));
        }
    }

    async fn next_event(
        &mut self,
        leadership: &mut WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    ) -> Event {
        let now = Instant::now();
        let deadline = self.waiting.iter().map(|proposal| proposal.ticket.deadline).min();
        let rest = self.rest_until.filter(|_| !self.waiting.is_empty());
        let wake = deadline.into_iter().chain(rest).min();
        let wants_room = rest.is_none() && !self.waiting.is_empty();
        let mut arrived = Vec::new();
        let free = PROPOSALS_WAITING_MAX.saturating_sub(self.waiting.len());
        let event = tokio::select! {
            Some(back) = self.writes.next(), if !self.writes.is_empty() => Event::Back(back),
            Some(back) = self.returned.recv() => Event::Back(back),
            count = self.rx.recv_many(&mut arrived, free), if free > 0 => {
                if count == 0 { Event::Stop } else { Event::Arrived(Vec::new()) }
            }
            changed = leadership.changed() => {
                if changed.is_err() { Event::Stop } else { Event::LeaderChanged }
            }
            () = has_room(self.link.as_ref()), if wants_room && self.link.is_some() => Event::Room,
            () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => Event::Woke,
            () = stopped(&mut self.stop) => Event::Stop,
        };
        if matches!(event, Event::Arrived(_)) {
            // Whoever was woken with the one that came first gets into the same entry.
            tokio::task::yield_now().await;
            while arrived.len() < free
                && let Ok(proposal) = self.rx.try_recv()
            {
                arrived.push(proposal);
            }
            return Event::Arrived(arrived);
        }
        event
    }

    /// What comes back goes to the front: it is older than what waits.
    fn take_back(&mut self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        self.shared.counters.retries.add(proposals.len());
        self.rest_until = Some(Instant::now() + RETRY_PAUSE);
        for proposal in proposals.into_iter().rev() {
            self.waiting.push_front(proposal);
        }
    }

    /// Answers those whose time is over.
    fn expire(&mut self) {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| until <= now) {
            self.rest_until = None;
        }
        let (over, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|proposal| proposal.ticket.deadline <= now);
        self.waiting = rest;
        for proposal in over {
            let fate = fate_of(&proposal);
            let error = match (&self.obstacle, fate) {
                (Some(obstacle), Fate::Nothing) => obstacle.clone(),
                (Some(_) | None, fate) => self.shared.verdict(fate, proposal.ticket.since),
            };
            proposal.ticket.answer(Answer::Error(error));
        }
    }

    async fn pass_on(&mut self) {
        let route = self.shared.route();
        match &route {
            Route::There { node, .. } if self.link.as_ref().is_some_and(|link| link.leader == *node) => {}
            Route::Here | Route::There { .. } | Route::Nowhere => self.link = None,
        }
        if route != Route::Here {
            self.obstacle = None;
            self.turn_peers_away();
        }
        if self.waiting.is_empty() || self.rest_until.is_some() {
            return;
        }
        match route {
            Route::Here => self.write().await,
            Route::There { node, address } => self.forward(node, address),
            Route::Nowhere => {}
        }
    }

    /// What peers forwarded is not forwarded again, or two nodes that each take the other for the leader would play ball.
    fn turn_peers_away(&mut self) {
        if !self.waiting.iter().any(|proposal| proposal.ticket.is_forwarded()) {
            return;
        }
        let (theirs, ours): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|proposal| proposal.ticket.is_forwarded());
        self.waiting = ours;
        for proposal in theirs {
            proposal.ticket.answer(Answer::NotLeader);
        }
    }

    fn forward(&mut self, node: u64, address: String) {
        let link = self.link.get_or_insert_with(|| {
            debug!(leader = node, "forwarding to the leader");
            ForwardLink::open(Arc::clone(&self.shared.peers), node, address, self.returned_tx.clone())
        });
        while let Some(proposal) = self.waiting.pop_front() {
            match link.tx.try_send(proposal) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(proposal)) => {
                    self.waiting.push_front(proposal);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(proposal)) => {
                    // The stream broke; it is opened again after a rest.
                    self.waiting.push_front(proposal);
                    self.link = None;
                    self.rest_until = Some(Instant::now() + RETRY_PAUSE);
                    return;
                }
            }
        }
    }

    /// Seals what waits and hands it to openraft, as far as writes may be under way.
    async fn write(&mut self) {
        while !self.waiting.is_empty() && self.writes.len() < self.shared.config.writes_in_flight {
            self.obstacle = self.shared.obstacle();
            match &self.obstacle {
                None => {}
                Some(full @ ProposeError::DiskFull { .. }) => {
                    for proposal in std::mem::take(&mut self.waiting) {
                        proposal.ticket.answer(Answer::Error(full.clone()));
                    }
                    return;
                }
                Some(_passing) => {
                    self.rest_until = Some(Instant::now() + RETRY_PAUSE);
                    return;
                }
            }
            let batches = self.seal_some();
            if batches.is_empty() {
                continue;
            }
            let payloads: Vec<_> = batches.iter().map(|batch| batch.payload.clone()).collect();
            match self.shared.raft.client_write_many(payloads).await {
                Ok(results) => self.writes.push(Box::pin(settle(results, batches))),
                Err(fatal) => fail(batches, &fatal, Fate::Nothing),
            }
        }
    }

    fn seal_some(&mut self) -> Vec<SealedBatch> {
        let stamped = ClusterTime(self.shared.peers.now_ms());
        let mut batches = Vec::new();
        while batches.len() < ENTRIES_PER_WRITE_MAX && !self.waiting.is_empty() {
            let count = self.waiting.len().min(COMMANDS_PER_ENTRY_MAX);
            let proposals: Vec<_> = self
                .waiting
                .drain(..count)
                .filter(|proposal| !proposal.ticket.is_abandoned() && proposal.ticket.phase.submit())
                .collect();
            batches.extend(self.sealer.seal(proposals, stamped));
        }
        batches
    }
}

/// Waits until the link takes another proposal, or is closed.
async fn has_room(link: Option<&ForwardLink>) {
    if let Some(link) = link {
        // Closed is for the next attempt to find out.
        drop(link.tx.reserve().await);
    }
}

/// Answers the proposals of a write as its entries are applied. Gives back what has to be proposed again.
async fn settle(
    mut results: BoxStream<'static, Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>>,
    batches: Vec<SealedBatch>,
) -> Vec<Proposal> {
    let mut back = Vec::new();
    let mut batches = batches.into_iter();
    while let Some(batch) = batches.next() {
        match results.next().await {
            Some(Ok(Ok(written))) => {
                let outcomes = written.response.outcomes;
                assert_eq!(outcomes.len(), batch.tickets.len(), "the machine answers every command of an entry");
                for (ticket, outcome) in batch.tickets.into_iter().zip(outcomes) {
                    let outcome = format::decode_outcome(&outcome).expect("invariant: this node encoded it just now");
                    ticket.answer(Answer::Outcome(outcome));
                }
            }
            Some(Ok(Err(ClientWriteError::LogEntryDiscarded(_)))) => {
                let reason = "another leader took over while the entry was under way";
                back.extend(batch.into_proposals().filter_map(|proposal| retry_or_lose(proposal, reason)));
            }
            Some(Ok(Err(_not_appended))) => {
                for proposal in batch.into_proposals() {
                    proposal.ticket.phase.withdraw();
                    back.push(proposal);
                }
            }
            // openraft is gone: what it had may be in the log or not.
            Some(Err(fatal)) => fail(std::iter::once(batch).chain(batches.by_ref()), &fatal, Fate::Unknown),
            None => fail(std::iter::once(batch).chain(batches.by_ref()), &Fatal::Stopped, Fate::Unknown),
        }
    }
    back
}

/// Answers everyone when openraft has stopped.
fn fail(batches: impl IntoIterator<Item = SealedBatch>, fatal: &Fatal<TypeConfig>, fate: Fate) {
    for ticket in batches.into_iter().flat_map(|batch| batch.tickets) {
        let error = match fatal {
            Fatal::Stopped => ProposeError::Stopping(fate),
            Fatal::StorageError(_) | Fatal::Panicked => {
                error!(%fatal, "consensus stopped while an entry was under way");
                ProposeError::Fatal(fatal.to_string())
            }
        };
        ticket.answer(Answer::Error(error));
    }
}
