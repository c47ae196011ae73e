//! The outside of a backup's objects, format 1: what of a backup can be read and checked without any key.
//!
//! ```text
//!   object  = header, 112 bytes | chunk* | 0: u32 | trailer = BLAKE3 of all bytes before it
//!   header  = "zybackup" | format: u16 | kind: u8, 1 base 2 segment | settled: u8 | lineage | number: u32
//!           | oldest: u64 | first: u64 | last: u64 | made: u64, ms | trailer of the object before, zeros for a base | id: 16 random bytes
//!   chunk   = length: u32, not 0 | envelope
//!
//!   number 1 (base)            2 (segment)              3 (segment)          4 (base)
//!   +-----------------+        +-----------------+      +-----------+        +------------
//!   | first .. last   | <----- | last + 1 .. last| <--- |           |        | a new chain
//!   +-----------------+ trailer+-----------------+      +-----------+        +------------
//! ```
//!
//! The trailer finds what damage a copy did, bit by bit. As each object names the trailer of the one before, objects can't be
//! swapped, left out or mixed with those of another backup unnoticed; who could make a trailer fit can't make what is sealed
//! fit, and that repeats the header (`zyflow-storage` checks it, with the key). What is missing at the end can't be seen from
//! what is there: look at the last revision.
//!
//! Deliberately not here: what is sealed, and where objects are kept.

use std::io::{self, Read, Write};

use crate::envelope::Lineage;

/// What each object begins with.
const MAGIC: &[u8; 8] = b"zybackup";

/// The format that this release writes, and the newest that it reads.
const FORMAT: u16 = 1;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 112;

/// Bytes of a trailer.
pub const TRAILER_BYTES: usize = blake3::OUT_LEN;

/// Bytes of a sealed chunk, at most: 512 KiB, a part of 256 KiB and any envelope's overhead.
pub const CHUNK_BYTES_MAX: u32 = 512 << 10;

/// What the names of objects end with.
const NAME_ENDING: &str = ".zybackup";

/// The name of the object with this number. The same for a base and a segment, so that two that are written at once meet in it.
#[must_use]
pub fn object_name(number: u32) -> String {
    format!("{number:06}{NAME_ENDING}")
}

/// The number in the name of an object; `None` = it is no such name.
#[must_use]
pub fn number_in(name: &str) -> Option<u32> {
    let number = name.strip_suffix(NAME_ENDING)?.parse().ok()?;
    (number > 0 && object_name(number) == name).then_some(number)
}

/// The hash of an object: its trailer.
pub type ObjectHash = [u8; TRAILER_BYTES];

/// What an object says of itself in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its history.
    pub lineage: Lineage,
    /// Its number among all objects of the backup, from 1 up.
    pub number: u32,
    /// The oldest revision that its chain can show: what came before isn't kept, but for what still stood then.
    pub oldest: u64,
    /// It holds the versions from this revision on: 0 for a base, else the revision after the last one of the object before.
    pub first: u64,
    /// It holds all that was kept up to this revision.
    pub last: u64,
    /// Whether it ends with the state of a node, whose digest it holds; else there was more, and the next object goes on with it.
    pub is_settled: bool,
    /// When it was made, by the node's clock: milliseconds since 1970.
    pub made_ms: u64,
    /// The hash of the object before; `None` = a base, which begins a chain.
    pub previous: Option<ObjectHash>,
    /// Random: no other object has it.
    pub id: [u8; 16],
}

/// Why an object can't be believed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It can't be read or written.
    #[error("it can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// It isn't what was written.
    #[error("it is damaged ({0}): take it from another copy of the backup, or restore from an older one")]
    Damaged(&'static str),
    /// A newer release wrote it.
    #[error("it has format {found}, this release knows {FORMAT}: upgrade zyflow")]
    NewerFormat {
        /// Its format.
        found: u16,
    },
    /// It doesn't follow the one before.
    #[error(
        "it doesn't go on from the object before it ({0}): an object is missing, was replaced, or is of another backup"
    )]
    Chain(&'static str),
}

/// An object that was read to its last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says of itself.
    pub header: Header,
    /// Its hash.
    pub hash: ObjectHash,
    /// How long it is.
    pub bytes: u64,
}

