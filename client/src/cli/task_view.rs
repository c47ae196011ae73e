//! Tasks as they are shown.

use super::resolve::spec_block;
use crate::read::{Task, Version};
use clap::ValueEnum;
use serde_json::{Value, json};
use zyflow_machine::command::TaskField;
use zyflow_machine::event::Fact;
use zyflow_machine::id::{ClusterTime, RecordId};
use zyflow_machine::record::{Priority, Status};

/// A status, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusArg {
    /// Not begun.
    Todo,
    /// Somebody works on it.
    InProgress,
    /// Waits for a look.
    Review,
    /// Can't go on.
    Blocked,
    /// Finished.
    Done,
    /// Won't be done.
    Cancelled,
    /// Out of sight.
    Archived,
}

impl From<StatusArg> for Status {
    fn from(status: StatusArg) -> Self {
        match status {
            StatusArg::Todo => Self::Todo,
            StatusArg::InProgress => Self::InProgress,
            StatusArg::Review => Self::Review,
            StatusArg::Blocked => Self::Blocked,
            StatusArg::Done => Self::Done,
            StatusArg::Cancelled => Self::Cancelled,
            StatusArg::Archived => Self::Archived,
        }
    }
}

/// A status, as it is shown; the same word that is written.
pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Todo => "todo",
        Status::InProgress => "in-progress",
        Status::Review => "review",
        Status::Blocked => "blocked",
        Status::Done => "done",
        Status::Cancelled => "cancelled",
        Status::Archived => "archived",
    }
}

/// A priority, as it is written; `none` takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PriorityArg {
    /// Can wait.
    Low,
    /// As usual.
    Medium,
    /// Before the others.
    High,
    /// No priority.
    None,
}

impl From<PriorityArg> for Option<Priority> {
    fn from(priority: PriorityArg) -> Self {
        match priority {
            PriorityArg::Low => Some(Priority::Low),
            PriorityArg::Medium => Some(Priority::Medium),
            PriorityArg::High => Some(Priority::High),
            PriorityArg::None => None,
        }
    }
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Medium => "medium",
        Priority::High => "high",
    }
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a RecordId>) -> Vec<String> {
    ids.into_iter().map(ToString::to_string).collect()
}

/// One task with all its fields.
pub(super) fn task(task: &Task) -> Value {
    let block = &task.block.record;
    let shown = spec_block(block);
    let mut item = json!({
        "id": task.block.id.to_string(),
        "project": task.project_name,
        "change": task.change_path,
        "change_id": block.change.to_string(),
        "number": shown.explicit_id(),
        "title": shown.title(),
        "mark": block.mark.value,
        "version": task.block.version.revision().0,
    });
    if let Some(fields) = &block.task {
        item["status"] = status_name(fields.status.value).into();
        item["assignee"] = fields.assignee.value.clone().into();
        item["priority"] = fields.priority.value.map(priority_name).into();
        item["due"] = fields.due.value.clone().into();
        item["labels"] = fields.labels.value.iter().cloned().collect();
        item["blocked_by"] = ids(&fields.blocked_by.value).into();
        item["note"] = fields.note.value.clone().into();
    }
    item
}

/// One version of a task.
pub(super) fn version(version: &Version) -> Value {
    json!({
        "event": version.version.to_string(),
        "revision": version.version.revision().0,
        "time": time(version.provenance.time),
        "author": version.provenance.author.name,
        "what": fact_name(&version.fact),
        "detail": fact(&version.fact),
    })
}

/// Cluster time as RFC 3339; the bare number where it is no time that a calendar has.
fn time(time: ClusterTime) -> String {
    let timestamp = i64::try_from(time.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    timestamp.map_or_else(|| format!("{} ms", time.0), |timestamp| timestamp.to_string())
}

fn fact_name(fact: &Fact) -> &'static str {
    match fact {
        Fact::ProjectCreated { .. } => "project-created",
        Fact::ChangeCreated { .. } => "change-created",
        Fact::ChangeDeleted => "change-deleted",
        Fact::BlockInserted { .. } => "inserted",
        Fact::BlockTextSet { .. } => "text-set",
        Fact::BlockMarked { .. } => "marked",
        Fact::BlockMoved { .. } => "moved",
        Fact::BlockDeleted => "deleted",
        Fact::TaskSet { .. } => "task-set",
        Fact::ConflictRecorded(_) => "conflict",
    }
}

fn fact(fact: &Fact) -> Value {
    match fact {
        Fact::ProjectCreated { name, files } => json!({ "name": name, "files": files }),
        Fact::ChangeCreated { path, .. } => json!({ "path": path }),
        Fact::BlockInserted { block, status, .. } => {
            let line = format!("{}{}{}", block.lead, block.mark, block.text);
            json!({ "text": line.trim_end(), "status": status.map(status_name) })
        }
        Fact::BlockTextSet { text, .. } => json!({ "text": text.trim_end() }),
        Fact::BlockMarked { mark, status } => json!({ "mark": mark, "status": status.map(status_name) }),
        Fact::TaskSet { fields, mark } => {
            let mut detail: serde_json::Map<_, _> = fields.iter().map(field).collect();
            detail.extend(mark.iter().map(|mark| ("mark".to_owned(), mark.clone().into())));
            detail.into()
        }
        Fact::ConflictRecorded(conflict) => {
            json!({ "field": conflict.field, "base": conflict.base, "spec": conflict.spec, "runtime": conflict.runtime })
        }
        Fact::ChangeDeleted | Fact::BlockMoved { .. } | Fact::BlockDeleted => json!({}),
    }
}

fn field(field: &TaskField) -> (String, Value) {
    let (name, value) = match field {
        TaskField::Status(status) => ("status", status_name(*status).into()),
        TaskField::Assignee(assignee) => ("assignee", assignee.clone().into()),
        TaskField::Priority(priority) => ("priority", priority.map(priority_name).into()),
        TaskField::Due(due) => ("due", due.clone().into()),
        TaskField::Labels(labels) => ("labels", labels.iter().cloned().collect()),
        TaskField::BlockedBy(blockers) => ("blocked_by", ids(blockers).into()),
        TaskField::Note(note) => ("note", note.clone().into()),
    };
    (name.to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_as_it_is_written() {
        for arg in StatusArg::value_variants() {
            let written = arg.to_possible_value().unwrap().get_name().to_owned();
            assert_eq!(status_name((*arg).into()), written);
        }
    }

    #[test]
    fn times_are_rfc_3339_where_a_calendar_has_them() {
        assert_eq!(time(ClusterTime(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(ClusterTime(u64::MAX)), "18446744073709551615 ms");
    }
}
