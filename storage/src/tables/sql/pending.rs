//! From what the triggers caught to what the cluster is asked: all of it as one command.
//!
//! Several updates of one task count as one, from the first value to the last; a task that is updated and then deleted is only
//! deleted. Every write says which revision it was read at, so it is stale where somebody was faster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::Value;
use zyflow_machine::command::{Anchor, BlockOp, BlockRef, Body, EditMode, NewBlock, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::record::{Block, KIND_TASK, Kind, Priority, Record, Status};
use zyflow_machine::view::{Stored, View};

use super::SqlError;
use super::bounds::Bounds;
use super::fill::{priority_name, title_of};
use crate::tables::view::TablesView;

type Object = serde_json::Map<String, Value>;

/// What a script wrote, by what it is about; what is added in the order of the script.
#[derive(Default)]
struct Caught {
    /// First and last value of each updated task.
    updates: BTreeMap<RecordId, (Object, Object)>,
    /// New tasks by change.
    inserts: BTreeMap<RecordId, Vec<Object>>,
    deletes: BTreeSet<RecordId>,
    comments: Vec<(RecordId, String)>,
}

/// The command that does what was written; `None` = nothing was.
pub(super) fn command(view: &TablesView, connection: &Connection, bounds: &Bounds) -> Result<Option<Body>, SqlError> {
    let caught = read(connection, bounds)?;
    let mut bodies = Vec::new();
    let mut edits: BTreeMap<RecordId, Vec<BlockOp>> = BTreeMap::new();
    for (task, (before, after)) in &caught.updates {
        bounds.check()?;
        if caught.deletes.contains(task) {
            continue;
        }
        let (fields, title) = changed(before, after)?;
        if !fields.is_empty() {
            bodies.push(Body::SetTask { task: *task, expected: Some(view.revision()), fields, mark: None });
        }
        if let Some(title) = title {
            let (change, op) = retitled(view, *task, &title)?;
            edits.entry(change).or_default().push(op);
        }
    }
    for task in &caught.deletes {
        bounds.check()?;
        let (stored, _) = task_of(view, *task)?;
        edits.entry(stored.parent).or_default().push(BlockOp::Delete { block: *task });
    }
    for (change, tasks) in &caught.inserts {
        bounds.check()?;
        let ops = inserted(view, *change, tasks)?;
        edits.entry(*change).or_default().extend(ops);
    }
    let edit =
        |(change, ops)| Body::Edit { change, base: view.revision(), mode: EditMode::Merge, ops, conflicts: Vec::new() };
    bodies.extend(edits.into_iter().map(edit));
    bodies.extend(caught.comments.into_iter().map(|(task, text)| Body::Comment { task, text }));
    Ok(match bodies.len() {
        0 => None,
        1 => bodies.pop(),
        _ => Some(Body::Group { bodies }),
    })
}

fn read(connection: &Connection, bounds: &Bounds) -> Result<Caught, SqlError> {
    let mut statement = connection
        .prepare("SELECT verb, id, before, after FROM temp.pending_writes ORDER BY seq")
        .map_err(SqlError::Internal)?;
    let raw = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, Option<String>, Option<String>, String)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let rows = statement.query_map([], raw).map_err(SqlError::Internal)?;
    let mut caught = Caught::default();
    for row in rows {
        bounds.check()?;
        let (verb, id, before, after) = row.map_err(SqlError::Internal)?;
        let id: RecordId = id.unwrap_or_default().parse().map_err(|error| SqlError::Refused(format!("{error}")))?;
        let after = object(&after)?;
        match (verb.as_str(), before) {
            ("update", Some(before)) => {
                let before = object(&before)?;
                caught.updates.entry(id).or_insert_with(|| (before, Object::new())).1 = after;
            }
            ("insert", _) => caught.inserts.entry(id).or_default().push(after),
            ("delete", _) => {
                caught.deletes.insert(id);
            }
            ("comment", _) => caught.comments.push((id, text(&after, "text")?.unwrap_or_default())),
            (other, _) => return Err(SqlError::Refused(format!("nothing is known of the write `{other}`"))),
        }
    }
    Ok(caught)
}

fn object(json: &str) -> Result<Object, SqlError> {
    serde_json::from_str(json).map_err(|error| SqlError::Refused(format!("a written row is no JSON object: {error}")))
}

/// The fields that differ, and the title where it does.
fn changed(before: &Object, after: &Object) -> Result<(Vec<TaskField>, Option<String>), SqlError> {
    let differs = |name: &&str| before.get(*name) != after.get(*name);
    let names = ["status", "assignee", "priority", "due", "labels", "blocked_by", "note"];
    let fields = names.into_iter().filter(differs).map(|name| field(after, name)).collect::<Result<Vec<_>, _>>()?;
    let title = if differs(&"title") { Some(text(after, "title")?.unwrap_or_default()) } else { None };
    Ok((fields, title))
}

