//! Limits: the backlog, the past, and what a query may ask.

use std::sync::mpsc;
use std::time::Duration;

use zyflow_machine::id::Revision;
use zyflow_machine::record::Status;

use super::harness::{Node, edit, insert_first, note, populate, wait_until};
use crate::tables::{EntryPayload, TablesError, TaskFilter};

#[test]
fn apply_waits_at_the_hard_limit_and_goes_on_when_there_is_room() {
    let mut node = Node::new(|config| {
        config.backlog_ops_max = 40;
        config.flush_ops_max = 10;
    });
    node.durable.send_replace(Some(0));
    let (_, _, tasks) = populate(&mut node, 4);
    let (tables, durable) = (node.tables().clone(), node.durable.clone());
    let (done, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                for task in &tasks {
                    node.run(note(*task, "words"));
                    node.run(note(*task, "other words"));
                }
            }
            done.send(()).unwrap();
        });
        wait_until("the backlog is full", || tables.backlog_ops() >= 40);
        assert!(waiting.recv_timeout(Duration::from_millis(200)).is_err(), "apply waits");
        assert!(tables.backlog_ops() <= 42, "and the backlog doesn't grow: {}", tables.backlog_ops());
        durable.send_replace(Some(u64::MAX));
        waiting.recv_timeout(Duration::from_secs(30)).unwrap();
    });
    node.assert_digests_equal();
    assert_eq!(tables.backlog_ops(), 0);
}

#[test]
fn a_backlog_that_waits_ends_with_the_tables() {
    let mut node = Node::new(|config| config.backlog_ops_max = 1);
    node.durable.send_replace(Some(0));
    node.apply(EntryPayload::Blank).unwrap();
    let tables = node.tables().clone();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| node.apply(EntryPayload::Blank));
        wait_until("an entry was applied", || tables.applied().borrow().0 == 1);
        tables.shutdown().unwrap();
        assert!(matches!(waits.join().unwrap(), Err(TablesError::Stopped)));
    });
}

#[test]
fn a_backlog_of_large_rows_is_bounded_by_bytes() {
    let mut node = Node::new(|config| config.backlog_bytes_max = 1 << 20);
    node.durable.send_replace(Some(0));
    let (_, _, tasks) = populate(&mut node, 1);
    let (tables, durable) = (node.tables().clone(), node.durable.clone());
    let (done, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                node.run(note(tasks[0], &format!("{round:02}").repeat(8_000)));
            }
            done.send(()).unwrap();
        });
        assert!(waiting.recv_timeout(Duration::from_millis(300)).is_err(), "a megabyte is waiting");
        assert!(tables.backlog_ops() < 80, "that is about thirty notes of 16 KB, kept twice: {}", tables.backlog_ops());
        durable.send_replace(Some(u64::MAX));
        waiting.recv_timeout(Duration::from_secs(30)).unwrap();
    });
    node.assert_digests_equal();
}

#[test]
fn the_future_is_refused_and_says_so() {
    let mut node = Node::new(|_| {});
    populate(&mut node, 1);
    let error = node.tables().view(Some(Revision(9))).unwrap_err();
    let expected = "revision 9 has not been applied here yet, the newest is 2: wait for it, or ask for an older one";
    assert_eq!(error.to_string(), expected);
    assert!(node.tables().fatal().borrow().is_none());
    assert!(node.tables().view(Some(Revision(0))).unwrap().projects().unwrap().is_empty());
}

#[test]
fn tasks_are_found_by_what_is_asked() {
    let mut node = Node::new(|_| {});
    let (project, change, tasks) = populate(&mut node, 12);
    node.run(note(tasks[3], "Ask the GARDENER"));
    node.run(edit(change, Revision(2), vec![insert_first("zeroth")]));
    node.tables().flush().unwrap();
    let body = zyflow_machine::command::Body::SetTask {
        task: tasks[5],
        expected: None,
        fields: vec![
            zyflow_machine::command::TaskField::Status(Status::Done),
            zyflow_machine::command::TaskField::Assignee(Some("bo".to_owned())),
        ],
        mark: None,
    };
    node.run(body);
    let view = node.view();
    let ask = |filter: TaskFilter| {
        let found = view.tasks(&filter).unwrap();
        found.into_iter().map(|(id, _)| tasks.iter().position(|task| *task == id)).collect::<Vec<_>>()
    };
    let all = ask(TaskFilter::default());
    assert_eq!((all.len(), all[0], all[1]), (13, None, Some(0)), "in the order of the file");
    assert_eq!(ask(TaskFilter { text: Some("gardener".to_owned()), ..TaskFilter::default() }), [Some(3)]);
    assert_eq!(ask(TaskFilter { text: Some("TASK 7".to_owned()), ..TaskFilter::default() }), [Some(7)]);
    assert_eq!(ask(TaskFilter { status: Some(Status::Done), ..TaskFilter::default() }), [Some(5)]);
    assert_eq!(ask(TaskFilter { assignee: Some("bo".to_owned()), ..TaskFilter::default() }), [Some(5)]);
    let of_change =
        TaskFilter { change: Some(change), project: Some(project), limit: Some(3), ..TaskFilter::default() };
    assert_eq!(ask(of_change), [None, Some(0), Some(1)]);
    assert!(ask(TaskFilter { change: Some(project), ..TaskFilter::default() }).is_empty());
    assert_eq!(view.project_named("garden").unwrap().unwrap().0, project);
    assert!(view.project_named("Garden").unwrap().is_none());
    assert_eq!(view.change_at_path(project, "a/tasks.md").unwrap().unwrap().0, change);
}

#[test]
fn a_subscriber_gets_what_is_applied_and_is_told_what_it_missed() {
    use tokio::sync::broadcast::error::TryRecvError;
    let mut node = Node::new(|_| {});
    let mut changes = node.tables().subscribe();
    let (_, _, tasks) = populate(&mut node, 2);
    let first = changes.try_recv().unwrap();
    assert_eq!((first.revision, first.rows.len()), (Revision(1), 1));
    assert_eq!(changes.try_recv().unwrap().rows.len(), 3);
    assert!(matches!(changes.try_recv(), Err(TryRecvError::Empty)));
    for _ in 0..600 {
        node.run(note(tasks[0], "a"));
        node.run(note(tasks[0], "b"));
    }
    assert!(matches!(changes.try_recv(), Err(TryRecvError::Lagged(_))));
}
