//! `zyflow task add|move|remove`: edits of a change's text.

use super::context::Context;
use super::expect::ExpectArgs;
use super::report::{Failure, Output, Report};
use super::resolve::{self, FoundChange};
use super::task::TaskArgs;
use crate::client::Client;
use crate::code::Code;
use crate::read::{Answer, Document, Row};
use clap::Args;
use serde_json::json;
use zyflow_machine::command::{Anchor, BlockOp, Body, EditMode, NewBlock};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Block;
use zyflow_spec::BlockKind;

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The change: its path, or a unique end of it.
    change: String,
    /// The task's words, with its number if it shall have one.
    text: String,
    /// Right after this task; else after the last one.
    #[arg(long, value_name = "TASK")]
    after: Option<String>,
    /// The project, where the path alone means several.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// The change is meant.
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    which: TaskArgs,
    #[command(flatten)]
    to: Place,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    #[command(flatten)]
    which: TaskArgs,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Right after this task.
    #[arg(long, value_name = "TASK")]
    after: Option<String>,
    /// Before everything else.
    #[arg(long)]
    first: bool,
}

pub(super) async fn add(context: &Context, args: AddArgs) -> Result<Report, Failure> {
    if args.text.contains(['\n', '\r']) || args.text.trim().is_empty() {
        return Err(Failure::new(Code::Usage, "a task is one line that isn't empty: write it without line ends"));
    }
    let client = context.client()?;
    let project = args.project.as_deref();
    let change = resolve::change(&client, context.read_now(), project, &args.change).await?;
    let document = client.document(context.read_now(), change.id).await?;
    let after = match &args.after {
        Some(text) => Some(find(&document.value, &change, context.task_id(&client, project, text).await?)?),
        None => document.value.blocks.iter().rfind(|row| row.record.task.is_some()),
    };
    let last = document.value.blocks.last();
    let anchor = after.or(last).map_or(Anchor::Start, |row| Anchor::After(row.id));
    let block = NewBlock {
        kind: BlockKind::Task.into(),
        lead: after.map_or_else(|| "- [".to_owned(), |row| row.record.lead.clone()),
        mark: " ".to_owned(),
        text: format!("] {}\n", args.text.trim()),
    };
    let op = BlockOp::Insert { after: anchor, block };
    let wanted = (args.expect, change.id);
    let (revision, created) = edit(context, &client, &change, document.revision, op, wanted).await?;
    let item = json!({ "id": created.first().map(ToString::to_string), "change": change.path });
    Ok(Output::One { item, revision: Some(revision) }.into())
}

pub(super) async fn move_task(context: &Context, args: MoveArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let (change, document, block) = locate(context, &client, &args.which).await?;
    let after = match &args.to.after {
        Some(text) => {
            let id = context.task_id(&client, args.which.project.as_deref(), text).await?;
            Anchor::After(find(&document.value, &change, id)?.id)
        }
        None => Anchor::Start,
    };
    let op = BlockOp::Move { block, after };
    let wanted = (args.expect, block);
    let (revision, _) = edit(context, &client, &change, document.revision, op, wanted).await?;
    let item = json!({ "id": block.to_string(), "change": change.path });
    Ok(Output::One { item, revision: Some(revision) }.into())
}

pub(super) async fn remove(context: &Context, args: RemoveArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let (change, document, block) = locate(context, &client, &args.which).await?;
    context.confirm(&format!("Remove task {} from {}, in every checkout?", args.which.task, change.path))?;
    let (op, wanted) = (BlockOp::Delete { block }, (args.expect, block));
    let (revision, _) = edit(context, &client, &change, document.revision, op, wanted).await?;
    let item = json!({ "id": block.to_string(), "change": change.path });
    Ok(Output::One { item, revision: Some(revision) }.into())
}

/// The task, its change and the text that it stands in.
async fn locate(
    context: &Context,
    client: &Client,
    args: &TaskArgs,
) -> Result<(FoundChange, Answer<Document>, RecordId), Failure> {
    let id = context.task_id(client, args.project.as_deref(), &args.task).await?;
    let task = client.task(context.read_now(), id).await?.value;
    let change = FoundChange { id: task.block.record.change, path: task.change_path, project: task.project_name };
    let document = client.document(context.read_now(), change.id).await?;
    Ok((change, document, id))
}

fn find<'a>(document: &'a Document, change: &FoundChange, id: RecordId) -> Result<&'a Row<Block>, Failure> {
    let found = document.blocks.iter().find(|row| row.id == id);
    found.ok_or_else(|| {
        let message = format!("{id} doesn't stand in {}: name a task of the same change", change.path);
        Failure::new(Code::NotFound, message)
    })
}

async fn edit(
    context: &Context,
    client: &Client,
    change: &FoundChange,
    base: Revision,
    op: BlockOp,
    (expect, record): (ExpectArgs, RecordId),
) -> Result<(Revision, Vec<RecordId>), Failure> {
    let body = Body::Edit { change: change.id, base, mode: EditMode::Merge, ops: vec![op], conflicts: Vec::new() };
    context.propose(client, expect.wrap(record, body), &format!("change {}", change.path)).await
}
