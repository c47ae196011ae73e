//! Exactly once: what each client was told lately, so that a request that is proposed again has no second effect.
//!
//! ```text
//!   seq    1 ........ floor | floor+1 ................ highest |
//!          too old: refused |  window: 256 outcomes, any order | new
//! ```
//!
//! After Ongaro 2014, section 6.3, but a client may have a window of requests under way at once. Sessions are
//! replicated state: they change only while applying, expire by revision and not by a clock, and are part of the digest through a chained
//! hash of everything they were told. Not here: who may open one, and retrying.

use crate::digest::Digest;
use crate::format::{self, FormatError, SESSION_FORMAT};
use crate::id::{RequestId, Revision, SessionId};
use crate::limits::{SESSION_BYTES_MAX, SESSION_IDLE_REVISIONS, SESSION_WINDOW, SESSIONS_MAX};
use crate::outcome::{Outcome, Reject};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

const WHAT: &str = "session";

/// What a session says to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not seen before: do it, then [`Sessions::remember`] the outcome.
    Never,
    /// Answered before.
    Before(Outcome),
    /// Can't be told any more, or never could.
    Refused(Reject),
}

/// All sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    live: BTreeMap<SessionId, Session>,
    /// Least recently used first.
    by_use: BTreeSet<(Revision, SessionId)>,
    /// Changed since [`Sessions::take_dirty`].
    dirty: BTreeSet<SessionId>,
    digest: Digest,
}

impl Sessions {
    /// Their part of the machine's digest.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Opens a session; past [`SESSIONS_MAX`] the one that was idle longest makes room.
    pub(crate) fn open(&mut self, id: SessionId, revision: Revision) {
        while self.live.len() >= SESSIONS_MAX
            && let Some(&(_, idle)) = self.by_use.first()
        {
            self.close(idle);
        }
        let session = Session::new(id, revision);
        self.digest = self.digest.add(session.digest);
        self.by_use.insert((revision, id));
        self.dirty.insert(id);
        self.live.insert(id, session);
    }

    /// Forgets a session.
    pub(crate) fn close(&mut self, id: SessionId) {
        if let Some(session) = self.live.remove(&id) {
            self.by_use.remove(&(session.last_used, id));
            self.digest = self.digest.remove(session.digest);
            self.dirty.insert(id);
        }
    }

    /// Forgets the sessions that were idle for [`SESSION_IDLE_REVISIONS`] at `revision`.
    pub(crate) fn sweep(&mut self, revision: Revision) {
        while let Some(&(last_used, id)) = self.by_use.first()
            && last_used.0.saturating_add(SESSION_IDLE_REVISIONS) < revision.0
        {
            self.close(id);
        }
    }

    /// Whether `request` was answered before; asking counts as a use of its session.
    pub(crate) fn look_up(&mut self, request: RequestId, revision: Revision) -> Seen {
        if request.seq == 0 {
            return Seen::Refused(Reject::Invalid("requests are numbered from 1 up".to_owned()));
        }
        let Some(seen) = self.change(request.session, revision, |session| session.look_up(request.seq)) else {
            return Seen::Refused(Reject::SessionExpired);
        };
        seen
    }

    /// Keeps the first answer to `request`. Nothing where its session is closed by now.
    pub(crate) fn remember(&mut self, request: RequestId, revision: Revision, outcome: &Outcome) {
        self.change(request.session, revision, |session| session.remember(request.seq, revision, outcome));
    }

    /// Every session that changed since the last call, with its bytes; `None` = closed or expired: delete it.
    pub(crate) fn take_dirty(&mut self) -> Vec<(SessionId, Option<Vec<u8>>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|id| (id, self.live.get(&id).map(Session::save))).collect()
    }

    /// Every session with its bytes.
    pub(crate) fn save(&self) -> impl Iterator<Item = (SessionId, Vec<u8>)> {
        self.live.iter().map(|(&id, session)| (id, session.save()))
    }

    pub(crate) fn restore(saved: impl Iterator<Item = (SessionId, Vec<u8>)>) -> Result<Self, FormatError> {
        let mut sessions = Self::default();
        for (id, bytes) in saved {
            let session = Session::restore(id, &bytes)?;
            sessions.digest = sessions.digest.add(session.digest);
            sessions.by_use.insert((session.last_used, id));
            if sessions.live.insert(id, session).is_some() {
                return Err(FormatError::Inconsistent { what: WHAT, why: "it is there twice" });
            }
        }
        Ok(sessions)
    }

    /// Lets `step` change a session and keeps index, digest and dirt in step with it.
    fn change<T>(&mut self, id: SessionId, revision: Revision, step: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let session = self.live.get_mut(&id)?;
        let result = step(session);
        if session.last_used != revision {
            self.by_use.remove(&(session.last_used, id));
            self.by_use.insert((revision, id));
            session.last_used = revision;
        }
        let digest = session.hash(id);
        self.digest = self.digest.remove(session.digest).add(digest);
        session.digest = digest;
        self.dirty.insert(id);
        Some(result)
    }
}

