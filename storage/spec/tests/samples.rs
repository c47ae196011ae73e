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
    expect![[r#""#]].assert_eq(&seen);
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
    check_facts("agent-os", &expect![[r#""#]]);
}

#[test]
fn facts_of_backlog_md() {
    check_facts("backlog-md", &expect![[r#""#]]);
}

#[test]
fn facts_of_cc_sdd() {
    check_facts("cc-sdd", &expect![[r#""#]]);
}

#[test]
fn facts_of_checklist() {
    check_facts("checklist", &expect![[r#""#]]);
}

#[test]
fn facts_of_continue() {
    check_facts("continue", &expect![[r#""#]]);
}

#[test]
fn facts_of_ctx() {
    check_facts("ctx", &expect![[r#""#]]);
}

#[test]
fn facts_of_kiro() {
    check_facts("kiro", &expect![[r#""#]]);
}

#[test]
fn facts_of_lee_spec_kit() {
    check_facts("lee-spec-kit", &expect![[r#""#]]);
}

#[test]
fn facts_of_moai() {
    check_facts("moai", &expect![[r#""#]]);
}

#[test]
fn facts_of_obsidian_kanban() {
    check_facts("obsidian-kanban", &expect![[r#""#]]);
}

#[test]
fn facts_of_obsidian_tasks() {
    check_facts("obsidian-tasks", &expect![[r#""#]]);
}

#[test]
fn facts_of_openspec() {
    check_facts("openspec", &expect![[r#""#]]);
}

#[test]
fn facts_of_plain_list() {
    check_facts("plain-list", &expect![[r#""#]]);
}

#[test]
fn facts_of_spec_kit() {
    check_facts("spec-kit", &expect![[r#""#]]);
}

#[test]
fn facts_of_spec_kitty() {
    check_facts("spec-kitty", &expect![[r#""#]]);
}

#[test]
fn facts_of_spec_workflow() {
    check_facts("spec-workflow", &expect![[r#""#]]);
}

#[test]
fn facts_of_table() {
    check_facts("table", &expect![[r#""#]]);
}

#[test]
fn facts_of_todo_md() {
    check_facts("todo-md", &expect![[r#""#]]);
}
