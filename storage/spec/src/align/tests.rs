//! Tests of the module above: laws, tables and failure paths.

use super::*;
use crate::parse;
use crate::testing::{edited, edits, known, text};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn check(old: &str, new: &str, expected: &Expect) {
    let new = parse(new);
    let ids = align(&known(old), &new);
    let line = |(id, block): (Option<u32>, &Block)| {
        format!("{} {:?}\n", id.map_or("-".to_owned(), |id| id.to_string()), block.print())
    };
    expected.assert_eq(&ids.into_iter().zip(&new.blocks).map(line).collect::<String>());
}

#[test]
fn a_task_keeps_its_identity_through_everything_at_once() {
    check(
        "## One\n- [ ] 1.1 write the durable log\n- [ ] 1.2 read it back\n## Two\n- [ ] 2.1 publish the crate\n",
        "## One\n- [ ] 1.1 read it back\n## Two\n  - [x] 2.1 write the durable log quickly\n- [ ] 2.2 publish the crate\n",
        &expect![[r###"
            0 "## One\n"
            2 "- [ ] 1.1 read it back\n"
            3 "## Two\n"
            1 "  - [x] 2.1 write the durable log quickly\n"
            4 "- [ ] 2.2 publish the crate\n"
        "###]],
    );
}

#[test]
fn of_equal_lines_the_one_with_the_same_surroundings_is_meant() {
    check(
        "## One\n- [ ] write tests\n## Two\n- [ ] write tests\n",
        "## New\n- [ ] write tests\n## Two\n- [ ] write tests\n## One\n- [ ] write tests\n",
        &expect![[r###"
            - "## New\n"
            - "- [ ] write tests\n"
            2 "## Two\n"
            3 "- [ ] write tests\n"
            0 "## One\n"
            1 "- [ ] write tests\n"
        "###]],
    );
}

#[test]
fn of_equal_lines_the_one_with_the_same_mark_is_meant() {
    check(
        "- [x] write tests\n- [ ] write tests\n",
        "- [ ] write tests\n",
        &expect![[r#"
        1 "- [ ] write tests\n"
    "#]],
    );
    check(
        "- [ ] write tests\n- [ ] write tests\n",
        "- [x] write tests\n- [ ] write tests\n",
        &expect![[r#"
        0 "- [x] write tests\n"
        1 "- [ ] write tests\n"
    "#]],
    );
}

#[test]
fn a_task_reworded_beyond_recognition_keeps_its_number_and_place() {
    check(
        "- [ ] T001 alpha beta\n- [ ] T002 gamma delta\n",
        "- [ ] T001 alpha beta\n- [ ] T002 something else entirely\n",
        &expect![[r#"
        0 "- [ ] T001 alpha beta\n"
        1 "- [ ] T002 something else entirely\n"
    "#]],
    );
}

#[test]
fn renumbered_and_reworded_at_once_the_words_say_more_than_the_number() {
    check(
        "- [ ] 2.1 add rules for devices and bindings\n- [ ] 2.2 add indexes for device lookups and queries\n- [ ] 2.3 create the device manager in the shell\n",
        "- [ ] 2.1 create the table of services\n- [ ] 2.2 add rules for devices, bindings and services\n- [ ] 2.3 add indexes for device lookups, service lookups and queries\n- [ ] 2.4 create the device manager in the shell (with a secret)\n",
        &expect![[r#"
            - "- [ ] 2.1 create the table of services\n"
            0 "- [ ] 2.2 add rules for devices, bindings and services\n"
            1 "- [ ] 2.3 add indexes for device lookups, service lookups and queries\n"
            2 "- [ ] 2.4 create the device manager in the shell (with a secret)\n"
        "#]],
    );
}

#[test]
fn a_note_however_long_makes_no_other_task() {
    check(
        "- [ ] code review\n- [ ] 全量测试\n",
        "- [x] code review (nothing blocks; three remarks on names went to the backlog for later)\n- [x] 全量测试（108 个文件通过，一个旧的超时与本次变更无关）\n",
        &expect![[r#"
            0 "- [x] code review (nothing blocks; three remarks on names went to the backlog for later)\n"
            1 "- [x] 全量测试（108 个文件通过，一个旧的超时与本次变更无关）\n"
        "#]],
    );
}

#[test]
fn where_a_row_of_tasks_was_rewritten_numbers_say_nothing() {
    check(
        "- [ ] 1.1 describe the old format\n- [ ] 1.2 give some examples\n- [ ] 1.3 publish\n",
        "- [ ] 1.1 reject unknown headers\n- [ ] 1.2 count lines twice\n- [ ] 1.3 publish\n",
        &expect![[r#"
            - "- [ ] 1.1 reject unknown headers\n"
            - "- [ ] 1.2 count lines twice\n"
            2 "- [ ] 1.3 publish\n"
        "#]],
    );
}

#[test]
fn ideographs_are_words() {
    check(
        "- [ ] 日誌を書く\n- [ ] 設計を読む\n",
        "- [ ] 設計を読む\n- [ ] 日誌を早く書く\n",
        &expect![[r#"
        1 "- [ ] 設計を読む\n"
        0 "- [ ] 日誌を早く書く\n"
    "#]],
    );
}

proptest! {
    #[test]
    fn alignment_is_injective_and_repeatable(old in text(), edits in edits()) {
        let new = parse(&edited(&old, &edits));
        let old = known(&old);
        let ids = align(&old, &new);
        prop_assert_eq!(ids.len(), new.blocks.len());
        let matched: Vec<u32> = ids.iter().copied().flatten().collect();
        prop_assert_eq!(matched.iter().collect::<BTreeSet<_>>().len(), matched.len());
        prop_assert_eq!(align(&old, &new), ids);
    }
}
