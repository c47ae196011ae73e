//! Bytes of votes, log ids, entries and memberships: on disk in the log, on the wire between nodes, in snapshots.
//!
//! ```text
//! every message   version u8 = 1, then the body, then nothing; memberships also 2, rosters also 3
//! integer         LEB128, shortest form only
//! vote            term, node, committed u8 (0 | 1)
//! log id          term, index
//! optional log id 0 u8 | 1 u8, log id
//! entry           log id, kind u8: 0 blank | 1 sealed bytes up to the end | 2 membership | 3 membership of version 2
//! membership 1    configs: count, each (count, ids ascending); nodes: count, each (id ascending, length, UTF-8 address)
//! membership 2    the same, and after each address: length, UTF-8 address for clients; at least one isn't empty
//! roster 1, 2     a membership; nobody was removed
//! roster 3        the body of membership 2, then the removed: count from 1, ids ascending
//! ```
//!
//! A value has the lowest version that can hold it, and only that one, so equal values have equal bytes. Decoding never panics and never allocates more
//! than the input could hold. Integrity is not this module's job: what is stored has a checksum around it
//! (`log::stored`), what travels has TLS.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::types::{Entry, EntryPayload, LogId, Membership, NodeId, NodeInfo, Payload, Roster, StoredMembership, Vote};

/// The version byte of every message but the two that follow.
pub const VERSION: u8 = 1;
/// The version byte of memberships that say where clients reach a node.
pub const VERSION_API: u8 = 2;
/// The version byte of rosters from which a node was removed.
pub const VERSION_REMOVED: u8 = 3;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;
const MEMBERSHIP_API: u8 = 3;
/// A u64 has 64 bits and a byte of LEB128 carries 7: ten bytes at most.
const VARINT_BYTES_MAX: u32 = 10;

/// Why bytes could not be read back. `what` is the field that was being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("the bytes end inside {what}")]
    Truncated {
        /// The field that was being read.
        what: &'static str,
    },
    /// The version byte is one that this program doesn't know.
    #[error("{what} is in format {found}, which this program doesn't read: a newer release wrote it")]
    Version {
        /// The message that was being read.
        what: &'static str,
        /// The version byte found.
        found: u8,
    },
    /// A field holds a value that is never written.
    #[error("{what} holds a value that is never written")]
    Invalid {
        /// The field that was being read.
        what: &'static str,
    },
    /// Bytes are left over after the message.
    #[error("{count} bytes are left over after {what}")]
    Trailing {
        /// The message that was read.
        what: &'static str,
        /// How many bytes are left over.
        count: usize,
    },
    /// The parts are well formed but make no valid membership.
    #[error("not a valid membership: {reason}")]
    Membership {
        /// What openraft says against it.
        reason: String,
    },
}

/// Appends a vote.
pub fn encode_vote(vote: &Vote, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_u64(vote.leader_id.term, out);
    put_u64(vote.leader_id.voted_for, out);
    out.push(u8::from(vote.committed));
}

/// Reads a vote that fills `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one vote.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    let mut cursor = Cursor::message(bytes, "a vote")?;
    let term = cursor.u64("the term of a vote")?;
    let node = cursor.u64("the node of a vote")?;
    let committed = cursor.flag("the flag of a vote")?;
    cursor.end("a vote")?;
    Ok(if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

/// Appends a log id.
pub fn encode_log_id(id: &LogId, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_log_id(id, out);
}

/// Reads a log id that fills `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one log id.
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, CodecError> {
    let mut cursor = Cursor::message(bytes, "a log id")?;
    let id = cursor.log_id()?;
    cursor.end("a log id")?;
    Ok(id)
}

/// Appends an optional log id.
pub fn encode_optional_log_id(id: Option<&LogId>, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_optional_log_id(id, out);
}

/// Reads an optional log id that fills `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one optional log id.
pub fn decode_optional_log_id(bytes: &[u8]) -> Result<Option<LogId>, CodecError> {
    let mut cursor = Cursor::message(bytes, "an optional log id")?;
    let id = cursor.optional_log_id()?;
    cursor.end("an optional log id")?;
    Ok(id)
}

/// Appends an entry.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_log_id(&entry.log_id, out);
    match &entry.payload {
        EntryPayload::Blank => out.push(BLANK),
        EntryPayload::Normal(payload) => {
            out.push(NORMAL);
            out.extend_from_slice(&payload.0);
        }
        EntryPayload::Membership(membership) => {
            let shape = Shape::of(membership);
            out.push(if shape == Shape::Api { MEMBERSHIP_API } else { MEMBERSHIP });
            put_membership(membership, shape, out);
        }
    }
}

