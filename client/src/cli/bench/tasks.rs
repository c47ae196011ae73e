//! The tasks that a benchmark works on: made once, found again by later runs.

use crate::cli::context::Context;
use crate::cli::report::{Failure, accepted};
use crate::cli::resolve;
use crate::client::Client;
use crate::code::Code;
use crate::read::{Consistency, Read};
use crate::session::Session;
use zyflow_machine::command::{Body, NewBlock};
use zyflow_machine::id::RecordId;
use zyflow_spec::BlockKind;

/// The project that they belong to.
const PROJECT: &str = "bench";

/// How many changes there are; each has few enough tasks that its document fits a message, notes of 16 KiB included.
const CHANGES: usize = 40;

/// How many tasks a change has.
const TASKS_PER_CHANGE: usize = 250;

/// The ids of all 10,000 tasks.
pub(super) async fn prepare(context: &Context, client: &Client) -> Result<Vec<RecordId>, Failure> {
    let read = Read { consistency: Consistency::Linearizable, at: None, within: context.within() };
    let session = Session::new(client.clone(), "zyflow bench", 0);
    let projects = client.projects(read).await?.value;
    let project = if let Some(row) = projects.into_iter().find(|row| row.record.name == PROJECT) {
        row.id
    } else {
        // No checkout holds such a path: the benchmark measures the cluster, not files.
        let files = vec!["bench/*.md".to_owned()];
        let body = Body::CreateProject { name: PROJECT.to_owned(), files };
        first(accepted(session.propose(body, context.within()).await?, "project bench")?.1)?
    };
    let existing = resolve::changes(client, read, Some(PROJECT)).await?.value;
    let mut tasks = Vec::with_capacity(CHANGES * TASKS_PER_CHANGE);
    for number in 0..CHANGES {
        let path = format!("bench/{number:02}.md");
        let change = if let Some(change) = existing.iter().find(|change| change.path == path) {
            change.id
        } else {
            let body = Body::CreateChange { project, path: path.clone(), blocks: blocks(number), ops: Vec::new() };
            first(accepted(session.propose(body, context.within()).await?, &path)?.1)?
        };
        let document = client.document(read, change).await?.value;
        tasks.extend(document.blocks.iter().filter(|row| row.record.task.is_some()).map(|row| row.id));
    }
    if tasks.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            "the project bench has changes without tasks: delete them, and they are made again",
        ));
    }
    Ok(tasks)
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

fn blocks(change: usize) -> Vec<NewBlock> {
    let task = |number: usize| NewBlock {
        kind: BlockKind::Task.into(),
        lead: "- [".to_owned(),
        mark: " ".to_owned(),
        text: format!("] {}.{} Task of the benchmark\n", change + 1, number + 1),
    };
    (0..TASKS_PER_CHANGE).map(task).collect()
}
