//! Real merges of task files, when they are there: they lose nothing.
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

use zyflow_spec::{FILE_BYTES_MAX, check, decode, merge_text};

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
