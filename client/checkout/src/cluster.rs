//! What a checkout needs of the cluster, and nothing more: proposing, reading documents, and a hint that something moved.
//!
//! Two implementations: the node's own handle, and the light agent over gRPC.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::future::Future;

use tokio::sync::watch;
use zyflow_machine::command::Body;
use zyflow_machine::id::{RecordId, RequestId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{Project, TaskFields};
use zyflow_spec::Known;

/// The cluster, as a checkout sees it. Reads are local and never wait for a quorum.
pub trait Cluster: Send + Sync + 'static {
    /// Proposes a command and waits for its outcome, retrying what may be retried *with the same request id*.
    ///
    /// The checkout numbers its requests itself, in a session that it opened by [`Body::OpenSession`] with no request id, and
    /// may propose the same request again after a restart: the answer is then [`Outcome::Duplicate`].
    ///
    /// # Errors
    /// [`ClusterError`] when the fate of the request is not known or nothing was proposed; the caller asks again later with the
    /// same request id.
    fn propose(
        &self,
        request: Option<RequestId>,
        body: Body,
        author: &str,
    ) -> impl Future<Output = Result<Outcome, ClusterError>> + Send;

    /// The live project of that name.
    ///
    /// # Errors
    /// When the local state can't be read.
    fn project(&self, name: &str) -> Result<Option<(RecordId, Project)>, ClusterError>;

    /// Every change that the project has or had: path within the project, id, whether it is deleted.
    ///
    /// # Errors
    /// When the local state can't be read.
    fn paths(&self, project: RecordId) -> Result<Vec<(String, RecordId, bool)>, ClusterError>;

    /// The document of a change at a revision, or at the newest one applied here; `None` = the change is unknown there.
    ///
    /// # Errors
    /// When the local state can't be read, or no longer at that revision.
    fn document(&self, change: RecordId, at: Option<Revision>) -> Result<Option<ClusterDocument>, ClusterError>;

    /// The runtime fields of the live tasks of a change, at the newest revision applied here.
    ///
    /// # Errors
    /// When the local state can't be read.
    fn tasks(&self, change: RecordId) -> Result<BTreeMap<RecordId, TaskFields>, ClusterError>;

    /// Revisions at which the text of a change became another one, the newest first, at most `most` of them. It finds the text
    /// that git put back; the default knows none, and then only what this run of a checkout has seen is known.
    ///
    /// # Errors
    /// When the local state can't be read.
    fn revisions(&self, change: RecordId, most: usize) -> Result<Vec<Revision>, ClusterError> {
        let _ = (change, most);
        Ok(Vec::new())
    }

    /// Every restore from a backup that the cluster has behind it. The default knows of none.
    ///
    /// # Errors
    /// When the local state can't be read.
    fn undone(&self) -> Result<Vec<Undone>, ClusterError> {
        Ok(Vec::new())
    }

    /// The newest revision applied here; moves when anything is applied.
    fn applied(&self) -> watch::Receiver<Revision>;

    /// Which changes were touched after `since`: a shortcut that saves reading every document whenever anything was applied. The
    /// default knows nothing, and then every document is looked at.
    fn touched(&self, since: Revision) -> Touched {
        let _ = since;
        Touched::Unknown
    }
}

/// Revisions that were given out once, and that a restore from a backup has undone: those between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The revision whose state was restored.
    pub cut: Revision,
    /// The revision at which the cluster went on.
    pub at: Revision,
}

/// The answer of [`Cluster::touched`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Anything may have been.
    Unknown,
    /// No document of any other change differs between the revision asked about and `up_to`.
    Changes {
        /// The revision up to which this was looked at.
        up_to: Revision,
        /// Changes that were made, edited or deleted.
        changes: BTreeSet<RecordId>,
    },
}

/// The text of a change at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDocument {
    /// The revision at which this is the text: the one asked for, or the newest one applied.
    pub revision: Revision,
    /// The change is deleted there; it has no blocks then.
    pub deleted: bool,
    /// Its blocks in order.
    pub blocks: Vec<Known<RecordId>>,
}

/// Why the cluster gave no answer. Always worth another try later.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No answer in time or no quorum: the request may or may not have happened.
    #[error("the cluster gave no answer: {0}")]
    Unavailable(String),
    /// The local state couldn't be read.
    #[error("the local state can't be read")]
    Read(#[source] Box<dyn StdError + Send + Sync>),
}
