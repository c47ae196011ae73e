//! The first start after a restore may break off anywhere: the snapshot is installed beside the database in use, so the next start
//! does it again and nothing of the first counts.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use zyflow_crypto::LocalKey;
use zyflow_crypto::backup::object_name;

use super::{Backed, fill};
use crate::backup::OBJECT_BYTES;
use crate::backup::object::Reader;
use crate::layout::Layout;
use crate::snapshot::SnapshotStore;
use crate::tables::tests::harness::{LINEAGE, ring};
use crate::tables::{Installation, Tables, TablesConfig, TravellingVersion};

/// A node's storage on a data folder. Dropping it ends it as a kill would.
struct Started {
    layout: Layout,
    tables: Tables,
    /// Says that all of the log is durable, for as long as the tables are open.
    _durable: watch::Sender<Option<u64>>,
}

impl Started {
    fn on(data: &Path) -> Self {
        let layout = Layout::open(data).unwrap();
        let key = Arc::new(LocalKey::create_or_load(&layout.node_key_file(), &ring()).unwrap());
        let durable = watch::Sender::new(Some(u64::MAX));
        let config = TablesConfig::new(layout.tables_dir(), LINEAGE);
        let tables = Tables::open(config, key, durable.subscribe()).unwrap();
        Self { layout, tables, _durable: durable }
    }

    /// Database files in its folder.
    fn databases(&self) -> usize {
        let names = std::fs::read_dir(self.layout.tables_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "sqlite")).count()
    }
}

/// Every version of a backup's only object.
fn versions(backed: &Backed) -> Vec<TravellingVersion> {
    let (bytes, ring) = (std::fs::read(backed.path(1)).unwrap(), ring());
    let (mut reader, _) = Reader::open(bytes.as_slice(), &object_name(1), &ring).unwrap();
    let mut versions = Vec::new();
    while let Some(version) = reader.next().unwrap() {
        versions.push(version);
    }
    versions
}

#[test]
fn a_first_start_that_breaks_off_while_it_installs_is_done_again() {
    let mut backed = Backed::new();
    fill(&mut backed);
    backed.all(OBJECT_BYTES);
    let expected = backed.restored(None).1.assert_digests_equal();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let restored = backed.restore(&data, None).unwrap();
    let versions = versions(&backed);
    for count in [0, 1, versions.len() / 2, versions.len()] {
        let started = Started::on(&data);
        assert!(started.tables.applied_state().unwrap().0.is_none(), "something of a start that broke off counts");
        assert_eq!(started.databases(), 1, "something of it is left");
        let mut installation = Installation::begin(&started.tables, restored.oldest).unwrap();
        for version in &versions[..count] {
            installation.add_version(version).unwrap();
        }
        drop(installation);
        assert_eq!(started.databases(), 2, "the half of {count} versions lies beside the one in use");
    }
    let started = Started::on(&data);
    assert_eq!(started.databases(), 1);
    let store = SnapshotStore::open(&started.layout.snapshots_dir(), 2).unwrap();
    started.tables.install_snapshot(&store.list().unwrap()[0], &ring(), &LINEAGE).unwrap();
    drop(started);
    let again = Started::on(&data);
    assert_eq!(again.tables.digest().unwrap(), expected);
    assert_eq!(again.tables.recompute_digest().unwrap(), expected);
}
