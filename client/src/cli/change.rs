//! `zyflow change`.

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve;
use super::task_view;
use clap::Subcommand;
use serde_json::json;
use zyflow_machine::command::Body;

#[derive(Debug, Subcommand)]
pub(super) enum ChangeCommand {
    /// List all changes.
    List {
        /// Only of this project.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// Show a change: its tasks by status.
    Show(ChangeArgs),
    /// Delete a change, and with it the file in every checkout.
    Delete(ChangeArgs),
}

/// Which change.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ChangeArgs {
    /// Its path, or a unique end of it.
    pub(super) change: String,
    /// The project, where the path alone means several.
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
}

pub(super) async fn run(context: &Context, command: ChangeCommand) -> Result<Report, Failure> {
    match command {
        ChangeCommand::List { project } => {
            let client = context.client()?;
            let found = resolve::changes(&client, context.read(), project.as_deref()).await?;
            let items = found
                .value
                .iter()
                .map(|change| json!({ "id": change.id.to_string(), "path": change.path, "project": change.project }));
            let (items, revision) = (items.collect(), Some(found.revision));
            Ok(Output::List { columns: &["id", "project", "path"], items, revision }.into())
        }
        ChangeCommand::Show(args) => show(context, args).await,
        ChangeCommand::Delete(args) => delete(context, args).await,
    }
}

async fn show(context: &Context, args: ChangeArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let change = resolve::change(&client, context.read(), args.project.as_deref(), &args.change).await?;
    let document = client.document(context.read(), change.id).await?;
    let mut tasks = serde_json::Map::new();
    let fields = document.value.blocks.iter().filter_map(|row| row.record.task.as_deref());
    for status in fields.map(|task| task_view::status_name(task.status.value)) {
        let count = tasks.get(status).and_then(serde_json::Value::as_u64).unwrap_or(0);
        tasks.insert(status.to_owned(), (count + 1).into());
    }
    let item = json!({
        "id": change.id.to_string(),
        "path": change.path,
        "project": change.project,
        "blocks": document.value.blocks.len(),
        "tasks": tasks,
    });
    Ok(Output::One { item, revision: Some(document.revision) }.into())
}

async fn delete(context: &Context, args: ChangeArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let change = resolve::change(&client, context.read_now(), args.project.as_deref(), &args.change).await?;
    // What is deleted is what is seen now: an edit from here on makes the deletion stale.
    let base = client.document(context.read_now(), change.id).await?.revision;
    context.confirm(&format!("Delete {} of {}, in every checkout?", change.path, change.project))?;
    let body = Body::DeleteChange { change: change.id, base };
    let (revision, _) = context.propose(&client, body, &format!("change {}", change.path)).await?;
    let item = json!({ "id": change.id.to_string(), "path": change.path, "project": change.project });
    Ok(Output::One { item, revision: Some(revision) }.into())
}
