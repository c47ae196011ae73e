//! Real merges, when they are there: a conflict only where both sides changed the same thing, and no line lost without one.
//!
//! The corpus lies beside the workspace and is not part of it; without it this test says so and proves nothing. What it claims of a
//! conflict is checked here from the four files alone, with another way of comparing words than the merge has. It prints a table:
//! `cargo test -p zyflow-spec --test merges -- --nocapture`.

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
use std::process::Command;

use zyflow_spec::{Conflict, ConflictField, decode, merge_text};

fn corpus() -> Option<PathBuf> {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../../shared/corpus/merges");
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no corpus at {}", path.display());
    None
}

/// The four texts of a merge.
struct Case {
    base: String,
    ours: String,
    theirs: String,
    result: String,
}

/// How many hunks git can't merge.
fn git_conflicts(folder: &Path) -> usize {
    let output = Command::new("git")
        .args(["merge-file", "-p", "ours.md", "base.md", "theirs.md"])
        .current_dir(folder)
        .output()
        .expect("git is installed by ./x setup");
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.starts_with("<<<<<<< ")).count()
}

/// Words, and everything else by character.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for symbol in text.chars() {
        match words.last_mut().filter(|last| last.chars().all(|c| c.is_ascii_alphanumeric())) {
            Some(word) if symbol.is_ascii_alphanumeric() => word.push(symbol),
            Some(_) | None => words.push(symbol.to_string()),
        }
    }
    words
}

/// The places of `base` that `side` touched, by a longest common subsequence: word n is place 2n + 1, and the gap before it place 2n.
fn touched(base: &[String], side: &[String]) -> BTreeSet<usize> {
    let mut lengths = vec![vec![0usize; side.len() + 1]; base.len() + 1];
    for (at, word) in base.iter().enumerate().rev() {
        for (other_at, other) in side.iter().enumerate().rev() {
            lengths[at][other_at] = if word == other {
                lengths[at + 1][other_at + 1] + 1
            } else {
                lengths[at + 1][other_at].max(lengths[at][other_at + 1])
            };
        }
    }
    let (mut at, mut other_at) = (0, 0);
    let mut touched = BTreeSet::new();
    while at < base.len() || other_at < side.len() {
        if at < base.len() && other_at < side.len() && base[at] == side[other_at] {
            (at, other_at) = (at + 1, other_at + 1);
        } else if at < base.len() && (other_at == side.len() || lengths[at + 1][other_at] >= lengths[at][other_at + 1])
        {
            touched.insert(2 * at + 1);
            at += 1;
        } else {
            touched.insert(2 * at);
            other_at += 1;
        }
    }
    touched
}

/// Whether both sides changed the same words of `base`, or put words at one place, or one added where the other took away.
fn is_same_place(base: &str, ours: &str, theirs: &str) -> bool {
    let base = words(base);
    let (ours, theirs) = (touched(&base, &words(ours)), touched(&base, &words(theirs)));
    ours.iter().any(|place| theirs.range(place.saturating_sub(1)..=place + 1).next().is_some())
}

/// What speaks against a conflict; empty when it stands.
fn objections(case: &Case, conflict: &Conflict<usize>) -> Vec<&'static str> {
    let mut objections = Vec::new();
    let mut object = |is_wrong: bool, objection| {
        if is_wrong {
            objections.push(objection);
        }
    };
    let is_in = |value: &Option<String>, text: &str| value.as_ref().is_none_or(|value| text.contains(value.as_str()));
    object(conflict.ours == conflict.theirs, "both sides have the same value");
    object(conflict.ours == conflict.base, "ours is the base's value");
    object(conflict.theirs == conflict.base, "theirs is the base's value");
    object(!is_in(&conflict.base, &case.base), "the base doesn't hold that value");
    object(!is_in(&conflict.ours, &case.ours), "ours doesn't hold that value");
    object(!is_in(&conflict.theirs, &case.theirs), "theirs doesn't hold that value");
    match (conflict.field, &conflict.base, &conflict.ours, &conflict.theirs) {
        (ConflictField::Text, Some(base), Some(ours), Some(theirs)) => {
            object(!is_same_place(base, ours, theirs), "the sides changed different words");
        }
        (ConflictField::Existence, Some(_), ours, theirs) => {
            object(ours.is_some() == theirs.is_some(), "nobody deleted it");
            object(ours.is_none() && case.ours.contains(theirs.as_deref().unwrap_or_default()), "ours still has it");
            object(
                theirs.is_none() && case.theirs.contains(ours.as_deref().unwrap_or_default()),
                "theirs still has it",
            );
        }
        (ConflictField::Mark | ConflictField::Place, _, Some(_), Some(_)) => {}
        _ => object(true, "a value is missing"),
    }
    objections
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

