//! The members, as the Admin service shows and changes them.
//!
//! Nothing is decided here: what may be changed is `zyflow_raft`'s to know, and each call may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use zyflow_api::ApiError;
use zyflow_api::v1::{self, ErrorCode};
use zyflow_raft::{Consensus, MembershipError, NodeInfo};

use crate::config::Config;
use crate::services::membership_error;

/// How long a change or a wait may take where the caller doesn't say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The longest that a caller may say: a learner that gets a large snapshot takes minutes.
const TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// When to give up a call that may take so many milliseconds.
pub(crate) fn deadline(timeout_ms: Option<u64>) -> Instant {
    Instant::now() + timeout_ms.map_or(TIMEOUT_DEFAULT, Duration::from_millis).min(TIMEOUT_MAX)
}

/// Shows and changes the members through this node.
pub(crate) struct Members {
    node_id: u64,
    own: NodeInfo,
    consensus: Consensus,
}

impl Members {
    pub(crate) fn new(config: &Config, consensus: Consensus) -> Self {
        let own = NodeInfo { address: config.peer.advertise.clone(), api: config.api.advertise.clone() };
        Self { node_id: config.node.id, own, consensus }
    }

    /// Where clients reach a node; empty where nobody said.
    fn api_address(&self, node: u64) -> String {
        if node == self.node_id {
            return self.own.api.clone();
        }
        self.consensus.status().api_addresses.remove(&node).unwrap_or_default()
    }

    fn hint(&self, node_id: u64) -> v1::LeaderHint {
        v1::LeaderHint { node_id, api_address: self.api_address(node_id) }
    }

    pub(crate) fn leader(&self) -> Option<v1::LeaderHint> {
        self.consensus.status().leader.map(|node_id| self.hint(node_id))
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<v1::Member> {
        let status = self.consensus.status();
        let member = |(id, address): (&u64, &String), voter| v1::Member {
            node_id: *id,
            peer_address: address.clone(),
            api_address: self.api_address(*id),
            voter,
        };
        let voters = status.voters.iter().map(|entry| member(entry, true));
        let mut members: Vec<_> = voters.chain(status.learners.iter().map(|entry| member(entry, false))).collect();
        members.sort_by_key(|member| member.node_id);
        members
    }

    pub(crate) async fn initialize(&self, request: v1::InitializeRequest) -> Result<(), ApiError> {
        let members: BTreeMap<u64, NodeInfo> = if request.members.is_empty() {
            BTreeMap::from([(self.node_id, self.own.clone())])
        } else {
            request.members.into_iter().map(node).collect::<Result<_, _>>()?
        };
        self.consensus.initialize(members).await.map_err(|error| self.error(&error))
    }

    pub(crate) async fn transfer(&self, request: v1::TransferLeaderRequest) -> Result<(), ApiError> {
        let moved = self.consensus.transfer_leader(request.to, deadline(request.timeout_ms)).await;
        moved.map_err(|error| self.error(&error))
    }

    pub(crate) async fn add(&self, request: v1::AddLearnerRequest) -> Result<u64, ApiError> {
        let (id, info) = named(request.member)?;
        let added = self.consensus.add_learner(id, info, deadline(request.timeout_ms)).await;
        self.changed(added)
    }

    pub(crate) async fn promote(&self, request: v1::PromoteMemberRequest) -> Result<u64, ApiError> {
        self.changed(self.consensus.promote(request.node_id, deadline(request.timeout_ms)).await)
    }

    pub(crate) async fn demote(&self, request: v1::DemoteMemberRequest) -> Result<u64, ApiError> {
        self.changed(self.consensus.demote(request.node_id, deadline(request.timeout_ms)).await)
    }

    pub(crate) async fn remove(&self, request: v1::RemoveMemberRequest) -> Result<u64, ApiError> {
        self.changed(self.consensus.remove(request.node_id, deadline(request.timeout_ms)).await)
    }

    pub(crate) async fn relocate(&self, request: v1::MoveMemberRequest) -> Result<u64, ApiError> {
        let (id, mut info) = named(request.member)?;
        if info.api.is_empty() {
            info.api = self.consensus.status().api_addresses.remove(&id).unwrap_or_default();
        }
        self.changed(self.consensus.relocate(id, info, deadline(request.timeout_ms)).await)
    }

    /// One member after the other, so that each step has a majority that answers.
    pub(crate) async fn change(&self, request: v1::ChangeMembershipRequest) -> Result<u64, ApiError> {
        let wanted: BTreeSet<u64> = request.voters.into_iter().collect();
        let voters: BTreeSet<u64> = self.consensus.status().voters.into_keys().collect();
        if wanted.is_empty() {
            return Err(ApiError::new(ErrorCode::Invalid, "a cluster needs at least one voter"));
        }
        for joining in &wanted - &voters {
            let promoted = self.consensus.promote(joining, deadline(None)).await;
            promoted.map_err(|error| self.error(&error))?;
        }
        for leaving in &voters - &wanted {
            let left = if request.keep_learners {
                self.consensus.demote(leaving, deadline(None)).await
            } else {
                self.consensus.remove(leaving, deadline(None)).await
            };
            left.map_err(|error| self.error(&error))?;
        }
        Ok(self.consensus.status().committed)
    }

    fn changed(&self, changed: Result<(), MembershipError>) -> Result<u64, ApiError> {
        changed.map_err(|error| self.error(&error))?;
        Ok(self.consensus.status().committed)
    }

    /// With the leader, where it is another node.
    fn error(&self, error: &MembershipError) -> ApiError {
        let mut told = membership_error(error);
        if let MembershipError::NotLeader { leader: Some(leader) } = error {
            told.leader = Some(self.hint(*leader));
        }
        told
    }
}

fn named(member: Option<v1::Member>) -> Result<(u64, NodeInfo), ApiError> {
    node(member.unwrap_or_default())
}

fn node(member: v1::Member) -> Result<(u64, NodeInfo), ApiError> {
    let is_address = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if member.node_id == 0 || !is_address(&member.peer_address) {
        let message = format!(
            "a member needs an id from 1 up and the HOST:PORT of its peer port, not {} at `{}`",
            member.node_id, member.peer_address
        );
        return Err(ApiError::new(ErrorCode::Invalid, message));
    }
    if !member.api_address.is_empty() && !is_address(&member.api_address) {
        let message = format!("`{}` is no API address: write HOST:PORT, or leave it out", member.api_address);
        return Err(ApiError::new(ErrorCode::Invalid, message));
    }
    Ok((member.node_id, NodeInfo { address: member.peer_address, api: member.api_address }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_need_an_id_and_addresses_that_can_be_called() {
        let member = |node_id, peer: &str, api: &str| {
            node(v1::Member { node_id, peer_address: peer.to_owned(), api_address: api.to_owned(), voter: false })
        };
        assert!(member(4, "[::1]:7101", "a:7201").is_ok());
        assert!(member(4, "a:7101", "").is_ok());
        for (id, peer, api) in
            [(0, "a:1", ""), (4, "", ""), (4, "a", ""), (4, "a:0", ""), (4, ":1", ""), (4, "a:1", "b")]
        {
            let error = member(id, peer, api).expect_err("refused");
            assert_eq!(error.code, ErrorCode::Invalid, "{id} {peer} {api}");
        }
    }
}
