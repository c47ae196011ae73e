//! `zyflow status`, `zyflow doctor`, `zyflow cluster`.

use super::context::Context;
use super::quorum::availability;
use super::report::{Failure, Output, Report};
use crate::client::Client;
use crate::code::Code;
use crate::error::ClientError;
use clap::Subcommand;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;

/// More revisions than this between a node's memory and its SQLite, and `doctor` says so: a second of heavy writing.
const LAG_REVISIONS_MAX: u64 = 20_000;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the members.
    Status,
    /// Make a new cluster of nodes that are in none yet; asks the node of --node, else the first.
    Init {
        /// A first member, as ID=HOST:PORT of its peer address; may be repeated. None: the asked node alone.
        #[arg(long = "member", value_name = "ID=ADDRESS", value_parser = member)]
        members: Vec<(u64, String)>,
    },
    /// Hand leadership to another voter.
    Transfer {
        /// Its node id.
        to: u64,
    },
}

fn member(text: &str) -> Result<(u64, String), String> {
    let parsed = text.split_once('=').and_then(|(id, address)| Some((id.parse::<u64>().ok()?, address)));
    parsed
        .filter(|(id, address)| *id > 0 && address.contains(':'))
        .map(|(id, address)| (id, address.to_owned()))
        .ok_or_else(|| format!("`{text}` is no member: write ID=HOST:PORT, for example 1=10.0.0.1:7101"))
}

pub(super) async fn status(context: &Context) -> Result<Report, Failure> {
    let client = context.client()?;
    let statuses = client.node_statuses(context.within()).await;
    let items = client.endpoints().zip(&statuses).map(|(endpoint, status)| node(endpoint, status)).collect();
    let failure = availability(&statuses);
    let columns =
        &["node", "endpoint", "role", "leader", "term", "committed", "applied", "durable", "flushed", "error"];
    Ok(Report { output: Output::List { columns, items, revision: None }, failure })
}

fn node(endpoint: &str, status: &Result<v1::NodeStatusResponse, ClientError>) -> Value {
    match status {
        Ok(status) => json!({
            "node": status.node_id,
            "endpoint": endpoint,
            "role": role(status.role()),
            "leader": status.leader.as_ref().map(|leader| leader.node_id),
            "term": status.term,
            "last_log_index": status.last_log_index,
            "committed": status.committed,
            "applied": status.applied,
            "durable": status.durable,
            "flushed": status.flushed,
            "backlog_ops": status.backlog_ops,
            "millis_since_quorum_ack": status.millis_since_quorum_ack,
            "cluster": status.cluster,
            "lineage": status.lineage,
            "version": status.version,
            "data": status.data,
            "uptime_ms": status.uptime_ms,
            "error": status.fatal,
        }),
        Err(error) => json!({ "node": null, "endpoint": endpoint, "role": "unreachable", "error": error.to_string() }),
    }
}

fn role(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Unspecified => "unknown",
        v1::NodeRole::Leader => "leader",
        v1::NodeRole::Follower => "follower",
        v1::NodeRole::Candidate => "candidate",
        v1::NodeRole::Learner => "learner",
        v1::NodeRole::Stopped => "stopped",
    }
}

pub(super) async fn cluster(context: &Context, command: ClusterCommand) -> Result<Report, Failure> {
    let client = context.client()?;
    match command {
        ClusterCommand::Status => members(context, &client).await,
        ClusterCommand::Init { members } => {
            let member = |(node_id, peer_address): (u64, String)| v1::Member {
                node_id,
                peer_address,
                api_address: String::new(),
                voter: true,
            };
            let count = members.len().max(1);
            let request = v1::InitializeRequest { members: members.into_iter().map(member).collect() };
            let call = |mut admin: AdminClient<_>| async move { admin.initialize(request).await };
            client.admin(context.node()?.unwrap_or(0), context.within(), call).await?;
            Ok(Output::One { item: json!({ "members": count }), revision: None }.into())
        }
        ClusterCommand::Transfer { to } => {
            let leader = leader(context, &client).await?;
            let request = v1::TransferLeaderRequest { to };
            let call = |mut admin: AdminClient<_>| async move { admin.transfer_leader(request).await };
            client.admin(leader, context.within(), call).await?;
            Ok(Output::One { item: json!({ "leader": to }), revision: None }.into())
        }
    }
}

