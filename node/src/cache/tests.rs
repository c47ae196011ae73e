//! The levels together, with a real `redis-server` on a free loopback port, which each test starts and ends by itself.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use zyflow_api::{ApiError, v1::ErrorCode};
use zyflow_crypto::{KeyRing, Lineage};
use zyflow_machine::id::Revision;

use super::key::{Key, tests::data_key};
use super::shared::Within;
use super::{Answers, Asked, Levels, Scope};
use crate::config::{Address, ByteSize, Cache};
use server::Server;

const LINEAGE: Lineage = Lineage([5; 16]);

const EVERYWHERE: Levels = Levels { memory: true, shared: true };

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at something that nobody announces.
const LOOK: Duration = Duration::from_millis(5);

/// How long Redis may take where it is well: a busy machine fails nothing.
const UNHURRIED: Within = Within { ask: PATIENCE, put: PATIENCE };

/// The same where it hangs: less than the breaker's first pause, so that nothing of before is still under way after it.
const HURRIED: Within = Within { ask: Duration::from_millis(500), put: Duration::from_millis(500) };

fn ring(byte: u8) -> Arc<KeyRing> {
    Arc::new(KeyRing::new(data_key(byte)))
}

/// One node of the cluster whose data key is made of `byte`, connected.
async fn node(server: &Server, byte: u8) -> Answers {
    node_within(server, byte, UNHURRIED).await
}

async fn node_within(server: &Server, byte: u8, within: Within) -> Answers {
    let config = Cache { redis: Address(server.address()), ..Cache::default() };
    let answers = Answers::answering(&config, &ring(byte), (LINEAGE, "team"), &Handle::current(), within).unwrap();
    until("the node is connected", || shared(&answers).is_connected()).await;
    answers
}

fn shared(answers: &Answers) -> &super::shared::Shared {
    answers.levels.as_ref().unwrap().shared.as_ref().unwrap()
}

fn question(revision: u64) -> Asked<'static> {
    Asked {
        scope: Scope::All,
        revision: Revision(revision),
        horizon: Revision(0),
        clock: None,
        query: b"tasks",
        levels: EVERYWHERE,
    }
}

fn key(answers: &Answers, revision: u64) -> Key {
    answers.levels.as_ref().unwrap().keys.of(&question(revision))
}

/// Waits for a condition, and lets everything else run.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    let mut looks = tokio::time::interval(LOOK);
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        looks.tick().await;
    }
}

/// Asks; the answer, and whether it had to be read.
async fn ask(answers: &Answers, revision: u64) -> (Bytes, bool) {
    let mut is_read = false;
    let answer = answers.find_or(question(revision), async {
        is_read = true;
        Ok(Bytes::from(format!("answer at {revision}")))
    });
    let answer = answer.await.unwrap();
    (answer, is_read)
}

