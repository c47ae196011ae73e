//! `zyflow change`.

use super::context::Context;
use super::expect::ExpectArgs;
use super::report::{Failure, Output, Report};
use super::resolve;
use crate::code::Code;
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
    Delete(DeleteArgs),
    /// Give a change another path, in every checkout; its tasks keep their history.
    Move(MoveArgs),
    /// Put an OpenSpec change away, as `openspec archive` does: its folder goes to archive/DATE-NAME.
    Archive(ArchiveArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    which: ChangeArgs,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    which: ChangeArgs,
    /// The path from now on.
    #[arg(long, value_name = "PATH")]
    to: String,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ArchiveArgs {
    #[command(flatten)]
    which: ChangeArgs,
    /// The day in the archived folder's name [default: today].
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<jiff::civil::Date>,
    #[command(flatten)]
    expect: ExpectArgs,
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
        ChangeCommand::Move(args) => {
            let client = context.client()?;
            let change =
                resolve::change(&client, context.read_now(), args.which.project.as_deref(), &args.which.change);
            let change = change.await?;
            move_to(context, &client, change, args.to, args.expect).await
        }
        ChangeCommand::Archive(args) => archive(context, args).await,
    }
}

async fn show(context: &Context, args: ChangeArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let change = resolve::change(&client, context.read(), args.project.as_deref(), &args.change).await?;
    let document = client.document(context.read(), change.id).await?;
    let mut tasks = serde_json::Map::new();
    let fields = document.value.blocks.iter().filter_map(|row| row.record.task.as_deref());
    for status in fields.map(|task| task.status.value.to_string()) {
        let count = tasks.get(&status).and_then(serde_json::Value::as_u64).unwrap_or(0);
        tasks.insert(status, (count + 1).into());
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

async fn delete(context: &Context, args: DeleteArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let change =
        resolve::change(&client, context.read_now(), args.which.project.as_deref(), &args.which.change).await?;
    // What is deleted is what is seen now: an edit from here on makes the deletion stale.
    let base = client.document(context.read_now(), change.id).await?.revision;
    context.confirm(&format!("Delete {} of {}, in every checkout?", change.path, change.project))?;
    let body = args.expect.wrap(change.id, Body::DeleteChange { change: change.id, base });
    let (revision, _) = context.propose(&client, body, &format!("change {}", change.path)).await?;
    let item = json!({ "id": change.id.to_string(), "path": change.path, "project": change.project });
    Ok(Output::One { item, revision: Some(revision) }.into())
}

async fn archive(context: &Context, args: ArchiveArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let change =
        resolve::change(&client, context.read_now(), args.which.project.as_deref(), &args.which.change).await?;
    let date = args.date.unwrap_or_else(|| jiff::Zoned::now().date());
    let path = archived(&change.path, &date.to_string()).ok_or_else(|| {
        let message = format!("{} is no OpenSpec change: use `zyflow change move --to` for others", change.path);
        Failure::new(Code::Usage, message)
    })?;
    let open = open_tasks(&client.document(context.read_now(), change.id).await?.value);
    if open > 0 {
        context.confirm(&format!("{open} tasks of {} are still open. Archive it all the same?", change.path))?;
    }
    move_to(context, &client, change, path, args.expect).await
}

fn open_tasks(document: &crate::read::Document) -> usize {
    let tasks = document.blocks.iter().filter_map(|row| row.record.task.as_deref());
    tasks.filter(|task| task.status.value.is_open()).count()
}

/// `.../changes/NAME/tasks.md` becomes `.../changes/archive/DATE-NAME/tasks.md`; `None` = it lies elsewhere, or is archived already.
fn archived(path: &str, date: &str) -> Option<String> {
    let (before, rest) =
        path.rsplit_once("changes/").filter(|(before, _)| before.is_empty() || before.ends_with('/'))?;
    let (name, file) = rest.split_once('/').filter(|(name, _)| *name != "archive")?;
    Some(format!("{before}changes/archive/{date}-{name}/{file}"))
}

async fn move_to(
    context: &Context,
    client: &crate::Client,
    change: resolve::FoundChange,
    path: String,
    expect: ExpectArgs,
) -> Result<Report, Failure> {
    let body = Body::MoveChange { change: change.id, path: path.clone(), from: change.path.clone() };
    let body = expect.wrap(change.id, body);
    let (revision, _) = context.propose(client, body, &format!("change {}", change.path)).await?;
    let item = json!({ "id": change.id.to_string(), "from": change.path, "to": path, "project": change.project });
    Ok(Output::One { item, revision: Some(revision) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_changes_of_openspec_are_archived() {
        let to = |path| archived(path, "2026-01-02");
        assert_eq!(
            to("openspec/changes/add-login/tasks.md").as_deref(),
            Some("openspec/changes/archive/2026-01-02-add-login/tasks.md")
        );
        assert_eq!(to("changes/a/specs/b/tasks.md").as_deref(), Some("changes/archive/2026-01-02-a/specs/b/tasks.md"));
        assert_eq!(to("openspec/changes/archive/2025-01-01-a/tasks.md"), None);
        assert_eq!(to("exchanges/a/tasks.md"), None);
        assert_eq!(to("tasks.md"), None);
    }
}
