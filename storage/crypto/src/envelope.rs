//! The sealed envelope, format 1: what every log entry has been since the first one.
//!
//! ```text
//!   0      1      2      3        7          39         51             83            99             99 + n     115 + n
//!   +------+------+------+--------+----------+----------+--------------+-------------+--------------+----------+
//!   | 'Z'  | fmt  | alg  | key id | salt     | nonce    | commitment   | entry id    | ciphertext   | tag      |
//!   |      | = 1  | = 1  | u32 be | 32 bytes | 12 bytes | 32 bytes     | uuid        | n bytes      | 16 bytes |
//!   +------+------+------+--------+----------+----------+--------------+-------------+--------------+----------+
//! ```
//!
//! Algorithm 1 is AES-256-GCM (NIST SP 800-38D) under a key of its own for each record (see the `key` module), so the
//! limit of 2^32 random nonces under one key is never near, however many nodes seal and however often they restart. GCM
//! alone lets one ciphertext open under two chosen keys; the commitment rules that out, and is compared before anything is
//! opened. Associated data, each part behind a byte that says its length:
//!
//! ```text
//!   16 lineage | 16 entry id | 2 fmt alg | 4 key id
//! ```
//!
//! Invariants: salt and nonce are new and random for each call, never taken from a term, an index or a caller. Every bit of
//! the envelope is covered: header bits by their own check, the salt by the commitment, the rest by the tag.
//!
//! Deliberately not here: order and uniqueness. An envelope says that *this lineage* sealed *this entry*, not where it
//! stands; whoever stores envelopes binds their order (the log by its own checks, a snapshot by numbering chunks inside
//! what is sealed).

use std::fmt;
use std::str::FromStr;

use aes_gcm::{AeadInOut, Nonce, Tag};
use subtle::ConstantTimeEq;

use crate::hex;
use crate::key::{COMMITMENT_BYTES, KeyId, KeyRing, Purpose, SALT_BYTES};
use crate::random::{self, RandomError};

const MAGIC: u8 = b'Z';
const FORMAT: u8 = 1;
const ALGORITHM: u8 = 1;

const NONCE_BYTES: usize = 12;
const ID_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 3 + size_of::<u32>() + SALT_BYTES + NONCE_BYTES + COMMITMENT_BYTES + ID_BYTES;
const AAD_BYTES: usize = 4 + 2 * ID_BYTES + 2 + size_of::<u32>();

/// Bytes that sealing adds to a plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// The longest plaintext that is sealed or opened: 8 MiB. A file of 1 MiB as one command, encoded block by block, in a batch
/// with others, is well below it; and a damaged or hostile length never makes a node allocate more.
pub const PLAINTEXT_BYTES_MAX: usize = 8 << 20;

/// The id of a history: a uuid, minted when a cluster is first made, and kept when it is restored into a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub [u8; 16]);

