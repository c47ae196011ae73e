//! What a rollback would do: each change's text and fields now, held against those of then. Reads only.

use crate::cli::context::Context;
use crate::cli::report::Failure;
use crate::client::Client;
use crate::code::Code;
use crate::coordinator::spec_block;
use crate::error::ClientError;
use crate::read::{Document, Read, Row};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use zyflow_machine::command::Scope;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Block, TaskFields};

/// What would happen to one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    project: String,
    /// Its path now, or where it is deleted the one that it had.
    change: String,
    /// What becomes of the file: `made`, `removed`, `moved to PATH`, or nothing of that.
    file: Option<String>,
    /// Tasks that are there again.
    pub(super) added: Vec<String>,
    /// Tasks that are gone.
    pub(super) removed: Vec<String>,
    /// Tasks with other words, as they will be.
    pub(super) reworded: Vec<String>,
    /// Tasks with another status.
    pub(super) status: Vec<String>,
    /// Tasks with another mark, assignee, priority, ...
    pub(super) fields: Vec<String>,
    /// What isn't about one task: other lines, and another order.
    other: Vec<String>,
}

impl Difference {
    fn is_none(&self) -> bool {
        let lists = [&self.added, &self.removed, &self.reworded, &self.status, &self.fields, &self.other];
        self.file.is_none() && lists.iter().all(|list| list.is_empty())
    }
}

/// What a rollback of `scope` to `to` would do, change by change, and the revision that this is true at.
pub(super) async fn of(
    context: &Context,
    client: &Client,
    scope: Scope,
    to: Revision,
) -> Result<(Vec<Difference>, Revision), Failure> {
    let projects = client.projects(context.read_now()).await?;
    let read = |at| Read { at: Some(at), ..context.read_now() };
    let (now, then) = (read(projects.revision), read(to));
    // Refused here where the revision isn't there, before anything that is missing at it could mean "made later".
    client.projects(then).await?;
    let mut differences = Vec::new();
    for project in projects.value {
        if matches!(scope, Scope::Project(wanted) if wanted != project.id) {
            continue;
        }
        let mut changes: BTreeSet<RecordId> = live(client.changes(now, project.id).await.map(|list| list.value))?;
        changes.extend(live(client.changes(then, project.id).await.map(|list| list.value))?);
        changes.retain(|change| !matches!(scope, Scope::Change(wanted) if wanted != *change));
        for change in changes {
            let is = found(client.document(now, change).await)?;
            let was = found(client.document(then, change).await)?;
            let difference = compare(&project.record.name, is.as_ref(), was.as_ref());
            differences.extend(Some(difference).filter(|difference| !difference.is_none()));
        }
    }
    Ok((differences, projects.revision))
}

fn live<T>(listed: Result<Vec<Row<Option<T>>>, ClientError>) -> Result<BTreeSet<RecordId>, Failure> {
    let rows = absent(listed)?.unwrap_or_default();
    Ok(rows.into_iter().filter(|row| row.record.is_some()).map(|row| row.id).collect())
}

fn found(document: Result<crate::read::Answer<Document>, ClientError>) -> Result<Option<Document>, Failure> {
    Ok(absent(document)?.map(|answer| answer.value).filter(|document| document.change.record.is_some()))
}

/// What doesn't exist at a revision is nothing there, and no failure.
fn absent<T>(answer: Result<T, ClientError>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn compare(project: &str, now: Option<&Document>, then: Option<&Document>) -> Difference {
    let path = |document: Option<&Document>| Some(document?.change.record.as_ref()?.path.clone());
    let (is_at, was_at) = (path(now), path(then));
    let file = match (&is_at, &was_at) {
        (None, Some(_)) => Some("made".to_owned()),
        (Some(_), None) => Some("removed".to_owned()),
        (Some(is), Some(was)) if is != was => Some(format!("moved to {was}")),
        (Some(_) | None, Some(_) | None) => None,
    };
    let change = is_at.or(was_at).unwrap_or_default();
    let mut difference = Difference { project: project.to_owned(), change, file, ..Difference::default() };
    let (now, then) = (blocks(now), blocks(then));
    let is: BTreeMap<RecordId, &Block> = now.iter().map(|row| (row.id, &row.record)).collect();
    let was: BTreeMap<RecordId, &Block> = then.iter().map(|row| (row.id, &row.record)).collect();
    let mut lines = 0;
    for row in now.iter().filter(|row| !was.contains_key(&row.id)) {
        if row.record.task.is_some() { difference.removed.push(title(&row.record)) } else { lines += 1 }
    }
    for row in then {
        match is.get(&row.id) {
            Some(is) => lines += compare_block(&mut difference, is, &row.record),
            None if row.record.task.is_some() => difference.added.push(title(&row.record)),
            None => lines += 1,
        }
    }
    if lines > 0 {
        difference.other.push(format!("other lines: {lines}"));
    }
    let common = |rows: &[Row<Block>], other: &BTreeMap<RecordId, &Block>| {
        rows.iter().map(|row| row.id).filter(|id| other.contains_key(id)).collect::<Vec<_>>()
    };
    if common(now, &was) != common(then, &is) {
        difference.other.push("another order".to_owned());
    }
    difference
}

fn blocks(document: Option<&Document>) -> &[Row<Block>] {
    document.map_or(&[], |document| &document.blocks)
}

/// Notes how a block that is there before and after differs; how many lines that aren't tasks do.
fn compare_block(difference: &mut Difference, is: &Block, was: &Block) -> usize {
    let is_other_text = (is.kind, &is.lead, &is.text.value) != (was.kind, &was.lead, &was.text.value);
    let (Some(is_task), Some(was_task)) = (&is.task, &was.task) else {
        return usize::from(is_other_text || is.task.is_some() != was.task.is_some());
    };
    let title = title(was);
    if is_other_text {
        difference.reworded.push(title.clone());
    }
    if is_task.status.value != was_task.status.value {
        difference.status.push(format!("{title}: {} -> {}", is_task.status.value, was_task.status.value));
    }
    let mut fields: Vec<&str> = others(is_task, was_task);
    if is.mark.value != was.mark.value {
        fields.push("mark");
    }
    if !fields.is_empty() {
        difference.fields.push(format!("{title}: {}", fields.join(" ")));
    }
    0
}

/// The names of the fields, status apart, that differ.
fn others(is: &TaskFields, was: &TaskFields) -> Vec<&'static str> {
    let differing = was.values().into_iter().filter(|value| !is.has(value));
    differing.map(|value| value.name()).filter(|name| *name != "status").collect()
}

