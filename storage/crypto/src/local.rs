//! Sealing for what one node derives: row bodies, base texts, files of its own.
//!
//! These records are many, small and hot, and no other node ever reads them, so they don't pay for the envelope: no key
//! derivation per record, no commitment (there is one key, nobody else picks it), 37 bytes of overhead.
//!
//! ```text
//!   node key (32 random bytes, in node.key, sealed under the data key)
//!      |  HKDF-Expand(info = "zyflow/1/local" | epoch)          once per epoch; the cipher is cached
//!      v
//!   epoch key                       0     1        9         21            21 + n    37 + n
//!      |  AES-256-GCM               +-----+--------+---------+-------------+---------+
//!      +--------------------------> | fmt | epoch  | nonce   | ciphertext  | tag     |
//!                                   | = 1 | random | random  | n bytes     | 16      |
//!                                   +-----+--------+---------+-------------+---------+
//! ```
//!
//! **Bounds.** An epoch begins at each start of the process and after 2^28 records. Within one, nonces are 96 random bits, so
//! two of 2^28 are equal with probability 2^55 / 2^96 = 2^-41; the recommended limit for one key (NIST SP 800-38D, 2^32
//! records, 2^-32) is never reached. A node that writes 2^40 rows in its life uses 4096 full epochs: 2^-29 in total. Epoch
//! ids are 64 random bits; should two ever be equal (2^12 epochs: 2^-41), their records share a key and are still below the
//! limit. Blocks under one key stay below 2^28 * 2^20 = 2^48, far from the birthday bound of a 128-bit cipher.
//!
//! **Why random nonces and not a counter**: a cloned or resumed machine continues with the same epoch and the same counter,
//! and would seal two texts under one nonce. Randomness from the kernel survives that.
//!
//! The `context` given to [`LocalKey::seal`] is authenticated and not stored: name the place of the record (table and key,
//! checkout and path), so that a record moved to another place doesn't open there. It doesn't show that a record is the
//! newest: somebody who can write the disk can put back an older one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use arc_swap::ArcSwap;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::envelope::{self, Lineage, OpenError, SealError};
use crate::key::{KEY_BYTES, KeyRing, Purpose};
use crate::private_file::{self, PrivateFileError};
use crate::random::{self, RandomError};

const FORMAT: u8 = 1;
const EPOCH_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + EPOCH_BYTES + NONCE_BYTES;
const EXTRACT_SALT: &[u8] = b"zyflow node key 1";
const EPOCH_LABEL: &[u8] = b"zyflow/1/local";

/// Bytes that sealing adds to a plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// The longest local record: 16 MiB, 2^20 cipher blocks. Well over a file of 1 MiB with its past texts.
pub const PLAINTEXT_BYTES_MAX: usize = 16 << 20;

/// Records sealed in one epoch, at most (see the module's bounds).
const RECORDS_PER_EPOCH_MAX: u64 = 1 << 28;

/// Ciphers of past epochs kept ready, about 1 KiB each. A node has an epoch per start, so old rows rarely need more; past
/// that, all but the active one are dropped and derived again when needed (under 1 µs).
const EPOCHS_CACHED_MAX: usize = 256;

/// A node key is made before its node has a lineage, and is told apart by its purpose.
const NO_LINEAGE: Lineage = Lineage([0; 16]);

