//! Runs a checkout: one thread of its own, an event loop in it, one small state machine per file.
//!
//! ```text
//!   select() ─▶ Event ─▶ apply: marks what is due ─▶ step: looks at what is due ─▶ publish status
//!      ▲            hint · applied · outcome · wish · timer                             │
//!      └────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything between two `select`s is synchronous and on the checkout's own thread, file IO and fsync included: nothing is shared,
//! so nothing is locked, and a slow disk stalls this checkout only. Commands to the cluster fly beside the loop, at most one per
//! file.
//!
//! It decides nothing about texts: [`crate::plan`] does.

mod claim;
mod dirt;
mod file;
mod flight;
mod gate;
mod gone;
mod half;
mod head;
mod keep;
mod moves;
mod put;
mod run;
mod runtime;
mod sides;
#[cfg(test)]
mod tests;
mod undone;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::base::StoreError;
use crate::cluster::{Cluster, ClusterError};
use crate::config::Config;
use crate::plan::Take;
use crate::status::CheckoutStatus;
use run::Engine;

/// Why a checkout stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder can't be opened.
    #[error("checkout {root} can't be opened")]
    Root {
        /// The folder.
        root: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The folder is bound already, or one around it or inside it is.
    #[error("checkout {root} can't be bound: {}", bound(.other.as_deref()))]
    Bound {
        /// The folder.
        root: PathBuf,
        /// The bound folder around it; `None` = the folder itself is bound, or one inside it.
        other: Option<PathBuf>,
    },
    /// There is no place for replaced files on the checkout's file system.
    #[error(
        "checkout {root} has no folder on its own file system to keep replaced files in; put the state folder there"
    )]
    Keep {
        /// The folder.
        root: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// What is remembered can't be read or written.
    #[error("checkout {root}")]
    Store {
        /// The folder.
        root: PathBuf,
        /// What is wrong.
        #[source]
        source: StoreError,
    },
    /// The local state of the cluster can't be read.
    #[error("checkout {root}: the cluster's state can't be read")]
    Cluster {
        /// The folder.
        root: PathBuf,
        /// What is wrong.
        #[source]
        source: ClusterError,
    },
    /// The checkout's thread couldn't be started, or panicked.
    #[error("the thread of checkout {root}: {reason}")]
    Thread {
        /// The folder.
        root: PathBuf,
        /// What happened.
        reason: String,
    },
}

fn bound(other: Option<&Path>) -> String {
    match other {
        Some(other) => {
            format!(
                "it lies in {}, which is bound; remove that checkout or bind a folder outside of it",
                other.display()
            )
        }
        None => "it, or a folder inside it, is bound already by a checkout that runs; remove that one first".to_owned(),
    }
}

/// A checkout that isn't running yet.
pub struct Checkout<C> {
    config: Config,
    cluster: Arc<C>,
    wishes: watch::Receiver<Wishes>,
    status: watch::Sender<CheckoutStatus>,
    seams: Seams,
}

/// What others may ask of a running checkout.
#[derive(Clone, Debug)]
pub struct Handle {
    wishes: watch::Sender<Wishes>,
    status: watch::Receiver<CheckoutStatus>,
}

/// What was asked for: levels and counters, so that asking twice is no queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wishes {
    is_paused: bool,
    rescans: u64,
    confirmed_deletions: u64,
    take: Option<Take>,
}

/// Where tests let the world interfere.
#[derive(Clone, Default)]
struct Seams {
    #[cfg(test)]
    before_swap: Option<Arc<dyn Fn(&crate::path::FilePath) + Send + Sync>>,
    #[cfg(test)]
    is_deaf: bool,
    /// No writer can be seen, as where the writer is another user's.
    #[cfg(test)]
    is_blind: bool,
    #[cfg(test)]
    way: Option<crate::write::Way>,
}

impl Handle {
    /// How the checkout stands.
    #[must_use]
    pub fn status(&self) -> CheckoutStatus {
        self.status.borrow().clone()
    }

    /// The status as it changes.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<CheckoutStatus> {
        self.status.clone()
    }

    /// Reads and writes nothing until [`Handle::resume`].
    pub fn pause(&self) {
        self.wishes.send_modify(|wishes| wishes.is_paused = true);
    }

    /// Goes on after [`Handle::pause`], and looks at everything.
    pub fn resume(&self) {
        self.wishes.send_modify(|wishes| wishes.is_paused = false);
    }

    /// Looks at everything now. [`CheckoutStatus::rescans`] tells when that is done.
    #[expect(clippy::must_use_candidate, reason = "whoever doesn't wait for it needs no number")]
    pub fn rescan(&self) -> u64 {
        let mut number = 0;
        self.wishes.send_modify(|wishes| {
            wishes.rescans = wishes.rescans.wrapping_add(1);
            number = wishes.rescans;
        });
        number
    }

    /// Lets the deletions spread that are held because there are many.
    pub fn confirm_deletions(&self) {
        self.wishes.send_modify(|wishes| wishes.confirmed_deletions = wishes.confirmed_deletions.wrapping_add(1));
    }

    /// Says what to do with files that differ from the cluster's and were never agreed on.
    pub fn take(&self, take: Take) {
        self.wishes.send_modify(|wishes| wishes.take = Some(take));
    }
}

impl<C: Cluster> Checkout<C> {
    /// A checkout, and the handle to it. Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config, cluster: Arc<C>) -> (Self, Handle) {
        let (wishes_tx, wishes) = watch::channel(Wishes { take: config.take, ..Wishes::default() });
        let status =
            CheckoutStatus { root: config.root.clone(), project: config.project.clone(), ..CheckoutStatus::default() };
        let (status, status_rx) = watch::channel(status);
        let handle = Handle { wishes: wishes_tx, status: status_rx };
        (Self { config, cluster, wishes, status, seams: Seams::default() }, handle)
    }

    /// Runs until `shutdown`, or until something is wrong that waiting doesn't mend. Dropping the future stops the thread as well.
    ///
    /// # Errors
    /// [`Error`]; the files and what is remembered of them are as they were.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let root = self.config.root.clone();
        let stop = shutdown.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (done_tx, done) = oneshot::channel();
        let body = move || {
            // A receiver that is gone means that nobody waits for the result any more.
            let _ = done_tx.send(self.run_here(&stop));
        };
        let failed = |reason: String| Error::Thread { root: root.clone(), reason };
        thread::Builder::new().name("checkout".to_owned()).spawn(body).map_err(|error| failed(error.to_string()))?;
        done.await.map_err(|_| failed("it panicked".to_owned()))?
    }

    fn run_here(self, stop: &CancellationToken) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Error::Thread { root: self.config.root.clone(), reason: error.to_string() })?;
        runtime.block_on(async {
            let mut engine = Engine::open(self.config, self.cluster, self.wishes, self.status, self.seams)?;
            engine.run(stop).await
        })
    }
}
