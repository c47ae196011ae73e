//! `zyflow conflict`: what couldn't be united, and how it is settled.
//!
//! A resolution is one edit: it makes a value stand and closes the conflict, or does neither. The cluster makes a rollback point with it, so
//! that the state right before can be read, and be put back; here it is only told.

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve::{self, FoundChange};
use super::task_view::strategy_name;
use crate::client::Client;
use crate::code::Code;
use crate::coordinator::resolution::{self, Resolution, Take};
use crate::read::{Consistency, PlacedConflict, Read};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zyflow_machine::command::{Body, EditMode};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{ConflictClass, Point, Severity};

#[derive(Debug, Subcommand)]
pub(super) enum ConflictCommand {
    /// List open conflicts.
    List(ListArgs),
    /// Show a conflict with all its values.
    Show {
        /// Its id, REVISION.ORDINAL.
        id: String,
    },
    /// Make one value of a conflict stand, in every checkout, and close it.
    Resolve(ResolveArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only of this change.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
    /// Settled ones too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct ResolveArgs {
    /// Its id, REVISION.ORDINAL; several get the same answer.
    #[arg(required = true)]
    ids: Vec<String>,
    /// Which value shall stand: current (what stands now), other (the one that doesn't), base, spec (the file's), runtime (the
    /// cluster's), or the words themselves.
    #[arg(long, value_name = "current|other|base|TEXT")]
    take: String,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, command: ConflictCommand) -> Result<Report, Failure> {
    match command {
        ConflictCommand::List(args) => list(context, args).await,
        ConflictCommand::Show { id } => {
            let client = context.client()?;
            let found = client.conflict(context.read(), conflict_id(&id)?).await?;
            Ok(Output::One { item: shown(&found.value), revision: Some(found.revision) }.into())
        }
        ConflictCommand::Resolve(args) => resolve(context, args).await,
    }
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
    let found = client.conflicts(context.read(), project, change, args.all).await?;
    let items = found.value.iter().map(shown).collect();
    let columns = &["id", "severity", "class", "field", "change", "spec", "runtime", "state"];
    Ok(Output::List { columns, items, revision: Some(found.revision) }.into())
}

async fn resolve(context: &Context, args: ResolveArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let take = take(&args.take);
    // All names are read before the first is resolved: a typing error changes nothing.
    let ids = args.ids.iter().map(|id| conflict_id(id)).collect::<Result<Vec<_>, _>>()?;
    let mut planned = Vec::new();
    for id in ids {
        planned.push(plan(context, &client, id, &take).await?);
    }
    if args.dry_run {
        let items = planned.iter().map(|plan| plan.shown(None)).collect();
        return Ok(Output::List { columns: COLUMNS, items, revision: None }.into());
    }
    let (mut done, mut newest) = (Vec::new(), Revision(0));
    for planned in planned {
        // The one before may have changed the same text: what to do is looked up again.
        let fresh = plan(context, &client, planned.id, &take).await?;
        let what = format!("conflict {}", fresh.id);
        let body = Body::Edit {
            change: fresh.change.id,
            base: fresh.base,
            mode: EditMode::Merge,
            ops: fresh.resolution.ops.clone(),
            conflicts: Vec::new(),
        };
        let (revision, created) = context.propose(&client, body, &what).await?;
        newest = newest.max(revision);
        done.push((fresh, created));
    }
    // Whatever node answers has the points that were just made.
    let read = Read { consistency: Consistency::Linearizable, ..context.read_now() };
    let points = client.points(read).await?.value;
    let items = done.iter().map(|(plan, created)| plan.shown(point_among(created, &points))).collect();
    Ok(Output::List { columns: COLUMNS, items, revision: Some(newest) }.into())
}

const COLUMNS: &[&str] = &["id", "change", "field", "value", "point"];

/// A resolution that hasn't been proposed yet.
struct Planned {
    id: RecordId,
    change: FoundChange,
    field: String,
    base: Revision,
    resolution: Resolution,
}

impl Planned {
    fn shown(&self, point: Option<&str>) -> Value {
        json!({
            "id": self.id.to_string(),
            "change": self.change.path,
            "field": self.field,
            "value": self.resolution.value,
            "point": point,
        })
    }
}

async fn plan(context: &Context, client: &Client, id: RecordId, take: &Take) -> Result<Planned, Failure> {
    let found = client.conflict(context.read_now(), id).await?.value;
    let record = found.row.record;
    if found.change_path.is_empty() {
        let message = format!("conflict {id} is about a change that is deleted: there is nothing to decide any more");
        return Err(Failure::new(Code::NotFound, message));
    }
    let change = FoundChange { id: record.change, path: found.change_path, project: found.project_name };
    let coordinated = resolve::coordinated(client, context.read_now(), &change).await?;
    let resolution = resolution::resolve(&coordinated.value, id, &record, take)
        .map_err(|error| Failure::new(code(&error), format!("conflict {id}: {error}")))?;
    Ok(Planned { id, change, field: record.field, base: coordinated.revision, resolution })
}

fn code(error: &resolution::ResolutionError) -> Code {
    use resolution::ResolutionError as E;
    match error {
        E::Settled(_) => Code::Stale,
        E::NoValue(_) | E::Unfit { .. } | E::BlockGone(_) => Code::Invalid,
    }
}

/// The name of the rollback point among the records that a resolution created; lines that came back may be others of them.
fn point_among<'p>(created: &[RecordId], points: &'p [(RecordId, Point)]) -> Option<&'p str> {
    points.iter().find(|(id, _)| created.contains(id)).map(|(_, point)| point.name.as_str())
}

