//! A session: numbers requests, so that proposing one again has no second effect (Ongaro 2014, section 6.3).
//!
//! It opens itself at the first proposal. A request keeps its number through every retry and every node. If the session has
//! expired before the request was ever sent, a new one is opened and nobody notices; if it expires between a try without an
//! answer and the next, nobody can know whether the first was applied, and the caller is told so.

use crate::client::Client;
use crate::error::ClientError;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use zyflow_machine::command::{Author, Body, Command};
use zyflow_machine::id::{RequestId, SessionId};
use zyflow_machine::outcome::{Outcome, Reject};

/// Most outstanding requests of one session: half of the 256 outcomes that the machine keeps, so that no answer is
/// forgotten while a slower one is still being retried.
const OUTSTANDING_MAX: usize = 128;

/// One proposer. Cheap; make one per independent writer.
pub struct Session {
    client: Client,
    author: String,
    slot: usize,
    numbering: Mutex<Option<Numbering>>,
    opening: tokio::sync::Mutex<()>,
    outstanding: Semaphore,
}

struct Numbering {
    id: SessionId,
    next: u64,
}

impl Session {
    /// A session that opens itself when it is needed. `slot` spreads sessions over the connections of a client.
    #[must_use]
    pub fn new(client: Client, author: impl Into<String>, slot: usize) -> Self {
        Self {
            client,
            author: author.into(),
            slot,
            numbering: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            outstanding: Semaphore::new(OUTSTANDING_MAX),
        }
    }

    /// Proposes until it is decided. The outcome is the first one also where a retry was answered as a duplicate.
    ///
    /// # Errors
    /// See [`ClientError`]; with [`ClientError::Deadline`] the command may still be applied.
    pub async fn propose(&self, body: Body, within: Duration) -> Result<Outcome, ClientError> {
        let end = Instant::now() + within;
        let _turn = self.turn().await;
        let mut command = Command { request: None, author: self.author(), body };
        let mut may_reopen = true;
        loop {
            let request = self.next_request(end).await?;
            command.request = Some(request);
            let decision = self.client.decide(&command, self.slot, until(end)).await?;
            match decision.outcome {
                Outcome::Duplicate(first) => return Ok(*first),
                Outcome::Rejected(reject @ (Reject::SessionExpired | Reject::RequestTooOld { .. })) => {
                    self.forget(request.session);
                    if decision.was_in_doubt || !may_reopen {
                        return Err(ClientError::FateUnknown { reject });
                    }
                    may_reopen = false;
                }
                decided @ (Outcome::Accepted { .. } | Outcome::Stale { .. } | Outcome::Rejected(_)) => {
                    return Ok(decided);
                }
            }
        }
    }

    /// Closes the session, if it was opened. Without this it expires by itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn close(self, within: Duration) -> Result<(), ClientError> {
        let request = self.numbered();
        if request.is_some() {
            let command = Command { request, author: self.author(), body: Body::CloseSession };
            self.client.decide(&command, self.slot, within).await?;
        }
        Ok(())
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.outstanding.acquire().await.expect("invariant: this semaphore is never closed")
    }

    fn author(&self) -> Author {
        // A clock before 1970 is shown as 1970: the author's clock is text for people, nothing compares it.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Author { name: self.author.clone(), clock_ms }
    }

    /// The number of the next request; opens the session first where there is none.
    async fn next_request(&self, end: Instant) -> Result<RequestId, ClientError> {
        if let Some(request) = self.numbered() {
            return Ok(request);
        }
        let _opening = self.opening.lock().await;
        if let Some(request) = self.numbered() {
            return Ok(request);
        }
        let command = Command { request: None, author: self.author(), body: Body::OpenSession };
        let outcome = self.client.decide(&command, self.slot, until(end)).await?.outcome;
        let id = match &outcome {
            Outcome::Accepted { created, .. } => created.first().map(|id| SessionId(id.0)),
            Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_) => None,
        };
        let id = id.ok_or_else(|| ClientError::Protocol {
            address: "the cluster".to_owned(),
            problem: format!("the opening of a session with {outcome:?}"),
        })?;
        *self.numbering.lock().unwrap_or_else(PoisonError::into_inner) = Some(Numbering { id, next: 2 });
        Ok(RequestId { session: id, seq: 1 })
    }

    fn numbered(&self) -> Option<RequestId> {
        let mut numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        numbering.as_mut().map(|numbering| {
            numbering.next += 1;
            RequestId { session: numbering.id, seq: numbering.next - 1 }
        })
    }

    /// Forgets an expired session, unless another caller has opened a new one already.
    fn forget(&self, expired: SessionId) {
        let mut numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        if numbering.as_ref().is_some_and(|numbering| numbering.id == expired) {
            *numbering = None;
        }
    }
}

fn until(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}
