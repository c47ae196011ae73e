//! Tables: what a save means for runtime fields, beside what others set meanwhile.

use expect_test::{Expect, expect};
use zyflow_machine::command::{EditMode, NewBlock};
use zyflow_machine::id::EventId;
use zyflow_machine::record::Field;
use zyflow_spec::align;

use super::*;

/// Revision of the text that every writer here started from.
const START: Revision = Revision(5);

fn id(ordinal: u32) -> RecordId {
    RecordId(EventId::new(Revision(2), ordinal).unwrap())
}

fn known(text: &str) -> KnownText {
    let blocks = parse(text).blocks.into_iter().zip(0..);
    KnownText { revision: START, blocks: blocks.map(|(block, ordinal)| Known { id: id(ordinal), block }).collect() }
}

/// Runtime fields of block 0: status todo, and these, set by somebody at `at`.
fn runtime(fields: &[TaskField], at: u64) -> Runtime {
    let mut task = TaskFields { status: Field::new(Status::Todo, Revision(2)), ..TaskFields::default() };
    for field in fields {
        task.set(field, Revision(at));
    }
    Runtime { tasks: BTreeMap::from([(id(0), task)]), ..Runtime::default() }
}

/// An edit from `start` to `local` as the plan proposes it, without the text operations that fields don't depend on.
fn proposal(start: &KnownText, local: &str) -> Proposal {
    let document = parse(local);
    let ids = align(&start.blocks, &document);
    let blocks = start.blocks.iter();
    let mark_of = |id: &RecordId| blocks.clone().find(|known| known.id == *id).map(|known| &known.block.content.mark);
    let marks = ids.iter().zip(&document.blocks).filter_map(|(id, block)| {
        let id = (*id)?;
        (mark_of(&id) != Some(&block.content.mark)).then(|| BlockOp::SetMark {
            block: id,
            mark: block.content.mark.clone(),
            status: None,
        })
    });
    let body =
        Body::Edit { change: id(99), base: START, mode: EditMode::Merge, ops: marks.collect(), conflicts: Vec::new() };
    Proposal { body, text: Some(local.to_owned()), ids, start: None }
}

