//! What is sealed in an object, format 1. Its outside is `zyflow_crypto::backup`'s.
//!
//! ```text
//!   chunk   = envelope of (number: u32 | is last: u8 | part of the stream), its entry id = the object's id
//!   stream  = length: u32, postcard of (the header's bytes, name of the cluster, digest)
//!             1 | version: u64 | record: u64 | previous: u64 or 0 | length: u32, body     in version order
//!             0 | count of versions: u64
//! ```
//!
//! The header stands in clear and is repeated inside: so it can't be changed by somebody who makes the trailer fit.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use zyflow_crypto::backup::{Checked, FrameWriter, Frames, Header, ObjectHash, object_name};
use zyflow_crypto::{KeyRing, Purpose};
use zyflow_machine::Digest;
use zyflow_machine::id::{EventId, RecordId};

use super::{BackupError, Sealing};
use crate::tables::{Body, TravellingVersion};

/// Bytes of the stream in one chunk: as in a snapshot.
const PART_BYTES: usize = 256 << 10;

/// Bytes of one item, at most: what a local record may have.
const ITEM_BYTES_MAX: u32 = 16 << 20;

const END: u8 = 0;
const VERSION: u8 = 1;

/// What stands at the beginning of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    header: Vec<u8>,
    pub(super) cluster: String,
    /// Of all live rows at the object's end, where it is settled.
    pub(super) digest: Option<[u8; 32]>,
}

/// Writes a whole object; `versions` gives them in version order.
pub(super) fn write(
    sink: impl Write,
    header: &Header,
    digest: Option<Digest>,
    sealing: &Sealing<'_>,
    versions: impl FnOnce(&mut dyn FnMut(&TravellingVersion) -> Result<(), BackupError>) -> Result<(), BackupError>,
) -> Result<ObjectHash, BackupError> {
    let frames = FrameWriter::begin(sink, header).map_err(BackupError::Write)?;
    let part = Vec::with_capacity(PART_BYTES);
    let mut writer = Writer { frames, id: header.id, sealing: *sealing, part, number: 0 };
    let contents = Contents {
        header: header.encode().to_vec(),
        cluster: sealing.cluster.to_owned(),
        digest: digest.map(Digest::to_bytes),
    };
    let contents =
        postcard::to_stdvec(&contents).expect("invariant: memory is the only sink and every length is known");
    writer.put_bytes(&contents)?;
    let mut count = 0_u64;
    versions(&mut |given| {
        count += 1;
        writer.put(&[VERSION])?;
        for number in [given.version.to_u64(), given.id.to_u64(), given.previous.map_or(0, EventId::to_u64)] {
            writer.put(&number.to_be_bytes())?;
        }
        writer.put_bytes(given.body.plain())
    })?;
    writer.put(&[END])?;
    writer.put(&count.to_be_bytes())?;
    writer.finish()
}

/// Cuts a stream into sealed chunks.
struct Writer<'a, W> {
    frames: FrameWriter<W>,
    id: [u8; 16],
    sealing: Sealing<'a>,
    part: Vec<u8>,
    number: u32,
}

impl<W: Write> Writer<'_, W> {
    fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= ITEM_BYTES_MAX);
        let length = length.expect("invariant: a local record, which this is, isn't longer");
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            // Only when more follows: the last chunk must say that it is the last.
            if self.part.len() == PART_BYTES {
                self.seal(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal(&mut self, is_last: bool) -> Result<(), BackupError> {
        let mut plain = Vec::with_capacity(5 + self.part.len());
        plain.extend_from_slice(&self.number.to_be_bytes());
        plain.push(u8::from(is_last));
        plain.append(&mut self.part);
        let Sealing { ring, lineage, .. } = self.sealing;
        let sealed = zyflow_crypto::seal(ring, Purpose::BackupChunk, lineage, &self.id, &plain)?;
        self.number += 1;
        self.frames.chunk(&sealed).map_err(BackupError::Write)
    }

    fn finish(mut self) -> Result<ObjectHash, BackupError> {
        self.seal(true)?;
        let (hash, _) = self.frames.finish().map_err(BackupError::Write)?;
        Ok(hash)
    }
}

/// Gives the versions of an object, and verifies each byte before it uses it, and the whole object by its end.
pub(super) struct Reader<'a, R> {
    name: String,
    ring: &'a KeyRing,
    frames: Frames<R>,
    part: Vec<u8>,
    used: usize,
    number: u32,
    is_last: bool,
    versions: u64,
}

