//! Tests of the module above: what is read in each syntax, and laws for any text.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use super::*;
use crate::dialect::Dialect;
use crate::{parse, testing};
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn line(facts: &TaskFacts) -> String {
    let TaskFacts {
        state,
        id,
        urgency,
        due,
        assignee,
        labels,
        blocked_by,
        requirements,
        is_optional,
        is_parallel,
        wave,
    } = facts;
    let set = |name: &str, set: &BTreeSet<String>| {
        let values: Vec<&str> = set.iter().map(String::as_str).collect();
        if values.is_empty() { String::new() } else { format!(" {name} {}", values.join("|")) }
    };
    let one = |name: &str, value: Option<String>| value.map_or(String::new(), |value| format!(" {name} {value}"));
    [
        state.map_or("?".to_owned(), |state| state.to_string()),
        one("id", id.clone()),
        one("urgency", urgency.map(|urgency| urgency.to_string())),
        one("due", due.clone()),
        one("assignee", assignee.clone()),
        set("labels", labels),
        set("after", blocked_by),
        set("for", requirements),
        if *is_optional { " optional".to_owned() } else { String::new() },
        if *is_parallel { " parallel".to_owned() } else { String::new() },
        one("wave", wave.map(|wave| wave.to_string())),
    ]
    .concat()
}

