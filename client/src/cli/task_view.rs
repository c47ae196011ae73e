//! Tasks as they are shown.

use super::compare::{FieldChange, block_changes, origin};
use crate::coordinator::spec_block;
use crate::read::{Task, Version};
use clap::ValueEnum;
use serde_json::{Value, json};
use zyflow_checkout::fields::written;
use zyflow_machine::command::TaskField;
use zyflow_machine::event::Fact;
use zyflow_machine::id::{ClusterTime, RecordId};
use zyflow_machine::record::{Claim, Priority, Status, Strategy};

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
        item["status"] = fields.status.value.to_string().into();
        item["assignee"] = fields.assignee.value.clone().into();
        item["priority"] = written(&TaskField::Priority(fields.priority.value)).into();
        item["due"] = fields.due.value.clone().into();
        item["labels"] = fields.labels.value.iter().cloned().collect();
        item["blocked_by"] = ids(&fields.blocked_by.value).into();
        item["note"] = fields.note.value.clone().into();
        item["requirements"] = fields.requirements.value.iter().cloned().collect();
        item["claim"] = fields.claim.value.as_ref().map(claim).into();
    }
    item
}

/// Who has a task, and until when.
pub(super) fn claim(claim: &Claim) -> Value {
    json!({ "holder": claim.holder, "until": time(claim.until) })
}

/// One version of a record.
pub(super) fn version(version: &Version) -> Value {
    json!({
        "event": version.version.to_string(),
        "revision": version.version.revision().0,
        "time": time(version.provenance.time),
        "author": version.provenance.author.name,
        "from": origin(&version.provenance),
        "what": version.fact.name(),
        "detail": fact(&version.fact),
    })
}

/// The versions of a task, each with what it changed, who did it, when and from where. `versions` are oldest first.
pub(super) fn history(versions: &[Version]) -> Vec<Value> {
    let mut before: Option<&Version> = None;
    let mut items = Vec::with_capacity(versions.len());
    for version in versions {
        let old = before.and_then(|version| version.block.as_ref());
        let changes = block_changes(old, version.block.as_ref());
        let lines: Vec<String> = changes.iter().map(FieldChange::line).collect();
        let mut item = self::version(version);
        item["changes"] = changes.iter().map(FieldChange::shown).collect();
        item["changed"] = lines.join("; ").into();
        items.push(item);
        before = Some(version);
    }
    items
}

/// Cluster time as RFC 3339; the bare number where it is no time that a calendar has.
pub(super) fn time(time: ClusterTime) -> String {
    let timestamp = i64::try_from(time.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    timestamp.map_or_else(|| format!("{} ms", time.0), |timestamp| timestamp.to_string())
}

/// What an event says.
pub(super) fn fact(fact: &Fact) -> Value {
    match fact {
        Fact::ProjectCreated { name, files } => json!({ "name": name, "files": files }),
        Fact::ChangeCreated { path, .. } | Fact::ChangeMoved { path } | Fact::ChangeRestored { path } => {
            json!({ "path": path })
        }
        Fact::BlockInserted { block, status, .. } => {
            let line = format!("{}{}{}", block.lead, block.mark, block.text);
            json!({ "text": line.trim_end(), "status": status.map(|status| status.to_string()) })
        }
        Fact::BlockRestored { block, fields, .. } => {
            let mut detail = set(fields, None);
            let line = format!("{}{}{}", block.lead, block.mark, block.text);
            detail.insert("text".to_owned(), line.trim_end().into());
            detail.into()
        }
        Fact::ConflictRestored { settled } => {
            json!({ "strategy": settled.as_ref().map(|settled| strategy_name(settled.settlement.strategy)) })
        }
        Fact::BlockTextSet { text, .. } => json!({ "text": text.trim_end() }),
        Fact::BlockMarked { mark, status } => {
            json!({ "mark": mark, "status": status.map(|status| status.to_string()) })
        }
        Fact::TaskSet { fields, mark } => set(fields, mark.as_ref()).into(),
        Fact::Claimed { claim, fields, mark } => {
            let mut detail = set(fields, mark.as_ref());
            detail.insert("holder".to_owned(), claim.holder.clone().into());
            detail.insert("until".to_owned(), time(claim.until).into());
            detail.into()
        }
        Fact::Commented(comment) => json!({ "text": comment.text }),
        Fact::ConflictSettled(settled) => {
            json!({ "strategy": strategy_name(settled.settlement.strategy), "value": settled.settlement.value })
        }
        Fact::PointCreated(point) => json!({ "name": point.name, "revision": point.revision.0 }),
        Fact::PolicySet(policy) => super::policy::shown(policy),
        Fact::Restored(restore) => json!({ "cut": restore.cut.0, "last": restore.last.0 }),
        Fact::ConflictRecorded(conflict) => {
            json!({ "field": conflict.field, "base": conflict.base, "spec": conflict.spec, "runtime": conflict.runtime })
        }
        Fact::RetentionCreated(keep) | Fact::RetentionSet(keep) => super::retention::shown(*keep),
        Fact::HorizonMoved { to, time: at } => json!({ "to": to.0, "time": time(*at) }),
        Fact::ChangeDeleted | Fact::BlockMoved { .. } | Fact::BlockDeleted | Fact::Released | Fact::PointRemoved => {
            json!({})
        }
    }
}

fn set(fields: &[TaskField], mark: Option<&String>) -> serde_json::Map<String, Value> {
    let mut detail: serde_json::Map<_, _> = fields.iter().map(field).collect();
    detail.extend(mark.map(|mark| ("mark".to_owned(), mark.clone().into())));
    detail
}

/// A field's name and value.
pub(super) fn field(field: &TaskField) -> (String, Value) {
    let value = match field {
        TaskField::Labels(words) | TaskField::Requirements(words) => words.iter().cloned().collect(),
        TaskField::BlockedBy(blockers) => ids(blockers).into(),
        TaskField::Status(_)
        | TaskField::Assignee(_)
        | TaskField::Priority(_)
        | TaskField::Due(_)
        | TaskField::Note(_) => written(field).into(),
    };
    (field.name().replace('-', "_"), value)
}

/// A strategy by its name in the original design.
pub(super) fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::SpecWins => "SPEC_WINS",
        Strategy::RuntimeWins => "RUNTIME_WINS",
        Strategy::LastWriteWins => "LAST_WRITE_WINS",
        Strategy::Merge => "MERGE",
        Strategy::Manual => "MANUAL",
        Strategy::Skip => "SKIP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_as_it_is_written() {
        for arg in StatusArg::value_variants() {
            let written = arg.to_possible_value().unwrap().get_name().to_owned();
            assert_eq!(Status::from(*arg).to_string(), written);
        }
    }

    #[test]
    fn times_are_rfc_3339_where_a_calendar_has_them() {
        assert_eq!(time(ClusterTime(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(ClusterTime(u64::MAX)), "18446744073709551615 ms");
    }
}
