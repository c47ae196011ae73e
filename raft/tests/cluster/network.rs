//! How entries travel.

use std::time::Duration;

use super::support::{Cluster, all, project, soon, steady, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_are_pipelined() {
    let cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let (far, _near) = cluster.followers().await;
    // The near one makes the quorum, so writes go on; to the far one each append takes long to be answered, though less than what a connection
    // has to answer in.
    cluster.fabric.slow(leader, far, Duration::from_millis(700));
    let consensus = cluster.node(leader).consensus().clone();
    for wave in 0..40 {
        let proposals = (0..4).map(|at| {
            let consensus = consensus.clone();
            async move { consensus.propose(project(&format!("project {wave} {at}")), soon()).await }
        });
        for outcome in all(proposals).await {
            outcome.unwrap();
        }
    }
    let most = consensus.counts().appends_in_flight_max;
    assert!(most >= 8, "{most} appends were under way at most: one after the other");
    cluster.fabric.slow(leader, far, Duration::ZERO);
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_entry_travels() {
    use zyflow_machine::command::{Body, NewBlock};
    use zyflow_machine::id::RecordId;
    use zyflow_machine::outcome::Outcome;
    let cluster = Cluster::start().await;
    let outcome = cluster.propose(1, project("large")).await.unwrap();
    let Outcome::Accepted { created, .. } = outcome else { panic!("{outcome:?}") };
    let project: RecordId = created[0];
    let block = |at: usize| NewBlock {
        kind: 0,
        lead: String::new(),
        mark: String::new(),
        text: format!("{at} {}\n", "x".repeat(100_000)),
    };
    let body = Body::CreateChange {
        project,
        path: "tasks.md".to_owned(),
        blocks: (0..30).map(block).collect(),
        ops: Vec::new(),
    };
    let (follower, _other) = cluster.followers().await;
    cluster.accept(follower, super::support::command(body)).await;
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_break_are_made_again() {
    let cluster = Cluster::start().await;
    let (flaky, other) = cluster.followers().await;
    for round in 0..3 {
        cluster.fabric.isolate(flaky, &[1, 2, 3]);
        cluster.accept(other, project(&format!("round {round}"))).await;
        cluster.fabric.heal(flaky, &[1, 2, 3]);
        cluster.settle().await;
        until("a leader for the node that is back", || cluster.node(flaky).status().leader).await;
        cluster.accept(flaky, project(&format!("back {round}"))).await;
    }
}
