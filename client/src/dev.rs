//! A whole cluster on this machine, for development, demonstrations and tests: each node a `zyflowd` process of its own.
//!
//! ```text
//!   D/dev.toml            what was chosen once: nodes, ports, lineage      D/lock   held while the cluster runs
//!   D/certs, D/keys       certificates, and the data key                   D/client.toml, D/client-1.toml, ...
//!   D/node-1.toml         configuration    D/node-1/ data    D/node-1.log  what the process said
//!   D/checkout-1/         a checkout on node 1; after one per node come those that were asked for: on node 1 again, and so on
//! ```
//! Starting on an empty folder makes all of it; starting on one that we made runs it again, with the same ports. Any other
//! folder is refused and left as it is. This module prints nothing; it ends only processes that it has started.

mod error;
mod layout;
mod node;
mod setup;

pub use error::DevError;
pub use layout::{DevLayout, NodePorts};

use crate::client::Client;
use crate::error::ClientError;
use crate::profile::Profile;
use node::Node;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zyflow_api::v1;

/// Most nodes: a cluster of more voters than this only gets slower, and one machine has other work.
pub const NODES_MAX: u64 = 9;

/// Most checkouts: each has an inotify instance, of which Linux gives a user 128 unless told otherwise.
pub const CHECKOUTS_MAX: u64 = 64;

/// How long the nodes may take until all answer and have a leader. Replaying a long log takes seconds.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How long one node may take to shut down by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Pause between two looks at something that is awaited.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// The folder: empty, absent, or made by an earlier start.
    pub dir: PathBuf,
    /// How many nodes; `None` = as many as there were, 3 in a new folder.
    pub nodes: Option<u64>,
    /// The `zyflowd` to run; `None` = see [`find_zyflowd`].
    pub zyflowd: Option<PathBuf>,
}

/// A running cluster. Dropping it kills its processes; [`DevCluster::stop`] ends them gracefully.
pub struct DevCluster {
    layout: DevLayout,
    nodes: Vec<Node>,
    client: Client,
    /// Held for as long as the cluster lives, so that no second start uses the folder.
    _lock: File,
}

impl DevCluster {
    /// Starts the cluster and returns once every node answers, there is a leader, and the demo project with a checkout on
    /// each node is there.
    ///
    /// # Errors
    /// See [`DevError`]. Processes that were started have been ended.
    pub async fn start(config: DevConfig) -> Result<Self, DevError> {
        let zyflowd = config.zyflowd.clone().map_or_else(find_zyflowd, Ok)?;
        let (layout, lock) = setup::prepare(&config, &zyflowd)?;
        let mut nodes = Vec::new();
        for id in layout.node_ids() {
            nodes.push(Node::spawn(&zyflowd, &layout, id)?);
        }
        let client = Client::new(&Profile::load(&layout.profile())?)?;
        let mut cluster = Self { layout, nodes, client, _lock: lock };
        cluster.wait_until_answering().await?;
        setup::initialize(&cluster).await?;
        cluster.wait_for_leader().await?;
        setup::fill(&cluster).await?;
        Ok(cluster)
    }

    /// Makes sure that there are at least so many checkouts, and that all are bound. They stay: a later start has them again.
    ///
    /// # Errors
    /// Where a folder can't be made or bound.
    pub async fn ensure_checkouts(&mut self, checkouts: u64) -> Result<(), DevError> {
        setup::add_checkouts(&mut self.layout, checkouts)?;
        for number in self.layout.checkout_numbers() {
            setup::bind(self, number).await?;
        }
        Ok(())
    }

    /// Where everything is.
    #[must_use]
    pub fn layout(&self) -> &DevLayout {
        &self.layout
    }

    /// A client of all nodes, in the order of their ids: endpoint `n - 1` is node `n`.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The process id of a node; `None` where it doesn't run or doesn't exist.
    #[must_use]
    pub fn pid(&self, id: u64) -> Option<u32> {
        self.nodes.iter().find(|node| node.id() == id).and_then(Node::pid)
    }

