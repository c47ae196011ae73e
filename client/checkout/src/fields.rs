//! What a text says of tasks, as operations on their runtime fields.
//!
//! The text is the specification; status, priority, labels and the like are runtime state that may also be set elsewhere. So only what a
//! writer *changed* in the text is set, in the same command as the text itself; an unchanged line never wipes what somebody set by a
//! command. Where both sides changed one field to different values, the project's policy decides, and the losing value is recorded.
//!
//! ```text
//!   facts of the text that the writer started from ─┐
//!   facts of the text on the disk ──────────────────┼─▶ SetFields · SetBlockers · the status of SetMark · conflicts
//!   runtime fields, each with the revision of its last change ─┘
//! ```
//! It reads no marks itself (`zyflow-spec` does) and decides nothing about texts.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use zyflow_machine::command::{BlockOp, BlockRef, Body, NewConflict, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{ConflictClass, Policy, Priority, SettledBy, Settlement, Status, Strategy, TaskFields};
use zyflow_spec::{Block, BlockKind, Convention, Document, Known, State, TaskFacts, Urgency, detect, facts, parse};

use crate::plan::Proposal;
use crate::text::KnownText;

/// What a checkout has to know of a change beside its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// The policy of the project.
    pub policy: Policy,
    /// What marks mean at this checkout; `None` = as the project says, or each file's own dialect.
    pub convention: Option<Convention>,
    /// The runtime fields of the change's live tasks.
    pub tasks: BTreeMap<RecordId, TaskFields>,
}

impl Runtime {
    /// What marks mean in this file: the checkout's word goes first, then the project's, then what the file looks like.
    #[must_use]
    pub fn convention_of(&self, document: &Document, path: &str) -> Convention {
        let of_project = || self.policy.convention.as_deref().and_then(|text| text.parse().ok());
        let set = self.convention.clone().or_else(of_project);
        set.unwrap_or_else(|| Convention::of(detect(document, Some(path))))
    }
}

/// What follows for runtime fields from a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldChanges {
    /// Behind the operations on the text.
    pub ops: Vec<BlockOp>,
    /// What couldn't be united.
    pub conflicts: Vec<NewConflict>,
    /// For tasks whose mark changes, what it means.
    pub statuses: BTreeMap<RecordId, Status>,
    /// Tasks whose step to another status the project forbids, with the status that the text asks for.
    pub forbidden: BTreeMap<RecordId, Status>,
}

/// The status that a state of a text is.
#[must_use]
pub fn status_of(state: State) -> Status {
    match state {
        State::Todo => Status::Todo,
        State::InProgress => Status::InProgress,
        State::Review => Status::Review,
        State::Blocked => Status::Blocked,
        State::Done => Status::Done,
        State::Cancelled => Status::Cancelled,
        State::Archived => Status::Archived,
    }
}

/// The state of a text that a status is.
#[must_use]
pub fn state_of(status: Status) -> State {
    match status {
        Status::Todo => State::Todo,
        Status::InProgress => State::InProgress,
        Status::Review => State::Review,
        Status::Blocked => State::Blocked,
        Status::Done => State::Done,
        Status::Cancelled => State::Cancelled,
        Status::Archived => State::Archived,
    }
}

/// The fields that a task's text says, but for its status and blockers; what it doesn't mention is left out.
#[must_use]
pub fn said(facts: &TaskFacts) -> Vec<TaskField> {
    changed(&TaskFacts::default(), facts)
}

/// The fields, but for status and blockers, that `now` says otherwise than `before`.
fn changed(before: &TaskFacts, now: &TaskFacts) -> Vec<TaskField> {
    let priority = |urgency: Urgency| match urgency {
        Urgency::Low => Priority::Low,
        Urgency::Medium => Priority::Medium,
        Urgency::High => Priority::High,
    };
    let fields = [
        (before.urgency != now.urgency).then(|| TaskField::Priority(now.urgency.map(priority))),
        (before.due != now.due).then(|| TaskField::Due(now.due.clone())),
        (before.assignee != now.assignee).then(|| TaskField::Assignee(now.assignee.clone())),
        (before.labels != now.labels).then(|| TaskField::Labels(now.labels.clone())),
        (before.requirements != now.requirements).then(|| TaskField::Requirements(now.requirements.clone())),
    ];
    fields.into_iter().flatten().collect()
}

