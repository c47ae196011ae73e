//! The cluster as this node's checkouts see it: proposals through consensus, reads from the local tables.
//!
//! A checkout numbers its own requests, so everything here may be repeated. Reads never wait for a quorum.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use zyflow_checkout::{Cluster, ClusterDocument, ClusterError, Touched, Undone};
use zyflow_machine::command::{Author, Body, Command};
use zyflow_machine::id::{RecordId, RequestId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{Project, Record, TaskFields};
use zyflow_machine::view::{Stored, View};
use zyflow_raft::Consensus;
use zyflow_spec::{Block, BlockKind, Content, Known};
use zyflow_storage::tables::{Tables, TablesError};

use crate::touched::TouchedLog;

/// How long one proposal of a checkout waits for its outcome before the checkout is told to ask again: long enough for an
/// election, short enough that the status says soon that the cluster is out of reach.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Versions read for each revision that a checkout looks back over: edits of a task file change a few blocks (3 of 4 flip at most three
/// boxes), and a look that ends early finds an older text a revision later.
const VERSIONS_PER_REVISION: usize = 8;

/// One per checkout.
pub struct NodeCluster {
    consensus: Consensus,
    tables: Tables,
    touched: Mutex<TouchedLog>,
}

impl NodeCluster {
    /// A view of the cluster through this node.
    #[must_use]
    pub fn new(consensus: Consensus, tables: Tables) -> Self {
        let touched = Mutex::new(TouchedLog::new(&tables));
        Self { consensus, tables, touched }
    }

    /// The tables, as long as what they hold is believed: all that a checkout writes into files comes out of here, so on a node that is out of
    /// service none writes anything any more.
    fn tables(&self) -> Result<&Tables, ClusterError> {
        self.consensus.failure().map_or(Ok(&self.tables), |reason| Err(ClusterError::Unavailable(reason)))
    }
}

/// Now, for people to read; never compared.
#[must_use]
pub fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn read_error(error: TablesError) -> ClusterError {
    ClusterError::Read(Box::new(error))
}

impl Cluster for NodeCluster {
    async fn propose(&self, request: Option<RequestId>, body: Body, author: &str) -> Result<Outcome, ClusterError> {
        let author = Author { name: author.to_owned(), clock_ms: wall_clock_ms() };
        let command = Command { request, author, body };
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        self.consensus.propose(command, deadline).await.map_err(|error| ClusterError::Unavailable(error.to_string()))
    }

    fn project(&self, name: &str) -> Result<Option<(RecordId, Project)>, ClusterError> {
        let view = self.tables()?.view(None).map_err(read_error)?;
        let found = view.project_named(name).map_err(read_error)?;
        Ok(found.and_then(|(id, stored)| match &stored.record {
            Some(Record::Project(project)) => Some((id, project.clone())),
            _ => None,
        }))
    }

    fn paths(&self, project: RecordId) -> Result<Vec<(String, RecordId, bool)>, ClusterError> {
        let view = self.tables()?.view(None).map_err(read_error)?;
        view.paths(project).map_err(read_error)
    }

    fn document(&self, change: RecordId, at: Option<Revision>) -> Result<Option<ClusterDocument>, ClusterError> {
        let view = self.tables()?.view(at).map_err(read_error)?;
        let deleted = ClusterDocument { revision: view.revision(), deleted: true, blocks: Vec::new() };
        let Some(stored) = view.get(change).map_err(read_error)? else {
            // A change of before the horizon that isn't known any more was deleted before the horizon, unless a restore undid it.
            let (made, horizon) = (change.0.revision(), self.tables()?.horizon().map_err(read_error)?);
            let was_there = made <= horizon && self.tables()?.refuse_undone(made).is_ok();
            return Ok(was_there.then_some(deleted));
        };
        if stored.record.is_none() {
            return Ok(Some(deleted));
        }
        let blocks = view.blocks(change).map_err(read_error)?;
        let blocks = blocks.into_iter().filter_map(|(id, stored)| match &stored.record {
            Some(Record::Block(block)) => Some(Known { id, block: spec_block(block) }),
            _ => None,
        });
        Ok(Some(ClusterDocument { revision: view.revision(), deleted: false, blocks: blocks.collect() }))
    }

    fn tasks(&self, change: RecordId) -> Result<BTreeMap<RecordId, TaskFields>, ClusterError> {
        let view = self.tables()?.view(None).map_err(read_error)?;
        let blocks = view.blocks(change).map_err(read_error)?;
        let task = |(id, stored): (RecordId, Arc<Stored>)| match &stored.record {
            Some(Record::Block(block)) => Some((id, block.task.as_deref()?.clone())),
            _ => None,
        };
        Ok(blocks.into_iter().filter_map(task).collect())
    }

    fn revisions(&self, change: RecordId, most: usize) -> Result<Vec<Revision>, ClusterError> {
        let view = self.tables()?.view(None).map_err(read_error)?;
        let versions = view.change_history(change, most.saturating_mul(VERSIONS_PER_REVISION)).map_err(read_error)?;
        let mut revisions: Vec<Revision> = versions.iter().map(|version| version.version.revision()).collect();
        revisions.dedup();
        revisions.truncate(most);
        Ok(revisions)
    }

    fn undone(&self) -> Result<Vec<Undone>, ClusterError> {
        let restores = self.tables()?.restores().map_err(read_error)?;
        Ok(restores.into_iter().map(|(at, restore)| Undone { cut: restore.cut, at }).collect())
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.tables.applied()
    }

    fn touched(&self, since: Revision) -> Touched {
        // A poisoned lock means that a holder panicked; the log is then only a hint that may lack its newest entries.
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).since(since)
    }
}

/// A block as the spec crate knows it. An unknown kind code can't be stored by this release; it reads as prose.
fn spec_block(block: &zyflow_machine::record::Block) -> Block {
    let content = Content { lead: block.lead.clone(), mark: block.mark.value.clone(), text: block.text.value.clone() };
    Block { kind: BlockKind::try_from(block.kind).unwrap_or(BlockKind::Prose), content }
}