/// What a saved session adds to the digest, from its bytes alone.
///
/// # Errors
/// Where the bytes are of another version or damaged.
pub fn digest_of_saved(id: SessionId, bytes: &[u8]) -> Result<Digest, FormatError> {
    Session::restore(id, bytes).map(|session| session.digest)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    last_used: Revision,
    /// The largest number seen.
    highest: u64,
    /// Numbers up to this one are forgotten.
    floor: u64,
    /// Hash of everything the session was told.
    chain: [u8; 32],
    /// Encoded outcomes, all numbered in `floor + 1 ..= highest`.
    outcomes: BTreeMap<u64, Vec<u8>>,
    /// Sum of their lengths.
    bytes: usize,
    /// What it adds to the digest.
    digest: Digest,
}

/// What is stored of a session; an encoded outcome is borrowed to be written and owned once it is read.
#[derive(Serialize, Deserialize)]
struct Saved<B> {
    last_used: Revision,
    highest: u64,
    floor: u64,
    chain: [u8; 32],
    outcomes: Vec<(u64, B)>,
}

/// Bytes that are written at once: as a sequence of numbers they would be the same bytes, many times slower.
struct Bytes<'b>(&'b [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Session {
    fn new(id: SessionId, revision: Revision) -> Self {
        let mut session = Self {
            last_used: revision,
            highest: 0,
            floor: 0,
            chain: [0; 32],
            outcomes: BTreeMap::new(),
            bytes: 0,
            digest: Digest::ZERO,
        };
        session.digest = session.hash(id);
        session
    }

    fn look_up(&self, seq: u64) -> Seen {
        if seq <= self.floor {
            return Seen::Refused(Reject::RequestTooOld { seq, window: SESSION_WINDOW });
        }
        match self.outcomes.get(&seq) {
            Some(bytes) => {
                Seen::Before(format::decode_outcome(bytes).expect("invariant: encoded here or checked by restore"))
            }
            None => Seen::Never,
        }
    }

    fn remember(&mut self, seq: u64, revision: Revision, outcome: &Outcome) {
        let bytes = format::encode_outcome(outcome);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain).update(&revision.0.to_be_bytes()).update(&seq.to_be_bytes()).update(&bytes);
        self.chain = *hasher.finalize().as_bytes();
        self.bytes += bytes.len();
        self.outcomes.insert(seq, bytes);
        self.highest = self.highest.max(seq);
        self.floor = self.floor.max(self.highest.saturating_sub(SESSION_WINDOW));
        while let Some(oldest) = self.outcomes.first_entry()
            && (*oldest.key() <= self.floor || (self.bytes > SESSION_BYTES_MAX && *oldest.key() < self.highest))
        {
            let (seq, bytes) = oldest.remove_entry();
            self.floor = self.floor.max(seq);
            self.bytes -= bytes.len();
        }
    }

    fn hash(&self, id: SessionId) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"S").update(&id.0.to_u64().to_be_bytes());
        for number in [self.last_used.0, self.highest, self.floor] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&self.chain);
        Digest::of_hash(hasher.finalize())
    }

    fn save(&self) -> Vec<u8> {
        let outcomes = self.outcomes.iter().map(|(&seq, bytes)| (seq, Bytes(bytes))).collect();
        let saved =
            Saved { last_used: self.last_used, highest: self.highest, floor: self.floor, chain: self.chain, outcomes };
        format::encode(SESSION_FORMAT, &saved)
    }

    fn restore(id: SessionId, bytes: &[u8]) -> Result<Self, FormatError> {
        let saved: Saved<Vec<u8>> = format::decode(WHAT, SESSION_FORMAT, bytes)?;
        let is_ascending = saved.outcomes.is_sorted_by(|(low, _), (high, _)| low < high);
        let is_inside = |seq: u64| saved.floor < seq && seq <= saved.highest;
        if !is_ascending || !saved.outcomes.iter().all(|(seq, _)| is_inside(*seq)) {
            return Err(FormatError::Inconsistent {
                what: WHAT,
                why: "an outcome is out of order or outside of the window",
            });
        }
        saved.outcomes.iter().try_for_each(|(_, bytes)| format::decode_outcome(bytes).map(drop))?;
        let mut session = Self {
            last_used: saved.last_used,
            highest: saved.highest,
            floor: saved.floor,
            chain: saved.chain,
            bytes: saved.outcomes.iter().map(|(_, bytes)| bytes.len()).sum(),
            outcomes: saved.outcomes.into_iter().collect(),
            digest: Digest::ZERO,
        };
        session.digest = session.hash(id);
        Ok(session)
    }
}

#[cfg(test)]
mod tests;
