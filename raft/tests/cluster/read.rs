//! What a read has to see, it sees.

use std::time::Duration;

use tokio::time::Instant;
use zyflow_machine::id::Revision;
use zyflow_raft::{Consistency, ReadError};

use super::support::{Cluster, all, project, soon, steady};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_on_a_slow_follower_sees_what_was_acknowledged() {
    let cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let (slow, _other) = cluster.followers().await;
    cluster.fabric.slow(leader, slow, Duration::from_millis(700));
    for at in 0..5 {
        let written = cluster.accept(leader, project(&format!("project {at}"))).await;
        let behind = *cluster.node(slow).consensus().tables().applied().borrow();
        assert!(behind < written, "the follower is slow: {behind} {written}");
        for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::AtLeast(written)] {
            let promised = cluster.node(slow).consensus().read_barrier(consistency, soon()).await.unwrap();
            let seen = *cluster.node(slow).consensus().tables().applied().borrow();
            assert!(seen >= written && promised >= written, "{consistency:?} sees {seen}, {written} was acknowledged");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reads_share_few_rounds() {
    let cluster = Cluster::start().await;
    let (follower, _other) = cluster.followers().await;
    let reads = (0..500).map(|_| {
        let consensus = cluster.node(follower).consensus().clone();
        async move { consensus.read_barrier(Consistency::Linearizable, soon()).await }
    });
    for read in all(reads).await {
        read.unwrap();
    }
    let counts = cluster.node(follower).consensus().counts();
    assert_eq!(counts.reads, 500);
    assert!(counts.read_rounds < 100, "{} rounds", counts.read_rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_cannot_be_confirmed_is_refused() {
    let cluster = Cluster::start().await;
    let (alone, _other) = cluster.followers().await;
    cluster.fabric.isolate(alone, &[1, 2, 3]);
    let deadline = Instant::now() + Duration::from_secs(3);
    let error = cluster.node(alone).consensus().read_barrier(Consistency::Linearizable, deadline).await.unwrap_err();
    assert!(matches!(error, ReadError::NoQuorum(_)), "{error:?}");
    // What is here can still be read, by those who don't mind.
    cluster.node(alone).consensus().read_barrier(Consistency::Local, deadline).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_does_not_come_is_not_waited_for_for_ever() {
    let cluster = Cluster::start().await;
    let deadline = Instant::now() + Duration::from_millis(100);
    let wanted = Consistency::AtLeast(Revision(1_000_000));
    let error = cluster.node(1).consensus().read_barrier(wanted, deadline).await.unwrap_err();
    assert!(matches!(error, ReadError::Behind { wanted: 1_000_000, .. }), "{error:?}");
}
