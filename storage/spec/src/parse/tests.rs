//! Tests of the module above: laws, tables and failure paths.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use super::*;
use crate::testing;
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn check(text: &str, expected: &Expect) {
    let document = parse(text);
    assert_eq!(document.print(), text);
    let blocks = document.blocks.iter().map(|block| format!("{:?} {:?}\n", block.kind, block.print()));
    let problems = document.problems.iter().map(|problem| format!("! {problem}\n"));
    expected.assert_eq(&blocks.chain(problems).collect::<Vec<_>>().concat());
}

#[test]
fn an_openspec_file() {
    check(
        "# Tasks\n\nIntro line\nmore of it\n\n## 1. Base\n- [x] 1.1 one\n  - [ ] 1.2 two\n    detail\n  - bullet\n    its rest\n| a |\n| b |\n",
        &expect![[r####"
            Heading "# Tasks\n"
            Blank "\n"
            Prose "Intro line\nmore of it\n"
            Blank "\n"
            Heading "## 1. Base\n"
            Task "- [x] 1.1 one\n"
            Task "  - [ ] 1.2 two\n"
            Prose "    detail\n"
            Prose "  - bullet\n    its rest\n"
            Table "| a |\n"
            Table "| b |\n"
        "####]],
    );
}

#[test]
fn a_task_is_cut_at_its_brackets() {
    let document = parse("  1) [TODO] 1.1 a\n");
    let content = &document.blocks.first().unwrap().content;
    assert_eq!((content.lead.as_str(), content.mark.as_str(), content.text.as_str()), ("  1) [", "TODO", "] 1.1 a\n"));
}

#[test]
fn a_closed_fence_hides_tasks_and_an_open_one_does_not() {
    check(
        "```md\n- [ ] a\n```\n- [ ] b\n",
        &expect![[r#"
        Fence "```md\n- [ ] a\n```\n"
        Task "- [ ] b\n"
    "#]],
    );
    check(
        "```md\n- [ ] a\n",
        &expect![[r#"
        Prose "```md\n"
        Task "- [ ] a\n"
        ! line 1: code fence is never closed
    "#]],
    );
    check(
        "````\n```\n- [ ] a\n````\n",
        &expect![[r#"
        Fence "````\n```\n- [ ] a\n````\n"
    "#]],
    );
    check(
        "~~~\n```\n~~~\n- [ ] a\n",
        &expect![[r#"
        Fence "~~~\n```\n~~~\n"
        Task "- [ ] a\n"
    "#]],
    );
}

#[test]
fn a_stray_fence_does_not_turn_the_file_inside_out() {
    check(
        "```\n- [ ] a\n```sh\nls\n```\n- [ ] b\n",
        &expect![[r#"
        Prose "```\n"
        Task "- [ ] a\n"
        Fence "```sh\nls\n```\n"
        Task "- [ ] b\n"
        ! line 1: code fence is never closed
    "#]],
    );
}

#[test]
fn comments_hide_only_when_closed() {
    check(
        "<!-- a\n- [ ] b\n--> c\n- [ ] d\n",
        &expect![[r#"
        Comment "<!-- a\n- [ ] b\n--> c\n"
        Task "- [ ] d\n"
    "#]],
    );
    check(
        "<!-- a\n- [ ] b\n<!-- c\n",
        &expect![[r#"
        Prose "<!-- a\n"
        Task "- [ ] b\n"
        Prose "<!-- c\n"
        ! line 1: HTML comment is never closed
    "#]],
    );
    check(
        "<!-- a --> \n",
        &expect![[r#"
        Comment "<!-- a --> \n"
    "#]],
    );
}

#[test]
fn front_matter_stands_at_the_top_closed_and_without_tasks() {
    check(
        "---\ntitle: a\n---\n# b\n",
        &expect![[r####"
        FrontMatter "---\ntitle: a\n---\n"
        Heading "# b\n"
    "####]],
    );
    check(
        "---\ntitle: a\n",
        &expect![[r#"
        Prose "---\ntitle: a\n"
    "#]],
    );
    check(
        "---\na\n- [ ] b\n---\n",
        &expect![[r#"
        Prose "---\na\n"
        Task "- [ ] b\n"
        Prose "---\n"
    "#]],
    );
    check(
        "---\n\na: b\n\n---\n",
        &expect![[r#"
            FrontMatter "---\n\na: b\n\n---\n"
        "#]],
    );
    check(
        "---\n## a\n---\n",
        &expect![[r###"
            Prose "---\n"
            Heading "## a\n"
            Prose "---\n"
        "###]],
    );
    check(
        "\n---\na: b\n---\n",
        &expect![[r#"
        Blank "\n"
        Prose "---\na: b\n---\n"
    "#]],
    );
}

#[test]
fn oddities_are_told_with_their_lines() {
    check(
        "- [ ] 1.1 a\n\n- [ ] 1.1 b\n<<<<<<< HEAD\n",
        &expect![[r#"
        Task "- [ ] 1.1 a\n"
        Blank "\n"
        Task "- [ ] 1.1 b\n"
        Prose "<<<<<<< HEAD\n"
        ! line 3: id 1.1 is already used in line 1
        ! line 4: conflict markers; finish the merge
    "#]],
    );
}

#[test]
fn odd_bytes_are_content() {
    check(
        "a\0b\r\n- [ ] c\r\n\u{feff}x",
        &expect![[r#"
        Prose "a\0b\r\n"
        Task "- [ ] c\r\n"
        Prose "\u{feff}x"
    "#]],
    );
    check("", &expect![[""]]);
}

#[test]
fn long_blocks_are_cut_at_line_ends() {
    let line = "word ".repeat(200) + "\n";
    let text = line.repeat(200);
    let document = parse(&text);
    assert_eq!(document.print(), text);
    assert_eq!(document.blocks.len(), text.len().div_ceil(BLOCK_BYTES_MAX / line.len() * line.len()));
    assert!(document.blocks.iter().all(|block| block.bytes() <= BLOCK_BYTES_MAX && block.content.text.ends_with('\n')));
}

/// Inputs that would hurt a parser with a quadratic corner. The limit of the test runner is the deadline; the counts prove the reading.
#[test]
fn enormous_inputs_are_parsed() {
    let mebi: usize = 1 << 20;
    for (unit, blocks) in [
        ("#\n", mebi / 2),
        ("\n", mebi),
        ("a", 1),
        ("- [ ", 1),
        ("```\n", mebi / 8),
        ("```a\n", mebi.div_ceil(5)),
        ("<!--\n", 1),
        ("> ", 1),
        ("- [ ] a\n", mebi / 8),
    ] {
        let text: String = unit.repeat(mebi.div_ceil(unit.len()));
        let document = parse(&text);
        assert_eq!(document.print(), text);
        assert_eq!(
            document.blocks.len() > BLOCKS_MAX,
            document.problems.iter().any(|problem| matches!(problem, Problem::TooManyBlocks { .. }))
        );
        assert!(document.blocks.len().abs_diff(blocks) < 32 || unit == "<!--\n", "{unit:?}: {}", document.blocks.len());
    }
    let nested: Vec<String> = (0..1000).map(|depth| format!("{}- [ ] {depth}\n", "  ".repeat(depth))).collect();
    let nested = nested.concat();
    let document = parse(&nested);
    assert_eq!(document.print(), nested);
    assert_eq!(document.blocks.last().unwrap().indent(), 1998);
}

proptest! {
    #[test]
    fn any_text_prints_back(text: String) {
        prop_assert_eq!(parse(&text).print(), text);
    }

    #[test]
    fn any_task_file_prints_back(text in testing::text(), pieces in prop::collection::vec("(- \\[ \\]|```|~~~~|<!--|-->|---|\n|\r\n| |#|\\||>|1\\)|x|漢|\u{feff})", 0..40)) {
        let text = text + &pieces.concat();
        prop_assert_eq!(parse(&text).print(), text);
    }
}
