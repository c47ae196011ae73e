//! Rows as they lie on disk: sealed bodies, and order keys that give nothing away.
//!
//! ```text
//!   body = format: u16 | kind: u8 | parent: u64 | order: u32 + bytes | record: u32 + bytes | fact: u32 + bytes | provenance
//! ```
//!
//! A body is sealed for its place (table, version, record, previous version), so that rows which were swapped, or chained
//! otherwise, don't open. Record, fact and provenance carry the machine's own format versions. The record stands before
//! what only history reads, and is hashed into the digest as it stands.
//!
//! What is in clear: ids, kinds, parents, the fractional order of blocks, whether a record lives, a task's status. The
//! name of a project or rollback point and the path of a change are found by a keyed hash.

use std::sync::Arc;

use zyflow_crypto::{LocalKey, LocalKeyError};
use zyflow_machine::format;
use zyflow_machine::id::{EventId, RecordId, SessionId};
use zyflow_machine::record::Kind;
use zyflow_machine::view::Stored;

use super::entry::Row;
use super::error::TablesError;

const BODY_FORMAT: u16 = 1;

/// Bytes of a hashed name: two of 2^32 names are equal with probability 2^-64; and a hit is compared in full.
const HASHED_ORDER_BYTES: usize = 16;

/// Seals and opens what the database holds.
#[derive(Clone)]
pub(crate) struct Codec {
    key: Arc<LocalKey>,
    /// The key of the hashes of names; itself sealed in the database.
    lookup: [u8; 32],
}

/// A body that was opened but not decoded.
pub(crate) struct Body {
    plain: Vec<u8>,
}

/// Where the parts of a body lie.
struct Parts<'a> {
    kind: Kind,
    parent: RecordId,
    order: &'a [u8],
    record: &'a [u8],
    fact: &'a [u8],
    provenance: &'a [u8],
}

impl Codec {
    pub(crate) fn new(key: Arc<LocalKey>, lookup: [u8; 32]) -> Self {
        Self { key, lookup }
    }

    pub(crate) fn lookup(&self) -> [u8; 32] {
        self.lookup
    }

    /// The order as the head table's index has it. Keeps the order of blocks, conflicts and comments, hides the names of the rest.
    pub(crate) fn place(&self, kind: Kind, parent: RecordId, order: &[u8]) -> Vec<u8> {
        match kind {
            Kind::Block | Kind::Conflict | Kind::Comment | Kind::Restore => order.to_vec(),
            Kind::Project | Kind::Change | Kind::Point | Kind::Retention => {
                let mut hasher = blake3::Hasher::new_keyed(&self.lookup);
                hasher.update(&[kind.code()]).update(&parent.to_u64().to_be_bytes()).update(order);
                hasher.finalize().as_bytes()[..HASHED_ORDER_BYTES].to_vec()
            }
        }
    }

    /// Does [`Codec::place`] keep the order?
    pub(crate) fn keeps_order(kind: Kind) -> bool {
        match kind {
            Kind::Block | Kind::Conflict | Kind::Comment | Kind::Restore => true,
            Kind::Project | Kind::Change | Kind::Point | Kind::Retention => false,
        }
    }

    pub(crate) fn seal_row(&self, row: &Row) -> Result<Vec<u8>, TablesError> {
        self.seal_body(row.stored.version, row.id, row.previous, &encode(row))
    }

    pub(crate) fn seal_body(
        &self,
        version: EventId,
        id: RecordId,
        previous: Option<EventId>,
        plain: &[u8],
    ) -> Result<Vec<u8>, TablesError> {
        self.key
            .seal(&row_context(version, id, previous), plain)
            .map_err(|source| sealing("seal", format!("version {version} of {id}"), source))
    }

    pub(crate) fn open_body(
        &self,
        version: EventId,
        id: RecordId,
        previous: Option<EventId>,
        sealed: &[u8],
    ) -> Result<Body, TablesError> {
        let plain = self
            .key
            .open(&row_context(version, id, previous), sealed)
            .map_err(|source| sealing("open", format!("version {version} of {id}"), source))?;
        Ok(Body { plain })
    }

    pub(crate) fn seal_session(&self, id: SessionId, plain: &[u8]) -> Result<Vec<u8>, TablesError> {
        self.key
            .seal(&session_context(id), plain)
            .map_err(|source| sealing("seal", format!("session {}", id.0), source))
    }

