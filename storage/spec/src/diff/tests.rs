//! Tests of the module above: laws, tables and failure paths.

use super::*;
use crate::parse;
use crate::testing::{edited, edits, identified, known, print, text};
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn describe(ops: &[Op<u32>]) -> String {
    let line = |op: &Op<u32>| match op {
        Op::Insert { after, block } => format!("insert {:?} after {after:?}\n", block.print()),
        Op::SetText { id, lead, text, kind } => format!("set {id} {kind:?} {lead:?} {text:?}\n"),
        Op::SetMark { id, mark } => format!("mark {id} {mark:?}\n"),
        Op::Move { id, after } => format!("move {id} after {after:?}\n"),
        Op::Delete { id } => format!("delete {id}\n"),
    };
    ops.iter().map(line).collect()
}

fn check(old: &str, new: &str, expected: &Expect) {
    let old = known(old);
    let ops = diff(&old, &parse(new));
    assert_eq!(print(&identified(&old, &ops, 1000)), new);
    expected.assert_eq(&describe(&ops));
}

#[test]
fn a_tick_is_one_mark() {
    check(
        "- [ ] one\n- [ ] two\n",
        "- [ ] one\n- [x] two\n",
        &expect![[r#"
        mark 1 "x"
    "#]],
    );
}

#[test]
fn a_tick_with_a_note_is_a_mark_and_a_text() {
    check(
        "- [ ] 1.1 write the log\n",
        "- [x] 1.1 write the log (done today)\n",
        &expect![[r#"
        set 0 Task "- [" "] 1.1 write the log (done today)\n"
        mark 0 "x"
    "#]],
    );
}

#[test]
fn an_inserted_task_renumbers_and_keeps_identities() {
    check(
        "- [ ] 1.1 alpha\n- [x] 1.2 beta\n- [ ] 1.3 gamma\n",
        "- [ ] 1.1 alpha\n- [ ] 1.2 new thing\n- [x] 1.3 beta\n- [ ] 1.4 gamma\n",
        &expect![[r#"
            insert "- [ ] 1.2 new thing\n" after After(0)
            set 1 Task "- [" "] 1.3 beta\n"
            set 2 Task "- [" "] 1.4 gamma\n"
        "#]],
    );
}

#[test]
fn one_moved_line_is_one_move() {
    check(
        "- [ ] alpha\n- [ ] beta\n- [ ] gamma\n- [ ] delta\n",
        "- [ ] gamma\n- [ ] alpha\n- [ ] beta\n- [ ] delta\n",
        &expect![[r#"
        move 2 after Start
    "#]],
    );
}

#[test]
fn a_section_moves_without_its_blank_lines() {
    check(
        "## One\n\n- [ ] alpha\n\n## Two\n\n- [ ] beta\n- [ ] gamma\n",
        "## Two\n\n- [ ] beta\n- [ ] gamma\n\n## One\n\n- [ ] alpha\n",
        &expect![[r#"
            insert "\n" after After(7)
            move 0 after AfterNew(0)
            insert "\n" after After(0)
            move 2 after AfterNew(1)
            delete 1
            delete 3
        "#]],
    );
}

#[test]
fn a_bullet_becomes_a_task() {
    check(
        "- write the log\n",
        "- [ ] write the log\n",
        &expect![[r#"
        set 0 Task "- [" "] write the log\n"
        mark 0 " "
    "#]],
    );
}

#[test]
fn other_words_are_another_task() {
    check(
        "- [ ] write the log\n- [ ] keep\n",
        "- [ ] paint a fence\n- [ ] keep\n",
        &expect![[r#"
        insert "- [ ] paint a fence\n" after Start
        delete 0
    "#]],
    );
}

#[test]
fn equal_texts_cut_into_other_blocks_need_nothing() {
    let mut old = known("a\nb\n");
    old.extend(known("c\n").into_iter().map(|block| Known { id: 9, ..block }));
    assert_eq!(diff(&old, &parse("a\nb\nc\n")), []);
}

#[test]
fn large_rewrites_end() {
    let lines = |from: u32, step: u32| -> String {
        let line = |at: u32| format!("- [ ] {} word{}\n", (from + at * step) % 977, at % 31);
        (0..20_000).map(line).collect::<Vec<_>>().concat()
    };
    let old = known(&lines(1, 7));
    let new = lines(5, 11);
    let ops = diff(&old, &parse(&new));
    assert_eq!(print(&identified(&old, &ops, 100_000)), new);
}

proptest! {
    #[test]
    fn applying_a_diff_gives_the_new_text(old in text(), edits in edits()) {
        let new = edited(&old, &edits);
        let old = known(&old);
        let ops = diff(&old, &parse(&new));
        prop_assert_eq!(print(&identified(&old, &ops, 1000)), new);
    }

    #[test]
    fn applying_a_diff_of_unrelated_texts_gives_the_new_text(old in text(), new in text()) {
        let old = known(&old);
        let ops = diff(&old, &parse(&new));
        prop_assert_eq!(print(&identified(&old, &ops, 1000)), new);
        prop_assert_eq!(diff(&old, &parse(&print(&old))), vec![]);
    }
}
