//! Is there a majority? Told from the statuses of the nodes, by counting, not from what a cut-off leader believes.

use super::context::Context;
use super::report::Failure;
use crate::code::Code;
use crate::error::ClientError;
use std::time::Duration;
use zyflow_api::v1;

/// How long the nodes may take to answer when a command has failed already.
const EXPLAIN_DEADLINE: Duration = Duration::from_secs(1);

/// A leader that has heard of no majority for so long isn't one any more: several elections.
const QUORUM_SILENCE_MS_MAX: u64 = 5_000;

/// What each endpoint answered.
pub(super) type Statuses = [Result<v1::NodeStatusResponse, ClientError>];

/// Why changes can't be expected to work; `None` = they can.
pub(super) fn availability(statuses: &Statuses) -> Option<Failure> {
    let answering: Vec<_> = statuses.iter().flatten().collect();
    let Some(newest) = answering.iter().max_by_key(|status| (status.term, status.applied)) else {
        let first = statuses.iter().find_map(|status| status.as_ref().err());
        return first.map(|error| Failure::new(error.code(), format!("no node answers; the first: {error}")));
    };
    if newest.members.is_empty() {
        let message = "the nodes are no cluster yet: `zyflow cluster init --member 1=HOST:PORT ...`";
        return Some(Failure::new(Code::NoQuorum, message));
    }
    let voters: Vec<u64> = newest.members.iter().filter(|member| member.voter).map(|member| member.node_id).collect();
    let majority = voters.len() / 2 + 1;
    let here = voters.iter().filter(|id| answering.iter().any(|status| status.node_id == **id)).count();
    // Voters that are no endpoint of the profile weren't asked: they may well run.
    let not_asked = voters.len().saturating_sub(statuses.len());
    if here + not_asked < majority {
        let message = format!(
            "no quorum: {here} of {} voters answer, and a change needs {majority}; start the others (`zyflow status` shows which)",
            voters.len()
        );
        return Some(Failure::new(Code::NoQuorum, message));
    }
    let silence = answering
        .iter()
        .filter(|status| status.role() == v1::NodeRole::Leader)
        .map(|leader| leader.millis_since_quorum_ack);
    let has_leader = answering.iter().any(|status| status.leader.is_some());
    let is_cut_off = silence.flatten().min().is_some_and(|millis| millis > QUORUM_SILENCE_MS_MAX);
    (!has_leader || is_cut_off).then(|| {
        let message = "no quorum: no node knows a leader that reaches a majority; check the network between the nodes, or \
                       wait for the election and repeat the command";
        Failure::new(Code::NoQuorum, message)
    })
}

/// A failure that may come from a missing majority, explained as that if it does.
pub(super) async fn explained(context: &Context, failure: Failure) -> Failure {
    if !matches!(failure.code, Code::Timeout | Code::Connect) {
        return failure;
    }
    let Ok(client) = context.client() else { return failure };
    let statuses = client.node_statuses(EXPLAIN_DEADLINE).await;
    match availability(&statuses) {
        Some(cause) if cause.code == Code::NoQuorum => {
            Failure::new(Code::NoQuorum, format!("{}\n  {}", cause.message, failure.message))
        }
        Some(_) | None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: u64, voters: u64, leader: Option<u64>) -> v1::NodeStatusResponse {
        let member = |node_id| v1::Member { node_id, voter: true, ..Default::default() };
        v1::NodeStatusResponse {
            node_id,
            members: (1..=voters).map(member).collect(),
            leader: leader.map(|node_id| v1::LeaderHint { node_id, api_address: String::new() }),
            ..Default::default()
        }
    }

    fn code(answering: Vec<v1::NodeStatusResponse>, silent: usize) -> Option<Code> {
        let refused = || Err(ClientError::Unreachable { address: "a:1".to_owned(), reason: "refused".to_owned() });
        let answering = answering.into_iter().map(Ok);
        let statuses: Vec<_> = answering.chain(std::iter::repeat_with(refused).take(silent)).collect();
        availability(&statuses).map(|failure| failure.code)
    }

    #[test]
    fn a_majority_that_knows_a_leader_is_available() {
        assert_eq!(code(vec![node(1, 3, Some(1)), node(2, 3, Some(1))], 1), None);
        assert_eq!(code(vec![node(1, 1, Some(1))], 0), None);
    }

    #[test]
    fn a_leader_without_a_majority_is_not_believed() {
        assert_eq!(code(vec![node(3, 3, Some(3))], 2), Some(Code::NoQuorum));
        let mut leader = node(1, 3, Some(1));
        leader.set_role(v1::NodeRole::Leader);
        leader.millis_since_quorum_ack = Some(60_000);
        assert_eq!(code(vec![leader, node(2, 3, None)], 1), Some(Code::NoQuorum));
    }

    #[test]
    fn no_leader_no_cluster_and_no_answer() {
        assert_eq!(code(vec![node(1, 3, None), node(2, 3, None), node(3, 3, None)], 0), Some(Code::NoQuorum));
        assert_eq!(code(vec![node(1, 0, None)], 0), Some(Code::NoQuorum));
        assert_eq!(code(vec![], 1), Some(Code::Connect));
    }

    #[test]
    fn voters_that_the_profile_does_not_name_may_run() {
        assert_eq!(code(vec![node(1, 3, Some(2))], 0), None);
    }
}
