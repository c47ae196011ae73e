//! Which step brings a change of membership forward, and which may not be taken.
//!
//! Pure: from what the leader knows to the next step. A step that couldn't be committed is refused, because an uncommitted change of
//! voters blocks every later one: a change needs a majority of the old voters and of the new. That is also why there is no way to
//! force one.

use std::collections::{BTreeMap, BTreeSet};

use zyflow_crypto::Role;
use zyflow_storage::types::{NodeId, NodeInfo};

use crate::error::{MembershipError, Reach};

/// Entries that a learner may be behind when it gets a vote: some tenths of a second of full load. A voter that is further behind
/// counts for the quorum at once and can't help to make it.
pub const PROMOTE_LAG_MAX: u64 = 512;

/// A step, as openraft takes it.
pub(super) type Change = openraft::ChangeMembers<NodeId, NodeInfo>;

/// What the leader knows of the members.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// Those who vote, or will once the change that is under way is finished.
    pub(super) voters: BTreeSet<NodeId>,
    /// All of them.
    pub(super) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(super) removed: BTreeSet<NodeId>,
    /// Those heard from lately, and the leader.
    pub(super) reachable: BTreeSet<NodeId>,
    /// What their certificates say, as far as they were seen.
    pub(super) roles: BTreeMap<NodeId, Role>,
    /// The newest entry that each has.
    pub(super) matched: BTreeMap<NodeId, u64>,
    pub(super) committed: u64,
}

impl Members {
    pub(super) fn add(&self, node: NodeId, info: &NodeInfo) -> Result<Option<Change>, MembershipError> {
        if self.removed.contains(&node) {
            let newest = self.removed.iter().chain(self.nodes.keys()).max().copied().unwrap_or(node);
            return Err(MembershipError::Removed { node, free: newest.saturating_add(1) });
        }
        match self.nodes.get(&node) {
            Some(known) if known.address == info.address => Ok(None),
            Some(known) => Err(MembershipError::Elsewhere { node, address: known.address.clone() }),
            None => {
                self.check_address(node, &info.address)?;
                Ok(Some(Change::AddNodes([(node, info.clone())].into())))
            }
        }
    }

    pub(super) fn promote(&self, node: NodeId) -> Result<Option<Change>, MembershipError> {
        self.check_member(node)?;
        if self.voters.contains(&node) {
            return Ok(None);
        }
        if self.roles.get(&node) == Some(&Role::Learner) {
            return Err(MembershipError::LearnersCertificate { node });
        }
        if self.lag(node) > PROMOTE_LAG_MAX {
            return Err(self.lagging(node));
        }
        let voters: BTreeSet<NodeId> = self.voters.iter().copied().chain([node]).collect();
        self.check_quorum(node, voters)?;
        Ok(Some(Change::AddVoterIds([node].into())))
    }

    pub(super) fn demote(&self, node: NodeId) -> Result<Option<Change>, MembershipError> {
        self.check_member(node)?;
        if !self.voters.contains(&node) {
            return Ok(None);
        }
        self.check_quorum(node, self.without(node))?;
        Ok(Some(Change::RemoveVoters([node].into())))
    }

    pub(super) fn remove(&self, node: NodeId) -> Result<Option<Change>, MembershipError> {
        if self.removed.contains(&node) {
            return Ok(None);
        }
        let first = self.demote(node)?;
        Ok(Some(first.unwrap_or_else(|| Change::RemoveNodes([node].into()))))
    }

    pub(super) fn relocate(&self, node: NodeId, info: &NodeInfo) -> Result<Option<Change>, MembershipError> {
        self.check_member(node)?;
        self.check_address(node, &info.address)?;
        if self.nodes.get(&node) == Some(info) {
            return Ok(None);
        }
        Ok(Some(Change::SetNodes([(node, info.clone())].into())))
    }

    pub(super) fn lagging(&self, node: NodeId) -> MembershipError {
        let (matched, committed) = (self.matched.get(&node).copied().unwrap_or(0), self.committed);
        MembershipError::Lagging { node, matched, committed, limit: PROMOTE_LAG_MAX }
    }

    pub(super) fn outnumbered(&self, node: NodeId) -> MembershipError {
        let voters = self.without(node);
        let reachable = voters.intersection(&self.reachable).copied().collect();
        MembershipError::Outnumbered { node, reach: Reach { reachable, voters } }
    }

    fn lag(&self, node: NodeId) -> u64 {
        self.committed.saturating_sub(self.matched.get(&node).copied().unwrap_or(0))
    }

    fn without(&self, node: NodeId) -> BTreeSet<NodeId> {
        self.voters.iter().copied().filter(|voter| *voter != node).collect()
    }

    fn check_member(&self, node: NodeId) -> Result<(), MembershipError> {
        let is_member = self.nodes.contains_key(&node);
        if is_member { Ok(()) } else { Err(MembershipError::NotA { node, role: "member" }) }
    }

    fn check_address(&self, node: NodeId, address: &str) -> Result<(), MembershipError> {
        let holder = self.nodes.iter().find(|(id, info)| **id != node && info.address == address);
        holder.map_or(Ok(()), |(holder, _)| {
            Err(MembershipError::AddressTaken { holder: *holder, address: address.to_owned() })
        })
    }

