//! Steps about nodes: the leader is killed under load and started again, and all nodes are compared.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_machine::id::RecordId;

use super::frame::{Step, agree_on, millis};
use super::load::Load;
use super::script::{Demo, linearizable};
use super::{QUIET_WITHIN, WITHIN};

/// Writes go on this soon after the leader is gone.
const FAILOVER_MAX: Duration = Duration::from_secs(2);

/// Commands under load while the leader is killed.
const WRITERS: usize = 8;

/// How long they write before, and how long after: longer than any failover that passes.
const LOAD_BEFORE: Duration = Duration::from_secs(1);
const LOAD_AFTER: Duration = Duration::from_secs(4);

/// Pause between two looks at how far a node is.
const POLL: Duration = Duration::from_millis(20);

impl Demo {
    pub(super) async fn kill_leader(&mut self) -> Step {
        let tasks: Vec<RecordId> = self.tasks().await?.iter().map(|task| task.block.id).take(WRITERS).collect();
        ensure!(tasks.len() == WRITERS, "the demo's change has fewer than {WRITERS} tasks");
        let load = Load::start(self.cluster.client(), &tasks);
        tokio::time::sleep(LOAD_BEFORE).await;
        let leader = self.cluster.wait_for_leader().await?;
        self.cluster.kill(leader).await?;
        self.killed = Some(leader);
        tokio::time::sleep(LOAD_AFTER).await;
        let report = load.stop().await?;
        report.check(self.cluster.client()).await?;
        let gap = millis(report.gap);
        ensure!(report.gap <= FAILOVER_MAX, "no write was acknowledged for {gap:.0} ms");
        let writes = report.writes;
        Ok(format!("node {leader} killed; {writes} writes acknowledged, none lost, longest pause {gap:.0} ms"))
    }

    pub(super) async fn restart(&mut self) -> Step {
        let killed = self.killed.take().context("no node was killed")?;
        let at = usize::try_from(killed - 1)?;
        let wanted = self.cluster.client().revision(linearizable()).await?;
        self.cluster.restart(killed).await?;
        let since = Instant::now();
        loop {
            let applied = self.cluster.client().node_status(at, WITHIN).await?.applied;
            if applied >= wanted.0 {
                break;
            }
            let seconds = WITHIN.as_secs();
            ensure!(since.elapsed() < WITHIN, "node {killed} is at {applied} of {wanted} after {seconds} s");
            tokio::time::sleep(POLL).await;
        }
        agree_on(&self.files, QUIET_WITHIN, |_| true).await?;
        // What the killed node left half-done is looked at by now: it must not have undone anything.
        self.wait_until_quiet().await?;
        let text = self.files[0].text()?;
        let lost: Vec<&String> = self.shown.iter().filter(|token| !text.contains(*token)).collect();
        ensure!(lost.is_empty(), "{} tokens that were in all checkouts are gone: {lost:?}", lost.len());
        Ok(format!("node {killed} has applied revision {wanted}, its checkouts show it, and nothing was undone"))
    }

    pub(super) async fn verify(&self) -> Step {
        let wanted = self.cluster.client().revision(linearizable()).await?;
        let nodes = self.cluster.client().endpoints().len();
        let mut digests = BTreeSet::new();
        let mut revisions = BTreeSet::new();
        for node in 0..nodes {
            let request = v1::VerifyRequest { revision: Some(wanted.0), recompute: true };
            let verify = |mut admin: AdminClient<_>| async move { admin.verify(request).await };
            let answer = self.cluster.client().admin(node, WITHIN, verify).await?;
            let stored = answer.stored.context("no recomputed digest")?;
            ensure!(stored.matches, "node {}: its SQLite doesn't add up to its digest", answer.node_id);
            revisions.insert(answer.revision);
            digests.insert(answer.digest);
        }
        ensure!(revisions.len() == 1, "the nodes answered for different revisions: {revisions:?}");
        ensure!(digests.len() == 1, "the nodes have {} different digests at revision {wanted}", digests.len());
        Ok(format!("one digest on {nodes} nodes at revision {wanted}, recomputed from each SQLite"))
    }
}
