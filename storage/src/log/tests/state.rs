//! The log against the state machine, and reading while it changes.

use super::*;

#[tokio::test]
async fn a_log_behind_the_state_machine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(&init(dir.path()));
    let check = async |store: &LogStore, applied, snapshot| {
        store.check_state(applied, snapshot).await.map_err(|error| error.to_string())
    };
    assert_eq!(check(&store, None, None).await, Ok(()));
    assert!(check(&store, Some(id(1, 0)), None).await.unwrap_err().contains("the log lost acknowledged entries"));
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    store.purge(id(1, 3)).await.unwrap();
    assert_eq!(check(&store, Some(id(1, 9)), Some(id(1, 3))).await, Ok(()));
    assert_eq!(check(&store, Some(id(1, 2)), None).await, Ok(()), "purged entries can't be compared");
    assert!(check(&store, Some(id(1, 10)), Some(id(1, 3))).await.is_err());
    assert_eq!(
        check(&store, Some(id(4, 50)), Some(id(4, 50))).await,
        Ok(()),
        "an installed snapshot is ahead of the log"
    );
    assert!(check(&store, Some(id(4, 51)), Some(id(4, 50))).await.is_err());
    assert!(check(&store, Some(id(2, 7)), Some(id(1, 3))).await.unwrap_err().contains("of another history"));
}

#[tokio::test]
async fn reads_from_memory_and_disk_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = init(dir.path());
    config.memory_bytes = 10_000;
    let (mut store, _) = open(&config);
    for index in 0..500 {
        store.blocking_append(vec![entry(1, index)]).await.unwrap();
    }
    let mut reader = store.reader();
    for (start, end) in [(0, 500), (0, 3), (430, 500), (400, 480), (499, 500), (7, 7), (498, 900), (900, 990)] {
        let read = reader.try_get_log_entries(start..end).await.unwrap();
        assert!(read == entries(1, start..end.min(500)), "{start}..{end}");
    }
    let limited = reader.read(0..500, Some(1000)).await.unwrap();
    assert!((1..10).contains(&limited.len()));
    let piece = reader.limited_get_log_entries(3, 500).await.unwrap();
    let end = 3 + u64::try_from(piece.len()).unwrap();
    assert!(piece.len() > 300 && piece == entries(1, 3..end), "a piece from the disk");
    let piece = reader.limited_get_log_entries(end, 500).await.unwrap();
    assert!(piece == entries(1, end..500), "and the rest from memory");
    let streamed: Vec<_> = {
        use futures::StreamExt;
        reader.entries_stream(0..600).await.map(Result::unwrap).collect().await
    };
    assert!(streamed == entries(1, 0..500));
}

#[tokio::test]
async fn a_damaged_entry_on_disk_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = init(dir.path());
    config.memory_bytes = 0;
    let (mut store, _) = open(&config);
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    store.shared_for_test().db.put(crate::log::stored::entry_key(4), b"garbage").unwrap();
    assert!(store.reader().try_get_log_entries(..).await.is_err());
    assert!(matches!(**store.fatal().borrow().as_ref().unwrap(), LogError::Checksum { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_mixture_while_tails_are_replaced_and_heads_purged() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = init(dir.path());
    config.memory_bytes = 2_000;
    let (mut store, _) = open(&config);
    store.blocking_append(entries(1, 0..100)).await.unwrap();
    let mut reader = store.reader();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let reading = tokio::spawn(async move {
        let mut rounds = 0u64;
        while !stopped.load(Ordering::SeqCst) || rounds == 0 {
            let read = reader.try_get_log_entries(..).await.unwrap();
            assert!(read.windows(2).all(|pair| pair[1].log_id.index == pair[0].log_id.index + 1), "a hole");
            assert!(read.windows(2).all(|pair| pair[1].log_id.leader_id >= pair[0].log_id.leader_id), "a mixture");
            rounds += 1;
        }
        rounds
    });
    for term in 2..60 {
        let keep = 50 + term;
        store.truncate_after(Some(id_at(&store, keep).await)).await.unwrap();
        store.blocking_append(entries(term, keep + 1..keep + 50)).await.unwrap();
        store.purge(id_at(&store, term).await).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    assert!(reading.await.unwrap() > 0);
}

async fn id_at(store: &LogStore, index: u64) -> LogId {
    store.reader().try_get_log_entries(index..=index).await.unwrap()[0].log_id
}
