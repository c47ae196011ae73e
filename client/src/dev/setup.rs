//! Makes the folder of a local cluster, and the cluster's first contents.

use super::layout::{CHOICES_FILE, Choices, loopback};
use super::{DevCluster, DevConfig, DevError, DevLayout, NODES_MAX, NodePorts, setting_up};
use crate::node_config::{HttpSection, LogSection, NodeConfig, NodeSection, PortSection, TlsSection};
use crate::profile::Profile;
use crate::read::{Consistency, Read};
use crate::session::Session;
use serde::Serialize;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use uuid::Uuid;
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_machine::command::Body;
use zyflow_machine::outcome::{Outcome, Reject};

/// The same script that an administrator uses.
const CERTIFICATES: &str = include_str!("../../../deploy/certificates.sh");

/// The cluster's name.
const CLUSTER: &str = "dev";

/// The project that the checkouts belong to.
pub(super) const PROJECT: &str = "demo";

/// Which files of a checkout are synced.
const PROJECT_FILES: [&str; 5] = [
    "tasks.md",
    "openspec/changes/*/tasks.md",
    "openspec/changes/archive/*/tasks.md",
    "specs/*/tasks.md",
    ".kiro/specs/*/tasks.md",
];

/// What the first checkout holds at first; the cluster brings it to the others.
const DEMO_FILES: [(&str, &str); 2] = [
    ("tasks.md", include_str!("demo/tasks.md")),
    ("openspec/changes/add-login/tasks.md", include_str!("demo/add-login.md")),
];

/// Nodes of a new cluster: the fewest that survive the loss of one.
const NODES_DEFAULT: u64 = 3;

/// How long one call of the set-up may take.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// First port that is looked at. Ports are taken from below those that the system hands out to outgoing connections
/// (32768 up), so that a node that is down for a while finds its own port free again.
const PORT_FIRST: u16 = 20_000;

/// How many ports are looked at.
const PORT_COUNT: u16 = 12_000;

/// The locked folder with all its files, made now or before.
pub(super) fn prepare(config: &DevConfig, zyflowd: &Path) -> Result<(DevLayout, File), DevError> {
    if let Some(nodes) = config.nodes.filter(|nodes| !(1..=NODES_MAX).contains(nodes)) {
        return Err(DevError::Nodes(nodes));
    }
    let dir = folder(&config.dir)?;
    let choices = dir.join(CHOICES_FILE);
    let is_made = choices.exists();
    if !is_made && !is_free(&dir)? {
        return Err(DevError::NotOurs(dir));
    }
    let lock = lock(&dir)?;
    let layout = if is_made {
        DevLayout { choices: load(&choices)?, dir }
    } else {
        let layout = DevLayout { choices: choose(config.nodes.unwrap_or(NODES_DEFAULT))?, dir };
        make(&layout)?;
        write_toml(&choices, &layout.choices)?;
        layout
    };
    // Who has a log has begun, and must not begin anew where its data is gone.
    for id in layout.node_ids().filter(|id| !layout.log(*id).exists() && !layout.data(*id).exists()) {
        make_data(&layout, zyflowd, id)?;
    }
    let made = u64::try_from(layout.choices.node.len()).unwrap_or(u64::MAX);
    match config.nodes.filter(|asked| *asked != made) {
        Some(asked) => Err(DevError::OtherNodes { dir: layout.dir, made, asked }),
        None => Ok((layout, lock)),
    }
}

fn folder(dir: &Path) -> Result<PathBuf, DevError> {
    let failed = |what| move |source| DevError::File { what, path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed("make the folder"))?;
    fs::canonicalize(dir).map_err(failed("find the folder"))
}

/// Whether there is nothing in it but what a start that failed half-way left: it is done over.
fn is_free(dir: &Path) -> Result<bool, DevError> {
    let failed = |source| DevError::File { what: "read the folder", path: dir.to_owned(), source };
    let mut entries = fs::read_dir(dir).map_err(failed)?;
    let is_ours = |entry: &fs::DirEntry| entry.file_name() == "lock";
    entries.try_fold(true, |free, entry| entry.map(|entry| free && is_ours(&entry))).map_err(failed)
}

