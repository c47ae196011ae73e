//! Real task files, when they are there: every file prints back, counts agree with OpenSpec's rule. Real merges: `merges.rs`.
//!
//! The corpus lies beside the workspace and is not part of it; without it these tests say so and prove nothing.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failing test should panic, and a report is read by people"
)]

use std::fs;
use std::path::{Path, PathBuf};

use zyflow_spec::{BlockKind, FILE_BYTES_MAX, check, decode, parse};

/// Share of OpenSpec files whose count of tasks with the rule's marks must equal the rule's, in percent. The others hide tasks in closed
/// fences or comments, which the rule counts.
const EQUAL_COUNTS_PERCENT_MIN: usize = 99;

fn corpus(part: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../../shared/corpus")
        .join(part);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no corpus at {}", path.display());
    None
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
    files.sort();
}

/// OpenSpec's rule for one line, `^\s*(?:[-*+]|\d{1,9}[.)])\s*\[([\sxX])\]`: whether it counts, and as done.
fn openspec_rule(line: &str) -> Option<bool> {
    let body = line.trim_start();
    let digits = body.bytes().take_while(u8::is_ascii_digit).count();
    let after_marker = match digits {
        0 => body.strip_prefix(['-', '*', '+'])?,
        1..=9 => body.get(digits..)?.strip_prefix(['.', ')'])?,
        _ => return None,
    };
    let inside = after_marker.trim_start().strip_prefix('[')?;
    let mark = inside.chars().next().filter(|mark| mark.is_whitespace() || matches!(mark, 'x' | 'X'))?;
    inside.get(mark.len_utf8()..)?.starts_with(']').then_some(!mark.is_whitespace())
}

#[test]
fn every_file_prints_back_and_counts_agree() {
    let Some(folder) = corpus("files") else { return };
    let mut files = Vec::new();
    files_below(&folder, &mut files);
    let (mut openspec, mut equal, mut all_equal, mut with_other_marks) = (0, 0, 0, 0);
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let name = file.strip_prefix(&folder).unwrap().to_str().unwrap().replace("__", "/");
        let report = check(&bytes, Some(&name));
        assert!(report.lossless, "{name}: {:?}", report.problems);
        let (text, _) = decode(&bytes).unwrap();
        let counted: Vec<bool> = text.lines().filter_map(openspec_rule).collect();
        let document = parse(&text);
        let tasks = document.blocks.iter().filter(|block| block.kind == BlockKind::Task);
        let other_marks = tasks.filter(|task| !matches!(task.content.mark.as_str(), " " | "x" | "X")).count();
        let done = counted.iter().filter(|done| **done).count();
        let is_equal = counted.len() + other_marks == report.tasks && done == report.done;
        with_other_marks += usize::from(other_marks > 0 && name.contains("openspec/"));
        all_equal += usize::from(is_equal);
        if name.contains("openspec/") {
            openspec += 1;
            equal += usize::from(is_equal);
            if !is_equal {
                println!("{name}: rule {}, we {}; {:?}", counted.len(), report.tasks, report.problems);
            }
        }
    }
    println!(
        "{} files print back; counts equal in {equal} of {openspec} OpenSpec files ({with_other_marks} have marks that the rule doesn't know), {all_equal} of all",
        files.len()
    );
    assert!(equal * 100 >= openspec * EQUAL_COUNTS_PERCENT_MIN);
}

#[test]
fn a_file_at_the_limit_is_checked() {
    let line = "- [ ] 1.1 something to do that is neither short nor long\n";
    let bytes = line.repeat(FILE_BYTES_MAX / line.len()).into_bytes();
    let report = check(&bytes, None);
    assert!(report.lossless);
    assert_eq!(report.tasks, FILE_BYTES_MAX / line.len());
}
