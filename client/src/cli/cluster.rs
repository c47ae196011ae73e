//! `zyflow cluster`: who takes part, who votes, who leads.
//!
//! Changes are the leader's. It is looked for among the profile's endpoints and the members' API addresses, and again where it changes
//! meanwhile: every change may be repeated, so one that was begun under one leader is finished under the next.

use super::context::Context;
use super::join::{self, JoinArgs, TokenArgs};
use super::quorum::{Statuses, availability};
use super::report::{Failure, Output, Report};
use crate::client::Client;
use crate::code::Code;
use crate::error::ClientError;
use clap::Subcommand;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Response, Status};
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_machine::id::Revision;

/// How long the nodes may take to say who leads; one that is down shouldn't use up the whole time.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// Pause before the leader is looked for again: an election takes a second.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The leader is told to give up this much before we do, so that its reason arrives.
const ANSWER_MARGIN: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the members, and the ids that are used up.
    Status,
    /// Make a new cluster of nodes that are in none yet; asks the node of --node, else the first.
    Init {
        /// A first member, as ID=HOST:PORT of its peer address, with ,HOST:PORT of its API where clients should be told; may be repeated.
        /// None: the asked node alone.
        #[arg(long = "member", value_name = "ID=ADDRESS[,API]", value_parser = member)]
        members: Vec<v1::Member>,
    },
    /// Make a token with which one new machine becomes a node; on the node that has the CA's key.
    Token(TokenArgs),
    /// Make this machine a node, with a token: its folder, then, once it was started, its membership.
    Join(JoinArgs),
    /// Add a running, empty node as a learner, and wait until it has caught up.
    Add {
        /// Its node id: one that was never used.
        id: u64,
        /// HOST:PORT of its peer port.
        address: String,
        /// HOST:PORT of its API, for clients.
        #[arg(long, value_name = "ADDRESS")]
        api: Option<String>,
    },
    /// Give a learner a vote, once it has caught up.
    Promote {
        /// Its node id.
        id: u64,
    },
    /// Take a voter's vote; it stays as a learner.
    Demote {
        /// Its node id.
        id: u64,
    },
    /// Take a member out for good. Its id is never used again.
    Remove {
        /// Its node id.
        id: u64,
    },
    /// Change where a member is reached.
    Address {
        /// Its node id.
        id: u64,
        /// HOST:PORT of its peer port.
        address: String,
        /// HOST:PORT of its API, for clients [default: as it was].
        #[arg(long, value_name = "ADDRESS")]
        api: Option<String>,
    },
    /// Hand leadership to another voter.
    Transfer {
        /// Its node id.
        to: u64,
    },
}

fn member(text: &str) -> Result<v1::Member, String> {
    let wrong = || format!("`{text}` is no member: write ID=HOST:PORT, for example 1=10.0.0.1:7101");
    let (id, addresses) = text.split_once('=').ok_or_else(wrong)?;
    let (peer, api) = addresses.split_once(',').map_or((addresses, None), |(peer, api)| (peer, Some(api)));
    let node_id = id.parse::<u64>().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
    let are_addresses = peer.contains(':') && api.is_none_or(|api| api.contains(':'));
    if are_addresses { Ok(member_of(node_id, peer.to_owned(), api.map(str::to_owned))) } else { Err(wrong()) }
}

fn member_of(node_id: u64, peer_address: String, api: Option<String>) -> v1::Member {
    v1::Member { node_id, peer_address, api_address: api.unwrap_or_default(), voter: false }
}

