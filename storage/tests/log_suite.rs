//! openraft's own conformance suite on this log, with a state machine in memory that stands in for the tables.
#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

mod memory_machine;

use memory_machine::MemoryMachine;
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use zyflow_storage::{
    log::{Identity, LogConfig, LogStore},
    types::TypeConfig,
};

/// Builds a new log in a new folder each time, with the smallest buffers that work, so that the disk is used early.
struct Builder;

impl StoreBuilder<TypeConfig, LogStore, MemoryMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, MemoryMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LogConfig::new(dir.path().join("log"), Identity { lineage: [7; 16], node: 1 });
        config.warm = false;
        config.memory_bytes = 0;
        config.write_buffer_bytes = 64 << 10;
        LogStore::init(&config).unwrap();
        let store = LogStore::open(&config).unwrap();
        Ok((dir, store, MemoryMachine::default()))
    }
}

#[tokio::test]
async fn the_log_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}
