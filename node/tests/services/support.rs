//! A cluster of one node, with its certificates and its CA's key.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use zyflow_crypto::join::{Authority, NodeKey, Request};
use zyflow_crypto::{
    Acceptor, Connector, KeyRing, Lineage, LocalKey, TlsFiles, TlsMaterial, create_key_file, load_key_file,
};
use zyflow_node::config::{self, Config};
use zyflow_raft::{Consensus, ConsensusConfig, Consistency, NodeInfo};
use zyflow_storage::layout::Layout;
use zyflow_storage::log::{Identity, LogConfig, LogStore};
use zyflow_storage::tables::{Tables, TablesConfig};

pub const CLUSTER: &str = "team";
pub const LINEAGE: Lineage = Lineage([0x5a; 16]);

/// Long enough for a loaded machine; only failing tests take it.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub struct Node {
    pub consensus: Consensus,
    pub tables: Tables,
    pub acceptor: Acceptor,
    pub ring: Arc<KeyRing>,
    pub config: Config,
    pub folder: TempDir,
    _layout: Layout,
}

impl Node {
    /// Node 1, which leads.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = configuration(&folder, address);
        let material = certificates(&config, &folder);
        create_key_file(&config.node.key_file).unwrap();
        let layout = Layout::create(&config.node.data, LINEAGE, config.node.id).unwrap();
        let ring = Arc::new(KeyRing::new(load_key_file(&config.node.key_file, &config.node.data).unwrap()));
        let mut log_config = LogConfig::new(layout.log_dir(), Identity { lineage: LINEAGE.0, node: config.node.id });
        log_config.warm = false;
        LogStore::init(&log_config).unwrap();
        let log = LogStore::open(&log_config).unwrap();
        let local = Arc::new(LocalKey::create_or_load(&layout.node_key_file(), &ring).unwrap());
        let tables_config = TablesConfig::new(layout.tables_dir(), LINEAGE);
        let tables = Tables::open(tables_config, local, log.durable_watermark()).unwrap();
        let (id, cluster, own) = (config.node.id, CLUSTER.to_owned(), address.to_string());
        let mut consensus = ConsensusConfig::new(id, cluster, LINEAGE, own.clone(), layout.snapshots_dir());
        consensus.disk_free_bytes_min = 0;
        let (acceptor, connector) = (Acceptor::new(material.clone()), Connector::new(material));
        let (ours, keys) = (tables.clone(), Arc::clone(&ring));
        let started = Consensus::start(consensus, log, ours, keys, listener, acceptor.clone(), connector);
        let consensus = started.await.unwrap();
        consensus.initialize(BTreeMap::from([(id, NodeInfo::at(own))])).await.unwrap();
        consensus.read_barrier(Consistency::Linearizable, soon()).await.unwrap();
        Self { consensus, tables, acceptor, ring, config, folder, _layout: layout }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn configuration(folder: &TempDir, peer: SocketAddr) -> Config {
    let file = |name: &str| folder.path().join(name);
    let endpoint = |listen: SocketAddr| config::Endpoint { listen, advertise: listen.to_string() };
    Config {
        node: config::Node {
            id: 1,
            cluster: CLUSTER.to_owned(),
            lineage: LINEAGE.to_string(),
            data: file("data"),
            key_file: file("data.key"),
        },
        tls: config::Tls { ca: file("ca.pem"), cert: file("node.pem"), key: file("node.key") },
        peer: endpoint(peer),
        api: endpoint(peer),
        http: config::Http { listen: peer },
        log: config::Log::default(),
        limits: config::Limits::default(),
        digest: config::Digest::default(),
        cache: config::Cache::default(),
        notify: config::Notify::default(),
        join: None,
    }
}

/// Makes the CA and the node's certificate.
fn certificates(config: &Config, folder: &TempDir) -> TlsMaterial {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca_key = folder.path().join("ca.key");
    fs::write(&config.tls.ca, issuer.pem()).unwrap();
    fs::write(&ca_key, issuer.key().serialize_pem()).unwrap();
    fs::set_permissions(&ca_key, Permissions::from_mode(0o600)).unwrap();
    let key = NodeKey::generate().unwrap();
    key.store(&config.tls.key).unwrap();
    let request = Request::parse(&key.request().unwrap()).unwrap();
    let identity = format!("spiffe://{CLUSTER}/voter/{}", config.node.id).parse().unwrap();
    let certificate = Authority::load(&config.tls.ca, &ca_key).unwrap().certify(request, &identity).unwrap();
    fs::write(&config.tls.cert, certificate).unwrap();
    let config::Tls { ca, cert, key } = config.tls.clone();
    TlsMaterial::load(&TlsFiles { ca, cert, key }, Some(CLUSTER)).unwrap()
}
