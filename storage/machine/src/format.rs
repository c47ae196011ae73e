//! The bytes of what is stored and sent: postcard behind a format version.
//!
//! ```text
//!   | version: u16, big endian | postcard |      nothing may follow
//! ```
//!
//! Every kind of value counts its own versions. A newer version than this program knows is an error of its own, since
//! the right answer is to stop and be updated, never to skip. Decoding never panics on any bytes. Frozen examples of every
//! format lie in `tests/compat`; a change of a type that alters them needs a new version number.

use crate::command::Batch;
use crate::event::{Fact, Provenance};
use crate::outcome::Outcome;
use crate::record::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format of a [`Batch`]: what an entry's envelope seals.
pub const BATCH_FORMAT: u16 = 2;
/// Format of a [`Record`] or of its absence.
pub const RECORD_FORMAT: u16 = 2;
/// Format of an [`Outcome`].
pub const OUTCOME_FORMAT: u16 = 2;
/// Format of a [`Provenance`].
pub const PROVENANCE_FORMAT: u16 = 1;
/// Format of a [`Fact`].
pub const FACT_FORMAT: u16 = 2;
/// Format of the machine's header, as [`crate::Machine::save`] writes it.
pub const HEADER_FORMAT: u16 = 1;
/// Format of one saved session.
pub const SESSION_FORMAT: u16 = 1;

/// Bytes that can't be read as what they should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer program (or damaged): this one must not guess.
    #[error("{what} has format version {found}; this program knows version {known}: update it")]
    UnknownVersion {
        /// What was to be read.
        what: &'static str,
        /// The version in the bytes.
        found: u16,
        /// The version that is known.
        known: u16,
    },
    /// The bytes end too early or hold a value that can't be.
    #[error("{what} is malformed")]
    Malformed {
        /// What was to be read.
        what: &'static str,
        /// Where reading failed.
        #[source]
        source: postcard::Error,
    },
    /// More bytes than the value has.
    #[error("{what} is malformed: {count} bytes follow its end")]
    TrailingBytes {
        /// What was read.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Readable, but not what this program would have written.
    #[error("{what} is inconsistent: {why}")]
    Inconsistent {
        /// What was read.
        what: &'static str,
        /// What doesn't hold.
        why: &'static str,
    },
}

/// A batch as bytes.
#[must_use]
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    encode(BATCH_FORMAT, batch)
}

/// The batch in `bytes`.
///
/// # Errors
/// [`FormatError::UnknownVersion`] must stop the node; the others mean damage.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, FormatError> {
    decode("batch", BATCH_FORMAT, bytes)
}

/// A version of a record as bytes; `None` = deleted.
#[must_use]
pub fn encode_record(record: Option<&Record>) -> Vec<u8> {
    encode(RECORD_FORMAT, &record)
}

/// The record in `bytes`; `None` = deleted.
///
/// # Errors
/// Where the bytes are of another version or damaged.
pub fn decode_record(bytes: &[u8]) -> Result<Option<Record>, FormatError> {
    decode("record", RECORD_FORMAT, bytes)
}

/// An outcome as bytes.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    encode(OUTCOME_FORMAT, outcome)
}

/// The outcome in `bytes`.
///
/// # Errors
/// Where the bytes are of another version or damaged.
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, FormatError> {
    refuse_nesting(bytes)?;
    decode("outcome", OUTCOME_FORMAT, bytes)
}

/// A provenance as bytes.
#[must_use]
pub fn encode_provenance(provenance: &Provenance) -> Vec<u8> {
    encode(PROVENANCE_FORMAT, provenance)
}

/// The provenance in `bytes`.
///
/// # Errors
/// Where the bytes are of another version or damaged.
pub fn decode_provenance(bytes: &[u8]) -> Result<Provenance, FormatError> {
    decode("provenance", PROVENANCE_FORMAT, bytes)
}

/// A fact as bytes.
#[must_use]
pub fn encode_fact(fact: &Fact) -> Vec<u8> {
    encode(FACT_FORMAT, fact)
}

/// The fact in `bytes`.
///
/// # Errors
/// Where the bytes are of another version or damaged.
pub fn decode_fact(bytes: &[u8]) -> Result<Fact, FormatError> {
    decode("fact", FACT_FORMAT, bytes)
}

pub(crate) fn encode<T: Serialize>(version: u16, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&version.to_be_bytes());
    postcard::to_extend(value, bytes).expect("invariant: memory is the only sink and every length is known")
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, known: u16, bytes: &[u8]) -> Result<T, FormatError> {
    let body = body(what, known, bytes)?;
    let (value, rest) = postcard::take_from_bytes(body).map_err(|source| FormatError::Malformed { what, source })?;
    match rest.len() {
        0 => Ok(value),
        count => Err(FormatError::TrailingBytes { what, count }),
    }
}

fn body<'b>(what: &'static str, known: u16, bytes: &'b [u8]) -> Result<&'b [u8], FormatError> {
    let Some((version, body)) = bytes.split_first_chunk::<2>() else {
        return Err(FormatError::Malformed { what, source: postcard::Error::DeserializeUnexpectedEnd });
    };
    let found = u16::from_be_bytes(*version);
    if found == known { Ok(body) } else { Err(FormatError::UnknownVersion { what, found, known }) }
}

/// A duplicate of a duplicate is never made, and decoding one nested a million deep would exhaust the stack.
fn refuse_nesting(bytes: &[u8]) -> Result<(), FormatError> {
    const DUPLICATE: u32 = 3;
    let variant = |bytes: &[u8]| postcard::take_from_bytes::<u32>(bytes).ok().map(|(tag, rest)| (tag, rest.len()));
    let body = body("outcome", OUTCOME_FORMAT, bytes)?;
    let inner = match variant(body) {
        Some((DUPLICATE, rest)) => &body[body.len() - rest..],
        Some(_) | None => return Ok(()),
    };
    match variant(inner) {
        Some((DUPLICATE, _)) => Err(FormatError::Inconsistent { what: "outcome", why: "a duplicate of a duplicate" }),
        Some(_) | None => Ok(()),
    }
}
