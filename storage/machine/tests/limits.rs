//! Every limit holds: what is over it is refused as such, and nothing happens; what is at it is done.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failing test should panic")]

mod harness;

use harness::{Node, block, command};
use std::sync::Arc;
use zyflow_machine::Machine;
use zyflow_machine::command::{
    Anchor, Author, Batch, BlockOp, Body, Command, EditMode, NewBlock, NewConflict, TaskField,
};
use zyflow_machine::id::{ClusterTime, ORDINALS_MAX, RecordId, Revision};
use zyflow_machine::limits;
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_machine::record::{ConflictClass, Kind, Policy, Record, Status};
use zyflow_machine::view::{Changed, Stored, View};

fn limit_of(outcome: &Outcome) -> Option<(&str, u64, u64)> {
    match outcome {
        Outcome::Rejected(Reject::OverLimit { what, actual, limit }) => Some((what, *actual, *limit)),
        _ => None,
    }
}

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap()
}

fn prose(bytes: usize) -> NewBlock {
    NewBlock { kind: 3, lead: String::new(), mark: String::new(), text: "a".repeat(bytes) }
}

/// A node with one task, and commands that are as large as `over` asks beyond a limit.
#[expect(clippy::too_many_lines, reason = "one table, a row for each limit")]
fn cases(change: RecordId, task: RecordId, project: RecordId, over: usize) -> Vec<(&'static str, usize, Body)> {
    let edit = |ops, conflicts| Body::Edit { change, base: Revision(2), mode: EditMode::Merge, ops, conflicts };
    let insert = |block| BlockOp::Insert { after: Anchor::Start, block };
    let set = |field| Body::SetTask { task, expected: None, fields: vec![field], mark: None };
    let named = |name: String| Body::CreateProject { name, files: Vec::new() };
    let at = |path: String| Body::CreateChange { project, path, blocks: Vec::new(), ops: Vec::new() };
    let conflict = |value: String| NewConflict {
        block: None,
        class: ConflictClass::Data,
        field: "text".to_owned(),
        base: None,
        spec: Some(value),
        runtime: None,
        settlement: None,
    };
    let mark = |bytes| BlockOp::SetMark { block: task, mark: "m".repeat(bytes), status: None };
    let words = |count: usize| (0..count).map(|word| word.to_string()).collect();
    let text = limits::COMMAND_TEXT_BYTES_MAX;
    let segments = |bytes: usize| {
        let mut path = "abc/".repeat(bytes / 4);
        path.push_str(&"d".repeat(bytes % 4));
        if path.ends_with('/') {
            path.pop();
            path.push('e');
        }
        path
    };
    vec![
        (
            "bytes of a block",
            limits::BLOCK_BYTES_MAX,
            edit(vec![insert(prose(limits::BLOCK_BYTES_MAX + over))], vec![]),
        ),
        ("bytes of a mark", limits::MARK_BYTES_MAX, edit(vec![mark(limits::MARK_BYTES_MAX + over)], vec![])),
        (
            "operations of an edit",
            limits::OPS_PER_EDIT_MAX,
            edit(vec![mark(1); limits::OPS_PER_EDIT_MAX + over], vec![]),
        ),
        (
            "conflicts of an edit",
            limits::CONFLICTS_PER_EDIT_MAX,
            edit(vec![], vec![conflict(String::new()); limits::CONFLICTS_PER_EDIT_MAX + over]),
        ),
        ("bytes of a command's texts", text, edit(vec![mark(over)], vec![conflict("c".repeat(text / 2)); 2])),
        ("bytes of a note", limits::NOTE_BYTES_MAX, set(TaskField::Note("n".repeat(limits::NOTE_BYTES_MAX + over)))),
        (
            "bytes of an assignee",
            limits::NAME_BYTES_MAX,
            set(TaskField::Assignee(Some("n".repeat(limits::NAME_BYTES_MAX + over)))),
        ),
        (
            "labels of a task",
            limits::LABELS_PER_TASK_MAX,
            set(TaskField::Labels(words(limits::LABELS_PER_TASK_MAX + over))),
        ),
        (
            "bytes of a label",
            limits::LABEL_BYTES_MAX,
            set(TaskField::Labels(["l".repeat(limits::LABEL_BYTES_MAX + over)].into())),
        ),
        (
            "fields of a command",
            limits::FIELDS_PER_COMMAND_MAX,
            Body::SetTask {
                task,
                expected: None,
                fields: vec![TaskField::Status(Status::Todo); limits::FIELDS_PER_COMMAND_MAX + over],
                mark: None,
            },
        ),
        ("bytes of a project's name", limits::NAME_BYTES_MAX, named("n".repeat(limits::NAME_BYTES_MAX + over))),
        (
            "globs of a project",
            limits::GLOBS_PER_PROJECT_MAX,
            Body::CreateProject {
                name: "globs".to_owned(),
                files: words(limits::GLOBS_PER_PROJECT_MAX + over).into_iter().collect(),
            },
        ),
        ("bytes of a path", limits::PATH_BYTES_MAX, at(segments(limits::PATH_BYTES_MAX + over))),
        (
            "bytes of a path's segment",
            limits::PATH_SEGMENT_BYTES_MAX,
            at("s".repeat(limits::PATH_SEGMENT_BYTES_MAX + over)),
        ),
        (
            "blocks of a change",
            limits::BLOCKS_PER_CHANGE_MAX,
            Body::CreateChange {
                project,
                path: format!("{over}.md"),
                blocks: vec![prose(1); limits::BLOCKS_PER_CHANGE_MAX + over],
                ops: Vec::new(),
            },
        ),
        (
            "bytes of a comment",
            limits::COMMENT_BYTES_MAX,
            Body::Comment { task, text: "c".repeat(limits::COMMENT_BYTES_MAX + over) },
        ),
        (
            "requirements of a task",
            limits::REQUIREMENTS_PER_TASK_MAX,
            set(TaskField::Requirements(words(limits::REQUIREMENTS_PER_TASK_MAX + over))),
        ),
        (
            "milliseconds of a lease",
            usize::try_from(limits::LEASE_MS_MAX).unwrap(),
            Body::Claim {
                task,
                holder: "ann".to_owned(),
                lease_ms: limits::LEASE_MS_MAX + u64::try_from(over).unwrap(),
                fields: Vec::new(),
                mark: None,
            },
        ),
        (
            "bytes of a convention",
            limits::CONVENTION_BYTES_MAX,
            Body::SetPolicy {
                project,
                expected: None,
                policy: Policy {
                    convention: Some("c".repeat(limits::CONVENTION_BYTES_MAX + over)),
                    ..Policy::default()
                },
            },
        ),
    ]
}

