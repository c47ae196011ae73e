//! Positions and names: revisions, event ids, record ids, sessions.
//!
//! A record is named by the event that created it, so ids are minted by the log itself: unique for ever in a lineage,
//! never reused, the same on every node, and integers that SQLite stores as row ids.
//!
//! ```text
//!   EventId (u64) = revision << 20 | ordinal
//!                   43 bits used      20 bits: row changes within one entry
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of an [`EventId`] that hold the ordinal.
pub const ORDINAL_BITS: u32 = 20;

/// Most row changes that one log entry may make: the ordinals of one revision.
pub const ORDINALS_MAX: u32 = 1 << ORDINAL_BITS;

/// Largest revision: an [`EventId`] must fit SQLite's signed 64-bit integers.
pub const REVISION_MAX: u64 = (1 << (63 - ORDINAL_BITS)) - 1;

/// The log index of an applied entry: the clock of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where an event stands: its revision and its ordinal within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(u64);

impl EventId {
    /// The id at `revision` and `ordinal`, or `None` past [`REVISION_MAX`] or [`ORDINALS_MAX`].
    #[must_use]
    pub fn new(revision: Revision, ordinal: u32) -> Option<Self> {
        (revision.0 <= REVISION_MAX && ordinal < ORDINALS_MAX)
            .then(|| Self(revision.0 << ORDINAL_BITS | u64::from(ordinal)))
    }

    /// The id as the integer that is stored.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The id that `stored` is. Every `u64` up to `i64::MAX` is one.
    #[must_use]
    pub fn from_u64(stored: u64) -> Self {
        Self(stored)
    }

    /// The revision of the entry that holds the event.
    #[must_use]
    pub fn revision(self) -> Revision {
        Revision(self.0 >> ORDINAL_BITS)
    }

    /// The place of the event within its entry.
    #[must_use]
    pub fn ordinal(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) & (ORDINALS_MAX - 1)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision(), self.ordinal())
    }
}

/// The name of a record: the [`EventId`] of the event that created it. Written `revision.ordinal` where people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(pub EventId);

impl RecordId {
    /// The parent of projects, which have none.
    pub const ROOT: Self = Self(EventId(0));

    /// The id as the integer that is stored.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0.to_u64()
    }

    /// The id that `stored` is.
    #[must_use]
    pub fn from_u64(stored: u64) -> Self {
        Self(EventId::from_u64(stored))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not `revision.ordinal`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a record id: write it as REVISION.ORDINAL, for example 128.3")]
pub struct ParseIdError(pub String);

impl std::str::FromStr for RecordId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parsed = text
            .split_once('.')
            .and_then(|(revision, ordinal)| EventId::new(Revision(revision.parse().ok()?), ordinal.parse().ok()?));
        parsed.map(Self).ok_or_else(|| ParseIdError(text.to_owned()))
    }
}

/// A client session: the id of the event that opened it (Ongaro 2014, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub EventId);

/// Names one request of one session, so that proposing it again has no second effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The session that the request belongs to.
    pub session: SessionId,
    /// Its number in that session, from 1 up; need not arrive in order within the window.
    pub seq: u64,
}

/// Cluster time in milliseconds since 1970-01-01T00:00:00Z: stamped by the leader, never going back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterTime(pub u64);
