//! The bytes of a record. Blocks are stored once and texts as lists of (block, id), so sixteen versions of a file cost little more
//! than one.
//!
//! ```text
//!   version u16 BE │ sealed: postcard of `Stored` │ BLAKE3 of all before, 32 bytes
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zyflow_machine::command::Body;
use zyflow_machine::id::{RecordId, RequestId, Revision};
use zyflow_spec::{Block, Known};

use super::{Flight, Intent, Record, SealError, StateSeal};
use crate::plan::{By, SHOWN_STORED_MAX, Shown};
use crate::text::KnownText;

/// Version of the format. A change of any stored type is a new one.
pub(super) const VERSION: u16 = 3;

/// The oldest version that is read: version 3 only added [`StoredBy::Found`].
const OLDEST_VERSION: u16 = 2;

const CHECKSUM_BYTES: usize = 32;

/// Why stored bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Cut off or changed.
    #[error("the checksum doesn't fit: the file is damaged")]
    Damaged,
    /// Of another version.
    #[error("format version {found}, and this program knows {OLDEST_VERSION} to {VERSION}")]
    UnknownVersion {
        /// The version that the bytes name.
        found: u16,
    },
    /// Not what the version promises.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The seal doesn't open or close.
    #[error("the seal doesn't hold")]
    Seal(#[source] SealError),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    path: String,
    change: Option<RecordId>,
    blocks: Vec<Block>,
    shown: Vec<StoredText>,
    intent: Option<(RecordId, StoredText)>,
    flight: Option<StoredFlight>,
    wrote: Option<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct StoredText {
    revision: Revision,
    by: StoredBy,
    /// (index into `blocks`, id)
    entries: Vec<(u32, RecordId)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum StoredBy {
    Writer,
    Crossing,
    Us,
    Found,
}

impl From<By> for StoredBy {
    fn from(by: By) -> Self {
        match by {
            By::Writer => Self::Writer,
            By::Crossing => Self::Crossing,
            By::Us => Self::Us,
            By::Found => Self::Found,
        }
    }
}

impl From<StoredBy> for By {
    fn from(by: StoredBy) -> Self {
        match by {
            StoredBy::Writer => Self::Writer,
            StoredBy::Crossing => Self::Crossing,
            StoredBy::Us => Self::Us,
            StoredBy::Found => Self::Found,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredFlight {
    request: RequestId,
    body: Body,
    text: Option<String>,
    ids: Vec<Option<RecordId>>,
    displaced: Option<String>,
}

#[derive(Default)]
struct Interner {
    blocks: Vec<Block>,
    index: BTreeMap<(u8, String, String, String), u32>,
}

impl Interner {
    fn text(&mut self, text: &KnownText, by: By) -> StoredText {
        let entries = text.blocks.iter().map(|known| (self.block(&known.block), known.id)).collect();
        StoredText { revision: text.revision, by: by.into(), entries }
    }

    fn block(&mut self, block: &Block) -> u32 {
        let content = &block.content;
        let key = (u8::from(block.kind), content.lead.clone(), content.mark.clone(), content.text.clone());
        let next =
            u32::try_from(self.blocks.len()).expect("invariant: texts are bounded to a few MiB, so are their blocks");
        *self.index.entry(key).or_insert_with(|| {
            self.blocks.push(block.clone());
            next
        })
    }
}

/// The bytes of a record.
pub(super) fn encode(record: &Record, seal: &dyn StateSeal, context: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut interner = Interner::default();
    let newest = record.shown.len().saturating_sub(SHOWN_STORED_MAX);
    let shown = record.shown[newest..].iter().map(|shown| interner.text(&shown.text, shown.by)).collect();
    let intent = record.intent.as_ref().map(|intent| (intent.change, interner.text(&intent.text, By::Us)));
    let flight = record.flight.as_ref().map(|flight| StoredFlight {
        request: flight.request,
        body: flight.body.clone(),
        text: flight.text.clone(),
        ids: flight.ids.clone(),
        displaced: flight.displaced.clone(),
    });
    let stored = Stored {
        path: record.path.clone(),
        change: record.change,
        blocks: interner.blocks,
        shown,
        intent,
        flight,
        wrote: record.wrote,
    };
    seal_bytes(&stored, seal, context)
}

/// The record that bytes are.
pub(super) fn decode(bytes: &[u8], seal: &dyn StateSeal, context: &[u8]) -> Result<Record, FormatError> {
    let stored: Stored = open_bytes(bytes, seal, context)?;
    let text = |text: StoredText| -> Result<Shown, FormatError> {
        let mut blocks = Vec::with_capacity(text.entries.len());
        for (index, id) in text.entries {
            let block = usize::try_from(index).ok().and_then(|index| stored.blocks.get(index));
            let block = block.ok_or_else(|| FormatError::Malformed(format!("block {index} isn't there")))?.clone();
            blocks.push(Known { id, block });
        }
        let by = text.by.into();
        Ok(Shown { text: KnownText { revision: text.revision, blocks }, by })
    };
    let shown = stored.shown.into_iter().map(&text).collect::<Result<Vec<_>, _>>()?;
    let intent = match stored.intent {
        Some((change, stored)) => Some(Intent { change, text: text(stored)?.text }),
        None => None,
    };
    let flight = stored.flight.map(|flight| Flight {
        request: flight.request,
        body: flight.body,
        text: flight.text,
        ids: flight.ids,
        displaced: flight.displaced,
    });
    Ok(Record { path: stored.path, change: stored.change, shown, intent, flight, wrote: stored.wrote })
}

/// Version, sealed postcard, checksum.
pub(super) fn seal_bytes<T: Serialize>(
    value: &T,
    seal: &dyn StateSeal,
    context: &[u8],
) -> Result<Vec<u8>, FormatError> {
    let plain = postcard::to_stdvec(value).map_err(|error| FormatError::Malformed(error.to_string()))?;
    let mut bytes = VERSION.to_be_bytes().to_vec();
    bytes.extend(seal.seal(context, &plain).map_err(FormatError::Seal)?);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// The way back from [`seal_bytes`].
pub(super) fn open_bytes<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    seal: &dyn StateSeal,
    context: &[u8],
) -> Result<T, FormatError> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Damaged)?;
    if blake3::hash(body) != *checksum {
        return Err(FormatError::Damaged);
    }
    let (version, sealed) = body.split_first_chunk::<2>().ok_or(FormatError::Damaged)?;
    let found = u16::from_be_bytes(*version);
    if !(OLDEST_VERSION..=VERSION).contains(&found) {
        return Err(FormatError::UnknownVersion { found });
    }
    let plain = seal.open(context, sealed).map_err(FormatError::Seal)?;
    postcard::from_bytes(&plain).map_err(|error| FormatError::Malformed(error.to_string()))
}
