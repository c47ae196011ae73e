//! The bytes of a snapshot file, format 1.
//!
//! ```text
//!   "zysnap" | format: u16 | snapshot id: 16 random bytes
//!   chunk*   = length: u32 | envelope of a part of the stream (see `items.rs`), its entry id = the snapshot id
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
use zyflow_machine::id::{EventId, Revision, SessionId};

use super::SnapshotError;
use super::incoming::hash;
use crate::items::{ItemReader, ItemWriter, PART_BYTES, PartSink, PartSource};
use crate::tables::{SavedSession, SavedState, SnapshotSource, TravellingVersion};

const MAGIC: &[u8; 6] = b"zysnap";
const FORMAT: u16 = 1;
const ID_BYTES: usize = 16;
const PREFIX_BYTES: usize = MAGIC.len() + 2 + ID_BYTES;
const TRAILER_BYTES: usize = blake3::OUT_LEN;

/// Bytes of a sealed chunk, at most: room for the overhead of any envelope format.
const SEALED_CHUNK_BYTES_MAX: u32 = 512 << 10;

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
    let mut writer = ItemWriter::new(Sink::create(path, id, ring, lineage)?);
    let header = Header { state: parts.state.clone(), horizon: parts.horizon, digest: parts.digest.to_bytes() };
    let header = postcard::to_stdvec(&header).expect("invariant: memory is the only sink and every length is known");
    writer.put_bytes(&header)?;
    let mut count = 0_u64;
    versions(&mut |given| {
        count += 1;
        writer.put(&[VERSION])?;
        writer.put_version(given)
    })?;
    for (session, bytes) in sessions {
        writer.put(&[SESSION])?;
        writer.put(&session.0.to_u64().to_be_bytes())?;
        writer.put_bytes(bytes)?;
    }
    writer.put(&[END])?;
    writer.put(&count.to_be_bytes())?;
    writer.put(&number_of(sessions.len()).to_be_bytes())?;
    Ok(writer.finish()?.finish()?)
}

fn number_of(count: usize) -> u64 {
    u64::try_from(count).expect("invariant: no address space has more than 2^64 items")
}

/// Whether the checksum of a file is right, which takes no key: then its bytes are those that were written.
pub(super) fn is_whole(path: &Path) -> Result<bool, SnapshotError> {
    let failed = || SnapshotError::file("read", path);
    let mut file = fs::File::open(path).map_err(SnapshotError::file("open", path))?;
    let length = file.metadata().map_err(failed())?.len();
    let Some(covered) = length.checked_sub(number_of(TRAILER_BYTES)) else { return Ok(false) };
    let (_, hasher) = hash(&file, covered).map_err(failed())?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact(&mut trailer).map_err(failed())?;
    Ok(trailer == *hasher.finalize().as_bytes())
}

/// Seals parts into a file.
struct Sink<'a> {
    path: &'a Path,
    id: [u8; ID_BYTES],
    ring: &'a KeyRing,
    lineage: &'a Lineage,
    file: BufWriter<fs::File>,
    hasher: blake3::Hasher,
}

impl PartSink for Sink<'_> {
    type Error = SnapshotError;

    fn write_part(&mut self, part: &[u8]) -> Result<(), SnapshotError> {
        let sealed = zyflow_crypto::seal(self.ring, Purpose::SnapshotChunk, self.lineage, &self.id, part)?;
        let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= SEALED_CHUNK_BYTES_MAX);
        let length = length.expect("invariant: an envelope adds a few hundred bytes to a chunk");
        self.write_raw(&length.to_be_bytes())?;
        self.write_raw(&sealed)
    }

    fn too_large(&self, what: &'static str) -> SnapshotError {
        SnapshotError::damaged(self.path, what)
    }
}

impl<'a> Sink<'a> {
    fn create(
        path: &'a Path,
        id: [u8; ID_BYTES],
        ring: &'a KeyRing,
        lineage: &'a Lineage,
    ) -> Result<Self, SnapshotError> {
        let file = fs::File::create(path).map_err(SnapshotError::file("create", path))?;
        let file = BufWriter::with_capacity(PART_BYTES, file);
        let mut sink = Self { path, id, ring, lineage, file, hasher: blake3::Hasher::new() };
        sink.write_raw(MAGIC)?;
        sink.write_raw(&FORMAT.to_be_bytes())?;
        sink.write_raw(&id)?;
        Ok(sink)
    }

    fn write_raw(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(SnapshotError::file("write", self.path))
    }

    fn finish(mut self) -> Result<(), SnapshotError> {
        let trailer = *self.hasher.finalize().as_bytes();
        let failed = || SnapshotError::file("write", self.path);
        self.file.write_all(&trailer).map_err(failed())?;
        let file = self.file.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(SnapshotError::file("sync", self.path))
    }
}

