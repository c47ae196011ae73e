//! The consistency report: where specification and runtime disagree, what is expected, and what to do about it.
//!
//! | kind | when |
//! |---|---|
//! | `MISSING_RESOURCE` | the text names a task that the file hasn't got |
//! | `EXTRA_RESOURCE` | the runtime waits for a task that the text doesn't name |
//! | `VALUE_MISMATCH` | both say something, and not the same |
//! | `TYPE_MISMATCH` | the text says something that can't be read: a mark that nobody knows |
//! | `VERSION_MISMATCH` | a checkout has another text than the cluster (told by `zyflow validate`, which asks the nodes) |
//! | `DEPENDENCY_BROKEN` | a task waits for one that is deleted, was given up, or waits for it in turn |
//!
//! The names are those of ZyFlow's original design. Which side is expected is the one that was changed later; equal revisions go to the text,
//! which people read. It changes nothing: [`super::sync`] does, for what has a fix.

use super::{Change, Part, id_key, said_status};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use zyflow_checkout::fields::{current_of, said, written};
use zyflow_machine::command::TaskField;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Status, TaskFields};
use zyflow_spec::TaskFacts;

/// What kind of disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// Named and not there.
    MissingResource,
    /// There and not named.
    ExtraResource,
    /// Two values.
    ValueMismatch,
    /// A value that can't be read.
    TypeMismatch,
    /// Two texts.
    VersionMismatch,
    /// Waits for what won't come.
    DependencyBroken,
}

/// What brings both sides together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// `zyflow sync --direction spec-to-runtime`.
    SpecToRuntime,
    /// `zyflow sync --direction runtime-to-spec`.
    RuntimeToSpec,
    /// A person has to decide.
    None,
}

/// One disagreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inconsistency {
    /// What kind.
    pub kind: Kind,
    /// The task, by its number or words.
    pub task: String,
    /// The task's id; empty where it is about a file.
    pub id: String,
    /// Which field.
    pub field: String,
    /// What it should be, by the side that was changed later.
    pub expected: Option<String>,
    /// What the other side says.
    pub actual: Option<String>,
    /// What to do.
    pub action: String,
    /// What does it.
    pub fix: Fix,
}

/// Compares a change's text with its runtime state. `is_gone` tells whether a task of another change is deleted or given up.
#[must_use]
pub fn report(change: &Change, is_gone: &dyn Fn(RecordId) -> bool) -> Vec<Inconsistency> {
    let numbers = change.numbers();
    let tasks: BTreeMap<RecordId, &TaskFields> = change.tasks().map(|(part, _, task)| (part.row.id, task)).collect();
    let mut found = Vec::new();
    for (part, facts, task) in change.tasks() {
        found.extend(status(change, part, facts, task));
        found.extend(said(facts).iter().filter_map(|field| value(part, field, task)));
        found.extend(blockers(part, facts, task, &numbers));
        found.extend(task.blocked_by.value.iter().filter_map(|blocker| broken(part, *blocker, &tasks, is_gone)));
    }
    found
}

fn name(part: &Part) -> String {
    part.block.explicit_id().map_or_else(|| part.block.title().to_owned(), str::to_owned)
}

fn item(part: &Part, kind: Kind, field: &str) -> Inconsistency {
    Inconsistency {
        kind,
        task: name(part),
        id: part.row.id.to_string(),
        field: field.to_owned(),
        expected: None,
        actual: None,
        action: String::new(),
        fix: Fix::None,
    }
}

/// The revision of what a text says of a task: of its mark for the status, of its words for the rest.
fn text_at(part: &Part, field: &TaskField) -> Revision {
    let block = &part.row.record;
    if matches!(field, TaskField::Status(_)) { block.mark.at.max(block.text.at) } else { block.text.at }
}

/// Two values of one field: the later one is expected.
fn mismatch(part: &Part, spec: &TaskField, task: &TaskFields, can_write: bool) -> Inconsistency {
    let runtime = current_of(task, spec);
    let (spec_value, runtime_value) = (written(spec), written(&runtime));
    let mut item = item(part, Kind::ValueMismatch, spec.name());
    if text_at(part, spec) >= task.at(spec) {
        (item.expected, item.actual) = (spec_value, runtime_value);
        "set the runtime field to what the text says".clone_into(&mut item.action);
        item.fix = Fix::SpecToRuntime;
    } else {
        (item.expected, item.actual) = (runtime_value, spec_value);
        item.action = if can_write {
            "write it into the text".to_owned()
        } else {
            "change the text by hand, or set the runtime field back".to_owned()
        };
        item.fix = if can_write { Fix::RuntimeToSpec } else { Fix::None };
    }
    item
}

fn status(change: &Change, part: &Part, facts: &TaskFacts, task: &TaskFields) -> Option<Inconsistency> {
    let now = task.status.value;
    let Some(said) = said_status(facts) else {
        let mut item = item(part, Kind::TypeMismatch, "mark");
        item.actual = Some(part.block.content.mark.clone());
        item.expected = Some(format!("a mark that {} knows", change.convention.dialect));
        "say what it means: `zyflow project policy --convention`, or write another mark".clone_into(&mut item.action);
        return Some(item);
    };
    if said == now || is_hidden(change, said, now) {
        return None;
    }
    let can_write = super::sync::shown(change, part.row.id, now).is_some();
    Some(mismatch(part, &TaskField::Status(said), task, can_write))
}