/// The endpoint of the leader.
async fn leader(context: &Context, client: &Client) -> Result<usize, Failure> {
    let statuses = client.node_statuses(context.within()).await;
    let is_leader = |status: &Result<v1::NodeStatusResponse, ClientError>| {
        status.as_ref().is_ok_and(|status| status.role() == v1::NodeRole::Leader)
    };
    statuses.iter().position(is_leader).ok_or_else(|| {
        availability(&statuses).unwrap_or_else(|| {
            Failure::new(
                Code::NotLeader,
                "the leader is no endpoint of the profile: add it there, or use another profile",
            )
        })
    })
}

/// The members as the leader sees them, else as any node does.
async fn members(context: &Context, client: &Client) -> Result<Report, Failure> {
    let node = match context.node()? {
        Some(node) => node,
        None => leader(context, client).await?,
    };
    let call = |mut admin: AdminClient<_>| async move { admin.cluster_status(v1::ClusterStatusRequest {}).await };
    let found = client.admin(node, context.within(), call).await?;
    let items = found.members.iter().map(|status| {
        let member = status.member.clone().unwrap_or_default();
        json!({
            "node": member.node_id,
            "role": if member.voter { "voter" } else { "learner" },
            "leader": status.leader,
            "peer_address": member.peer_address,
            "api_address": member.api_address,
            "matched": status.matched,
            "term": found.term,
            "cluster": found.cluster,
            "lineage": found.lineage,
        })
    });
    let (items, columns) = (items.collect(), &["node", "role", "leader", "peer_address", "api_address", "matched"]);
    Ok(Output::List { columns, items, revision: None }.into())
}

/// Checks that need no rights and change nothing.
pub(super) async fn doctor(context: &Context) -> Result<Report, Failure> {
    let client = context.client()?;
    let statuses = client.node_statuses(context.within()).await;
    let mut items = vec![finding("profile and certificates", Ok("usable".to_owned()))];
    for (endpoint, status) in client.endpoints().zip(&statuses) {
        items.push(finding(endpoint, examine(status)));
    }
    let answering: Vec<_> = statuses.iter().flatten().collect();
    let lineages: BTreeSet<_> = answering.iter().map(|status| (&status.cluster, &status.lineage)).collect();
    let one_history = match lineages.len() {
        0 => Err("no node answers".to_owned()),
        1 => Ok("all nodes are of one cluster and one history".to_owned()),
        _ => Err("the nodes are of several clusters or histories: correct the profile".to_owned()),
    };
    items.push(finding("one history", one_history));
    let writes =
        availability(&statuses).map_or_else(|| Ok("there is a leader".to_owned()), |failure| Err(failure.message));
    items.push(finding("writes", writes));
    let bad = items.iter().filter(|item| item["ok"] == false).count();
    let failure =
        (bad > 0).then(|| Failure::new(Code::Precondition, format!("{bad} findings need attention: see above")));
    Ok(Report { output: Output::List { columns: &["ok", "what", "finding"], items, revision: None }, failure })
}

fn finding(what: &str, found: Result<String, String>) -> Value {
    let (is_ok, text) = match found {
        Ok(text) => (true, text),
        Err(text) => (false, text),
    };
    json!({ "ok": is_ok, "what": what, "finding": text })
}

fn examine(status: &Result<v1::NodeStatusResponse, ClientError>) -> Result<String, String> {
    let status = status.as_ref().map_err(ToString::to_string)?;
    if let Some(fatal) = &status.fatal {
        return Err(format!("node {} has stopped serving: {fatal}", status.node_id));
    }
    let lag = status.applied.saturating_sub(status.flushed);
    if lag > LAG_REVISIONS_MAX {
        return Err(format!("node {}'s SQLite is {lag} revisions behind: is its disk slow or full?", status.node_id));
    }
    Ok(format!("node {} is {}, at revision {}", status.node_id, role(status.role()), status.applied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_id_and_address() {
        assert_eq!(member("2=10.0.0.2:7101"), Ok((2, "10.0.0.2:7101".to_owned())));
        for bad in ["", "2", "0=a:1", "x=a:1", "1=nowhere"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }
}