fn take(word: &str) -> Take {
    match word {
        "current" => Take::Current,
        "other" => Take::Other,
        "base" => Take::Base,
        "spec" => Take::Spec,
        "runtime" => Take::Runtime,
        text => Take::Text(text.to_owned()),
    }
}

fn conflict_id(text: &str) -> Result<RecordId, Failure> {
    text.parse().map_err(|_| {
        let message = format!("`{text}` is no conflict: write REVISION.ORDINAL as `zyflow conflict list` shows it");
        Failure::new(Code::Usage, message)
    })
}

fn shown(found: &PlacedConflict) -> Value {
    let conflict = &found.row.record;
    let settled = conflict.settled.as_ref();
    json!({
        "id": found.row.id.to_string(),
        "class": class(conflict.class),
        "severity": severity(conflict.severity()),
        "project": found.project_name,
        "change": found.change_path,
        "block": conflict.block.map(|block| block.to_string()),
        "field": conflict.field,
        "base": conflict.base,
        "spec": conflict.spec,
        "runtime": conflict.runtime,
        "author": conflict.author,
        "detected_at": found.row.id.0.revision().0,
        "state": if settled.is_some() { "settled" } else { "open" },
        "resolution": settled.map(|settled| json!({
            "strategy": strategy_name(settled.settlement.strategy),
            "resolved_by": format!("{:?}", settled.settlement.by).to_uppercase(),
            "author": settled.author,
            "at": settled.at.0,
            "value": settled.settlement.value,
        })),
    })
}

fn class(class: ConflictClass) -> &'static str {
    match class {
        ConflictClass::Data => "DATA_CONFLICT",
        ConflictClass::Structure => "STRUCTURE_CONFLICT",
        ConflictClass::Schema => "SCHEMA_CONFLICT",
        ConflictClass::Version => "VERSION_CONFLICT",
        ConflictClass::Dependency => "DEPENDENCY_CONFLICT",
        ConflictClass::Permission => "PERMISSION_CONFLICT",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "LOW",
        Severity::Medium => "MEDIUM",
        Severity::High => "HIGH",
        Severity::Critical => "CRITICAL",
    }
}
