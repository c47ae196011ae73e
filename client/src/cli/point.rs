//! `zyflow point`: names for revisions, agreed by all machines.

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::task_view::time;
use crate::client::Client;
use crate::code::Code;
use clap::Subcommand;
use serde_json::{Value, json};
use zyflow_machine::command::Body;
use zyflow_machine::id::RecordId;
use zyflow_machine::record::Point;

#[derive(Debug, Subcommand)]
pub(super) enum PointCommand {
    /// Name the newest revision, or an older one with --at.
    Create {
        /// Its name.
        name: String,
        /// Why it is made.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List all points.
    List,
    /// Show a point.
    Show {
        /// Its name.
        name: String,
    },
    /// Forget a name; the revision stays.
    Remove {
        /// Its name.
        name: String,
    },
}

pub(super) async fn run(context: &Context, command: PointCommand) -> Result<Report, Failure> {
    let client = context.client()?;
    match command {
        PointCommand::Create { name, note } => {
            let at = match context.at {
                Some(at) => at,
                None => client.revision(context.read_now()).await?,
            };
            let body = Body::CreatePoint { name: name.clone(), at: Some(at), note, is_automatic: false };
            let (revision, created) = context.propose(&client, body, &format!("rollback point {name}")).await?;
            let item = json!({ "name": name, "id": created.first().map(ToString::to_string), "at": at.0 });
            Ok(Output::One { item, revision: Some(revision) }.into())
        }
        PointCommand::List => {
            let found = client.points(context.read()).await?;
            let items = found.value.iter().map(shown).collect();
            let columns = &["name", "at", "time", "author", "automatic", "note"];
            Ok(Output::List { columns, items, revision: Some(found.revision) }.into())
        }
        PointCommand::Show { name } => {
            let point = named(context, &client, &name).await?;
            Ok(Output::One { item: shown(&point), revision: None }.into())
        }
        PointCommand::Remove { name } => {
            let (point, _) = named(context, &client, &name).await?;
            context.confirm(&format!("Forget rollback point {name}, on every machine?"))?;
            let what = format!("rollback point {name}");
            let (revision, _) = context.propose(&client, Body::RemovePoint { point }, &what).await?;
            Ok(Output::One { item: json!({ "name": name, "id": point.to_string() }), revision: Some(revision) }.into())
        }
    }
}

async fn named(context: &Context, client: &Client, name: &str) -> Result<(RecordId, Point), Failure> {
    let points = client.points(context.read_now()).await?.value;
    points.into_iter().find(|(_, point)| point.name == name).ok_or_else(|| {
        let message = format!("there is no rollback point `{name}`: `zyflow point list` shows all");
        Failure::new(Code::NotFound, message)
    })
}

fn shown((id, point): &(RecordId, Point)) -> Value {
    json!({
        "id": id.to_string(),
        "name": point.name,
        "at": point.revision.0,
        "time": time(point.time),
        "author": point.author,
        "automatic": point.is_automatic,
        "note": point.note,
    })
}