/// The status that the machine gives a task that is inserted with this mark.
fn first_status(block: &Block) -> Status {
    if matches!(block.content.mark.trim(), "x" | "X") { Status::Done } else { Status::Todo }
}

/// The operations on runtime fields of a new change, whose n-th block is `BlockRef::New(n)`.
#[must_use]
pub fn of_new(document: &Document, convention: &Convention) -> Vec<BlockOp> {
    let refs: Vec<Option<BlockRef>> = (0..).map(BlockRef::New).take(document.blocks.len()).map(Some).collect();
    let facts = facts(&document.blocks, convention);
    let ids = explicit_ids(&facts, &refs);
    let mut ops = Vec::new();
    for ((facts, block), target) in facts.iter().zip(&document.blocks).zip(&refs) {
        if let (Some(facts), Some(target)) = (facts, target) {
            ops.extend(of_new_task(facts, block, *target, &ids));
        }
    }
    ops
}

fn of_new_task(facts: &TaskFacts, block: &Block, target: BlockRef, ids: &BTreeMap<String, BlockRef>) -> Vec<BlockOp> {
    let mut fields = said(facts);
    let status = facts.state.map(status_of).filter(|status| *status != first_status(block));
    fields.extend(status.map(TaskField::Status));
    let mut ops = Vec::new();
    if !fields.is_empty() {
        ops.push(BlockOp::SetFields { block: target, fields });
    }
    let on = named(facts, target, ids);
    if !on.is_empty() {
        ops.push(BlockOp::SetBlockers { block: target, on });
    }
    ops
}

/// The part of an id by which references are compared: `Task 1.2`, `#1.2` and `1.2.` are one.
fn id_key(id: &str) -> String {
    let last = id.split_whitespace().next_back().unwrap_or(id);
    last.trim_start_matches('#').trim_end_matches('.').to_lowercase()
}

/// Which task an explicit id means; of a repeated one the first.
fn explicit_ids(facts: &[Option<TaskFacts>], refs: &[Option<BlockRef>]) -> BTreeMap<String, BlockRef> {
    let mut ids = BTreeMap::new();
    for (facts, target) in facts.iter().zip(refs) {
        if let (Some(id), Some(target)) = (facts.as_ref().and_then(|facts| facts.id.as_deref()), target) {
            ids.entry(id_key(id)).or_insert(*target);
        }
    }
    ids
}

/// The tasks that a task's text names as its blockers. A name that means no task of the file, or the task itself, is left out: the
/// consistency report tells of it.
fn named(facts: &TaskFacts, own: BlockRef, ids: &BTreeMap<String, BlockRef>) -> BTreeSet<BlockRef> {
    let found = facts.blocked_by.iter().filter_map(|id| ids.get(&id_key(id)).copied());
    found.filter(|target| *target != own).collect()
}

/// What an edit of a text means for runtime fields.
pub struct TextEdit<'a> {
    /// The text that the writer started from.
    pub start: &'a [Known<RecordId>],
    /// A revision that contains it.
    pub start_revision: Revision,
    /// The text on the disk.
    pub local: &'a Document,
    /// For each of its blocks the id; `None` = the n-th of these is the n-th block that the command creates.
    pub ids: &'a [Option<RecordId>],
    /// Whose mark the command sets.
    pub marked: &'a BTreeSet<RecordId>,
    /// What marks mean.
    pub convention: &'a Convention,
}