#[test]
fn each_limit_is_the_last_size_that_is_taken() {
    let mut node = Node::default();
    let (change, blocks) = node.change("tasks.md", vec![block("[ ] One")]);
    let project = node.view.find(Kind::Project, RecordId::ROOT, b"p").unwrap().unwrap();
    for (what, limit, body) in cases(change, blocks[0], project, 1) {
        let before = node.view.clone();
        let outcome = node.run(body);
        assert_eq!(limit_of(&outcome), Some((what, number(limit) + 1, number(limit))), "{what}");
        assert_eq!(node.view, before, "{what}");
    }
    for (what, _, body) in cases(change, blocks[0], project, 0) {
        let mut node = node.clone();
        let outcome = node.run(body);
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{what}: {outcome:?}");
    }
}

#[test]
fn a_change_does_not_outgrow_its_limit_by_inserts() {
    let mut node = Node::default();
    let (change, _) = node.change("tasks.md", vec![prose(1); limits::BLOCKS_PER_CHANGE_MAX - 100]);
    let mut insert = |count| {
        let op = BlockOp::Insert { after: Anchor::Start, block: prose(1) };
        let base = node.machine.revision();
        node.run(Body::Edit { change, base, mode: EditMode::Merge, ops: vec![op; count], conflicts: Vec::new() })
    };
    assert_eq!(limit_of(&insert(101)).unwrap().0, "blocks of a change");
    assert!(matches!(insert(100), Outcome::Accepted { .. }));
    assert_eq!(limit_of(&insert(limits::BLOCKS_COUNTED_FROM)).unwrap().0, "blocks of a change");
}

#[test]
fn an_author_with_an_endless_name_is_refused() {
    let author = Author { name: "a".repeat(limits::NAME_BYTES_MAX + 1), clock_ms: 0 };
    let refused = Node::default().apply(vec![Command { author, ..command(Body::OpenSession) }]);
    assert_eq!(limit_of(&refused.outcomes[0]).unwrap().0, "bytes of an author's name");
}

