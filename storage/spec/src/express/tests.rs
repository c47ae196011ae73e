//! Tests of the module above: how states are written in each dialect, and the law for any file.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use super::*;
use crate::dialect::Dialect;
use crate::facts::{facts, file_facts};
use crate::{Convention, parse, testing};
use expect_test::{Expect, expect};
use proptest::prelude::*;

/// Most steps that a state needs.
const STEPS_MAX: usize = 2;

/// The text after carrying out an expression on the task at `task`, and where the task is then.
fn carried_out(blocks: &[Block], task: usize, expression: &Expression) -> (Vec<Block>, usize) {
    let mut blocks = blocks.to_vec();
    match expression {
        Expression::Mark(mark) => blocks.get_mut(task).unwrap().content.mark.clone_from(mark),
        Expression::Line { block, text } => {
            *blocks.get_mut(*block).unwrap() = Block::whole(BlockKind::Prose, text);
            let printed: String = blocks.iter().map(Block::print).collect();
            let parsed = parse(&printed).blocks;
            assert_eq!(parsed.len(), blocks.len(), "{printed:?}");
            return (parsed, task);
        }
        Expression::Under { heading } => {
            let moved = blocks.remove(task);
            let heading = if task < *heading { heading - 1 } else { *heading };
            blocks.insert(heading + 1, moved);
            return read_again(&blocks, heading + 1);
        }
    }
    (blocks, task)
}

/// The blocks as a file with them is read, and where the task is there: two blocks that a moved task stood between may be one then.
fn read_again(blocks: &[Block], task: usize) -> (Vec<Block>, usize) {
    let printed: String = blocks.iter().map(Block::print).collect();
    let start: usize = blocks.get(..task).unwrap().iter().map(|block| block.print().len()).sum();
    let parsed = parse(&printed).blocks;
    let starts = parsed.iter().scan(0, |end, block| {
        let start = *end;
        *end += block.print().len();
        Some(start)
    });
    let there = starts.zip(0..).find_map(|(at, index)| (at == start).then_some(index)).unwrap();
    assert_eq!(parsed.get(there), blocks.get(task), "{printed:?}");
    (parsed, there)
}

fn shown(blocks: &[Block], task: usize, convention: &Convention) -> Option<State> {
    if blocks.get(task).unwrap().kind == BlockKind::FrontMatter {
        return file_facts(blocks, convention)?.state;
    }
    facts(blocks, convention).get(task).unwrap().as_ref().unwrap().state
}

/// Carries out what `express` says until the state is shown; whether it can be, and the steps.
fn steps(text: &str, task: usize, state: State, convention: &Convention) -> Option<Vec<Expression>> {
    let (mut blocks, mut task) = (parse(text).blocks, task);
    let mut steps = Vec::new();
    while steps.is_empty() || shown(&blocks, task, convention) != Some(state) {
        assert!(steps.len() < STEPS_MAX, "{text:?} {state} {steps:?}");
        let expression = express(&blocks.iter().collect::<Vec<_>>(), task, state, convention);
        let Some(expression) = expression else {
            assert!(steps.is_empty(), "the first step leads on: {text:?} {state} {steps:?}");
            return None;
        };
        (blocks, task) = carried_out(&blocks, task, &expression);
        steps.push(expression);
    }
    let printed: String = blocks.iter().map(Block::print).collect();
    assert_eq!(parse(&printed).blocks.len(), blocks.len(), "{printed:?}");
    Some(steps)
}

fn check(convention: &str, text: &str, expected: &Expect) {
    let convention = convention.parse().unwrap();
    let blocks = parse(text).blocks;
    let is_task = |block: &Block| matches!(block.kind, BlockKind::Task | BlockKind::FrontMatter);
    let task = blocks.iter().position(is_task).unwrap();
    let lines = State::ALL.map(|state| match steps(text, task, state, &convention) {
        Some(steps) => format!("{state}: {steps:?}\n"),
        None => format!("{state}: can't be shown\n"),
    });
    expected.assert_eq(&lines.concat());
}