/// What an edit of a text means for runtime fields.
#[must_use]
pub fn of_edit(edit: &TextEdit<'_>, runtime: &Runtime) -> FieldChanges {
    let start_facts = facts(edit.start.iter().map(|known| &known.block), edit.convention);
    let before: BTreeMap<RecordId, &TaskFacts> =
        edit.start.iter().zip(&start_facts).filter_map(|(known, facts)| Some((known.id, facts.as_ref()?))).collect();
    let local_facts = facts(&edit.local.blocks, edit.convention);
    let mut made = 0..;
    let refs: Vec<Option<BlockRef>> =
        edit.ids.iter().map(|id| id.map(BlockRef::Known).or_else(|| made.next().map(BlockRef::New))).collect();
    let ids = explicit_ids(&local_facts, &refs);
    let mut changes = FieldChanges::default();
    for ((now, block), target) in local_facts.iter().zip(&edit.local.blocks).zip(&refs) {
        let (Some(now), Some(target)) = (now, target) else { continue };
        match target {
            BlockRef::New(_) => changes.ops.extend(of_new_task(now, block, *target, &ids)),
            BlockRef::Known(id) => {
                // A block that was no task before says everything anew.
                let none = TaskFacts::default();
                let before = before.get(id).copied().unwrap_or(&none);
                if before != now {
                    of_known_task(edit, runtime, *id, before, now, &ids, &mut changes);
                }
            }
        }
    }
    changes
}

fn of_known_task(
    edit: &TextEdit<'_>,
    runtime: &Runtime,
    id: RecordId,
    before: &TaskFacts,
    now: &TaskFacts,
    ids: &BTreeMap<String, BlockRef>,
    changes: &mut FieldChanges,
) {
    let current = runtime.tasks.get(&id);
    let mut fields = Vec::new();
    if before.state != now.state
        && let Some(status) = now.state.map(status_of)
    {
        let is_marked = edit.marked.contains(&id);
        let was = current.map_or(Status::Todo, |task| task.status.value);
        if !runtime.policy.allows(was, status) {
            changes.forbidden.insert(id, status);
        } else if let Some(status) = united_status(edit, runtime, id, before, status, changes) {
            if is_marked {
                changes.statuses.insert(id, status);
            } else {
                fields.push(TaskField::Status(status));
            }
        }
    }
    for field in changed(before, now) {
        let task = current.filter(|task| task.at(&field) > edit.start_revision && !task.has(&field));
        match task {
            None => fields.push(field),
            Some(task) => fields.extend(settle(runtime, id, task, &field, &mut changes.conflicts)),
        }
    }
    if !fields.is_empty() {
        changes.ops.push(BlockOp::SetFields { block: BlockRef::Known(id), fields });
    }
    if before.blocked_by != now.blocked_by {
        let on = named(now, BlockRef::Known(id), ids);
        changes.ops.push(BlockOp::SetBlockers { block: BlockRef::Known(id), on });
    }
}

/// The status where the text asks for `status`: the stronger one, where somebody set another since. `None` = the cluster's stays.
fn united_status(
    edit: &TextEdit<'_>,
    runtime: &Runtime,
    id: RecordId,
    before: &TaskFacts,
    status: Status,
    changes: &mut FieldChanges,
) -> Option<Status> {
    let Some(task) = runtime.tasks.get(&id) else { return Some(status) };
    let current = task.status.value;
    let was = before.state.map(status_of);
    if task.status.at <= edit.start_revision || current == status || Some(current) == was {
        return Some(status);
    }
    match runtime.policy.stronger(status, current) {
        Some(stronger) => (stronger == status).then_some(status),
        None => match settle(runtime, id, task, &TaskField::Status(status), &mut changes.conflicts) {
            Some(TaskField::Status(status)) => Some(status),
            _ => None,
        },
    }
}

