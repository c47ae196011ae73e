//! The bytes of a snapshot file, format 1.
//!
//! ```text
//!   "zysnap" | format: u16 | snapshot id: 16 random bytes
//!   chunk*   = length: u32 | envelope of (number: u32 | is last: u8 | part of the stream), its entry id = the snapshot id
//!   trailer  = BLAKE3 of all bytes before it
//!
//!   stream   = length: u32, header (postcard)
//!              1 | version: u64 | record: u64 | previous: u64 or 0 | length: u32, body     in version order
//!              2 | session: u64 | length: u32, bytes
//!              0 | count of versions: u64 | count of sessions: u64
//! ```
//!
//! A chunk opens only as a part of this snapshot, at its number, and the last one says so: so chunks that were swapped,
//! repeated, left out or mixed with those of another snapshot are found before their contents are used; the trailer finds
//! what damage a copy did, also without any key.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use zyflow_crypto::{KeyRing, Lineage, Purpose};
use zyflow_machine::Digest;
use zyflow_machine::id::{EventId, RecordId, Revision, SessionId};

use super::SnapshotError;
use crate::tables::{Body, SavedSession, SavedState, SnapshotSource, TravellingVersion};

const MAGIC: &[u8; 6] = b"zysnap";
const FORMAT: u16 = 1;
const ID_BYTES: usize = 16;
const PREFIX_BYTES: usize = MAGIC.len() + 2 + ID_BYTES;
const TRAILER_BYTES: usize = blake3::OUT_LEN;

/// Bytes of the stream in one chunk: 256 KiB. Large enough that sealing's 115 bytes and the key derivation vanish, small
/// enough to be sent and checked as one piece.
const CHUNK_BYTES: usize = 256 << 10;

/// Bytes of a sealed chunk, at most: room for the overhead of any envelope format.
const SEALED_CHUNK_BYTES_MAX: u32 = 512 << 10;

/// Bytes of one item, at most: what a local record may have.
const ITEM_BYTES_MAX: u32 = 16 << 20;

const END: u8 = 0;
const VERSION: u8 = 1;
const SESSION: u8 = 2;

/// What a snapshot holds besides versions and sessions.
pub(crate) struct Parts<'a> {
    pub(crate) state: &'a SavedState,
    pub(crate) horizon: Revision,
    pub(crate) digest: Digest,
}

/// What stands at the beginning of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) state: SavedState,
    pub(super) horizon: Revision,
    pub(super) digest: [u8; 32],
}

/// What follows it.
pub(super) enum Item {
    Version(TravellingVersion),
    Session(SessionId, Vec<u8>),
}

/// A new random snapshot id.
pub(super) fn mint_id() -> Result<[u8; ID_BYTES], SnapshotError> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id).map_err(SnapshotError::Random)?;
    Ok(id)
}

/// Writes a whole snapshot to `path` and syncs it.
pub(super) fn write(
    path: &Path,
    id: [u8; ID_BYTES],
    source: &SnapshotSource,
    ring: &KeyRing,
    lineage: &Lineage,
) -> Result<(), SnapshotError> {
    let parts = Parts { state: &source.state, horizon: source.horizon, digest: source.digest };
    write_parts(path, id, &parts, &source.sessions, ring, lineage, |give| source.for_each_version(give))
}

/// The same of what isn't in a database: `versions` gives them in version order.
pub(super) fn write_parts<E: From<SnapshotError>>(
    path: &Path,
    id: [u8; ID_BYTES],
    parts: &Parts<'_>,
    sessions: &[SavedSession],
    ring: &KeyRing,
    lineage: &Lineage,
    versions: impl FnOnce(&mut dyn FnMut(&TravellingVersion) -> Result<(), SnapshotError>) -> Result<(), E>,
) -> Result<(), E> {
    let mut writer = Writer::create(path, id, ring, lineage)?;
    let header = Header { state: parts.state.clone(), horizon: parts.horizon, digest: parts.digest.to_bytes() };
    let header = postcard::to_stdvec(&header).expect("invariant: memory is the only sink and every length is known");
    writer.put_bytes(&header)?;
    let mut count = 0_u64;
    versions(&mut |given| {
        count += 1;
        writer.put(&[VERSION])?;
        for number in [given.version.to_u64(), given.id.to_u64(), given.previous.map_or(0, EventId::to_u64)] {
            writer.put(&number.to_be_bytes())?;
        }
        writer.put_bytes(given.body.plain())
    })?;
    for (session, bytes) in sessions {
        writer.put(&[SESSION])?;
        writer.put(&session.0.to_u64().to_be_bytes())?;
        writer.put_bytes(bytes)?;
    }
    writer.put(&[END])?;
    writer.put(&count.to_be_bytes())?;
    writer.put(&number_of(sessions.len()).to_be_bytes())?;
    Ok(writer.finish()?)
}

