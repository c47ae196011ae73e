//! The log under openraft, as far as this crate looks at it.
//!
//! [`Log`] is the seam for simulation. In production there is [`LogStore`]: `RocksDB` and a thread that syncs it. A simulation
//! brings a model that knows which entries are durable and loses the others when it says so. Not here: what openraft itself
//! asks of a log; that is its own trait.

use std::sync::Arc;

use openraft::storage::RaftLogStorage;
use tokio::sync::watch;
use zyflow_storage::log::{LogError, LogHandle, LogStore};
use zyflow_storage::types::{LogId, TypeConfig};

/// A log that a node can stand on.
pub trait Log: RaftLogStorage<TypeConfig> {
    /// Watches the log after openraft has taken it.
    fn watch(&self) -> Arc<dyn LogWatch>;

    /// Refuses a log that ends before what was fed from it: the tables' `applied` and the newest `snapshot`.
    ///
    /// # Errors
    /// What doesn't fit.
    fn check_state(
        &self,
        applied: Option<LogId>,
        snapshot: Option<LogId>,
    ) -> impl Future<Output = Result<(), Arc<LogError>>> + Send;
}

/// What the parts beside openraft ask of an open log.
pub trait LogWatch: Send + Sync + 'static {
    /// Becomes the first error. The node has to stop then.
    fn fatal(&self) -> watch::Receiver<Option<Arc<LogError>>>;
    /// The last index up to which every entry is durable here.
    fn durable_watermark(&self) -> watch::Receiver<Option<u64>>;
    /// The bytes free on the log's disk.
    fn free_space(&self) -> u64;
}

impl Log for LogStore {
    fn watch(&self) -> Arc<dyn LogWatch> {
        Arc::new(self.handle())
    }

    fn check_state(
        &self,
        applied: Option<LogId>,
        snapshot: Option<LogId>,
    ) -> impl Future<Output = Result<(), Arc<LogError>>> + Send {
        LogStore::check_state(self, applied, snapshot)
    }
}

impl LogWatch for LogHandle {
    fn fatal(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        LogHandle::fatal(self)
    }

    fn durable_watermark(&self) -> watch::Receiver<Option<u64>> {
        LogHandle::durable_watermark(self)
    }

    fn free_space(&self) -> u64 {
        LogHandle::free_space(self)
    }
}
