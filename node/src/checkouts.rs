//! The checkouts on this machine: which there are, kept in the data folder, and the engine of each.
//!
//! Where a checkout lies is this machine's own business and never replicated. The list is written whole, to a temporary that
//! is fsynced and renamed, before an engine starts or after it stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zyflow_checkout::{Checkout, Cluster, FileState, Handle, StateSeal, Take, Timing, WritePolicy};
use zyflow_spec::Convention;

use crate::cluster::NodeCluster;

/// Checkouts on one node: each costs a thread's share of inotify and a scan a minute.
const CHECKOUTS_MAX: usize = 256;

/// Why a checkout can't be added or isn't there.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutsError {
    /// Not an absolute path of a folder.
    #[error("{path} is not a folder on this node's machine: {reason}; give the absolute path of a folder that exists")]
    NotAFolder {
        /// What was given.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The folder, one in it or one around it is bound.
    #[error("{path} is already bound as {bound} (project `{project}`); remove that checkout first")]
    Bound {
        /// What was given.
        path: PathBuf,
        /// What is bound.
        bound: PathBuf,
        /// To which project.
        project: String,
    },
    /// No such project.
    #[error(
        "project `{0}` doesn't exist; `zyflow project list` shows what there is, `zyflow project create` makes one"
    )]
    NoProject(String),
    /// No such checkout.
    #[error("{0} is not a checkout of this node; `zyflow checkout list` shows what there is")]
    NotBound(PathBuf),
    /// Too many.
    #[error("this node has {CHECKOUTS_MAX} checkouts, the most it takes; remove one first")]
    TooMany,
    /// The list can't be read or written.
    #[error("the list of checkouts {path} can't be used: {source}")]
    List {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list is damaged.
    #[error("the list of checkouts {path} is damaged: {source}; restore it, or delete it and add the checkouts again")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The engine can't start.
    #[error("the checkout {path} can't be opened: {reason}")]
    Engine {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Canonical path of the folder.
    pub root: PathBuf,
    /// Name of the project.
    pub project: String,
    /// When the engine may write.
    pub policy: Policy,
    /// Name of its folder of state.
    pub state: String,
    /// What marks mean in it, as `zyflow_spec::Convention` writes it; absent = as the project says, or each file's own dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convention: Option<Convention>,
}

/// How a folder is bound.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// When the engine may write.
    pub policy: Policy,
    /// What to do with files that differ from the cluster's; `None` = ask.
    pub take: Option<Take>,
    /// What marks mean in it; `None` = as the project says, or each file's own dialect.
    pub convention: Option<Convention>,
}

/// [`WritePolicy`] as the list spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Never.
    Off,
    /// Only while the file is as git or we left it.
    Clean,
    /// Whenever the cluster has something newer.
    Always,
}

impl From<Policy> for WritePolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Off => Self::Off,
            Policy::Clean => Self::Clean,
            Policy::Always => Self::Always,
        }
    }
}

struct Running {
    binding: Binding,
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What every checkout of the node gets.
pub struct Setup {
    /// Where the list and the states lie.
    pub folder: PathBuf,
    /// This node's number.
    pub node_id: u64,
    /// The cluster's history.
    pub lineage: String,
    /// How often everything is looked at, hints or not.
    pub rescan: Duration,
    /// Seals what is remembered of the texts.
    pub seal: Arc<dyn StateSeal>,
    /// Where the engines run: apart from consensus, whose one thread must not wait for files.
    pub runtime: tokio::runtime::Handle,
    /// A way to the cluster, one per checkout.
    pub connect: Box<dyn Fn() -> NodeCluster + Send + Sync>,
}

/// All checkouts of the node.
pub struct Checkouts {
    setup: Setup,
    running: Mutex<BTreeMap<PathBuf, Running>>,
}

impl Checkouts {
    /// Starts the engines of all checkouts in the list.
    ///
    /// # Errors
    /// Where the list can't be read.
    pub async fn start(setup: Setup) -> Result<Self, CheckoutsError> {
        let checkouts = Self { setup, running: Mutex::default() };
        for binding in checkouts.load()? {
            let root = binding.root.clone();
            let running = checkouts.spawn(binding, None);
            checkouts.running.lock().await.insert(root, running);
        }
        Ok(checkouts)
    }

    fn list(&self) -> PathBuf {
        self.setup.folder.join("bindings.json")
    }

    fn load(&self) -> Result<Vec<Binding>, CheckoutsError> {
        let path = self.list();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| CheckoutsError::Damaged { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(CheckoutsError::List { path, source }),
        }
    }

    fn save(&self, bindings: &[Binding]) -> Result<(), CheckoutsError> {
        let path = self.list();
        write_whole(&path, bindings).map_err(|source| CheckoutsError::List { path, source })
    }