fn number_of(count: usize) -> u64 {
    u64::try_from(count).expect("invariant: no address space has more than 2^64 items")
}

/// Cuts a stream into sealed chunks.
struct Writer<'a> {
    path: &'a Path,
    id: [u8; ID_BYTES],
    ring: &'a KeyRing,
    lineage: &'a Lineage,
    file: BufWriter<fs::File>,
    hasher: blake3::Hasher,
    chunk: Vec<u8>,
    number: u32,
}

impl<'a> Writer<'a> {
    fn create(
        path: &'a Path,
        id: [u8; ID_BYTES],
        ring: &'a KeyRing,
        lineage: &'a Lineage,
    ) -> Result<Self, SnapshotError> {
        let file = fs::File::create(path).map_err(SnapshotError::file("create", path))?;
        let file = BufWriter::with_capacity(CHUNK_BYTES, file);
        let (hasher, chunk) = (blake3::Hasher::new(), Vec::with_capacity(CHUNK_BYTES));
        let mut writer = Self { path, id, ring, lineage, file, hasher, chunk, number: 0 };
        writer.write_raw(MAGIC)?;
        writer.write_raw(&FORMAT.to_be_bytes())?;
        writer.write_raw(&id)?;
        Ok(writer)
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= ITEM_BYTES_MAX);
        let length = length.ok_or_else(|| SnapshotError::damaged(self.path, "an item is too large to be written"))?;
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            // Only when more follows: the last chunk must say that it is the last.
            if self.chunk.len() == CHUNK_BYTES {
                self.seal_chunk(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal_chunk(&mut self, is_last: bool) -> Result<(), SnapshotError> {
        let mut plain = Vec::with_capacity(5 + self.chunk.len());
        plain.extend_from_slice(&self.number.to_be_bytes());
        plain.push(u8::from(is_last));
        plain.extend_from_slice(&self.chunk);
        let sealed = zyflow_crypto::seal(self.ring, Purpose::SnapshotChunk, self.lineage, &self.id, &plain)?;
        let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= SEALED_CHUNK_BYTES_MAX);
        let length = length.expect("invariant: an envelope adds a few hundred bytes to a chunk");
        self.write_raw(&length.to_be_bytes())?;
        self.write_raw(&sealed)?;
        self.chunk.clear();
        let number = self.number.checked_add(1);
        self.number = number.ok_or_else(|| SnapshotError::damaged(self.path, "there are too many chunks"))?;
        Ok(())
    }

    fn write_raw(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(SnapshotError::file("write", self.path))
    }

    fn finish(mut self) -> Result<(), SnapshotError> {
        self.seal_chunk(true)?;
        let trailer = *self.hasher.finalize().as_bytes();
        let failed = || SnapshotError::file("write", self.path);
        self.file.write_all(&trailer).map_err(failed())?;
        let file = self.file.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(SnapshotError::file("sync", self.path))
    }
}

/// Gives the items of a snapshot file, and verifies each byte before it uses it, and the whole file by its end.
pub(super) struct Reader<'a> {
    path: PathBuf,
    ring: &'a KeyRing,
    lineage: &'a Lineage,
    file: BufReader<fs::File>,
    hasher: blake3::Hasher,
    pub(super) id: [u8; ID_BYTES],
    chunk: Vec<u8>,
    used: usize,
    number: u32,
    is_last: bool,
    counts: [u64; 2],
}

impl<'a> Reader<'a> {
    pub(super) fn open(path: &Path, ring: &'a KeyRing, lineage: &'a Lineage) -> Result<Self, SnapshotError> {
        let file = fs::File::open(path).map_err(SnapshotError::file("open", path))?;
        let mut reader = Self {
            path: path.to_owned(),
            ring,
            lineage,
            file: BufReader::with_capacity(CHUNK_BYTES, file),
            hasher: blake3::Hasher::new(),
            id: [0; ID_BYTES],
            chunk: Vec::new(),
            used: 0,
            number: 0,
            is_last: false,
            counts: [0; 2],
        };
        let mut prefix = [0; PREFIX_BYTES];
        reader.read_raw(&mut prefix)?;
        let (magic, rest) = prefix.split_at(MAGIC.len());
        let (format, id) = rest.split_at(2);
        if magic != MAGIC {
            return Err(reader.damaged("it doesn't begin as one"));
        }
        let found = u16::from_be_bytes(format.try_into().expect("invariant: split at two bytes"));
        match found {
            FORMAT => {}
            newer if newer > FORMAT => {
                return Err(SnapshotError::NewerFormat { path: reader.path, found, known: FORMAT });
            }
            _ => return Err(reader.damaged("there is no such format")),
        }
        reader.id.copy_from_slice(id);
        Ok(reader)
    }

