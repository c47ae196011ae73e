//! The node's promises, kept beside `RocksDB`: the vote, and the last batch known to be synced.
//!
//! `RocksDB` replays its WAL up to the first damaged record and can't tell a write that never reached the disk from one
//! that did and was damaged later. This file can: it is another file, written with its own sync. A start is refused if
//! the log ends before what is promised here.
//!
//! ```text
//! offset 0      slot of even generations   \  checksum (32 bytes of BLAKE3 over the rest), generation u64,
//! offset 4096   slot of odd generations    /  synced through u64, vote present u8, vote
//! ```
//!
//! A write goes to the older slot, so a torn one leaves the newer of the two readable. The slots lie in different
//! blocks of the disk.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::error::LogError;
use crate::{codec, types::Vote};

const FILE: &str = "PROMISES";
const SLOT_BYTES: usize = 256;
const SLOT_DISTANCE_BYTES: u64 = 4096;
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;

/// What the node has promised and must find again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// The number of the last batch that is known to be synced.
    pub synced_through: u64,
    /// The last vote that was saved.
    pub vote: Option<Vote>,
}

/// The open file and its newest content.
#[derive(Debug)]
pub(crate) struct Promises {
    file: File,
    path: PathBuf,
    generation: u64,
    newest: Promise,
}

impl Promises {
    /// Creates the file with an empty promise in both slots and syncs it.
    pub(crate) fn create(dir: &Path) -> Result<(), LogError> {
        let path = dir.join(FILE);
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        let file = options.open(&path).map_err(LogError::file("create", &path))?;
        let mut promises = Self { file, path, generation: 0, newest: Promise::default() };
        promises.write(Promise::default())?;
        promises.write(Promise::default())?;
        promises.file.sync_all().map_err(LogError::file("sync", &promises.path))
    }

    /// Opens the file and reads the newest promise that passes its checksum.
    pub(crate) fn open(dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(LogError::file("open", &path))?;
        let mut newest: Option<(u64, Promise)> = None;
        for parity in 0..2 {
            let mut slot = Vec::with_capacity(SLOT_BYTES);
            read_slot(&file, slot_offset(parity), &mut slot).map_err(LogError::file("read", &path))?;
            if let Some(found) = decode(&slot)
                && newest.is_none_or(|kept| found.0 > kept.0)
            {
                newest = Some(found);
            }
        }
        let (generation, newest) = newest.ok_or_else(|| LogError::PromisesDamaged { path: path.clone() })?;
        Ok(Self { file, path, generation, newest })
    }

    pub(crate) fn newest(&self) -> Promise {
        self.newest
    }

    /// Replaces the promise, durably when this returns.
    pub(crate) fn write(&mut self, promise: Promise) -> Result<(), LogError> {
        let generation = self.generation + 1;
        let slot = encode(generation, &promise);
        self.file.write_all_at(&slot, slot_offset(generation)).map_err(LogError::file("write", &self.path))?;
        self.file.sync_data().map_err(LogError::file("sync", &self.path))?;
        self.generation = generation;
        self.newest = promise;
        Ok(())
    }
}

fn slot_offset(generation: u64) -> u64 {
    (generation % 2) * SLOT_DISTANCE_BYTES
}

/// Reads a slot, or as much of it as the file has.
fn read_slot(file: &File, mut offset: u64, slot: &mut Vec<u8>) -> std::io::Result<()> {
    slot.resize(SLOT_BYTES, 0);
    let mut filled = 0;
    while filled < SLOT_BYTES {
        match file.read_at(&mut slot[filled..], offset) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                offset += u64::try_from(count).expect("invariant: a slot is small");
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    slot.truncate(filled);
    Ok(())
}

fn encode(generation: u64, promise: &Promise) -> Vec<u8> {
    let mut slot = vec![0; CHECKSUM_BYTES];
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(&promise.synced_through.to_le_bytes());
    slot.push(u8::from(promise.vote.is_some()));
    if let Some(vote) = &promise.vote {
        let mut bytes = Vec::new();
        codec::encode_vote(vote, &mut bytes);
        slot.push(u8::try_from(bytes.len()).expect("invariant: a vote is at most 22 bytes"));
        slot.extend_from_slice(&bytes);
    }
    slot.resize(SLOT_BYTES, 0);
    let checksum = blake3::hash(&slot[CHECKSUM_BYTES..]);
    slot[..CHECKSUM_BYTES].copy_from_slice(checksum.as_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Promise)> {
    if slot.len() != SLOT_BYTES {
        return None;
    }
    let (checksum, body) = slot.split_at(CHECKSUM_BYTES);
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let (generation, rest) = body.split_first_chunk()?;
    let (synced_through, rest) = rest.split_first_chunk()?;
    let (present, rest) = rest.split_first()?;
    let vote = if *present == 0 {
        None
    } else {
        let (length, rest) = rest.split_first()?;
        Some(codec::decode_vote(rest.get(..usize::from(*length))?).ok()?)
    };
    let promise = Promise { synced_through: u64::from_le_bytes(*synced_through), vote };
    Some((u64::from_le_bytes(*generation), promise))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(synced_through: u64) -> Promise {
        Promise { synced_through, vote: Some(Vote::new(synced_through, 2)) }
    }

    #[test]
    fn the_newest_promise_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        Promises::create(dir.path()).unwrap();
        assert_eq!(Promises::open(dir.path()).unwrap().newest(), Promise::default());
        for number in 1..6 {
            Promises::open(dir.path()).unwrap().write(promise(number)).unwrap();
            assert_eq!(Promises::open(dir.path()).unwrap().newest(), promise(number));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_promise_before_it() {
        let dir = tempfile::tempdir().unwrap();
        Promises::create(dir.path()).unwrap();
        let mut promises = Promises::open(dir.path()).unwrap();
        promises.write(promise(1)).unwrap();
        promises.write(promise(2)).unwrap();
        let intact = std::fs::read(dir.path().join(FILE)).unwrap();
        promises.write(promise(3)).unwrap();
        let written = std::fs::read(dir.path().join(FILE)).unwrap();
        let changed: Vec<usize> = (0..written.len()).filter(|at| written[*at] != intact[*at]).collect();
        assert!(!changed.is_empty());
        for kept in 0..changed.len() {
            let mut torn = intact.clone();
            for at in &changed[..kept] {
                torn[*at] = written[*at];
            }
            std::fs::write(dir.path().join(FILE), torn).unwrap();
            assert_eq!(Promises::open(dir.path()).unwrap().newest(), promise(2), "{kept} bytes of the third");
        }
    }

    #[test]
    fn a_file_without_a_readable_slot_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), vec![7; 8192]).unwrap();
        assert!(matches!(Promises::open(dir.path()), Err(LogError::PromisesDamaged { .. })));
        std::fs::write(dir.path().join(FILE), b"").unwrap();
        assert!(matches!(Promises::open(dir.path()), Err(LogError::PromisesDamaged { .. })));
    }
}
