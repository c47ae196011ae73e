//! Small files of our own, one for each dialect and one full of traps: all print back, and are read as people mean them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing test should panic, and it reads its samples"
)]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes its data so")]

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect;
use zyflow_spec::check;

#[test]
fn samples_are_read_as_meant() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("tests/samples");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seen = String::new();
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let report = check(&bytes, None);
        assert!(report.lossless, "{}", file.display());
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let line = format!("{name}: {} {}/{}\n", report.dialect, report.done, report.tasks);
        let problems: Vec<String> = report.problems.iter().map(|problem| format!("    {problem}\n")).collect();
        seen.extend([line, problems.concat()]);
    }
    expect![[r#"
        backlog-md: backlog-md 1/2
        cc-sdd: kiro 0/3
        checklist: checklist 1/4
        ctx: ctx 1/3
        kiro: kiro 2/5
        lee-spec-kit: lee-spec-kit 0/3
        obsidian-kanban: obsidian-kanban 1/2
        obsidian-tasks: obsidian-tasks 1/4
        openspec: openspec 3/7
        spec-kit: spec-kit 1/4
        spec-kitty: spec-kitty 1/2
        spec-workflow: spec-workflow 1/5
            line 13: id 4 is already used in line 12
        table: table 0/0
        todo-md: checklist 1/3
        traps: checklist 1/7
            line 2: code fence is never closed
            line 8: id 1.1 is already used in line 7
            line 9: HTML comment is never closed
    "#]]
    .assert_eq(&seen);
}
