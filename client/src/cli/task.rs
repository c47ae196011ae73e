//! `zyflow task`: looking at tasks and setting their fields. Changes of the text are in `task_edit`.

use super::claim::{self, ClaimArgs, CommentArgs, NextArgs, ReleaseArgs, SearchArgs};
use super::context::Context;
use super::expect::ExpectArgs;
use super::report::{Failure, Output, Report};
use super::resolve;
use super::task_edit::{self, AddArgs, MoveArgs, RemoveArgs};
use super::task_view::{self, PriorityArg, StatusArg};
use crate::code::Code;
use crate::read::TaskFilter;
use clap::{Args, Subcommand};
use serde_json::json;
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::Revision;

/// What a list of tasks shows.
pub(super) const COLUMNS: &[&str] = &["id", "number", "status", "assignee", "priority", "change", "title"];

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// List tasks.
    List(ListArgs),
    /// Show a task.
    Show(TaskArgs),
    /// Add a task to a change.
    Add(AddArgs),
    /// Set fields of tasks.
    Set(SetArgs),
    /// Put a task elsewhere in its change.
    Move(MoveArgs),
    /// Take a task out of its change.
    Remove(RemoveArgs),
    /// Show the versions of a task, oldest first.
    History(HistoryArgs),
    /// Show the first task that somebody can begin: not done, not taken, waiting for no other; the most urgent first.
    Next(NextArgs),
    /// Take a task for a while, so that nobody else does; again = for longer.
    Claim(ClaimArgs),
    /// Give a task back.
    Release(ReleaseArgs),
    /// Say something about a task, or show what was said.
    Comment(CommentArgs),
    /// Find tasks by words.
    Search(SearchArgs),
}

