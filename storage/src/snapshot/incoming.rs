//! A snapshot on its way from another node: what has arrived stays, so that a transfer which breaks goes on where it was.
//!
//! ```text
//!   name.partial    bytes whose checksums were right when they came; at most one snapshot at a time is half here
//!        |  all of them: verified to the last byte, and held against the digest
//!        v
//!   its final name, or deleted
//! ```
//!
//! What is half here is never trusted: the sender is told its length and hash, and goes on only from bytes that it has itself. So neither
//! a power cut that took the file's end nor a file that went bad can do more than make the transfer begin anew.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use fs_err as fs;
use zyflow_crypto::{KeyRing, Lineage};

use super::SnapshotError;
use super::store::{self, SnapshotMeta, SnapshotStore, remove_if_there};

/// Bytes that are hashed at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// The beginning of a snapshot that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// How many bytes.
    pub bytes: u64,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
}

/// A snapshot that is being received. What has been written stays when this is dropped.
#[derive(Debug)]
pub struct IncomingSnapshot {
    store: SnapshotStore,
    path: PathBuf,
    file: fs::File,
    hasher: blake3::Hasher,
    written: u64,
}

impl SnapshotStore {
    /// How much of the snapshot of that name is here; nothing of another one counts.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn arrived(&self, name: &str) -> Result<Arrived, SnapshotError> {
        let path = self.partial(name);
        let (bytes, hasher) = match fs::File::open(&path) {
            Ok(file) => hash(file, u64::MAX).map_err(SnapshotError::file("read", &path))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (0, blake3::Hasher::new()),
            Err(error) => return Err(SnapshotError::file("open", &path)(error)),
        };
        Ok(Arrived { bytes, hash: *hasher.finalize().as_bytes() })
    }

    /// Receives the snapshot of that name, which another node sends, from so many bytes on. What is half here of another one is forgotten.
    ///
    /// # Errors
    /// The file can't be made, or fewer bytes than that are here.
    pub fn receive(&self, name: &str, from: u64) -> Result<IncomingSnapshot, SnapshotError> {
        let path = self.partial(name);
        self.forget_partial(Some(&path))?;
        let failed = |doing| SnapshotError::file(doing, &path);
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(&path).map_err(failed("create"))?;
        let (written, hasher) = hash(&file, from).map_err(failed("read"))?;
        if written < from {
            return Err(SnapshotError::damaged(&path, format!("it can't go on at {from}: {written} bytes are here")));
        }
        file.set_len(from).map_err(failed("cut"))?;
        let mut file = file;
        file.seek(SeekFrom::Start(from)).map_err(failed("seek"))?;
        Ok(IncomingSnapshot { store: self.clone(), path, file, hasher, written })
    }
}

impl IncomingSnapshot {
    /// How many bytes are here.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What all bytes hash to once `bytes` follow.
    #[must_use]
    pub fn hash_with(&self, bytes: &[u8]) -> [u8; 32] {
        let mut hasher = self.hasher.clone();
        *hasher.update(bytes).finalize().as_bytes()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// They can't be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all(bytes).map_err(SnapshotError::file("write", &self.path))?;
        self.hasher.update(bytes);
        self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Verifies the file to its last byte, and that it adds up to its digest, and keeps it among the others.
    ///
    /// # Errors
    /// Any byte of it is wrong, missing or too many, or it was made from damaged tables; then nothing of it stays.
    pub fn finish(self, ring: &KeyRing, lineage: &Lineage) -> Result<SnapshotMeta, SnapshotError> {
        self.file.sync_all().map_err(SnapshotError::file("sync", &self.path))?;
        let verified = store::verify(&self.path, ring, lineage);
        if verified.is_err() {
            remove_if_there(&self.path);
        }
        let (header, id) = verified?;
        let path = self.store.adopt(&self.path, header.state.position, id)?;
        store::meta_of(&path, &header, id)
    }
}

/// The hash of the first bytes of a file, at most so many, and how many there were.
pub(super) fn hash(mut file: impl Read, at_most: u64) -> std::io::Result<(u64, blake3::Hasher)> {
    let (mut hasher, mut bytes, mut block) = (blake3::Hasher::new(), 0, vec![0; BLOCK_BYTES]);
    while bytes < at_most {
        let wanted = usize::try_from(at_most - bytes).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let read = file.read(&mut block[..wanted])?;
        if read == 0 {
            break;
        }
        hasher.update(&block[..read]);
        bytes += u64::try_from(read).unwrap_or(u64::MAX);
    }
    Ok((bytes, hasher))
}
