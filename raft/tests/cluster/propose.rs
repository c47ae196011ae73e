//! Commands become outcomes, wherever they are proposed.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use zyflow_machine::command::{Body, Scope};
use zyflow_machine::id::Revision;
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_raft::{Fate, MembershipError, ProposeError};

use super::support::{Cluster, accepted, all, command, numbered, project, soon, steady, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_commands() {
    let cluster = Cluster::start().await;
    for id in [1, 2, 3] {
        cluster.accept(id, project(&format!("from node {id}"))).await;
    }
    for id in [1, 2, 3] {
        assert!(cluster.has_project(2, &format!("from node {id}")).await);
    }
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_is_an_outcome() {
    let cluster = Cluster::start().await;
    cluster.accept(1, project("one")).await;
    let outcome = cluster.propose(2, project("one")).await.unwrap();
    assert!(matches!(outcome, Outcome::Rejected(Reject::Exists { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_are_all_answered_in_few_entries() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let before = cluster.node(leader).consensus().counts();
    let proposals = (0..1000).map(|at| {
        let consensus = cluster.node(1 + at % 3).consensus().clone();
        async move { consensus.propose(project(&format!("project {at}")), soon()).await }
    });
    let outcomes = all(proposals).await;
    assert_eq!(outcomes.len(), 1000);
    for outcome in outcomes {
        accepted(&outcome.unwrap());
    }
    let after = cluster.node(leader).consensus().counts();
    assert_eq!(after.commands_sealed - before.commands_sealed, 1000, "none was sealed twice");
    let entries = after.entries_sealed - before.entries_sealed;
    assert!(entries < 250, "{entries} entries for 1000 commands is no group commit");
    cluster.settle().await;
}

/// A rollback is refused behind other commands of its entry, so none may ever be put there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_among_others_is_the_first_of_its_entry() {
    let cluster = Cluster::start().await;
    let before = cluster.node(1).consensus().counts().entries_applied;
    let proposals = (0..300).map(|at| {
        let consensus = cluster.node(1 + at % 3).consensus().clone();
        let body = Body::Rollback { scope: Scope::All, to: Revision(0), expected: None };
        let command = if at % 10 == 9 { command(body) } else { project(&format!("project {at}")) };
        async move { consensus.propose(command, soon()).await }
    });
    for outcome in all(proposals).await {
        accepted(&outcome.unwrap());
    }
    cluster.settle().await;
    let entries = cluster.node(1).consensus().counts().entries_applied - before;
    assert!(entries >= 30, "{entries} entries for 30 rollbacks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_after_a_change_of_leader_happens_once() {
    let mut cluster = Cluster::start().await;
    let session = cluster.session(1).await;
    let request = numbered(project("once"), session, 1);
    let first = cluster.accept(2, request.clone()).await;
    let leader = cluster.leader().await;
    cluster.halt(leader).await;
    let next = cluster.leader().await;
    let again = cluster.propose(next, request).await.unwrap();
    let Outcome::Duplicate(answer) = again else { panic!("{again:?}") };
    assert_eq!(accepted(&answer), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_on_the_way_is_repeated_only_with_a_request_id() {
    let mut cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let (follower, _other) = cluster.followers().await;
    let session = cluster.session(follower).await;
    // Commands get there before the connection has to answer whether it lives, answers don't get back in time.
    cluster.fabric.slow(follower, leader, Duration::from_secs(1));
    let sealed = cluster.node(leader).consensus().counts().commands_sealed;
    let consensus = cluster.node(follower).consensus().clone();
    let proposing = tokio::spawn(async move {
        tokio::join!(
            consensus.propose(project("careless"), soon()),
            consensus.propose(numbered(project("careful"), session, 1), soon()),
        )
    });
    until("both commands in the leader's log", || {
        (cluster.node(leader).consensus().counts().commands_sealed >= sealed + 2).then_some(())
    })
    .await;
    // What is on its way is lost, too.
    cluster.fabric.isolate(leader, &[1, 2, 3]);
    cluster.halt(leader).await;
    let (careless, careful) = proposing.await.unwrap();
    assert!(matches!(careless, Err(ProposeError::Lost { .. })), "{careless:?}");
    let careful = careful.unwrap();
    assert!(matches!(careful, Outcome::Accepted { .. } | Outcome::Duplicate(_)), "{careful:?}");
    assert!(cluster.has_project(follower, "careful").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fits_no_entry_is_refused_wherever_it_is_proposed() {
    let cluster = Cluster::start().await;
    let huge = Body::CreateProject { name: "huge".to_owned(), files: vec!["x".repeat(13 << 20)] };
    for id in [1, 2, 3] {
        let error = cluster.propose(id, command(huge.clone())).await.unwrap_err();
        assert!(matches!(error, ProposeError::TooLarge { .. }), "{error:?}");
        cluster.accept(id, project(&format!("after it on node {id}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_follower_says_so_by_the_deadline() {
    let mut cluster = Cluster::start().await;
    let (survivor, other) = cluster.followers().await;
    let leader = cluster.leader().await;
    cluster.halt(leader).await;
    cluster.halt(other).await;
    let (began, patience) = (Instant::now(), Duration::from_secs(3));
    let answer = timeout(patience * 2, cluster.node(survivor).consensus().propose(project("lonely"), began + patience));
    let error = answer.await.expect("answered by the deadline").unwrap_err();
    let ProposeError::NoQuorum { reach, fate: Fate::Nothing } = &error else { panic!("{error:?}") };
    assert_eq!(reach.voters.len(), 3);
    assert!(reach.reachable.contains(&survivor) && reach.reachable.len() == 1, "{reach:?}");
    assert!(error.to_string().contains("1 of 3 voters answer, 2 are needed"), "{error}");
    assert!(began.elapsed() < patience + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_leader_admits_that_it_does_not_know() {
    let mut cluster = Cluster::start_with(steady).await;
    let leader = cluster.leader().await;
    let (one, other) = cluster.followers().await;
    // Cut off, and not halted: that takes no time of its lease.
    cluster.fabric.isolate(one, &[1, 2, 3]);
    cluster.fabric.isolate(other, &[1, 2, 3]);
    // Past its longest election timeout, after which it knows that nobody answers.
    let deadline = Instant::now() + Duration::from_secs(8);
    let error = cluster.node(leader).consensus().propose(project("perhaps"), deadline).await.unwrap_err();
    // It still led when it was asked: the entry is in its log and may be committed later.
    let ProposeError::NoQuorum { fate: Fate::Unknown, .. } = &error else { panic!("{error:?}") };
    // Once its lease is over it doesn't even begin.
    until("the lease to be over", || (!cluster.node(leader).status().has_quorum).then_some(())).await;
    let deadline = Instant::now() + Duration::from_secs(2);
    let error = cluster.node(leader).consensus().propose(project("no more"), deadline).await.unwrap_err();
    let ProposeError::NoQuorum { fate: Fate::Nothing, .. } = &error else { panic!("{error:?}") };
    cluster.halt(other).await;
    cluster.fabric.heal(one, &[1, 2, 3]);
    cluster.leader().await;
    assert!(cluster.has_project(one, "perhaps").await, "what was in the leader's log is committed in the end");
    assert!(!cluster.has_project(one, "no more").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_once() {
    let cluster = Cluster::start().await;
    let error = cluster.node(2).consensus().initialize(std::collections::BTreeMap::new()).await.unwrap_err();
    assert!(matches!(error, MembershipError::AlreadyInitialised(_)), "{error:?}");
}
