//! Several commands as one: all of them at one revision, or none.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failing test should panic")]

mod harness;

use harness::{Node, block};
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::limits::GROUP_COMMANDS_MAX;
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_machine::record::Record;

fn note(task: RecordId, text: &str, expected: Option<Revision>) -> Body {
    Body::SetTask { task, expected, fields: vec![TaskField::Note(text.to_owned())], mark: None }
}

fn note_of(node: &Node, task: RecordId) -> String {
    match node.record(task).unwrap() {
        Record::Block(block) => block.task.unwrap().note.value,
        other => panic!("not a task: {other:?}"),
    }
}

#[test]
fn all_of_a_group_happens_at_one_revision_and_each_part_sees_the_ones_before() {
    let mut node = Node::default();
    let (change, tasks) = node.change("tasks.md", vec![block("[ ] One"), block("[ ] Two")]);
    let created = node.create(Body::Group {
        bodies: vec![
            note(tasks[0], "first", Some(node.machine.revision())),
            note(tasks[1], "second", None),
            note(tasks[1], "third", None),
            Body::Comment { task: tasks[0], text: "why?".to_owned() },
            Body::MoveChange { change, path: "b.md".to_owned(), from: "tasks.md".to_owned() },
            Body::MoveChange { change, path: "c.md".to_owned(), from: "b.md".to_owned() },
        ],
    });
    assert_eq!(created.len(), 1);
    assert_eq!(created[0].0.revision(), node.machine.revision());
    assert_eq!((note_of(&node, tasks[0]), note_of(&node, tasks[1])), ("first".to_owned(), "third".to_owned()));
    assert!(matches!(node.record(change), Some(Record::Change(change)) if change.path == "c.md"));
}

#[test]
fn what_one_part_halts_halts_all() {
    let mut node = Node::default();
    let (_, tasks) = node.change("tasks.md", vec![block("[ ] One"), block("[ ] Two")]);
    let seen = node.machine.revision();
    node.run(note(tasks[1], "faster", None));
    let before = node.machine.digest();
    let stale = node.run(Body::Group { bodies: vec![note(tasks[0], "a", None), note(tasks[1], "b", Some(seen))] });
    assert!(matches!(&stale, Outcome::Stale { fields, .. } if fields[0].record == tasks[1]), "{stale:?}");
    let missing = RecordId::from_u64(u64::from(u32::MAX));
    let rejected = node.run(Body::Group { bodies: vec![note(tasks[0], "a", None), note(missing, "b", None)] });
    assert!(matches!(rejected, Outcome::Rejected(Reject::NotFound { .. })), "{rejected:?}");
    assert_eq!(node.machine.digest(), before, "not even the first part happened");
}

#[test]
fn groups_hold_no_groups_and_nothing_about_sessions_and_not_too_much() {
    let mut node = Node::default();
    for body in [Body::Group { bodies: Vec::new() }, Body::OpenSession, Body::CloseSession] {
        let refused = node.run(Body::Group { bodies: vec![body] });
        assert!(matches!(refused, Outcome::Rejected(Reject::Invalid(_))), "{refused:?}");
    }
    let (_, tasks) = node.change("tasks.md", vec![block("[ ] One")]);
    let group = |count| Body::Group { bodies: vec![note(tasks[0], "x", None); count] };
    assert!(matches!(node.run(group(GROUP_COMMANDS_MAX)), Outcome::Accepted { .. }));
    let refused = node.run(group(GROUP_COMMANDS_MAX + 1));
    assert!(matches!(refused, Outcome::Rejected(Reject::OverLimit { .. })), "{refused:?}");
}
