//! A stream of items, cut into parts that are sealed one by one: what snapshots and backups have in common.
//!
//! ```text
//!   part    = number: u32 | is last: u8 | bytes of the stream
//!   stream  = items one after the other, wherever parts end:  tag: u8, then what that item has
//!   version = version: u64 | record: u64 | previous: u64 or 0 | length: u32, body
//! ```
//! A part says its place and whether it is the last, so parts that were swapped, repeated or left out are found as soon as they are opened.
//!
//! Deliberately not here: how a part is sealed and framed, and what says that all of it is whole.

use zyflow_machine::id::{EventId, RecordId};

use crate::tables::{Body, TravellingVersion};

/// Bytes of the stream in one part: 256 KiB. Large enough that sealing's 115 bytes and the key derivation vanish, small enough to be sent
/// and checked as one piece.
pub(crate) const PART_BYTES: usize = 256 << 10;

/// Bytes of one item, at most: what a local record may have.
const ITEM_BYTES_MAX: u32 = 16 << 20;

/// Where parts go.
pub(crate) trait PartSink {
    /// Why one can't be written.
    type Error;

    /// Seals and writes a part, with its number and mark.
    fn write_part(&mut self, part: &[u8]) -> Result<(), Self::Error>;

    /// An item or the number of parts is out of bounds.
    fn too_large(&self, what: &'static str) -> Self::Error;
}

/// Cuts a stream into parts.
pub(crate) struct ItemWriter<S> {
    sink: S,
    part: Vec<u8>,
    number: u32,
}

impl<S: PartSink> ItemWriter<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink, part: Vec::with_capacity(PART_BYTES), number: 0 }
    }

    pub(crate) fn put_version(&mut self, given: &TravellingVersion) -> Result<(), S::Error> {
        for number in [given.version.to_u64(), given.id.to_u64(), given.previous.map_or(0, EventId::to_u64)] {
            self.put(&number.to_be_bytes())?;
        }
        self.put_bytes(given.body.plain())
    }

    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), S::Error> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= ITEM_BYTES_MAX);
        let length = length.ok_or_else(|| self.sink.too_large("an item is too large to be written"))?;
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }

    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<(), S::Error> {
        while !bytes.is_empty() {
            // Only when more follows: the last part must say that it is the last.
            if self.part.len() == PART_BYTES {
                self.end_part(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes the last part.
    pub(crate) fn finish(mut self) -> Result<S, S::Error> {
        self.end_part(true)?;
        Ok(self.sink)
    }

    fn end_part(&mut self, is_last: bool) -> Result<(), S::Error> {
        let mut plain = Vec::with_capacity(5 + self.part.len());
        plain.extend_from_slice(&self.number.to_be_bytes());
        plain.push(u8::from(is_last));
        plain.append(&mut self.part);
        self.sink.write_part(&plain)?;
        let next = self.number.checked_add(1);
        self.number = next.ok_or_else(|| self.sink.too_large("there are too many chunks"))?;
        Ok(())
    }
}

/// Where parts come from.
pub(crate) trait PartSource {
    /// What all parts together are.
    const WHOLE: &'static str;

    /// Why there is none.
    type Error;

    /// The next part, opened, with its number and mark; `None` = it is of another whole. `number` is for errors.
    fn read_part(&mut self, number: u32) -> Result<Option<Vec<u8>>, Self::Error>;

    /// What was read can't be right.
    fn damaged(&self, reason: &str) -> Self::Error;
}

/// Gives items, and verifies the place of each part before it uses it.
pub(crate) struct ItemReader<S> {
    pub(crate) source: S,
    part: Vec<u8>,
    used: usize,
    number: u32,
    is_last: bool,
}

impl<S: PartSource> ItemReader<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, part: Vec::new(), used: 0, number: 0, is_last: false }
    }

    /// Whether nothing is left.
    pub(crate) fn is_over(&self) -> bool {
        self.is_last && self.used == self.part.len()
    }

    pub(crate) fn take_version(&mut self) -> Result<TravellingVersion, S::Error> {
        let [version, id, previous] = [self.take_id()?, self.take_id()?, self.take_id()?];
        Ok(TravellingVersion {
            version: EventId::from_u64(version),
            id: RecordId::from_u64(id),
            previous: (previous != 0).then(|| EventId::from_u64(previous)),
            body: Body::from_plain(self.take_bytes()?),
        })
    }

    /// Ids fit SQLite's integers.
    pub(crate) fn take_id(&mut self) -> Result<u64, S::Error> {
        let id = u64::from_be_bytes(self.take_array()?);
        if i64::try_from(id).is_err() {
            return Err(self.source.damaged("an id is out of range"));
        }
        Ok(id)
    }

    pub(crate) fn take_bytes(&mut self) -> Result<Vec<u8>, S::Error> {
        let length = u32::from_be_bytes(self.take_array()?);
        let length = usize::try_from(length).ok().filter(|_| length <= ITEM_BYTES_MAX);
        let mut bytes = vec![0; length.ok_or_else(|| self.source.damaged("an item is too long"))?];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], S::Error> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, mut out: &mut [u8]) -> Result<(), S::Error> {
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

    fn next_part(&mut self) -> Result<(), S::Error> {
        if self.is_last {
            return Err(self.source.damaged("it ends in the middle of an item"));
        }
        let Some(plain) = self.source.read_part(self.number)? else { return Err(self.misplaced()) };
        let parsed = plain.split_first_chunk::<4>().and_then(|(number, rest)| {
            let (is_last, part) = rest.split_first()?;
            Some((u32::from_be_bytes(*number), *is_last, part))
        });
        let Some((number, is_last @ 0..=1, part)) = parsed else {
            return Err(self.source.damaged("a chunk is malformed"));
        };
        if number != self.number || part.is_empty() {
            return Err(self.misplaced());
        }
        self.part = part.to_vec();
        self.used = 0;
        self.number += 1;
        self.is_last = is_last == 1;
        Ok(())
    }

    fn misplaced(&self) -> S::Error {
        self.source.damaged(&format!("a chunk is of another place or another {}", S::WHOLE))
    }
}