/// An open mark stands for every open status that the dialect has no mark for.
fn is_hidden(change: &Change, said: Status, now: Status) -> bool {
    said == Status::Todo && now != Status::Done && change.mark_of(now).is_none()
}

fn value(part: &Part, field: &TaskField, task: &TaskFields) -> Option<Inconsistency> {
    (!task.has(field)).then(|| mismatch(part, field, task, false))
}

fn blockers(
    part: &Part,
    facts: &TaskFacts,
    task: &TaskFields,
    numbers: &BTreeMap<String, RecordId>,
) -> Vec<Inconsistency> {
    let mut found = Vec::new();
    let mut named = BTreeSet::new();
    for number in &facts.blocked_by {
        if let Some(id) = numbers.get(&id_key(number)) {
            named.insert(*id);
            continue;
        }
        let mut item = item(part, Kind::MissingResource, "blocked-by");
        item.expected = Some(number.clone());
        item.action = format!("no task of the file has the number {number}: correct the text");
        found.push(item);
    }
    // A text that names nobody says nothing about blockers that were set by a command.
    if !facts.blocked_by.is_empty() {
        for extra in task.blocked_by.value.difference(&named) {
            let mut item = item(part, Kind::ExtraResource, "blocked-by");
            item.actual = Some(extra.to_string());
            "set the blockers to those that the text names".clone_into(&mut item.action);
            item.fix = Fix::SpecToRuntime;
            found.push(item);
        }
        for missing in named.difference(&task.blocked_by.value).filter(|id| **id != part.row.id) {
            let mut item = item(part, Kind::ValueMismatch, "blocked-by");
            item.expected = Some(missing.to_string());
            "set the blockers to those that the text names".clone_into(&mut item.action);
            item.fix = Fix::SpecToRuntime;
            found.push(item);
        }
    }
    found
}

fn broken(
    part: &Part,
    blocker: RecordId,
    tasks: &BTreeMap<RecordId, &TaskFields>,
    is_gone: &dyn Fn(RecordId) -> bool,
) -> Option<Inconsistency> {
    let given_up = |task: &&TaskFields| matches!(task.status.value, Status::Cancelled | Status::Archived);
    let is_broken = tasks.get(&blocker).map_or_else(|| is_gone(blocker), given_up);
    if !is_broken {
        return None;
    }
    let mut item = item(part, Kind::DependencyBroken, "blocked-by");
    item.actual = Some(blocker.to_string());
    item.action = format!("{blocker} is deleted or won't be done: take it out of the blockers");
    Some(item)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{change, id};
    use super::*;
    use expect_test::{Expect, expect};
    use zyflow_machine::record::Priority;

    fn check(text: &str, fields: &[(usize, TaskField)], expected: &Expect) {
        let shown = report(&change(text, fields), &|id| id == super::super::testing::id(99)).into_iter().map(|item| {
            format!(
                "{:?} {} {}: expected {:?}, is {:?}, fix {:?}\n",
                item.kind, item.task, item.field, item.expected, item.actual, item.fix
            )
        });
        expected.assert_eq(&shown.collect::<String>());
    }

    #[test]
    fn agreement_is_silent() {
        check("# Plan\n\n- [x] 1.1 one\n- [ ] 1.2 two\n", &[], &expect![[""]]);
        // An open box says no more than that: another open status isn't against it, where no mark could show it.
        check("- [ ] 1.1 one\n", &[(0, TaskField::Status(Status::Review))], &expect![[""]]);
        check("- [ ] 1.1 one\n", &[(0, TaskField::Priority(Some(Priority::High)))], &expect![[""]]);
    }

    #[test]
    fn the_later_side_is_expected() {
        check(
            "- [ ] 1.1 one\n",
            &[(0, TaskField::Status(Status::Done))],
            &expect![[r#"
                ValueMismatch 1.1 status: expected Some("done"), is Some("todo"), fix RuntimeToSpec
            "#]],
        );
    }

    #[test]
    fn dependencies_that_cannot_hold_are_told() {
        let gone = TaskField::BlockedBy([id(99), id(2)].into());
        check(
            "- [ ] 1.1 one\n- [ ] 1.2 two\n",
            &[(0, gone), (1, TaskField::Status(Status::Cancelled))],
            &expect![[r#"
                DependencyBroken 1.1 blocked-by: expected None, is Some("2.2"), fix None
                DependencyBroken 1.1 blocked-by: expected None, is Some("2.99"), fix None
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_read_is_a_type_mismatch() {
        check(
            "- [?] 1.1 one\n",
            &[],
            &expect![[r#"
                TypeMismatch 1.1 mark: expected Some("a mark that checklist knows"), is Some("?"), fix None
            "#]],
        );
    }
}