/// Opens the parts of a file.
struct Source<'a> {
    path: PathBuf,
    ring: &'a KeyRing,
    lineage: &'a Lineage,
    file: BufReader<fs::File>,
    hasher: blake3::Hasher,
    id: [u8; ID_BYTES],
}

impl PartSource for Source<'_> {
    const WHOLE: &'static str = "snapshot";

    type Error = SnapshotError;

    fn read_part(&mut self, number: u32) -> Result<Option<Vec<u8>>, SnapshotError> {
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
            .map_err(|source| SnapshotError::Open { path: self.path.clone(), chunk: number, source })?;
        Ok((opened.entry_id == self.id).then_some(opened.plaintext))
    }

    fn damaged(&self, reason: &str) -> SnapshotError {
        SnapshotError::damaged(&self.path, reason)
    }
}

impl Source<'_> {
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
}

/// Gives the items of a snapshot file, and verifies each byte before it uses it, and the whole file by its end.
pub(super) struct Reader<'a> {
    items: ItemReader<Source<'a>>,
    counts: [u64; 2],
}

impl<'a> Reader<'a> {
    pub(super) fn open(path: &Path, ring: &'a KeyRing, lineage: &'a Lineage) -> Result<Self, SnapshotError> {
        let file = fs::File::open(path).map_err(SnapshotError::file("open", path))?;
        let file = BufReader::with_capacity(PART_BYTES, file);
        let (path, hasher) = (path.to_owned(), blake3::Hasher::new());
        let mut source = Source { path, ring, lineage, file, hasher, id: [0; ID_BYTES] };
        let mut prefix = [0; PREFIX_BYTES];
        source.read_raw(&mut prefix)?;
        let (magic, rest) = prefix.split_at(MAGIC.len());
        let (format, id) = rest.split_at(2);
        if magic != MAGIC {
            return Err(source.damaged("it doesn't begin as one"));
        }
        let found = u16::from_be_bytes(format.try_into().expect("invariant: split at two bytes"));
        match found {
            FORMAT => {}
            newer if newer > FORMAT => {
                return Err(SnapshotError::NewerFormat { path: source.path, found, known: FORMAT });
            }
            _ => return Err(source.damaged("there is no such format")),
        }
        source.id.copy_from_slice(id);
        Ok(Self { items: ItemReader::new(source), counts: [0; 2] })
    }

    /// The id in the file.
    pub(super) fn id(&self) -> [u8; ID_BYTES] {
        self.items.source.id
    }

    /// The header; ask once, before anything else.
    pub(super) fn header(&mut self) -> Result<Header, SnapshotError> {
        let bytes = self.items.take_bytes()?;
        match postcard::take_from_bytes(&bytes) {
            Ok((header, [])) => Ok(header),
            Ok(_) | Err(_) => Err(self.damaged("its header is malformed")),
        }
    }

    /// The next item; after the last one the whole file is verified, and there is none.
    pub(super) fn next(&mut self) -> Result<Option<Item>, SnapshotError> {
        match self.items.take_array::<1>()? {
            [VERSION] => {
                self.counts[0] += 1;
                Ok(Some(Item::Version(self.items.take_version()?)))
            }
            [SESSION] => {
                self.counts[1] += 1;
                let id = SessionId(EventId::from_u64(self.items.take_id()?));
                Ok(Some(Item::Session(id, self.items.take_bytes()?)))
            }
            [END] => {
                self.verify_end()?;
                Ok(None)
            }
            _ => Err(self.damaged("it holds an item of an unknown kind")),
        }
    }

    fn verify_end(&mut self) -> Result<(), SnapshotError> {
        let counts = [u64::from_be_bytes(self.items.take_array()?), u64::from_be_bytes(self.items.take_array()?)];
        if counts != self.counts {
            return Err(self.damaged("it holds fewer or more items than it says"));
        }
        if !self.items.is_over() {
            return Err(self.damaged("it goes on after its end"));
        }
        let source = &mut self.items.source;
        let expected = *source.hasher.finalize().as_bytes();
        let mut trailer = [0; TRAILER_BYTES];
        source.read_raw(&mut trailer)?;
        if trailer != expected {
            return Err(self.damaged("its checksum is wrong"));
        }
        match source.file.read(&mut [0]).map_err(SnapshotError::file("read", &source.path))? {
            0 => Ok(()),
            _ => Err(self.damaged("bytes follow its end")),
        }
    }

    fn damaged(&self, reason: &str) -> SnapshotError {
        self.items.source.damaged(reason)
    }
}
