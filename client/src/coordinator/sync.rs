//! Bringing one side to the other: the seed's syncSpecToRuntime, syncRuntimeToSpec and bidirectionalSync.
//!
//! Each gives operations on one change and a list of what they do, so that a dry run shows exactly what a run would propose. Setting is
//! idempotent: after a sync the same sync has nothing to do.

use super::consistency::{Fix, Inconsistency, Kind, report};
use super::{Change, Part, id_key, said_status};
use serde::Serialize;
use std::collections::BTreeSet;
use zyflow_checkout::fields::{said, state_of, written};
use zyflow_machine::command::{Anchor, BlockOp, BlockRef, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::record::{Status, TaskFields};
use zyflow_spec::{Block, Expression, TaskFacts, express};

/// Which side follows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// What the text says is set.
    SpecToRuntime,
    /// What was set is written into the text, as far as the dialect can show it.
    RuntimeToSpec,
    /// For each field the side that was changed later goes first.
    Both,
}

/// One thing that a sync does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The task, by its number or words.
    pub task: String,
    /// Its id.
    pub id: String,
    /// Which field.
    pub field: String,
    /// Which side is changed: `runtime` or `spec`.
    pub side: &'static str,
    /// What it was.
    pub from: Option<String>,
    /// What it becomes.
    pub to: Option<String>,
}

/// What a sync does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations, for one edit of the change.
    pub ops: Vec<BlockOp>,
    /// What they do.
    pub steps: Vec<Step>,
    /// What stays different, and why.
    pub left: Vec<Inconsistency>,
}

/// Plans a sync of a change.
#[must_use]
pub fn plan(change: &Change, direction: Direction) -> Plan {
    let mut plan = Plan::default();
    let later: BTreeSet<(String, String)> = report(change, &|_| false)
        .into_iter()
        .filter(|item| item.kind == Kind::ValueMismatch && item.fix != Fix::SpecToRuntime)
        .map(|item| (item.id, item.field))
        .collect();
    let numbers = change.numbers();
    for (part, facts, task) in change.tasks() {
        let is_later = |field: &str| later.contains(&(part.row.id.to_string(), field.to_owned()));
        let follows_text = |field: &str| match direction {
            Direction::SpecToRuntime => true,
            Direction::RuntimeToSpec => false,
            Direction::Both => !is_later(field),
        };
        to_runtime(change, part, facts, task, &follows_text, &mut plan);
        if follows_text("blocked-by") && !facts.blocked_by.is_empty() {
            let on = facts.blocked_by.iter().filter_map(|number| numbers.get(&id_key(number)).copied());
            set_blockers(part, task, on.filter(|id| *id != part.row.id).collect(), &mut plan);
        }
        let follows_runtime = direction != Direction::SpecToRuntime && !follows_text("status");
        if follows_runtime && said_status(facts) != Some(task.status.value) {
            to_spec(change, part, facts, task.status.value, &mut plan);
        }
    }
    plan.left = left(change, &plan);
    plan
}

fn to_runtime(
    change: &Change,
    part: &Part,
    facts: &TaskFacts,
    task: &TaskFields,
    follows_text: &dyn Fn(&str) -> bool,
    plan: &mut Plan,
) {
    let mut fields: Vec<TaskField> =
        said(facts).into_iter().filter(|field| follows_text(field.name()) && !task.has(field)).collect();
    if let Some(status) = said_status(facts)
        && follows_text("status")
        && status != task.status.value
        && !(status == Status::Todo && task.status.value.is_open() && change.mark_of(task.status.value).is_none())
        && change.policy.allows(task.status.value, status)
    {
        fields.push(TaskField::Status(status));
    }
    for field in &fields {
        let from = written(&zyflow_checkout::fields::current_of(task, field));
        plan.steps.push(step(part, field.name(), "runtime", from, written(field)));
    }
    if !fields.is_empty() {
        plan.ops.push(BlockOp::SetFields { block: BlockRef::Known(part.row.id), fields });
    }
}

fn set_blockers(part: &Part, task: &TaskFields, on: BTreeSet<RecordId>, plan: &mut Plan) {
    if on == task.blocked_by.value {
        return;
    }
    let before = written(&TaskField::BlockedBy(task.blocked_by.value.clone()));
    let after = written(&TaskField::BlockedBy(on.clone()));
    plan.steps.push(step(part, "blocked-by", "runtime", before, after));
    let on = on.into_iter().map(BlockRef::Known).collect();
    plan.ops.push(BlockOp::SetBlockers { block: BlockRef::Known(part.row.id), on });
}

fn step(part: &Part, field: &str, side: &'static str, from: Option<String>, to: Option<String>) -> Step {
    let task = part.block.explicit_id().map_or_else(|| part.block.title().to_owned(), str::to_owned);
    Step { task, id: part.row.id.to_string(), field: field.to_owned(), side, from, to }
}

