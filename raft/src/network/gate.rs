//! Who may say what: each call is held against the certificate of its caller.
//!
//! ```text
//!   certificate          call                     receiver
//!   cluster   ==   (the handshake saw to it) ==   cluster
//!   role      in   what the call asks for
//!   node id   ==   from  ==  node in the vote
//!                  to                        ==   node id
//!   node id                                 not in the removed
//! ```
//!
//! openraft checks none of this. Without it any holder of a certificate, an agent on a workstation, could vote or lead, and a
//! node that was removed but still runs could go on asking for votes. The receiver's own view of the membership is
//! deliberately not asked: an empty node that joins has none. Who was removed is a list that only grows, so a receiver that is
//! behind refuses too little for a while and never too much. It is looked at for each message, since streams outlive removals.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};
use tracing::warn;
use zyflow_crypto::{Identity, Role};
use zyflow_storage::types::{NodeId, Vote};

/// Stands in the metadata of a refusal where the caller was removed: nobody else tells it, since its leader stops calling it.
const REMOVED_KEY: &str = "zyflow-removed";

/// Whether a refusal says that this node was removed.
pub(crate) fn says_removed(status: &Status) -> bool {
    status.code() == tonic::Code::PermissionDenied && status.metadata().contains_key(REMOVED_KEY)
}

/// What kind of caller a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// One that votes: it may lead, campaign, replicate.
    Voter,
    /// Any replica, a learner too.
    Replica,
}

/// Refuses calls that don't fit their caller. One per node.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    cluster: Arc<str>,
    node_id: NodeId,
    removed: watch::Receiver<BTreeSet<NodeId>>,
}

/// A caller whose certificate was looked at, for one call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    identity: Arc<Identity>,
    node_id: NodeId,
    call: &'static str,
    removed: watch::Receiver<BTreeSet<NodeId>>,
}

impl Gate {
    pub(crate) fn new(cluster: &str, node_id: NodeId, removed: watch::Receiver<BTreeSet<NodeId>>) -> Self {
        Self { cluster: cluster.into(), node_id, removed }
    }

    /// Looks at cluster and role, and at whether the caller was removed.
    pub(crate) fn admit<T>(&self, request: &Request<T>, call: &'static str, asks: Asks) -> Result<Caller, Status> {
        let Some(identity) = request.extensions().get::<Arc<Identity>>() else {
            return Err(Status::unauthenticated("the connection carries no identity"));
        };
        let caller =
            Caller { identity: Arc::clone(identity), node_id: self.node_id, call, removed: self.removed.clone() };
        if *identity.cluster != *self.cluster {
            return Err(caller.refuse(&format!("this is cluster {:?}", self.cluster)));
        }
        let may = match (asks, identity.role) {
            (Asks::Voter | Asks::Replica, Role::Voter) | (Asks::Replica, Role::Learner) => true,
            (Asks::Voter, Role::Learner) | (_, Role::Agent | Role::Client | Role::Admin) => false,
        };
        if !may {
            return Err(caller.refuse("its role may not make this call"));
        }
        caller.check_not_removed()?;
        Ok(caller)
    }
}

impl Caller {
    /// The node that calls.
    pub(crate) fn node(&self) -> NodeId {
        self.identity.node_id
    }

    fn check_not_removed(&self) -> Result<(), Status> {
        let is_removed = self.removed.borrow().contains(&self.identity.node_id);
        if is_removed {
            let mut status = self.refuse("it was removed from the cluster; stop it, ids are never used again");
            status.metadata_mut().insert(REMOVED_KEY, MetadataValue::from_static("1"));
            return Err(status);
        }
        Ok(())
    }

    /// Looks at `from` and `to` of a message.
    pub(crate) fn check_ends(&self, from: NodeId, to: NodeId) -> Result<(), Status> {
        self.check_not_removed()?;
        if from != self.identity.node_id {
            return Err(self.refuse(&format!("the call says that it is from node {from}")));
        }
        if to != self.node_id {
            return Err(self.refuse(&format!("the call is for node {to}, this is node {}", self.node_id)));
        }
        Ok(())
    }