fn field(row: &Object, name: &str) -> Result<TaskField, SqlError> {
    let value = text(row, name)?;
    Ok(match name {
        "status" => TaskField::Status(status(value.as_deref())?),
        "assignee" => TaskField::Assignee(value),
        "priority" => TaskField::Priority(value.as_deref().map(priority).transpose()?),
        "due" => TaskField::Due(value),
        "labels" => TaskField::Labels(list(name, value.as_deref())?.into_iter().collect()),
        "blocked_by" => {
            let ids = list(name, value.as_deref())?;
            let ids =
                ids.iter().map(|id| id.parse().map_err(|error| SqlError::Refused(format!("blocked_by: {error}"))));
            TaskField::BlockedBy(ids.collect::<Result<_, _>>()?)
        }
        _ => TaskField::Note(value.unwrap_or_default()),
    })
}

fn text(row: &Object, name: &str) -> Result<Option<String>, SqlError> {
    match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(SqlError::Refused(format!("`{name}` is a text, and not {other}"))),
    }
}

fn status(name: Option<&str>) -> Result<Status, SqlError> {
    let found = Status::ALL.into_iter().find(|status| Some(status.to_string().as_str()) == name);
    found.ok_or_else(|| {
        let all: Vec<String> = Status::ALL.iter().map(ToString::to_string).collect();
        SqlError::Refused(format!("`{}` is no status; they are {}", name.unwrap_or("NULL"), all.join(", ")))
    })
}

fn priority(name: &str) -> Result<Priority, SqlError> {
    let all = [Priority::Low, Priority::Medium, Priority::High];
    let found = all.into_iter().find(|priority| priority_name(*priority) == name);
    found.ok_or_else(|| SqlError::Refused(format!("`{name}` is no priority; they are low, medium, high")))
}

/// A JSON array of texts.
fn list(name: &str, json: Option<&str>) -> Result<Vec<String>, SqlError> {
    serde_json::from_str(json.unwrap_or("[]")).map_err(|_| {
        SqlError::Refused(format!("`{name}` is a JSON array of texts such as [\"a\", \"b\"]; json_array() makes one"))
    })
}

fn task_of(view: &TablesView, task: RecordId) -> Result<(Arc<Stored>, Block), SqlError> {
    let stored = view.get(task)?;
    let found = stored.and_then(|stored| match &stored.record {
        Some(Record::Block(block)) if block.task.is_some() => {
            let block = block.clone();
            Some((stored, block))
        }
        _ => None,
    });
    found.ok_or_else(|| SqlError::Refused(format!("task {task} isn't there at revision {}", view.revision())))
}

/// The same line with other words.
fn retitled(view: &TablesView, task: RecordId, title: &str) -> Result<(RecordId, BlockOp), SqlError> {
    let (stored, block) = task_of(view, task)?;
    let old = &block.text.value;
    if !old.starts_with(']') {
        return Err(SqlError::Refused(format!("task {task} is a row of a table, whose title can't be set by SQL")));
    }
    let words = title_of(old);
    let start = old.find(words).unwrap_or_default();
    let text = format!("{}{}{}", &old[..start], line(title)?, &old[start + words.len()..]);
    Ok((stored.parent, BlockOp::SetText { block: task, kind: block.kind, lead: block.lead, text }))
}

fn line(title: &str) -> Result<&str, SqlError> {
    let title = title.trim();
    if title.is_empty() || title.contains(['\n', '\r']) {
        return Err(SqlError::Refused("a task's title is one line and not empty".to_owned()));
    }
    Ok(title)
}

/// Tasks behind the last one of a change, written as that one is.
fn inserted(view: &TablesView, change: RecordId, tasks: &[Object]) -> Result<Vec<BlockOp>, SqlError> {
    let stored = view.get(change)?.filter(|stored| stored.kind == Kind::Change && stored.record.is_some());
    if stored.is_none() {
        return Err(SqlError::Refused(format!("change {change} isn't there at revision {}", view.revision())));
    }
    let blocks = view.blocks(change)?;
    let last_task = blocks.iter().rev().find_map(|(id, stored)| match &stored.record {
        Some(Record::Block(block)) if block.text.value.starts_with(']') => Some((*id, block.lead.clone())),
        _ => None,
    });
    let last = blocks.last().map(|(id, _)| *id);
    let (mut anchor, lead) = match (last_task, last) {
        (Some((id, lead)), _) => (Anchor::After(id), lead),
        (None, Some(id)) => (Anchor::After(id), "- [".to_owned()),
        (None, None) => (Anchor::Start, "- [".to_owned()),
    };
    let mut ops = Vec::new();
    for (index, row) in tasks.iter().enumerate() {
        let nth = u32::try_from(index).map_err(|_| SqlError::TooMuchToRead)?;
        let title = text(row, "title")?.unwrap_or_default();
        let names = ["status", "assignee", "priority", "due", "labels", "note"];
        let set = names.into_iter().filter(|name| row.get(*name).is_some_and(|value| !value.is_null()));
        let fields = set.map(|name| field(row, name)).collect::<Result<Vec<_>, _>>()?;
        let is_done = fields.contains(&TaskField::Status(Status::Done));
        let mark = if is_done { "x" } else { " " };
        let text = format!("] {}\n", line(&title)?);
        let block = NewBlock { kind: KIND_TASK, lead: lead.clone(), mark: mark.to_owned(), text };
        ops.push(BlockOp::Insert { after: anchor, block });
        if !fields.is_empty() {
            ops.push(BlockOp::SetFields { block: BlockRef::New(nth), fields });
        }
        anchor = Anchor::AfterNew(nth);
    }
    Ok(ops)
}
