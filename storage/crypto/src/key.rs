//! Data keys, the ring that holds them, and the keys derived for single records.
//!
//! A data key is never used as a cipher key. It is extracted once (HKDF-SHA256, RFC 5869) when it is loaded; only that
//! pseudorandom key stays in memory, and each record's cipher key and commitment are expanded from it:
//!
//! ```text
//!   prk = HKDF-Extract(salt = "zyflow data key 1", ikm = data key)                        once
//!   okm = HKDF-Expand(prk, info = purpose label | key id, u32 | salt, 32 bytes, 64)       per record
//!   okm[0..32] = AES-256-GCM key          okm[32..64] = commitment to that key
//! ```
//!
//! The info is at most 54 bytes, so that each half costs the fewest SHA-256 blocks (5 in all). Labels differ, and the rest
//! has one length, so no two purposes share a derived key.
//!
//! Deliberately not here: where keys come from ([`crate::key_file`]) and when they rotate.

use std::collections::BTreeMap;
use std::fmt;

use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of a data key and of every key derived from it (AES-256).
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of the random salt that makes each record's key its own. 256 bits: two records never share one by chance.
pub(crate) const SALT_BYTES: usize = 32;
/// Bytes of the commitment: collision-resistant at the strength of the hash.
pub(crate) const COMMITMENT_BYTES: usize = 32;

/// Stands where the keys of records have their salt, and is shorter than any salt.
const HASH_INFO: &[u8] = b"hash";

const EXTRACT_SALT: &[u8] = b"zyflow data key 1";

/// Names a data key in the header of what it sealed. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a record is. Each purpose derives its own keys, so a record sealed for one never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A log entry: a batch of commands.
    Entry,
    /// A chunk of a snapshot that travels between nodes.
    SnapshotChunk,
    /// The key of one node's local records.
    NodeKey,
    /// A chunk of a backup.
    BackupChunk,
    /// An answer in a cache that nodes share.
    Answer,
}

impl Purpose {
    /// Frozen with the envelope format: a label is part of the derivation of every key of its purpose.
    fn label(self) -> &'static [u8] {
        match self {
            Purpose::Entry => b"zyflow/1/entry",
            Purpose::SnapshotChunk => b"zyflow/1/snapshot",
            Purpose::NodeKey => b"zyflow/1/node-key",
            Purpose::BackupChunk => b"zyflow/1/backup",
            Purpose::Answer => b"zyflow/1/answer",
        }
    }
}

/// A data key, 32 bytes: what seals the entries of a cluster. Shown in debug output by its id only; wiped when dropped.
#[derive(Clone)]
pub struct DataKey {
    id: KeyId,
    expand: Hkdf<Sha256>,
}

impl DataKey {
    /// Takes over the 32 secret bytes; they are wiped, only what is extracted from them stays.
    #[must_use]
    pub fn new(id: KeyId, secret: Zeroizing<[u8; 32]>) -> DataKey {
        let expand = Hkdf::new(Some(EXTRACT_SALT), secret.as_slice());
        drop(secret);
        DataKey { id, expand }
    }

    /// The id that is written into what this key seals.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A key for keyed hashes, the same wherever this data key is. It says nothing of the keys that seal: their info is longer.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "HKDF gives as many bytes as are asked for here")]
    pub fn hash_key(&self, purpose: Purpose) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        self.expand
            .expand_multi_info(&[purpose.label(), &self.id.0.to_be_bytes(), HASH_INFO], key.as_mut_slice())
            .expect("invariant: 32 bytes are one hash length, HKDF gives up to 255");
        key
    }

    pub(crate) fn record_key(&self, purpose: Purpose, salt: &[u8; SALT_BYTES]) -> RecordKey {
        let mut okm = Zeroizing::new([0; KEY_BYTES + COMMITMENT_BYTES]);
        self.expand
            .expand_multi_info(&[purpose.label(), &self.id.0.to_be_bytes(), salt], okm.as_mut_slice())
            .expect("invariant: 64 bytes are two hash lengths, HKDF gives up to 255");
        let (key, commitment) = okm.split_at(KEY_BYTES);
        RecordKey {
            cipher: Aes256Gcm::new_from_slice(key).expect("invariant: split at the key length of AES-256"),
            commitment: commitment.try_into().expect("invariant: the other half has the commitment's length"),
        }
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key of one record, and the value that shows which key sealed it.
pub(crate) struct RecordKey {
    pub(crate) cipher: Aes256Gcm,
    pub(crate) commitment: [u8; COMMITMENT_BYTES],
}

/// The data keys that a node has: one seals, all open.
///
/// A node starts with the one key of its key file; after a change of key it also needs those before.
#[derive(Debug, Clone)]
pub struct KeyRing {
    active: DataKey,
    /// Keys that still open what they sealed, but seal nothing new.
    retired: BTreeMap<KeyId, DataKey>,
}

impl KeyRing {
    /// A ring of one key.
    #[must_use]
    pub fn new(active: DataKey) -> KeyRing {
        KeyRing { active, retired: BTreeMap::new() }
    }

    /// Adds a key that opens what it once sealed and seals nothing new. The active key's id is never replaced.
    #[must_use]
    pub fn with_retired(mut self, key: DataKey) -> KeyRing {
        self.retired.insert(key.id, key);
        self
    }

    /// The key that seals from now on.
    #[must_use]
    pub fn active(&self) -> &DataKey {
        &self.active
    }

    /// The key with this id, if the node has it.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&DataKey> {
        if self.active.id == id { Some(&self.active) } else { self.retired.get(&id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_the_id_and_no_key() {
        let ring = KeyRing::new(DataKey::new(KeyId(7), Zeroizing::new([0xab; 32])));
        let shown = format!("{ring:?}");
        assert!(shown.contains("KeyId(7)"), "{shown}");
        assert!(!shown.contains("171") && !shown.contains("ab"), "{shown}");
    }

    #[test]
    fn keys_of_hashes_depend_on_data_key_id_and_purpose() {
        let key = |id, byte, purpose| *DataKey::new(KeyId(id), Zeroizing::new([byte; 32])).hash_key(purpose);
        let one = key(1, 7, Purpose::Answer);
        assert_eq!(one, key(1, 7, Purpose::Answer));
        for other in [key(2, 7, Purpose::Answer), key(1, 8, Purpose::Answer), key(1, 7, Purpose::Entry)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn the_info_of_every_purpose_fits_the_fewest_hash_blocks() {
        let all = [Purpose::Entry, Purpose::SnapshotChunk, Purpose::NodeKey, Purpose::BackupChunk, Purpose::Answer];
        for purpose in all {
            assert!(purpose.label().len() + size_of::<KeyId>() + SALT_BYTES <= 54, "{purpose:?}");
        }
    }
}