    fn spawn(&self, binding: Binding, take: Option<Take>) -> Running {
        let config = zyflow_checkout::Config {
            root: binding.root.clone(),
            project: binding.project.clone(),
            lineage: self.setup.lineage.clone(),
            state_dir: self.setup.folder.join(&binding.state),
            seal: Arc::clone(&self.setup.seal),
            author: format!("node-{}:{}", self.setup.node_id, binding.root.display()),
            policy: binding.policy.into(),
            take,
            convention: binding.convention.clone(),
            timing: Timing { rescan: self.setup.rescan, ..Timing::default() },
        };
        let (checkout, handle) = Checkout::new(config, Arc::new((self.setup.connect)()));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let root = binding.root.clone();
        let task = self.setup.runtime.spawn(async move {
            if let Err(error) = checkout.run(stopped).await {
                tracing::error!(checkout = %root.display(), error = %error_chain(&error), "a checkout stopped");
            }
        });
        Running { binding, handle, stop, task }
    }

    /// Binds a folder to a project and starts its engine.
    ///
    /// # Errors
    /// [`CheckoutsError`]; nothing has changed then.
    pub async fn add(&self, path: &Path, project: &str, wishes: Wishes) -> Result<(), CheckoutsError> {
        let Wishes { policy, take, convention } = wishes;
        let not_a_folder = |reason: String| CheckoutsError::NotAFolder { path: path.into(), reason };
        if !path.is_absolute() {
            return Err(not_a_folder("the path is relative".to_owned()));
        }
        let root = std::fs::canonicalize(path).map_err(|error| not_a_folder(error.to_string()))?;
        if !root.is_dir() {
            return Err(not_a_folder("it is a file".to_owned()));
        }
        let known = (self.setup.connect)()
            .project(project)
            .map_err(|error| CheckoutsError::Engine { path: path.into(), reason: error_chain(&error) })?;
        if known.is_none() {
            return Err(CheckoutsError::NoProject(project.to_owned()));
        }
        let mut running = self.running.lock().await;
        if let Some(other) = running.values().find(|other| overlap(&other.binding.root, &root)) {
            let bound = other.binding.root.clone();
            return Err(CheckoutsError::Bound { path: path.into(), bound, project: other.binding.project.clone() });
        }
        if running.len() >= CHECKOUTS_MAX {
            return Err(CheckoutsError::TooMany);
        }
        let state = format!("checkout-{}", uuid::Uuid::now_v7().simple());
        let binding = Binding { root: root.clone(), project: project.to_owned(), policy, state, convention };
        let mut bindings = self.load()?;
        bindings.push(binding.clone());
        self.save(&bindings)?;
        running.insert(root, self.spawn(binding, take));
        Ok(())
    }

    /// Stops a checkout and forgets it. Its files stay as they are.
    ///
    /// # Errors
    /// Where it isn't bound, or the list can't be written.
    pub async fn remove(&self, path: &Path) -> Result<(), CheckoutsError> {
        let mut running = self.running.lock().await;
        let root = Self::key(&running, path)?;
        let bindings = self.load()?;
        let kept: Vec<Binding> = bindings.into_iter().filter(|binding| binding.root != root).collect();
        self.save(&kept)?;
        if let Some(removed) = running.remove(&root) {
            let state = self.setup.folder.join(&removed.binding.state);
            stop(removed).await;
            // The base texts are of no use without the binding. Displaced texts of the last seconds are in there too, and
            // they are why it is renamed and not deleted.
            let retired = state.with_extension("removed");
            if let Err(error) = std::fs::rename(&state, &retired) {
                tracing::warn!(state = %state.display(), %error, "the state of a removed checkout can't be moved away");
            }
        }
        Ok(())
    }

    fn key(running: &BTreeMap<PathBuf, Running>, path: &Path) -> Result<PathBuf, CheckoutsError> {
        let root = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if running.contains_key(&root) { Ok(root) } else { Err(CheckoutsError::NotBound(path.into())) }
    }

    /// The handle of one checkout.
    ///
    /// # Errors
    /// Where it isn't bound.
    pub async fn handle(&self, path: &Path) -> Result<Handle, CheckoutsError> {
        let running = self.running.lock().await;
        let root = Self::key(&running, path)?;
        running.get(&root).map(|checkout| checkout.handle.clone()).ok_or_else(|| CheckoutsError::NotBound(path.into()))
    }

    /// All bindings with their handles, by path.
    pub async fn all(&self) -> Vec<(Binding, Handle)> {
        self.running.lock().await.values().map(|running| (running.binding.clone(), running.handle.clone())).collect()
    }

    /// How many there are, and how many of their files hold edits that the cluster hasn't got. While one is being added, none are seen.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let Ok(running) = self.running.try_lock() else { return (0, 0) };
        let files = running.values().map(|running| {
            let status = running.handle.status();
            status.files.iter().filter(|file| !matches!(file.state, FileState::Synced | FileState::Parked(_))).count()
        });
        (running.len(), files.sum())
    }

    /// Stops every engine and waits for them.
    pub async fn shutdown(&self) {
        let running = std::mem::take(&mut *self.running.lock().await);
        for checkout in running.into_values() {
            stop(checkout).await;
        }
    }
}

async fn stop(running: Running) {
    running.stop.cancel();
    if let Err(error) = running.task.await {
        tracing::error!(checkout = %running.binding.root.display(), %error, "a checkout's task failed");
    }
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn write_whole(path: &Path, bindings: &[Binding]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, bindings)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// An error with all its causes on one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
