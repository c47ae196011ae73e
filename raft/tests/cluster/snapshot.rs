//! A node that the log can't help gets a snapshot.

use zyflow_crypto::Role;
use zyflow_raft::{ConsensusConfig, NodeInfo};

use super::support::{Cluster, project, soon, until};

fn small(config: &mut ConsensusConfig) {
    config.snapshot_entries = 40;
    config.entries_kept = 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_learner_gets_a_snapshot_and_has_the_same_digest() {
    let mut cluster = Cluster::start_with(small).await;
    let leader = cluster.leader().await;
    for at in 0..120 {
        cluster.accept(leader, project(&format!("project {at}"))).await;
    }
    until("the log to be purged", || (cluster.node(leader).status().purged > 0).then_some(())).await;
    cluster.add(4, Role::Learner).await;
    let address = cluster.node(4).address.clone();
    cluster.node(leader).consensus().add_learner(4, NodeInfo::at(address), soon()).await.unwrap();
    cluster.settle().await;
    assert!(cluster.node(4).consensus().counts().snapshots_installed >= 1);
    assert!(cluster.node(4).status().learners.contains_key(&4));
    // It takes commands too, and survives a restart with what it got.
    cluster.accept(4, project("from the learner")).await;
    cluster.halt(4).await;
    cluster.restart(4).await;
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_promoted_and_counts() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.add(4, Role::Voter).await;
    let address = cluster.node(4).address.clone();
    cluster.node(leader).consensus().add_learner(4, NodeInfo::at(address), soon()).await.unwrap();
    cluster.settle().await;
    cluster.node(leader).consensus().promote(4, soon()).await.unwrap();
    until("node 4 to vote", || cluster.node(4).status().voters.contains_key(&4).then_some(())).await;
    let (one, other) = cluster.followers().await;
    cluster.halt(one.min(other)).await;
    cluster.accept(4, project("three of four")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_past_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(small).await;
    let leader = cluster.leader().await;
    let (away, _other) = cluster.followers().await;
    cluster.accept(leader, project("before")).await;
    cluster.settle().await;
    let seen = cluster.node(away).status().applied;
    cluster.halt(away).await;
    // What a peer may still want is purged only once the leader has given up sending it, with a later snapshot.
    for at in 0..2000 {
        cluster.accept(leader, project(&format!("project {at}"))).await;
        if cluster.node(leader).status().purged > seen {
            break;
        }
    }
    assert!(cluster.node(leader).status().purged > seen, "a node that is away must not keep the log for ever");
    cluster.restart(away).await;
    cluster.settle().await;
    assert!(cluster.node(away).consensus().counts().snapshots_installed >= 1);
}
