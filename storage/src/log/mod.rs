//! The Raft log on `RocksDB`: what openraft writes votes and entries to.
//!
//! ```text
//!  openraft ──> LogStore ──queue──> writer thread ──> LogIo ──> RocksDB (WAL synced once per batch)
//!                  │                      │                └──> PROMISES (vote, last synced batch)
//!                  └── View <─────────────┘ what is durable
//!  LogReader ──> View, RocksDB for older entries
//! ```
//!
//! In the folder: `IDENTITY` (whose log, which format), `PROMISES`, and `rocks/`, the database.
//!
//! The rules, each with a test: nothing is reported before it is synced, a vote included; operations reach the disk in
//! the order of submission, many per sync; what was appended is readable at once; the first error is final; a start
//! refuses a log that lost what was synced, and accepts a tail torn by a power cut ([`LogError::LostSyncedWrites`],
//! docs/adr/0003-log-recovery.md).
//!
//! What it deliberately doesn't do: look inside a payload, refuse proposals when the disk gets full (the layer above asks
//! [`LogHandle::is_writable`]), decide what may be purged, or survive an error.

mod error;
pub mod failpoint;
mod identity;
mod io;
mod promises;
mod reader;
mod recovery;
mod rocks;
mod shared;
mod store;
mod stored;
mod view;
mod writer;

#[cfg(feature = "failpoints")]
pub mod drill;

pub use error::LogError;
pub use identity::{FORMAT, Identity};
#[cfg(feature = "failpoints")]
pub use io::PLANTED;
pub use reader::{LogReader, READ_BYTES_MAX};
pub use rocks::WRITE_BUFFER_BYTES;
pub use store::{FREE_BYTES_MIN, LogConfig, LogHandle, LogStore, MEMORY_BYTES};

#[cfg(test)]
mod tests;
