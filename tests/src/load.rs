//! Writers that never stop while something happens to the cluster: each write is numbered, so that a lost one shows.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zyflow_client::read::{Consistency, Read};
use zyflow_client::{Client, Session};
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::outcome::Outcome;

/// One write, with its retries, may take this long: longer than several elections.
const WRITE_WITHIN: Duration = Duration::from_secs(20);

/// Each writer writes this often: steady, and few enough that every version can be read again.
const PACE: Duration = Duration::from_millis(10);

/// Writers at work.
pub struct Load {
    stop: watch::Sender<bool>,
    writers: Vec<JoinHandle<anyhow::Result<Seen>>>,
}

/// What one writer saw.
struct Seen {
    task: RecordId,
    /// How many writes were acknowledged.
    acknowledged: u64,
    /// The longest time between two acknowledgements.
    pause: Duration,
}

/// What all writers saw together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// How many writes were acknowledged.
    pub writes: u64,
    /// The longest time in which one writer got no acknowledgement.
    pub pause: Duration,
}

impl Load {
    /// Starts a writer per task. Each sets its task's note to 1, 2, 3, ...
    #[must_use]
    pub fn start(client: &Client, tasks: &[RecordId]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let writer = |(slot, task): (usize, &RecordId)| {
            let session = Session::new(client.clone(), format!("writer-{slot}"), slot);
            tokio::spawn(write(session, *task, stopped.clone()))
        };
        Self { writers: tasks.iter().enumerate().map(writer).collect(), stop }
    }

    /// Stops the writers, and reads again through `client` what they wrote.
    ///
    /// # Errors
    /// A write failed in spite of its retries, or one that was acknowledged is lost.
    pub async fn stop(self, client: &Client) -> anyhow::Result<Report> {
        self.stop.send_replace(true);
        let mut report = Report::default();
        for writer in self.writers {
            let Seen { task, acknowledged, pause } = writer.await??;
            let read = Read { consistency: Consistency::Linearizable, at: None, within: WRITE_WITHIN };
            let found = client.task(read, task).await?.value;
            let fields = found.block.record.task.as_ref().context("a task without fields")?;
            let note: u64 = fields.note.value.parse().context("a note that no writer wrote")?;
            ensure!(note == acknowledged, "task {task} has {note}, but {acknowledged} was acknowledged");
            let versions = client.history(read, task).await?.value.len();
            let versions = u64::try_from(versions)?;
            ensure!(versions >= acknowledged, "task {task} has {versions} versions of {acknowledged} writes");
            report.writes += acknowledged;
            report.pause = report.pause.max(pause);
        }
        Ok(report)
    }
}

async fn write(session: Session, task: RecordId, stopped: watch::Receiver<bool>) -> anyhow::Result<Seen> {
    let mut seen = Seen { task, acknowledged: 0, pause: Duration::ZERO };
    let mut last = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        pace.tick().await;
        let number = seen.acknowledged + 1;
        let fields = vec![TaskField::Note(number.to_string())];
        let body = Body::SetTask { task, expected: None, fields, mark: None };
        let outcome = session.propose(body, WRITE_WITHIN).await;
        let outcome = outcome.with_context(|| format!("write {number} of {task}"))?;
        ensure!(matches!(outcome, Outcome::Accepted { .. }), "write {number} of {task} was answered by {outcome:?}");
        seen.acknowledged = number;
        seen.pause = seen.pause.max(last.elapsed());
        last = Instant::now();
    }
    Ok(seen)
}