    /// The header; ask once, before anything else.
    pub(super) fn header(&mut self) -> Result<Header, SnapshotError> {
        let bytes = self.take_bytes()?;
        match postcard::take_from_bytes(&bytes) {
            Ok((header, [])) => Ok(header),
            Ok(_) | Err(_) => Err(self.damaged("its header is malformed")),
        }
    }

    /// The next item; after the last one the whole file is verified, and there is none.
    pub(super) fn next(&mut self) -> Result<Option<Item>, SnapshotError> {
        match self.take_array::<1>()? {
            [VERSION] => {
                self.counts[0] += 1;
                let (version, id, previous) = (self.take_id()?, self.take_id()?, self.take_id()?);
                let (version, id) = (EventId::from_u64(version), RecordId::from_u64(id));
                let previous = (previous != 0).then(|| EventId::from_u64(previous));
                let body = Body::from_plain(self.take_bytes()?);
                Ok(Some(Item::Version(TravellingVersion { version, id, previous, body })))
            }
            [SESSION] => {
                self.counts[1] += 1;
                let id = SessionId(EventId::from_u64(self.take_id()?));
                Ok(Some(Item::Session(id, self.take_bytes()?)))
            }
            [END] => {
                self.verify_end()?;
                Ok(None)
            }
            _ => Err(self.damaged("it holds an item of an unknown kind")),
        }
    }

    fn verify_end(&mut self) -> Result<(), SnapshotError> {
        let counts = [u64::from_be_bytes(self.take_array()?), u64::from_be_bytes(self.take_array()?)];
        if counts != self.counts {
            return Err(self.damaged("it holds fewer or more items than it says"));
        }
        if !self.is_last || self.used != self.chunk.len() {
            return Err(self.damaged("it goes on after its end"));
        }
        let expected = *self.hasher.finalize().as_bytes();
        let mut trailer = [0; TRAILER_BYTES];
        self.read_raw(&mut trailer)?;
        if trailer != expected {
            return Err(self.damaged("its checksum is wrong"));
        }
        match self.file.read(&mut [0]).map_err(SnapshotError::file("read", &self.path))? {
            0 => Ok(()),
            _ => Err(self.damaged("bytes follow its end")),
        }
    }

    /// Ids fit SQLite's integers.
    fn take_id(&mut self) -> Result<u64, SnapshotError> {
        let id = u64::from_be_bytes(self.take_array()?);
        if i64::try_from(id).is_err() {
            return Err(self.damaged("an id is out of range"));
        }
        Ok(id)
    }

    fn take_bytes(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let length = u32::from_be_bytes(self.take_array()?);
        if length > ITEM_BYTES_MAX {
            return Err(self.damaged("an item is too long"));
        }
        let length = usize::try_from(length).map_err(|_| self.damaged("an item is too long"))?;
        let mut bytes = vec![0; length];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, mut out: &mut [u8]) -> Result<(), SnapshotError> {
        while !out.is_empty() {
            if self.used == self.chunk.len() {
                self.next_chunk()?;
            }
            let count = out.len().min(self.chunk.len() - self.used);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&self.chunk[self.used..self.used + count]);
            self.used += count;
            out = later;
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> Result<(), SnapshotError> {
        if self.is_last {
            return Err(self.damaged("it ends in the middle of an item"));
        }
        let mut length = [0; 4];
        self.read_raw(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > SEALED_CHUNK_BYTES_MAX {
            return Err(self.damaged("a chunk is too long"));
        }
        let length = usize::try_from(length).map_err(|_| self.damaged("a chunk is too long"))?;
        let mut sealed = vec![0; length];
        self.read_raw(&mut sealed)?;
        let opened = zyflow_crypto::open(self.ring, Purpose::SnapshotChunk, self.lineage, &sealed)
            .map_err(|source| SnapshotError::Open { path: self.path.clone(), chunk: self.number, source })?;
        let plain = opened.plaintext.split_first_chunk::<4>().and_then(|(number, rest)| {
            let (is_last, part) = rest.split_first()?;
            Some((u32::from_be_bytes(*number), *is_last, part))
        });
        let Some((number, is_last @ 0..=1, part)) = plain else { return Err(self.damaged("a chunk is malformed")) };
        if opened.entry_id != self.id || number != self.number {
            return Err(self.damaged("a chunk is of another place or another snapshot"));
        }
        self.chunk = part.to_vec();
        self.used = 0;
        self.number += 1;
        self.is_last = is_last == 1;
        Ok(())
    }

    fn read_raw(&mut self, out: &mut [u8]) -> Result<(), SnapshotError> {
        self.file.read_exact(out).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.damaged("it is cut short")
            } else {
                SnapshotError::file("read", &self.path)(error)
            }
        })?;
        self.hasher.update(out);
        Ok(())
    }

    fn damaged(&self, reason: &str) -> SnapshotError {
        SnapshotError::damaged(&self.path, reason)
    }
}
