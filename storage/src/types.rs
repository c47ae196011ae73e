//! The types that openraft is instantiated with, and short names for its generic types.
//!
//! Nothing here knows what a command means: an entry carries a sealed envelope ([`Payload`]) and the state machine
//! answers with [`Applied`]. Leader ids are of the standard kind, at most one leader per term, so a log id is
//! (term, index) as in the Raft paper.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The number of a node, unique over the whole life of a cluster and never used again.
pub type NodeId = u64;

/// What the membership keeps of each node besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Where other nodes reach it: `host:port`.
    pub address: String,
    /// Where clients reach it: `host:port`; empty where nobody said.
    pub api: String,
}

impl NodeInfo {
    /// A node that other nodes reach at `address`, and of which nobody said where clients do.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), api: String::new() }
    }
}

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// One sealed batch of commands, as the leader sealed it. Opaque here, so it prints its length and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed({} bytes)", self.0.len())
    }
}

/// What the state machine answers for one applied entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The revision at which the entry was applied: its log index.
    pub revision: u64,
    /// One encoded outcome per command of the batch, in its order. Empty for blank and membership entries.
    pub outcomes: Vec<Vec<u8>>,
}

openraft::declare_raft_types!(
    /// The instantiation of openraft that all of ZyFlow uses.
    pub TypeConfig:
        D = Payload,
        R = Applied,
        NodeId = NodeId,
        Node = NodeInfo,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// (term, node) of a candidate or leader.
pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// The part of a leader's id that log ids carry: the term.
pub type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
/// (term, index) of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote, or the privilege of an elected leader.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// One entry of the log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// What an entry carries: nothing, a sealed batch, or a membership.
pub type EntryPayload = openraft::EntryPayload<Payload, NodeId, NodeInfo>;
/// Voters, learners and their addresses.
pub type Membership = openraft::Membership<NodeId, NodeInfo>;
/// A membership with the log id of the entry that brought it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// A membership, and who was ever removed: what the tables keep, so that every node knows it, also one that came by a snapshot.
///
/// It follows from the memberships in the log alone, so it is the same on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Who takes part.
    pub membership: Membership,
    /// Who did once. Their ids are never used again.
    pub removed: BTreeSet<NodeId>,
}

impl Roster {
    /// The roster after the next membership of the log.
    #[must_use]
    pub fn followed_by(&self, next: Membership) -> Self {
        let left = self.membership.nodes().map(|(id, _)| *id).filter(|id| next.get_node(id).is_none());
        let removed = self.removed.iter().copied().chain(left).collect();
        Self { membership: next, removed }
    }
}

/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// The callback of an append.
pub type AppendDone = openraft::storage::IOFlushed<TypeConfig>;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn whoever_left_stays_on_the_roster_as_removed() {
        let members = |voters: &[NodeId], learners: &[NodeId]| {
            let nodes = voters.iter().chain(learners).map(|id| (*id, NodeInfo::at("a:1")));
            Membership::new(vec![voters.iter().copied().collect()], nodes.collect::<BTreeMap<_, _>>()).expect("valid")
        };
        let removed = |roster: &Roster| roster.removed.iter().copied().collect::<Vec<_>>();
        let roster = Roster::default().followed_by(members(&[1, 2, 3], &[]));
        assert_eq!(removed(&roster), [0; 0]);
        let roster = roster.followed_by(members(&[1, 2], &[3, 4]));
        assert_eq!(removed(&roster), [0; 0], "a demoted voter is still a member");
        let roster = roster.followed_by(members(&[1, 2], &[4]));
        assert_eq!(removed(&roster), [3]);
        let roster = roster.followed_by(members(&[2], &[]));
        assert_eq!(removed(&roster), [1, 3, 4], "once removed, always removed");
    }

    #[test]
    fn a_payload_prints_its_length_only() {
        let payload = Payload(Bytes::from_static(b"secret words"));
        assert_eq!(format!("{payload} {payload:?}"), "sealed(12 bytes) sealed(12 bytes)");
        let entry: EntryPayload = EntryPayload::Normal(payload);
        assert!(!format!("{entry:?}").contains("secret"));
    }
}