/// Why a node's local key, or a record under it, could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalKeyError {
    /// The node key's file itself.
    #[error("node key file: {0}")]
    File(#[from] PrivateFileError),
    /// The node key could not be sealed under the data key.
    #[error("sealing the node key {}: {source}", path.display())]
    Wrap {
        /// The node key's file.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
    /// The node key doesn't open under the data keys of this node.
    #[error(
        "cannot open the node key {}: {source}. This is what a wrong data key file looks like. If the data key that sealed it \
         is lost, what this node derived (tables, base texts) is unreadable: move the data folder away and let the node join again",
        path.display()
    )]
    Unwrap {
        /// The node key's file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The file opened, but holds no key.
    #[error("the node key {} holds {bytes} bytes instead of {KEY_BYTES}: restore the file from a backup of this node", path.display())]
    Length {
        /// The node key's file.
        path: PathBuf,
        /// How many bytes it holds.
        bytes: usize,
    },
    /// No randomness, no sealing.
    #[error("sealing a local record: {0}")]
    Random(#[from] RandomError),
    /// Over [`PLAINTEXT_BYTES_MAX`].
    #[error("a local record of {bytes} bytes is over the limit of {PLAINTEXT_BYTES_MAX}")]
    TooLarge {
        /// Length of the plaintext or of the sealed record.
        bytes: usize,
    },
    /// Shorter than the shortest record, or of an unknown format.
    #[error(
        "{bytes} bytes are no sealed local record: the database or file is damaged; rebuild it from snapshot and log"
    )]
    Malformed {
        /// Length of what there was.
        bytes: usize,
    },
    /// Altered, moved to another place, or sealed by another node.
    #[error(
        "a local record doesn't authenticate: it was altered, moved, or written by another node; rebuild the database from \
         snapshot and log"
    )]
    Authentication,
}

/// The random key of one node, ready to seal and open its records. Share it in an `Arc`; all calls take `&self`.
pub struct LocalKey {
    expand: Hkdf<Sha256>,
    active: ArcSwap<Epoch>,
    opened: ArcSwap<BTreeMap<EpochId, Arc<Aes256Gcm>>>,
    /// Held while a new epoch is made, so that it is made once.
    rotation: Mutex<()>,
    records_per_epoch_max: u64,
}

type EpochId = [u8; EPOCH_BYTES];

struct Epoch {
    id: EpochId,
    cipher: Aes256Gcm,
    /// Records that asked to be sealed in this epoch; those past the limit went to the next.
    asked: AtomicU64,
}

