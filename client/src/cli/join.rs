//! `zyflow cluster token` and `zyflow cluster join`: how a new machine becomes a member.

use super::cluster::{Admin, add};
use super::context::Context;
use super::report::{Failure, Output, Report};
use crate::client::Client;
use crate::code::Code;
use crate::error::ClientError;
use crate::join::{Addresses, JoinError, prepare};
use crate::profile::Profile;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zyflow_api::v1;
use zyflow_crypto::join::{JoinToken, TokenError};
use zyflow_machine::id::ClusterTime;

/// Pause between two looks whether the new node runs.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// What the node may become: a learner, or a voter (which joins as a learner too, until it is promoted).
    #[arg(long, value_enum, default_value_t = JoinRole::Learner)]
    role: JoinRole,
    /// How long the token is good, as 10m; a day at most.
    #[arg(long, value_name = "TIME", default_value = "60m", value_parser = super::args::duration)]
    ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum JoinRole {
    Learner,
    Voter,
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The token, from `zyflow cluster token`; - reads it from standard input.
    token: String,
    /// Folder for the node's files: new, or of an earlier try with this token.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// HOST:PORT of its peer port, as the other nodes reach it.
    #[arg(long, value_name = "ADDRESS")]
    peer: String,
    /// HOST:PORT of its API, as clients reach it.
    #[arg(long, value_name = "ADDRESS")]
    api: String,
    /// IP:PORT of its metrics and health.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7301")]
    http: SocketAddr,
    /// How long to wait until the node was started and has caught up.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::args::duration)]
    wait: Duration,
    /// Only make the folder ready.
    #[arg(long)]
    prepare: bool,
}

/// Asks the node of `--node`, else the first that has the CA's key.
pub(super) async fn token(context: &Context, args: &TokenArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let (role, shown) = match args.role {
        JoinRole::Learner => (v1::JoinRole::Learner, "learner"),
        JoinRole::Voter => (v1::JoinRole::Voter, "voter"),
    };
    let ttl_ms = u64::try_from(args.ttl.as_millis()).ok();
    let asked: Vec<usize> = match context.node()? {
        Some(node) => vec![node],
        None => (0..client.endpoints().len()).collect(),
    };
    let mut last: Option<ClientError> = None;
    for node in asked {
        let request = v1::CreateJoinTokenRequest { role: role.into(), ttl_ms };
        let call = |mut admin: Admin| async move { admin.create_join_token(request).await };
        match client.admin(node, context.within(), call).await {
            Ok(made) => {
                let item = json!({
                    "node": made.node_id,
                    "role": shown,
                    "expires": super::task_view::time(ClusterTime(made.expires_ms)),
                    "token": made.token,
                });
                return Ok(Output::One { item, revision: None }.into());
            }
            Err(error) if matches!(error.code(), Code::Precondition | Code::Connect) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| Failure::new(Code::Usage, "the profile names no node"), Failure::from))
}

pub(super) async fn join(context: &Context, args: JoinArgs) -> Result<Report, Failure> {
    let text = if args.token == "-" { read_line()? } else { args.token.clone() };
    let token: JoinToken = text.parse().map_err(|error: TokenError| Failure::new(Code::Usage, error.to_string()))?;
    let addresses = Addresses { peer: args.peer.clone(), api: args.api.clone(), http: args.http };
    let prepared = prepare(&token, &args.dir, &addresses, context.within()).await.map_err(|error| failure(&error))?;
    let config = prepared.config.display();
    let start = format!("zyflowd new --config {config} && zyflowd run --config {config}");
    let node = token.node_id;
    if args.prepare {
        let item = json!({ "node": node, "now": "prepared", "start": start });
        return Ok(Output::One { item, revision: None }.into());
    }
    let end = Instant::now() + args.wait;
    let own = Profile { endpoints: vec![args.api.clone()], ..load(&prepared.profile)? };
    wait_for(&Client::new(&own)?, &start, end).await?;
    let within = end.saturating_duration_since(Instant::now());
    let member = v1::Member { node_id: node, peer_address: args.peer, api_address: args.api, voter: false };
    add(&context.elsewhere(prepared.profile, within), member).await
}

fn load(profile: &std::path::Path) -> Result<Profile, Failure> {
    Profile::load(profile).map_err(|error| ClientError::from(error).into())
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| Failure::new(Code::File, format!("the token can't be read from standard input: {error}")))?;
    Ok(line)
}

/// Until the new node answers; says once what is waited for.
async fn wait_for(client: &Client, start: &str, end: Instant) -> Result<(), Failure> {
    let mut is_told = false;
    loop {
        let Err(error) = client.node_status(0, LOOK_DEADLINE).await else { return Ok(()) };
        if error.code() != Code::Connect && error.code() != Code::Timeout {
            return Err(error.into());
        }
        if Instant::now() >= end {
            let message =
                format!("the new node doesn't answer ({error}); start it with `{start}`, then repeat this command");
            return Err(Failure::new(error.code(), message));
        }
        if !std::mem::replace(&mut is_told, true) {
            let told = writeln!(std::io::stderr(), "ready; now start the node: {start}");
            told.map_err(|error| Failure::new(Code::File, format!("standard error: {error}")))?;
        }
        sleep(LOOK_PAUSE).await;
    }
}

fn failure(error: &JoinError) -> Failure {
    let code = match error {
        JoinError::Client(error) => error.code(),
        JoinError::Key(_) | JoinError::DataKey(_) | JoinError::Certificate(_) | JoinError::Identity { .. } => {
            Code::Certificate
        }
        JoinError::File { .. } | JoinError::Occupied(_) => Code::File,
        JoinError::Address(_) => Code::Usage,
    };
    Failure::new(code, error.to_string())
}
