//! `zyflow rollback`: everything, a project or a change becomes what it was at a point or a revision, on every machine.
//!
//! The preview compares reads at two revisions, so it costs as much as reading the scope twice; with `--yes` nothing is read. What
//! somebody changes after the preview goes back too: it is part of the point that the rollback makes, and nobody who rolls back under
//! load is refused for ever. Who wants it otherwise says `--expected`.

mod preview;

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve::{self, FoundChange};
use crate::client::Client;
use crate::code::Code;
use clap::Args;
use preview::Difference;
use serde_json::{Value, json};
use zyflow_machine::command::{Body, Scope};
use zyflow_machine::id::{RecordId, Revision};

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// To where: a rollback point's name, or a revision.
    to: String,
    /// Only this project; with --change: the one that it belongs to.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only this change: its path, or a unique end of it; of a deleted one, the path that it had.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
    /// Show what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Refuse if anything in the scope changed after this revision.
    #[arg(long, visible_alias = "expected", value_name = "REV")]
    expect: Option<u64>,
}

/// What goes back, and its name for people.
struct Target {
    scope: Scope,
    name: String,
}

pub(super) async fn run(context: &Context, args: RollbackArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let to = revision(context, &client, &args.to).await?;
    let target = target(context, &client, &args, to).await?;
    if args.dry_run {
        let (differences, now) = preview::of(context, &client, target.scope, to).await?;
        let columns = &["project", "change", "file", "added", "removed", "reworded", "status", "fields", "other"];
        let items = differences.iter().map(|each| json!(each)).collect();
        return Ok(Output::List { columns, items, revision: Some(now) }.into());
    }
    if !context.global.yes {
        let (differences, _) = preview::of(context, &client, target.scope, to).await?;
        context.confirm(&question(&target.name, to, &differences))?;
    }
    let body = Body::Rollback { scope: target.scope, to, expected: args.expect.map(Revision) };
    let what = format!("{} at revision {to}", target.name);
    let (done, created) = context.propose(&client, body, &what).await?;
    let point = match created.first() {
        Some(id) => Some(point_name(context, &client, *id).await?),
        None => None,
    };
    Ok(Output::One { item: told(&target, to, point.as_deref()), revision: Some(done) }.into())
}

fn told(target: &Target, to: Revision, point: Option<&str>) -> Value {
    json!({ "scope": target.name, "to": to.0, "is_changed": point.is_some(), "undo_point": point })
}

fn question(name: &str, to: Revision, differences: &[Difference]) -> String {
    let sum = |part: fn(&Difference) -> usize| differences.iter().map(part).sum::<usize>();
    let (added, removed) = (sum(|each| each.added.len()), sum(|each| each.removed.len()));
    let changed = sum(|each| each.reworded.len() + each.status.len() + each.fields.len());
    format!(
        "Put {name} back to revision {to}, on every machine? That changes {} files: {added} tasks come back, {removed} go, {changed} change.",
        differences.len()
    )
}

/// A number is a revision; everything else is the name of a point.
async fn revision(context: &Context, client: &Client, text: &str) -> Result<Revision, Failure> {
    if let Ok(revision) = text.parse() {
        return Ok(Revision(revision));
    }
    let points = client.points(context.read_now()).await?.value;
    let found = points.into_iter().find(|(_, point)| point.name == text);
    found.map(|(_, point)| point.revision).ok_or_else(|| {
        let message = format!("`{text}` is no revision and no rollback point: `zyflow point list` shows all");
        Failure::new(Code::NotFound, message)
    })
}

async fn point_name(context: &Context, client: &Client, id: RecordId) -> Result<String, Failure> {
    let points = client.points(context.read_now()).await?.value;
    let name = points.into_iter().find(|(point, _)| *point == id).map(|(_, point)| point.name);
    Ok(name.unwrap_or_else(|| id.to_string()))
}

async fn target(context: &Context, client: &Client, args: &RollbackArgs, to: Revision) -> Result<Target, Failure> {
    let project = args.project.as_deref();
    if let Some(change) = &args.change {
        let FoundChange { id, path, project } = find_change(context, client, project, change, to).await?;
        return Ok(Target { scope: Scope::Change(id), name: format!("{path} of {project}") });
    }
    let Some(name) = project else { return Ok(Target { scope: Scope::All, name: "everything".to_owned() }) };
    let id = resolve::project(client, context.read_now(), name).await?.value.id;
    Ok(Target { scope: Scope::Project(id), name: format!("project {name}") })
}

/// A change that is there, or was there at the revision that is gone back to.
async fn find_change(
    context: &Context,
    client: &Client,
    project: Option<&str>,
    change: &str,
    to: Revision,
) -> Result<FoundChange, Failure> {
    match resolve::change(client, context.read_now(), project, change).await {
        Err(failure) if failure.code == Code::NotFound => {
            let then = crate::read::Read { at: Some(to), ..context.read_now() };
            resolve::change(client, then, project, change).await
        }
        found => found,
    }
}
