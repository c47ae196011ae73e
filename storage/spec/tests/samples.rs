//! Small files of our own, one for each dialect and one full of traps: all print back, and are read as people mean them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing test should panic, and it reads its samples"
)]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes its data so")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use zyflow_spec::{Convention, Dialect, TaskFacts, check, check_as, decode, facts, file_facts, file_title, parse};

fn samples() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("tests/samples");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let sample = |file: PathBuf| (file.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(file).unwrap());
    files.into_iter().map(sample).collect()
}

#[test]
fn samples_are_read_as_meant() {
    let mut seen = String::new();
    for (name, bytes) in samples() {
        let report = check(&bytes, None);
        assert!(report.lossless, "{name}");
        let line = format!("{name}: {} {}/{}\n", report.dialect, report.done, report.tasks);
        let problems: Vec<String> = report.problems.iter().map(|problem| format!("    {problem}\n")).collect();
        seen.extend([line, problems.concat()]);
    }
    expect![[r#"
        agent-os: agent-os 3/7
        backlog-md: backlog-md 1/2
        cc-sdd: kiro 0/3
        checklist: checklist 1/4
        continue: continue 1/4
            line 6: waits for #4, and nothing here has that id
        ctx: ctx 1/4
        kiro: kiro 2/5
            line 19: wave 1 names task 2.4, and nothing here has that id
        lee-spec-kit: lee-spec-kit 1/4
        moai: table 1/3
        obsidian-kanban: obsidian-kanban 1/3
        obsidian-tasks: obsidian-tasks 1/5
        openspec: openspec 3/9
            line 11: mark [~] has no meaning in this dialect and counts as open (1 of them)
            line 13: waits for 2.5, and nothing here has that id
        plain-list: checklist 2/5
        spec-kit: spec-kit 1/4
        spec-kitty: spec-kitty 1/2
        spec-workflow: spec-workflow 1/6
            line 13: id 4 is already used in line 12
        table: table 1/5
            line 6: waits for 9, and nothing here has that id
        todo-md: todo-md 1/4
        traps: checklist 1/7
            line 2: code fence is never closed
            line 8: id 1.1 is already used in line 7
            line 9: HTML comment is never closed
    "#]]
    .assert_eq(&seen);
}

/// The fields of one task that say something.
fn line(facts: &TaskFacts) -> String {
    let set = |name: &str, values: &BTreeSet<String>| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        (!values.is_empty()).then(|| format!("{name} {}", values.join("|")))
    };
    let fields = [
        Some(facts.state.map_or("unknown".to_owned(), |state| state.to_string())),
        facts.id.clone(),
        facts.urgency.map(|urgency| urgency.to_string()),
        facts.due.as_ref().map(|due| format!("due {due}")),
        facts.assignee.as_ref().map(|assignee| format!("by {assignee}")),
        set("labels", &facts.labels),
        set("after", &facts.blocked_by),
        set("for", &facts.requirements),
        facts.is_optional.then(|| "optional".to_owned()),
        facts.is_parallel.then(|| "parallel".to_owned()),
        facts.wave.map(|wave| format!("wave {wave}")),
    ];
    fields.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The dialect that a sample is of, by its name.
fn dialect_of(name: &str) -> Dialect {
    match name {
        "cc-sdd" => Dialect::Kiro,
        "plain-list" | "traps" => Dialect::Checklist,
        name => name.parse().unwrap(),
    }
}

fn check_facts(name: &str, expected: &Expect) {
    let (_, bytes) = samples().into_iter().find(|(known, _)| known == name).unwrap();
    let blocks = parse(&decode(&bytes).unwrap().0).blocks;
    let convention = Convention::of(dialect_of(name));
    let file = file_facts(&blocks, &convention);
    let file = file.map(|facts| format!("file: {} ({})\n", line(&facts), file_title(&blocks).unwrap_or_default()));
    let read = facts(&blocks, &convention);
    let tasks =
        blocks.iter().zip(&read).filter_map(|(block, facts)| facts.as_ref().map(|facts| (block.title(), facts)));
    let tasks: Vec<String> = tasks.map(|(title, facts)| format!("{title:?}: {}\n", line(facts))).collect();
    expected.assert_eq(&(file.unwrap_or_default() + &tasks.concat()));
}

#[test]
fn there_is_a_sample_of_every_dialect() {
    let of: BTreeSet<Dialect> = samples().iter().map(|(name, _)| dialect_of(name)).collect();
    let missing: Vec<Dialect> = Dialect::all().filter(|dialect| !of.contains(dialect)).collect();
    assert_eq!(missing, [Dialect::Prose], "prose has no tasks to read");
}

#[test]
fn a_chosen_convention_decides_what_is_unknown() {
    let text = b"- [-] a\n- [-] b\n- [?] c\n";
    let problems = |convention: &str| {
        let report = check_as(text, &convention.parse().unwrap());
        report.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(problems("kiro,?=review"), Vec::<String>::new());
    let unknown = "line 3: mark [?] has no meaning in this dialect and counts as open (1 of them)";
    assert_eq!(problems("kiro"), [unknown]);
    assert_eq!(problems("openspec").len(), 2);
}

#[test]
fn facts_of_agent_os() {
    check_facts(
        "agent-os",
        &expect![[r#"
        "Audit log": done, 1
        "Write tests for the encoder": done, 1.1
        "Encoder": done, 1.2
        "Rotation": todo, 2
        "Write tests for rotation": todo, 2.1
        "Rename files ⚠\u{fe0f} Blocking issue: the layout isn't settled": blocked, 2.2
        "Verify": todo, 2.3, low, after 2.1|2.2
    "#]],
    );
}

#[test]
fn facts_of_backlog_md() {
    check_facts(
        "backlog-md",
        &expect![[r#"
        file: in-progress, task-12, high, due 2026-02-28, by ada, labels audit|storage, after task-3 (Audit log)
        "Nothing is lost": done, #1
        "It can be read": todo, #2
    "#]],
    );
}

#[test]
fn facts_of_cc_sdd() {
    check_facts(
        "cc-sdd",
        &expect![[r#"
        "監査ログの土台": todo, 1
        "(P) 書き込みを実装する": todo, 1.1, labels storage, for 1.1|2.3, parallel
        "性質テスト": todo, 1.2, after 1.1, for 3.1|3.2|3.3, optional
    "#]],
    );
}

#[test]
fn facts_of_checklist() {
    check_facts(
        "checklist",
        &expect![[r#"
        "types": done
        "writer": todo
        "indented by a tab": todo
        "reader": todo
    "#]],
    );
}

#[test]
fn facts_of_continue() {
    check_facts(
        "continue",
        &expect![[r#"
        "Types": done
        "Writer": in-progress
        "Reader in another language": cancelled
        "Rotation (depends on #4)": todo, after #4
    "#]],
    );
}

#[test]
fn facts_of_ctx() {
    check_facts(
        "ctx",
        &expect![[r#"
        "Types #added:2026-01-02": done
        "Writer #in-progress #priority:high #storage": in-progress, high, labels storage
        "Reader in another language": cancelled
        "Rotation #blocked #priority:low": blocked, low
    "#]],
    );
}

#[test]
fn facts_of_kiro() {
    check_facts(
        "kiro",
        &expect![[r#"
        "Set up the audit crate": done, 1, for 1.1|1.2, wave 0
        "Write the log": in-progress, 2
        "Encoder": done, 2.1, for 2.1, wave 0
        "Rotation": todo, 2.2, after 2.1, wave 1
        "Property test for rotation": todo, 2.3, for 2.3, optional
    "#]],
    );
}

#[test]
fn facts_of_lee_spec_kit() {
    check_facts(
        "lee-spec-kit",
        &expect![[r#"
        "자료형 만들기": done, T-F001-01, high
        "기록기": in-progress, T-F001-02, high, by ada, after T-F001-01
        "판독기": todo, T-F001-03, medium
        "색인": todo, T-F001-04, low
    "#]],
    );
}

#[test]
fn facts_of_moai() {
    check_facts(
        "moai",
        &expect![[r#"
        "Types": done, T-001, by ada, for REQ-AL-001
        "Writer \\| encoder": in-progress, T-002, by ada, after T-001, for REQ-AL-001|REQ-AL-002
        "Rotation": todo, T-003, after T-001|T-002, for REQ-AL-003
    "#]],
    );
}

#[test]
fn facts_of_obsidian_kanban() {
    check_facts(
        "obsidian-kanban",
        &expect![[r#"
        "Writer #storage 📅 2026-01-09": in-progress, due 2026-01-09, labels storage
        "Index": blocked
        "Types": done
    "#]],
    );
}

#[test]
fn facts_of_obsidian_tasks() {
    check_facts(
        "obsidian-tasks",
        &expect![[r#"
        "Types #work ⏫ 🔁 every week ➕ 2026-01-01 📅 2026-01-09 🆔 abc1": todo, abc1, high, due 2026-01-09, labels work
        "Writer ⛔ abc1 🔽 ^block-1": in-progress, low, after abc1
        "Reader ✅ 2026-01-03": done
        "Index ❌ 2026-01-04": cancelled
        "quoted [due:: 2026-02-01] [priority:: medium] [dependsOn:: abc1] [assignee:: ada]": todo, medium, due 2026-02-01, by ada, after abc1
    "#]],
    );
}

#[test]
fn facts_of_openspec() {
    check_facts(
        "openspec",
        &expect![[r#"
        "Choose the file layout": done, 1.1
        "Write the record encoder (done 2026-01-02)": done, 1.2
        "Golden bytes": done, 1.2.1
        "Handle a torn tail": todo, 1.3
        "Iterate from an offset": todo, 2.1
        "Filter by author": unknown, 2.2
        "Page through results": todo, 2.3
        "Page backwards, depends on 2.3 and 2.5": todo, 2.4, after 2.3|2.5
        "Document it": todo, 2.6, by ada
    "#]],
    );
}

#[test]
fn facts_of_plain_list() {
    check_facts(
        "plain-list",
        &expect![[r#"
        "rotation": todo
        "writer": in-progress
        "types": done
        "golden bytes": done
        "page through results": todo, due 2026-02-28
    "#]],
    );
}

#[test]
fn facts_of_spec_kit() {
    check_facts(
        "spec-kit",
        &expect![[r#"
        "Create the crate in storage/audit": done, T001
        "[P] Configure lints in Cargo.toml": todo, T002, parallel
        "[P] [US1] Contract test in tests/audit.rs": todo, T003, labels US1, parallel
        "[US1] Implement the writer (depends on T003)": todo, T004, labels US1, after T003
    "#]],
    );
}

#[test]
fn facts_of_spec_kitty() {
    check_facts(
        "spec-kitty",
        &expect![[r#"
        "Types": done, T001
        "Writer [P] (depends on T001)": todo, T002, after T001, parallel
    "#]],
    );
}

#[test]
fn facts_of_spec_workflow() {
    check_facts(
        "spec-workflow",
        &expect![[r#"
        "Create the types in src/audit.rs": done, 1, for 1.1
        "Write the log": in-progress, 2
        "Rotate it": blocked, 3
        "Read it": todo, 4
        "Read it backwards": todo, 4
        "Search it _Leverage: src/log.rs_ _Requirements: 1.2, 1.3_": todo, 5, for 1.2|1.3
    "#]],
    );
}

#[test]
fn facts_of_table() {
    check_facts(
        "table",
        &expect![[r#"
        "Types": done, 1, high, due 2026-01-09, by ada
        "Writer": in-progress, 2, medium, after 1
        "Reader": todo, 3, low, after 1|2
        "Index": todo, 4, after 9
        "轮换": in-progress
    "#]],
    );
}

#[test]
fn facts_of_todo_md() {
    check_facts(
        "todo-md",
        &expect![[r#"
        "Writer ~3d #feature @ada 2026-01-09": todo, due 2026-01-09, by ada, labels feature
        "Rotation": todo
        "Reader": in-progress
        "Types": done
    "#]],
    );
}