#[test]
fn too_many_tasks_to_wait_for_are_refused() {
    let mut node = Node::default();
    let (_, tasks) = node.change("tasks.md", vec![block("[ ] One"); limits::BLOCKED_BY_PER_TASK_MAX + 2]);
    let mut wait = |count| {
        let fields = vec![TaskField::BlockedBy(tasks[1..=count].iter().copied().collect())];
        node.run(Body::SetTask { task: tasks[0], expected: None, fields, mark: None })
    };
    assert_eq!(limit_of(&wait(limits::BLOCKED_BY_PER_TASK_MAX + 1)).unwrap().0, "tasks that a task waits for");
    assert!(matches!(wait(limits::BLOCKED_BY_PER_TASK_MAX), Outcome::Accepted { .. }));
}

#[test]
fn looking_for_a_cycle_ends() {
    let mut node = Node::default();
    let (_, tasks) = node.change("tasks.md", vec![block("[ ] One"); limits::BLOCKED_BY_WALK_MAX + 2]);
    let wait = |pair: &[RecordId]| {
        let fields = vec![TaskField::BlockedBy([pair[1]].into())];
        command(Body::SetTask { task: pair[0], expected: None, fields, mark: None })
    };
    // From the near end, so that only the very last step has a long way to look.
    let (first, rest) = (wait(&tasks[..2]), tasks[1..].windows(2).map(wait).collect::<Vec<_>>());
    for chunk in rest.chunks(limits::COMMANDS_PER_BATCH_MAX) {
        let outcomes = node.apply(chunk.to_vec()).outcomes;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
    }
    let outcome = node.apply(vec![first]).outcomes.remove(0);
    assert_eq!(limit_of(&outcome).unwrap().0, "tasks that a task waits for, all told");
}

#[test]
fn commands_past_the_limit_of_an_entry_are_refused() {
    let mut node = Node::default();
    let commands = vec![command(Body::OpenSession); limits::COMMANDS_PER_BATCH_MAX + 2];
    let outcomes = node.apply(commands).outcomes;
    let refused = outcomes.iter().filter(|outcome| limit_of(outcome).is_some()).count();
    assert_eq!(refused, 2);
    assert!(limit_of(&outcomes[limits::COMMANDS_PER_BATCH_MAX]).is_some());
}

#[test]
fn an_entry_without_ordinals_left_refuses_what_does_not_fit_and_takes_it_later() {
    let mut node = Node::default();
    let project = node.create(Body::CreateProject { name: "p".to_owned(), files: Vec::new() })[0];
    let session = node.create(Body::OpenSession)[0];
    let session = zyflow_machine::id::SessionId(session.0);
    let changes = usize::try_from(ORDINALS_MAX).unwrap() / limits::BLOCKS_PER_CHANGE_MAX + 1;
    let commands: Vec<Command> = (1..=changes)
        .map(|seq| {
            let blocks = vec![prose(1); limits::BLOCKS_PER_CHANGE_MAX];
            let body = Body::CreateChange { project, path: format!("{seq}.md"), blocks, ops: Vec::new() };
            Command { request: Some(zyflow_machine::id::RequestId { session, seq: number(seq) }), ..command(body) }
        })
        .chain([command(Body::CreateProject { name: "small".to_owned(), files: Vec::new() })])
        .collect();
    let effects = node
        .machine
        .apply(&node.view, Revision(3), &Batch { stamped: ClusterTime(0), commands: commands.clone() })
        .unwrap();
    assert_eq!(
        limit_of(&effects.outcomes[changes - 1]),
        Some(("row changes of one entry", u64::from(ORDINALS_MAX) + 1, u64::from(ORDINALS_MAX)))
    );
    assert_eq!(effects.rows.len(), (changes - 1) * (limits::BLOCKS_PER_CHANGE_MAX + 1) + 1);
    assert!(matches!(effects.outcomes[changes], Outcome::Accepted { .. }));
    // The million rows need no storing: the refused command depends on none of them.
    let again = Batch { stamped: ClusterTime(0), commands: vec![commands[changes - 1].clone()] };
    let outcome = node.machine.apply(&node.view, Revision(4), &again).unwrap().outcomes.remove(0);
    assert!(matches!(outcome, Outcome::Accepted { .. }), "a refusal for want of room was remembered");
}

