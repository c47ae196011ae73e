//! From records to the rows that SQL sees. All rows are true at the view's revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value;
use zyflow_machine::id::{EventId, RecordId};
use zyflow_machine::record::{Block, Conflict, Kind, Priority, Record, TaskFields};
use zyflow_machine::view::Stored;

use super::SqlError;
use super::schema::Source;
use crate::tables::query::{Found, Version};
use crate::tables::view::TablesView;

/// Bytes that a row costs besides its texts.
const ROW_BYTES: usize = 128;

/// Makes the rows of the wanted tables, one change after the other, and hands each over.
pub(super) struct Filler<'a> {
    view: &'a TablesView,
    wanted: &'a BTreeSet<Source>,
    then: &'a mut Then<'a>,
}

/// What is done with a row. Its error ends the filling.
pub(super) type Then<'a> = dyn FnMut(Source, Vec<Value>) -> Result<(), SqlError> + 'a;

/// Bytes that a row takes in memory, about.
pub(super) fn bytes_of(values: &[Value]) -> usize {
    let texts = values.iter().map(|value| if let Value::Text(text) = value { text.len() } else { 0 });
    ROW_BYTES + texts.sum::<usize>()
}

/// A change with the names that its rows carry.
struct Place {
    project: String,
    change: String,
    path: String,
}

impl<'a> Filler<'a> {
    pub(super) fn new(view: &'a TablesView, wanted: &'a BTreeSet<Source>, then: &'a mut Then<'a>) -> Self {
        Self { view, wanted, then }
    }

    /// All rows of all wanted tables.
    pub(super) fn fill(mut self) -> Result<(), SqlError> {
        if self.wants(Source::Points) {
            for (id, stored) in self.view.points()? {
                self.point(id, &stored)?;
            }
        }
        if self.wants(Source::Versions) {
            self.versions()?;
        }
        let below_projects =
            self.wanted.iter().any(|source| !matches!(source, Source::Projects | Source::Points | Source::Versions));
        for (project, stored) in self.view.projects()? {
            let Some(Record::Project(record)) = &stored.record else { continue };
            if self.wants(Source::Projects) {
                let files = json(&record.files)?;
                self.row(Source::Projects, vec![id_of(project), text(&record.name), text(&files), at(&stored)])?;
            }
            if below_projects {
                self.project(project, &record.name)?;
            }
        }
        Ok(())
    }

    fn wants(&self, source: Source) -> bool {
        self.wanted.contains(&source)
    }

