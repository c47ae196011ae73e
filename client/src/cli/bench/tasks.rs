//! The tasks that a benchmark works on: made once, found again by later runs.

use crate::cli::report::{Failure, accepted};
use crate::cli::resolve;
use crate::client::Client;
use crate::code::Code;
use crate::read::{Consistency, Read};
use crate::session::Session;
use std::time::Duration;
use zyflow_machine::command::{Body, NewBlock};
use zyflow_machine::id::RecordId;
use zyflow_spec::BlockKind;

/// What tasks there shall be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The name of the project that they belong to.
    pub(super) project: &'static str,
    pub(super) changes: usize,
    pub(super) tasks_per_change: usize,
}

/// 10,000 tasks; each change has few enough that its document fits a message, notes of 16 KiB included.
pub(super) const OF_WRITES: Plan = Plan { project: "bench", changes: 40, tasks_per_change: 250 };

/// 10,000 tasks in ten changes, which one answer lists.
pub(super) const OF_READS: Plan = Plan { project: "bench-reads", changes: 10, tasks_per_change: 1_000 };

/// What there is.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) project: RecordId,
    /// The ids of all tasks.
    pub(super) tasks: Vec<RecordId>,
}

/// The project with all its tasks, made where it isn't there.
pub(super) async fn prepare(plan: Plan, client: &Client, within: Duration) -> Result<Prepared, Failure> {
    let read = Read { consistency: Consistency::Linearizable, at: None, within };
    let session = Session::new(client.clone(), "zyflow bench", 0);
    let projects = client.projects(read).await?.value;
    let project = if let Some(row) = projects.into_iter().find(|row| row.record.name == plan.project) {
        row.id
    } else {
        // No checkout holds such a path: the benchmark measures the cluster, not files.
        let files = vec!["bench/*.md".to_owned()];
        let body = Body::CreateProject { name: plan.project.to_owned(), files };
        first(accepted(session.propose(body, within).await?, "the project of the benchmark")?.1)?
    };
    let existing = resolve::changes(client, read, Some(plan.project)).await?.value;
    let mut tasks = Vec::with_capacity(plan.changes * plan.tasks_per_change);
    for number in 0..plan.changes {
        let path = format!("bench/{number:02}.md");
        let change = if let Some(change) = existing.iter().find(|change| change.path == path) {
            change.id
        } else {
            let blocks = blocks(number, plan.tasks_per_change);
            let body = Body::CreateChange { project, path: path.clone(), blocks, ops: Vec::new() };
            first(accepted(session.propose(body, within).await?, &path)?.1)?
        };
        let document = client.document(read, change).await?.value;
        tasks.extend(document.blocks.iter().filter(|row| row.record.task.is_some()).map(|row| row.id));
    }
    if tasks.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            "the project of the benchmark has changes without tasks: delete them, and they are made again",
        ));
    }
    Ok(Prepared { project, tasks })
}

fn first(created: Vec<RecordId>) -> Result<RecordId, Failure> {
    let missing = || {
        Failure::new(
            Code::Protocol,
            "the cluster made a record and didn't say its id: use one version of zyflow and zyflowd",
        )
    };
    created.into_iter().next().ok_or_else(missing)
}

fn blocks(change: usize, count: usize) -> Vec<NewBlock> {
    let task = |number: usize| NewBlock {
        kind: BlockKind::Task.into(),
        lead: "- [".to_owned(),
        mark: " ".to_owned(),
        text: format!("] {}.{} Task of the benchmark\n", change + 1, number + 1),
    };
    (0..count).map(task).collect()
}