#[test]
fn a_key_grown_over_its_limit_is_refused() {
    let mut node = Node::default();
    let (change, blocks) = node.change("tasks.md", vec![prose(1); 2]);
    let mut edges = (blocks[0], blocks[1]);
    let mut insert = |after| {
        let op = BlockOp::Insert { after: Anchor::After(after), block: prose(1) };
        let base = node.machine.revision();
        let effects = node.machine.apply(
            &node.view,
            Revision(base.0 + 1),
            &Batch {
                stamped: ClusterTime(0),
                commands: vec![command(Body::Edit {
                    change,
                    base,
                    mode: EditMode::Merge,
                    ops: vec![op],
                    conflicts: vec![],
                })],
            },
        );
        let effects = effects.unwrap();
        node.view.commit_effects(&effects);
        effects.outcomes[0].clone()
    };
    for count in 0.. {
        // Always into the gap that the last two inserts left.
        match insert(edges.0) {
            Outcome::Accepted { created, .. } if count % 2 == 0 => edges.1 = created[0],
            Outcome::Accepted { created, .. } => edges.0 = created[0],
            refused => {
                assert_eq!(limit_of(&refused).unwrap().0, "bytes of an order key");
                assert!(count > 1_000, "after {count} inserts already");
                return;
            }
        }
    }
}

/// A view that can't be read.
struct Broken;

#[derive(Debug, thiserror::Error)]
#[error("the disk is gone")]
struct Gone;

impl View for Broken {
    type Error = Gone;

    fn get(&self, _: RecordId) -> Result<Option<Arc<Stored>>, Gone> {
        Err(Gone)
    }

    fn get_at(&self, _: RecordId, _: Revision) -> Result<Option<Arc<Stored>>, Gone> {
        Err(Gone)
    }

    fn changed(&self, _: Kind, _: RecordId, _: Revision) -> Result<Vec<Changed>, Gone> {
        Err(Gone)
    }

    fn find(&self, _: Kind, _: RecordId, _: &[u8]) -> Result<Option<RecordId>, Gone> {
        Err(Gone)
    }

    fn next(&self, _: Kind, _: RecordId, _: Option<&[u8]>) -> Result<Option<(Vec<u8>, RecordId)>, Gone> {
        Err(Gone)
    }

    fn children(&self, _: Kind, _: RecordId) -> Result<Vec<(Vec<u8>, RecordId)>, Gone> {
        Err(Gone)
    }
}

fn broken() -> Machine {
    let mut machine = Machine::new();
    let commands = vec![command(Body::CreateProject { name: "p".to_owned(), files: Vec::new() })];
    assert!(machine.apply(&Broken, Revision(1), &Batch { stamped: ClusterTime(0), commands }).is_err());
    machine
}

#[test]
#[should_panic(expected = "the machine is used after a view failed")]
fn a_machine_whose_view_failed_is_not_used_again() {
    broken().skip(Revision(2));
}

#[test]
#[should_panic(expected = "revision 1 is applied after revision 1")]
fn applying_an_entry_twice_stops_the_node() {
    let mut node = Node::default();
    node.run(Body::OpenSession);
    node.machine.skip(Revision(1));
}

#[test]
fn the_first_entry_of_a_log_may_have_index_zero() {
    let mut node = Node::default();
    node.machine.skip(Revision(0));
    node.machine.skip(Revision(1));
    assert!(matches!(node.run(Body::OpenSession), Outcome::Accepted { revision: Revision(2), .. }));
}

#[test]
fn a_header_with_other_sessions_is_refused() {
    let mut node = Node::default();
    node.run(Body::OpenSession);
    let header = node.machine.save().header;
    let sessions: Vec<_> = node.machine.sessions().collect();
    assert!(Machine::restore(&header, sessions.into_iter()).is_ok());
    assert!(Machine::restore(&header, std::iter::empty()).is_err());
}

#[test]
fn conflicts_belong_to_their_change() {
    let mut node = Node::default();
    let (change, _) = node.change("tasks.md", vec![block("[ ] One")]);
    let (_, others) = node.change("other.md", vec![block("[ ] Two")]);
    let conflict = |block| NewConflict {
        block: Some(block),
        class: ConflictClass::Data,
        field: "mark".to_owned(),
        base: None,
        spec: None,
        runtime: None,
        settlement: None,
    };
    let base = node.machine.revision();
    let edit =
        |block| Body::Edit { change, base, mode: EditMode::Merge, ops: vec![], conflicts: vec![conflict(block)] };
    let outcome = node.run(edit(others[0]));
    assert!(matches!(outcome, Outcome::Rejected(Reject::Invalid(_))), "{outcome:?}");
    assert!(!node.view.records().any(|(_, record)| matches!(record, Record::Conflict(_))));
}