fn title(block: &Block) -> String {
    spec_block(block).title().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use zyflow_machine::command::TaskField;
    use zyflow_machine::id::EventId;
    use zyflow_machine::record::{Change, Field, KIND_TASK, OrderKey, Status};

    fn id(ordinal: u32) -> RecordId {
        RecordId(EventId::new(Revision(2), ordinal).unwrap())
    }

    fn row(ordinal: u32, line: &str, status: Option<Status>) -> Row<Block> {
        let nowhen = Revision(0);
        let task = status.map(|status| {
            let mut task = TaskFields::default();
            task.set(&TaskField::Status(status), nowhen);
            Box::new(task)
        });
        let (lead, text) = if task.is_some() { ("- [", format!("] {line}\n")) } else { ("", format!("{line}\n")) };
        let mark = if status == Some(Status::Done) { "x" } else { " " };
        let block = Block {
            change: id(0),
            kind: if task.is_some() { KIND_TASK } else { 3 },
            order: Field::new(OrderKey::default(), nowhen),
            lead: lead.to_owned(),
            mark: Field::new(if task.is_some() { mark.to_owned() } else { String::new() }, nowhen),
            text: Field::new(text, nowhen),
            task,
        };
        Row { id: id(ordinal), version: id(ordinal).0, record: block }
    }

    fn document(path: &str, blocks: Vec<Row<Block>>) -> Document {
        let record = Some(Change { project: id(9), path: path.to_owned() });
        Document { change: Row { id: id(0), version: id(0).0, record }, blocks }
    }

    fn check(now: Option<&Document>, then: Option<&Document>, expected: &Expect) {
        let difference = compare("demo", now, then);
        let mut said = serde_json::to_value(&difference).unwrap();
        said.as_object_mut().unwrap().retain(|name, value| {
            let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            name != "project" && !is_empty
        });
        expected.assert_eq(&said.to_string());
        assert_eq!(difference.is_none(), said.as_object().unwrap().len() == 1, "the path alone is no difference");
    }

    #[test]
    fn a_change_is_compared_task_by_task() {
        let then = document(
            "a.md",
            vec![
                row(1, "one", Some(Status::Todo)),
                row(2, "two", Some(Status::Todo)),
                row(3, "three", Some(Status::Done)),
                row(4, "words", None),
            ],
        );
        let mut noted = row(1, "one", Some(Status::Todo));
        noted.record.task.as_mut().unwrap().set(&TaskField::Note("mine".to_owned()), Revision(3));
        let now = document(
            "b.md",
            vec![
                row(3, "drei", Some(Status::InProgress)),
                noted,
                row(4, "other words", None),
                row(5, "five", Some(Status::Todo)),
            ],
        );
        check(Some(&then), Some(&then), &expect![[r#"{"change":"a.md"}"#]]);
        check(
            Some(&now),
            Some(&then),
            &expect![[
                r#"{"added":["two"],"change":"b.md","fields":["one: note","three: mark"],"file":"moved to a.md","other":["other lines: 1","another order"],"removed":["five"],"reworded":["three"],"status":["three: in-progress -> done"]}"#
            ]],
        );
        check(
            None,
            Some(&then),
            &expect![[r#"{"added":["one","two","three"],"change":"a.md","file":"made","other":["other lines: 1"]}"#]],
        );
        check(
            Some(&then),
            None,
            &expect![[
                r#"{"change":"a.md","file":"removed","other":["other lines: 1"],"removed":["one","two","three"]}"#
            ]],
        );
    }
}
