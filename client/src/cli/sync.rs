//! `zyflow sync` and `zyflow validate`: specification and runtime state, brought together and compared.

use super::change::ChangeArgs;
use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve::{self, FoundChange};
use super::task_view;
use crate::client::Client;
use crate::code::Code;
use crate::coordinator::consistency::{self, Fix, Inconsistency, Kind};
use crate::coordinator::sync::{self, Direction};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use zyflow_api::v1;
use zyflow_machine::command::{Body, EditMode};
use zyflow_machine::id::{RecordId, Revision};

/// Edits of a change that `--history` shows.
const HISTORY_SHOWN: u32 = 200;

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    which: ChangeArgs,
    /// Which side follows which.
    #[arg(long, value_enum, default_value = "both")]
    direction: DirectionArg,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Change nothing: show what was done to the change, newest first, and by whom.
    #[arg(long, conflicts_with_all = ["direction", "dry_run"])]
    history: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DirectionArg {
    /// What the text says is set.
    SpecToRuntime,
    /// What was set is written into the text, as far as its dialect can show it.
    RuntimeToSpec,
    /// For each field the side that was changed later goes first.
    Both,
}

impl From<DirectionArg> for Direction {
    fn from(direction: DirectionArg) -> Self {
        match direction {
            DirectionArg::SpecToRuntime => Self::SpecToRuntime,
            DirectionArg::RuntimeToSpec => Self::RuntimeToSpec,
            DirectionArg::Both => Self::Both,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Only this change: its path, or a unique end of it.
    change: Option<String>,
    /// Only this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Bring together what has one obvious way.
    #[arg(long)]
    fix: bool,
    /// With --fix: only show what would be done.
    #[arg(long, requires = "fix")]
    dry_run: bool,
}

pub(super) async fn sync(context: &Context, args: SyncArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let found = resolve::change(&client, context.read_now(), args.which.project.as_deref(), &args.which.change).await?;
    if args.history {
        return history(context, &client, &found).await;
    }
    let (plan, revision) = run(context, &client, &found, args.direction.into(), args.dry_run).await?;
    let items = plan.steps.iter().map(|step| json!(step)).collect();
    Ok(Output::List { columns: &["side", "task", "field", "from", "to"], items, revision: Some(revision) }.into())
}

async fn run(
    context: &Context,
    client: &Client,
    found: &FoundChange,
    direction: Direction,
    is_dry: bool,
) -> Result<(sync::Plan, Revision), Failure> {
    let change = resolve::coordinated(client, context.read_now(), found).await?;
    let plan = sync::plan(&change.value, direction);
    if plan.ops.is_empty() || is_dry {
        return Ok((plan, change.revision));
    }
    let body = Body::Edit {
        change: found.id,
        base: change.revision,
        mode: EditMode::Merge,
        ops: plan.ops.clone(),
        conflicts: Vec::new(),
    };
    let (revision, _) = context.propose(client, body, &format!("change {}", found.path)).await?;
    Ok((plan, revision))
}

async fn history(context: &Context, client: &Client, found: &FoundChange) -> Result<Report, Failure> {
    let versions = client.change_history(context.read(), found.id, HISTORY_SHOWN).await?;
    let items = versions.value.iter().map(task_view::version).collect();
    let columns = &["event", "time", "author", "what", "detail"];
    Ok(Output::List { columns, items, revision: Some(versions.revision) }.into())
}

pub(super) async fn validate(context: &Context, args: ValidateArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let project = args.project.as_deref();
    let changes = match &args.change {
        Some(change) => vec![resolve::change(&client, context.read_now(), project, change).await?],
        None => resolve::changes(&client, context.read_now(), project).await?.value,
    };
    let (mut items, mut newest) = (Vec::new(), None);
    for found in &changes {
        if args.fix {
            let (_, revision) = run(context, &client, found, Direction::Both, args.dry_run).await?;
            newest = newest.max(Some(revision));
        }
        for item in report(context, &client, found).await? {
            items.push(shown(&found.path, &item));
        }
    }
    if args.change.is_none() {
        items.extend(checkouts(context, &client, project).await?);
    }
    let failure = (!items.is_empty()).then(|| {
        let fixable = items.iter().filter(|item| item["fix"] != json!(Fix::None)).count();
        let message = format!(
            "{} differences in {} changes; {fixable} can be mended by `zyflow validate --fix`",
            items.len(),
            changes.len()
        );
        Failure::new(Code::Inconsistent, message)
    });
    let columns = &["kind", "change", "task", "field", "expected", "actual", "fix", "action"];
    Ok(Report { output: Output::List { columns, items, revision: newest }, failure })
}

/// The report on one change; whether blockers in other changes are gone is asked of the cluster.
async fn report(context: &Context, client: &Client, found: &FoundChange) -> Result<Vec<Inconsistency>, Failure> {
    let change = resolve::coordinated(client, context.read_now(), found).await?.value;
    let own: BTreeSet<RecordId> = change.blocks.iter().map(|part| part.row.id).collect();
    let named: BTreeSet<RecordId> = change.tasks().flat_map(|(_, _, task)| task.blocked_by.value.clone()).collect();
    let mut gone = BTreeSet::new();
    for blocker in named.difference(&own) {
        match client.task(context.read_now(), *blocker).await {
            Ok(_) => {}
            Err(error) if error.code() == Code::NotFound => drop(gone.insert(*blocker)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(consistency::report(&change, &|id| gone.contains(&id)))
}

fn shown(path: &str, item: &Inconsistency) -> Value {
    let mut shown = json!(item);
    shown["change"] = path.into();
    shown
}

/// Files of the nodes' checkouts that hold another text than the cluster, or can't be held against it.
async fn checkouts(context: &Context, client: &Client, project: Option<&str>) -> Result<Vec<Value>, Failure> {
    let (answers, unasked) = super::checkout::all_nodes(context, client).await?;
    let mut items = Vec::new();
    if let Some(failure) = unasked {
        items.push(json!({
            "kind": Kind::VersionMismatch,
            "change": "",
            "task": "",
            "id": "",
            "field": "checkouts",
            "expected": "an answer of every node",
            "actual": failure.message,
            "action": "see that the node runs; its checkouts sync when it is back",
            "fix": Fix::None,
        }));
    }
    for (node, status) in answers {
        for item in status.checkouts {
            let checkout = item.checkout.unwrap_or_default();
            if project.is_some_and(|project| project != checkout.project) {
                continue;
            }
            for file in item.files.iter().filter(|file| file.state() != v1::FileState::Synced) {
                items.push(json!({
                    "kind": Kind::VersionMismatch,
                    "change": file.path,
                    "task": "",
                    "id": "",
                    "field": "text",
                    "expected": "the cluster's text",
                    "actual": format!("{} on node {}, at revision {}", checkout.path, node + 1, file.revision),
                    "action": if file.reason.is_empty() { "wait until it is synced".to_owned() } else { file.reason.clone() },
                    "fix": Fix::None,
                }));
            }
        }
    }
    Ok(items)
}
