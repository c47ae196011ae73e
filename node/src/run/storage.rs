//! Everything below the data folder: made once, opened at each start.

use std::io;
use std::path::Path;
use std::sync::Arc;

use zyflow_crypto::{KeyRing, Lineage, LocalKey, load_key_file};
use zyflow_storage::layout::Layout;
use zyflow_storage::log::{Identity, LogConfig, LogStore};
use zyflow_storage::tables::{Tables, TablesConfig};

use super::{RunError, part};
use crate::config::Config;

/// What is open below the data folder.
pub(super) struct Storage {
    pub(super) layout: Layout,
    pub(super) log: LogStore,
    pub(super) tables: Tables,
    pub(super) local: Arc<LocalKey>,
    pub(super) ring: Arc<KeyRing>,
    pub(super) lineage: Lineage,
}

/// Makes the data folder of a node that has never run. Never done by a start: in the place of a folder that was lost, or that isn't mounted,
/// an empty one would take part under the old id and without the old votes.
///
/// # Errors
/// The configuration names no usable key, or something is in the folder.
pub fn make(config: &Config) -> Result<(), RunError> {
    load_key_file(&config.node.key_file, &config.node.data).map_err(part("the data key can't be used"))?;
    let made = Layout::create(&config.node.data, lineage_of(config)?, config.node.id);
    made.map_err(part("the data folder can't be made"))?;
    Ok(())
}

fn lineage_of(config: &Config) -> Result<Lineage, RunError> {
    config.node.lineage.parse().map_err(|_| RunError::Lineage(config.node.lineage.clone()))
}

/// Opens everything below the data folder.
pub(super) fn open_storage(config: &Config) -> Result<Storage, RunError> {
    let lineage = lineage_of(config)?;
    let key = load_key_file(&config.node.key_file, &config.node.data).map_err(part("the data key can't be used"))?;
    let ring = Arc::new(KeyRing::new(key));
    let layout = Layout::open(&config.node.data).map_err(part("the data folder can't be used"))?;
    layout.expect(lineage, config.node.id).map_err(part("the data folder can't be used"))?;
    let local =
        LocalKey::create_or_load(&layout.node_key_file(), &ring).map_err(part("the node's key can't be used"))?;
    let local = Arc::new(local);
    let identity = Identity { lineage: lineage.0, node: config.node.id };
    let log_config =
        LogConfig { free_bytes_min: config.limits.disk_free_min.0, ..LogConfig::new(layout.log_dir(), identity) };
    if layout.is_new() {
        // An attempt before this one may have made it.
        if is_empty(&layout.log_dir())? {
            LogStore::init(&log_config).map_err(part("the log can't be made"))?;
        }
        layout.begin().map_err(part("the data folder can't be used"))?;
    }
    let log = LogStore::open(&log_config).map_err(part("the log can't be opened"))?;
    let tables_config = TablesConfig::new(layout.tables_dir(), lineage);
    let tables = Tables::open(tables_config, Arc::clone(&local), log.durable_watermark());
    let tables = tables.map_err(part("the tables can't be opened"))?;
    Ok(Storage { layout, log, tables, local, ring, lineage })
}

/// Whether a folder has nothing in it, or isn't there.
fn is_empty(folder: &Path) -> Result<bool, RunError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(part("the data folder can't be read")(error)),
    }
}