    /// Kills a node's process (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// Where there is no such node, or the system refuses.
    pub async fn kill(&mut self, id: u64) -> Result<(), DevError> {
        self.node(id)?.kill().await
    }

    /// Asks a node to shut down (SIGTERM), and kills it if it doesn't in time.
    ///
    /// # Errors
    /// Where there is no such node, it had to be killed, or it failed.
    pub async fn stop_node(&mut self, id: u64) -> Result<(), DevError> {
        self.node(id)?.stop(STOP_DEADLINE).await
    }

    /// Starts a node again that was killed or stopped, and returns once it answers.
    ///
    /// # Errors
    /// Where there is no such node, or it doesn't come up.
    pub async fn restart(&mut self, id: u64) -> Result<(), DevError> {
        let layout = self.layout.clone();
        self.node(id)?.respawn(&layout)?;
        self.wait_until_answering().await
    }

    /// The first node found whose process has ended by itself, and how.
    pub fn ended(&mut self) -> Option<(u64, ExitStatus)> {
        self.nodes.iter_mut().find_map(|node| node.ended().map(|status| (node.id(), status)))
    }

    /// The id of the leader, as soon as a running node knows one that runs.
    ///
    /// # Errors
    /// Where there is none in time.
    pub async fn wait_for_leader(&mut self) -> Result<u64, DevError> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            let statuses = self.client.node_statuses(START_DEADLINE / 10).await;
            let is_leader = |status: &v1::NodeStatusResponse| status.role() == v1::NodeRole::Leader;
            if let Some(leader) = statuses.iter().flatten().find(|status| is_leader(status)) {
                return Ok(leader.node_id);
            }
            self.check_running()?;
            if Instant::now() >= end {
                return Err(DevError::NoLeader { waited: START_DEADLINE, dir: self.layout.dir().to_owned() });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Ends all nodes gracefully, the later ones first; kills what doesn't end in time.
    ///
    /// # Errors
    /// The first node that had to be killed or that failed; all are ended all the same.
    pub async fn stop(mut self) -> Result<(), DevError> {
        let stopping = self.nodes.iter_mut().rev().map(|node| node.stop(STOP_DEADLINE));
        let results = futures::future::join_all(stopping).await;
        results.into_iter().collect()
    }

    fn node(&mut self, id: u64) -> Result<&mut Node, DevError> {
        self.nodes.iter_mut().find(|node| node.id() == id).ok_or(DevError::NoSuchNode(id))
    }

    /// Until every process that runs answers.
    async fn wait_until_answering(&mut self) -> Result<(), DevError> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            self.check_running()?;
            let statuses = self.client.node_statuses(START_DEADLINE / 10).await;
            let waiting =
                self.nodes.iter().zip(&statuses).find(|(node, status)| node.pid().is_some() && status.is_err());
            match waiting {
                None => return Ok(()),
                Some((node, Err(error))) if Instant::now() >= end => {
                    return Err(DevError::Silent {
                        id: node.id(),
                        log: node.log().to_owned(),
                        last: error.to_string(),
                    });
                }
                Some(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    fn check_running(&mut self) -> Result<(), DevError> {
        match self
            .nodes
            .iter_mut()
            .find_map(|node| node.ended().map(|status| (node.id(), node.log().to_owned(), status)))
        {
            Some((id, log, status)) => Err(DevError::Ended { id, status, said: node::last_lines(&log), log }),
            None => Ok(()),
        }
    }
}

/// Where `zyflowd` is: `ZYFLOWD`, else beside this program, else on the `PATH`.
///
/// # Errors
/// Where it is nowhere.
pub fn find_zyflowd() -> Result<PathBuf, DevError> {
    if let Some(named) = std::env::var_os("ZYFLOWD").filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(|folder| folder.join("zyflowd")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("zyflowd"));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or(DevError::NoZyflowd)
}

/// The error of a call that was made for the cluster's own set-up.
fn setting_up(what: &'static str) -> impl FnOnce(ClientError) -> DevError {
    move |source| DevError::SetUp { what, source: Box::new(source) }
}
