//! Group commit, order, and what happens when the disk fails.

use super::*;

#[tokio::test]
async fn many_appends_share_a_sync_and_none_is_answered_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open(&init(dir.path()));
    let durable = store.durable_watermark();
    disk.hold();
    let mut waiting = vec![append(&mut store, entries(1, 0..1)).await];
    disk.wait_until_a_sync_waits();
    let before = disk.syncs();
    for index in 1..=200 {
        waiting.push(append(&mut store, entries(1, index..index + 1)).await);
    }
    store.save_committed(Some(id(1, 3))).await.unwrap();
    assert_eq!(indexes(&store).await, (0..=200).collect::<Vec<_>>(), "readable before they are on disk");
    for finished in &mut waiting {
        assert!(finished.try_recv().is_err(), "answered before the sync");
    }
    assert_eq!(*durable.borrow(), None);
    disk.release();
    for finished in waiting {
        tokio::time::timeout(DEADLINE, finished).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(disk.syncs() - before, 2, "one for the first append, one for the two hundred behind it");
    assert_eq!(*durable.borrow(), Some(200));
}

#[tokio::test]
async fn answers_come_in_the_order_of_submission() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open(&init(dir.path()));
    disk.hold();
    let mut waiting = Vec::new();
    for index in 0..50 {
        waiting.push(append(&mut store, entries(1, index..index + 1)).await);
    }
    disk.release();
    // When the last is answered all are; and a vote, which waits by itself, comes after all of them.
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    for mut finished in waiting {
        finished.try_recv().expect("answered before the vote").unwrap();
    }
}

#[tokio::test]
async fn a_commit_position_alone_costs_no_sync_of_its_own_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let (mut store, disk) = open(&config);
    store.blocking_append(entries(1, 0..5)).await.unwrap();
    let before = disk.syncs();
    for index in 0..5 {
        store.save_committed(Some(id(1, index))).await.unwrap();
    }
    assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 4)));
    drop(store);
    assert!(disk.syncs() - before <= 1, "at most the one when the queue falls idle");
    let (mut store, _) = open(&config);
    assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 4)));
}

#[tokio::test]
async fn a_vote_is_promised_beside_the_database_before_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open(&init(dir.path()));
    let before = (disk.syncs(), disk.promises.load(Ordering::SeqCst));
    store.save_vote(&Vote::new(1, 1)).await.unwrap();
    assert_eq!((disk.syncs(), disk.promises.load(Ordering::SeqCst)), (before.0 + 1, before.1 + 1));
    assert_eq!(store.reader().read_vote().await.unwrap(), Some(Vote::new(1, 1)));
}

#[tokio::test]
async fn the_durable_index_follows_the_syncs_and_falls_with_a_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open(&init(dir.path()));
    let durable = store.durable_watermark();
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    assert_eq!(*durable.borrow(), Some(9));
    store.truncate_after(Some(id(1, 4))).await.unwrap();
    assert_eq!(*durable.borrow(), Some(4));
    disk.hold();
    let finished = append(&mut store, entries(2, 5..8)).await;
    assert_eq!(*durable.borrow(), Some(4), "readable is not durable");
    disk.release();
    finished.await.unwrap().unwrap();
    assert_eq!(*durable.borrow(), Some(7));
    store.purge(id(9, 100)).await.unwrap();
    assert_eq!(*durable.borrow(), Some(100), "the snapshot stands for them");
}

/// Everything that can be asked of a failed log fails, and so does what was under way.
async fn assert_failed(store: &mut LogStore, waiting: Vec<Answer>) {
    for finished in waiting {
        let error = tokio::time::timeout(DEADLINE, finished).await.unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains("the disk of the test"), "{error}");
    }
    let fatal = store.fatal().borrow().clone().expect("latched");
    assert!(matches!(*fatal, LogError::File { .. }));
    assert!(!store.handle().is_writable());
    let (done, _finished) = TypeConfig::oneshot();
    assert!(store.append(entries(7, 70..71), AppendDone::signal(done)).await.is_err());
    assert!(store.save_vote(&Vote::new(9, 1)).await.is_err());
    assert!(store.save_committed(None).await.is_err());
    assert!(store.truncate_after(None).await.is_err());
    assert!(store.purge(id(1, 0)).await.is_err());
    assert!(store.get_log_state().await.is_err());
    assert!(store.read_committed().await.is_err());
    assert!(store.reader().read_vote().await.is_err());
    assert!(store.reader().try_get_log_entries(..).await.is_err());
}

#[tokio::test]
async fn the_first_failed_write_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open(&init(dir.path()));
    store.blocking_append(entries(1, 0..3)).await.unwrap();
    disk.fail_write.store(true, Ordering::SeqCst);
    let waiting = vec![append(&mut store, entries(1, 3..4)).await];
    let mut fatal = store.fatal();
    tokio::time::timeout(DEADLINE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap();
    disk.fail_write.store(false, Ordering::SeqCst);
    assert_failed(&mut store, waiting).await;
}

#[tokio::test]
async fn the_first_failed_sync_is_final_also_for_what_waits_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let (mut store, disk) = open(&config);
    store.blocking_append(entries(1, 0..3)).await.unwrap();
    disk.hold();
    let mut waiting = vec![append(&mut store, entries(1, 3..4)).await];
    disk.wait_until_a_sync_waits();
    waiting.push(append(&mut store, entries(1, 4..5)).await);
    waiting.push(append(&mut store, entries(1, 5..6)).await);
    let written = disk.writes.load(Ordering::SeqCst);
    disk.fail_sync.store(true, Ordering::SeqCst);
    disk.release();
    let mut fatal = store.fatal();
    tokio::time::timeout(DEADLINE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap();
    disk.fail_sync.store(false, Ordering::SeqCst);
    assert_failed(&mut store, waiting).await;
    assert_eq!(disk.writes.load(Ordering::SeqCst), written, "nothing is written after a failed sync");
    assert_eq!(*store.durable_watermark().borrow(), Some(2));
    drop(store);
    let (store, _) = open(&config);
    assert!(indexes(&store).await.starts_with(&[0, 1, 2]));
}

#[tokio::test]
async fn a_vote_whose_promise_fails_is_not_answered_with_yes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open(&init(dir.path()));
    disk.fail_promise.store(true, Ordering::SeqCst);
    assert!(store.save_vote(&Vote::new(1, 1)).await.is_err());
    assert_failed(&mut store, Vec::new()).await;
}

#[tokio::test]
async fn an_append_that_leaves_a_hole_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(&init(dir.path()));
    store.blocking_append(entries(1, 0..3)).await.unwrap();
    assert!(store.blocking_append(entries(1, 4..5)).await.is_err());
    assert!(matches!(**store.fatal().borrow().as_ref().unwrap(), LogError::NotNext { .. }));
}

#[tokio::test]
async fn a_full_disk_is_seen_before_it_hurts() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = init(dir.path());
    config.free_bytes_min = 1000;
    let (store, disk) = open(&config);
    let handle = store.handle();
    assert!(handle.is_writable() && handle.free_space() > 1000);
    *disk.free_bytes.lock().unwrap() = Some(999);
    let seen = async {
        while handle.is_writable() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("the writer looks every second");
    assert_eq!(handle.free_space(), 999);
}
