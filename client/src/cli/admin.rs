//! `zyflow status`, `zyflow doctor`.

use super::context::Context;
use super::quorum::availability;
use super::report::{Failure, Output, Report};
use crate::code::Code;
use crate::error::ClientError;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use zyflow_api::v1;

/// More revisions than this between a node's memory and its SQLite, and `doctor` says so: a second of heavy writing.
const LAG_REVISIONS_MAX: u64 = 20_000;

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