/// Reads a revision on a node, and waits until Redis has it.
async fn keep(server: &Server, answers: &Answers, revision: u64) {
    let name = key(answers, revision).name();
    let (answer, is_read) = ask(answers, revision).await;
    assert!(is_read, "nobody has asked for {revision} before");
    let begun = Instant::now();
    let mut tried = begun;
    let mut looks = tokio::time::interval(LOOK);
    while server.get(&name).await.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "the answer at {revision} never came to Redis");
        looks.tick().await;
        // One that was late is not kept by itself any more: it is in memory, and nobody reads it again.
        if tried.elapsed() > Duration::from_secs(1) {
            shared(answers).put(key(answers, revision), &answer);
            tried = Instant::now();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_read_another_finds_and_each_revision_has_its_own() {
    let server = Server::start();
    let (one, other) = (node(&server, 7).await, node(&server, 7).await);
    keep(&server, &one, 10).await;
    assert_eq!(ask(&one, 10).await, ("answer at 10".into(), false), "from memory");
    assert_eq!(ask(&other, 10).await, ("answer at 10".into(), false), "from Redis");
    assert_eq!(ask(&other, 11).await, ("answer at 11".into(), true));
    let value = server.get(&key(&one, 10).name()).await;
    assert!(!value.windows(6).any(|window| window == b"answer"), "what Redis holds is sealed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_moved_values_are_misses() {
    let server = Server::start();
    let (one, other) = (node(&server, 7).await, node(&server, 7).await);
    for revision in 0..5 {
        keep(&server, &one, revision).await;
    }
    let name = |revision| key(&one, revision).name();
    let sealed = server.get(&name(1)).await;
    let mut altered = sealed.clone();
    *altered.last_mut().unwrap() ^= 1;
    server.set(&name(0), b"garbage").await;
    server.set(&name(1), &altered).await;
    server.set(&name(2), &sealed[..sealed.len() / 2]).await;
    server.set(&name(3), &server.get(&name(4)).await).await;
    server.make_list(&name(9)).await;
    for revision in [0, 1, 2, 3, 9] {
        assert_eq!(ask(&other, revision).await, (format!("answer at {revision}").into(), true));
    }
    assert_eq!(ask(&other, 4).await, ("answer at 4".into(), false), "what wasn't touched is found");
    assert!(!other.is_shared_broken(), "a value that is wrong says nothing about the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_values_are_never_taken() {
    let server = Server::start();
    let (ours, theirs) = (node(&server, 7).await, node(&server, 8).await);
    keep(&server, &theirs, 10).await;
    assert!(ask(&ours, 10).await.1, "their keys aren't ours");
    let stolen = server.get(&key(&theirs, 10).name()).await;
    server.set(&key(&ours, 11).name(), &stolen).await;
    assert!(ask(&ours, 11).await.1, "their values don't open under our keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_or_hangs_fails_no_read_and_is_found_again() {
    let mut server = Server::start();
    let answers = node_within(&server, 7, HURRIED).await;
    keep(&server, &answers, 1).await;
    let mut revision = 100;
    let mut read_until = async |what: &str, answers: &Answers, is_so: &dyn Fn() -> bool| {
        let begun = Instant::now();
        let mut looks = tokio::time::interval(LOOK);
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
            looks.tick().await;
            revision += 1;
            assert_eq!(ask(answers, revision).await.0, format!("answer at {revision}"));
        }
    };
    let is_broken = || answers.is_shared_broken();
    let is_well = || !answers.is_shared_broken() && shared(&answers).is_connected();
    server.hang();
    read_until("a server that hangs isn't asked any more", &answers, &is_broken).await;
    server.go_on();
    read_until("it is asked again", &answers, &is_well).await;
    server.kill();
    read_until("a server that is gone isn't asked any more", &answers, &is_broken).await;
    server.restart();
    read_until("its successor is asked", &answers, &is_well).await;
    keep(&server, &answers, 1_000_000_000).await;
}

#[tokio::test]
async fn what_fails_is_not_kept_and_off_means_off() {
    let ring = ring(7);
    let make = |config: &Cache| Answers::new(config, &ring, (LINEAGE, "team"), &Handle::current()).unwrap();
    let answers = make(&Cache::default());
    let failing = answers.find_or(question(3), async { Err(ApiError::new(ErrorCode::NotFound, "gone")) });
    assert_eq!(failing.await.unwrap_err().code, ErrorCode::NotFound);
    assert!(ask(&answers, 3).await.1 && !ask(&answers, 3).await.1);
    let reads = AtomicU32::new(0);
    let off = make(&Cache { enabled: false, ..Cache::default() });
    let unkept = Asked { levels: Levels::NONE, ..question(3) };
    for (answers, asked) in [(&off, question(3)), (&off, question(3)), (&answers, unkept)] {
        let read = async {
            reads.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::new())
        };
        answers.find_or(asked, read).await.unwrap();
    }
    assert_eq!(reads.into_inner(), 3);
    let wrong = Cache { redis: Address("nowhere".to_owned()), answers_bytes_max: ByteSize(1), ..Cache::default() };
    assert!(Answers::new(&wrong, &ring, (LINEAGE, "team"), &Handle::current()).is_err());
}