fn describe(op: &BlockOp) -> String {
    let named = |block: &BlockRef| match block {
        BlockRef::Known(id) => id.0.ordinal().to_string(),
        BlockRef::New(nth) => format!("+{nth}"),
    };
    match op {
        BlockOp::SetMark { block, mark, status } => format!("mark {} {mark:?} {status:?}", block.0.ordinal()),
        BlockOp::SetFields { block, fields } => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{}={}", field.name(), written(field).unwrap_or_default())).collect();
            format!("set {} {}", named(block), fields.join(" "))
        }
        BlockOp::SetBlockers { block, on } => {
            format!("blockers {} [{}]", named(block), on.iter().map(named).collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn describe_conflict(conflict: &NewConflict) -> String {
    let settled = conflict.settlement.as_ref().map_or_else(|| "open".to_owned(), |how| format!("{:?}", how.strategy));
    format!("{:?} conflict {}: {:?} | {:?} {settled}", conflict.class, conflict.field, conflict.spec, conflict.runtime)
}

fn check(path: &str, start: &str, local: &str, runtime: &Runtime, expected: &Expect) {
    let start = known(start);
    let completed = complete(proposal(&start, local), Some(&start), path, runtime);
    let Body::Edit { ops, conflicts, .. } = completed.body else { panic!("it is an edit") };
    let lines: Vec<String> = ops.iter().map(describe).chain(conflicts.iter().map(describe_conflict)).collect();
    expected.assert_eq(&lines.join("\n"));
}

const KIRO: &str = ".kiro/specs/a/tasks.md";
const CTX: &str = ".context/TASKS.md";

#[test]
fn a_mark_means_what_its_dialect_says() {
    let none = Runtime::default();
    check(KIRO, "- [ ] 1. a\n", "- [-] 1. a\n", &none, &expect![[r#"mark 0 "-" Some(InProgress)"#]]);
    check("tasks.md", "- [ ] 1. a\n", "- [x] 1. a\n", &none, &expect![[r#"mark 0 "x" Some(Done)"#]]);
    check("tasks.md", "- [ ] 1. a\n", "- [?] 1. a\n", &none, &expect![[r#"mark 0 "?" None"#]]);
    let own = Runtime { convention: Some("kiro,?=review".parse().unwrap()), ..Runtime::default() };
    check("tasks.md", "- [ ] 1. a\n", "- [?] 1. a\n", &own, &expect![[r#"mark 0 "?" Some(Review)"#]]);
}

#[test]
fn a_line_that_only_got_other_words_sets_nothing() {
    let set = runtime(&[TaskField::Priority(Some(Priority::Low)), TaskField::Status(Status::Review)], 9);
    check(
        CTX,
        "- [ ] write the log #priority:high\n",
        "- [ ] write the whole log #priority:high\n",
        &set,
        &expect![""],
    );
}

#[test]
fn what_the_text_newly_says_is_set_and_what_it_no_longer_says_is_taken_back() {
    let none = Runtime::default();
    check(CTX, "- [ ] write the log\n", "- [ ] write the log #priority:high\n", &none, &expect!["set 0 priority=high"]);
    check(CTX, "- [ ] write the log #priority:high\n", "- [ ] write the log\n", &none, &expect!["set 0 priority="]);
    check(
        KIRO,
        "- [ ] 1. a\n",
        "- [ ] 1. a\n  - _Requirements: 1.1, 2.3_\n- [ ] 2. b\n  - _Depends: 1_\n",
        &none,
        &expect![[r"
            set 0 requirements=1.1, 2.3
            blockers +1 [0]"]],
    );
}

#[test]
fn where_both_sides_changed_a_field_the_policy_decides_and_nothing_is_lost() {
    let (start, local) = ("- [ ] write the log\n", "- [ ] write the log #priority:high\n");
    let low = || runtime(&[TaskField::Priority(Some(Priority::Low))], 9);
    check(CTX, start, local, &low(), &expect![[r#"Data conflict priority: Some("high") | Some("low") open"#]]);
    let with = |strategy| {
        let mut runtime = low();
        runtime.policy.strategies.insert("priority".to_owned(), strategy);
        runtime
    };
    check(
        CTX,
        start,
        local,
        &with(Strategy::SpecWins),
        &expect![[r#"
            set 0 priority=high
            Data conflict priority: Some("high") | Some("low") SpecWins"#]],
    );
    check(
        CTX,
        start,
        local,
        &with(Strategy::RuntimeWins),
        &expect![[r#"Data conflict priority: Some("high") | Some("low") RuntimeWins"#]],
    );
    // Set before the text that the writer read: the writer knew, or could have known.
    let before = runtime(&[TaskField::Priority(Some(Priority::Low))], 4);
    check(CTX, start, local, &before, &expect!["set 0 priority=high"]);
}

#[test]
fn of_two_statuses_the_stronger_one_stands() {
    let reviewed = || runtime(&[TaskField::Status(Status::Review)], 9);
    check(KIRO, "- [ ] 1. a\n", "- [x] 1. a\n", &reviewed(), &expect![[r#"mark 0 "x" Some(Done)"#]]);
    check(KIRO, "- [ ] 1. a\n", "- [-] 1. a\n", &reviewed(), &expect![[r#"mark 0 "-" None"#]]);
    let cancelled = runtime(&[TaskField::Status(Status::Cancelled)], 9);
    check(
        KIRO,
        "- [ ] 1. a\n",
        "- [-] 1. a\n",
        &cancelled,
        &expect![[r#"
            mark 0 "-" None
            Data conflict status: Some("in-progress") | Some("cancelled") open"#]],
    );
}

#[test]
fn a_step_that_the_project_forbids_is_not_taken_but_kept() {
    let mut strict = runtime(&[], 2);
    strict.policy.transitions.insert(Status::Todo, BTreeSet::from([Status::InProgress]));
    check(
        "tasks.md",
        "- [ ] a\n- [ ] b\n",
        "- [x] a\n- [ ] b\n",
        &strict,
        &expect![[r#"Permission conflict status: Some("done") | Some("todo") open"#]],
    );
}

#[test]
fn a_file_that_changed_its_dialect_is_migrated_where_no_mark_changes_its_meaning_and_else_asked_about() {
    let none = Runtime::default();
    check(
        "plan.md",
        "- [ ] 1. a\n",
        "- [ ] 1. a\n  - _Requirements: 1.1_\n",
        &none,
        &expect![[r#"
            set 0 requirements=1.1
            Schema conflict dialect: Some("kiro") | Some("checklist") Merge"#]],
    );
    check(
        "plan.md",
        "- [-] write the log 📅 2026-01-02\n",
        "- [-] write the log\n  - _Requirements: 1.1_\n",
        &none,
        &expect![[r#"
            set 0 due= requirements=1.1
            Schema conflict dialect: Some("kiro") | Some("obsidian-tasks") open"#]],
    );
}

#[test]
fn a_new_change_says_everything_at_once() {
    let text = "- [x] 1. a\n- [-] 2. b\n  - _Depends: 1, 9_\n";
    let document = parse(text);
    let blocks = document.blocks.iter().map(|block| NewBlock {
        kind: block.kind.into(),
        lead: block.content.lead.clone(),
        mark: block.content.mark.clone(),
        text: block.content.text.clone(),
    });
    let body = Body::CreateChange { project: id(50), path: KIRO.to_owned(), blocks: blocks.collect(), ops: Vec::new() };
    let created = Proposal { body, text: Some(text.to_owned()), ids: Vec::new(), start: None };
    let Body::CreateChange { ops, .. } = complete(created, None, KIRO, &Runtime::default()).body else {
        panic!("it stays what it is")
    };
    let lines: Vec<String> = ops.iter().map(describe).collect();
    expect![[r"
        set +1 status=in-progress
        blockers +1 [+0]"]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn values_are_read_as_they_are_written() {
    let fields = [
        TaskField::Status(Status::InProgress),
        TaskField::Assignee(Some("ann".to_owned())),
        TaskField::Assignee(None),
        TaskField::Priority(Some(Priority::High)),
        TaskField::Priority(None),
        TaskField::Due(Some("2026-12-24".to_owned())),
        TaskField::Labels(BTreeSet::from(["api".to_owned(), "ui".to_owned()])),
        TaskField::Labels(BTreeSet::new()),
        TaskField::BlockedBy(BTreeSet::from([id(1), id(2)])),
        TaskField::Requirements(BTreeSet::from(["1.1".to_owned()])),
        TaskField::Note("see 1.1".to_owned()),
    ];
    for field in fields {
        assert_eq!(read(field.name(), written(&field).as_deref()), Some(field));
    }
    assert_eq!(read("priority", Some("soon")), None);
    assert_eq!(read("status", Some("asleep")), None);
    assert_eq!(read("colour", Some("red")), None);
}