fn check(convention: &str, text: &str, expected: &Expect) {
    let blocks = parse(text).blocks;
    let read = facts(&blocks, &convention.parse().unwrap());
    let lines: Vec<String> = read.iter().flatten().map(|facts| line(facts) + "\n").collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn lines_belong_to_the_task_above_by_their_indent() {
    check(
        "kiro",
        "- [ ] 1. a\n  - [x] 1.1 b\n    - _Requirements: 1.1, 2.3_\n  - _Requirements: 9_\n- _Requirements: 7_\n- [-] 2. c\n_Depends: 1.1_\n\n_Depends: 1_\n\n  more\n  _Requirements: 4 _\n# h\n  - _Requirements: 8_\n",
        &expect![[r#"
            todo id 1 for 9
            done id 1.1 for 1.1|2.3
            in-progress id 2 after 1.1
        "#]],
    );
}

#[test]
fn keys_in_every_writing() {
    check(
        "kiro",
        "- [ ]* 1.1 (P) a\n  - **Priority**: P1 (must)\n  - **Depends on:** 1.2, Task 2.1 (types); T003\n  - Due: 2026-02-30\n  - due date: 2026-03-01 or later\n  - Assignee: @ada, @bob\n  - _Boundary: storage_ _要件: 1.1、2.3_\n  - **Validates: Requirements 3.1**\n  - Unknown: 5\n  - Dependencies: none\n",
        &expect![[r#"
            todo id 1.1 urgency high due 2026-03-01 assignee ada labels storage after 1.2|T003|Task 2.1 for 1.1|2.3|3.1 optional parallel
        "#]],
    );
    check(
        "spec-workflow",
        "- [ ] 1. a _Requirements: 1.1_ rest_of it\n- [ ] 2. b\n  - _Blocked: the layout_\n- [-] 3. c\n  - _Blocked: the layout_\n",
        &expect![[r#"
        todo id 1 for 1.1
        blocked id 2
        in-progress id 3
    "#]],
    );
}

#[test]
fn tags_pictures_and_inline_fields() {
    check(
        "ctx",
        "- [ ] a #in-progress #priority:high #added:2026-01-02 #core\n- [ ] b (#blocked)\n- [-] c #blocked\n- [ ] d#blocked #12\n",
        &expect![[r#"
            in-progress urgency high labels core
            blocked
            cancelled
            todo
        "#]],
    );
    check(
        "obsidian-tasks",
        "- [/] a ⏫ 📅 2026-01-02 🆔 abc123 #work/log\n- [ ] b ⛔ abc123, x1y2z3 🔽 [due:: 2026-02-01] (priority:: low)\n- [-] c [id:: k1] [dependsOn:: a1, b2]\n- [!] d 📅 2026-02-31\n",
        &expect![[r#"
            in-progress id abc123 urgency high due 2026-01-02 labels work/log
            todo urgency low due 2026-02-01 after abc123|x1y2z3
            cancelled id k1 after a1|b2
            ?
        "#]],
    );
    check(
        "todo-md",
        "### Doing\n- [ ] a ~3d #feature @ada 2026-01-09  \n- [x] b\n### Done ✓\n- [ ] c\n### Ideas\n- [ ] d\n",
        &expect![[r#"
        in-progress due 2026-01-09 assignee ada labels feature
        done
        done
        todo
    "#]],
    );
    check(
        "spec-kit",
        "- [X] T003 [P] [US1] a (depends on T001, T002)\n- [ ] T004 b [USA] Depends on T003.\n",
        &expect![[r#"
        done id T003 labels US1 after T001|T002 parallel
        todo id T004 after T003
    "#]],
    );
    check(
        "lee-spec-kit",
        "- [DOING][P1] T-F001-01 a\n- [TODO][P3] T-F001-02 b\n- [REVIEW] c\n",
        &expect![[r#"
        in-progress id T-F001-01 urgency high
        todo id T-F001-02 urgency low
        review
    "#]],
    );
    check(
        "agent-os",
        "- [ ] 1. a ⚠️ Blocking issue: no key\n",
        &expect![[r#"
        blocked id 1
    "#]],
    );
}

#[test]
fn rows_are_read_by_their_header() {
    check(
        "table",
        "| ID | Task | Status | Owner | Priority | Depends on |\n|---|---|---|---|---|---|\n| 1 | a | ✅ | @ada | high | - |\n| T002 | b | 🟡 | | P3 | 1, T001 |\n| 3 | c | 未着手 |\n",
        &expect![[r#"
            done id 1 urgency high assignee ada
            in-progress id T002 urgency low after 1|T001
            todo id 3
        "#]],
    );
}

#[test]
fn waves_are_read_from_anywhere_in_the_file() {
    check(
        "kiro",
        "```json\n{\"waves\": [{\"id\": 2, \"tasks\": [\"1.1\"]}]}\n```\n- [ ] 1.1 a\n- [ ] 1.2 b\n\n```json\n{\"waves\": [{\"id\": 3, \"tasks\": [\"1.2\"]}]}\n```\n",
        &expect![[r#"
            todo id 1.1 wave 2
            todo id 1.2 wave 3
        "#]],
    );
}

#[test]
fn marks_mean_what_the_convention_says() {
    let text = "- [-] a\n- [~] b\n- [!] c\n- [*] d\n- [/] e\n- [ ] f\n- [X] g\n- [DOING] h\n- 🚧 i\n";
    check(
        "openspec",
        text,
        &expect![[r#"
        ?
        ?
        ?
        ?
        ?
        todo
        done
        in-progress
        in-progress
    "#]],
    );
    check(
        "kiro",
        text,
        &expect![[r#"
        in-progress
        todo
        ?
        ?
        ?
        todo
        done
        in-progress
        in-progress
    "#]],
    );
    check(
        "continue",
        text,
        &expect![[r#"
        ?
        cancelled
        ?
        in-progress
        ?
        todo
        done
        in-progress
        in-progress
    "#]],
    );
    check(
        "obsidian-tasks,!=review",
        text,
        &expect![[r#"
        cancelled
        ?
        review
        ?
        in-progress
        todo
        done
        in-progress
        in-progress
    "#]],
    );
}

#[test]
fn a_file_can_be_one_task() {
    let text = "---\nid: task-12\ntitle: Audit log\nstatus: In Progress\nassignee: ['@ada']\nlabels:\n  - store\npriority: high\ndependencies: [task-3, task-4.1]\ndue_date: '2026-03-01'\n---\n# Other\n- [x] #1 a\n";
    let blocks = parse(text).blocks;
    let of = |convention: &str| file_facts(&blocks, &convention.parse().unwrap());
    expect!["in-progress id task-12 urgency high due 2026-03-01 assignee ada labels store after task-3|task-4.1"]
        .assert_eq(&line(&of("backlog-md").unwrap()));
    assert_eq!(of("kiro"), None);
    assert_eq!(file_title(&blocks).as_deref(), Some("Audit log"));
    assert_eq!(file_title(&parse("text\n# First\n# Second\n").blocks).as_deref(), Some("First"));
    assert_eq!(of("backlog-md,In Progress=review").unwrap().state, Some(State::Review));
    check(
        "backlog-md",
        text,
        &expect![[r#"
        done id #1
    "#]],
    );
}

/// Inputs that would hurt a reader with a quadratic corner or without limits. The limit of the test runner is the deadline; what is kept is counted.
#[test]
fn enormous_inputs_are_read_within_limits() {
    let long = 10 << 20;
    let deep: Vec<String> =
        (0..1000).map(|depth| format!("{0}- [ ] {depth}\n{0}  - _Depends: 1.1_\n", "  ".repeat(depth))).collect();
    let shallow: String = deep.concat() + &"x\n\n".repeat(100_000);
    let texts = [
        "# a\n".repeat(1_000_000),
        format!("- [ ] 1. a\n  - _Requirements: {}\n", "1.1, ".repeat(long / 5)),
        format!("- [ ] {}\n", "#a ".repeat(long / 3)),
        format!("- [ ] {}\n", "_Depends: ".repeat(long / 10)),
        format!("- [ ] {}\n", "[due:: ".repeat(long / 7)),
        format!("- [ ] a\n  - {}: b\n", "k".repeat(long)),
        format!("| Task | Status |\n|---|---|\n| a {}|\n", "| ✅ ".repeat(long / 6)),
        "- [ ] a\u{0}\n  - _Requirements: \u{0}_\n".to_owned(),
        shallow,
    ];
    for text in texts {
        let blocks = parse(&text).blocks;
        for dialect in [Dialect::Kiro, Dialect::ObsidianTasks, Dialect::Ctx] {
            let read = facts(&blocks, &Convention::of(dialect));
            assert_eq!(read.len(), blocks.len());
            for facts in read.into_iter().flatten() {
                let sets = [&facts.labels, &facts.blocked_by, &facts.requirements];
                assert!(sets.iter().all(|set| set.len() <= FACT_VALUES_MAX));
                assert!(sets.into_iter().flatten().all(|value| value.len() <= FACT_BYTES_MAX));
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_with_one_entry_for_each_block(text: String, at: prop::sample::Index) {
        let dialects: Vec<Dialect> = Dialect::all().collect();
        let blocks = parse(&text).blocks;
        let convention = Convention::of(*at.get(&dialects));
        prop_assert_eq!(facts(&blocks, &convention).len(), blocks.len());
        drop(file_facts(&blocks, &convention));
    }

    #[test]
    fn tasks_and_only_tasks_have_facts(text in testing::text(), pieces in prop::collection::vec(piece(), 0..30), at: prop::sample::Index) {
        let dialects: Vec<Dialect> = Dialect::all().collect();
        let blocks = parse(&(text + &pieces.concat())).blocks;
        let read = facts(&blocks, &Convention::of(*at.get(&dialects)));
        prop_assert_eq!(read.len(), blocks.len());
        for (block, facts) in blocks.iter().zip(&read) {
            prop_assert_eq!(facts.is_some(), block.kind == BlockKind::Task);
            let sets = facts.iter().flat_map(|facts| [&facts.labels, &facts.blocked_by, &facts.requirements]).flatten();
            let text = block.print();
            prop_assert!(facts.iter().flat_map(|facts| &facts.id).all(|id| text.contains(id.as_str())));
            prop_assert!(sets.into_iter().all(|value| !value.is_empty()));
        }
    }
}

/// Pieces of which fields are made, whole and broken.
fn piece() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "- [ ] 1.1 ",
        "- [~] ",
        "  - ",
        "_Requirements: ",
        "_",
        "1.1, 2",
        "**Due**: ",
        "2026-02-29",
        "📅 ",
        "⛔ abc123",
        "[due:: ",
        "]",
        "#blocked",
        "#priority:",
        "@ada",
        " [P]",
        "[US",
        "1]",
        "(depends on ",
        "T001",
        ")",
        "\n",
        "\n",
        "\n",
        "| a | Status |\n|---|---|\n",
        "| b | Done |\n",
        "```json\n{\"waves\": [",
        "]}\n```\n",
        "漢",
        "：",
        "*",
        "\u{fe0f}",
        "✅",
        "- DONE: ",
        "---\nstatus: Done\n---\n",
        "\u{0}",
    ])
    .prop_map(str::to_owned)
}
