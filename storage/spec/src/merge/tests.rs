//! Tests of the module above: laws, tables and failure paths.

use super::*;
use crate::testing::{edited, edits, known, reidentified, text};
use crate::{Document, parse};
use expect_test::{Expect, expect};
use proptest::prelude::*;

/// What the cluster has after somebody made `text` of `base`: known blocks keep their ids, new ones count from 1000.
pub(super) fn evolved(base: &[Known<u32>], text: &str) -> Vec<Known<u32>> {
    let document = parse(text);
    let ids = align(base, &document);
    reidentified(document, ids, 1000)
}

fn check(base: &str, local: &str, current: &str, expected: &Expect) {
    let base = known(base);
    let merge = merge3(&base, &parse(local), &evolved(&base, current));
    let describe = |Conflict { id, class, field, base, ours, theirs }: Conflict<u32>| {
        let id = id.map_or("-".to_owned(), |id| id.to_string());
        format!("! {id} {class:?} {field:?}: base {base:?} ours {ours:?} theirs {theirs:?}\n")
    };
    let conflicts: Vec<String> = merge.conflicts.into_iter().map(describe).collect();
    expected.assert_eq(&(merge.text + &conflicts.concat()));
}

#[test]
fn independent_edits_unite() {
    check(
        "## A\n- [ ] 1.1 alpha\n- [ ] 1.2 beta\n",
        "## A\n- [x] 1.1 alpha\n- [ ] 1.2 beta\n- [ ] 1.3 gamma\n",
        "## A\n- [ ] 1.1 alpha first\n- [x] 1.2 beta\n",
        &expect![[r###"
            ## A
            - [x] 1.1 alpha first
            - [x] 1.2 beta
            - [ ] 1.3 gamma
        "###]],
    );
}

#[test]
fn the_same_words_changed_clash_and_keep_both() {
    check(
        "- [ ] write the log\n",
        "- [x] write a log\n",
        "- [ ] write my log\n",
        &expect![[r#"
        - [x] write my log
        ! 0 Data Text: base Some("- [ ] write the log\n") ours Some("- [x] write a log\n") theirs Some("- [ ] write my log\n")
    "#]],
    );
}

#[test]
fn edit_beats_delete_on_both_sides() {
    check(
        "- [ ] alpha one\n- [ ] beta two\n",
        "- [ ] beta two\n",
        "- [ ] alpha one more\n- [ ] beta two\n",
        &expect![[r#"
        - [ ] alpha one more
        - [ ] beta two
        ! 0 Structure Existence: base Some("- [ ] alpha one\n") ours None theirs Some("- [ ] alpha one more\n")
    "#]],
    );
    check(
        "- [ ] alpha one\n- [ ] beta two\n",
        "- [x] alpha one\n- [ ] beta two\n",
        "- [ ] beta two\n",
        &expect![[r#"
        - [x] alpha one
        - [ ] beta two
        ! - Structure Existence: base Some("- [ ] alpha one\n") ours Some("- [x] alpha one\n") theirs None
    "#]],
    );
    check(
        "- [ ] alpha one\n- [ ] beta two\n",
        "- [ ] beta two\n",
        "- [ ] alpha one\n- [ ] beta two\n",
        &expect![[r#"
        - [ ] beta two
    "#]],
    );
}

#[test]
fn a_deleted_block_that_two_edited_comes_back_once() {
    let base = known("- [ ] alpha one two\n- [ ] beta\n");
    let deleted = evolved(&base, "- [ ] beta\n");
    let first = merge3(&base, &parse("- [x] alpha one two\n- [ ] beta\n"), &deleted);
    let current = crate::testing::identified(&deleted, &first.ops, 500);
    let second = merge3(&base, &parse("- [ ] alpha one two three\n- [ ] beta\n"), &current);
    assert_eq!(second.text, "- [x] alpha one two three\n- [ ] beta\n");
    assert_eq!(second.local_ids, [Some(500), Some(1)]);
}

#[test]
fn the_same_line_inserted_twice_folds() {
    check(
        "- [ ] alpha\n",
        "- [ ] alpha\n- [x] beta\n",
        "- [ ] alpha\n- [ ] beta\n",
        &expect![[r#"
        - [ ] alpha
        - [x] beta
    "#]],
    );
    check(
        "- [ ] alpha\n",
        "- [ ] alpha\n- [ ] beta\n- [ ] delta\n",
        "- [ ] alpha\n- [ ] gamma\n- [ ] beta\n",
        &expect![[r#"
        - [ ] alpha
        - [ ] gamma
        - [ ] beta
        - [ ] delta
    "#]],
    );
}

#[test]
fn equal_lines_under_different_new_headings_are_two() {
    check(
        "# T\n",
        "# T\n\n## One\n\n- [ ] write tests\n",
        "# T\n\n## Two\n\n- [ ] write tests\n",
        &expect![[r###"
            # T

            ## One

            - [ ] write tests

            ## Two

            - [ ] write tests
        "###]],
    );
}

#[test]
fn a_whole_section_that_both_brought_is_one() {
    check(
        "# T\n",
        "# T\n\n## One\n\n- [ ] write tests\n- [ ] mine\n",
        "# T\n\n## Two\n\n- [ ] other\n\n## One\n\n- [ ] write tests\n",
        &expect![[r###"
            # T

            ## Two

            - [ ] other

            ## One

            - [ ] write tests
            - [ ] mine
        "###]],
    );
}

#[test]
fn moves_follow_their_neighbours_and_clash_when_both_moved() {
    check(
        "- [ ] alpha\n- [ ] beta\n- [ ] gamma\n- [ ] delta\n",
        "- [ ] delta\n- [ ] alpha\n- [ ] beta\n- [ ] gamma\n",
        "- [ ] alpha\n- [ ] new one\n- [ ] beta\n- [x] gamma\n- [x] delta\n",
        &expect![[r#"
            - [x] delta
            - [ ] alpha
            - [ ] new one
            - [ ] beta
            - [x] gamma
        "#]],
    );
    check(
        "- [ ] alpha\n- [ ] beta\n- [ ] gamma\n- [ ] delta\n",
        "- [ ] delta\n- [ ] alpha\n- [ ] beta\n- [ ] gamma\n",
        "- [ ] alpha\n- [ ] delta\n- [ ] beta\n- [ ] gamma\n",
        &expect![[r#"
            - [ ] alpha
            - [ ] delta
            - [ ] beta
            - [ ] gamma
            ! 3 Structure Place: base None ours Some("") theirs Some("- [ ] alpha\n")
        "#]],
    );
}

#[test]
fn inserts_go_after_the_nearest_surviving_block() {
    check(
        "- [ ] alpha\n- [ ] beta\n- [ ] gamma\n",
        "- [ ] alpha\n- [ ] beta\n- [ ] mine\n- [ ] gamma\n",
        "- [ ] alpha\n- [ ] gamma\n",
        &expect![[r#"
            - [ ] alpha
            - [ ] mine
            - [ ] gamma
        "#]],
    );
}

#[test]
fn the_text_merge_keeps_ours_in_a_clash() {
    let merge = merge_text("- [ ] write the log", "- [ ] write my log\n- [ ] new\n", "- [x] write a log\n");
    expect![[r#"
        - [x] write my log
        - [ ] new
    "#]]
    .assert_eq(&merge.text);
    let conflict =
        merge.conflicts.first().map(|conflict| (conflict.id, conflict.ours.clone(), conflict.theirs.clone()));
    assert_eq!(
        conflict,
        Some((Some(0), Some("- [ ] write my log\n".to_owned()), Some("- [x] write a log\n".to_owned())))
    );
}

/// Words of `local` that `base` doesn't have and that are neither in the merged text nor in a conflict.
fn lost<'a>(base: &str, local: &'a str, merge: &Merge<u32>) -> Vec<&'a str> {
    let kept: Vec<&str> =
        merge.conflicts.iter().filter_map(|conflict| conflict.ours.as_deref()).chain([merge.text.as_str()]).collect();
    let is_word = |word: &&str| word.chars().all(char::is_alphanumeric) && !base.contains(*word);
    local.split_whitespace().filter(is_word).filter(|word| !kept.iter().any(|text| text.contains(*word))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1024)))]

    #[test]
    fn an_unchanged_local_text_changes_nothing(base in text(), theirs in edits()) {
        let blocks = known(&base);
        let current = evolved(&blocks, &edited(&base, &theirs));
        let merge = merge3(&blocks, &parse(&base), &current);
        prop_assert_eq!(merge.ops, vec![]);
        prop_assert_eq!(merge.conflicts, vec![]);
        let same = merge3(&blocks, &Document { blocks: current.iter().map(|known| known.block.clone()).collect(), problems: vec![] }, &current);
        prop_assert_eq!(same.ops, vec![]);
    }

    #[test]
    fn an_unchanged_cluster_takes_exactly_the_local_text(base in text(), ours in edits()) {
        let local = edited(&base, &ours);
        let base = known(&base);
        let merge = merge3(&base, &parse(&local), &base);
        prop_assert_eq!(merge.text, local);
        prop_assert_eq!(merge.conflicts, vec![]);
    }

    #[test]
    fn no_word_of_either_side_is_lost(base in text(), ours in edits(), theirs in edits()) {
        let (local, other) = (edited(&base, &ours), edited(&base, &theirs));
        let blocks = known(&base);
        let current = evolved(&blocks, &other);
        let merge = merge3(&blocks, &parse(&local), &current);
        prop_assert_eq!(lost(&base, &local, &merge), Vec::<&str>::new());
        prop_assert_eq!(lost(&base, &other, &merge), Vec::<&str>::new());
        let applied = apply(&current, &merge.ops).map(|placed| print(placed.iter().map(|placed| &placed.block)));
        prop_assert_eq!(applied.as_ref(), Ok(&merge.text));
        prop_assert_eq!(merge3(&blocks, &parse(&local), &current), merge);
    }

    #[test]
    fn a_merge_that_was_applied_repeats_nothing_when_merged_again(base in text(), ours in edits(), theirs in edits()) {
        let (local, other) = (edited(&base, &ours), edited(&base, &theirs));
        let blocks = known(&base);
        let current = evolved(&blocks, &other);
        let merge = merge3(&blocks, &parse(&local), &current);
        // words added to one line by both are ambiguous when merged once more; the request id is what makes such a retry safe
        if merge.ops.iter().any(|op| matches!(op, Op::SetText { .. })) {
            return Ok(());
        }
        let after = crate::testing::identified(&current, &merge.ops, 5000);
        let again = merge3(&blocks, &parse(&local), &after);
        // blank lines are known by their place alone, and of two lines that swapped either may count as the one that moved
        let visible = |text: &str| -> Vec<String> {
            let mut lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(visible(&again.text), visible(&merge.text));
    }
}
