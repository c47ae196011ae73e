//! Runtime fields of a task: set, never toggled; status and check mark follow each other.

use super::{Decided, check_seen, invalid, is_check, known, not_found, stale, task_of};
use crate::command::TaskField;
use crate::event::Fact;
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::Reject;
use crate::record::{Block, Conflict, ConflictClass, Kind, Policy, Record, Status};
use crate::scratch::Scratch;
use crate::view::{Stored, View};
use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::Arc;

pub(super) fn set_task<V: View>(
    scratch: &mut Scratch<'_, V>,
    task: RecordId,
    expected: Option<Revision>,
    fields: &[TaskField],
    mark: Option<&str>,
) -> Decided<Vec<RecordId>, V> {
    let stored = scratch.get(task)?.ok_or_else(|| not_found("task", task))?;
    if let Some(expected) = expected {
        check_seen(scratch, expected)?;
        if stored.version.revision() > expected {
            let field = if stored.record.is_some() { "any" } else { "existence" };
            return Err(stale(scratch, task, field, stored.version));
        }
    }
    let Change { fields, mark } = changes(scratch, task, &stored, fields, mark)?;
    if !fields.is_empty() || mark.is_some() {
        scratch.change(task, &stored, Fact::TaskSet { fields, mark })?;
    }
    Ok(Vec::new())
}

/// What setting fields comes to.
pub(super) struct Change {
    /// Fields whose value changes.
    pub(super) fields: Vec<TaskField>,
    /// The mark, where it changes.
    pub(super) mark: Option<String>,
}

/// Checks fields and tells which of them change. `mark` is how the task's file writes a new status.
pub(super) fn changes<V: View>(
    scratch: &Scratch<'_, V>,
    task: RecordId,
    stored: &Arc<Stored>,
    fields: &[TaskField],
    mark: Option<&str>,
) -> Decided<Change, V> {
    check("fields of a command", fields.len(), limits::FIELDS_PER_COMMAND_MAX)?;
    check("bytes of a mark", mark.map_or(0, str::len), limits::MARK_BYTES_MAX)?;
    fields.iter().try_for_each(check_field)?;
    let (block, now) = task_of(stored, task)?;
    let (mut shown, mut status) = (block.mark.value.as_str(), now.status.value);
    for field in fields {
        if let TaskField::Status(next) = field {
            check_transition(scratch, task, block, status, *next)?;
            shown = mark.unwrap_or_else(|| mark_after(shown, status, *next));
            status = *next;
        }
        if let TaskField::BlockedBy(blockers) = field {
            check_blockers(scratch, task, &now.blocked_by.value, blockers)?;
        }
    }
    // Set twice in one command, the last value counts; a field that ends as it was isn't set.
    let is_last = |at: usize| !fields[at + 1..].iter().any(|later| discriminant(later) == discriminant(&fields[at]));
    let last = fields.iter().enumerate().filter(|(at, _)| is_last(*at)).map(|(_, field)| field);
    let changed: Vec<TaskField> = last.filter(|field| !now.has(field)).cloned().collect();
    let mark = (shown != block.mark.value).then(|| shown.to_owned());
    Ok(Change { fields: changed, mark })
}

/// Sets what a text says of a task; the mark is part of the text and stays.
pub(super) fn set_fields<V: View>(
    scratch: &mut Scratch<'_, V>,
    task: RecordId,
    stored: &Arc<Stored>,
    fields: &[TaskField],
) -> Decided<(), V> {
    if fields.iter().any(|field| matches!(field, TaskField::BlockedBy(_))) {
        return Err(invalid("a text's blockers are set by an operation of their own").into());
    }
    let Change { fields, mark: _ } = changes(scratch, task, stored, fields, None)?;
    if !fields.is_empty() {
        scratch.change(task, stored, Fact::TaskSet { fields, mark: None })?;
    }
    Ok(())
}

/// Sets the blockers that a text names. What can't be is recorded as a conflict of the class dependency, whose id is returned.
pub(super) fn set_blockers<V: View>(
    scratch: &mut Scratch<'_, V>,
    author: &str,
    change: RecordId,
    task: RecordId,
    stored: &Arc<Stored>,
    on: BTreeSet<RecordId>,
) -> Decided<Option<RecordId>, V> {
    check("tasks that a task waits for", on.len(), limits::BLOCKED_BY_PER_TASK_MAX)?;
    let (_, now) = task_of(stored, task)?;
    let before = &now.blocked_by.value;
    if *before == on {
        return Ok(None);
    }
    match check_blockers(scratch, task, before, &on) {
        Ok(()) => {
            let fields = vec![TaskField::BlockedBy(on)];
            scratch.change(task, stored, Fact::TaskSet { fields, mark: None })?;
            Ok(None)
        }
        Err(super::Halt::Outcome(_)) => {
            let written = |ids: &BTreeSet<RecordId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let conflict = Conflict {
                change,
                block: Some(task),
                class: ConflictClass::Dependency,
                field: "blocked-by".to_owned(),
                base: None,
                spec: Some(written(&on)),
                runtime: Some(written(before)),
                author: author.to_owned(),
                settled: None,
            };
            Ok(Some(scratch.create(Fact::ConflictRecorded(conflict))?))
        }
        Err(halt @ super::Halt::View(_)) => Err(halt),
    }
}

/// Refuses a step that the policy of the task's project doesn't allow.
pub(super) fn check_transition<V: View>(
    scratch: &Scratch<'_, V>,
    task: RecordId,
    block: &Block,
    from: Status,
    to: Status,
) -> Decided<(), V> {
    if from == to {
        return Ok(());
    }
    let policy = policy_of(scratch, block.change)?;
    if policy.is_none_or(|policy| policy.allows(from, to)) {
        return Ok(());
    }
    Err(Reject::Transition { task, from, to }.into())
}

