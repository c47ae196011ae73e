//! Nodes compare digests at one revision, and one that is taken out of service doesn't hold up the others.

use zyflow_machine::id::Revision;
use zyflow_raft::{Consistency, ProposeError, ReadError, Verdict, judge};

use super::support::{Cluster, project, soon, steady};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_voter_tells_its_digest_at_exactly_one_revision_while_all_go_on() {
    let cluster = Cluster::start().await;
    let mut asked = Vec::new();
    for at in 0..50 {
        asked.push(cluster.accept(1, project(&format!("project {at}"))).await);
    }
    let (_newest, last) = cluster.settle().await;
    for (node, others) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
        let consensus = cluster.node(node).consensus();
        let own = consensus.tables().digest_at(asked[20]).unwrap().unwrap();
        assert_ne!(own, last, "a past one");
        let digests = consensus.digests_of_others(asked[20], soon()).await;
        assert_eq!(digests.keys().copied().collect::<Vec<_>>(), others);
        assert_eq!(judge(own, &digests, &consensus.voters()), Verdict::Same);
        assert!(matches!(judge(last, &digests, &consensus.voters()), Verdict::Outvoted(_)));
    }
    let future = Revision(u64::MAX >> 30);
    let soon = tokio::time::Instant::now() + std::time::Duration::from_millis(200);
    assert!(cluster.node(1).consensus().digests_of_others(future, soon).await.is_empty(), "nobody has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_taken_out_of_service_hands_over_and_is_not_elected_again() {
    let cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).status().term;
    cluster.node(leader).consensus().quarantine("a majority has another digest".to_owned()).await;
    let next = cluster.leader_without(&[leader]).await;
    assert_ne!(next, leader);
    assert_eq!(cluster.node(next).status().term, term + 1, "it handed over");
    cluster.accept(next, project("without it")).await;
    let refused = cluster.propose(leader, project("on it")).await;
    assert!(matches!(&refused, Err(ProposeError::Fatal(reason)) if reason.contains("majority")), "{refused:?}");
    assert!(cluster.node(leader).status().fatal.is_some_and(|reason| reason.contains("majority")));
    assert!(cluster.node(leader).consensus().fatal().borrow().is_none(), "its process may stay");
}

/// Because the node is out of service.
fn is_refused(read: &Result<Revision, ReadError>) -> bool {
    matches!(read, Err(ReadError::Fatal(reason)) if reason.contains("majority"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_taken_out_of_service_serves_no_read_however_little_it_asks_for() {
    let cluster = Cluster::start().await;
    let (outvoted, _other) = cluster.followers().await;
    cluster.accept(outvoted, project("known")).await;
    let consensus = cluster.node(outvoted).consensus();
    let applied = *consensus.tables().applied().borrow();
    consensus.read_barrier(Consistency::Local, soon()).await.unwrap();
    let waiting = {
        let consensus = consensus.clone();
        tokio::spawn(async move { consensus.read_barrier(Consistency::AtLeast(Revision(1_000_000)), soon()).await })
    };
    consensus.quarantine("a majority has another digest".to_owned()).await;
    let waited = waiting.await.unwrap();
    assert!(is_refused(&waited), "it waited for what won't come: {waited:?}");
    let asked = [Consistency::Local, Consistency::AtLeast(applied), Consistency::Lease, Consistency::Linearizable];
    for asked in asked {
        let read = consensus.read_barrier(asked, soon()).await;
        assert!(is_refused(&read), "{asked:?}: {read:?}");
    }
    // People can still look at it.
    assert!(consensus.tables().digest().unwrap().0 >= applied);
}
