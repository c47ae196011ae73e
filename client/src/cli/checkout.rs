//! `zyflow checkout`: folders on the machine of the node that is asked.
//!
//! `list` and `status` ask every endpoint of the profile, `add` the one of `--node` (else the first), and the others the one
//! that has the folder.

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::task_view::time;
use crate::client::Client;
use crate::code::Code;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_machine::id::ClusterTime;

#[derive(Debug, Subcommand)]
pub(super) enum CheckoutCommand {
    /// Bind a folder to a project.
    Add(AddArgs),
    /// List the bound folders.
    List,
    /// Show the files of bound folders.
    Status {
        /// Only of this folder.
        path: Option<PathBuf>,
    },
    /// Stop reading and writing a folder for now.
    Pause(PathArgs),
    /// Go on after a pause.
    Resume(PathArgs),
    /// Look at every file again.
    Rescan(RescanArgs),
    /// Unbind a folder; its files stay.
    Remove(PathArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The folder.
    path: PathBuf,
    /// The project.
    #[arg(long, value_name = "NAME")]
    project: String,
    /// Whose text stands where folder and cluster differ at first.
    #[arg(long, value_enum)]
    take: Option<TakeArg>,
    /// When files may be written: never, while they are unmodified in git, or always.
    #[arg(long, value_enum)]
    write: Option<WriteArg>,
    /// What marks mean in it, as kiro or kiro,~=blocked [default: as the project says, or each file's own dialect].
    #[arg(long, value_name = "DIALECT[,MARK=STATUS..]")]
    dialect: Option<zyflow_spec::Convention>,
}

#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// The folder.
    path: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct RescanArgs {
    #[command(flatten)]
    which: PathArgs,
    /// Deletions that are held because there are many are meant: let them spread.
    #[arg(long)]
    confirm_deletions: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TakeArg {
    /// The cluster's.
    Cluster,
    /// The folder's.
    Local,
    /// Both, merged; what can't be becomes a conflict.
    Merge,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WriteArg {
    /// Never.
    Off,
    /// While the file is as it was committed, or as we wrote it.
    Clean,
    /// Always.
    Always,
}

pub(super) async fn run(context: &Context, command: CheckoutCommand) -> Result<Report, Failure> {
    let client = context.client()?;
    match command {
        CheckoutCommand::Add(args) => add(context, &client, args).await,
        CheckoutCommand::List => list(context, &client).await,
        CheckoutCommand::Status { path } => status(context, &client, path).await,
        CheckoutCommand::Pause(args) => {
            let (node, path) = owner(context, &client, &args.path).await?;
            let request = v1::CheckoutPauseRequest { path: path.clone() };
            let call = |mut admin: AdminClient<_>| async move { admin.checkout_pause(request).await };
            client.admin(node, context.within(), call).await?;
            Ok(done(node, &path, "paused"))
        }
        CheckoutCommand::Resume(args) => {
            let (node, path) = owner(context, &client, &args.path).await?;
            let request = v1::CheckoutResumeRequest { path: path.clone() };
            let call = |mut admin: AdminClient<_>| async move { admin.checkout_resume(request).await };
            client.admin(node, context.within(), call).await?;
            Ok(done(node, &path, "resumed"))
        }
        CheckoutCommand::Rescan(args) => {
            let (node, path) = owner(context, &client, &args.which.path).await?;
            if args.confirm_deletions {
                context.confirm(&format!("Delete the changes whose files are gone from {path}, in every checkout?"))?;
            }
            let request = v1::CheckoutRescanRequest { path: path.clone(), confirm_deletions: args.confirm_deletions };
            let call = |mut admin: AdminClient<_>| async move { admin.checkout_rescan(request).await };
            client.admin(node, context.within(), call).await?;
            Ok(done(node, &path, "rescanned"))
        }
        CheckoutCommand::Remove(args) => {
            let (node, path) = owner(context, &client, &args.path).await?;
            context.confirm(&format!("Unbind {path}? Its files stay."))?;
            let request = v1::CheckoutRemoveRequest { path: path.clone() };
            let call = |mut admin: AdminClient<_>| async move { admin.checkout_remove(request).await };
            client.admin(node, context.within(), call).await?;
            Ok(done(node, &path, "removed"))
        }
    }
}

fn done(node: usize, path: &str, what: &str) -> Report {
    Output::One { item: json!({ "node": node + 1, "path": path, "done": what }), revision: None }.into()
}

async fn add(context: &Context, client: &Client, args: AddArgs) -> Result<Report, Failure> {
    let take = args.take.map(|take| match take {
        TakeArg::Cluster => v1::Take::Cluster,
        TakeArg::Local => v1::Take::Local,
        TakeArg::Merge => v1::Take::Merge,
    });
    let policy = args.write.map(|write| match write {
        WriteArg::Off => v1::WritePolicy::Off,
        WriteArg::Clean => v1::WritePolicy::Clean,
        WriteArg::Always => v1::WritePolicy::Always,
    });
    let node = context.node()?.unwrap_or(0);
    let path = absolute(&args.path)?;
    let request = v1::CheckoutAddRequest {
        path: path.clone(),
        project: args.project,
        take: take.map(Into::into),
        policy: policy.map(Into::into),
        convention: args.dialect.as_ref().map(ToString::to_string),
    };
    let call = |mut admin: AdminClient<_>| async move { admin.checkout_add(request).await };
    let added = client.admin(node, context.within(), call).await?;
    let item = added.checkout.map_or_else(|| json!({ "node": node + 1, "path": path }), |found| checkout(node, &found));
    Ok(Output::One { item, revision: None }.into())
}

async fn list(context: &Context, client: &Client) -> Result<Report, Failure> {
    let mut items = Vec::new();
    let failure = for_each_node(context, client, async |node| {
        let call = |mut admin: AdminClient<_>| async move { admin.checkout_list(v1::CheckoutListRequest {}).await };
        let found = client.admin(node, context.within(), call).await?;
        items.extend(found.checkouts.iter().map(|found| checkout(node, found)));
        Ok(())
    });
    let failure = failure.await?;
    let columns = &[
        "node",
        "project",
        "write",
        "dialect",
        "paused",
        "offline",
        "synced",
        "unsynced",
        "parked",
        "conflicts",
        "path",
    ];
    Ok(Report { output: Output::List { columns, items, revision: None }, failure })
}

async fn status(context: &Context, client: &Client, path: Option<PathBuf>) -> Result<Report, Failure> {
    let path = path.as_ref().map(absolute).transpose()?;
    let (answers, failure) = all_nodes(context, client).await?;
    let is_asked = |found: &v1::Checkout| path.as_ref().is_none_or(|path| *path == found.path);
    let mut items = Vec::new();
    for (node, answer) in &answers {
        for item in &answer.checkouts {
            if let Some(found) = item.checkout.as_ref().filter(|found| is_asked(found)) {
                items.extend(item.files.iter().map(|file| checkout_file(*node, found, file)));
            }
        }
    }
    let columns = &["node", "checkout", "path", "state", "revision", "unsynced_since", "reason"];
    Ok(Report { output: Output::List { columns, items, revision: None }, failure })
}

/// The checkouts of all nodes (or of `--node`) with their files, by endpoint from 0; and why a node couldn't be asked.
pub(super) async fn all_nodes(
    context: &Context,
    client: &Client,
) -> Result<(Vec<(usize, v1::CheckoutStatusResponse)>, Option<Failure>), Failure> {
    let mut answers = Vec::new();
    let failure = for_each_node(context, client, async |node| {
        let request = v1::CheckoutStatusRequest { path: None };
        let call = |mut admin: AdminClient<_>| async move { admin.checkout_status(request).await };
        answers.push((node, client.admin(node, context.within(), call).await?));
        Ok(())
    });
    let failure = failure.await?;
    Ok((answers, failure))
}

/// Asks the node of `--node`, else all. Some that can't be asked don't hide the others: what they said is the failure.
async fn for_each_node(
    context: &Context,
    client: &Client,
    mut ask: impl AsyncFnMut(usize) -> Result<(), crate::ClientError>,
) -> Result<Option<Failure>, Failure> {
    if let Some(node) = context.node()? {
        ask(node).await?;
        return Ok(None);
    }
    let mut failure = None;
    for node in 0..client.endpoints().len() {
        failure = ask(node).await.err().map(Failure::from).or(failure);
    }
    Ok(failure)
}

/// Which endpoint has this folder, and the folder's absolute path.
async fn owner(context: &Context, client: &Client, path: &PathBuf) -> Result<(usize, String), Failure> {
    let path = absolute(path)?;
    if let Some(node) = context.node()? {
        return Ok((node, path));
    }
    let mut owner = None;
    let failure = for_each_node(context, client, async |node| {
        let call = |mut admin: AdminClient<_>| async move { admin.checkout_list(v1::CheckoutListRequest {}).await };
        let found = client.admin(node, context.within(), call).await?;
        if found.checkouts.iter().any(|found| found.path == path) {
            owner = Some(node);
        }
        Ok(())
    });
    let failure = failure.await?;
    let unknown =
        || Failure::new(Code::NotFound, format!("{path} is bound on no node: `zyflow checkout list` shows all"));
    owner.map(|node| (node, path.clone())).ok_or_else(|| failure.unwrap_or_else(unknown))
}

/// The path as nodes know it. A folder that is gone keeps its name, so that it can still be removed.
fn absolute(path: &PathBuf) -> Result<String, Failure> {
    let absolute = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let failed = |error| Failure::new(Code::File, format!("cannot find {}: {error}; check the path", path.display()));
    let absolute = absolute.map_err(failed)?;
    let text = absolute.to_str().map(ToOwned::to_owned);
    text.ok_or_else(|| {
        Failure::new(Code::Invalid, format!("{} isn't UTF-8: choose another folder", absolute.display()))
    })
}

fn checkout(node: usize, found: &v1::Checkout) -> Value {
    let write = match found.policy() {
        v1::WritePolicy::Unspecified => "",
        v1::WritePolicy::Off => "off",
        v1::WritePolicy::Clean => "clean",
        v1::WritePolicy::Always => "always",
    };
    json!({
        "node": node + 1,
        "path": found.path,
        "project": found.project,
        "write": write,
        "paused": found.paused,
        "synced": found.synced,
        "unsynced": found.unsynced,
        "parked": found.parked,
        "conflicts": found.conflicts,
        "dialect": found.convention,
        "offline": found.offline,
        "dirtied": found.dirtied,
        "notes": found.notes,
    })
}

fn checkout_file(node: usize, found: &v1::Checkout, file: &v1::CheckoutFile) -> Value {
    let state = match file.state() {
        v1::FileState::Unspecified => "unknown",
        v1::FileState::Synced => "synced",
        v1::FileState::Unsynced => "unsynced",
        v1::FileState::Parked => "parked",
        v1::FileState::Paused => "paused",
        v1::FileState::Conflict => "conflict",
    };
    json!({
        "node": node + 1,
        "checkout": found.path,
        "path": file.path,
        "state": state,
        "reason": file.reason,
        "unsynced_since": file.unsynced_since_ms.map(|millis| time(ClusterTime(millis))),
        "revision": file.revision,
    })
}