/// Reads an entry that fills `bytes`; its sealed payload shares the memory of `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one entry.
pub fn decode_entry(bytes: &Bytes) -> Result<Entry, CodecError> {
    let mut cursor = Cursor::message(bytes, "an entry")?;
    let log_id = cursor.log_id()?;
    let payload = match cursor.byte("the kind of an entry")? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Payload(bytes.slice_ref(cursor.take_rest()))),
        MEMBERSHIP => EntryPayload::Membership(cursor.membership(Shape::Plain)?),
        MEMBERSHIP_API => EntryPayload::Membership(cursor.whole_membership(Shape::Api)?),
        _ => return Err(CodecError::Invalid { what: "the kind of an entry" }),
    };
    cursor.end("an entry")?;
    Ok(Entry { log_id, payload })
}

/// Appends a membership.
pub fn encode_membership(membership: &Membership, out: &mut Vec<u8>) {
    let shape = Shape::of(membership);
    out.push(shape.version());
    put_membership(membership, shape, out);
}

/// Reads a membership that fills `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one valid membership.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, CodecError> {
    let (mut cursor, shape) = Cursor::shaped(bytes, "a membership")?;
    let membership = cursor.whole_membership(shape)?;
    cursor.end("a membership")?;
    Ok(membership)
}

/// Appends a membership together with the log id that brought it.
pub fn encode_stored_membership(stored: &StoredMembership, out: &mut Vec<u8>) {
    let shape = Shape::of(stored.membership());
    out.push(shape.version());
    put_optional_log_id(stored.log_id().as_ref(), out);
    put_membership(stored.membership(), shape, out);
}

/// Reads a stored membership that fills `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one valid stored membership.
pub fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, CodecError> {
    let (mut cursor, shape) = Cursor::shaped(bytes, "a stored membership")?;
    let log_id = cursor.optional_log_id()?;
    let membership = cursor.whole_membership(shape)?;
    cursor.end("a stored membership")?;
    Ok(StoredMembership::new(log_id, membership))
}

/// Appends a roster.
pub fn encode_roster(roster: &Roster, out: &mut Vec<u8>) {
    if roster.removed.is_empty() {
        return encode_membership(&roster.membership, out);
    }
    out.push(VERSION_REMOVED);
    put_membership(&roster.membership, Shape::Api, out);
    put_ids(&roster.removed, out);
}

/// Reads a roster that fills `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not exactly one valid roster.
pub fn decode_roster(bytes: &[u8]) -> Result<Roster, CodecError> {
    if bytes.first() != Some(&VERSION_REMOVED) {
        return Ok(Roster { membership: decode_membership(bytes)?, removed: BTreeSet::new() });
    }
    let mut cursor = Cursor { rest: &bytes[1..] };
    let membership = cursor.membership(Shape::Api)?;
    let removed = cursor.ids("the number of removed nodes", "the id of a removed node")?;
    if removed.is_empty() {
        return Err(CodecError::Invalid { what: "the number of removed nodes" });
    }
    cursor.end("a roster")?;
    Ok(Roster { membership, removed })
}

/// How much of its nodes a membership says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Where other nodes reach them.
    Plain,
    /// Also where clients do.
    Api,
}

impl Shape {
    /// The one that `membership` is written in.
    fn of(membership: &Membership) -> Self {
        if membership.nodes().all(|(_, node)| node.api.is_empty()) { Self::Plain } else { Self::Api }
    }

    fn version(self) -> u8 {
        match self {
            Self::Plain => VERSION,
            Self::Api => VERSION_API,
        }
    }
}

fn put_u64(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    put_u64(u64::try_from(count).expect("invariant: usize has at most 64 bits"), out);
}

fn put_log_id(id: &LogId, out: &mut Vec<u8>) {
    put_u64(id.leader_id.term, out);
    put_u64(id.index, out);
}

fn put_optional_log_id(id: Option<&LogId>, out: &mut Vec<u8>) {
    match id {
        None => out.push(0),
        Some(id) => {
            out.push(1);
            put_log_id(id, out);
        }
    }
}

