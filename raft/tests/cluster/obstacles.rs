//! What keeps a leader from sealing an entry, and what stops a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use zyflow_raft::{Clock, ProposeError, SystemClock};

use super::support::{Cluster, PATIENCE, project, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_commands_on_every_node_at_once() {
    let cluster = Cluster::start_with(|config| config.disk_free_bytes_min = u64::MAX).await;
    for id in [1, 2, 3] {
        let began = Instant::now();
        let error = cluster.propose(id, project("no room")).await.unwrap_err();
        assert!(matches!(error, ProposeError::DiskFull { needed: u64::MAX, .. }), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "there is nothing to wait for");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_makes_commands_wait_and_then_refuses_them() {
    // Nothing may wait for SQLite, so right after each command the next has to wait.
    let cluster = Cluster::start_with(|config| config.backlog_ops_max = 0).await;
    let leader = cluster.leader().await;
    let began = Instant::now();
    let mut at = 0;
    let refused = loop {
        at += 1;
        let deadline = Instant::now() + Duration::from_millis(20);
        let answer = cluster.node(leader).consensus().propose(project(&format!("hasty {at}")), deadline).await;
        // Any other error is that of a machine too busy to answer by then.
        if let Err(refused @ ProposeError::Overloaded { .. }) = answer {
            break refused;
        }
        assert!(began.elapsed() < PATIENCE, "SQLite is slower than this: {answer:?}");
    };
    assert!(matches!(refused, ProposeError::Overloaded { limit: 0, .. }), "{refused:?}");
    // With patience it goes on.
    cluster.accept(leader, project("patient")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_ahead_stamps_nothing() {
    static AHEAD_MS: AtomicU64 = AtomicU64::new(0);
    struct Ahead;
    impl Clock for Ahead {
        fn now_ms(&self) -> u64 {
            SystemClock.now_ms() + AHEAD_MS.load(Ordering::Relaxed)
        }
    }
    let cluster = Cluster::start_with(|config| {
        if config.node_id == 1 {
            config.clock = Arc::new(Ahead);
        }
    })
    .await;
    if cluster.leader().await != 1 {
        let leader = cluster.leader().await;
        cluster.node(leader).consensus().transfer_leader(1, super::support::soon()).await.unwrap();
        until("node 1 to lead", || (cluster.node(1).status().leader == Some(1)).then_some(())).await;
    }
    cluster.accept(1, project("right time")).await;
    AHEAD_MS.store(3_600_000, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_millis(500);
    let error = cluster.node(1).consensus().propose(project("wrong time"), deadline).await.unwrap_err();
    assert!(matches!(error, ProposeError::ClockAhead { ahead } if ahead > Duration::from_secs(3500)), "{error:?}");
    // Set right, it goes on.
    AHEAD_MS.store(0, Ordering::Relaxed);
    cluster.accept(1, project("right again")).await;
}