impl LocalKey {
    /// Loads the node key from `path`, or makes it there at the node's first start: random, sealed under the ring's
    /// active data key, mode 0600.
    ///
    /// The caller holds the data folder's lock: two processes never do this at once.
    ///
    /// # Errors
    /// The file can't be read or made, or it doesn't open under this ring. A file that doesn't open is never replaced.
    pub fn create_or_load(path: &Path, ring: &KeyRing) -> Result<LocalKey, LocalKeyError> {
        // Only a file that is certainly absent is made.
        let secret = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path, ring)?,
            _ => load(path, ring)?,
        };
        LocalKey::new(&secret, RECORDS_PER_EPOCH_MAX)
    }

    fn new(secret: &[u8; KEY_BYTES], records_per_epoch_max: u64) -> Result<LocalKey, LocalKeyError> {
        let expand = Hkdf::new(Some(EXTRACT_SALT), secret);
        let active = ArcSwap::from_pointee(Epoch::begin(&expand)?);
        let opened = ArcSwap::from_pointee(BTreeMap::new());
        Ok(LocalKey { expand, active, opened, rotation: Mutex::new(()), records_per_epoch_max })
    }

    /// Seals `plaintext` for the place that `context` names. Two calls never give the same bytes.
    ///
    /// # Errors
    /// The plaintext is over [`PLAINTEXT_BYTES_MAX`], or the operating system gives no random bytes.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, LocalKeyError> {
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(LocalKeyError::TooLarge { bytes: plaintext.len() });
        }
        let nonce = random::bytes::<NONCE_BYTES>()?;
        let mut epoch = self.active.load();
        while epoch.asked.fetch_add(1, Ordering::Relaxed) >= self.records_per_epoch_max {
            self.rotate(epoch.id)?;
            epoch = self.active.load();
        }
        let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&epoch.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = encrypt(&epoch.cipher, nonce, context, &mut sealed[HEADER_BYTES..]);
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens what [`LocalKey::seal`] made for the same context, in this or an earlier life of the node.
    ///
    /// # Errors
    /// The bytes are no record of this node for this context, or were altered.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, LocalKeyError> {
        let malformed = || LocalKeyError::Malformed { bytes: sealed.len() };
        if sealed.len() > OVERHEAD_BYTES + PLAINTEXT_BYTES_MAX {
            return Err(LocalKeyError::TooLarge { bytes: sealed.len() });
        }
        let (&format, rest) = sealed.split_first().ok_or_else(malformed)?;
        let (epoch, rest) = rest.split_first_chunk::<EPOCH_BYTES>().ok_or_else(malformed)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(malformed)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(malformed)?;
        if format != FORMAT {
            return Err(malformed());
        }
        let mut plaintext = ciphertext.to_vec();
        let mut decrypt = |cipher: &Aes256Gcm| {
            let buffer = plaintext.as_mut_slice().into();
            cipher.decrypt_inout_detached(&Nonce::from(*nonce), context, buffer, &Tag::from(*tag))
        };
        let active = self.active.load();
        let result = if active.id == *epoch { decrypt(&active.cipher) } else { decrypt(&self.cipher_of(*epoch)) };
        result.map_err(|aes_gcm::Error| LocalKeyError::Authentication)?;
        Ok(plaintext)
    }

    /// Begins another epoch, unless another thread has done so since `full` was active.
    fn rotate(&self, full: EpochId) -> Result<(), LocalKeyError> {
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active.load().id == full {
            self.active.store(Arc::new(Epoch::begin(&self.expand)?));
        }
        Ok(())
    }

    fn cipher_of(&self, epoch: EpochId) -> Arc<Aes256Gcm> {
        if let Some(cipher) = self.opened.load().get(&epoch) {
            return Arc::clone(cipher);
        }
        let cipher = Arc::new(derive(&self.expand, epoch));
        self.opened.rcu(|opened| {
            let mut opened = if opened.len() < EPOCHS_CACHED_MAX { BTreeMap::clone(opened) } else { BTreeMap::new() };
            opened.insert(epoch, Arc::clone(&cipher));
            opened
        });
        cipher
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

impl Epoch {
    fn begin(expand: &Hkdf<Sha256>) -> Result<Epoch, LocalKeyError> {
        let id = random::bytes::<EPOCH_BYTES>()?;
        Ok(Epoch { id, cipher: derive(expand, id), asked: AtomicU64::new(0) })
    }
}

fn encrypt(cipher: &Aes256Gcm, nonce: [u8; NONCE_BYTES], context: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
    cipher
        .encrypt_inout_detached(&Nonce::from(nonce), context, text.into())
        .expect("invariant: far below the 64 GiB that GCM takes, checked against PLAINTEXT_BYTES_MAX")
        .into()
}

fn derive(expand: &Hkdf<Sha256>, epoch: EpochId) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    expand
        .expand_multi_info(&[EPOCH_LABEL, &epoch], key.as_mut_slice())
        .expect("invariant: 32 bytes are one hash length, HKDF gives up to 255");
    Aes256Gcm::new_from_slice(key.as_slice()).expect("invariant: the array has the key length of AES-256")
}

fn create(path: &Path, ring: &KeyRing) -> Result<Zeroizing<[u8; KEY_BYTES]>, LocalKeyError> {
    let secret = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
    let id = random::bytes::<16>()?;
    let wrapped = envelope::seal(ring, Purpose::NodeKey, &NO_LINEAGE, &id, secret.as_slice())
        .map_err(|source| LocalKeyError::Wrap { path: path.to_owned(), source })?;
    private_file::create(path, &wrapped)?;
    Ok(secret)
}

fn load(path: &Path, ring: &KeyRing) -> Result<Zeroizing<[u8; KEY_BYTES]>, LocalKeyError> {
    let wrapped = private_file::read(path)?;
    let opened = envelope::open(ring, Purpose::NodeKey, &NO_LINEAGE, &wrapped)
        .map_err(|source| LocalKeyError::Unwrap { path: path.to_owned(), source })?;
    let contents = Zeroizing::new(opened.plaintext);
    let mut secret = Zeroizing::new([0; KEY_BYTES]);
    if contents.len() != KEY_BYTES {
        return Err(LocalKeyError::Length { path: path.to_owned(), bytes: contents.len() });
    }
    secret.copy_from_slice(&contents);
    Ok(secret)
}

#[cfg(test)]
mod tests;
