//! What a checkout is told when it is made. Validated by whoever reads it from a file; nothing here is read again later.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zyflow_spec::Convention;

use crate::base::StateSeal;
use crate::plan::Take;

/// When the cluster's text may be written over a file that git tracks. Files that HEAD doesn't have, and checkouts without git, are
/// written in any case but `Off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// Never: the checkout only tells the cluster.
    Off,
    /// Only while the file equals HEAD's blob, after git's filters, or our own last write.
    #[default]
    Clean,
    /// Always.
    Always,
}

/// What a checkout is told when it is made.
#[derive(Clone)]
pub struct Config {
    /// The folder that is bound.
    pub root: PathBuf,
    /// The project it is bound to.
    pub project: String,
    /// The cluster's history, as text: what was agreed on with another one is not used.
    pub lineage: String,
    /// Where to remember what was agreed on. One folder per checkout.
    pub state_dir: PathBuf,
    /// Seals what is remembered.
    pub seal: Arc<dyn StateSeal>,
    /// In whose name edits are proposed.
    pub author: String,
    /// When to write.
    pub policy: WritePolicy,
    /// What to do at the first binding with a file that differs from the cluster's; `None` = ask.
    pub take: Option<Take>,
    /// What marks mean here; `None` = as the project says, or each file's own dialect.
    pub convention: Option<Convention>,
    /// Times.
    pub timing: Timing,
}

impl fmt::Debug for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Config")
            .field("root", &self.root)
            .field("project", &self.project)
            .field("lineage", &self.lineage)
            .field("state_dir", &self.state_dir)
            .field("policy", &self.policy)
            .field("take", &self.take)
            .finish_non_exhaustive()
    }
}

/// How long a checkout waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Quiet time after a hint that a file may be half written.
    pub quiet: Duration,
    /// A file that never gets quiet is read after this.
    pub quiet_cap: Duration,
    /// A file that was emptied is believed after this: tools truncate before they write.
    pub emptied_hold: Duration,
    /// A text that lacks lines, in a file that is still open for writing, is believed when nobody wrote to it for this long.
    pub writer_hold: Duration,
    /// A file that is gone counts as deleted after this: git and editors remove and make files anew.
    pub deletion_grace: Duration,
    /// A text that is in git's index and not in HEAD is believed after this: git moves HEAD last, and it may be half way through a pull.
    pub git_hold: Duration,
    /// Everything is looked at this often, hints or not.
    pub rescan: Duration,
    /// The same where there are no hints.
    pub poll: Duration,
    /// How long a replaced file stays linked after the last write to it.
    pub keep: Duration,
    /// First pause before something that failed is tried again; doubled up to 32 times this.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(100),
            quiet_cap: Duration::from_secs(1),
            emptied_hold: Duration::from_secs(3),
            writer_hold: Duration::from_secs(30),
            deletion_grace: Duration::from_secs(10),
            git_hold: Duration::from_secs(3),
            rescan: Duration::from_mins(1),
            poll: Duration::from_secs(1),
            keep: Duration::from_secs(30),
            retry: Duration::from_millis(250),
        }
    }
}