#[test]
fn brackets_take_the_marks_of_the_dialect() {
    check(
        "kiro",
        "- [ ] a\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: [Mark("-")]
        review: can't be shown
        blocked: can't be shown
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "openspec",
        "- [~] a\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: can't be shown
        review: can't be shown
        blocked: can't be shown
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "spec-workflow,!=review",
        "- [x] a\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: [Mark("-")]
        review: [Mark("!")]
        blocked: [Mark("~")]
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "spec-kit",
        "- [ ] a\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: can't be shown
        review: can't be shown
        blocked: can't be shown
        done: [Mark("X")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "kiro",
        "-[ ] a mark other than x needs a blank before the bracket\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: can't be shown
        review: can't be shown
        blocked: can't be shown
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
}

#[test]
fn words_and_emoji_stay_words_and_emoji() {
    check(
        "lee-spec-kit",
        "- [DOING][P1] a\n",
        &expect![[r#"
        todo: [Mark("TODO")]
        in-progress: [Mark("DOING")]
        review: [Mark("REVIEW")]
        blocked: [Mark("BLOCKED")]
        done: [Mark("DONE")]
        cancelled: [Mark("CANCELLED")]
        archived: [Mark("ARCHIVED")]
    "#]],
    );
    check(
        "checklist",
        "- ⬜ a\n",
        &expect![[r#"
        todo: [Mark("⬜")]
        in-progress: [Mark("🚧")]
        review: can't be shown
        blocked: can't be shown
        done: [Mark("✅")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "checklist",
        "- **TODO**: a\n",
        &expect![[r#"
        todo: [Mark("TODO")]
        in-progress: [Mark("IN PROGRESS")]
        review: [Mark("REVIEW")]
        blocked: [Mark("BLOCKED")]
        done: [Mark("DONE")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "table",
        "| Task | Status |\n|---|---|\n| a | ✅ Done (PR 5) |\n| b | ⏳ Pending |\n",
        &expect![[r#"
        todo: [Mark("⏳ Pending")]
        in-progress: [Mark("🚧 In progress")]
        review: [Mark("🔍 Review")]
        blocked: [Mark("⛔ Blocked")]
        done: [Mark("✅ Done")]
        cancelled: [Mark("🚫 Cancelled")]
        archived: [Mark("📦 Archived")]
    "#]],
    );
    check(
        "table",
        "| Task | Status |\n|---|---|\n| a | **pending** |\n",
        &expect![[r#"
        todo: [Mark("pending")]
        in-progress: [Mark("in progress")]
        review: [Mark("review")]
        blocked: [Mark("blocked")]
        done: [Mark("done")]
        cancelled: [Mark("cancelled")]
        archived: [Mark("archived")]
    "#]],
    );
    check(
        "table",
        "| Task | 状态 |\n|---|---|\n| a | 待办 |\n",
        &expect![[r#"
        todo: [Mark("待办")]
        in-progress: [Mark("进行中")]
        review: [Mark("审查中")]
        blocked: [Mark("阻塞")]
        done: [Mark("已完成")]
        cancelled: [Mark("已取消")]
        archived: [Mark("已归档")]
    "#]],
    );
    check(
        "kiro",
        "| Task | Done |\n|---|---|\n| a | [ ] |\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: [Mark("-")]
        review: can't be shown
        blocked: can't be shown
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
}

#[test]
fn tags_columns_and_front_matter() {
    check(
        "ctx",
        "- [ ] a #blocked #core  \n",
        &expect![[r#"
        todo: [Line { block: 0, text: "- [ ] a #core  \n" }]
        in-progress: [Line { block: 0, text: "- [ ] a #core #in-progress  \n" }]
        review: can't be shown
        blocked: [Mark(" ")]
        done: [Mark("x")]
        cancelled: [Mark("-")]
        archived: can't be shown
    "#]],
    );
    check(
        "ctx",
        "- [x] a #blocked\n",
        &expect![[r#"
        todo: [Line { block: 0, text: "- [ ] a\n" }]
        in-progress: [Line { block: 0, text: "- [ ] a #in-progress\n" }]
        review: can't be shown
        blocked: [Line { block: 0, text: "- [ ] a #blocked\n" }]
        done: [Mark("x")]
        cancelled: [Mark("-")]
        archived: can't be shown
    "#]],
    );
    check(
        "obsidian-kanban",
        "## Doing\n- [x] a\n\n## Done\n**Complete**\n",
        &expect![[r#"
        todo: can't be shown
        in-progress: [Mark(" ")]
        review: can't be shown
        blocked: can't be shown
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "todo-md",
        "### Todo\n- [ ] a\n### In Progress\n### Done ✓\n",
        &expect![[r#"
        todo: [Mark(" ")]
        in-progress: [Under { heading: 2 }]
        review: can't be shown
        blocked: can't be shown
        done: [Under { heading: 3 }]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "backlog-md",
        "---\nid: 1\nstatus: 'In Progress' # by hand\n---\n- [ ] #1 a\n",
        &expect![[r#"
        todo: [Line { block: 0, text: "---\nid: 1\nstatus: 'To Do' # by hand\n---\n" }]
        in-progress: [Line { block: 0, text: "---\nid: 1\nstatus: 'In Progress' # by hand\n---\n" }]
        review: [Line { block: 0, text: "---\nid: 1\nstatus: 'Review' # by hand\n---\n" }]
        blocked: [Line { block: 0, text: "---\nid: 1\nstatus: 'Blocked' # by hand\n---\n" }]
        done: [Line { block: 0, text: "---\nid: 1\nstatus: 'Done' # by hand\n---\n" }]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
    check(
        "spec-workflow",
        "- [ ] a\n  - _Blocked: the layout_\n",
        &expect![[r#"
        todo: can't be shown
        in-progress: [Mark("-")]
        review: can't be shown
        blocked: [Mark(" ")]
        done: [Mark("x")]
        cancelled: can't be shown
        archived: can't be shown
    "#]],
    );
}

#[test]
fn what_is_no_task_shows_nothing() {
    let blocks = parse("# a\n\n- b\n").blocks;
    let blocks: Vec<&Block> = blocks.iter().collect();
    for at in 0..=blocks.len() {
        assert_eq!(express(&blocks, at, State::Done, &Convention::of(Dialect::Kiro)), None);
    }
}

fn lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "- [ ] a\n",
        "- [x] 1.1 a\n",
        "- [-] a\n",
        "- [?] a #blocked\n",
        "- [DONE] a\n",
        "- [✅] a\n",
        "- ✅ a\n",
        "- TODO: a\n",
        "-[ ] a\n",
        "- [ ](a)\n",
        "  - [~] a #in-progress\n",
        "  - _Blocked: b_\n",
        "## Doing\n",
        "## Done ✓\n",
        "### Review\n",
        "\n",
        "text\n",
        "| a | Status |\n|---|---|\n",
        "| a | Done |\n",
        "| b | ⏳ Not Started |\n",
        "| c | [ ] |\n",
        "| d | 完了 |\n",
        "- [ ] ⚠️ Blocked: b\n",
    ]);
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn what_is_said_shows_the_state(text in prop_oneof![lines(), testing::text()], at: prop::sample::Index, mark in "[!?>v-]", own in prop::sample::select(&State::ALL[..])) {
        let dialects: Vec<Dialect> = Dialect::all().collect();
        let mut convention = Convention::of(*at.get(&dialects));
        convention.marks.insert(mark, own);
        let blocks = parse(&text).blocks;
        let tasks = blocks.iter().enumerate().filter(|(_, block)| block.kind == BlockKind::Task).map(|(task, _)| task);
        for task in tasks {
            for state in State::ALL {
                drop(steps(&text, task, state, &convention));
            }
        }
    }
}