impl Lineage {
    /// A new random lineage (a version 4 uuid), for a new cluster.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn mint() -> Result<Lineage, RandomError> {
        let mut id = random::bytes::<16>()?;
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        Ok(Lineage(id))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(&self.0);
        write!(f, "{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}

/// A text that is no lineage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no lineage: give a uuid, 32 hexadecimal digits with or without hyphens (`zyflow status` shows it)")]
pub struct LineageError(String);

impl FromStr for Lineage {
    type Err = LineageError;

    /// Reads what `Display` writes, and the 32 digits without hyphens.
    fn from_str(text: &str) -> Result<Lineage, LineageError> {
        let is_hyphen = |position: usize| matches!(position, 8 | 13 | 18 | 23);
        let digits: Option<String> = match text.len() {
            32 => Some(text.to_owned()),
            36 if text.char_indices().all(|(at, char)| (char == '-') == is_hyphen(at)) => Some(text.replace('-', "")),
            _ => None,
        };
        digits.as_deref().and_then(hex::decode).map(Lineage).ok_or_else(|| LineageError(text.to_owned()))
    }
}

/// Why a plaintext could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The caller's own limit should have refused it before.
    #[error("{bytes} bytes are too many to seal, the limit is {PLAINTEXT_BYTES_MAX}: send them in smaller batches")]
    TooLarge {
        /// Length of the plaintext.
        bytes: usize,
    },
    /// No randomness, no sealing.
    #[error("sealing a record: {0}")]
    Random(#[from] RandomError),
}

/// Why sealed bytes could not be opened. None of these goes away by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than the shortest envelope.
    #[error(
        "a sealed record of {bytes} bytes is cut short (at least {OVERHEAD_BYTES}): the copy is damaged, take it again from \
         another node or backup"
    )]
    Truncated {
        /// Length of what there was.
        bytes: usize,
    },
    /// Not an envelope, or one of a later format.
    #[error(
        "no known sealed format (it begins {magic:#04x} {format} {algorithm}): either this is no sealed record, or a newer \
         release wrote it and this node has to be upgraded"
    )]
    UnknownFormat {
        /// First byte, `b'Z'` in every format.
        magic: u8,
        /// Second byte.
        format: u8,
        /// Third byte.
        algorithm: u8,
    },
    /// Sealed under a key that the ring lacks.
    #[error(
        "sealed under data key {id}, which this node doesn't have: install the key file with that id and start again"
    )]
    UnknownKey {
        /// The id in the header.
        id: KeyId,
    },
    /// A key with that id is there, but it is not the one that sealed this.
    #[error(
        "data key {id} is not the key that sealed this record, or the record's header is damaged: compare this node's key \
         file with that of a healthy node"
    )]
    Commitment {
        /// The id in the header.
        id: KeyId,
    },
    /// Right key, but the contents, the entry id, the lineage or the purpose are not those that were sealed.
    #[error(
        "a record sealed under data key {id} doesn't authenticate: it was altered, or it belongs to another lineage than \
         {lineage}; take it again from another node or backup"
    )]
    Authentication {
        /// The id in the header.
        id: KeyId,
        /// The lineage that it was opened for.
        lineage: Lineage,
    },
    /// Longer than anything that is ever sealed.
    #[error("a sealed record of {bytes} bytes is longer than any that is written: the length is damaged or hostile")]
    TooLarge {
        /// Length of what there was.
        bytes: usize,
    },
}

/// What was sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The id that the sealer gave, authenticated.
    pub entry_id: [u8; 16],
    /// The data key that it was sealed under.
    pub key_id: KeyId,
    /// The contents.
    pub plaintext: Vec<u8>,
}

/// Never shows contents.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("entry_id", &hex::encode(&self.entry_id))
            .field("key_id", &self.key_id)
            .field("plaintext_bytes", &self.plaintext.len())
            .finish()
    }
}

/// Seals `plaintext` under the active key, for one purpose and one lineage. Two calls never give the same bytes.
///
/// `entry_id` is a uuid that the caller minted; it is stored in clear and authenticated.
///
/// # Errors
/// The plaintext is over [`PLAINTEXT_BYTES_MAX`], or the operating system gives no random bytes.
pub fn seal(
    ring: &KeyRing,
    purpose: Purpose,
    lineage: &Lineage,
    entry_id: &[u8; 16],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > PLAINTEXT_BYTES_MAX {
        return Err(SealError::TooLarge { bytes: plaintext.len() });
    }
    let (salt, nonce) = fresh()?;
    Ok(seal_with(ring, purpose, lineage, entry_id, plaintext, &salt, nonce))
}

/// Opens what [`seal`] made for the same purpose and lineage, under whichever key of the ring sealed it.
///
/// # Errors
/// See [`OpenError`]; nothing of the contents is given out unless all of it is authentic.
pub fn open(ring: &KeyRing, purpose: Purpose, lineage: &Lineage, sealed: &[u8]) -> Result<Opened, OpenError> {
    let envelope = Envelope::parse(sealed)?;
    let id = envelope.key_id;
    let key = ring.get(id).ok_or(OpenError::UnknownKey { id })?.record_key(purpose, envelope.salt);
    if !bool::from(key.commitment.ct_eq(envelope.commitment)) {
        return Err(OpenError::Commitment { id });
    }
    let mut plaintext = envelope.ciphertext.to_vec();
    let aad = associated_data(lineage, envelope.entry_id, id);
    key.cipher
        .decrypt_inout_detached(
            &Nonce::from(*envelope.nonce),
            &aad,
            plaintext.as_mut_slice().into(),
            &Tag::from(*envelope.tag),
        )
        .map_err(|aes_gcm::Error| OpenError::Authentication { id, lineage: *lineage })?;
    Ok(Opened { entry_id: *envelope.entry_id, key_id: id, plaintext })
}

