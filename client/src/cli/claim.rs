//! `zyflow task claim|release|next|comment|search`: who works on what, and what is said about it.

use super::context::Context;
use super::expect::ExpectArgs;
use super::report::{Failure, Output, Report};
use super::resolve;
use super::task::TaskArgs;
use super::task_view::{self, time};
use crate::client::Client;
use crate::code::Code;
use crate::read::TaskFilter;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Status;

/// Tasks that `next --claim` tries before it gives up: others that reach for the same ones are at most so many.
const CLAIM_TRIES_MAX: usize = 64;

#[derive(Debug, Args)]
pub(super) struct ClaimArgs {
    #[command(flatten)]
    which: TaskArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct LeaseArgs {
    /// For how long, as 90s, 30m or 8h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lease)]
    lease: Duration,
    /// In whose name [default: the author].
    #[arg(long = "as", value_name = "NAME")]
    holder: Option<String>,
    /// Don't set the task in progress and assign it.
    #[arg(long)]
    only: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    which: TaskArgs,
    /// In whose name [default: the author].
    #[arg(long = "as", value_name = "NAME")]
    holder: Option<String>,
    /// Whoever has it.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
pub(super) struct NextArgs {
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only of this change.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
    /// Take it, too; if somebody is quicker, the one after it.
    #[arg(long)]
    claim: bool,
    #[command(flatten)]
    lease: LeaseArgs,
}

#[derive(Debug, Args)]
pub(super) struct CommentArgs {
    #[command(flatten)]
    which: TaskArgs,
    /// What to say; without it, show what was said.
    text: Option<String>,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// Part of a task's text, note, labels, requirements or comments.
    words: String,
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Most tasks to show; 0 = as many as the server gives.
    #[arg(long, default_value_t = 0)]
    limit: u32,
}

/// `90s`, `30m`, `8h`, `2d`; a bare number is seconds.
fn lease(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let wrong = || format!("`{text}` is no lease: write it as 90s, 30m, 8h or 2d");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match &text[digits.len()..] {
        "s" | "" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(60 * 60),
        "d" => number.checked_mul(24 * 60 * 60),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

pub(super) async fn claim(context: &Context, args: ClaimArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let id = context.task_id(&client, args.which.project.as_deref(), &args.which.task).await?;
    let revision = take(context, &client, id, (&args.lease, args.expect), &args.which.task).await?;
    shown(context, &client, id, revision).await
}

/// Claims one task for the holder.
async fn take(
    context: &Context,
    client: &Client,
    task: RecordId,
    (lease, expect): (&LeaseArgs, ExpectArgs),
    named: &str,
) -> Result<Revision, Failure> {
    let holder = lease.holder.clone().unwrap_or_else(|| context.author());
    let mut fields = Vec::new();
    let mut mark = None;
    if !lease.only {
        fields = vec![TaskField::Status(Status::InProgress), TaskField::Assignee(Some(holder.clone()))];
        mark = mark_of(context, client, task, Status::InProgress).await?;
    }
    let lease_ms = u64::try_from(lease.lease.as_millis()).unwrap_or(u64::MAX);
    let body = Body::Claim { task, holder, lease_ms, fields, mark };
    Ok(context.propose(client, expect.wrap(task, body), &format!("task {named}")).await?.0)
}

/// How the task's file shows a status by a mark; `None` = it can't, and the machine's own rule (`x` for done) is right.
pub(super) async fn mark_of(
    context: &Context,
    client: &Client,
    task: RecordId,
    status: Status,
) -> Result<Option<String>, Failure> {
    let found = client.task(context.read_now(), task).await?.value;
    let change =
        resolve::FoundChange { id: found.block.record.change, path: found.change_path, project: found.project_name };
    let change = resolve::coordinated(client, context.read_now(), &change).await?.value;
    Ok(match crate::coordinator::sync::shown(&change, task, status) {
        Some(zyflow_spec::Expression::Mark(mark)) => Some(mark),
        Some(zyflow_spec::Expression::Under { .. } | zyflow_spec::Expression::Line { .. }) | None => None,
    })
}

async fn shown(context: &Context, client: &Client, id: RecordId, revision: Revision) -> Result<Report, Failure> {
    let read = crate::read::Read { consistency: crate::read::Consistency::AtLeast(revision), ..context.read_now() };
    let found = client.task(read, id).await?;
    Ok(Output::One { item: task_view::task(&found.value), revision: Some(found.revision) }.into())
}

pub(super) async fn release(context: &Context, args: ReleaseArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let task = context.task_id(&client, args.which.project.as_deref(), &args.which.task).await?;
    let holder = (!args.force).then(|| args.holder.unwrap_or_else(|| context.author()));
    let body = args.expect.wrap(task, Body::Release { task, holder });
    let (revision, _) = context.propose(&client, body, &format!("task {}", args.which.task)).await?;
    shown(context, &client, task, revision).await
}

pub(super) async fn next(context: &Context, args: NextArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let project = match &args.project {
        Some(name) => Some(resolve::project(&client, context.read(), name).await?.value.id),
        None => None,
    };
    let change = match &args.change {
        Some(change) => Some(resolve::change(&client, context.read(), args.project.as_deref(), change).await?.id),
        None => None,
    };
    for _ in 0..CLAIM_TRIES_MAX {
        let filter = TaskFilter { project, change, is_ready: true, limit: 1, ..TaskFilter::default() };
        let found = client.tasks(context.read(), filter).await?;
        let Some(task) = found.value.tasks.first() else {
            let message = "no task is ready: all are done, taken, or wait for another; `zyflow task list` shows them";
            return Err(Failure::new(Code::NotFound, message));
        };
        if !args.claim {
            return Ok(Output::One { item: task_view::task(task), revision: Some(found.revision) }.into());
        }
        let id = task.block.id;
        match take(context, &client, id, (&args.lease, ExpectArgs { expect: None }), &id.to_string()).await {
            Ok(revision) => return shown(context, &client, id, revision).await,
            Err(failure) if failure.code == Code::Claimed => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(Code::Claimed, "others were quicker every time: try again"))
}

pub(super) async fn comment(context: &Context, args: CommentArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let task = context.task_id(&client, args.which.project.as_deref(), &args.which.task).await?;
    let mut read = context.read();
    if let Some(text) = args.text {
        let body = args.expect.wrap(task, Body::Comment { task, text });
        let (revision, _) = context.propose(&client, body, &format!("task {}", args.which.task)).await?;
        read = crate::read::Read { consistency: crate::read::Consistency::AtLeast(revision), ..context.read_now() };
    }
    let found = client.comments(read, task).await?;
    let items: Vec<Value> = found
        .value
        .iter()
        .map(|comment| json!({ "time": time(comment.time), "author": comment.author, "text": comment.text }))
        .collect();
    Ok(Output::List { columns: &["time", "author", "text"], items, revision: Some(found.revision) }.into())
}

pub(super) async fn search(context: &Context, args: SearchArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let project = match &args.project {
        Some(name) => Some(resolve::project(&client, context.read(), name).await?.value.id),
        None => None,
    };
    let filter = TaskFilter { project, search: Some(args.words), limit: args.limit, ..TaskFilter::default() };
    let found = client.tasks(context.read(), filter).await?;
    let items = found.value.tasks.iter().map(task_view::task).collect();
    Ok(Output::List { columns: super::task::COLUMNS, items, revision: Some(found.revision) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_have_units_and_are_never_zero() {
        assert_eq!(lease("90"), Ok(Duration::from_secs(90)));
        assert_eq!(lease("30m"), Ok(Duration::from_mins(30)));
        assert_eq!(lease("8h"), Ok(Duration::from_hours(8)));
        assert_eq!(lease("2d"), Ok(Duration::from_hours(48)));
        for bad in ["", "0h", "h", "1w", "-1h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(lease(bad).is_err(), "{bad}");
        }
    }
}
