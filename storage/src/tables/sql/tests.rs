//! SQL against a node's tables: what it reads, what it writes, and what it may not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zyflow_machine::command::{BlockOp, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{KIND_TASK, Status};

use super::*;
use crate::tables::tests::harness::{Node, edit, note, populate};

const LIMITS: SqlLimits = SqlLimits {
    time: Duration::from_mins(1),
    rows: 1_000,
    read_bytes: 64 << 20,
    answer_bytes: 8 << 20,
    // Tests of one process run side by side, and what they take counts.
    memory_bytes: 4 << 30,
};

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
    within(&node.view(), script, &LIMITS)
}

fn within(view: &TablesView, script: &str, limits: &SqlLimits) -> Result<SqlAnswer, SqlError> {
    view.sql(script, limits, &Arc::default())
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
        texts(&within(&view, "SELECT title FROM tasks ORDER BY position", &LIMITS).unwrap()).concat()
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
    assert!(matches!(within(&view, endless, &hasty), Err(SqlError::OverTime)));
    let answer = within(&view, "SELECT * FROM tasks", &SqlLimits { rows: 5, ..LIMITS }).unwrap();
    assert_eq!((answer.results[0].rows.len(), answer.results[0].is_cut), (5, true));
    let narrow = SqlLimits { read_bytes: 1_000, ..LIMITS };
    assert!(matches!(within(&view, "SELECT * FROM tasks", &narrow), Err(SqlError::TooMuchToRead)));
    assert!(within(&view, "SELECT 1", &narrow).is_ok(), "only what is named is read");
    let terse = SqlLimits { answer_bytes: 500, ..LIMITS };
    assert!(matches!(within(&view, "SELECT * FROM tasks", &terse), Err(SqlError::TooMuchToAnswer)));
    let huge = "SELECT length(hex(zeroblob(1000000000)))";
    assert!(
        matches!(within(&view, huge, &LIMITS), Err(SqlError::TooMuchToAnswer)),
        "{:?}",
        within(&view, huge, &LIMITS)
    );
}

#[test]
fn preparing_is_bounded_too() {
    let (node, ..) = node(1);
    let levels = |levels: usize, body: &str| -> String {
        let level = |level: usize| format!(", c{level}(x) AS ({})", body.replace("{}", &format!("c{}", level - 1)));
        let levels_all: String = (1..=levels).map(level).collect();
        format!("WITH c0(x) AS (SELECT position FROM tasks){levels_all} SELECT count(x) FROM c{levels}")
    };
    for (script, most) in [(levels(17, "SELECT p.x FROM {} p, {} q"), 4), (levels(24, "SELECT x + x FROM {}"), 10)] {
        assert!(refusal(&node, &script).contains("too many subqueries"), "{script}");
        let fewer = levels(most, if most == 4 { "SELECT p.x FROM {} p, {} q" } else { "SELECT x + x FROM {}" });
        assert_eq!(texts(&ask(&node, &fewer).unwrap()), [["1"]], "{fewer}");
    }
    let selects = vec!["(SELECT 1)"; 10_001].join(", ");
    let told = refusal(&node, &format!("SELECT 1 WHERE 1 IN ({selects})"));
    assert!(told.contains("at most 10000 subqueries"), "{told}");
    let some = ["id IN (SELECT task FROM comments)"; 12].join(" OR ");
    let many = format!("SELECT count(*) FROM tasks WHERE {some}; ").repeat(900);
    assert!(ask(&node, &many).is_ok(), "subqueries are counted by statement");
    assert!(refusal(&node, &" ".repeat(SCRIPT_BYTES_MAX + 1)).contains("at most 1048576 bytes"));
    let late = SqlLimits { time: Duration::ZERO, ..LIMITS };
    assert!(matches!(within(&node.view(), "SELECT 1", &late), Err(SqlError::OverTime)), "nothing is prepared any more");
}