/// What the policy makes of a field that both sides changed: the value to set, where one is set.
fn settle(
    runtime: &Runtime,
    id: RecordId,
    task: &TaskFields,
    field: &TaskField,
    conflicts: &mut Vec<NewConflict>,
) -> Option<TaskField> {
    let strategy = runtime.policy.strategy_for(field.name());
    let current = current_of(task, field);
    let united = match (field, &current) {
        (TaskField::Labels(one), TaskField::Labels(two)) => Some(TaskField::Labels(one | two)),
        (TaskField::Requirements(one), TaskField::Requirements(two)) => Some(TaskField::Requirements(one | two)),
        _ => None,
    };
    let (set, settled) = match strategy {
        Strategy::SpecWins | Strategy::LastWriteWins => (Some(field.clone()), true),
        Strategy::RuntimeWins | Strategy::Skip => (None, true),
        Strategy::Merge => (united.clone(), united.is_some()),
        Strategy::Manual => (None, false),
    };
    let stands = set.as_ref().unwrap_or(&current);
    let settlement = settled.then(|| Settlement { strategy, by: SettledBy::Auto, value: written(stands) });
    conflicts.push(NewConflict {
        block: Some(id),
        class: ConflictClass::Data,
        field: field.name().to_owned(),
        base: None,
        spec: written(field),
        runtime: written(&current),
        settlement,
    });
    set
}

/// The value that the cluster has for the field that `like` sets.
#[must_use]
pub fn current_of(task: &TaskFields, like: &TaskField) -> TaskField {
    match like {
        TaskField::Status(_) => TaskField::Status(task.status.value),
        TaskField::Assignee(_) => TaskField::Assignee(task.assignee.value.clone()),
        TaskField::Priority(_) => TaskField::Priority(task.priority.value),
        TaskField::Due(_) => TaskField::Due(task.due.value.clone()),
        TaskField::Labels(_) => TaskField::Labels(task.labels.value.clone()),
        TaskField::BlockedBy(_) => TaskField::BlockedBy(task.blocked_by.value.clone()),
        TaskField::Note(_) => TaskField::Note(task.note.value.clone()),
        TaskField::Requirements(_) => TaskField::Requirements(task.requirements.value.clone()),
    }
}

/// A field's value as conflicts and reports write it; `None` = it has none. [`read`] reads it back.
#[must_use]
pub fn written(field: &TaskField) -> Option<String> {
    let joined = |words: Vec<String>| (!words.is_empty()).then(|| words.join(", "));
    match field {
        TaskField::Status(status) => Some(status.to_string()),
        TaskField::Assignee(text) | TaskField::Due(text) => text.clone(),
        TaskField::Priority(priority) => priority.map(|priority| {
            match priority {
                Priority::Low => "low",
                Priority::Medium => "medium",
                Priority::High => "high",
            }
            .to_owned()
        }),
        TaskField::Labels(words) | TaskField::Requirements(words) => joined(words.iter().cloned().collect()),
        TaskField::BlockedBy(ids) => joined(ids.iter().map(ToString::to_string).collect()),
        TaskField::Note(note) => Some(note.clone()),
    }
}

/// The field of that name with that value, as [`written`] writes it; `None` where there is no such field or value.
#[must_use]
pub fn read(name: &str, value: Option<&str>) -> Option<TaskField> {
    let text = value.filter(|value| !value.is_empty()).map(str::to_owned);
    let words = || value.unwrap_or_default().split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
    match name {
        "status" => value?.parse::<State>().ok().map(|state| TaskField::Status(status_of(state))),
        "assignee" => Some(TaskField::Assignee(text)),
        "due" => Some(TaskField::Due(text)),
        "priority" => match value {
            None | Some("") => Some(TaskField::Priority(None)),
            Some("low") => Some(TaskField::Priority(Some(Priority::Low))),
            Some("medium") => Some(TaskField::Priority(Some(Priority::Medium))),
            Some("high") => Some(TaskField::Priority(Some(Priority::High))),
            Some(_) => None,
        },
        "labels" => Some(TaskField::Labels(words().map(str::to_owned).collect())),
        "requirements" => Some(TaskField::Requirements(words().map(str::to_owned).collect())),
        "blocked-by" => {
            let ids: Result<BTreeSet<RecordId>, _> = words().map(str::parse).collect();
            ids.ok().map(TaskField::BlockedBy)
        }
        "note" => Some(TaskField::Note(value.unwrap_or_default().to_owned())),
        _ => None,
    }
}

