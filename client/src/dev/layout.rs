//! Where the files of a local cluster are, and what was chosen once.

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Where the choices are written down.
pub(super) const CHOICES_FILE: &str = "dev.toml";

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

/// What was chosen when the folder was made, and later for more: [`CHOICES_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choices {
    pub(super) cluster: String,
    pub(super) lineage: String,
    /// How many checkouts there are; 0 in a folder of before there was a choice, and then there is one per node.
    #[serde(default)]
    pub(super) checkouts: u64,
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

    /// The numbers of all checkouts, from 1. The first of them are one per node: checkout `n` is on node `n`.
    #[must_use]
    pub fn checkout_numbers(&self) -> RangeInclusive<u64> {
        1..=self.choices.checkouts.max(*self.node_ids().end())
    }

    /// The node that a checkout is on: those past the one of each node go round again.
    #[must_use]
    pub fn node_of(&self, checkout: u64) -> u64 {
        1 + checkout.saturating_sub(1) % *self.node_ids().end()
    }

    /// A checkout.
    #[must_use]
    pub fn checkout(&self, number: u64) -> PathBuf {
        self.dir.join(format!("checkout-{number}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(nodes: usize, checkouts: u64) -> DevLayout {
        let node = vec![NodePorts { peer: 1, api: 2, http: 3 }; nodes];
        let choices = Choices { cluster: "dev".to_owned(), lineage: "l".to_owned(), checkouts, node };
        DevLayout { dir: PathBuf::from("d"), choices }
    }

    #[test]
    fn each_node_has_its_checkout_and_more_go_round() {
        let nodes = |layout: &DevLayout| -> Vec<u64> {
            layout.checkout_numbers().map(|number| layout.node_of(number)).collect()
        };
        assert_eq!(nodes(&layout(3, 0)), [1, 2, 3]);
        assert_eq!(nodes(&layout(3, 2)), [1, 2, 3]);
        assert_eq!(nodes(&layout(3, 5)), [1, 2, 3, 1, 2]);
        assert_eq!(nodes(&layout(1, 3)), [1, 1, 1]);
        assert_eq!(layout(3, 5).checkout(4), Path::new("d/checkout-4"));
    }

    #[test]
    fn a_folder_without_a_number_of_checkouts_is_read() {
        let text = "cluster = 'dev'\nlineage = 'l'\n[[node]]\npeer = 1\napi = 2\nhttp = 3\n";
        let choices: Choices = toml::from_str(text).unwrap();
        assert_eq!(choices, layout(1, 0).choices);
    }
}