    fn project(&mut self, project: RecordId, name: &str) -> Result<(), SqlError> {
        let below_changes = self
            .wanted
            .iter()
            .any(|source| matches!(source, Source::Blocks | Source::Tasks | Source::Conflicts | Source::Comments));
        for (change, stored) in self.view.changes(project)? {
            let Some(Record::Change(record)) = &stored.record else { continue };
            let place = Place { project: name.to_owned(), change: change.to_string(), path: record.path.clone() };
            if self.wants(Source::Changes) {
                let row = vec![id_of(change), id_of(project), text(name), text(&record.path), at(&stored)];
                self.row(Source::Changes, row)?;
            }
            if below_changes {
                self.change(change, &place)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, change: RecordId, place: &Place) -> Result<(), SqlError> {
        let of_blocks =
            self.wanted.iter().any(|source| matches!(source, Source::Blocks | Source::Tasks | Source::Comments));
        if of_blocks {
            for (position, found) in self.view.blocks(change)?.into_iter().enumerate() {
                self.block(&found, position, place)?;
            }
        }
        if self.wants(Source::Conflicts) {
            for (id, stored) in self.view.conflicts(change)? {
                if let Some(Record::Conflict(conflict)) = &stored.record {
                    self.conflict(id, &stored, conflict, place)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, (id, stored): &Found, position: usize, place: &Place) -> Result<(), SqlError> {
        let Some(Record::Block(block)) = &stored.record else { return Ok(()) };
        let position = Value::Integer(i64::try_from(position).unwrap_or(i64::MAX));
        if self.wants(Source::Blocks) {
            let row = vec![
                id_of(*id),
                text(&place.change),
                text(&place.path),
                position.clone(),
                Value::Integer(block.kind.into()),
                text(&block.lead),
                text(&block.mark.value),
                text(&block.text.value),
                at(stored),
            ];
            self.row(Source::Blocks, row)?;
        }
        let Some(task) = block.task.as_deref() else { return Ok(()) };
        if self.wants(Source::Tasks) {
            let row = task_row(*id, stored, block, task, position, place)?;
            self.row(Source::Tasks, row)?;
        }
        if self.wants(Source::Comments) {
            for (comment, stored) in self.view.comments(*id)? {
                if let Some(Record::Comment(said)) = &stored.record {
                    let time = Value::Integer(i64::try_from(said.time.0).unwrap_or(i64::MAX));
                    let row = vec![id_of(comment), id_of(*id), text(&said.author), time, text(&said.text)];
                    self.row(Source::Comments, row)?;
                }
            }
        }
        Ok(())
    }

    fn conflict(&mut self, id: RecordId, stored: &Stored, conflict: &Conflict, place: &Place) -> Result<(), SqlError> {
        let settled = conflict.settled.as_ref();
        let row = vec![
            id_of(id),
            text(&place.change),
            text(&place.path),
            conflict.block.map_or(Value::Null, id_of),
            text(&format!("{:?}", conflict.class).to_lowercase()),
            text(&conflict.field),
            maybe(conflict.base.as_deref()),
            maybe(conflict.spec.as_deref()),
            maybe(conflict.runtime.as_deref()),
            text(&conflict.author),
            settled.map_or(Value::Null, |settled| number(settled.at.0)),
            maybe(settled.map(|settled| settled.author.as_str())),
            maybe(settled.and_then(|settled| settled.settlement.value.as_deref())),
            at(stored),
        ];
        self.row(Source::Conflicts, row)
    }

    fn point(&mut self, id: RecordId, stored: &Stored) -> Result<(), SqlError> {
        let Some(Record::Point(point)) = &stored.record else { return Ok(()) };
        let row = vec![
            id_of(id),
            text(&point.name),
            number(point.revision.0),
            text(&point.note),
            text(&point.author),
            number(point.time.0),
            Value::Integer(point.is_automatic.into()),
        ];
        self.row(Source::Points, row)
    }

    /// Every kept version of every record. Unlike the other tables it goes down through what is deleted too: a record of a deleted parent may
    /// live, as comments and conflicts do, and what was deleted has versions.
    fn versions(&mut self) -> Result<(), SqlError> {
        for kind in [Kind::Point, Kind::Retention, Kind::Restore] {
            self.versions_of(kind, RecordId::ROOT)?;
        }
        for project in self.versions_of(Kind::Project, RecordId::ROOT)? {
            for change in self.versions_of(Kind::Change, project)? {
                self.versions_of(Kind::Conflict, change)?;
                for block in self.versions_of(Kind::Block, change)? {
                    // Whatever it is now, it may have been a task.
                    self.versions_of(Kind::Comment, block)?;
                }
            }
        }
        Ok(())
    }

    /// Every kept version of the records of that kind and parent, deleted ones included; gives the records.
    fn versions_of(&mut self, kind: Kind, parent: RecordId) -> Result<Vec<RecordId>, SqlError> {
        let ids = self.view.family(kind, parent)?;
        for id in ids.iter().copied() {
            let versions = self.view.history(id)?;
            let ends = versions.iter().skip(1).map(|next| Some(next.version)).chain([None]);
            for (version, end) in versions.iter().zip(ends) {
                self.row(Source::Versions, version_row(id, version, end)?)?;
            }
        }
        Ok(ids)
    }

    fn row(&mut self, source: Source, values: Vec<Value>) -> Result<(), SqlError> {
        (self.then)(source, values)
    }
}

fn task_row(
    id: RecordId,
    stored: &Arc<Stored>,
    block: &Block,
    task: &TaskFields,
    position: Value,
    place: &Place,
) -> Result<Vec<Value>, SqlError> {
    let blocked_by: Vec<String> = task.blocked_by.value.iter().map(ToString::to_string).collect();
    let claim = task.claim.value.as_ref();
    Ok(vec![
        id_of(id),
        text(&place.project),
        text(&place.change),
        text(&place.path),
        position,
        text(title_of(&block.text.value)),
        text(&block.mark.value),
        text(&task.status.value.to_string()),
        maybe(task.assignee.value.as_deref()),
        maybe(task.priority.value.map(priority_name)),
        maybe(task.due.value.as_deref()),
        text(&json(&task.labels.value)?),
        text(&json(&blocked_by)?),
        text(&json(&task.requirements.value)?),
        text(&task.note.value),
        maybe(claim.map(|claim| claim.holder.as_str())),
        claim.map_or(Value::Null, |claim| number(claim.until.0)),
        at(stored),
    ])
}

fn version_row(id: RecordId, version: &Version, end: Option<EventId>) -> Result<Vec<Value>, SqlError> {
    let record = version.stored.record.as_ref();
    Ok(vec![
        id_of(id),
        text(version.stored.kind.noun()),
        id_of(version.stored.parent),
        number(version.version.revision().0),
        end.map_or(Value::Null, |end| number(end.revision().0)),
        Value::Integer(record.is_none().into()),
        record.map(json).transpose()?.map_or(Value::Null, Value::Text),
        text(&version.provenance.author.name),
        number(version.provenance.time.0),
    ])
}

/// The words of a task's text: what follows the bracket, without the line's end.
pub(super) fn title_of(text: &str) -> &str {
    text.strip_prefix(']').unwrap_or(text).trim()
}

pub(super) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Medium => "medium",
        Priority::High => "high",
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, SqlError> {
    serde_json::to_string(value)
        .map_err(|error| SqlError::Refused(format!("a value can't be written as JSON: {error}")))
}

fn id_of(id: RecordId) -> Value {
    Value::Text(id.to_string())
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn maybe(value: Option<&str>) -> Value {
    value.map_or(Value::Null, text)
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The revision that changed a record last.
fn at(stored: &Stored) -> Value {
    number(stored.version.revision().0)
}