impl Header {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: its parts have a fixed length.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let kind = if self.previous.is_some() { 2 } else { 1 };
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.extend_from_slice(&[kind, u8::from(self.is_settled)]);
        out.extend_from_slice(&self.lineage.0);
        out.extend_from_slice(&self.number.to_be_bytes());
        for number in [self.oldest, self.first, self.last, self.made_ms] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.previous.unwrap_or_default());
        out.extend_from_slice(&self.id);
        out.try_into().expect("invariant: the parts are 112 bytes long")
    }

    /// The header in these bytes.
    ///
    /// # Errors
    /// It is no header, or one of a later format.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ObjectError> {
        let mut parts = Parts(bytes);
        if parts.take::<8>() != *MAGIC {
            return Err(ObjectError::Damaged("it doesn't begin as an object of a backup"));
        }
        match u16::from_be_bytes(parts.take()) {
            FORMAT => {}
            found if found > FORMAT => return Err(ObjectError::NewerFormat { found }),
            _ => return Err(ObjectError::Damaged("there is no such format")),
        }
        let [kind, settled] = parts.take();
        let lineage = Lineage(parts.take());
        let number = u32::from_be_bytes(parts.take());
        let [oldest, first, last, made_ms] = [(); 4].map(|()| u64::from_be_bytes(parts.take()));
        let (previous, id) = (parts.take::<TRAILER_BYTES>(), parts.take());
        let previous = match kind {
            1 if previous == [0; TRAILER_BYTES] => None,
            2 if previous != [0; TRAILER_BYTES] => Some(previous),
            _ => return Err(ObjectError::Damaged("its header says neither a base nor a segment")),
        };
        let is_settled = match settled {
            0 => false,
            1 => true,
            _ => return Err(ObjectError::Damaged("its header is malformed")),
        };
        if number == 0 || first > last || (first == 0) != previous.is_none() {
            return Err(ObjectError::Damaged("its header is malformed"));
        }
        Ok(Self { lineage, number, oldest, first, last, is_settled, made_ms, previous, id })
    }
}

impl Checked {
    /// Whether `next` is the object after this one.
    ///
    /// # Errors
    /// [`ObjectError::Chain`], saying what doesn't fit.
    pub fn precedes(&self, next: &Header) -> Result<(), ObjectError> {
        if next.lineage != self.header.lineage {
            return Err(ObjectError::Chain("it is of another lineage"));
        }
        if Some(next.number) != self.header.number.checked_add(1) {
            return Err(ObjectError::Chain("its number isn't the next one"));
        }
        match next.previous {
            Some(previous) if previous != self.hash => Err(ObjectError::Chain("it names another object")),
            Some(_) if next.first != self.header.last + 1 => Err(ObjectError::Chain("revisions are missing")),
            Some(_) if next.oldest != self.header.oldest => Err(ObjectError::Chain("its past begins elsewhere")),
            None | Some(_) => Ok(()),
        }
    }
}

/// Whether an object can be the first of all that there are.
///
/// # Errors
/// [`ObjectError::Chain`]: it goes on from one that isn't there.
pub fn may_begin(header: &Header) -> Result<(), ObjectError> {
    match header.previous {
        None => Ok(()),
        Some(_) => Err(ObjectError::Chain("nothing is there before it")),
    }
}

/// Reads an object to its last byte and checks it.
///
/// # Errors
/// Any byte is wrong, missing or too many, or can't be read.
pub fn check(object: impl Read) -> Result<Checked, ObjectError> {
    let mut reader = Frames::open(object)?;
    while reader.next_chunk()?.is_some() {}
    reader.checked()
}

/// Writes an object chunk by chunk.
pub struct FrameWriter<W> {
    sink: W,
    hasher: blake3::Hasher,
}

impl<W: Write> FrameWriter<W> {
    /// Begins an object with its header.
    ///
    /// # Errors
    /// It can't be written.
    pub fn begin(sink: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { sink, hasher: blake3::Hasher::new() };
        writer.write(&header.encode())?;
        Ok(writer)
    }

    /// Adds a sealed chunk.
    ///
    /// # Errors
    /// It can't be written.
    ///
    /// # Panics
    /// Where it is empty or longer than [`CHUNK_BYTES_MAX`]: chunks are cut by the caller.
    pub fn chunk(&mut self, sealed: &[u8]) -> io::Result<()> {
        let length = u32::try_from(sealed.len()).ok().filter(|length| (1..=CHUNK_BYTES_MAX).contains(length));
        let length = length.expect("a chunk of a backup is neither empty nor over its limit");
        self.write(&length.to_be_bytes())?;
        self.write(sealed)
    }

    /// Ends the object; gives its hash, and what it was written to.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> io::Result<(ObjectHash, W)> {
        self.write(&0_u32.to_be_bytes())?;
        let hash = *self.hasher.finalize().as_bytes();
        self.sink.write_all(&hash)?;
        self.sink.flush()?;
        Ok((hash, self.sink))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.sink.write_all(bytes)
    }
}

/// Reads an object chunk by chunk.
pub struct Frames<R> {
    source: R,
    hasher: blake3::Hasher,
    header: Header,
    bytes: u64,
    has_ended: bool,
}

