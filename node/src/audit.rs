//! Watches over this node's state: compares its digest with the others', and what SQLite holds with what the machine keeps.
//!
//! ```text
//!   every `digest.compare`     the kept digest of the newest revision  ----+
//!   every `digest.recompute`   all of SQLite, at a bounded rate  ----------+--> against the other voters' at that revision
//!                                                                          |
//!         nobody differs: fine  <------------------------------------------+--> somebody: alarm
//!                                                                          +--> a majority: alarm, and out of service
//! ```
//! The kept digest follows from every change, so it only proves that the machine was consistent; a page that went bad under SQLite shows
//! in the recomputed one alone. The others are asked before the rows are read, since they keep digests of the newest revisions only.
//!
//! A node that is out of service keeps its process, and its readiness says why. Its tables are built anew at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{error, info, warn};
use zyflow_machine::Digest;
use zyflow_machine::id::Revision;
use zyflow_raft::{Consensus, Verdict, judge};
use zyflow_storage::tables::{Tables, TablesError};

use crate::checkouts::error_chain;

/// How long the others may take to answer; they have to get to the revision first.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// How this node is watched.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// How often kept digests are compared.
    pub compare: Duration,
    /// How often the digest is computed again from SQLite.
    pub recompute: Duration,
    /// Rows that are read for it in a second.
    pub rows_per_second: u64,
}

/// What was found, for metrics.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Found,
    stored: Found,
}

/// What was found about one of the two digests.
#[derive(Debug, Default)]
struct Found {
    alarm: AtomicU64,
    revision: AtomicU64,
}

/// Which digest of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// The one that the machine keeps.
    Kept,
    /// The one that is computed from SQLite alone.
    Stored,
}

impl Findings {
    /// 0 = nobody differs, 1 = somebody does, 2 = a majority does.
    #[must_use]
    pub fn alarm(&self) -> u64 {
        self.kept.alarm.load(Ordering::Relaxed).max(self.stored.alarm.load(Ordering::Relaxed))
    }

    /// The newest revision whose kept digest was compared with others.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.kept.revision.load(Ordering::Relaxed)
    }

    /// The newest revision at which SQLite was read whole.
    #[must_use]
    pub fn recomputed(&self) -> u64 {
        self.stored.revision.load(Ordering::Relaxed)
    }

    fn of(&self, subject: Subject) -> &Found {
        match subject {
            Subject::Kept => &self.kept,
            Subject::Stored => &self.stored,
        }
    }
}

/// The service.
pub struct Auditor {
    config: AuditConfig,
    consensus: Consensus,
    tables: Tables,
    files: Handle,
    findings: Arc<Findings>,
}

/// A digest of this node, and the others' at the same revision.
struct Compared {
    subject: Subject,
    revision: Revision,
    own: Digest,
    others: BTreeMap<u64, Digest>,
}

impl Auditor {
    /// Watches over these tables; blocking work runs on `files`.
    #[must_use]
    pub fn new(config: AuditConfig, consensus: Consensus, tables: Tables, files: Handle) -> Self {
        Self { config, consensus, tables, files, findings: Arc::default() }
    }

    /// What it finds.
    #[must_use]
    pub fn findings(&self) -> Arc<Findings> {
        Arc::clone(&self.findings)
    }

    /// Watches until the node stops or is out of service.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let ticks = |period: Duration| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut compare, mut recompute) = (ticks(self.config.compare), ticks(self.config.recompute));
        loop {
            let compared = tokio::select! {
                () = told(&mut stopped) => return,
                _ = compare.tick() => self.compare().await,
                _ = recompute.tick() => tokio::select! {
                    () = told(&mut stopped) => return,
                    recomputed = self.recompute() => recomputed,
                },
            };
            match compared {
                Ok(Some(compared)) => {
                    let is_out = self.act(compared).await;
                    if is_out {
                        return;
                    }
                }
                Ok(None) => {}
                // A damaged row has stopped the tables, and with them the node.
                Err(error) => warn!(error = %error_chain(&error), "the node's state can't be looked at"),
            }
        }
    }

    /// The kept digest of the newest revision.
    async fn compare(&self) -> Result<Option<Compared>, TablesError> {
        let (revision, own) = self.tables.digest()?;
        let others = self.consensus.digests_of_others(revision, Instant::now() + ANSWER_DEADLINE).await;
        Ok(Some(Compared { subject: Subject::Kept, revision, own, others }))
    }

    /// The digest of what SQLite holds.
    async fn recompute(&self) -> Result<Option<Compared>, TablesError> {
        let (begun_tx, begun) = oneshot::channel();
        // Ends the reading when this future is dropped.
        let (_going_on, ended) = channel::<()>();
        let (tables, rows_per_second) = (self.tables.clone(), self.config.rows_per_second.max(1));
        let reading = self.files.spawn_blocking(move || {
            // Whoever wanted to know may be gone: then the first look ends the reading.
            let begun = |revision| _ = begun_tx.send(revision);
            tables.recompute_digest_while(begun, |rows| {
                let rows = u32::try_from(rows).unwrap_or(u32::MAX);
                let pause = Duration::from_secs(1) / u32::try_from(rows_per_second).unwrap_or(u32::MAX) * rows;
                ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
            })
        });
        let Ok(at) = begun.await else {
            return reading.await.unwrap_or(Ok(None)).map(|_| None);
        };
        let others = self.consensus.digests_of_others(at, Instant::now() + ANSWER_DEADLINE).await;
        let computed = match reading.await {
            Ok(computed) => computed?,
            Err(error) => {
                warn!(%error, "reading all of SQLite ended badly");
                None
            }
        };
        let Some((revision, own)) = computed else { return Ok(None) };
        Ok(Some(Compared { subject: Subject::Stored, revision, own, others }))
    }

    /// Says what is to be said; whether this node is out of service now.
    async fn act(&self, compared: Compared) -> bool {
        let Compared { subject, revision, own, others } = compared;
        let (found, revision) = (self.findings.of(subject), revision.0);
        found.revision.store(revision, Ordering::Relaxed);
        match judge(own, &others, &self.consensus.voters()) {
            // Nobody answered: an alarm stands until somebody does.
            Verdict::Same if others.is_empty() => false,
            Verdict::Same => {
                if found.alarm.swap(0, Ordering::Relaxed) > 0 {
                    info!(?subject, revision, "no node's digest differs any more");
                }
                false
            }
            Verdict::Disputed(nodes) => {
                found.alarm.store(1, Ordering::Relaxed);
                error!(?subject, revision, ?nodes, "digests differ at one revision, and no majority says who is wrong");
                false
            }
            Verdict::Outvoted(nodes) => {
                found.alarm.store(2, Ordering::Relaxed);
                error!(?subject, revision, ?nodes, "this node's digest differs from a majority's");
                let reason = outvoted(subject, revision, &nodes);
                self.tables.distrust(&reason);
                self.consensus.quarantine(reason).await;
                true
            }
        }
    }
}

/// Waits until the node stops, or whoever could say so is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

fn outvoted(subject: Subject, revision: u64, nodes: &BTreeSet<u64>) -> String {
    let what = match subject {
        Subject::Kept => "its digest",
        Subject::Stored => "the digest of what its SQLite holds",
    };
    format!(
        "{what} at revision {revision} differs from that of nodes {nodes:?}, a majority; keep a copy of its tables folder and start it \
         again: it builds them anew"
    )
}