pub(super) async fn run(context: &Context, command: ClusterCommand) -> Result<Report, Failure> {
    match command {
        ClusterCommand::Status => status(context).await,
        ClusterCommand::Init { members } => init(context, members).await,
        ClusterCommand::Token(args) => join::token(context, &args).await,
        ClusterCommand::Join(args) => join::join(context, args).await,
        ClusterCommand::Add { id, address, api } => add(context, member_of(id, address, api)).await,
        ClusterCommand::Promote { id: node_id } => {
            let call = |mut admin: Admin, timeout_ms| async move {
                admin.promote_member(v1::PromoteMemberRequest { node_id, timeout_ms }).await
            };
            changed(node_id, "voter", at_leader(context, call).await?.revision)
        }
        ClusterCommand::Demote { id: node_id } => {
            let call = |mut admin: Admin, timeout_ms| async move {
                admin.demote_member(v1::DemoteMemberRequest { node_id, timeout_ms }).await
            };
            changed(node_id, "learner", at_leader(context, call).await?.revision)
        }
        ClusterCommand::Remove { id: node_id } => {
            context.confirm(&format!("Remove node {node_id} for good? Its id is never used again."))?;
            let call = |mut admin: Admin, timeout_ms| async move {
                admin.remove_member(v1::RemoveMemberRequest { node_id, timeout_ms }).await
            };
            changed(node_id, "removed", at_leader(context, call).await?.revision)
        }
        ClusterCommand::Address { id, address, api } => {
            let member = Some(member_of(id, address, api));
            let call = |mut admin: Admin, timeout_ms| {
                let request = v1::MoveMemberRequest { member: member.clone(), timeout_ms };
                async move { admin.move_member(request).await }
            };
            changed(id, "moved", at_leader(context, call).await?.revision)
        }
        ClusterCommand::Transfer { to } => {
            let call = |mut admin: Admin, timeout_ms| async move {
                admin.transfer_leader(v1::TransferLeaderRequest { to, timeout_ms }).await
            };
            at_leader(context, call).await?;
            Ok(Output::One { item: json!({ "leader": to }), revision: None }.into())
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the end of every arm that changes something")]
fn changed(node: u64, now: &str, revision: u64) -> Result<Report, Failure> {
    Ok(Output::One { item: json!({ "node": node, "now": now }), revision: Some(Revision(revision)) }.into())
}

/// Adds a learner, and waits until it has caught up.
pub(super) async fn add(context: &Context, member: v1::Member) -> Result<Report, Failure> {
    let id = member.node_id;
    let call = |mut admin: Admin, timeout_ms| {
        let request = v1::AddLearnerRequest { member: Some(member.clone()), timeout_ms };
        async move { admin.add_learner(request).await }
    };
    changed(id, "learner", at_leader(context, call).await?.revision)
}

async fn init(context: &Context, members: Vec<v1::Member>) -> Result<Report, Failure> {
    let client = context.client()?;
    let count = members.len().max(1);
    let request = v1::InitializeRequest { members };
    let call = |mut admin: Admin| async move { admin.initialize(request).await };
    client.admin(context.node()?.unwrap_or(0), context.within(), call).await?;
    Ok(Output::One { item: json!({ "members": count }), revision: None }.into())
}

pub(super) type Admin = AdminClient<Channel>;

/// Calls the leader, whoever that is until it has answered.
async fn at_leader<T, F, Fut>(context: &Context, mut call: F) -> Result<T, Failure>
where
    F: FnMut(Admin, Option<u64>) -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let end = Instant::now() + context.within();
    let mut last: Option<Failure> = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let late = || Failure::new(Code::Timeout, format!("no leader answered within {:?}", context.within()));
            return Err(last.unwrap_or_else(late));
        }
        let (client, statuses) = everyone(context, left).await?;
        let failure = match leader_of(&statuses) {
            Some(leader) => {
                let left = end.saturating_duration_since(Instant::now());
                let patience = left.saturating_sub(ANSWER_MARGIN.min(left / 4));
                let timeout_ms = u64::try_from(patience.as_millis()).ok();
                match client.admin(leader, left, |admin| call(admin, timeout_ms)).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if is_elsewhere(&error) => error.into(),
                    Err(error) => return Err(error.into()),
                }
            }
            None => availability(&statuses).unwrap_or_else(|| {
                Failure::new(
                    Code::NotLeader,
                    "the leader is no endpoint of the profile, and no member says where its API is: add it to the profile",
                )
            }),
        };
        last = Some(failure);
        sleep(LOOK_PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

/// Whether another node leads now, or soon.
fn is_elsewhere(error: &ClientError) -> bool {
    matches!(error.code(), Code::NotLeader | Code::Connect | Code::Stopping | Code::NodeFailed)
}

/// A client of the profile's endpoints and of every other member that says where its API is, and what all of them are.
pub(super) async fn everyone(
    context: &Context,
    within: Duration,
) -> Result<(Client, Vec<Result<v1::NodeStatusResponse, ClientError>>), Failure> {
    let within = within.min(LOOK_DEADLINE);
    let mut profile = context.profile()?;
    let client = context.client()?;
    let statuses = client.node_statuses(within).await;
    let newest = statuses.iter().flatten().max_by_key(|status| (status.term, status.applied));
    let unknown: Vec<String> = newest
        .into_iter()
        .flat_map(|status| &status.members)
        .filter(|member| !statuses.iter().flatten().any(|status| status.node_id == member.node_id))
        .map(|member| member.api_address.clone())
        .filter(|api| !api.is_empty() && !profile.endpoints.contains(api))
        .collect();
    if unknown.is_empty() {
        return Ok((client, statuses));
    }
    profile.endpoints.extend(unknown);
    let client = Client::new(&profile)?;
    let statuses = client.node_statuses(within).await;
    Ok((client, statuses))
}

/// The endpoint of the leader.
fn leader_of(statuses: &Statuses) -> Option<usize> {
    let leads = |status: &Result<v1::NodeStatusResponse, ClientError>| match status {
        Ok(status) if status.role() == v1::NodeRole::Leader => Some(status.term),
        Ok(_) | Err(_) => None,
    };
    let leaders = statuses.iter().enumerate().filter_map(|(endpoint, status)| Some((leads(status)?, endpoint)));
    leaders.max().map(|(_, endpoint)| endpoint)
}

/// The members as the leader sees them, else as the node of --node does.
async fn status(context: &Context) -> Result<Report, Failure> {
    let (client, statuses) = everyone(context, context.within()).await?;
    let asked = context.node()?.or_else(|| leader_of(&statuses));
    let Some(asked) = asked else {
        let no_leader = || Failure::new(Code::NoQuorum, "no node knows a leader: ask one node with --node N");
        return Err(availability(&statuses).unwrap_or_else(no_leader));
    };
    let call = |mut admin: Admin| async move { admin.cluster_status(v1::ClusterStatusRequest {}).await };
    let found = client.admin(asked, context.within(), call).await?;
    let versions: BTreeMap<u64, &str> =
        statuses.iter().flatten().map(|status| (status.node_id, status.version.as_str())).collect();
    let members = found.members.iter().map(|status| shown(&found, status, &versions));
    let removed = found.removed.iter().map(|id| json!({ "node": id, "role": "removed" }));
    let items = members.chain(removed).collect();
    let columns = &["node", "role", "leader", "peer_address", "api_address", "matched", "lag", "version"];
    Ok(Output::List { columns, items, revision: None }.into())
}

fn shown(cluster: &v1::ClusterStatusResponse, status: &v1::MemberStatus, versions: &BTreeMap<u64, &str>) -> Value {
    let member = status.member.clone().unwrap_or_default();
    json!({
        "node": member.node_id,
        "role": if member.voter { "voter" } else { "learner" },
        "leader": status.leader,
        "peer_address": member.peer_address,
        "api_address": member.api_address,
        "matched": status.matched,
        "committed": cluster.committed,
        "lag": status.matched.map(|matched| cluster.committed.saturating_sub(matched)),
        "version": versions.get(&member.node_id),
        "term": cluster.term,
        "changing": cluster.changing,
        "cluster": cluster.cluster,
        "lineage": cluster.lineage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_id_and_addresses() {
        assert_eq!(member("2=10.0.0.2:7101"), Ok(member_of(2, "10.0.0.2:7101".to_owned(), None)));
        let with_api = member_of(2, "a:1".to_owned(), Some("a:2".to_owned()));
        assert_eq!(member("2=a:1,a:2"), Ok(with_api));
        for bad in ["", "2", "0=a:1", "x=a:1", "1=nowhere", "1=a:1,nowhere"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_leader_of_the_newest_term_is_asked() {
        let node =
            |term, role: v1::NodeRole| Ok(v1::NodeStatusResponse { term, role: role.into(), ..Default::default() });
        let cut_off = node(3, v1::NodeRole::Leader);
        let statuses = [cut_off, node(4, v1::NodeRole::Follower), node(4, v1::NodeRole::Leader)];
        assert_eq!(leader_of(&statuses), Some(2));
        assert_eq!(leader_of(&statuses[..2]), Some(0));
        assert_eq!(leader_of(&statuses[1..2]), None);
    }

    #[test]
    fn lag_is_what_is_committed_and_missing() {
        let cluster = v1::ClusterStatusResponse { committed: 100, ..Default::default() };
        let member = |matched| v1::MemberStatus { matched, ..Default::default() };
        let lag = |matched| shown(&cluster, &member(matched), &BTreeMap::new())["lag"].clone();
        assert_eq!(lag(Some(60)), json!(40));
        assert_eq!(lag(Some(101)), json!(0), "the leader's own log is ahead of what is committed");
        assert_eq!(lag(None), Value::Null, "only the leader knows");
    }
}