impl<R: Read> Frames<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is none, or can't be read.
    pub fn open(source: R) -> Result<Self, ObjectError> {
        let id = [0; 16];
        let (lineage, previous) = (Lineage(id), None);
        let header =
            Header { lineage, number: 0, oldest: 0, first: 0, last: 0, is_settled: false, made_ms: 0, previous, id };
        let mut frames = Self { source, hasher: blake3::Hasher::new(), header, bytes: 0, has_ended: false };
        let mut bytes = [0; HEADER_BYTES];
        frames.read(&mut bytes)?;
        frames.header = Header::decode(&bytes)?;
        Ok(frames)
    }

    /// What the object says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next sealed chunk; `None` = there was the last one.
    ///
    /// # Errors
    /// The object is cut short, malformed, or can't be read.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ObjectError> {
        if self.has_ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > CHUNK_BYTES_MAX {
            return Err(ObjectError::Damaged("a chunk is too long"));
        }
        if length == 0 {
            self.has_ended = true;
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| ObjectError::Damaged("a chunk is too long"))?;
        let mut sealed = vec![0; length];
        self.read(&mut sealed)?;
        Ok(Some(sealed))
    }

    /// Checks the trailer, after the last chunk, and that nothing follows it.
    ///
    /// # Errors
    /// Any byte is wrong, missing or too many.
    pub fn checked(mut self) -> Result<Checked, ObjectError> {
        let expected = *self.hasher.finalize().as_bytes();
        let mut trailer = [0; TRAILER_BYTES];
        self.read(&mut trailer)?;
        if trailer != expected || !self.has_ended {
            return Err(ObjectError::Damaged("its checksum is wrong"));
        }
        if self.source.read(&mut [0])? != 0 {
            return Err(ObjectError::Damaged("bytes follow its end"));
        }
        Ok(Checked { header: self.header, hash: trailer, bytes: self.bytes })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<(), ObjectError> {
        self.source.read_exact(out).map_err(|error| {
            let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
            if is_cut { ObjectError::Damaged("it is cut short") } else { ObjectError::Io(error) }
        })?;
        self.bytes += u64::try_from(out.len()).unwrap_or(u64::MAX);
        self.hasher.update(out);
        Ok(())
    }
}

/// The rest of a header, which is long enough for all that is taken.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk::<N>().expect("invariant: a header is 112 bytes long");
        self.0 = rest;
        *taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            lineage: Lineage([3; 16]),
            number: 7,
            oldest: 20,
            first: 100,
            last: 250,
            is_settled: true,
            made_ms: 1_790_000_000_000,
            previous: Some([9; 32]),
            id: [5; 16],
        }
    }

    fn object(header: &Header, chunks: &[&[u8]]) -> Vec<u8> {
        let mut writer = FrameWriter::begin(Vec::new(), header).unwrap();
        for chunk in chunks {
            writer.chunk(chunk).unwrap();
        }
        writer.finish().unwrap().1
    }

    #[test]
    fn what_is_written_is_read_and_every_flipped_bit_and_every_cut_is_found() {
        let good = object(&header(), &[b"one", b"and another"]);
        let checked = check(good.as_slice()).unwrap();
        assert_eq!((&checked.header, checked.bytes), (&header(), u64::try_from(good.len()).unwrap()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(bad.as_slice()).is_err(), "bit {bit} is not found");
        }
        for length in 0..good.len() {
            assert!(check(&good[..length]).is_err(), "a cut after {length} bytes is not found");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(check(longer.as_slice()).unwrap_err().to_string().contains("bytes follow its end"));
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut newer = header().encode();
        newer[9] = 2;
        assert!(matches!(Header::decode(&newer), Err(ObjectError::NewerFormat { found: 2 })));
    }

    #[test]
    fn names_say_numbers_and_no_other_name_does() {
        for number in [1, 42, 999_999, 1_000_000] {
            assert_eq!(number_in(&object_name(number)), Some(number));
        }
        for name in ["000000.zybackup", "1.zybackup", "000001.zybackup.tmp", "+00001.zybackup", "000001", ""] {
            assert_eq!(number_in(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_next_object_follows() {
        let base = check(object(&Header { previous: None, first: 0, ..header() }, &[b"x"]).as_slice()).unwrap();
        let next = Header { number: 8, first: 251, last: 300, previous: Some(base.hash), ..header() };
        base.precedes(&next).unwrap();
        base.precedes(&Header { previous: None, first: 0, oldest: 99, ..next.clone() }).unwrap();
        let cases = [
            (Header { lineage: Lineage([4; 16]), ..next.clone() }, "another lineage"),
            (Header { number: 9, ..next.clone() }, "isn't the next one"),
            (Header { previous: Some([1; 32]), ..next.clone() }, "names another object"),
            (Header { first: 252, ..next.clone() }, "revisions are missing"),
            (Header { oldest: 21, ..next.clone() }, "its past begins elsewhere"),
        ];
        for (header, expected) in cases {
            let error = base.precedes(&header).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        may_begin(&base.header).unwrap();
        assert!(may_begin(&next).is_err());
    }
}