    /// Looks at the node that a vote names. A leader's calls carry an elected vote, a candidate's one that isn't yet.
    pub(crate) fn check_vote(&self, vote: &Vote, elected: bool) -> Result<(), Status> {
        let named = vote.leader_id.voted_for;
        if named != self.identity.node_id {
            return Err(self.refuse(&format!("the vote in the call is node {named}'s")));
        }
        if vote.committed != elected {
            return Err(self.refuse(if elected { "the vote was not elected" } else { "the vote is elected already" }));
        }
        Ok(())
    }

    /// Logs and makes the refusal.
    pub(crate) fn refuse(&self, why: &str) -> Status {
        warn!(caller = %self.identity, call = self.call, why, "refused a call on the peer port");
        Status::permission_denied(format!("{} may not call {}: {why}", self.identity, self.call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(removed: &[NodeId]) -> (Gate, watch::Sender<BTreeSet<NodeId>>) {
        let (sender, removed) = watch::channel(removed.iter().copied().collect());
        (Gate::new("team", 1, removed), sender)
    }

    fn admit_to(gate: &Gate, identity: &str, asks: Asks) -> Result<Caller, Status> {
        let mut request = Request::new(());
        let identity: Identity = identity.parse().expect("an identity");
        request.extensions_mut().insert(Arc::new(identity));
        gate.admit(&request, "Append", asks)
    }

    fn admit(identity: &str, asks: Asks) -> Result<Caller, Status> {
        admit_to(&gate(&[]).0, identity, asks)
    }

    fn denied<T: std::fmt::Debug>(result: Result<T, Status>, word: &str) {
        let status = result.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains(word), "{status}");
    }

    #[test]
    fn roles_are_looked_at() {
        assert!(admit("spiffe://team/voter/2", Asks::Voter).is_ok());
        assert!(admit("spiffe://team/learner/4", Asks::Replica).is_ok());
        denied(admit("spiffe://team/learner/4", Asks::Voter), "role");
        for role in ["agent", "client", "admin"] {
            denied(admit(&format!("spiffe://team/{role}/2"), Asks::Replica), "role");
        }
        denied(admit("spiffe://other/voter/2", Asks::Voter), "cluster");
    }

    #[test]
    fn a_connection_without_identity_is_refused() {
        let status = gate(&[]).0.admit(&Request::new(()), "Append", Asks::Voter).expect_err("refused");
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn a_removed_node_is_refused_also_on_a_stream_that_was_open() {
        let (gate, removed) = gate(&[4]);
        denied(admit_to(&gate, "spiffe://team/voter/4", Asks::Voter), "removed");
        let caller = admit_to(&gate, "spiffe://team/voter/2", Asks::Voter).expect("a member");
        assert!(caller.check_ends(2, 1).is_ok());
        removed.send_replace(BTreeSet::from([2, 4]));
        denied(caller.check_ends(2, 1), "removed");
        assert!(says_removed(&caller.check_ends(2, 1).expect_err("refused")));
        assert!(!says_removed(&caller.refuse("for another reason")));
    }

    #[test]
    fn a_node_speaks_for_itself_and_to_us() {
        let caller = admit("spiffe://team/voter/2", Asks::Voter).expect("admitted");
        assert!(caller.check_ends(2, 1).is_ok());
        denied(caller.check_ends(3, 1), "from node 3");
        denied(caller.check_ends(2, 9), "for node 9");
        assert!(caller.check_vote(&Vote::new_committed(5, 2), true).is_ok());
        denied(caller.check_vote(&Vote::new_committed(5, 3), true), "node 3");
        denied(caller.check_vote(&Vote::new(5, 2), true), "not elected");
        denied(caller.check_vote(&Vote::new_committed(5, 2), false), "elected already");
    }
}
