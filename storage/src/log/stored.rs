//! The records of the log in `RocksDB`: keys, values and their checksums.
//!
//! ```text
//! key                          value (each followed by its checksum)
//! 00 'm' 'a' 'r' 'k'           mark: batch number, synced through, last log id
//! 00 'v' 'o' 't' 'e'           vote
//! 00 'p' 'u' 'r' 'g'           last purged log id
//! 00 'c' 'o' 'm' 'm'           last committed log id, if saved
//! 01 index (big endian u64)    entry
//! ```
//!
//! One key space: a batch over it is atomic, one memtable holds it, and no second column family can pin old WAL files.
//! The checksum covers key and value, so a value under the wrong key is found too. It comes on top of those that
//! `RocksDB` keeps for blocks and WAL records, which end where a value leaves `RocksDB`.

use bytes::Bytes;

use super::error::LogError;
use crate::{
    codec::{self, CodecError},
    types::{Entry, LogId, Vote},
};

pub(crate) const MARK: &[u8] = b"\0mark";
pub(crate) const VOTE: &[u8] = b"\0vote";
pub(crate) const PURGED: &[u8] = b"\0purg";
pub(crate) const COMMITTED: &[u8] = b"\0comm";
/// Only ever written to warm WAL files up, and deleted again.
pub(crate) const SCRATCH: &[u8] = b"\0warm";

const ENTRY_PREFIX: u8 = 1;
/// Eight bytes of BLAKE3 after each value: one damaged record in 2^64 would pass.
const CHECKSUM_BYTES: usize = 8;

/// What every batch says about itself and about those before it.
///
/// Batches are numbered from 1 without gaps. `synced_through` is the number of the last batch known to be on disk when
/// this one was written, so a readable batch proves that the ones up to `synced_through` must be readable too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub number: u64,
    pub synced_through: u64,
    pub last: Option<LogId>,
}

impl Mark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.synced_through.to_le_bytes());
        codec::encode_optional_log_id(self.last.as_ref(), &mut out);
        seal(MARK, &mut out);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, LogError> {
        let body = open(MARK, value, || "mark".to_owned())?;
        let short = || undecodable("mark")(CodecError::Truncated { what: "a mark" });
        let (number, rest) = body.split_first_chunk().ok_or_else(short)?;
        let (synced_through, rest) = rest.split_first_chunk().ok_or_else(short)?;
        Ok(Self {
            number: u64::from_le_bytes(*number),
            synced_through: u64::from_le_bytes(*synced_through),
            last: codec::decode_optional_log_id(rest).map_err(undecodable("mark"))?,
        })
    }
}

pub(crate) fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY_PREFIX; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The first key after all entries.
pub(crate) fn entries_end() -> [u8; 1] {
    [ENTRY_PREFIX + 1]
}

pub(crate) fn entry_index(key: &[u8]) -> Option<u64> {
    let (prefix, index) = key.split_first()?;
    if *prefix == ENTRY_PREFIX { index.try_into().ok().map(u64::from_be_bytes) } else { None }
}

/// Encodes an entry into `out`, which is cleared first.
pub(crate) fn encode_entry(key: &[u8], entry: &Entry, out: &mut Vec<u8>) {
    out.clear();
    codec::encode_entry(entry, out);
    seal(key, out);
}

pub(crate) fn decode_entry(index: u64, value: &[u8]) -> Result<Entry, LogError> {
    let what = || format!("entry {index}");
    let body = Bytes::copy_from_slice(open(&entry_key(index), value, what)?);
    let entry = codec::decode_entry(&body).map_err(|source| LogError::Decode { what: what(), source })?;
    if entry.log_id.index == index { Ok(entry) } else { Err(LogError::Checksum { what: what() }) }
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode_vote(vote, &mut out);
    seal(VOTE, &mut out);
    out
}

pub(crate) fn decode_vote(value: &[u8]) -> Result<Vote, LogError> {
    codec::decode_vote(open(VOTE, value, || "vote".to_owned())?).map_err(undecodable("vote"))
}

pub(crate) fn encode_log_id(key: &[u8], id: Option<&LogId>) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode_optional_log_id(id, &mut out);
    seal(key, &mut out);
    out
}

pub(crate) fn decode_log_id(key: &[u8], value: &[u8]) -> Result<Option<LogId>, LogError> {
    let what = "log position";
    codec::decode_optional_log_id(open(key, value, || what.to_owned())?).map_err(undecodable(what))
}

fn undecodable(what: &str) -> impl FnOnce(CodecError) -> LogError {
    move |source| LogError::Decode { what: what.to_owned(), source }
}

fn seal(key: &[u8], value: &mut Vec<u8>) {
    let checksum = checksum(key, value);
    value.extend_from_slice(&checksum);
}

fn open<'a>(key: &[u8], value: &'a [u8], what: impl FnOnce() -> String) -> Result<&'a [u8], LogError> {
    match value.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((body, found)) if *found == checksum(key, body) => Ok(body),
        _ => Err(LogError::Checksum { what: what() }),
    }
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(body);
    let mut out = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::EntryPayload;

    #[test]
    fn a_record_is_read_back_and_any_changed_bit_is_found() {
        let entry = Entry { log_id: LogId::new_term_index(2, 7), payload: EntryPayload::Blank };
        let mut value = Vec::new();
        encode_entry(&entry_key(7), &entry, &mut value);
        assert_eq!(decode_entry(7, &value).unwrap(), entry);
        assert!(decode_entry(8, &value).is_err(), "a value under another key");
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_entry(7, &damaged), Err(LogError::Checksum { .. })), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(decode_entry(7, &value[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn marks_votes_and_positions_are_read_back() {
        for last in [None, Some(LogId::new_term_index(1, 0))] {
            let mark = Mark { number: 9, synced_through: 8, last };
            assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
            assert_eq!(decode_log_id(PURGED, &encode_log_id(PURGED, last.as_ref())).unwrap(), last);
            assert!(decode_log_id(COMMITTED, &encode_log_id(PURGED, last.as_ref())).is_err());
        }
        let vote = Vote::new(3, 1);
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    }

    #[test]
    fn keys_sort_by_index_and_stay_within_their_bounds() {
        let keys: Vec<_> = [0, 1, 255, 256, u64::MAX].map(entry_key).into();
        assert!(keys.is_sorted());
        assert!(keys.iter().all(|key| key[..] < entries_end()[..] && key[..] > *SCRATCH));
        assert_eq!(keys.iter().map(|key| entry_index(key)).collect::<Vec<_>>(), [0, 1, 255, 256, u64::MAX].map(Some));
        assert_eq!(entry_index(MARK), None);
    }
}
