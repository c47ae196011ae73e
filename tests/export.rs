//! `zyflow sql --export` on real processes: a plain SQLite file that holds what the views say at one revision, whole or not at all.

use std::path::Path;

use anyhow::{Context, ensure};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value;
use zyflow_tests::{Harness, until};

const CHANGE: &str = "openspec/changes/add-login/tasks.md";

const VIEWS: [&str; 8] = ["projects", "changes", "blocks", "tasks", "conflicts", "comments", "points", "versions"];

/// A state with something in every view, and the revision of it; more happens afterwards.
async fn tell(harness: &Harness) -> anyhow::Result<String> {
    until("the demo's change in the cluster", || {
        let listed = harness.zyflow(&["-o", "jsonl", "task", "list", "--change", CHANGE]);
        listed.is_ok_and(|said| said.code == 0 && !said.out.is_empty())
    })
    .await?;
    let run = |args: &[&str]| -> anyhow::Result<String> {
        let said = harness.zyflow(args)?;
        ensure!(said.code == 0, "{args:?}: {said:?}");
        Ok(said.out)
    };
    let task = format!("{CHANGE}#1.1");
    run(&["task", "set", &task, "--note", "quotes ' and \" and a line\nmore: 한국어", "--status", "in-progress"])?;
    run(&["task", "comment", &task, "said"])?;
    run(&["task", "add", CHANGE, "taken away again"])?;
    run(&["point", "create", "before-release"])?;
    let set = run(&["-o", "json", "task", "set", &task, "--note", "then"])?;
    let set: Value = serde_json::from_str(&set)?;
    let revision = set["revision"].as_u64().or(set[0]["revision"].as_u64()).context(set.to_string())?;
    run(&["task", "set", &task, "--note", "later"])?;
    Ok(revision.to_string())
}

/// What a view says through the cluster: its columns, and its rows in their order.
fn asked(harness: &Harness, view: &str, at: &str) -> anyhow::Result<(Vec<String>, Vec<Vec<Value>>)> {
    let query = format!("SELECT * FROM {view}");
    let said = harness.zyflow(&["-o", "json", "--at", at, "sql", "--rows", "100000", &query])?;
    ensure!(said.code == 0, "{said:?}");
    let said: Value = serde_json::from_str(&said.out)?;
    let table = &said["results"][0];
    let columns: Vec<String> = serde_json::from_value(table["columns"].clone())?;
    let items = table["items"].as_array().context("rows")?;
    let row = |item: &Value| columns.iter().map(|column| item[column].clone()).collect();
    let rows = items.iter().map(row).collect();
    Ok((columns, rows))
}

/// What a file says.
fn held(file: &Connection, view: &str) -> anyhow::Result<(Vec<String>, Vec<Vec<Value>>)> {
    let mut statement = file.prepare(&format!("SELECT * FROM {view}"))?;
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let count = columns.len();
    let value = |value: Sql| match value {
        Sql::Null => Value::Null,
        Sql::Integer(number) => number.into(),
        Sql::Real(number) => number.into(),
        Sql::Text(text) => text.into(),
        Sql::Blob(_) => Value::Bool(false),
    };
    let rows = statement.query_map([], |row| (0..count).map(|at| row.get::<_, Sql>(at).map(value)).collect())?;
    Ok((columns, rows.collect::<Result<_, _>>()?))
}

fn equals_the_views(harness: &Harness, path: &Path, at: &str) -> anyhow::Result<()> {
    let file = Connection::open(path)?;
    for view in VIEWS {
        let (asked, held) = (asked(harness, view, at)?, held(&file, view)?);
        assert_eq!(asked, held, "{view} at {at}");
    }
    let meta =
        |key: &str| file.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0));
    assert_eq!((meta("revision")?.as_str(), meta("format")?.as_str()), (at, "1"));
    let check: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(check, "ok");
    let tables: i64 =
        file.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?;
    assert_eq!(tables, 9, "the views and meta, nothing else");
    Ok(())
}

#[tokio::test]
async fn an_export_is_a_plain_file_that_says_what_the_views_say() -> anyhow::Result<()> {
    let harness = Harness::start(1).await?;
    let at = tell(&harness).await?;
    let file = harness.folder().join("export.sqlite");
    let path = file.display().to_string();
    let said = harness.zyflow(&["-o", "json", "--at", &at, "sql", "--export", &path])?;
    ensure!(said.code == 0, "{said:?}");
    let said: Value = serde_json::from_str(&said.out)?;
    assert_eq!(said["revision"].to_string(), at);
    assert!(said["rows"]["versions"].as_u64() > Some(10) && said["rows"]["comments"] == 1, "{said}");
    equals_the_views(&harness, &file, &at)?;
    let before = std::fs::read(&file)?;
    let again = harness.zyflow(&["sql", "--export", &path])?;
    assert!(again.code == 4 && again.err.contains("is there already"), "{again:?}");
    ensure!(std::fs::read(&file)? == before, "what was there is as it was");
    let nowhere = harness.zyflow(&["sql", "--export", &harness.folder().join("no/where").display().to_string()])?;
    assert!(nowhere.code == 1 && nowhere.err.contains("E-FILE"), "{nowhere:?}");
    let left = std::fs::read_dir(harness.folder())?.filter_map(Result::ok).map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".zyflow-")).collect();
    assert!(left.is_empty(), "nothing unfinished is left: {left:?}");
    harness.cluster.stop().await?;
    Ok(())
}
