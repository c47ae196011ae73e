//! Measures how many tasks keep their identity through real histories, beside matching by text alone.
//!
//! `cargo run --release --example identity -p zyflow-spec -- FOLDER [--misses]`, where each folder of FOLDER holds the versions of one file
//! as `v001.md`, `v002.md`, ... Which task should survive is the opinion of [`oracle`]; `--misses` lists where the library differs.
//!
//! A task that the oracle pairs is kept when the library gives it the same partner. What the oracle takes for gone and new but the library
//! joins is a false join; it lists those too, since a wrong identity is worse than a lost one.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement reads files and reports")]

mod oracle;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use zyflow_spec::{Document, Known, align, decode, parse};

use crate::oracle::Letters;
use crate::task::{Task, tasks};

/// What happened to a task between two versions; a task may be in several.
const KINDS: [&str; 7] =
    ["all", "unchanged", "ticked, same text", "ticked, other text", "renumbered", "reworded", "moved"];

/// Kept identities by who matched: the library, the whole line, the words without the number.
#[derive(Default, Clone, Copy)]
struct Tally {
    pairs: usize,
    ours: usize,
    by_line: usize,
    by_title: usize,
}

#[derive(Default)]
struct Report {
    kinds: BTreeMap<&'static str, Tally>,
    /// Of the pairs of versions, those with at least one such task; ours loses none.
    versions: BTreeMap<&'static str, (usize, usize)>,
    lives: Tally,
    misses: Vec<String>,
    false_joins: Vec<String>,
    joins: usize,
    line_false_joins: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        println!("usage: identity FOLDER [--misses]");
        return;
    };
    let lists_misses = arguments.next().is_some_and(|flag| flag == "--misses");
    let mut report = Report::default();
    let files = children(Path::new(&folder));
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        replay(&name, &versions(file), &mut report);
    }
    print(&report, files.len());
    if lists_misses {
        println!("\nMisses\n{}\nFalse joins\n{}", report.misses.join("\n"), report.false_joins.join("\n"));
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn versions(folder: &Path) -> Vec<Document> {
    let is_version = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let texts = children(folder).into_iter().filter(is_version).filter_map(|path| std::fs::read(path).ok());
    texts.filter_map(|bytes| decode(&bytes).ok()).map(|(text, _)| parse(&text)).collect()
}

/// One task through all versions: whether each matcher has followed it so far.
struct Life {
    ours: bool,
    by_line: bool,
    by_title: bool,
}

fn replay(name: &str, versions: &[Document], report: &mut Report) {
    let mut lives: BTreeMap<usize, Life> = BTreeMap::new();
    for (number, pair) in versions.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        let (old, new) = (tasks(before), tasks(after));
        let truth = oracle::assign(&old, &new);
        let ours = by_library(before, after, &old, &new);
        let by_line = by_text(&old, &new, |task| &task.line);
        let by_title = by_text(&old, &new, |task| &task.title);
        let moved = moved(&old, &new, &truth);
        let mut next_lives = BTreeMap::new();
        let mut seen: BTreeMap<&str, bool> = BTreeMap::new();
        for (at, partner) in truth.iter().enumerate() {
            let life = lives.remove(&at).unwrap_or(Life { ours: true, by_line: true, by_title: true });
            let Some(partner) = *partner else {
                report.lives.end(&life);
                continue;
            };
            let is = |matched: &[Option<usize>]| matched[at] == Some(partner);
            let kept = Life { ours: is(&ours), by_line: is(&by_line), by_title: is(&by_title) };
            for kind in kinds(&old[at], &new[partner], moved.contains(&at)) {
                report.kinds.entry(kind).or_default().end(&kept);
                let all = seen.entry(kind).or_insert(true);
                *all &= kept.ours;
            }
            let place = format!("{name} v{:03}", number + 1);
            if !kept.ours {
                report.misses.push(miss(&place, &old[at], &new, partner, ours[at]));
            }
            next_lives.insert(
                partner,
                Life {
                    ours: life.ours && kept.ours,
                    by_line: life.by_line && kept.by_line,
                    by_title: life.by_title && kept.by_title,
                },
            );
        }
        for (kind, is_all) in seen {
            let count = report.versions.entry(kind).or_default();
            count.0 += 1;
            count.1 += usize::from(is_all);
        }
        false_joins(&format!("{name} v{:03}", number + 1), (&old, &new), &truth, &ours, report);
        report.line_false_joins +=
            by_line.iter().zip(&truth).filter(|(one, two)| one.is_some() && two.is_none()).count();
        lives = next_lives;
    }
    for life in lives.values() {
        report.lives.end(life);
    }
}

impl Tally {
    fn end(&mut self, kept: &Life) {
        self.pairs += 1;
        self.ours += usize::from(kept.ours);
        self.by_line += usize::from(kept.by_line);
        self.by_title += usize::from(kept.by_title);
    }
}

/// For each old task the new one, as the library has it.
fn by_library(before: &Document, after: &Document, old: &[Task], new: &[Task]) -> Vec<Option<usize>> {
    let known: Vec<Known<usize>> =
        before.blocks.iter().enumerate().map(|(id, block)| Known { id, block: block.clone() }).collect();
    let ids = align(&known, after);
    let new_of_block: BTreeMap<usize, usize> =
        new.iter().enumerate().filter_map(|(at, task)| Some((ids[task.block]?, at))).collect();
    old.iter().map(|task| new_of_block.get(&task.block).copied()).collect()
}

