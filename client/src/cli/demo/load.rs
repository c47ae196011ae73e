//! Writers that never stop, so that a failover can be seen from outside: how long no write was acknowledged, and whether all
//! that were acknowledged are still there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::outcome::Outcome;

use crate::client::Client;
use crate::read::{Consistency, Read};
use crate::session::Session;

/// One write may take this long: longer than any failover should.
const WRITE_WITHIN: Duration = Duration::from_secs(20);

/// What one writer saw.
struct Seen {
    task: RecordId,
    /// The largest number that was acknowledged.
    acknowledged: u64,
    /// The longest time between two acknowledgements.
    gap: Duration,
}

/// Writers at work.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    writers: Vec<JoinHandle<anyhow::Result<Seen>>>,
}

/// What all writers saw together.
pub(super) struct Report {
    pub(super) writes: u64,
    pub(super) gap: Duration,
    acknowledged: BTreeMap<RecordId, u64>,
}

impl Load {
    /// Starts a writer per task. Each sets its task's note to 1, 2, 3, ...
    pub(super) fn start(client: &Client, tasks: &[RecordId]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let writer = |(slot, task): (usize, &RecordId)| {
            let session = Session::new(client.clone(), format!("writer-{slot}"), slot);
            tokio::spawn(write(session, *task, stopped.clone()))
        };
        Self { writers: tasks.iter().enumerate().map(writer).collect(), stop }
    }

    /// Stops the writers and adds up what they saw.
    pub(super) async fn stop(self) -> anyhow::Result<Report> {
        self.stop.send_replace(true);
        let mut report = Report { writes: 0, gap: Duration::ZERO, acknowledged: BTreeMap::new() };
        for writer in self.writers {
            let seen = writer.await??;
            report.writes += seen.acknowledged;
            report.gap = report.gap.max(seen.gap);
            report.acknowledged.insert(seen.task, seen.acknowledged);
        }
        Ok(report)
    }
}

async fn write(session: Session, task: RecordId, stopped: watch::Receiver<bool>) -> anyhow::Result<Seen> {
    let mut seen = Seen { task, acknowledged: 0, gap: Duration::ZERO };
    let mut last = Instant::now();
    while !*stopped.borrow() {
        let number = seen.acknowledged + 1;
        let fields = vec![TaskField::Note(number.to_string())];
        let outcome = session.propose(Body::SetTask { task, expected: None, fields, mark: None }, WRITE_WITHIN).await?;
        anyhow::ensure!(
            matches!(outcome, Outcome::Accepted { .. }),
            "write {number} of {task} was answered by {outcome:?}"
        );
        seen.acknowledged = number;
        seen.gap = seen.gap.max(last.elapsed());
        last = Instant::now();
    }
    Ok(seen)
}

impl Report {
    /// Reads every task again; an acknowledged number that isn't there is lost.
    pub(super) async fn check(&self, client: &Client) -> anyhow::Result<()> {
        for (task, acknowledged) in &self.acknowledged {
            let read = Read { consistency: Consistency::Linearizable, at: None, within: WRITE_WITHIN };
            let found = client.task(read, *task).await?.value;
            let fields = found.block.record.task.as_ref().context("a task without fields")?;
            let note: u64 = fields.note.value.parse().context("a note that no writer wrote")?;
            anyhow::ensure!(note >= *acknowledged, "task {task} has {note}, but {acknowledged} was acknowledged");
        }
        Ok(())
    }
}
