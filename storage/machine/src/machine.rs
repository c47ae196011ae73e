//! Applies batches: the one way in which the state changes.
//!
//! ```text
//!   entry at revision R ──> sweep sessions idle too long
//!     command ──> session: answered before? ──> first answer, as Duplicate
//!             ──> decide over the scratch view ──> events ──evolve──> rows        (all of it, or undone)
//!             ──> outcome, kept by the session
//!   ──> rows of all commands, in version order; digest, cluster time, revision move
//! ```
//!
//! The machine holds only what isn't rows: revision, cluster time, digest and sessions. It does no IO and never fails on what
//! a command says; a view that can't be read is the only error, and then the machine must be thrown away.

use crate::command::{Batch, Body, Command};
use crate::decide::{Cause, Halt, ROLLBACK_NOT_FIRST, decide};
use crate::digest::Digest;
use crate::event::{Provenance, RowChange};
use crate::format::{self, FormatError, HEADER_FORMAT};
use crate::id::{ClusterTime, REVISION_MAX, RecordId, Revision, SessionId};
use crate::limits::{self, check};
use crate::outcome::{Outcome, Reject};
use crate::scratch::{OUT_OF_ORDINALS, Scratch};
use crate::session::{Seen, Sessions};
use crate::view::View;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All state that isn't rows.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    revision: Revision,
    time: ClusterTime,
    rows: Digest,
    sessions: Sessions,
    /// A view failed half-way through a batch.
    is_torn: bool,
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// The versions that were made, in version order, each with who and when.
    pub rows: Vec<(RowChange, Arc<Provenance>)>,
}

/// The machine without its sessions, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What [`Machine::restore`] takes.
    pub header: Vec<u8>,
    /// The revision it was saved at.
    pub revision: Revision,
    /// The digest then.
    pub digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Header {
    revision: Revision,
    time: ClusterTime,
    rows: Digest,
    sessions: Digest,
}

impl Machine {
    /// At the start of a lineage: nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision that was applied last.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The largest stamp so far.
    #[must_use]
    pub fn cluster_time(&self) -> ClusterTime {
        self.time
    }