fn put_ids(ids: &BTreeSet<NodeId>, out: &mut Vec<u8>) {
    put_count(ids.len(), out);
    for id in ids {
        put_u64(*id, out);
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn put_membership(membership: &Membership, shape: Shape, out: &mut Vec<u8>) {
    let configs = membership.get_joint_config();
    put_count(configs.len(), out);
    for config in configs {
        put_ids(config, out);
    }
    put_count(membership.nodes().count(), out);
    for (id, node) in membership.nodes() {
        put_u64(*id, out);
        put_text(&node.address, out);
        if shape == Shape::Api {
            put_text(&node.api, out);
        }
    }
}

/// The part of a message that has not been read yet.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn message(bytes: &'a [u8], what: &'static str) -> Result<Self, CodecError> {
        let mut cursor = Self { rest: bytes };
        match cursor.byte(what)? {
            VERSION => Ok(cursor),
            found => Err(CodecError::Version { what, found }),
        }
    }

    /// A message that holds a membership: the version byte says its shape.
    fn shaped(bytes: &'a [u8], what: &'static str) -> Result<(Self, Shape), CodecError> {
        let mut cursor = Self { rest: bytes };
        match cursor.byte(what)? {
            VERSION => Ok((cursor, Shape::Plain)),
            VERSION_API => Ok((cursor, Shape::Api)),
            found => Err(CodecError::Version { what, found }),
        }
    }

    fn end(&self, what: &'static str) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing { what, count: self.rest.len() }) }
    }

    fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Truncated { what })?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        let (byte, rest) = self.rest.split_first().ok_or(CodecError::Truncated { what })?;
        self.rest = rest;
        Ok(*byte)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, CodecError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid { what }),
        }
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for position in 0..VARINT_BYTES_MAX {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * position);
            if shifted >> (7 * position) != bits {
                return Err(CodecError::Invalid { what });
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                // A last byte of zero adds nothing: not the shortest form.
                return if byte == 0 && position > 0 { Err(CodecError::Invalid { what }) } else { Ok(value) };
            }
        }
        Err(CodecError::Invalid { what })
    }

    /// A count of things that take at least `bytes_each` bytes: never more than the rest can hold.
    fn count(&mut self, bytes_each: usize, what: &'static str) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u64(what)?).map_err(|_| CodecError::Invalid { what })?;
        if count > self.rest.len() / bytes_each { Err(CodecError::Truncated { what }) } else { Ok(count) }
    }

    fn log_id(&mut self) -> Result<LogId, CodecError> {
        let term = self.u64("the term of a log id")?;
        Ok(LogId::new_term_index(term, self.u64("the index of a log id")?))
    }

    fn optional_log_id(&mut self) -> Result<Option<LogId>, CodecError> {
        if self.flag("the flag of an optional log id")? { self.log_id().map(Some) } else { Ok(None) }
    }

    fn ids(&mut self, counted: &'static str, what: &'static str) -> Result<BTreeSet<NodeId>, CodecError> {
        let mut ids = BTreeSet::new();
        for _ in 0..self.count(1, counted)? {
            let id = self.u64(what)?;
            ascending(ids.last(), id, what)?;
            ids.insert(id);
        }
        Ok(ids)
    }

    fn text(&mut self, what: &'static str) -> Result<String, CodecError> {
        let length = self.count(1, what)?;
        let text = str::from_utf8(self.take(length, what)?).map_err(|_| CodecError::Invalid { what })?;
        Ok(text.to_owned())
    }

    /// A membership in the one shape that it is written in.
    fn whole_membership(&mut self, shape: Shape) -> Result<Membership, CodecError> {
        let membership = self.membership(shape)?;
        let is_canonical = Shape::of(&membership) == shape;
        if is_canonical { Ok(membership) } else { Err(CodecError::Invalid { what: "the version of a membership" }) }
    }

    fn membership(&mut self, shape: Shape) -> Result<Membership, CodecError> {
        let mut configs = Vec::new();
        for _ in 0..self.count(1, "the number of voter sets")? {
            configs.push(self.ids("the number of voters", "the id of a voter")?);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.count(2, "the number of nodes")? {
            let what = "the id of a node";
            let id = self.u64(what)?;
            ascending(nodes.last_key_value().map(|(last, _)| last), id, what)?;
            let address = self.text("the address of a node")?;
            let api = if shape == Shape::Api { self.text("the API address of a node")? } else { String::new() };
            nodes.insert(id, NodeInfo { address, api });
        }
        Membership::new(configs, nodes).map_err(|error| CodecError::Membership { reason: error.to_string() })
    }
}

fn ascending(last: Option<&NodeId>, id: NodeId, what: &'static str) -> Result<(), CodecError> {
    if last.is_some_and(|last| *last >= id) { Err(CodecError::Invalid { what }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
