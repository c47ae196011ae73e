//! Do the others hold the same state? Digests at exactly one revision, and what a difference means.
//!
//! ```text
//!   own digest at revision R ---- judge ----> Same | Disputed: somebody differs | Outvoted: a majority agrees on another
//!                                   ^
//!   voters' digests at R -----------+    asked over the peer protocol, each waits until it has applied R
//! ```
//! One node alone can't tell who is wrong, so only a majority of all voters that agrees on another value makes a node stop.
//!
//! Deliberately not here: when to ask, and what else is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error};
use zyflow_machine::Digest;
use zyflow_machine::id::Revision;
use zyflow_storage::types::NodeId;

use crate::config::millis;
use crate::consensus::Consensus;
use crate::network::peers::Lane;
use crate::network::proto;
use crate::shared::Shared;

/// What the others' digests say about one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody who answered has another.
    Same,
    /// These have another, and are no majority that agrees on it.
    Disputed(BTreeSet<NodeId>),
    /// These are a majority of the voters, and have one and the same other digest.
    Outvoted(BTreeSet<NodeId>),
}

/// What `others` say about `own`, of which only voters count.
#[must_use]
pub fn judge(own: Digest, others: &BTreeMap<NodeId, Digest>, voters: &BTreeSet<NodeId>) -> Verdict {
    let mut by_digest: BTreeMap<Digest, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, digest) in others.iter().filter(|(node, digest)| voters.contains(node) && **digest != own) {
        by_digest.entry(*digest).or_default().insert(*node);
    }
    let majority = by_digest.values().find(|nodes| nodes.len() > voters.len() / 2);
    match majority {
        Some(majority) => Verdict::Outvoted(majority.clone()),
        None if by_digest.is_empty() => Verdict::Same,
        None => Verdict::Disputed(by_digest.into_values().flatten().collect()),
    }
}

impl Consensus {
    /// The digests of the other voters at exactly this revision, as far as they have it and answer by the deadline.
    pub async fn digests_of_others(&self, revision: Revision, deadline: Instant) -> BTreeMap<NodeId, Digest> {
        let shared = &self.inner.shared;
        let own = shared.config.node_id;
        let voters = shared.status().voters.into_iter().filter(|(node, _)| *node != own);
        let asking = voters.map(|(node, address)| async move {
            let digest = ask(shared, node, &address, revision, deadline).await;
            digest.map(|digest| (node, digest))
        });
        join_all(asking).await.into_iter().flatten().collect()
    }

    /// All voters.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.inner.shared.voters()
    }

    /// Takes this node out of service for good, because its state can't be believed: it hands leadership over, takes no part any more, and
    /// refuses proposals and every read. Unlike with a fatal error its process stays, so that people can look.
    pub async fn quarantine(&self, reason: String) {
        error!(reason, "this node's state can't be believed: it serves nothing any more");
        self.hand_over().await;
        let shared = &self.inner.shared;
        shared.out_of_service.send_replace(Some(reason.into()));
        if let Err(error) = shared.raft.shutdown().await {
            tracing::warn!(%error, "the consensus task ended badly");
        }
    }
}

async fn ask(
    shared: &Arc<Shared>,
    node: NodeId,
    address: &str,
    revision: Revision,
    deadline: Instant,
) -> Option<Digest> {
    let mut client = shared.peers.client(node, address, Lane::Pulse);
    let patience = deadline.saturating_duration_since(Instant::now());
    let request = proto::DigestRequest {
        from: shared.config.node_id,
        to: node,
        revision: revision.0,
        timeout_ms: millis(patience / 2),
    };
    let reply = match timeout_at(deadline, client.digest(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => {
            debug!(node, %status, "a node can't be asked for its digest");
            return None;
        }
        Err(_elapsed) => return None,
    };
    let bytes: [u8; 32] = reply.digest?.as_ref().try_into().ok()?;
    Some(Digest::from_bytes(bytes))
}

impl Shared {
    /// The answer to another node that asks.
    pub(crate) async fn digest_for_peer(&self, revision: Revision, patience: Duration) -> Option<Digest> {
        let mut applied = self.tables.applied();
        let reached = applied.wait_for(|applied| *applied >= revision);
        let is_there = timeout_at(Instant::now() + patience, reached).await.is_ok_and(|reached| reached.is_ok());
        // A node that has failed has no digest to tell.
        if is_there { self.tables.digest_at(revision).ok().flatten() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(others: &[(NodeId, u8)], voters: &[NodeId]) -> Verdict {
        let digest = |seed: u8| Digest::from_bytes([seed; 32]);
        let others = others.iter().map(|(node, seed)| (*node, digest(*seed))).collect();
        judge(digest(0), &others, &voters.iter().copied().collect())
    }

    #[test]
    fn a_majority_of_all_voters_has_to_agree_on_another() {
        assert_eq!(check(&[(2, 9), (3, 9)], &[1, 2, 3]), Verdict::Outvoted([2, 3].into()));
        assert_eq!(check(&[(2, 9), (3, 9), (4, 0)], &[1, 2, 3, 4]), Verdict::Disputed([2, 3].into()));
        assert_eq!(check(&[(2, 9), (3, 9), (4, 9)], &[1, 2, 3, 4, 5]), Verdict::Outvoted([2, 3, 4].into()));
    }

    #[test]
    fn without_one_it_is_a_dispute() {
        assert_eq!(check(&[(2, 9), (3, 8)], &[1, 2, 3]), Verdict::Disputed([2, 3].into()));
        assert_eq!(check(&[(2, 9)], &[1, 2, 3]), Verdict::Disputed([2].into()), "the third doesn't answer");
        assert_eq!(check(&[(2, 9)], &[1, 2]), Verdict::Disputed([2].into()), "one of two is no majority");
    }

    #[test]
    fn learners_and_silence_say_nothing() {
        assert_eq!(check(&[], &[1, 2, 3]), Verdict::Same);
        assert_eq!(check(&[(2, 0), (3, 0)], &[1, 2, 3]), Verdict::Same);
        assert_eq!(check(&[(4, 9), (5, 9)], &[1, 2, 3]), Verdict::Same);
        // A learner that differs is outvoted like any other node.
        assert_eq!(check(&[(1, 9), (2, 9)], &[1, 2, 3]), Verdict::Outvoted([1, 2].into()));
    }
}
