//! The seam between the writer thread and the disk: everything that makes a batch durable goes through [`LogIo`].
//!
//! One implementation runs in production; tests put a wrapper around it that counts, delays or fails.

use std::{path::PathBuf, sync::Arc};

use rocksdb::{DB, WriteBatch, WriteOptions};

use super::{
    error::LogError,
    promises::{Promise, Promises},
    rocks,
};

/// What the writer thread does to the disk, in the order in which it does it for a batch.
pub(crate) trait LogIo: Send {
    /// Hands a batch to the WAL; it survives a crash of the process from here on.
    fn write(&mut self, batch: WriteBatch) -> Result<(), LogError>;
    /// Makes all batches written so far survive a power cut.
    fn sync(&mut self) -> Result<(), LogError>;
    /// Replaces the promise durably.
    fn promise(&mut self, promise: Promise) -> Result<(), LogError>;
    /// The bytes free for this program on the log's file system.
    fn free_bytes(&mut self) -> Result<u64, LogError>;
}

/// `RocksDB` and the promises beside it.
pub(crate) struct RocksIo {
    dir: PathBuf,
    db: Arc<DB>,
    options: WriteOptions,
    promises: Promises,
    planted_no_sync: bool,
}

impl RocksIo {
    pub(crate) fn new(dir: PathBuf, db: Arc<DB>, promises: Promises) -> Self {
        Self { dir, db, options: rocks::unsynced(), promises, planted_no_sync: planted_no_sync() }
    }
}

impl LogIo for RocksIo {
    fn write(&mut self, batch: WriteBatch) -> Result<(), LogError> {
        self.db.write_opt(batch, &self.options).map_err(LogError::database("write to the log"))
    }

    fn sync(&mut self) -> Result<(), LogError> {
        if self.planted_no_sync {
            return Ok(());
        }
        self.db.flush_wal(true).map_err(LogError::database("sync the log"))
    }

    fn promise(&mut self, promise: Promise) -> Result<(), LogError> {
        if self.planted_no_sync {
            return Ok(());
        }
        self.promises.write(promise)
    }

    fn free_bytes(&mut self) -> Result<u64, LogError> {
        let stat = rustix::fs::statvfs(&self.dir)
            .map_err(|error| LogError::file("look for free space in", &self.dir)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// The environment variable by which a test plants the commonest bug of all, to see itself fail.
#[cfg(feature = "failpoints")]
pub const PLANTED: &str = "ZYFLOW_PLANTED";

#[cfg(feature = "failpoints")]
fn planted_no_sync() -> bool {
    std::env::var(PLANTED).is_ok_and(|planted| planted == "log-nosync")
}

#[cfg(not(feature = "failpoints"))]
const fn planted_no_sync() -> bool {
    false
}
