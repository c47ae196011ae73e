//! A node's folder: real log, real tables.

use std::path::Path;
use std::sync::Arc;

use zyflow_crypto::LocalKey;
use zyflow_raft::NodeId;
use zyflow_storage::layout::Layout;
use zyflow_storage::log::{Identity, LogConfig, LogStore};
use zyflow_storage::tables::{Tables, TablesConfig};

use super::{lineage, ring, until};

/// What a running node holds besides its consensus.
pub struct Stored {
    _layout: Layout,
    tables: Tables,
}

impl Stored {
    /// Nothing is flushed: what SQLite lacks must come from the log again.
    pub fn close(self) {
        drop(self.tables);
    }
}

fn log_config(layout: &Layout, id: NodeId) -> LogConfig {
    let mut config = LogConfig::new(layout.log_dir(), Identity { lineage: lineage().0, node: id });
    // Warm files are for speed; a test would pay for them and not use them.
    config.warm = false;
    config
}

/// Makes the folder of a new node.
pub fn init(dir: &Path, id: NodeId) {
    let layout = Layout::create(&dir.join("data"), lineage(), id).unwrap();
    std::fs::remove_dir(layout.log_dir()).unwrap();
    LogStore::init(&log_config(&layout, id)).unwrap();
}

pub async fn open(dir: &Path, id: NodeId) -> (Stored, LogStore, Tables) {
    open_with(dir, id, |_log, _tables| {}).await
}

pub async fn open_with(
    dir: &Path,
    id: NodeId,
    configure: impl FnOnce(&mut LogConfig, &mut TablesConfig),
) -> (Stored, LogStore, Tables) {
    let layout = Layout::open(&dir.join("data")).unwrap();
    layout.expect(lineage(), id).unwrap();
    // Tasks of the node before may still hold it for a moment.
    let (mut log_config, mut tables_config) =
        (log_config(&layout, id), TablesConfig::new(layout.tables_dir(), lineage()));
    configure(&mut log_config, &mut tables_config);
    let log = until("the log to be free", || LogStore::open(&log_config).ok()).await;
    let key = Arc::new(LocalKey::create_or_load(&layout.node_key_file(), &ring()).unwrap());
    let tables = Tables::open(tables_config, key, log.durable_watermark()).unwrap();
    (Stored { _layout: layout, tables: tables.clone() }, log, tables)
}