/// Refuses blockers, already set, by which one of `tasks` would wait for itself.
pub(super) fn check_no_circle<V: View>(scratch: &Scratch<'_, V>, tasks: &[RecordId]) -> Decided<(), V> {
    enum Visit {
        Enter(RecordId),
        Leave(RecordId),
    }
    let (mut done, mut open) = (BTreeSet::new(), BTreeSet::new());
    let mut visits: Vec<Visit> = tasks.iter().map(|task| Visit::Enter(*task)).collect();
    while let Some(visit) = visits.pop() {
        match visit {
            Visit::Leave(id) => {
                open.remove(&id);
                done.insert(id);
            }
            Visit::Enter(id) if done.contains(&id) => {}
            Visit::Enter(id) if !open.insert(id) => {
                return Err(invalid(format!("task {id} would wait for itself")).into());
            }
            Visit::Enter(id) => {
                visits.push(Visit::Leave(id));
                if let Some(stored) = scratch.get(id)?
                    && let Ok((_, fields)) = task_of(&stored, id)
                {
                    visits.extend(fields.blocked_by.value.iter().map(|blocker| Visit::Enter(*blocker)));
                }
            }
        }
    }
    Ok(())
}

/// The policy of the project that a change belongs to.
fn policy_of<V: View>(scratch: &Scratch<'_, V>, change: RecordId) -> Decided<Option<Policy>, V> {
    let stored = known(scratch, Kind::Change, change)?;
    let Some(project) = scratch.get(stored.parent)? else { return Ok(None) };
    Ok(match &project.record {
        Some(Record::Project(project)) => Some(project.policy.value.clone()),
        _ => None,
    })
}

/// The mark once a status is set: done shows a check, leaving done takes it away, and out-of-sight states leave the mark alone.
fn mark_after(mark: &str, from: Status, to: Status) -> &str {
    match to {
        Status::Done if from == Status::Done || is_check(mark) => mark,
        Status::Done => "x",
        Status::Cancelled | Status::Archived => mark,
        Status::Todo | Status::InProgress | Status::Review | Status::Blocked => {
            if from == Status::Done || is_check(mark) { " " } else { mark }
        }
    }
}

fn check_field(field: &TaskField) -> Result<(), Reject> {
    match field {
        TaskField::Status(_) | TaskField::Priority(_) | TaskField::Assignee(None) | TaskField::Due(None) => Ok(()),
        TaskField::Assignee(Some(name)) => check("bytes of an assignee", name.len(), limits::NAME_BYTES_MAX),
        TaskField::Due(Some(date)) if is_date(date) => Ok(()),
        TaskField::Due(Some(_)) => Err(invalid("a due date is a day written as YYYY-MM-DD")),
        TaskField::Labels(labels) => {
            check("labels of a task", labels.len(), limits::LABELS_PER_TASK_MAX)?;
            for label in labels {
                check("bytes of a label", label.len(), limits::LABEL_BYTES_MAX)?;
                if label.trim().is_empty() || label.contains(char::is_control) {
                    return Err(invalid("a label is blank or holds a control character"));
                }
            }
            Ok(())
        }
        TaskField::BlockedBy(tasks) => {
            check("tasks that a task waits for", tasks.len(), limits::BLOCKED_BY_PER_TASK_MAX)
        }
        TaskField::Note(note) => check("bytes of a note", note.len(), limits::NOTE_BYTES_MAX),
        TaskField::Requirements(requirements) => {
            check("requirements of a task", requirements.len(), limits::REQUIREMENTS_PER_TASK_MAX)?;
            requirements
                .iter()
                .try_for_each(|each| check("bytes of a requirement", each.len(), limits::LABEL_BYTES_MAX))
        }
    }
}

/// Whether a text is a day of the Gregorian calendar as ISO 8601 writes it.
fn is_date(text: &str) -> bool {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        part.and_then(|part| part.parse::<u16>().ok())
    };
    let dashes = text.len() == 10 && text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
    let (Some(year), Some(month), Some(day)) = (digits(0, 4), digits(5, 7), digits(8, 10)) else { return false };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    dashes && (1..=days).contains(&day)
}

/// New blockers must be live tasks, and none may wait, over others, for `task`. A blocker that was deleted since it was set stays
/// allowed, so that the set can still be changed; it blocks nothing.
fn check_blockers<V: View>(
    scratch: &Scratch<'_, V>,
    task: RecordId,
    before: &BTreeSet<RecordId>,
    blockers: &BTreeSet<RecordId>,
) -> Decided<(), V> {
    for &blocker in blockers.difference(before) {
        let stored = scratch.get(blocker)?.ok_or_else(|| not_found("task", blocker))?;
        task_of(&stored, blocker)?;
    }
    let mut seen = BTreeSet::new();
    let mut open: Vec<RecordId> = blockers.iter().copied().collect();
    while let Some(id) = open.pop() {
        if id == task {
            return Err(invalid(format!("task {task} would wait for itself")).into());
        }
        if !seen.insert(id) {
            continue;
        }
        check("tasks that a task waits for, all told", seen.len(), limits::BLOCKED_BY_WALK_MAX)?;
        if let Some(stored) = scratch.get(id)?
            && let Ok((_, fields)) = task_of(&stored, id)
        {
            open.extend(fields.blocked_by.value.difference(&seen));
        }
    }
    Ok(())
}
