//! Where the files of a local cluster are, and what was chosen once.

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The ports of one node, all on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePorts {
    /// For other nodes.
    pub peer: u16,
    /// For clients.
    pub api: u16,
    /// For metrics and health.
    pub http: u16,
}

/// What was chosen when the folder was made: `dev.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choices {
    pub(super) cluster: String,
    pub(super) lineage: String,
    /// One per node, in the order of their ids.
    pub(super) node: Vec<NodePorts>,
}

/// The folder of a local cluster: an absolute path, and the choices.
#[derive(Clone, Debug)]
pub struct DevLayout {
    pub(super) dir: PathBuf,
    pub(super) choices: Choices,
}

impl DevLayout {
    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ids of all nodes, from 1.
    #[must_use]
    pub fn node_ids(&self) -> RangeInclusive<u64> {
        // A folder has at most NODES_MAX nodes.
        1..=u64::try_from(self.choices.node.len()).unwrap_or(u64::MAX)
    }

    /// The ports of a node; `None` where there is no such node.
    #[must_use]
    pub fn ports(&self, id: u64) -> Option<NodePorts> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.choices.node.get(index).copied()
    }

    /// A node's data folder.
    #[must_use]
    pub fn data(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// A node's configuration.
    #[must_use]
    pub fn config(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}.toml"))
    }

    /// What a node's process said.
    #[must_use]
    pub fn log(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}.log"))
    }

    /// The checkout on a node.
    #[must_use]
    pub fn checkout(&self, id: u64) -> PathBuf {
        self.dir.join(format!("checkout-{id}"))
    }

    /// The profile of all nodes.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    /// The profile of one node alone.
    #[must_use]
    pub fn profile_of(&self, id: u64) -> PathBuf {
        self.dir.join(format!("client-{id}.toml"))
    }

    pub(super) fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    pub(super) fn data_key(&self) -> PathBuf {
        self.dir.join("keys/data.key")
    }
}

/// `127.0.0.1:PORT`.
pub(super) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