/// The usual way: equal texts are one task, the n-th to the n-th.
fn by_text(old: &[Task], new: &[Task], text: impl Fn(&Task) -> &String) -> Vec<Option<usize>> {
    let mut places: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for (at, task) in new.iter().enumerate().rev() {
        places.entry(text(task)).or_default().push(at);
    }
    old.iter().map(|task| places.get_mut(text(task)).and_then(Vec::pop)).collect()
}

/// Old tasks that stand elsewhere: under another heading, or not in one of the longest runs in order.
fn moved(old: &[Task], new: &[Task], truth: &[Option<usize>]) -> BTreeSet<usize> {
    let pairs: Vec<(usize, usize)> = truth.iter().enumerate().filter_map(|(at, new)| Some((at, (*new)?))).collect();
    // length of the longest run that ends with each pair, and the pair before it
    let mut best: Vec<(usize, Option<usize>)> = Vec::new();
    for (at, (_, place)) in pairs.iter().enumerate() {
        let before = (0..at).filter(|other| pairs[*other].1 < *place).max_by_key(|other| best[*other].0);
        best.push((before.map_or(1, |before| best[before].0 + 1), before));
    }
    let mut run = BTreeSet::new();
    let mut last = (0..pairs.len()).max_by_key(|at| best[*at].0);
    while let Some(at) = last {
        run.insert(at);
        last = best[at].1;
    }
    let is_moved = |at: usize, (one, two): (usize, usize)| !run.contains(&at) || old[one].heading != new[two].heading;
    pairs.iter().enumerate().filter(|(at, pair)| is_moved(*at, **pair)).map(|(_, pair)| pair.0).collect()
}

fn kinds(old: &Task, new: &Task, is_moved: bool) -> Vec<&'static str> {
    let is_same_text = old.exact == new.exact;
    let is_ticked = old.is_done != new.is_done;
    let is_renumbered = old.id.is_some() && new.id.is_some() && old.id != new.id;
    let mut kinds = vec!["all"];
    let mut add = |is_so: bool, kind| {
        if is_so {
            kinds.push(kind);
        }
    };
    add(is_same_text && !is_ticked && !is_moved, "unchanged");
    add(is_ticked && is_same_text, "ticked, same text");
    add(is_ticked && !is_same_text, "ticked, other text");
    add(is_renumbered, "renumbered");
    add(old.title != new.title, "reworded");
    add(is_moved, "moved");
    kinds
}

fn miss(place: &str, old: &Task, new: &[Task], partner: usize, ours: Option<usize>) -> String {
    let alike = Letters::of(&old.title).alike(&Letters::of(&new[partner].title));
    let (reason, ours) = match ours {
        None if old.line == new[partner].line => ("equal line left alone", String::new()),
        None => ("left alone", String::new()),
        Some(ours) if new[ours].line == new[partner].line => ("joined with its twin", String::new()),
        Some(ours) => ("joined with another", format!("\n    ours {}", new[ours].exact.trim_end())),
    };
    let old = old.exact.trim_end();
    format!("{place}: {reason}, {alike} alike\n    old  {old}\n    new  {}{ours}", new[partner].exact.trim_end())
}

/// What the library joins and the oracle doesn't pair at all.
fn false_joins(
    place: &str,
    (old, new): (&[Task], &[Task]),
    truth: &[Option<usize>],
    ours: &[Option<usize>],
    report: &mut Report,
) {
    for (at, partner) in ours.iter().enumerate() {
        let Some(partner) = *partner else { continue };
        report.joins += 1;
        if truth[at].is_none() {
            let alike = Letters::of(&old[at].title).alike(&Letters::of(&new[partner].title));
            let id = if old[at].id.is_some() && old[at].id == new[partner].id { "same number" } else { "other number" };
            report.false_joins.push(format!(
                "{place}: {alike} alike, {id}\n    old  {}\n    new  {}",
                old[at].exact.trim_end(),
                new[partner].exact.trim_end()
            ));
        }
    }
}

fn print(report: &Report, files: usize) {
    println!("{files} files. Tasks that should survive from one version to the next, and the share that does:\n");
    println!(
        "| what happened to the task | tasks | identity kept | by text of the line | by words without the number |"
    );
    println!("|---|---|---|---|---|");
    let row = |what: &str, tally: &Tally| {
        let share = |kept| percent(kept, tally.pairs);
        let (ours, line, title) = (share(tally.ours), share(tally.by_line), share(tally.by_title));
        println!("| {what} | {} | {ours} | {line} | {title} |", tally.pairs);
    };
    for kind in KINDS {
        row(kind, report.kinds.get(kind).unwrap_or(&Tally::default()));
    }
    row("whole lives, first version to last", &report.lives);
    println!("\n| pairs of versions with such a task | pairs | no identity lost |\n|---|---|---|");
    for kind in KINDS {
        let (pairs, kept) = report.versions.get(kind).copied().unwrap_or_default();
        println!("| {kind} | {pairs} | {} |", percent(kept, pairs));
    }
    println!(
        "\n{} misses; {} of {} joins are of tasks that the oracle holds for gone and new (by text of the line: {})",
        report.misses.len(),
        report.false_joins.len(),
        report.joins,
        report.line_false_joins
    );
}

/// With two digits behind the point, rounded down, so that 100% is all of them.
fn percent(part: usize, whole: usize) -> String {
    match (part * 10_000).checked_div(whole) {
        Some(share) => format!("{}.{:02}%", share / 100, share % 100),
        None => "-".to_owned(),
    }
}