/// Which task.
#[derive(Debug, Clone, Args)]
pub(super) struct TaskArgs {
    /// REVISION.ORDINAL, or CHANGE#1.2.
    pub(super) task: String,
    /// The project, where the path of the change alone means several.
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    which: TaskArgs,
    /// Most versions to show, the newest; 0 = all.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only of this change.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
    /// Only with this status.
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Only assigned to them.
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Only with this in their text.
    #[arg(long)]
    text: Option<String>,
    /// Most tasks to show; 0 = as many as the server gives.
    #[arg(long, default_value_t = 0)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// REVISION.ORDINAL, or CHANGE#1.2; all of them get the same values.
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
    /// The project, where the path of a change alone means several.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    #[command(flatten)]
    fields: FieldArgs,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct FieldArgs {
    /// Where the work stands.
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Free text that the file doesn't show.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Who works on it; empty = nobody.
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// How urgent it is.
    #[arg(long, value_enum)]
    priority: Option<PriorityArg>,
    /// When it is due, YYYY-MM-DD; empty = never.
    #[arg(long, value_name = "DATE")]
    due: Option<String>,
    /// A label; may be repeated, and together they replace all labels. Empty = none.
    #[arg(long = "label", value_name = "WORD")]
    labels: Option<Vec<String>>,
    /// A task that must be done before; may be repeated, and together they replace all. Empty = none.
    #[arg(long = "blocked-by", value_name = "TASK")]
    blocked_by: Option<Vec<String>>,
}

pub(super) async fn run(context: &Context, command: TaskCommand) -> Result<Report, Failure> {
    match command {
        TaskCommand::List(args) => list(context, args).await,
        TaskCommand::Show(args) => {
            let client = context.client()?;
            let id = resolve::task(&client, context.read(), args.project.as_deref(), &args.task).await?;
            let found = client.task(context.read(), id).await?;
            Ok(Output::One { item: task_view::task(&found.value), revision: Some(found.revision) }.into())
        }
        TaskCommand::Next(args) => claim::next(context, args).await,
        TaskCommand::Claim(args) => claim::claim(context, args).await,
        TaskCommand::Release(args) => claim::release(context, args).await,
        TaskCommand::Comment(args) => claim::comment(context, args).await,
        TaskCommand::Search(args) => claim::search(context, args).await,
        TaskCommand::Add(args) => task_edit::add(context, args).await,
        TaskCommand::Set(args) => set(context, args).await,
        TaskCommand::Move(args) => task_edit::move_task(context, args).await,
        TaskCommand::Remove(args) => task_edit::remove(context, args).await,
        TaskCommand::History(args) => history(context, args).await,
    }
}

async fn history(context: &Context, args: HistoryArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let id = resolve::task(&client, context.read(), args.which.project.as_deref(), &args.which.task).await?;
    // One more than is shown, as each is shown by what it changed in the one before.
    let asked = if args.limit == 0 { 0 } else { args.limit.saturating_add(1) };
    let found = client.newest_history(context.read(), id, asked).await?;
    let mut items = task_view::history(&found.value);
    if args.limit > 0 && found.value.len() == usize::try_from(asked).unwrap_or(usize::MAX) {
        items.remove(0);
    }
    let columns = &["event", "time", "author", "from", "what", "changed"];
    Ok(Output::List { columns, items, revision: Some(found.revision) }.into())
}

async fn list(context: &Context, args: ListArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let project = match &args.project {
        Some(name) => Some(resolve::project(&client, context.read(), name).await?.value.id),
        None => None,
    };
    let change = match &args.change {
        Some(change) => Some(resolve::change(&client, context.read(), args.project.as_deref(), change).await?.id),
        None => None,
    };
    let filter = TaskFilter {
        project,
        change,
        status: args.status.map(Into::into),
        assignee: args.assignee,
        text: args.text,
        limit: args.limit,
        ..TaskFilter::default()
    };
    let found = client.tasks(context.read(), filter).await?;
    let items: Vec<_> = found.value.tasks.iter().map(task_view::task).collect();
    let more = format!("there are more than these {} tasks: narrow the filter, or raise --limit", items.len());
    let failure = (found.value.is_truncated && args.limit == 0).then(|| Failure::new(Code::Limit, more));
    Ok(Report { output: Output::List { columns: COLUMNS, items, revision: Some(found.revision) }, failure })
}

async fn set(context: &Context, args: SetArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let project = args.project.as_deref();
    let mut blockers = Vec::new();
    for text in args.fields.blocked_by.iter().flatten().filter(|text| !text.is_empty()) {
        blockers.push(context.task_id(&client, project, text).await?);
    }
    let mut fields = plain_fields(&args.fields);
    if args.fields.blocked_by.is_some() {
        fields.push(TaskField::BlockedBy(blockers.into_iter().collect()));
    }
    // All names are resolved before the first task is set: a typing error changes nothing.
    let mut tasks = Vec::new();
    for text in &args.tasks {
        tasks.push((text, context.task_id(&client, project, text).await?));
    }
    let expected = args.expect.expect.map(Revision);
    let (mut items, mut newest) = (Vec::new(), Revision(0));
    for (text, task) in tasks {
        let mark = match args.fields.status {
            Some(status) => claim::mark_of(context, &client, task, status.into()).await?,
            None => None,
        };
        let body = Body::SetTask { task, expected, fields: fields.clone(), mark };
        let (revision, _) = context.propose(&client, body, &format!("task {text}")).await?;
        newest = newest.max(revision);
        items.push(json!({ "id": task.to_string(), "task": text, "revision": revision.0 }));
    }
    Ok(Output::List { columns: &["id", "task", "revision"], items, revision: Some(newest) }.into())
}

/// The fields that need no look at the cluster.
fn plain_fields(args: &FieldArgs) -> Vec<TaskField> {
    let unless_empty = |text: &String| (!text.is_empty()).then(|| text.clone());
    let labels = |labels: &Vec<String>| labels.iter().filter_map(unless_empty).collect();
    [
        args.status.map(|status| TaskField::Status(status.into())),
        args.assignee.as_ref().map(|name| TaskField::Assignee(unless_empty(name))),
        args.priority.map(|priority| TaskField::Priority(priority.into())),
        args.due.as_ref().map(|due| TaskField::Due(unless_empty(due))),
        args.labels.as_ref().map(|all| TaskField::Labels(labels(all))),
        args.note.clone().map(TaskField::Note),
    ]
    .into_iter()
    .flatten()
    .collect()
}
