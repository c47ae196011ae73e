//! What differs between two states of a task, field by field, and where a change came from.

use super::task_view;
use serde_json::{Map, Value, json};
use zyflow_machine::command::TaskField;
use zyflow_machine::event::Provenance;
use zyflow_machine::record::{Block, TaskFields};

/// A field that is another one than before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldChange {
    pub(super) field: String,
    pub(super) old: Value,
    pub(super) new: Value,
}

impl FieldChange {
    /// As programs read it.
    pub(super) fn shown(&self) -> Value {
        json!({ "field": self.field, "old": self.old, "new": self.new })
    }

    /// As people read it: `status: todo -> done`.
    pub(super) fn line(&self) -> String {
        let shown = |value: &Value| {
            let text = super::render::cell(value);
            if text.is_empty() { "-".to_owned() } else { text }
        };
        format!("{}: {} -> {}", self.field, shown(&self.old), shown(&self.new))
    }
}

/// The fields that differ, text and place included; a block that isn't there has none.
pub(super) fn block_changes(before: Option<&Block>, after: Option<&Block>) -> Vec<FieldChange> {
    between(&before.map(all).unwrap_or_default(), &after.map(all).unwrap_or_default())
}

/// The runtime fields that differ.
pub(super) fn runtime_changes(before: Option<&TaskFields>, after: Option<&TaskFields>) -> Vec<FieldChange> {
    between(&before.map(runtime).unwrap_or_default(), &after.map(runtime).unwrap_or_default())
}

fn between(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let change = |name: &String| {
        let of = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or(Value::Null);
        let (old, new) = (of(before), of(after));
        (old != new).then(|| FieldChange { field: name.clone(), old, new })
    };
    names.into_iter().filter_map(change).collect()
}

fn all(block: &Block) -> Map<String, Value> {
    let mut fields = block.task.as_deref().map(runtime).unwrap_or_default();
    let place = super::render::hex(&block.order.value.0);
    fields.insert("place".to_owned(), place.into());
    fields.insert("mark".to_owned(), block.mark.value.clone().into());
    fields.insert("text".to_owned(), format!("{}{}", block.lead, block.text.value).trim_end().into());
    fields
}

/// Fields that were never set, and empty ones, are left out: to set one empty changes nothing that can be seen.
fn runtime(task: &TaskFields) -> Map<String, Value> {
    let fields = [
        TaskField::Status(task.status.value),
        TaskField::Assignee(task.assignee.value.clone()),
        TaskField::Priority(task.priority.value),
        TaskField::Due(task.due.value.clone()),
        TaskField::Labels(task.labels.value.clone()),
        TaskField::BlockedBy(task.blocked_by.value.clone()),
        TaskField::Note(task.note.value.clone()),
        TaskField::Requirements(task.requirements.value.clone()),
    ];
    let claim = task.claim.value.as_ref().map(|claim| ("claim".to_owned(), task_view::claim(claim)));
    let is_there = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    };
    fields.iter().map(task_view::field).chain(claim).filter(|(_, value)| is_there(value)).collect()
}

/// Where a command came from: the checkout that a node keeps, or the session of a program.
pub(super) fn origin(provenance: &Provenance) -> String {
    let checkout = provenance.author.name.strip_prefix("node-").and_then(|rest| rest.split_once(':'));
    match (checkout, provenance.request) {
        (Some((node, path)), _) if node.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("checkout {path} of node {node}")
        }
        (_, Some(request)) => format!("session {}", request.session.0),
        (_, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_machine::command::Author;
    use zyflow_machine::id::{ClusterTime, EventId, RecordId, RequestId, Revision, SessionId};
    use zyflow_machine::record::{Field, KIND_TASK, OrderKey, Status};

    fn block(text: &str, status: Status) -> Block {
        let at = Revision(1);
        Block {
            change: RecordId::from_u64(1),
            kind: KIND_TASK,
            order: Field::new(OrderKey(vec![0x80]), at),
            lead: "- [".to_owned(),
            mark: Field::new(" ".to_owned(), at),
            text: Field::new(text.to_owned(), at),
            task: Some(Box::new(TaskFields { status: Field::new(status, at), ..TaskFields::default() })),
        }
    }

    #[test]
    fn only_what_differs_is_told_with_both_values() {
        let (before, mut after) = (block("] one\n", Status::Todo), block("] one\n", Status::Done));
        after.task.as_mut().unwrap().assignee = Field::new(Some("ann".to_owned()), Revision(2));
        let lines: Vec<_> = block_changes(Some(&before), Some(&after)).iter().map(FieldChange::line).collect();
        assert_eq!(lines, ["assignee: - -> ann", "status: todo -> done"]);
        assert!(block_changes(Some(&before), Some(&before)).is_empty());
        let again = block("] one\n", Status::Todo);
        let set_at = |at| Block { text: Field::new(again.text.value.clone(), Revision(at)), ..again.clone() };
        assert!(block_changes(Some(&set_at(1)), Some(&set_at(9))).is_empty(), "when it was set is no difference");
    }

    #[test]
    fn a_block_that_is_not_there_has_no_fields() {
        let made: Vec<_> = block_changes(None, Some(&block("] one\n", Status::Todo)));
        let names: Vec<_> = made.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(names, ["mark", "place", "status", "text"]);
        assert!(made.iter().all(|change| change.old.is_null()));
    }

    #[test]
    fn a_checkout_and_a_session_are_told_apart() {
        let session = SessionId(EventId::new(Revision(12), 0).unwrap());
        let by = |name: &str| {
            let author = Author { name: name.to_owned(), clock_ms: 0 };
            origin(&Provenance { author, time: ClusterTime(0), request: Some(RequestId { session, seq: 1 }) })
        };
        assert_eq!(by("node-2:/srv/garden"), "checkout /srv/garden of node 2");
        assert_eq!(by("ann"), "session 12.0");
        assert_eq!(by("node-x:y"), "session 12.0");
    }
}
