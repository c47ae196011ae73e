//! Lets go of history as the cluster's retention says: where this node leads, it proposes from time to time where the history is to begin.
//!
//! ```text
//!     horizon                     target                         applied
//!        |--- let go of now --------|--- kept: revisions, age ------|
//!                                   never past a rollback point that somebody made
//! ```
//!
//! The clock is read here and nowhere below: what is applied is the revision that was proposed. The horizon moves by a tenth of what is kept at
//! least, so that letting go costs an entry now and then and not one a minute.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};
use zyflow_machine::command::{Author, Body, Command};
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{Record, Retention};
use zyflow_raft::{Consensus, Role};
use zyflow_storage::tables::{Tables, TablesError};

use crate::checkouts::error_chain;
use crate::cluster::wall_clock_ms;

/// How often a leader looks whether something may go.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How long one proposal may take.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The part of what is kept by which the horizon moves at least.
const STEP_PART: u64 = 10;

/// The service.
pub struct Keeper {
    consensus: Consensus,
    tables: Tables,
    files: Handle,
}

impl Keeper {
    /// Looks after the history of these tables; blocking reads run on `files`.
    #[must_use]
    pub fn new(consensus: Consensus, tables: Tables, files: Handle) -> Self {
        Self { consensus, tables, files }
    }

    /// Looks until the node stops.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Whoever could say so is gone: that is a stop too.
                _ = stopped.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            if self.consensus.status().role == Role::Leader {
                self.look().await;
            }
        }
    }

    async fn look(&self) {
        let tables = self.tables.clone();
        let looked = self.files.spawn_blocking(move || target(&tables, ClusterTime(wall_clock_ms()))).await;
        let (to, time) = match looked {
            Ok(Ok(Some(target))) => target,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return warn!(error = %error_chain(&error), "the history can't be looked at"),
            Err(error) => return warn!(%error, "looking at the history ended badly"),
        };
        let author = Author { name: "retention".to_owned(), clock_ms: wall_clock_ms() };
        // Proposed twice it is nothing the second time, so it needs no session.
        let command = Command { request: None, author, body: Body::Compact { to, time } };
        match self.consensus.propose(command, Instant::now() + PROPOSE_TIMEOUT).await {
            Ok(Outcome::Accepted { revision, .. }) => {
                info!(horizon = to.0, revision = revision.0, "the history begins later");
            }
            // A point that was made meanwhile; it is looked at again.
            Ok(outcome) => info!(?outcome, horizon = to.0, "the history can't begin later yet"),
            Err(error) => info!(error = %error_chain(&error), horizon = to.0, "the history can't begin later yet"),
        }
    }
}

/// Where the history may begin now, and the cluster's time there; `None` = where it does, or not far enough behind.
fn target(tables: &Tables, now: ClusterTime) -> Result<Option<(Revision, ClusterTime)>, TablesError> {
    let Retention { keep, horizon, horizon_time } = tables.retention()?;
    let view = tables.view(None)?;
    let applied = view.revision();
    let mut bounds = Vec::new();
    if let Some(revisions) = keep.revisions {
        bounds.push(tables.back(applied, revisions)?);
    }
    if let Some(age_ms) = keep.age_ms {
        match tables.revision_at(ClusterTime(now.0.saturating_sub(age_ms))) {
            Ok(revision) => bounds.push(revision),
            Err(TablesError::BeforeFirst { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let Some(mut to) = bounds.into_iter().min() else { return Ok(None) };
    for (_, stored) in view.points()? {
        if let Some(Record::Point(point)) = &stored.record
            && !point.is_automatic
        {
            to = to.min(point.revision);
        }
    }
    let time = tables.time_at(to)?.unwrap_or_default();
    let is_far = |kept: Option<u64>, gone: u64| kept.is_none_or(|kept| gone >= (kept / STEP_PART).max(1));
    let is_worth_it = is_far(keep.revisions, to.0.saturating_sub(horizon.0))
        && is_far(keep.age_ms, time.0.saturating_sub(horizon_time.0))
        && to > horizon;
    Ok(is_worth_it.then_some((to, time)))
}

#[cfg(test)]
mod tests;
