//! `zyflow project`.

use super::context::Context;
use super::policy;
use super::report::{Failure, Output, Report};
use super::resolve;
use crate::read::Row;
use clap::Subcommand;
use serde_json::{Value, json};
use zyflow_machine::command::Body;
use zyflow_machine::record::Project;

/// Which files a project syncs if none are named: the layouts that tools for specifications use.
const FILES_DEFAULT: [&str; 5] = [
    "tasks.md",
    "openspec/changes/*/tasks.md",
    "openspec/changes/archive/*/tasks.md",
    "specs/*/tasks.md",
    ".kiro/specs/*/tasks.md",
];

#[derive(Debug, Subcommand)]
pub(super) enum ProjectCommand {
    /// List all projects.
    List,
    /// Show a project and its changes.
    Show {
        /// Its name.
        name: String,
    },
    /// Show how a project treats conflicts, statuses and marks, or change that.
    Policy(policy::PolicyArgs),
    /// Make a project.
    Create {
        /// Its name.
        name: String,
        /// Which files of a checkout are synced, as a glob; may be repeated.
        #[arg(long = "files", value_name = "GLOB", default_values = FILES_DEFAULT)]
        files: Vec<String>,
    },
}

pub(super) async fn run(context: &Context, command: ProjectCommand) -> Result<Report, Failure> {
    let client = context.client()?;
    match command {
        ProjectCommand::Policy(args) => policy::run(context, args).await,
        ProjectCommand::List => {
            let projects = client.projects(context.read()).await?;
            let items = projects.value.iter().map(project).collect();
            let revision = Some(projects.revision);
            Ok(Output::List { columns: &["id", "name", "files"], items, revision }.into())
        }
        ProjectCommand::Show { name } => {
            let found = resolve::project(&client, context.read(), &name).await?;
            let changes = resolve::changes(&client, context.read(), Some(&name)).await?;
            let mut item = project(&found.value);
            item["changes"] = changes.value.into_iter().map(|change| change.path).collect();
            Ok(Output::One { item, revision: Some(changes.revision) }.into())
        }
        ProjectCommand::Create { name, files } => {
            let body = Body::CreateProject { name: name.clone(), files };
            let (revision, created) = context.propose(&client, body, &format!("project {name}")).await?;
            let item = json!({ "name": name, "id": created.first().map(ToString::to_string) });
            Ok(Output::One { item, revision: Some(revision) }.into())
        }
    }
}

fn project(row: &Row<Project>) -> Value {
    json!({
        "id": row.id.to_string(),
        "name": row.record.name,
        "files": row.record.files,
        "policy": policy::shown(&row.record.policy.value),
    })
}
