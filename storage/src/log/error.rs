//! What can go wrong with the log. Every variant but the refusals at start is final for the process.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    codec::CodecError,
    types::{LogId, NodeId, Vote},
};

/// Why the log could not be created, opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is a log already; a node never starts again with an empty one.
    #[error("there is a log in {dir} already: a node is initialised once")]
    AlreadyInitialised {
        /// The folder.
        dir: PathBuf,
    },
    /// There is no log. Starting with an empty one would forget votes and acknowledged entries.
    #[error("there is no log in {dir}: is the data volume mounted? a new node is initialised first")]
    NotInitialised {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process has the log open.
    #[error("the log in {dir} is in use by another process")]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A newer program wrote the log.
    #[error("the log in {dir} has format {found}, this program knows formats up to {known}: start the newer program")]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// The log is of another history.
    #[error("the log in {dir} belongs to lineage {found}, this node is of lineage {expected}: wrong data folder")]
    OtherLineage {
        /// The folder.
        dir: PathBuf,
        /// The lineage of the log, in hexadecimal.
        found: String,
        /// The lineage of this node, in hexadecimal.
        expected: String,
    },
    /// The log is of another node.
    #[error("the log in {dir} belongs to node {found}, this is node {expected}: wrong data folder")]
    OtherNode {
        /// The folder.
        dir: PathBuf,
        /// The node that wrote the log.
        found: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// The identity file can't be read.
    #[error("{path} is damaged: {reason}")]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Neither copy of the promises is readable.
    #[error("{path} is damaged: neither copy of the node's promises is readable")]
    PromisesDamaged {
        /// The file.
        path: PathBuf,
    },
    /// Writes that were acknowledged are gone.
    #[error(
        "the log lost acknowledged writes: it ends with batch {recovered}, but {evidence} shows that batch {synced} was \
         synced. The disk lost or damaged data. Remove this node from the cluster and add it again under a new id"
    )]
    LostSyncedWrites {
        /// The last batch that could be read back.
        recovered: u64,
        /// The last batch that is known to have been synced.
        synced: u64,
        /// What shows it.
        evidence: &'static str,
    },
    /// The vote is older than one that was promised.
    #[error(
        "the log lost a vote: it holds {recovered:?}, but {promised} was promised. The disk lost or damaged data. Remove \
         this node from the cluster and add it again under a new id"
    )]
    LostVote {
        /// The vote in the log.
        recovered: Option<Vote>,
        /// The vote in the promises.
        promised: Vote,
    },
    /// The state machine knows more than the log.
    #[error(
        "the log ends at {log:?}, but the state machine has applied {applied} and the snapshot covers {snapshot:?}: the \
         log lost acknowledged entries. Remove this node from the cluster and add it again under a new id"
    )]
    BehindState {
        /// The last log id of the log.
        log: Option<LogId>,
        /// The last log id that the state machine applied.
        applied: LogId,
        /// The last log id that the snapshot covers.
        snapshot: Option<LogId>,
    },
    /// Log and state machine hold different entries at one index.
    #[error("the log holds {log} where the state machine applied {applied}: one of them is of another history")]
    OtherThanState {
        /// The log id in the log.
        log: LogId,
        /// The log id that the state machine applied.
        applied: LogId,
    },
    /// Entries are missing.
    #[error("the log has a hole: entry {expected} is missing, the next one found is {found:?}")]
    Hole {
        /// The index that should be there.
        expected: u64,
        /// The index that is there instead.
        found: Option<u64>,
    },
    /// The last entry is another one than recorded.
    #[error("the log ends at {found:?} but records {recorded:?} as its last entry")]
    WrongTail {
        /// The last log id, as recorded with the last batch.
        recorded: Option<LogId>,
        /// The last log id found.
        found: Option<LogId>,
    },
    /// An append that doesn't follow the last entry.
    #[error("entry {appended} was appended after {last:?}: the log has no holes and terms never fall")]
    NotNext {
        /// The last log id.
        last: Option<LogId>,
        /// The log id of the entry that was to be appended.
        appended: LogId,
    },
    /// A record's checksum doesn't match.
    #[error("the stored {what} fails its checksum")]
    Checksum {
        /// The record.
        what: String,
    },
    /// A record passes its checksum but can't be decoded.
    #[error("the stored {what} can't be decoded")]
    Decode {
        /// The record.
        what: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A record that every log has is missing.
    #[error("the log has no {what}")]
    Missing {
        /// The record.
        what: &'static str,
    },
    /// `RocksDB` failed.
    #[error("could not {action}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// What `RocksDB` says.
        #[source]
        source: rocksdb::Error,
    },
    /// A file operation failed.
    #[error("could not {action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The writer thread could not be started.
    #[error("could not start the thread of the log")]
    Thread {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A task that read the log was cancelled or panicked.
    #[error("a read of the log did not finish")]
    ReadTask {
        /// What happened to it.
        #[source]
        source: tokio::task::JoinError,
    },
    /// The log has been closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    pub(crate) fn database(action: &'static str) -> impl FnOnce(rocksdb::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.into(), source }
    }
}

/// The error as openraft wants it; the source chain stays reachable.
pub(crate) fn to_io(error: &Arc<LogError>) -> io::Error {
    io::Error::other(Arc::clone(error))
}
