//! What a start refuses, and what it accepts: each kind of damage done by hand.

use std::path::PathBuf;

use super::*;
use crate::log::{identity::Identity, rocks, stored};

/// The WAL file with the highest number that has anything in it.
fn newest_wal(config: &LogConfig) -> PathBuf {
    let files = std::fs::read_dir(rocks::dir(&config.dir)).unwrap().map(|entry| entry.unwrap().path());
    let wals = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    wals.filter(|path| std::fs::metadata(path).unwrap().len() > 0).max().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Where the bytes of `needle` begin.
fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).expect("it is in the file")
}

fn refusal(config: &LogConfig) -> LogError {
    LogStore::open(config).map(|_| ()).expect_err("a start that must be refused")
}

#[tokio::test]
async fn everything_is_there_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let mut operations = drill::Script::new(7).operations();
    for _ in 0..12 {
        let (mut store, _) = open(&config);
        assert_eq!(operations.model().difference(&drill::Model::read(&mut store).await.unwrap()), "");
        for _ in 0..150 {
            match operations.step() {
                drill::Op::Append(entries) => store.blocking_append(entries).await.unwrap(),
                drill::Op::Vote(vote) => store.save_vote(&vote).await.unwrap(),
                drill::Op::Committed(committed) => store.save_committed(committed).await.unwrap(),
                drill::Op::Truncate(after) => store.truncate_after(after).await.unwrap(),
                drill::Op::Purge(upto) => store.purge(upto).await.unwrap(),
            }
        }
        assert_eq!(operations.model(), &drill::Model::read(&mut store).await.unwrap());
    }
}

#[tokio::test]
async fn a_torn_tail_starts_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let (mut store, disk) = open(&config);
    store.blocking_append(entries(1, 0..20)).await.unwrap();
    store.save_vote(&Vote::new(1, 1)).await.unwrap();
    let synced = std::fs::metadata(newest_wal(&config)).unwrap().len();
    disk.hold();
    let _under_way = append(&mut store, entries(1, 20..120)).await;
    disk.wait_until_a_sync_waits();
    // What a power cut now may leave: any part of what was written behind the last sync, in any order.
    let written = std::fs::read(newest_wal(&config)).unwrap();
    let synced = usize::try_from(synced).unwrap();
    assert!(written.len() > synced + 8000, "the batch under way is in the WAL");
    for step in 0..=24 {
        let at = synced + (written.len() - synced) * step / 24;
        let zeroed = |from: usize, to: usize| {
            let mut bytes = written.clone();
            bytes[from..to].fill(0);
            bytes
        };
        let cases = [written[..at].to_vec(), zeroed(at, written.len()), zeroed(synced, at)];
        for (kind, bytes) in cases.into_iter().enumerate() {
            let torn = tempfile::tempdir().unwrap();
            let torn_config = super::config(torn.path());
            copy(&config.dir, &torn_config.dir);
            std::fs::write(newest_wal(&torn_config), bytes).unwrap();
            let (store, _) = open(&torn_config);
            let found = indexes(&store).await;
            assert!(found.len() == 20 || found.len() == 120, "torn at {at}, kind {kind}: {found:?}");
            assert_eq!(store.reader().read_vote().await.unwrap(), Some(Vote::new(1, 1)));
        }
    }
    disk.release();
}

#[tokio::test]
async fn a_log_that_ends_before_its_promise_is_refused_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let (mut store, _) = open(&config);
    store.blocking_append(entries(1, 0..20)).await.unwrap();
    store.blocking_append(vec![entry(1, 20)]).await.unwrap();
    drop(store);
    let wal = newest_wal(&config);
    let bytes = std::fs::read(&wal).unwrap();
    let at = find(&bytes, b"1.201.20");
    std::fs::write(&wal, &bytes[..at]).unwrap();
    for _ in 0..3 {
        let error = refusal(&config);
        assert!(matches!(error, LogError::LostSyncedWrites { evidence: "the file of promises", .. }), "{error}");
    }
    std::fs::write(&wal, bytes).unwrap();
    let (store, _) = open(&config);
    assert_eq!(indexes(&store).await.len(), 21, "the refusals changed nothing");
}

#[tokio::test]
async fn damage_before_a_batch_that_knew_of_it_is_refused_without_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let promises = config.dir.join("PROMISES");
    let (mut store, disk) = open(&config);
    let before = std::fs::read(&promises).unwrap();
    store.blocking_append(entries(1, 0..20)).await.unwrap();
    // A block of the WAL that is skipped as damaged has 32 KiB; the later batches lie beyond it.
    for index in 20..400 {
        store.blocking_append(vec![entry(1, index)]).await.unwrap();
    }
    drop((store, disk));
    let wal = newest_wal(&config);
    let mut bytes = std::fs::read(&wal).unwrap();
    let at = find(&bytes, b"1.31.31.3");
    bytes[at] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    // As if the promises had been written long ago.
    std::fs::write(&promises, before).unwrap();
    for _ in 0..2 {
        let error = refusal(&config);
        assert!(error.to_string().contains("a later batch, readable behind the damage"), "{error}");
    }
}

#[tokio::test]
async fn a_lost_vote_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let (mut store, _) = open(&config);
    store.save_vote(&Vote::new(3, 1)).await.unwrap();
    store.blocking_append(entries(3, 0..1)).await.unwrap();
    drop(store);
    let db = rocks::open(&rocks::dir(&config.dir), config.write_buffer_bytes).unwrap();
    let older = stored::encode_vote(&Vote::new(2, 2));
    db.put(stored::VOTE, older).unwrap();
    drop(db);
    let error = refusal(&config);
    assert!(matches!(error, LogError::LostVote { promised, .. } if promised == Vote::new(3, 1)), "{error}");
}

#[tokio::test]
async fn holes_and_a_wrong_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let (mut store, _) = open(&config);
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    drop(store);
    let delete = |index: u64| {
        let db = rocks::open(&rocks::dir(&config.dir), config.write_buffer_bytes).unwrap();
        db.delete(stored::entry_key(index)).unwrap();
    };
    delete(9);
    let error = refusal(&config);
    assert!(matches!(error, LogError::WrongTail { found: Some(found), .. } if found == id(1, 8)), "{error}");
    delete(4);
    let error = refusal(&config);
    assert!(matches!(error, LogError::Hole { expected: 4, found: Some(5) }), "{error}");
}

#[test]
fn a_log_is_initialised_once_and_only_opened_by_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(refusal(&config(dir.path())), LogError::NotInitialised { .. }));
    // A creation that was interrupted is begun again.
    std::fs::create_dir(dir.path().join("log.new")).unwrap();
    std::fs::write(dir.path().join("log.new/CURRENT"), "half").unwrap();
    let config = init(dir.path());
    assert!(matches!(LogStore::init(&config), Err(LogError::AlreadyInitialised { .. })));
    let (store, _) = open(&config);
    assert!(matches!(refusal(&config), LogError::Locked { .. }));
    drop(store);
    let other = LogConfig { identity: Identity { node: 2, ..config.identity }, ..config.clone() };
    assert!(matches!(refusal(&other), LogError::OtherNode { found: 1, expected: 2, .. }));
    let other = LogConfig { identity: Identity { lineage: [0; 16], ..config.identity }, ..config.clone() };
    assert!(matches!(refusal(&other), LogError::OtherLineage { .. }));
    let identity = config.dir.join("IDENTITY");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("format 1", "format 9")).unwrap();
    assert!(matches!(refusal(&config), LogError::NewerFormat { found: 9, .. }));
}
