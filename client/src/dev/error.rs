//! Why a local cluster can't be started or kept.

use crate::error::ClientError;
use crate::profile::ProfileError;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use zyflow_machine::outcome::Outcome;

/// Why a local cluster can't be started or kept.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is no program to run as a node.
    #[error("zyflowd is neither beside this program nor on the PATH: build it, or say where it is with ZYFLOWD=FILE")]
    NoZyflowd,
    /// A number of nodes that can't be.
    #[error("{0} nodes: choose 1 to {max}, an odd number if it shall survive the loss of one", max = super::NODES_MAX)]
    Nodes(u64),
    /// The folder has another number of nodes.
    #[error("{} was made with {made} nodes, not {asked}: leave --nodes out, or choose another --dir", dir.display())]
    OtherNodes {
        /// The folder.
        dir: PathBuf,
        /// How many it has.
        made: u64,
        /// How many were asked for.
        asked: u64,
    },
    /// Another process runs this cluster.
    #[error("{} is in use by another `zyflow dev`: stop that one (Ctrl-C), or choose another --dir", .0.display())]
    InUse(PathBuf),
    /// The folder has contents that we didn't make.
    #[error("{} isn't empty and wasn't made by `zyflow dev`: choose an empty or new folder with --dir", .0.display())]
    NotOurs(PathBuf),
    /// A file or folder can't be made, read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of ours is damaged.
    #[error("{} is damaged ({problem}): put it back, or remove the folder and start anew", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// No certificates.
    #[error("the certificates can't be made: {said}")]
    Certificates {
        /// What the script said.
        said: String,
    },
    /// Too few free ports.
    #[error("no {0} free ports on 127.0.0.1: stop what uses them and start again")]
    Ports(usize),
    /// A process can't be started.
    #[error("cannot start {}: {source}; check that it is a program that this machine can run", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process can't be signalled or waited for.
    #[error("cannot {what} node {id}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Which node.
        id: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// A node ended by itself.
    #[error("node {id} ended ({status}); it said:\n{said}(all of it: {})", log.display())]
    Ended {
        /// Which.
        id: u64,
        /// How.
        status: ExitStatus,
        /// The last lines of its log.
        said: String,
        /// Its log.
        log: PathBuf,
    },
    /// A node doesn't answer.
    #[error("node {id} runs but doesn't answer ({last}): see {}", log.display())]
    Silent {
        /// Which.
        id: u64,
        /// Its log.
        log: PathBuf,
        /// What the last try said.
        last: String,
    },
    /// A node had to be killed.
    #[error("node {id} didn't shut down within {waited:?} and was killed: see {}", log.display())]
    Killed {
        /// Which.
        id: u64,
        /// How long it had.
        waited: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// No leader.
    #[error("there is no leader after {waited:?}: see the logs in {}", dir.display())]
    NoLeader {
        /// How long we waited.
        waited: Duration,
        /// Where the logs are.
        dir: PathBuf,
    },
    /// A node's data folder can't be made.
    #[error("the data folder of node {id} can't be made: {} ended with {status}: {said}", program.display())]
    Data {
        /// Which.
        id: u64,
        /// What was to make it.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What `zyflowd new` said.
        said: String,
    },
    /// The first contents can't be made.
    #[error("cannot {what}: {source}")]
    SetUp {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: Box<ClientError>,
    },
    /// The machine decided against the first contents.
    #[error("cannot {what}: the cluster answered {outcome:?}")]
    Outcome {
        /// What was tried.
        what: &'static str,
        /// What was decided.
        outcome: Outcome,
    },
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(u64),
    /// Our own profile can't be read.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Our own profile can't be used.
    #[error(transparent)]
    Client(#[from] ClientError),
}