impl<'a, R: Read> Reader<'a, R> {
    pub(super) fn open(source: R, name: &str, ring: &'a KeyRing) -> Result<(Self, Contents), BackupError> {
        let frames = Frames::open(source).map_err(BackupError::object(name))?;
        let name = object_name(frames.header().number);
        let (part, used, number) = (Vec::new(), 0, 0);
        let mut reader = Self { name, ring, frames, part, used, number, is_last: false, versions: 0 };
        let bytes = reader.take_bytes()?;
        let contents: Contents = match postcard::take_from_bytes(&bytes) {
            Ok((contents, [])) => contents,
            Ok(_) | Err(_) => return Err(reader.damaged("what it says of itself is malformed")),
        };
        let header = reader.frames.header();
        if contents.header != header.encode() || contents.digest.is_some() != header.is_settled {
            return Err(reader.damaged("its header isn't the one that was sealed"));
        }
        Ok((reader, contents))
    }

    pub(super) fn header(&self) -> &Header {
        self.frames.header()
    }

    /// The next version; `None` = there is none, and all that was sealed is as it was.
    pub(super) fn next(&mut self) -> Result<Option<TravellingVersion>, BackupError> {
        match self.take_array::<1>()? {
            [VERSION] => {
                self.versions += 1;
                let [version, id, previous] = [self.take_id()?, self.take_id()?, self.take_id()?];
                Ok(Some(TravellingVersion {
                    version: EventId::from_u64(version),
                    id: RecordId::from_u64(id),
                    previous: (previous != 0).then(|| EventId::from_u64(previous)),
                    body: Body::from_plain(self.take_bytes()?),
                }))
            }
            [END] => {
                if u64::from_be_bytes(self.take_array()?) != self.versions {
                    return Err(self.damaged("it holds fewer or more versions than it says"));
                }
                let is_over = self.is_last && self.used == self.part.len();
                let extra = self.frames.next_chunk().map_err(BackupError::object(&self.name))?;
                if !is_over || extra.is_some() {
                    return Err(self.damaged("it goes on after its end"));
                }
                Ok(None)
            }
            _ => Err(self.damaged("there is no such item")),
        }
    }

    /// After the last version: the whole object is verified.
    pub(super) fn finish(self) -> Result<Checked, BackupError> {
        self.frames.checked().map_err(BackupError::object(&self.name))
    }

    /// Ids fit SQLite's integers.
    fn take_id(&mut self) -> Result<u64, BackupError> {
        let id = u64::from_be_bytes(self.take_array()?);
        if i64::try_from(id).is_err() {
            return Err(self.damaged("an id is out of range"));
        }
        Ok(id)
    }

    fn take_bytes(&mut self) -> Result<Vec<u8>, BackupError> {
        let length = u32::from_be_bytes(self.take_array()?);
        let length = usize::try_from(length).ok().filter(|_| length <= ITEM_BYTES_MAX);
        let mut bytes = vec![0; length.ok_or_else(|| self.damaged("an item is too long"))?];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, mut out: &mut [u8]) -> Result<(), BackupError> {
        while !out.is_empty() {
            if self.used == self.part.len() {
                self.next_part()?;
            }
            let count = out.len().min(self.part.len() - self.used);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&self.part[self.used..self.used + count]);
            self.used += count;
            out = later;
        }
        Ok(())
    }

    fn next_part(&mut self) -> Result<(), BackupError> {
        let next =
            if self.is_last { None } else { self.frames.next_chunk().map_err(BackupError::object(&self.name))? };
        let Some(sealed) = next else { return Err(self.damaged("it ends in the middle of an item")) };
        let Header { lineage, id, .. } = self.frames.header().clone();
        let opened = zyflow_crypto::open(self.ring, Purpose::BackupChunk, &lineage, &sealed)
            .map_err(|source| BackupError::Open { name: self.name.clone(), chunk: self.number, source })?;
        let plain = opened.plaintext.split_first_chunk::<4>().and_then(|(number, rest)| {
            let (is_last, part) = rest.split_first()?;
            Some((u32::from_be_bytes(*number), *is_last, part))
        });
        let Some((number, is_last @ 0..=1, part)) = plain else { return Err(self.damaged("a chunk is malformed")) };
        if opened.entry_id != id || number != self.number || part.is_empty() {
            return Err(self.damaged("a chunk is of another place or another object"));
        }
        self.part = part.to_vec();
        self.used = 0;
        self.number += 1;
        self.is_last = is_last == 1;
        Ok(())
    }

    fn damaged(&self, reason: &str) -> BackupError {
        BackupError::damaged(&self.name, reason)
    }
}
