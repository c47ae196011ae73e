//! Commands on their way to the cluster: at most one per file, stored before they fly, so that after a restart they fly again under
//! the same request id and have no second effect.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use zyflow_machine::command::Body;
use zyflow_machine::id::{RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_spec::{Known, align, parse};

use super::run::Engine;
use crate::base::Flight;
use crate::cluster::{Cluster, ClusterError};
use crate::path::FilePath;
use crate::plan::{By, Proposal};
use crate::status::{FileState, Offline};
use crate::text::KnownText;

/// Most commands of one checkout that fly at once: enough to fill a batch, few enough for the session's window.
const FLIGHTS_MAX: usize = 32;

/// A session keeps 256 outcomes; a request must not fall that far behind a newer one. Half of it, for good measure.
const SEQ_SPREAD_MAX: u64 = 128;

/// The session of this run. A new one at each start: what an earlier run proposed keeps that run's session in its request id.
#[derive(Debug, Default)]
pub(super) enum Session {
    #[default]
    None,
    Opening,
    Open {
        id: SessionId,
        next: u64,
        /// The revision that opened it. What went out under an earlier session and has a revision at all has an earlier one: nothing is
        /// proposed before that much was looked at, or an accepted edit whose answer is lost would be made twice.
        since: Revision,
    },
}

/// What came back.
pub(super) struct Landed {
    cargo: Cargo,
    result: Result<Outcome, ClusterError>,
}

/// What a command is for.
pub(super) enum Cargo {
    OpenSession,
    File(FilePath),
    /// The rollback point before deletions that were confirmed.
    Point,
}

impl<C: Cluster> Engine<C> {
    /// Stores a proposal and lets it fly; where it can't yet, the file is looked at again when it can.
    ///
    /// While the cluster doesn't answer, one command knocks on its door and all other files wait as they are: whatever they are
    /// edited to meanwhile is merged in one pass once it answers.
    pub(super) fn launch(&mut self, path: &FilePath, proposal: Proposal, displaced: Option<String>, now: Instant) {
        let is_knocking = self.offline.is_some() && self.files.values().any(|file| file.record.flight.is_some());
        let request = if is_knocking { None } else { self.next_request() };
        let Some(request) = request else {
            self.waiting.insert(path.clone());
            let state = self.offline.as_ref().map(|offline| FileState::Unsynced(offline.reason.clone()));
            if let Some(file) = self.files.get_mut(path) {
                file.state = state.unwrap_or(FileState::Syncing);
            }
            return;
        };
        let Some(file) = self.files.get_mut(path) else { return };
        let Proposal { body, text, ids, start } = proposal;
        tracing::debug!(path = path.as_str(), ?start, seq = request.seq, "edit is proposed");
        file.record.flight = Some(Flight { request, body, text, ids, displaced });
        if let Err(error) = self.store.save(path, &file.record) {
            file.record.flight = None;
            self.retry(path, format!("what is proposed could not be stored: {error}"), now);
            return;
        }
        self.fly(path);
    }

    /// Lets the stored command of a file fly, again if need be.
    pub(super) fn fly(&mut self, path: &FilePath) {
        let Some(file) = self.files.get_mut(path) else { return };
        let Some(flight) = &file.record.flight else { return };
        let (request, body) = (Some(flight.request), flight.body.clone());
        file.is_flying = true;
        file.state = FileState::Syncing;
        self.send(Cargo::File(path.clone()), request, body);
    }

    pub(super) fn send(&mut self, cargo: Cargo, request: Option<RequestId>, body: Body) {
        let cluster = Arc::clone(&self.cluster);
        let author = self.config.author.clone();
        self.flights.spawn(async move {
            let result = cluster.propose(request, body, &author).await;
            Landed { cargo, result }
        });
    }

    fn next_request(&mut self) -> Option<RequestId> {
        let (session, next, since) = match &self.session {
            Session::Open { since, .. } if self.applied_then < *since => return None,
            Session::Open { id, next, since } => (*id, *next, *since),
            Session::Opening => return None,
            Session::None => {
                self.session = Session::Opening;
                self.send(Cargo::OpenSession, None, Body::OpenSession);
                return None;
            }
        };
        let flying = self.files.values().filter_map(|file| file.record.flight.as_ref());
        let oldest =
            flying.map(|flight| flight.request).filter(|request| request.session == session).map(|r| r.seq).min();
        let is_too_far = oldest.is_some_and(|oldest| next - oldest >= SEQ_SPREAD_MAX);
        if self.flights.len() >= FLIGHTS_MAX || is_too_far {
            return None;
        }
        self.session = Session::Open { id: session, next: next + 1, since };
        Some(RequestId { session, seq: next })
    }

    /// A command came back.
    pub(super) fn land(&mut self, landed: Landed, now: Instant) {
        let Landed { cargo, result } = landed;
        if let Cargo::File(path) = &cargo
            && let Some(file) = self.files.get_mut(path)
        {
            file.is_flying = false;
        }
        let outcome = match result {
            Ok(outcome) => first(outcome),
            Err(error) => return self.unanswered(cargo, error.to_string(), now),
        };
        if self.offline.take().is_some() {
            tracing::info!(root = %self.config.root.display(), "the cluster answers again");
        }
        match cargo {
            Cargo::OpenSession => self.session_opened(&outcome, now),
            Cargo::File(path) => self.decided(&path, outcome, now),
            Cargo::Point => self.point_decided(&outcome, now),
        }
        self.wake(now);
    }

    /// Files that waited for their turn to propose are looked at again.
    pub(super) fn wake(&mut self, now: Instant) {
        for path in std::mem::take(&mut self.waiting) {
            if let Some(file) = self.files.get_mut(&path) {
                file.due_now(now);
            }
        }
    }

    /// The cluster doesn't answer: what was asked is asked again after a pause. Where that was a session, a file that waits for it asks.
    fn unanswered(&mut self, cargo: Cargo, reason: String, now: Instant) {
        let since = self.offline.take().map_or_else(SystemTime::now, |offline| offline.since);
        self.offline = Some(Offline { since, reason: reason.clone() });
        match cargo {
            Cargo::File(path) => self.retry(&path, reason, now),
            Cargo::OpenSession => self.no_session(&reason, now),
            Cargo::Point => self.point_unanswered(now),
        }
    }

    fn session_opened(&mut self, outcome: &Outcome, now: Instant) {
        match outcome {
            Outcome::Accepted { revision, created } if created.len() == 1 => {
                self.session = Session::Open { id: SessionId(created[0].0), next: 1, since: *revision };
            }
            Outcome::Accepted { .. } | Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_) => {
                tracing::error!(?outcome, "the cluster refused a session");
                self.no_session("the cluster refused a session", now);
            }
        }
    }

    fn no_session(&mut self, reason: &str, now: Instant) {
        self.session = Session::None;
        for path in std::mem::take(&mut self.waiting) {
            self.retry(&path, reason.to_owned(), now);
        }
    }

    fn decided(&mut self, path: &FilePath, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Accepted { revision, created } => self.accepted(path, revision, &created, now),
            Outcome::Stale { revision, .. } => self.dropped(path, Some(revision), now),
            Outcome::Rejected(Reject::SessionExpired | Reject::RequestTooOld { .. }) => {
                // Whether it happened is not known any more: the merge sees what is there and folds what is equal.
                tracing::warn!(path = path.as_str(), "a proposal's fate is unknown; the file is merged anew");
                self.session = Session::None;
                self.dropped(path, None, now);
            }
            Outcome::Rejected(reject) => {
                self.is_list_due = true;
                self.dropped(path, None, now);
                self.retry(path, refusal(path, &reject), now);
            }
            Outcome::Duplicate(_) => unreachable!("`land` unwraps duplicates"),
        }
    }

    /// The command had no effect: forget it and plan anew, not before what it was held against is applied here.
    fn dropped(&mut self, path: &FilePath, revision: Option<Revision>, now: Instant) {
        let applied = *self.applied.borrow();
        let Some(file) = self.files.get_mut(path) else { return };
        file.record.flight = None;
        file.wait_for(revision.unwrap_or_default(), applied, now);
        self.save(path, now);
    }

    fn accepted(&mut self, path: &FilePath, revision: Revision, created: &[RecordId], now: Instant) {
        let Some(file) = self.files.get(path) else { return };
        let Some(flight) = file.record.flight.clone() else { return };
        if matches!(flight.body, Body::DeleteChange { .. }) {
            self.deletion_accepted(path, revision, now);
            return;
        }
        if let Body::MoveChange { change, from, .. } = &flight.body {
            return self.move_accepted(path, from, *change, revision, now);
        }
        let made = created.first().filter(|_| matches!(flight.body, Body::CreateChange { .. })).copied();
        let edited = if let Body::Edit { change, .. } = &flight.body { Some(*change) } else { None };
        let Some(change) = edited.or(made) else {
            tracing::error!(path = path.as_str(), %revision, "an accepted command doesn't say what it created");
            self.dropped(path, Some(revision), now);
            return;
        };
        let text = match flight.named_text(created, revision) {
            Some(text) => text,
            None if *self.applied.borrow() < revision => {
                // The ids are read from the document once it is here; until then the command stands, and is asked for again.
                let applied = *self.applied.borrow();
                if let Some(file) = self.files.get_mut(path) {
                    file.wait_for(revision, applied, now);
                }
                return;
            }
            None => match self.aligned(change, revision, flight.text.as_deref().unwrap_or_default()) {
                Ok(text) => text,
                Err(reason) => {
                    tracing::error!(path = path.as_str(), reason, "an accepted text is merged anew");
                    return self.dropped(path, Some(revision), now);
                }
            },
        };
        // Whatever is listed here may be newer than the answer: by then the change may be gone again, and another at the path.
        self.is_list_due |= self.sides.insert(path.clone(), (change, false)) != Some((change, false));
        let displaced = flight.displaced.as_deref().map(|name| self.displaced_accepted(name, &text));
        let applied = *self.applied.borrow();
        let Some(file) = self.files.get_mut(path) else { return };
        file.record.flight = None;
        file.retries = 0;
        if displaced.is_some() {
            // What was accepted is not what stands on the disk: that is held against a cluster that has it.
            file.record.show_below_newest(change, text);
            file.wait_for(revision, applied, now);
        } else {
            file.record.show(change, text, By::Writer);
            file.is_watched = true;
            file.due_now(now);
        }
        self.binding.asked.remove(path.as_str());
        self.save(path, now);
    }

    /// The ids of a text that was accepted, by aligning it with the document that it led to.
    fn aligned(&self, change: RecordId, revision: Revision, text: &str) -> Result<KnownText, String> {
        let document = self.cluster.document(change, Some(revision)).map_err(|error| error.to_string())?;
        let document = document.ok_or_else(|| format!("change {change} is unknown at revision {revision}"))?;
        let parsed = parse(text);
        let ids = align(&document.blocks, &parsed);
        let blocks = ids.into_iter().zip(parsed.blocks).map(|(id, block)| Some(Known { id: id?, block }));
        let blocks: Option<Vec<_>> = blocks.collect();
        let blocks = blocks.ok_or_else(|| format!("the text differs from the document at revision {revision}"))?;
        Ok(KnownText { revision, blocks })
    }

    /// Nothing is agreed on from here on. A rollback may have brought the change back before this was heard: with the old text still agreed
    /// on, the missing file would look like another deletion.
    fn deletion_accepted(&mut self, path: &FilePath, revision: Revision, now: Instant) {
        tracing::info!(path = path.as_str(), "deletion was accepted");
        if let Some((_, is_deleted)) = self.sides.get_mut(path) {
            *is_deleted = true;
        }
        let applied = *self.applied.borrow();
        // What was listed may be newer than the answer.
        self.is_list_due |= applied > revision;
        let Some(file) = self.files.get_mut(path) else { return };
        file.record.flight = None;
        file.is_deletion_confirmed = false;
        self.forget(path, now);
        if let Some(file) = self.files.get_mut(path) {
            file.wait_for(revision, applied, now);
        }
    }
}

/// Why the cluster refused a command about a file, for the person whose file it is.
fn refusal(path: &FilePath, reject: &Reject) -> String {
    if let Reject::Exists { name, .. } = reject
        && name != path.as_str()
    {
        return format!(
            "its name differs from `{name}`, which is synced, only by upper and lower case: rename one of them"
        );
    }
    reject.to_string()
}

/// The outcome itself, also where the request was answered before.
fn first(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Duplicate(first_outcome) => first(*first_outcome),
        decided @ (Outcome::Accepted { .. } | Outcome::Stale { .. } | Outcome::Rejected(_)) => decided,
    }
}
