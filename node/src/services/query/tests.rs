//! Reads over real tables: where they are done, and histories in parts.

use std::sync::mpsc::sync_channel;

use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};
use zyflow_api::v1::query_request::{self as ask, Query as Question};
use zyflow_api::v1::{Moment, moment};
use zyflow_machine::id::EventId;

use super::history::PART_BYTES_MAX;
use super::*;
use crate::replay::tests::Fed;

/// A runtime as that of the cluster, with one thread that may wait, which does so until the sender is dropped.
fn busy() -> (Runtime, std::sync::mpsc::SyncSender<()>) {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let (tx, rx) = sync_channel::<()>(0);
    runtime.spawn_blocking(move || {
        let _ = rx.recv();
    });
    (runtime, tx)
}

#[test]
fn only_records_by_their_id_are_read_on_the_clusters_thread() {
    let mut fed = Fed::new();
    let (project, change, tasks) = fed.project("one", 2);
    let (reads, now) = (Reads::new(fed.tables.clone()), ClusterTime(1_000));
    let (runtime, held) = busy();
    let here = runtime.enter();
    let answer = |query: Question| {
        let view = reads.view_at(None, None).now_or_never().expect("the newest state needs no thread").unwrap();
        reads.answer(view, now, query, false).now_or_never()
    };
    let (project, change, task) = (project.to_u64(), change.to_u64(), tasks[0].to_u64());
    assert!(answer(Question::Task(ask::Task { id: task })).expect("no thread").is_ok());
    assert!(answer(Question::Conflict(ask::Conflict { id: task })).expect("no thread").is_err(), "it is a task");
    let elsewhere = [
        (Question::Task(ask::Task { id: task }), true),
        (Question::Tasks(ask::Tasks { filter: None }), false),
        (Question::Changes(ask::Changes { project }), false),
        (Question::Change(ask::Change { project, path: "a/tasks.md".to_owned() }), false),
        (Question::Document(ask::Document { change }), false),
        (Question::Conflicts(ask::Conflicts::default()), false),
        (Question::TaskHistory(ask::TaskHistory { id: task, ..ask::TaskHistory::default() }), false),
        (Question::ChangeHistory(ask::ChangeHistory { change, ..ask::ChangeHistory::default() }), false),
    ];
    for (query, is_past) in elsewhere {
        let reads = Reads::new(fed.tables.clone());
        let shown = format!("{query:?}");
        let view = fed.tables.view(None).unwrap();
        let answered = reads.answer(view, now, query, is_past).now_or_never();
        assert!(answered.is_none(), "{shown} is read on the cluster's thread");
    }
    let by_time = Moment { moment: Some(moment::Moment::TimeMs(1_000)) };
    let reads = Reads::new(fed.tables.clone());
    let view = fed.tables.view(None).unwrap();
    assert!(reads.view_at(None, Some(by_time)).now_or_never().is_none(), "a time is looked for elsewhere");
    assert!(reads.clock_at(&view, true).now_or_never().is_none(), "so is the time of a revision");
    assert!(reads.clock_at(&view, false).now_or_never().is_some());
    assert!(reads.digest().now_or_never().is_none(), "the applier may have to wait");
    drop(here);
    drop(held);
    let reads = Reads::new(fed.tables.clone());
    let listed = runtime.block_on(reads.answer(view, now, Question::Tasks(ask::Tasks { filter: None }), false));
    assert!(listed.is_ok());
}

fn reader(view: &TablesView) -> Reader<'_> {
    Reader { view, now: ClusterTime(1_000) }
}

/// All parts of a history, each as `read` gives it for what it has to go on before; newest version first.
fn parts(mut read: impl FnMut(Option<u64>) -> v1::History) -> (usize, Vec<u64>) {
    let (mut count, mut all, mut before) = (0, Vec::new(), None);
    loop {
        let part = read(before);
        assert!(part.encoded_len() <= PART_BYTES_MAX + 1_024, "{} bytes", part.encoded_len());
        count += 1;
        let mut versions: Vec<u64> = part.versions.iter().map(|version| version.version).collect();
        versions.sort_unstable_by_key(|version| std::cmp::Reverse(*version));
        before = versions.last().copied();
        all.extend(versions);
        if !part.more {
            return (count, all);
        }
    }
}

#[test]
fn a_history_that_no_message_holds_is_read_in_parts() {
    let mut fed = Fed::new();
    let (_, change, tasks) = fed.project("one", 2);
    for at in 0..140 {
        fed.note(tasks[0], &format!("{at:03}").repeat(20_000));
    }
    fed.note(tasks[1], "short");
    let view = fed.tables.view(None).unwrap();
    let whole: usize = view.history(tasks[0]).unwrap().len();
    assert_eq!(whole, 141);
    let id = tasks[0].to_u64();
    let of_task = |before, limit| reader(&view).history(&ask::TaskHistory { id, limit, before }).unwrap();
    let (count, all) = parts(|before| of_task(before, 0));
    assert_eq!((count, all.len()), (3, whole), "more than two halves of a message");
    assert!(all.is_sorted_by(|one, other| one > other));
    let newest = of_task(None, 3);
    let versions: Vec<u64> = newest.versions.iter().map(|version| version.version).collect();
    assert_eq!((versions, newest.more), (vec![all[2], all[1], all[0]], true), "oldest first");
    let first = of_task(all.last().copied(), 0);
    assert_eq!((first.versions.len(), first.more), (0, false), "before the first there is nothing");

    let of_change = |before, limit| {
        let query = ask::ChangeHistory { change: change.to_u64(), limit, before };
        reader(&view).change_history(&query).unwrap()
    };
    let (_, of_all) = parts(|before| of_change(before, 0));
    assert_eq!(of_all.len(), 1 + 141 + 2);
    assert_eq!(parts(|before| of_change(before, 7)).1, of_all);
    let newest = of_change(None, 1);
    assert_eq!((newest.versions[0].version, newest.more), (of_all[0], true));
    let unknown = RecordId(EventId::new(Revision(1), 900).unwrap()).to_u64();
    let nothing = reader(&view).history(&ask::TaskHistory { id: unknown, limit: 0, before: None });
    assert_eq!(nothing.unwrap_err().code, ErrorCode::NotFound);
}