fn lock(dir: &Path) -> Result<File, DevError> {
    let path = dir.join("lock");
    let failed = |source| DevError::File { what: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DevError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn load(path: &Path) -> Result<Choices, DevError> {
    let damaged = |problem: String| DevError::Damaged { path: path.to_owned(), problem };
    let text = fs::read_to_string(path).map_err(|error| damaged(error.to_string()))?;
    let choices: Choices = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
    let nodes = u64::try_from(choices.node.len()).unwrap_or(u64::MAX);
    if (1..=NODES_MAX).contains(&nodes) { Ok(choices) } else { Err(damaged(format!("it names {nodes} nodes"))) }
}

fn choose(nodes: u64) -> Result<Choices, DevError> {
    let nodes = usize::try_from(nodes).expect("invariant: at most NODES_MAX");
    let ports = free_ports(3 * nodes)?;
    let node = ports.chunks_exact(3).map(|ports| NodePorts { peer: ports[0], api: ports[1], http: ports[2] }).collect();
    Ok(Choices { cluster: CLUSTER.to_owned(), lineage: Uuid::new_v4().to_string(), checkouts: 0, node })
}

fn free_ports(count: usize) -> Result<Vec<u16>, DevError> {
    // Two clusters that start at once begin elsewhere: by the process id.
    let offset = u16::try_from(std::process::id() % u32::from(PORT_COUNT)).expect("invariant: the remainder of a u16");
    let candidates = (0..PORT_COUNT).map(|step| PORT_FIRST + (offset + step) % PORT_COUNT);
    // All are held until the last is found, so that none is found twice.
    let held: Vec<_> = candidates
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|it| (port, it)))
        .take(count)
        .collect();
    if held.len() < count {
        return Err(DevError::Ports(count));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

fn make(layout: &DevLayout) -> Result<(), DevError> {
    let failed = |path: PathBuf| move |source| DevError::File { what: "make", path, source };
    let keys = layout.dir.join("keys");
    fs::create_dir_all(&keys).map_err(failed(keys.clone()))?;
    let certs = layout.certs().display().to_string();
    let mut wanted = vec![certs, CLUSTER.to_owned(), "ca".to_owned()];
    for id in layout.node_ids() {
        wanted.extend(["node".to_owned(), id.to_string()]);
    }
    wanted.extend(["admin".to_owned(), "dev".to_owned()]);
    certificates(&wanted)?;
    certificates(&["key".to_owned(), layout.data_key().display().to_string()])?;
    for id in layout.node_ids() {
        write_toml(&layout.config(id), &node_config(layout, id)?)?;
        write_toml(&layout.profile_of(id), &profile(layout, &[id])?)?;
        let checkout = layout.checkout(id);
        fs::create_dir_all(&checkout).map_err(failed(checkout.clone()))?;
    }
    let all: Vec<u64> = layout.node_ids().collect();
    write_toml(&layout.profile(), &profile(layout, &all)?)?;
    for (name, text) in DEMO_FILES {
        let path = layout.checkout(1).join(name);
        let folder = path.parent().unwrap_or(&layout.dir);
        fs::create_dir_all(folder).map_err(failed(folder.to_owned()))?;
        fs::write(&path, text).map_err(failed(path.clone()))?;
    }
    Ok(())
}

/// The data folder of a node that has never run.
fn make_data(layout: &DevLayout, zyflowd: &Path, id: u64) -> Result<(), DevError> {
    let output = Command::new(zyflowd).args(["new", "--config"]).arg(layout.config(id)).output();
    let output = output.map_err(|source| DevError::Spawn { program: zyflowd.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DevError::Data { id, program: zyflowd.to_owned(), status: output.status, said })
}

fn certificates(arguments: &[String]) -> Result<(), DevError> {
    let output = Command::new("sh").args(["-c", CERTIFICATES, "certificates.sh"]).args(arguments).output();
    let output = output.map_err(|source| DevError::Spawn { program: "sh".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(DevError::Certificates { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

fn profile(layout: &DevLayout, ids: &[u64]) -> Result<Profile, DevError> {
    let endpoint = |id: &u64| layout.ports(*id).map(|ports| loopback(ports.api)).ok_or(DevError::NoSuchNode(*id));
    Ok(Profile {
        cluster: layout.choices.cluster.clone(),
        endpoints: ids.iter().map(endpoint).collect::<Result<_, _>>()?,
        ca: "certs/ca.pem".into(),
        cert: "certs/admin-dev.pem".into(),
        key: "certs/admin-dev.key".into(),
    })
}

fn node_config(layout: &DevLayout, id: u64) -> Result<NodeConfig, DevError> {
    let ports = layout.ports(id).ok_or(DevError::NoSuchNode(id))?;
    let certs = layout.certs();
    let port = |port| PortSection { listen: loopback(port), advertise: loopback(port) };
    Ok(NodeConfig {
        node: NodeSection {
            id,
            cluster: layout.choices.cluster.clone(),
            lineage: layout.choices.lineage.clone(),
            data: layout.data(id),
            key_file: layout.data_key(),
        },
        tls: TlsSection {
            ca: certs.join("ca.pem"),
            cert: certs.join(format!("node-{id}.pem")),
            key: certs.join(format!("node-{id}.key")),
        },
        peer: port(ports.peer),
        api: port(ports.api),
        http: HttpSection { listen: loopback(ports.http) },
        log: LogSection::USUAL,
    })
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), DevError> {
    let damaged = |error: toml::ser::Error| DevError::Damaged { path: path.to_owned(), problem: error.to_string() };
    let text = toml::to_string(value).map_err(damaged)?;
    fs::write(path, text).map_err(|source| DevError::File { what: "write", path: path.to_owned(), source })
}

/// Makes one cluster of the nodes, unless they are one already.
pub(super) async fn initialize(cluster: &DevCluster) -> Result<(), DevError> {
    let client = cluster.client();
    let status = client.node_status(0, CALL_DEADLINE).await?;
    if !status.members.is_empty() {
        return Ok(());
    }
    let layout = cluster.layout();
    let member = |id: u64| {
        let ports = layout.ports(id)?;
        Some(v1::Member {
            node_id: id,
            peer_address: loopback(ports.peer),
            api_address: loopback(ports.api),
            voter: true,
        })
    };
    let request = v1::InitializeRequest { members: layout.node_ids().filter_map(member).collect() };
    let call = |mut admin: AdminClient<_>| async move { admin.initialize(request).await };
    client.admin(0, CALL_DEADLINE, call).await.map_err(setting_up("make a cluster of the nodes"))?;
    Ok(())
}

/// Makes the project and binds the checkouts, as far as that isn't done.
pub(super) async fn fill(cluster: &DevCluster) -> Result<(), DevError> {
    let client = cluster.client();
    let read = Read { consistency: Consistency::Linearizable, at: None, within: CALL_DEADLINE };
    let projects = client.projects(read).await.map_err(setting_up("read the projects"))?;
    if !projects.value.iter().any(|row| row.record.name == PROJECT) {
        let files = PROJECT_FILES.iter().map(ToString::to_string).collect();
        let session = Session::new(client.clone(), "zyflow dev", 0);
        let made = session.propose(Body::CreateProject { name: PROJECT.to_owned(), files }, CALL_DEADLINE).await;
        match made.map_err(setting_up("create the project demo"))? {
            Outcome::Accepted { .. } | Outcome::Rejected(Reject::Exists { .. }) => {}
            outcome @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
                return Err(DevError::Outcome { what: "create the project demo", outcome });
            }
        }
    }
    for number in cluster.layout().checkout_numbers() {
        bind(cluster, number).await?;
    }
    Ok(())
}

/// Writes down that there are so many checkouts, and makes the folders of those that aren't there.
pub(super) fn add_checkouts(layout: &mut DevLayout, checkouts: u64) -> Result<(), DevError> {
    if layout.choices.checkouts < checkouts {
        layout.choices.checkouts = checkouts;
        // Beside it and then over it: a folder whose choices are damaged can't be started again.
        let (new, file) = (layout.dir.join(format!("{CHOICES_FILE}.new")), layout.dir.join(CHOICES_FILE));
        write_toml(&new, &layout.choices)?;
        fs::rename(&new, &file).map_err(|source| DevError::File { what: "replace", path: file, source })?;
    }
    for number in layout.checkout_numbers() {
        let checkout = layout.checkout(number);
        let failed = |source| DevError::File { what: "make", path: checkout.clone(), source };
        fs::create_dir_all(&checkout).map_err(failed)?;
    }
    Ok(())
}

/// Binds a checkout, unless it is bound.
pub(super) async fn bind(cluster: &DevCluster, number: u64) -> Result<(), DevError> {
    let client = cluster.client();
    let node = usize::try_from(cluster.layout().node_of(number) - 1).expect("invariant: ids are 1 to NODES_MAX");
    let list = |mut admin: AdminClient<_>| async move { admin.checkout_list(v1::CheckoutListRequest {}).await };
    let bound = client.admin(node, CALL_DEADLINE, list).await.map_err(setting_up("list the checkouts"))?;
    let path = cluster.layout().checkout(number).display().to_string();
    if bound.checkouts.iter().any(|checkout| checkout.path == path) {
        return Ok(());
    }
    let request =
        v1::CheckoutAddRequest { path, project: PROJECT.to_owned(), take: None, policy: None, convention: None };
    let add = |mut admin: AdminClient<_>| async move { admin.checkout_add(request).await };
    client.admin(node, CALL_DEADLINE, add).await.map_err(setting_up("bind a checkout"))?;
    Ok(())
}