    /// Of all live rows and of all sessions.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.rows.add(self.sessions.digest())
    }

    /// Of all live rows alone: what a scan of the tables must add up to.
    #[must_use]
    pub fn rows_digest(&self) -> Digest {
        self.rows
    }

    /// A blank or membership entry: only the revision moves. The first entry of a log may have index 0, where a new machine stands.
    ///
    /// # Panics
    /// Where `revision` isn't after the last one: the caller applies out of order.
    pub fn skip(&mut self, revision: Revision) {
        if revision > Revision::default() || self.revision > revision {
            self.check_order(revision);
        }
        self.revision = revision;
    }

    /// Applies a batch: commands in order, each sees the effects of those before. `view` is the state at the revision before; the caller then
    /// stores all rows.
    ///
    /// # Errors
    /// Where the view can't be read. The machine has then done half of the batch and must be dropped.
    ///
    /// # Panics
    /// Where `revision` isn't after the last one, or an earlier call failed.
    pub fn apply<V: View>(&mut self, view: &V, revision: Revision, batch: &Batch) -> Result<Effects, V::Error> {
        self.check_order(revision);
        self.is_torn = true;
        self.sessions.sweep(revision);
        self.time = self.time.max(batch.stamped);
        let mut scratch = Scratch::new(view, revision);
        let mut effects = Effects {
            outcomes: Vec::with_capacity(batch.commands.len()),
            rows: Vec::with_capacity(batch.commands.len()),
        };
        for (index, command) in batch.commands.iter().enumerate() {
            let outcome = match check("commands of one entry", index + 1, limits::COMMANDS_PER_BATCH_MAX) {
                Ok(()) => self.step(&mut scratch, command, &mut effects.rows)?,
                Err(reject) => Outcome::Rejected(reject),
            };
            effects.outcomes.push(outcome);
        }
        self.revision = revision;
        self.is_torn = false;
        Ok(effects)
    }

    fn check_order(&self, revision: Revision) {
        assert!(!self.is_torn, "the machine is used after a view failed while it applied");
        assert!(revision > self.revision, "revision {revision} is applied after revision {}", self.revision);
        assert!(revision.0 <= REVISION_MAX, "revision {revision} is past the last one that an event id can hold");
    }

    fn step<V: View>(
        &mut self,
        scratch: &mut Scratch<'_, V>,
        command: &Command,
        rows: &mut Vec<(RowChange, Arc<Provenance>)>,
    ) -> Result<Outcome, V::Error> {
        let revision = scratch.revision();
        if let Some(request) = command.request {
            match self.sessions.look_up(request, revision) {
                Seen::Never => {}
                Seen::Before(outcome) => return Ok(Outcome::Duplicate(Box::new(outcome))),
                Seen::Refused(reject) => return Ok(Outcome::Rejected(reject)),
            }
        }
        let outcome = match self.perform(scratch, command) {
            Ok(created) => Outcome::Accepted { revision, created },
            Err(Halt::Outcome(outcome)) => outcome,
            Err(Halt::View(error)) => return Err(error),
        };
        if matches!(outcome, Outcome::Accepted { .. }) {
            let provenance = Provenance { author: command.author.clone(), time: self.time, request: command.request };
            let provenance = Arc::new(provenance);
            let (digest, made) = scratch.commit(self.rows);
            self.rows = digest;
            rows.extend(made.map(|row| (row, Arc::clone(&provenance))));
        } else {
            scratch.undo();
        }
        if let Some(request) = command.request
            && !is_for_another_entry(&outcome)
        {
            self.sessions.remember(request, revision, &outcome);
        }
        Ok(outcome)
    }

    fn perform<V: View>(
        &mut self,
        scratch: &mut Scratch<'_, V>,
        command: &Command,
    ) -> Result<Vec<RecordId>, Halt<V::Error>> {
        check("bytes of an author's name", command.author.name.len(), limits::NAME_BYTES_MAX)?;
        match (&command.body, command.request) {
            (Body::OpenSession, _) => {
                let id = scratch.take_id()?;
                self.sessions.open(SessionId(id), scratch.revision());
                Ok(vec![RecordId(id)])
            }
            (Body::CloseSession, Some(request)) => {
                self.sessions.close(request.session);
                Ok(Vec::new())
            }
            (Body::CloseSession, None) => {
                Err(Reject::Invalid("only a request of a session can close it".to_owned()).into())
            }
            (body, _) => decide(scratch, Cause { author: &command.author.name, now: self.time }, body),
        }
    }

    /// The header at this revision. It belongs with the sessions at this revision, so take [`Self::take_dirty_sessions`] in the
    /// same moment and store both with the rows up to here, in one transaction.
    #[must_use]
    pub fn save(&self) -> Saved {
        let header =
            Header { revision: self.revision, time: self.time, rows: self.rows, sessions: self.sessions.digest() };
        Saved { header: format::encode(HEADER_FORMAT, &header), revision: self.revision, digest: self.digest() }
    }

    /// Sessions that changed since the last call, with their bytes; `None` = closed or expired: delete it.
    pub fn take_dirty_sessions(&mut self) -> Vec<(SessionId, Option<Vec<u8>>)> {
        self.sessions.take_dirty()
    }

    /// All sessions, with their bytes.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Vec<u8>)> {
        self.sessions.save()
    }

    /// At the beginning of a cluster that goes on from a backup: rows with that digest, and no sessions.
    #[must_use]
    pub fn begin_at(revision: Revision, time: ClusterTime, rows: Digest) -> Self {
        Self { revision, time, rows, ..Self::default() }
    }

    /// The machine that was saved: [`Saved::header`] and every session that was stored up to then.
    ///
    /// # Errors
    /// Where bytes are of another version or damaged, or the sessions aren't those that the header was saved with.
    pub fn restore(header: &[u8], sessions: impl Iterator<Item = (SessionId, Vec<u8>)>) -> Result<Self, FormatError> {
        let header: Header = format::decode("header", HEADER_FORMAT, header)?;
        let sessions = Sessions::restore(sessions)?;
        if sessions.digest() != header.sessions {
            return Err(FormatError::Inconsistent {
                what: "header",
                why: "the sessions are not those that it was saved with",
            });
        }
        if header.revision.0 > REVISION_MAX {
            return Err(FormatError::Inconsistent { what: "header", why: "its revision is too large" });
        }
        Ok(Self { revision: header.revision, time: header.time, rows: header.rows, sessions, is_torn: false })
    }
}

/// Refused for want of room in the entry, or for its place there: the same request may do better in another, so it isn't remembered.
fn is_for_another_entry(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Rejected(Reject::OverLimit { what, .. }) => what == OUT_OF_ORDINALS,
        Outcome::Rejected(Reject::Invalid(why)) => why == ROLLBACK_NOT_FIRST,
        Outcome::Accepted { .. } | Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_) => false,
    }
}
