//! Leaders come and go; what was acknowledged stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use zyflow_machine::outcome::Outcome;
use zyflow_raft::Role;

use super::support::{Cluster, never, numbered, project, soon, steady, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_under_load_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let (one, other) = cluster.followers().await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for (writer, id) in [(0, one), (1, other), (2, one)] {
        let session = cluster.session(id).await;
        let (consensus, stop, answered) = (cluster.node(id).consensus().clone(), stop.clone(), answered.clone());
        writers.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for seq in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("writer {writer} project {seq}");
                let outcome = consensus.propose(numbered(project(&name), session, seq), soon()).await.unwrap();
                assert!(matches!(outcome, Outcome::Accepted { .. } | Outcome::Duplicate(_)), "{outcome:?}");
                acknowledged.push(name);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            acknowledged
        }));
    }
    until("some load", || (answered.load(Ordering::Relaxed) > 50).then_some(())).await;
    cluster.halt(leader).await;
    let at_halt = answered.load(Ordering::Relaxed);
    until("load after the change", || (answered.load(Ordering::Relaxed) > at_halt + 50).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    let mut names = Vec::new();
    for writer in writers {
        names.extend(writer.await.unwrap());
    }
    for name in names {
        assert!(cluster.has_project(one, &name).await, "{name} was acknowledged and is lost");
    }
    cluster.restart(leader).await;
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_catches_up() {
    let mut cluster = Cluster::start().await;
    let (away, other) = cluster.followers().await;
    cluster.halt(away).await;
    for at in 0..50 {
        cluster.accept(other, project(&format!("project {at}"))).await;
    }
    cluster.restart(away).await;
    let (revision, _digest) = cluster.settle().await;
    assert!(revision.0 >= 50);
    assert!(cluster.node(away).status().fatal.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_that_comes_back_has_everything() {
    let mut cluster = Cluster::start().await;
    for at in 0..20 {
        cluster.accept(1, project(&format!("project {at}"))).await;
    }
    let (_revision, before) = cluster.settle().await;
    for id in [1, 2, 3] {
        cluster.halt(id).await;
    }
    for id in [1, 2, 3] {
        cluster.restart(id).await;
    }
    cluster.leader().await;
    for at in 0..20 {
        assert!(cluster.has_project(2, &format!("project {at}")).await);
    }
    let (_revision, after) = cluster.settle().await;
    // Rejections leave no trace, so the state is what it was.
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_does_not_raise_the_term() {
    let cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let (alone, other) = cluster.followers().await;
    let term = cluster.node(leader).status().term;
    cluster.fabric.isolate(alone, &[1, 2, 3]);
    until("the node to miss its leader", || (!cluster.node(alone).status().has_quorum).then_some(())).await;
    // It has missed it for the longest election timeout already, and does so for half as much again: with a pre-vote that grants itself the term is
    // up after one.
    never("the node campaigned", Duration::from_secs(9), || {
        let now = cluster.node(alone).status().term;
        (now != term).then(|| format!("its term is {now}, it was {term}"))
    })
    .await;
    cluster.fabric.heal(alone, &[1, 2, 3]);
    cluster.accept(other, project("after")).await;
    cluster.settle().await;
    for id in [1, 2, 3] {
        let status = cluster.node(id).status();
        assert_eq!((status.term, status.leader), (term, Some(leader)), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_comes_back_as_a_follower() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let (one, _other) = cluster.followers().await;
    cluster.fabric.isolate(leader, &[1, 2, 3]);
    let next = cluster.leader_without(&[leader]).await;
    cluster.accept(one, project("without it")).await;
    cluster.fabric.heal(leader, &[1, 2, 3]);
    assert_eq!(cluster.leader().await, next);
    cluster.settle().await;
    assert!(cluster.has_project(leader, "without it").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    let (heir, _other) = cluster.followers().await;
    cluster.node(leader).consensus().transfer_leader(heir, soon()).await.unwrap();
    assert_eq!(cluster.leader().await, heir);
    assert_eq!(cluster.node(heir).status().term, term + 1, "one election, asked for");
    cluster.accept(leader, project("after")).await;
    assert_eq!(cluster.node(leader).status().role, Role::Follower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    let (one, _other) = cluster.followers().await;
    let consensus = cluster.nodes.get_mut(&leader).unwrap().consensus.take().unwrap();
    consensus.shutdown().await;
    // Nobody had to miss it first: when it has stopped, the election was held.
    assert!(cluster.running().any(|node| node.status().term == term + 1), "it stopped without an heir");
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let status = cluster.node(next).status();
    assert_eq!(status.term, term + 1, "one election, asked for");
    cluster.accept(one, project("after")).await;
}

/// Of three, one was away when a command was acknowledged, one has lost its disk, and the third, which alone has the command, is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_has_lost_its_log_elects_nobody_who_lacks_what_was_acknowledged() {
    let mut cluster = Cluster::start_with(|config| config.empty_votes_max = 3).await;
    let leader = cluster.leader().await;
    let (wiped, away) = cluster.followers().await;
    for at in 0..5 {
        cluster.accept(leader, project(&format!("before {at}"))).await;
    }
    cluster.settle().await;
    cluster.halt(away).await;
    cluster.accept(leader, project("acknowledged")).await;
    cluster.halt(wiped).await;
    cluster.halt(leader).await;
    cluster.wipe(wiped);
    cluster.restart(wiped).await;
    cluster.restart(away).await;
    until("the wiped node to be asked for its vote some times", || {
        (cluster.node(wiped).consensus().counts().calls_refused >= 5).then_some(())
    })
    .await;
    for id in [wiped, away] {
        assert_ne!(cluster.node(id).status().role, Role::Leader, "node {id}");
    }
    cluster.restart(leader).await;
    cluster.leader().await;
    cluster.settle().await;
    assert!(cluster.has_project(wiped, "acknowledged").await, "it was acknowledged and is lost");
}