/// Lines of the people's result that a side had added or changed and that are neither merged nor recorded.
fn lost<'a>(case: &'a Case, text: &str, conflicts: &[Conflict<usize>]) -> Vec<&'a str> {
    let before: BTreeSet<&str> = case.base.lines().collect();
    let sides = case.ours.lines().chain(case.theirs.lines());
    let added: BTreeSet<&str> = sides.filter(|line| !before.contains(line)).collect();
    let kept: BTreeSet<&str> = text.lines().collect();
    let values = conflicts.iter().flat_map(|conflict| [&conflict.ours, &conflict.theirs]);
    let recorded: Vec<&str> = values.flatten().map(String::as_str).collect();
    let is_recorded = |line: &str| recorded.iter().any(|value| value.contains(line));
    let is_lost = |line: &&str| {
        added.contains(line) && !kept.contains(line) && !is_recorded(line) && !is_woven(line, &before, &kept)
    };
    case.result.lines().filter(is_lost).collect()
}

/// In words, whose version people took.
fn choice(case: &Case) -> &'static str {
    match (case.result == case.ours, case.result == case.theirs) {
        (true, true) => "both sides are equal",
        (true, false) => "ours whole",
        (false, true) => "theirs whole",
        (false, false) => "both",
    }
}

#[test]
fn real_merges_clash_only_where_they_must_and_lose_no_line() {
    let Some(folder) = corpus() else { return };
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    println!(
        "| merge | git's conflicts | ours, by field | people took | text equals theirs | lines of theirs that we lack | that they lack |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut notes = Vec::new();
    for folder in folders {
        let read = |name: &str| decode(&fs::read(folder.join(name)).unwrap()).unwrap().0;
        let case =
            Case { base: read("base.md"), ours: read("ours.md"), theirs: read("theirs.md"), result: read("result.md") };
        let merged = merge_text(&case.base, &case.ours, &case.theirs);
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let fields: Vec<String> = merged.conflicts.iter().map(|conflict| conflict.field.to_string()).collect();
        let count = |field: &str| fields.iter().filter(|other| *other == field).count();
        let by_field: BTreeSet<String> = fields.iter().map(|field| format!("{} {field}", count(field))).collect();
        let by_field = if by_field.is_empty() { "0".to_owned() } else { Vec::from_iter(by_field).join(", ") };
        let lacking = |text: &str, other: &str| {
            let has: BTreeSet<&str> = other.lines().collect();
            text.lines().filter(|line| !has.contains(line)).count()
        };
        println!(
            "| {name} | {} | {by_field} | {} | {} | {} | {} |",
            git_conflicts(&folder),
            choice(&case),
            if merged.text == case.result { "yes" } else { "no" },
            lacking(&case.result, &merged.text),
            lacking(&merged.text, &case.result),
        );
        for conflict in &merged.conflicts {
            notes.push(format!("{name}: {} {:?} | {:?}", conflict.field, conflict.ours, conflict.theirs));
            assert_eq!(objections(&case, conflict), Vec::<&str>::new(), "{name}: {conflict:?}");
        }
        assert_eq!(lost(&case, &merged.text, &merged.conflicts), Vec::<&str>::new(), "{name}");
    }
    println!("\n{}", notes.join("\n"));
}

#[test]
fn touched_places_are_told_apart() {
    assert!(is_same_place("a b c", "a x c", "a y c"));
    assert!(is_same_place("a", "a one", "a two"));
    assert!(!is_same_place("a b c d", "x b c d", "a b c y"));
    assert!(!is_same_place("write the log today", "write the durable log today", "write the log today first"));
}
