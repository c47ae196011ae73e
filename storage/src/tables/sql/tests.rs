//! SQL against a node's tables: what it reads, what it writes, and what it may not.

use std::time::Duration;

use zyflow_machine::command::TaskField;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Status;

use super::*;
use crate::tables::tests::harness::{Node, note, populate};

const LIMITS: SqlLimits =
    SqlLimits { time: Duration::from_mins(1), rows: 1_000, read_bytes: 64 << 20, answer_bytes: 8 << 20 };

fn node(tasks: usize) -> (Node, RecordId, Vec<RecordId>) {
    let mut node = Node::new(|_| ());
    let (_, change, tasks) = populate(&mut node, tasks);
    (node, change, tasks)
}

fn texts(answer: &SqlAnswer) -> Vec<Vec<String>> {
    let shown = |value: &SqlValue| match value {
        SqlValue::Null => "NULL".to_owned(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Blob(bytes) => format!("{bytes:?}"),
    };
    let rows = answer.results.iter().flat_map(|result| &result.rows);
    rows.map(|row| row.iter().map(shown).collect()).collect()
}

fn ask(node: &Node, script: &str) -> Result<SqlAnswer, SqlError> {
    node.view().sql(script, &LIMITS)
}

fn refusal(node: &Node, script: &str) -> String {
    ask(node, script).expect_err(script).to_string()
}

fn write(node: &mut Node, script: &str) -> Vec<RecordId> {
    let command = ask(node, script).unwrap().command.expect("something is written");
    node.run(command)
}

#[test]
fn tasks_are_read_with_their_fields() {
    let (mut node, _, tasks) = node(3);
    node.run(Body::SetTask {
        task: tasks[1],
        expected: None,
        fields: vec![
            TaskField::Status(Status::InProgress),
            TaskField::Assignee(Some("ann".to_owned())),
            TaskField::Labels(["a b".to_owned(), "c".to_owned()].into()),
        ],
        mark: None,
    });
    let answer = ask(
        &node,
        "SELECT id, path, position, title, status, assignee, labels FROM tasks ORDER BY position;
         SELECT count(*) FROM tasks, json_each(labels) WHERE value = 'c'",
    );
    let id = |at: usize| tasks[at].to_string();
    let row = |values: [&str; 7]| values.map(str::to_owned).to_vec();
    assert_eq!(
        texts(&answer.unwrap()),
        [
            row([&id(0), "a/tasks.md", "0", "task 0", "todo", "NULL", "[]"]),
            row([&id(1), "a/tasks.md", "1", "task 1", "in-progress", "ann", "[\"a b\",\"c\"]"]),
            row([&id(2), "a/tasks.md", "2", "task 2", "todo", "NULL", "[]"]),
            vec!["1".to_owned()],
        ]
    );
}

#[test]
fn a_past_revision_answers_as_it_was() {
    let (mut node, _, tasks) = node(2);
    let before = node.view().revision();
    write(
        &mut node,
        "DELETE FROM tasks WHERE title = 'task 0'; UPDATE tasks SET title = 'other' WHERE title = 'task 1'",
    );
    let titles = |at: Option<Revision>| {
        let view = node.tables().view(at).unwrap();
        texts(&view.sql("SELECT title FROM tasks ORDER BY position", &LIMITS).unwrap()).concat()
    };
    assert_eq!(titles(Some(before)), ["task 0", "task 1"]);
    assert_eq!(titles(None), ["other"]);
    let versions = ask(&node, &format!("SELECT valid_from, valid_to, deleted FROM versions WHERE id = '{}'", tasks[0]));
    let (begin, end) = (before.0.to_string(), (before.0 + 1).to_string());
    assert_eq!(
        texts(&versions.unwrap()),
        [vec![begin, end.clone(), "0".to_owned()], vec![end, "NULL".to_owned(), "1".to_owned()]]
    );
}

#[test]
fn every_documented_view_can_be_read() {
    let (mut node, _, tasks) = node(1);
    node.run(Body::Comment { task: tasks[0], text: "well done".to_owned() });
    node.run(Body::CreatePoint { name: "start".to_owned(), at: None, note: String::new(), is_automatic: false });
    for source in Source::ALL {
        let answer = ask(&node, &format!("SELECT * FROM {}", source.name())).unwrap();
        let names: Vec<&str> = source.columns().split(", ").map(|column| column.split(' ').next().unwrap()).collect();
        assert_eq!(answer.results[0].columns, names);
        let is_empty = source == Source::Conflicts;
        assert_eq!(answer.results[0].rows.is_empty(), is_empty, "{source:?}");
    }
    assert_eq!(texts(&ask(&node, "SELECT text, author FROM comments").unwrap()), [["well done", "ann"]]);
}

#[test]
fn what_a_script_writes_is_one_command_at_one_revision() {
    let (mut node, change, tasks) = node(3);
    let created = write(
        &mut node,
        &format!(
            "BEGIN;
             UPDATE tasks SET status = 'done', assignee = 'bob' WHERE id = '{}';
             UPDATE tasks SET title = 'renamed', priority = 'high' WHERE id = '{}';
             DELETE FROM tasks WHERE id = '{}';
             INSERT INTO tasks (change, title, status, labels) VALUES ('{change}', 'new one', 'done', json_array('x'));
             INSERT INTO tasks (change, title) VALUES ('{change}', 'new two');
             INSERT INTO comments (task, text) VALUES ('{}', 'said by SQL');
             COMMIT",
            tasks[0], tasks[1], tasks[2], tasks[0]
        ),
    );
    assert_eq!(created.len(), 3, "two tasks and a comment: {created:?}");
    assert!(created.iter().all(|id| id.0.revision() == node.view().revision()));
    let answer =
        ask(&node, "SELECT title, mark, status, assignee, priority, labels FROM tasks ORDER BY position").unwrap();
    assert_eq!(
        texts(&answer),
        [
            ["task 0", "x", "done", "bob", "NULL", "[]"],
            ["renamed", " ", "todo", "NULL", "high", "[]"],
            ["new one", "x", "done", "NULL", "NULL", "[\"x\"]"],
            ["new two", " ", "todo", "NULL", "NULL", "[]"],
        ]
    );
}

#[test]
fn a_script_sees_its_own_writes_and_a_rollback_undoes_them() {
    let (node, ..) = node(2);
    let answer = ask(
        &node,
        "UPDATE tasks SET status = 'done' WHERE title = 'task 0';
         SELECT count(*) FROM tasks WHERE status = 'done';
         BEGIN; UPDATE tasks SET status = 'done'; ROLLBACK;
         SELECT count(*) FROM tasks WHERE status = 'done'",
    )
    .unwrap();
    assert_eq!(texts(&answer), [["1"], ["1"]]);
    assert!(matches!(answer.command, Some(Body::SetTask { .. })), "{:?}", answer.command);
    let undone = ask(&node, "BEGIN; DELETE FROM tasks; ROLLBACK").unwrap();
    assert_eq!(undone.command, None);
    let unchanged = ask(&node, "UPDATE tasks SET status = 'done'; UPDATE tasks SET status = 'todo'").unwrap();
    assert_eq!(unchanged.command, None, "what ends as it was is no change");
}

#[test]
fn somebody_who_was_faster_makes_a_write_stale() {
    let (mut node, _, tasks) = node(2);
    let script = "UPDATE tasks SET status = 'done'; UPDATE tasks SET title = title || '!'";
    let command = ask(&node, script).unwrap().command.unwrap();
    node.run(note(tasks[1], "faster"));
    let digest = node.tables().digest().unwrap().1;
    let outcomes =
        node.apply(crate::tables::tests::harness::batch(vec![crate::tables::tests::harness::command(None, command)]));
    assert!(matches!(outcomes.unwrap()[..], [zyflow_machine::outcome::Outcome::Stale { .. }]));
    assert_eq!(node.tables().digest().unwrap().1, digest, "nothing of it happened, not even the first task's part");
}

#[test]
fn whatever_is_not_documented_is_refused_with_the_reason() {
    let (node, change, _) = node(1);
    let cases = [
        ("UPDATE tasks_rows SET title = 'x'", "can't be changed"),
        ("DELETE FROM projects", "because it is a view"),
        ("INSERT INTO temp.pending_writes (verb, after) VALUES ('delete', '{}')", "can't be changed"),
        ("SELECT * FROM pending_writes", "not to be read"),
        ("CREATE TABLE x (y)", "only queries"),
        ("DROP VIEW tasks", "only queries"),
        ("PRAGMA trusted_schema = ON", "PRAGMA"),
        ("ATTACH '/tmp/x.sqlite' AS x", "no other database"),
        ("VACUUM INTO '/tmp/x.sqlite'", "no other database"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT ?", "no parameters"),
        ("  -- nothing", "empty"),
        ("SELECT colour FROM tasks", "no such column: colour"),
        ("SELEC 1", "syntax error"),
        ("BEGIN", "within a transaction"),
        ("UPDATE tasks SET mark = 'x'", "of a task only"),
        ("UPDATE tasks SET status = 'ready'", "no status; they are todo"),
        ("UPDATE tasks SET labels = 'a, b'", "JSON array"),
        ("UPDATE tasks SET title = 'a' || char(10) || 'b'", "one line"),
        ("INSERT INTO tasks (title) VALUES ('x')", "has change and title"),
        ("INSERT INTO tasks (change, title) VALUES ('9.9', 'x')", "change 9.9 isn't there"),
        ("INSERT INTO comments (text) VALUES ('x')", "has task and text"),
    ];
    let told = cases.map(|(script, reason)| (script, reason, refusal(&node, script)));
    let others: Vec<_> = told.iter().filter(|(_, reason, told)| !told.contains(reason)).collect();
    assert!(others.is_empty(), "{others:#?}");
    let second =
        format!("INSERT INTO tasks (change, title) VALUES ('{change}', 'x'); UPDATE tasks_rows SET title = 'y'");
    assert!(refusal(&node, &second).contains("can't be changed"), "no statement runs where one is refused");
}

#[test]
fn time_rows_and_bytes_are_bounded() {
    let (node, ..) = node(20);
    let view = node.view();
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let hasty = SqlLimits { time: Duration::from_millis(50), ..LIMITS };
    assert!(matches!(view.sql(endless, &hasty), Err(SqlError::OverTime)));
    let answer = view.sql("SELECT * FROM tasks", &SqlLimits { rows: 5, ..LIMITS }).unwrap();
    assert_eq!((answer.results[0].rows.len(), answer.results[0].is_cut), (5, true));
    let narrow = SqlLimits { read_bytes: 1_000, ..LIMITS };
    assert!(matches!(view.sql("SELECT * FROM tasks", &narrow), Err(SqlError::TooMuchToRead)));
    assert!(view.sql("SELECT 1", &narrow).is_ok(), "only what is named is read");
    let terse = SqlLimits { answer_bytes: 500, ..LIMITS };
    assert!(matches!(view.sql("SELECT * FROM tasks", &terse), Err(SqlError::TooMuchToAnswer)));
    let huge = "SELECT length(hex(zeroblob(1000000000)))";
    assert!(matches!(view.sql(huge, &LIMITS), Err(SqlError::TooMuchToAnswer)), "{:?}", view.sql(huge, &LIMITS));
}