#[test]
fn one_function_has_little_to_do() {
    let (mut node, change, tasks) = node(1);
    let longer = "SELECT length(zeroblob(1048577))";
    assert!(matches!(ask(&node, longer), Err(SqlError::TooMuchToAnswer)), "{:?}", ask(&node, longer));
    let pattern = "SELECT 'a' LIKE printf('%.*c', 1001, 'a')";
    assert!(refusal(&node, pattern).contains("pattern too complex"), "{}", refusal(&node, pattern));
    // The longest text that there can be, and its version: each quote takes two bytes in JSON.
    let text = format!("] {}\n", "\"".repeat((1 << 20) - 7));
    let base = node.view().revision();
    let op = BlockOp::SetText { block: tasks[0], kind: KIND_TASK, lead: "- [".to_owned(), text };
    node.run(edit(change, base, vec![op]));
    let script = "SELECT length(text) FROM blocks; SELECT length(data) > 2000000 FROM versions ORDER BY valid_from DESC, data LIMIT 1";
    assert_eq!(texts(&ask(&node, script).unwrap()), [["1048572"], ["1"]]);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded() {
    let (node, ..) = node(200);
    let sorted = "SELECT a.id || b.id || c.id || hex(zeroblob(100)) AS x FROM tasks a, tasks b, tasks c ORDER BY x";
    let narrow = SqlLimits { memory_bytes: 64 << 20, rows: 1, ..LIMITS };
    let found = within(&node.view(), sorted, &narrow);
    assert!(matches!(found, Err(SqlError::TooMuchMemory)), "{found:?}");
    assert!(within(&node.view(), "SELECT a.id FROM tasks a, tasks b ORDER BY b.id", &LIMITS).is_ok());
}

#[test]
fn whoever_goes_ends_the_script() {
    let (node, ..) = node(1);
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let is_unwanted = Arc::new(AtomicBool::new(false));
    let (view, told) = (node.view(), Arc::clone(&is_unwanted));
    let running = std::thread::spawn(move || view.sql(endless, &LIMITS, &told));
    is_unwanted.store(true, Ordering::Relaxed);
    let found = running.join().unwrap();
    assert!(matches!(found, Err(SqlError::Ended)), "{found:?}");
}

#[test]
fn a_written_row_is_found_by_its_id() {
    const ROWS: u64 = 5_000;
    let connection = open().unwrap();
    connection
        .execute_batch(&format!(
            "INSERT INTO tasks_rows (id, title, labels, blocked_by)
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {ROWS}) SELECT x || '.0', 't', '[]', '[]' FROM n"
        ))
        .unwrap();
    connection.execute_batch(schema::WRITES_INDEX).unwrap();
    let looks = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&looks);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    };
    connection.progress_handler(1_000, Some(count)).unwrap();
    connection.execute_batch("UPDATE tasks SET note = 'x'; DELETE FROM tasks").unwrap();
    let thousands = looks.load(Ordering::Relaxed);
    assert!(thousands > 0 && thousands < ROWS, "{thousands} thousand steps: less than a thousand for each row");
    let (node, ..) = node(1);
    let index = "SELECT count(*) FROM main.sqlite_schema WHERE name = 'tasks_by_id'";
    assert_eq!(texts(&ask(&node, &format!("UPDATE tasks SET note = 'x'; {index}")).unwrap()), [["1"]]);
}

#[test]
fn versions_of_what_was_deleted_are_there() {
    let (mut node, change, tasks) = node(3);
    node.run(Body::Comment { task: tasks[0], text: "on a task of a change that goes".to_owned() });
    let project = node.view().projects().unwrap()[0].0;
    let blocks = vec![crate::tables::tests::harness::task_block("other")];
    let other = node.run(Body::CreateChange { project, path: "b/tasks.md".to_owned(), blocks, ops: Vec::new() });
    node.run(Body::Comment { task: other[1], text: "on a task that becomes prose".to_owned() });
    let base = node.view().revision();
    let prose = BlockOp::SetText { block: other[1], kind: 3, lead: String::new(), text: "other\n".to_owned() };
    node.run(edit(other[0], base, vec![prose]));
    let base = node.view().revision();
    node.run(Body::DeleteChange { change, base });
    let gone = ask(&node, "SELECT id FROM versions WHERE kind = 'block' AND deleted = 1 ORDER BY id").unwrap();
    let mut ids: Vec<Vec<String>> = tasks.iter().map(|task| vec![task.to_string()]).collect();
    ids.sort();
    assert_eq!(texts(&gone), ids);
    let said =
        ask(&node, "SELECT count(*) FROM versions WHERE kind = 'comment'; SELECT count(*) FROM comments").unwrap();
    assert_eq!(texts(&said), [["2"], ["0"]], "their tasks are none any more");
    let mut exported = 0;
    let versions = Source::ALL.iter().position(|source| *source == Source::Versions).unwrap();
    let count = |table: usize, _: Vec<SqlValue>| {
        exported += usize::from(table == versions);
        true
    };
    node.view().export(count).unwrap();
    let all = ask(&node, "SELECT count(*) FROM versions").unwrap();
    assert_eq!(texts(&all), [[exported.to_string()]]);
}