    pub(crate) fn open_session(&self, id: SessionId, sealed: &[u8]) -> Result<Vec<u8>, TablesError> {
        self.key
            .open(&session_context(id), sealed)
            .map_err(|source| sealing("open", format!("session {}", id.0), source))
    }
}

pub(crate) fn sealing(doing: &'static str, what: String, source: LocalKeyError) -> TablesError {
    TablesError::Sealing { doing, what, source }
}

impl Body {
    /// The bytes of a body as another node sent them; nothing of them is believed until they are decoded.
    pub(crate) fn from_plain(plain: Vec<u8>) -> Self {
        Self { plain }
    }

    /// The body of a row that is made elsewhere than by applying.
    pub(crate) fn of_row(row: &Row) -> Self {
        Self { plain: encode(row) }
    }

    pub(crate) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// The record, encoded as the digest hashes it.
    pub(crate) fn encoded_record(&self) -> Result<&[u8], TablesError> {
        Ok(self.parts()?.record)
    }

    pub(crate) fn stored(&self, version: EventId) -> Result<Stored, TablesError> {
        let parts = self.parts()?;
        let record = format::decode_record(parts.record).map_err(undecodable("a record"))?;
        Ok(Stored { version, kind: parts.kind, parent: parts.parent, order: parts.order.to_vec(), record })
    }

    pub(crate) fn row(&self, version: EventId, id: RecordId, previous: Option<EventId>) -> Result<Row, TablesError> {
        let parts = self.parts()?;
        Ok(Row {
            id,
            stored: Arc::new(self.stored(version)?),
            previous,
            fact: format::decode_fact(parts.fact).map_err(undecodable("a fact"))?,
            provenance: Arc::new(format::decode_provenance(parts.provenance).map_err(undecodable("a provenance"))?),
        })
    }

    fn parts(&self) -> Result<Parts<'_>, TablesError> {
        parse(&self.plain).ok_or_else(|| TablesError::damaged("a row's body is malformed"))
    }
}

fn undecodable(what: &'static str) -> impl FnOnce(format::FormatError) -> TablesError {
    move |source| TablesError::Undecodable { what: what.to_owned(), source }
}

fn encode(row: &Row) -> Vec<u8> {
    let stored = &row.stored;
    let record = format::encode_record(stored.record.as_ref());
    let fact = format::encode_fact(&row.fact);
    let provenance = format::encode_provenance(&row.provenance);
    let mut out = Vec::with_capacity(32 + stored.order.len() + record.len() + fact.len() + provenance.len());
    out.extend_from_slice(&BODY_FORMAT.to_be_bytes());
    out.push(stored.kind.code());
    out.extend_from_slice(&stored.parent.to_u64().to_be_bytes());
    for part in [&stored.order, &record, &fact] {
        let length =
            u32::try_from(part.len()).expect("invariant: the machine's limits keep every part far below 4 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&provenance);
    out
}

fn parse(plain: &[u8]) -> Option<Parts<'_>> {
    let (format, rest) = plain.split_first_chunk::<2>()?;
    if u16::from_be_bytes(*format) != BODY_FORMAT {
        return None;
    }
    let (&kind, rest) = rest.split_first()?;
    let (parent, rest) = rest.split_first_chunk::<8>()?;
    let (order, rest) = part(rest)?;
    let (record, rest) = part(rest)?;
    let (fact, provenance) = part(rest)?;
    let parent = RecordId::from_u64(u64::from_be_bytes(*parent));
    Some(Parts { kind: Kind::from_code(kind)?, parent, order, record, fact, provenance })
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn row_context(version: EventId, id: RecordId, previous: Option<EventId>) -> [u8; 32] {
    // A version is never 0, so 0 stands for none.
    let previous = previous.map_or(0, EventId::to_u64);
    let mut context = *b"versions\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    context[8..16].copy_from_slice(&version.to_u64().to_be_bytes());
    context[16..24].copy_from_slice(&id.to_u64().to_be_bytes());
    context[24..].copy_from_slice(&previous.to_be_bytes());
    context
}

fn session_context(id: SessionId) -> [u8; 16] {
    let mut context = *b"sessions\0\0\0\0\0\0\0\0";
    context[8..].copy_from_slice(&id.0.to_u64().to_be_bytes());
    context
}
