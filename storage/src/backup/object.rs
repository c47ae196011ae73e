//! What is sealed in an object, format 1. Its outside is `zyflow_crypto::backup`'s.
//!
//! ```text
//!   chunk   = envelope of a part of the stream (see `items.rs`), its entry id = the object's id
//!   stream  = length: u32, postcard of (the header's bytes, name of the cluster, digest)
//!             1 | version: u64 | record: u64 | previous: u64 or 0 | length: u32, body     in version order
//!             0 | count of versions: u64
//! ```
//!
//! The header stands in clear and is repeated inside: so it can't be changed by somebody who makes the trailer fit.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use zyflow_crypto::backup::{Checked, FrameWriter, Frames, Header, ObjectHash, object_name};
use zyflow_crypto::{KeyRing, Purpose};
use zyflow_machine::Digest;

use super::{BackupError, Sealing};
use crate::items::{ItemReader, ItemWriter, PartSink, PartSource};
use crate::tables::TravellingVersion;

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
    let mut writer = ItemWriter::new(Sink { frames, id: header.id, sealing: *sealing });
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
        writer.put_version(given)
    })?;
    writer.put(&[END])?;
    writer.put(&count.to_be_bytes())?;
    let (hash, _) = writer.finish()?.frames.finish().map_err(BackupError::Write)?;
    Ok(hash)
}

/// Seals parts into an object.
struct Sink<'a, W> {
    frames: FrameWriter<W>,
    id: [u8; 16],
    sealing: Sealing<'a>,
}

impl<W: Write> PartSink for Sink<'_, W> {
    type Error = BackupError;

    fn write_part(&mut self, part: &[u8]) -> Result<(), BackupError> {
        let Sealing { ring, lineage, .. } = self.sealing;
        let sealed = zyflow_crypto::seal(ring, Purpose::BackupChunk, lineage, &self.id, part)?;
        self.frames.chunk(&sealed).map_err(BackupError::Write)
    }

    fn too_large(&self, what: &'static str) -> BackupError {
        BackupError::Write(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// Opens the parts of an object.
struct Source<'a, R> {
    name: String,
    ring: &'a KeyRing,
    frames: Frames<R>,
}

impl<R: Read> PartSource for Source<'_, R> {
    const WHOLE: &'static str = "object";

    type Error = BackupError;

    fn read_part(&mut self, number: u32) -> Result<Option<Vec<u8>>, BackupError> {
        let Some(sealed) = self.frames.next_chunk().map_err(BackupError::object(&self.name))? else {
            return Err(self.damaged("it ends in the middle of an item"));
        };
        let Header { lineage, id, .. } = self.frames.header();
        let opened = zyflow_crypto::open(self.ring, Purpose::BackupChunk, lineage, &sealed)
            .map_err(|source| BackupError::Open { name: self.name.clone(), chunk: number, source })?;
        Ok((opened.entry_id == *id).then_some(opened.plaintext))
    }

    fn damaged(&self, reason: &str) -> BackupError {
        BackupError::damaged(&self.name, reason)
    }
}

/// Gives the versions of an object, and verifies each byte before it uses it, and the whole object by its end.
pub(super) struct Reader<'a, R> {
    items: ItemReader<Source<'a, R>>,
    versions: u64,
}

impl<'a, R: Read> Reader<'a, R> {
    pub(super) fn open(source: R, name: &str, ring: &'a KeyRing) -> Result<(Self, Contents), BackupError> {
        let frames = Frames::open(source).map_err(BackupError::object(name))?;
        let name = object_name(frames.header().number);
        let mut reader = Self { items: ItemReader::new(Source { name, ring, frames }), versions: 0 };
        let bytes = reader.items.take_bytes()?;
        let contents: Contents = match postcard::take_from_bytes(&bytes) {
            Ok((contents, [])) => contents,
            Ok(_) | Err(_) => return Err(reader.damaged("what it says of itself is malformed")),
        };
        let header = reader.header();
        if contents.header != header.encode() || contents.digest.is_some() != header.is_settled {
            return Err(reader.damaged("its header isn't the one that was sealed"));
        }
        Ok((reader, contents))
    }

    pub(super) fn header(&self) -> &Header {
        self.items.source.frames.header()
    }

    /// The next version; `None` = there is none, and all that was sealed is as it was.
    pub(super) fn next(&mut self) -> Result<Option<TravellingVersion>, BackupError> {
        match self.items.take_array::<1>()? {
            [VERSION] => {
                self.versions += 1;
                self.items.take_version().map(Some)
            }
            [END] => {
                if u64::from_be_bytes(self.items.take_array()?) != self.versions {
                    return Err(self.damaged("it holds fewer or more versions than it says"));
                }
                let is_over = self.items.is_over();
                let Source { name, frames, .. } = &mut self.items.source;
                let extra = frames.next_chunk().map_err(BackupError::object(name))?;
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
        let Source { name, frames, .. } = self.items.source;
        frames.checked().map_err(BackupError::object(&name))
    }

    fn damaged(&self, reason: &str) -> BackupError {
        self.items.source.damaged(reason)
    }
}
