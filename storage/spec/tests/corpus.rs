//! Real task files, when they are there: every file prints back, counts agree with OpenSpec's rule, real merges lose nothing.
//!
//! The corpus lies beside the workspace and is not part of it; without it these tests say so and prove nothing.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failing test should panic, and a report is read by people"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use zyflow_spec::{BlockKind, FILE_BYTES_MAX, check, decode, merge_text, parse};

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

/// Whether one merged line holds all that `line` added to the line it comes from: both sides changed it, in other words.
fn is_woven(line: &str, before: &BTreeSet<&str>, kept: &BTreeSet<&str>) -> bool {
    let words = |line: &str| -> BTreeSet<String> {
        line.split(|symbol: char| !symbol.is_alphanumeric()).map(str::to_owned).collect()
    };
    let mine = words(line);
    let origin = before.iter().map(|line| words(line)).max_by_key(|origin| origin.intersection(&mine).count());
    let added: BTreeSet<String> = mine.difference(&origin.unwrap_or_default()).cloned().collect();
    kept.iter().any(|line| added.is_subset(&words(line)))
}

#[test]
fn real_merges_lose_no_line_without_a_conflict() {
    let Some(folder) = corpus("merges") else { return };
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for merge in folders {
        let read = |name: &str| decode(&fs::read(merge.join(name)).unwrap()).unwrap().0;
        let (base, ours, theirs, result) = (read("base.md"), read("ours.md"), read("theirs.md"), read("result.md"));
        let merged = merge_text(&base, &ours, &theirs);
        let before: BTreeSet<&str> = base.lines().collect();
        let added: BTreeSet<&str> = ours.lines().chain(theirs.lines()).filter(|line| !before.contains(line)).collect();
        let kept: BTreeSet<&str> = merged.text.lines().collect();
        let values = merged.conflicts.iter().flat_map(|conflict| [&conflict.ours, &conflict.theirs]);
        let recorded: Vec<&str> = values.flatten().map(String::as_str).collect();
        let is_recorded = |line: &str| recorded.iter().any(|value| value.contains(line));
        let is_lost = |line: &&str| {
            added.contains(line) && !kept.contains(line) && !is_recorded(line) && !is_woven(line, &before, &kept)
        };
        let lost: Vec<&str> = result.lines().filter(is_lost).collect();
        println!(
            "{}: {} conflicts, {} lines of the people's result that we lack, {} that it lacks; equal {}",
            merge.file_name().unwrap().to_string_lossy(),
            merged.conflicts.len(),
            result.lines().filter(|line| !kept.contains(line)).count(),
            merged.text.lines().filter(|line| !result.contains(line)).count(),
            merged.text == result,
        );
        for conflict in &merged.conflicts {
            println!("    {:?} {:?}: {:?} | {:?}", conflict.class, conflict.field, conflict.ours, conflict.theirs);
        }
        for line in merged.text.lines().filter(|line| !before.contains(line) && !added.contains(line)) {
            println!("    woven: {line}");
        }
        assert_eq!(lost, Vec::<&str>::new(), "{}", merge.display());
    }
}

#[test]
fn a_file_at_the_limit_is_checked() {
    let line = "- [ ] 1.1 something to do that is neither short nor long\n";
    let bytes = line.repeat(FILE_BYTES_MAX / line.len()).into_bytes();
    let report = check(&bytes, None);
    assert!(report.lossless);
    assert_eq!(report.tasks, FILE_BYTES_MAX / line.len());
}
