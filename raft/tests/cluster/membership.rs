//! Members come, move and go, and whoever was removed stays out.

use tokio::net::TcpListener;
use tokio::time::Instant;
use zyflow_crypto::Role;
use zyflow_raft::{
    ConsensusConfig, Consistency, MembershipError, NodeId, NodeInfo, PROMOTE_LAG_MAX, ProposeError, ReadError,
};
use zyflow_storage::types::Vote;

use super::gate::Caller;
use super::support::{CLUSTER, Cluster, PATIENCE, project, soon, steady, until};

/// Adds a running node and gives it a vote.
async fn join(cluster: &mut Cluster, id: NodeId) {
    cluster.add(id, Role::Voter).await;
    let leader = cluster.leader_without(&[id]).await;
    let info = NodeInfo::at(cluster.node(id).address.clone());
    let consensus = cluster.node(leader).consensus();
    consensus.add_learner(id, info, soon()).await.unwrap();
    consensus.promote(id, soon()).await.unwrap();
    cluster.leader().await;
}

fn removed(cluster: &Cluster, id: NodeId) -> Vec<NodeId> {
    cluster.node(id).status().removed.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_that_runs_on_disturbs_nobody() {
    let mut cluster = Cluster::start_with(steady).await;
    join(&mut cluster, 4).await;
    let leader = cluster.leader().await;
    // It hears nothing of it: to itself it is a voter.
    cluster.fabric.isolate(4, &[1, 2, 3, 4]);
    cluster.node(leader).consensus().remove(4, soon()).await.unwrap();
    until("all others to know", || [1, 2, 3].iter().all(|id| removed(&cluster, *id) == [4]).then_some(())).await;
    let term = cluster.node(leader).status().term;

    // It misses its leader and asks whether it would be elected, again and again.
    let refused = || [1, 2, 3].iter().map(|id| cluster.node(*id).consensus().counts().calls_refused).sum::<u64>();
    let before = refused();
    cluster.fabric.heal(4, &[1, 2, 3, 4]);
    until("the removed node to ask", || (refused() >= before + 6).then_some(())).await;
    // And if it didn't ask first: a vote that looks like the leader's own wish is not held up by the leader's lease.
    for to in [1, 2, 3] {
        let address = cluster.node(to).address.clone();
        let mut caller = Caller::new(&cluster.authority, CLUSTER, Role::Voter, 4, &address);
        for (call, code) in caller.every_call(4, to, Vote::new(term + 50, 4)).await {
            assert_eq!(code, tonic::Code::PermissionDenied, "{call} to node {to}");
        }
    }
    cluster.accept(leader, project("undisturbed")).await;
    for id in [1, 2, 3] {
        let status = cluster.node(id).status();
        assert_eq!((status.term, status.leader), (term, Some(leader)), "node {id}");
    }
    until("the removed node to know", || cluster.node(4).status().fatal).await;
    let turned_away = cluster.propose(4, project("by a removed node")).await;
    assert!(matches!(turned_away, Err(ProposeError::Fatal(_))), "{turned_away:?}");
    assert_eq!(cluster.node(4).status().term, term, "without a pre-vote it doesn't even raise its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_turns_its_callers_away_as_soon_as_it_knows() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let (leaving, _other) = cluster.followers().await;
    cluster.node(leader).consensus().remove(leaving, soon()).await.unwrap();
    // It was demoted first and asks for no votes: the first command or read that it passes on tells it.
    let began = Instant::now();
    let turned_away = cluster.propose(leaving, project("by a removed node")).await;
    assert!(matches!(&turned_away, Err(ProposeError::Fatal(reason)) if reason.contains("removed")), "{turned_away:?}");
    assert!(began.elapsed() < PATIENCE / 2, "long before its deadline");
    let read = cluster.node(leaving).consensus().read_barrier(Consistency::Linearizable, soon()).await;
    assert!(matches!(&read, Err(ReadError::Fatal(reason)) if reason.contains("removed")), "{read:?}");
    assert!(cluster.node(leaving).consensus().fatal().borrow().is_none(), "its process may stay");
}

fn small(config: &mut ConsensusConfig) {
    config.snapshot_entries = 40;
    config.entries_kept = 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_never_used_again_whatever_a_node_has_been_through() {
    let mut cluster = Cluster::start_with(small).await;
    join(&mut cluster, 4).await;
    let leader = cluster.leader().await;
    cluster.node(leader).consensus().remove(4, soon()).await.unwrap();
    cluster.node(leader).consensus().remove(4, soon()).await.unwrap();
    cluster.halt(4).await;
    cluster.nodes.remove(&4);
    for at in 0..120 {
        cluster.accept(leader, project(&format!("project {at}"))).await;
    }
    until("the log to be purged", || (cluster.node(leader).status().purged > 0).then_some(())).await;
    // By a snapshot ...
    join(&mut cluster, 5).await;
    assert!(cluster.node(5).consensus().counts().snapshots_installed >= 1);
    cluster.settle().await;
    // ... and after a restart of everybody.
    for id in [1, 2, 3, 5] {
        cluster.halt(id).await;
    }
    for id in [1, 2, 3, 5] {
        cluster.restart(id).await;
    }
    for leader in [5, 2] {
        let old = cluster.leader().await;
        cluster.node(old).consensus().transfer_leader(leader, soon()).await.unwrap();
        let added = cluster.node(leader).consensus().add_learner(4, NodeInfo::at("127.0.0.1:1"), soon()).await;
        assert_eq!(added, Err(MembershipError::Removed { node: 4, free: 6 }));
        assert_eq!(removed(&cluster, leader), [4]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_be_removed_hands_over_first() {
    let cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    let asked = cluster.node(leader).consensus().remove(leader, soon()).await;
    let Err(MembershipError::NotLeader { leader: Some(next) }) = asked else { panic!("{asked:?}") };
    assert_ne!(next, leader);
    cluster.node(next).consensus().remove(leader, soon()).await.unwrap();
    let others: Vec<NodeId> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    assert_eq!(cluster.leader_without(&[leader]).await, next);
    cluster.accept(next, project("without it")).await;
    until("both to know", || others.iter().all(|id| removed(&cluster, *id) == [leader]).then_some(())).await;
    for id in others {
        assert_eq!(cluster.node(id).status().term, term + 1, "one election, asked for");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_behind_gets_no_vote() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.add(4, Role::Voter).await;
    let info = NodeInfo::at(cluster.node(4).address.clone());
    cluster.node(leader).consensus().add_learner(4, info, soon()).await.unwrap();
    cluster.fabric.isolate(4, &[1, 2, 3]);
    for at in 0..=PROMOTE_LAG_MAX {
        cluster.accept(leader, project(&format!("project {at}"))).await;
    }
    let promoted = cluster.node(leader).consensus().promote(4, soon()).await;
    assert!(matches!(promoted, Err(MembershipError::Lagging { node: 4, .. })), "{promoted:?}");
    assert_eq!(cluster.node(leader).status().voters.len(), 3);
    cluster.fabric.heal(4, &[1, 2, 3]);
    cluster.settle().await;
    cluster.node(leader).consensus().promote(4, soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learners_certificate_gets_no_vote() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.add(4, Role::Learner).await;
    let info = NodeInfo::at(cluster.node(4).address.clone());
    cluster.node(leader).consensus().add_learner(4, info, soon()).await.unwrap();
    let promoted = cluster.node(leader).consensus().promote(4, soon()).await;
    assert_eq!(promoted, Err(MembershipError::LearnersCertificate { node: 4 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_long_standing_is_found_at_its_new_address() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let (moving, other) = cluster.followers().await;
    cluster.accept(leader, project("before")).await;
    cluster.halt(moving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    cluster.nodes.get_mut(&moving).unwrap().address.clone_from(&address);
    cluster.restart(moving).await;
    let taken = NodeInfo::at(cluster.node(other).address.clone());
    let refused = cluster.node(leader).consensus().relocate(moving, taken, soon()).await;
    assert!(matches!(refused, Err(MembershipError::AddressTaken { .. })), "{refused:?}");
    cluster.node(leader).consensus().relocate(moving, NodeInfo::at(address), soon()).await.unwrap();
    cluster.accept(leader, project("after")).await;
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_on_where_its_callers_deadline_passed() {
    let mut cluster = Cluster::start().await;
    join(&mut cluster, 4).await;
    let leader = cluster.leader().await;
    let leaving = if leader == 4 { 1 } else { 4 };
    let late = cluster.node(leader).consensus().remove(leaving, Instant::now()).await;
    assert!(matches!(late, Err(MembershipError::DeadlineExceeded { .. })), "{late:?}");
    until("the removal", || (removed(&cluster, leader) == [leaving]).then_some(())).await;
    assert!(!cluster.node(leader).status().is_changing);
}