    /// Whether a majority of these voters answers.
    fn check_quorum(&self, node: NodeId, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let reachable: BTreeSet<NodeId> = voters.intersection(&self.reachable).copied().collect();
        // Of no voters none is a majority either: the last one stays.
        let is_quorum = reachable.len() > voters.len() / 2;
        if is_quorum { Ok(()) } else { Err(MembershipError::Outnumbered { node, reach: Reach { reachable, voters } }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters 1, 2, 3 and learner 4, all of them there; 5 was removed.
    fn members() -> Members {
        Members {
            voters: [1, 2, 3].into(),
            nodes: (1..=4).map(|id| (id, NodeInfo::at(format!("n{id}:1")))).collect(),
            removed: [5].into(),
            reachable: [1, 2, 3, 4].into(),
            roles: BTreeMap::new(),
            matched: (1..=4).map(|id| (id, 10_000)).collect(),
            committed: 10_000,
        }
    }

    fn at(address: &str) -> NodeInfo {
        NodeInfo::at(address)
    }

    #[test]
    fn a_new_node_is_added_once_and_a_removed_id_never_again() {
        assert_eq!(members().add(6, &at("n6:1")), Ok(Some(Change::AddNodes([(6, at("n6:1"))].into()))));
        assert_eq!(members().add(4, &at("n4:1")), Ok(None));
        assert_eq!(members().add(5, &at("n5:1")), Err(MembershipError::Removed { node: 5, free: 6 }));
        assert!(matches!(members().add(4, &at("n9:1")), Err(MembershipError::Elsewhere { node: 4, .. })));
        assert!(matches!(members().add(6, &at("n2:1")), Err(MembershipError::AddressTaken { holder: 2, .. })));
    }

    #[test]
    fn a_learner_is_promoted_once_it_has_caught_up() {
        let mut members = members();
        assert_eq!(members.promote(4), Ok(Some(Change::AddVoterIds([4].into()))));
        assert_eq!(members.promote(3), Ok(None));
        assert_eq!(members.promote(9), Err(MembershipError::NotA { node: 9, role: "member" }));
        members.matched.insert(4, 10_000 - PROMOTE_LAG_MAX);
        assert!(members.promote(4).is_ok());
        members.matched.insert(4, 10_000 - PROMOTE_LAG_MAX - 1);
        let figures = MembershipError::Lagging { node: 4, matched: 9_487, committed: 10_000, limit: 512 };
        assert_eq!(members.promote(4), Err(figures));
        members.matched.remove(&4);
        assert!(matches!(members.promote(4), Err(MembershipError::Lagging { matched: 0, .. })));
    }

    #[test]
    fn a_learners_certificate_can_not_vote() {
        let mut members = members();
        members.roles.insert(4, Role::Learner);
        assert_eq!(members.promote(4), Err(MembershipError::LearnersCertificate { node: 4 }));
        members.roles.insert(4, Role::Voter);
        assert!(members.promote(4).is_ok());
    }

    #[test]
    fn no_change_of_voters_that_could_not_be_committed() {
        let mut members = members();
        assert_eq!(members.demote(2), Ok(Some(Change::RemoveVoters([2].into()))));
        members.reachable = [1, 2].into();
        // 1 and 3 would remain, and 3 doesn't answer.
        let reach = Reach { reachable: [1].into(), voters: [1, 3].into() };
        assert_eq!(members.demote(2), Err(MembershipError::Outnumbered { node: 2, reach }));
        assert!(matches!(members.remove(2), Err(MembershipError::Outnumbered { .. })));
        assert!(members.demote(3).is_ok(), "the one that is gone is what should be removed");
        // Of 1, 2, 3, 4 three are needed.
        assert!(matches!(members.promote(4), Err(MembershipError::Outnumbered { .. })));
    }

    #[test]
    fn the_last_voter_stays() {
        let alone = Members { voters: [1].into(), ..members() };
        assert!(matches!(alone.demote(1), Err(MembershipError::Outnumbered { .. })));
        assert!(matches!(alone.remove(1), Err(MembershipError::Outnumbered { .. })));
    }

    #[test]
    fn a_voter_is_demoted_before_it_is_removed() {
        assert_eq!(members().remove(3), Ok(Some(Change::RemoveVoters([3].into()))));
        assert_eq!(members().remove(4), Ok(Some(Change::RemoveNodes([4].into()))));
        assert_eq!(members().remove(5), Ok(None), "it is done");
        assert_eq!(members().remove(9), Err(MembershipError::NotA { node: 9, role: "member" }));
    }

    #[test]
    fn an_address_changes_to_one_that_nobody_has() {
        let there = NodeInfo { address: "n9:1".to_owned(), api: "n9:2".to_owned() };
        assert_eq!(members().relocate(3, &there), Ok(Some(Change::SetNodes([(3, there.clone())].into()))));
        assert_eq!(members().relocate(3, &at("n3:1")), Ok(None));
        assert!(matches!(members().relocate(3, &at("n2:1")), Err(MembershipError::AddressTaken { holder: 2, .. })));
        assert_eq!(members().relocate(9, &there), Err(MembershipError::NotA { node: 9, role: "member" }));
    }
}