/// How a status is written into the text of its change; `None` = the dialect can't show it.
#[must_use]
pub fn shown(change: &Change, task: RecordId, status: Status) -> Option<Expression> {
    let blocks: Vec<&Block> = change.blocks.iter().map(|part| &part.block).collect();
    let at = change.blocks.iter().position(|part| part.row.id == task)?;
    express(&blocks, at, state_of(status), &change.convention)
}

/// The operations that write a status into the text.
#[must_use]
pub fn written_status(change: &Change, task: RecordId, status: Status) -> Option<Vec<BlockOp>> {
    let op = match shown(change, task, status)? {
        Expression::Mark(mark) => BlockOp::SetMark { block: task, mark, status: Some(status) },
        Expression::Under { heading } => {
            let after = Anchor::After(change.blocks.get(heading)?.row.id);
            return Some(vec![
                BlockOp::Move { block: task, after },
                BlockOp::SetFields { block: BlockRef::Known(task), fields: vec![TaskField::Status(status)] },
            ]);
        }
        Expression::Line { block, text } => {
            let part = change.blocks.get(block)?;
            let (kind, lead) = (part.row.record.kind, part.row.record.lead.clone());
            BlockOp::SetText { block: part.row.id, kind, lead, text }
        }
    };
    Some(vec![op])
}

fn to_spec(change: &Change, part: &Part, facts: &TaskFacts, status: Status, plan: &mut Plan) {
    let Some(ops) = written_status(change, part.row.id, status) else { return };
    let before = said_status(facts).map(|status| status.to_string());
    plan.steps.push(step(part, "status", "spec", before, Some(status.to_string())));
    plan.ops.extend(ops);
}

/// What the sync leaves as it is.
fn left(change: &Change, plan: &Plan) -> Vec<Inconsistency> {
    let is_done = |item: &Inconsistency| plan.steps.iter().any(|step| step.id == item.id && step.field == item.field);
    report(change, &|_| false).into_iter().filter(|item| !is_done(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{change, id};
    use super::*;
    use expect_test::{Expect, expect};
    use zyflow_machine::record::Priority;

    fn check(text: &str, fields: &[(usize, TaskField)], direction: Direction, expected: &Expect) {
        let plan = plan(&change(text, fields), direction);
        let steps = plan
            .steps
            .iter()
            .map(|step| format!("{} {} {}: {:?} -> {:?}\n", step.side, step.task, step.field, step.from, step.to));
        let left = plan.left.iter().map(|item| format!("left {} {}\n", item.task, item.field));
        expected.assert_eq(&steps.chain(left).collect::<String>());
    }

    const KIRO: &str = "# Implementation Plan\n\n- [ ] 1. one\n  - _Requirements: 1.1, 2.3_\n- [-] 2. two\n";

    #[test]
    fn the_text_is_read_into_fields() {
        check(
            KIRO,
            &[],
            Direction::SpecToRuntime,
            &expect![[r#"
                runtime 1 requirements: None -> Some("1.1, 2.3")
                runtime 2 status: Some("todo") -> Some("in-progress")
            "#]],
        );
    }

    #[test]
    fn a_status_is_written_as_the_dialect_shows_it_and_nothing_is_wiped() {
        let fields = [(2, TaskField::Status(Status::InProgress)), (4, TaskField::Status(Status::Done))];
        check(
            KIRO,
            &fields,
            Direction::RuntimeToSpec,
            &expect![[r#"
                spec 1 status: Some("todo") -> Some("in-progress")
                spec 2 status: Some("in-progress") -> Some("done")
                left 1 requirements
            "#]],
        );
        let plan = plan(&change(KIRO, &fields), Direction::RuntimeToSpec);
        let mark = |op: &BlockOp| matches!(op, BlockOp::SetMark { mark, .. } if mark == "-" || mark == "x");
        assert!(plan.ops.iter().all(mark), "{:?}", plan.ops);
    }

    #[test]
    fn both_ways_the_later_side_goes_first() {
        check(
            KIRO,
            &[(2, TaskField::Status(Status::Done)), (2, TaskField::Priority(Some(Priority::High)))],
            Direction::Both,
            &expect![[r#"
                runtime 1 requirements: None -> Some("1.1, 2.3")
                spec 1 status: Some("todo") -> Some("done")
                runtime 2 status: Some("todo") -> Some("in-progress")
            "#]],
        );
    }

    #[test]
    fn a_step_that_the_project_forbids_is_left() {
        let mut change = change("- [x] 1 one\n", &[(0, TaskField::Status(Status::Todo))]);
        change.policy.transitions.insert(Status::Todo, [Status::InProgress].into());
        let plan = plan(&change, Direction::SpecToRuntime);
        assert_eq!((plan.ops.len(), plan.left.len()), (0, 1));
        assert_eq!(plan.left[0].id, id(1).to_string());
    }
}
