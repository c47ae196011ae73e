//! Real task files, when they are there: how many tasks we count beside counters that know nothing of our parser, and which dialect we tell
//! beside the guess that came with the files.
//!
//! Where a file is OpenSpec's, its own rule is the oracle. For all files a second counter goes line by line, by simple rules of its own, in
//! `counts/by_line.rs`. Files that differ are listed with the reason, and a reason is proved by counting again without what it names.
//! The corpus lies beside the workspace and is not part of it; without it these tests say so and prove nothing.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failing test should panic, and a report is read by people"
)]

#[path = "counts/by_line.rs"]
mod by_line;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use by_line::{Reading, Tally, openspec_rule, tally};
use zyflow_spec::{BlockKind, check, decode, parse};

/// Share of files whose count must equal the independent one, in percent.
const EQUAL_COUNTS_PERCENT_MIN: usize = 99;

/// One file of the corpus.
struct Real {
    name: String,
    path: String,
    guess: String,
    bytes: Vec<u8>,
}

fn corpus() -> Option<Vec<Real>> {
    let folder: PathBuf =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../../shared/corpus");
    if !folder.exists() {
        eprintln!("SKIPPED: no corpus at {}", folder.display());
        return None;
    }
    let index = fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let rows = index.lines().skip(1).map(|row| row.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let real = |row: Vec<String>| Real {
        bytes: fs::read(folder.join("files").join(row.first().unwrap())).unwrap(),
        name: row.first().unwrap().clone(),
        path: row.get(3).unwrap().clone(),
        guess: row.get(4).unwrap().clone(),
    };
    Some(rows.map(real).collect())
}

fn text_of(file: &Real) -> String {
    decode(&file.bytes).unwrap().0
}

fn ours(file: &Real) -> Tally {
    let report = check(&file.bytes, Some(&file.path));
    assert!(report.lossless, "{}: {:?}", file.name, report.problems);
    Tally { tasks: report.tasks, done: report.done }
}

#[test]
fn every_file_prints_back_and_counts_agree() {
    let Some(files) = corpus() else { return };
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut equal = 0;
    for file in &files {
        let (ours, text) = (ours(file), text_of(file));
        let theirs = tally(&text, Reading::PLAIN);
        if ours == theirs {
            equal += 1;
            continue;
        }
        let reason = Reading::OTHERS.into_iter().find(|(reading, _)| tally(&text, *reading) == ours);
        let reason = reason.map_or("unexplained", |(_, reason)| reason);
        *reasons.entry(reason).or_default() += 1;
        println!("{}: by line {theirs}, we {ours}: {reason}", file.name);
    }
    println!("{} files print back, {equal} counts equal; the others: {reasons:?}", files.len());
    assert!(equal * 100 >= files.len() * EQUAL_COUNTS_PERCENT_MIN);
    assert_eq!(reasons.get("unexplained"), None);
}

#[test]
fn openspec_files_count_by_their_own_rule() {
    let Some(files) = corpus() else { return };
    let (mut all, mut equal, mut with_other_marks) = (0, 0, 0);
    for file in files.iter().filter(|file| file.path.contains("openspec/")) {
        let text = text_of(file);
        let ruled: Vec<bool> = text.lines().filter_map(openspec_rule).collect();
        let is_ruled = |mark: &str| matches!(mark.trim(), "" | "x" | "X");
        let document = parse(&text);
        let tasks = || document.blocks.iter().filter(|block| block.kind == BlockKind::Task);
        let known = tasks().filter(|task| is_ruled(&task.content.mark));
        let ours = Tally { tasks: known.clone().count(), done: known.filter(|task| task.is_done()).count() };
        let theirs = Tally { tasks: ruled.len(), done: ruled.iter().filter(|done| **done).count() };
        all += 1;
        with_other_marks += usize::from(tasks().any(|task| !is_ruled(&task.content.mark)));
        equal += usize::from(ours == theirs);
        if ours != theirs {
            println!("{}: OpenSpec's rule {theirs}, we {ours}", file.name);
        }
    }
    println!(
        "OpenSpec's rule: equal in {equal} of {all} files; {with_other_marks} have tasks with marks that the rule doesn't know"
    );
    assert!(equal * 100 >= all * EQUAL_COUNTS_PERCENT_MIN);
}

#[test]
fn dialects_beside_the_guess_that_came_with_the_files() {
    let Some(files) = corpus() else { return };
    let mut seen: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    let mut problems: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        let report = check(&file.bytes, Some(&file.path));
        seen.entry((file.guess.clone(), report.dialect.to_string())).or_default().push(&file.name);
        for problem in &report.problems {
            let name = format!("{problem:?}");
            *problems.entry(name.split([' ', '{']).next().unwrap().to_owned()).or_default() += 1;
        }
    }
    for ((guess, dialect), names) in &seen {
        println!("{guess:>18} -> {dialect:<16} {:>4}   {}", names.len(), names.first().unwrap());
    }
    println!("problems told: {problems:?}");
    let of = |guess: &str, dialect: &str| seen.get(&(guess.to_owned(), dialect.to_owned())).map_or(0, Vec::len);
    let all = |guess: &str| files.iter().filter(|file| file.guess == guess).count();
    assert_eq!(of("openspec", "openspec"), all("openspec"));
    assert_eq!(of("spec-kitty", "spec-kitty"), all("spec-kitty"));
}