/// Salt and nonce by one system call.
fn fresh() -> Result<([u8; SALT_BYTES], [u8; NONCE_BYTES]), RandomError> {
    let bytes = random::bytes::<{ SALT_BYTES + NONCE_BYTES }>()?;
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    salt.copy_from_slice(&bytes[..SALT_BYTES]);
    nonce.copy_from_slice(&bytes[SALT_BYTES..]);
    Ok((salt, nonce))
}

/// The pure part of [`seal`]: private, since a salt that is used twice gives away what it protects.
fn seal_with(
    ring: &KeyRing,
    purpose: Purpose,
    lineage: &Lineage,
    entry_id: &[u8; ID_BYTES],
    plaintext: &[u8],
    salt: &[u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
) -> Vec<u8> {
    let id = ring.active().id();
    let key = ring.active().record_key(purpose, salt);
    let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
    sealed.extend_from_slice(&[MAGIC, FORMAT, ALGORITHM]);
    sealed.extend_from_slice(&id.0.to_be_bytes());
    sealed.extend_from_slice(salt);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&key.commitment);
    sealed.extend_from_slice(entry_id);
    assert_eq!(sealed.len(), HEADER_BYTES, "the header has the length that readers expect");
    sealed.extend_from_slice(plaintext);
    let aad = associated_data(lineage, entry_id, id);
    let tag = key
        .cipher
        .encrypt_inout_detached(&Nonce::from(nonce), &aad, (&mut sealed[HEADER_BYTES..]).into())
        .expect("invariant: far below the 64 GiB that GCM takes, checked against PLAINTEXT_BYTES_MAX");
    sealed.extend_from_slice(&tag);
    sealed
}

fn associated_data(lineage: &Lineage, entry_id: &[u8; ID_BYTES], key_id: KeyId) -> [u8; AAD_BYTES] {
    let mut aad = [0; AAD_BYTES];
    let mut rest = aad.as_mut_slice();
    for part in [&lineage.0[..], entry_id, &[FORMAT, ALGORITHM], &key_id.0.to_be_bytes()] {
        let (this, after) = rest.split_at_mut(1 + part.len());
        this[0] = u8::try_from(part.len()).expect("invariant: each part is at most 16 bytes");
        this[1..].copy_from_slice(part);
        rest = after;
    }
    assert!(rest.is_empty(), "the parts fill the associated data");
    aad
}

/// An envelope taken apart, nothing of it believed yet.
struct Envelope<'a> {
    key_id: KeyId,
    salt: &'a [u8; SALT_BYTES],
    nonce: &'a [u8; NONCE_BYTES],
    commitment: &'a [u8; COMMITMENT_BYTES],
    entry_id: &'a [u8; ID_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Envelope<'a> {
    fn parse(sealed: &'a [u8]) -> Result<Envelope<'a>, OpenError> {
        let bytes = sealed.len();
        let truncated = OpenError::Truncated { bytes };
        let Some((&[magic, format, algorithm], rest)) = sealed.split_first_chunk() else { return Err(truncated) };
        if [magic, format, algorithm] != [MAGIC, FORMAT, ALGORITHM] {
            return Err(OpenError::UnknownFormat { magic, format, algorithm });
        }
        if bytes > OVERHEAD_BYTES + PLAINTEXT_BYTES_MAX {
            return Err(OpenError::TooLarge { bytes });
        }
        let parts = || {
            let (key_id, rest) = rest.split_first_chunk()?;
            let (salt, rest) = rest.split_first_chunk()?;
            let (nonce, rest) = rest.split_first_chunk()?;
            let (commitment, rest) = rest.split_first_chunk()?;
            let (entry_id, rest) = rest.split_first_chunk()?;
            let (ciphertext, tag) = rest.split_last_chunk()?;
            let key_id = KeyId(u32::from_be_bytes(*key_id));
            Some(Envelope { key_id, salt, nonce, commitment, entry_id, ciphertext, tag })
        };
        parts().ok_or(truncated)
    }
}

#[cfg(test)]
mod tests;