/// A proposal with what its text says of runtime fields. `base` is the text that its edits were read against.
#[must_use]
pub fn complete(mut proposal: Proposal, base: Option<&KnownText>, path: &str, runtime: &Runtime) -> Proposal {
    let Some(document) = proposal.text.as_deref().map(parse) else { return proposal };
    if let Body::CreateChange { ops, .. } = &mut proposal.body {
        *ops = of_new(&document, &runtime.convention_of(&document, path));
        return proposal;
    }
    let Body::Edit { ops, conflicts, .. } = &mut proposal.body else { return proposal };
    let Some(base) = base else { return proposal };
    let schema = schema(base, &document, path, runtime);
    conflicts.extend(schema.conflict);
    let marks = ops.iter().filter_map(|op| if let BlockOp::SetMark { block, .. } = op { Some(*block) } else { None });
    let marked: BTreeSet<RecordId> = marks.collect();
    let edit = TextEdit {
        start: &base.blocks,
        start_revision: base.revision,
        local: &document,
        ids: &proposal.ids,
        marked: &marked,
        convention: &schema.convention,
    };
    let changes = of_edit(&edit, runtime);
    weave(ops, conflicts, changes, runtime);
    proposal
}

/// Under which convention an edit is read, where it may have changed the file's dialect.
struct Schema {
    convention: Convention,
    conflict: Option<NewConflict>,
}

/// A file whose dialect changed is read in its new one where no mark that stayed means something else by that. Else the old meaning is kept and
/// somebody is asked. A convention that was set isn't changed by a file.
fn schema(base: &KnownText, local: &Document, path: &str, runtime: &Runtime) -> Schema {
    let now = runtime.convention_of(local, path);
    let blocks: Vec<Block> = base.blocks.iter().map(|known| known.block.clone()).collect();
    let start = Document { blocks, problems: Vec::new() };
    let before = runtime.convention_of(&start, path);
    let is_plain = |document: &Document| !document.blocks.iter().any(is_task);
    if now == before || is_plain(&start) || is_plain(local) {
        return Schema { convention: now, conflict: None };
    }
    let marks: BTreeSet<&str> =
        start.blocks.iter().filter(|block| is_task(block)).map(|block| block.content.mark.as_str()).collect();
    let is_same = marks.iter().all(|mark| before.state_of(mark) == now.state_of(mark));
    let (from, to) = (before.dialect.to_string(), now.dialect.to_string());
    let settlement =
        is_same.then(|| Settlement { strategy: Strategy::Merge, by: SettledBy::System, value: Some(to.clone()) });
    let conflict = NewConflict {
        block: None,
        class: ConflictClass::Schema,
        field: "dialect".to_owned(),
        base: None,
        spec: Some(to),
        runtime: Some(from),
        settlement,
    };
    Schema { convention: if is_same { now } else { before }, conflict: Some(conflict) }
}

/// A command's text operations with what they mean for statuses, and without steps that the project forbids: those are recorded.
pub fn weave(ops: &mut Vec<BlockOp>, conflicts: &mut Vec<NewConflict>, changes: FieldChanges, runtime: &Runtime) {
    let FieldChanges { ops: more, conflicts: found, statuses, forbidden } = changes;
    for op in ops.iter_mut() {
        if let BlockOp::SetMark { block, status, .. } = op {
            *status = statuses.get(block).copied();
        }
    }
    ops.retain(|op| !matches!(op, BlockOp::SetMark { block, .. } if forbidden.contains_key(block)));
    conflicts.extend(forbidden.iter().map(|(id, asked)| NewConflict {
        block: Some(*id),
        class: ConflictClass::Permission,
        field: "status".to_owned(),
        base: None,
        spec: Some(asked.to_string()),
        runtime: runtime.tasks.get(id).map(|task| task.status.value.to_string()),
        settlement: None,
    }));
    ops.extend(more);
    conflicts.extend(found);
}

/// Whether a block is a task.
#[must_use]
pub fn is_task(block: &Block) -> bool {
    block.kind == BlockKind::Task
}
