//! Measures parse and print, and the diff and merge of one edit in a large file: `cargo run --release --example speed -p zyflow-spec`.

#![expect(
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a measurement reads the clock and reports; the library doesn't"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use zyflow_spec::{Document, Known, diff, merge3, parse};

const ROUNDS: u32 = 40;

/// Lines of the large file.
const LINES: usize = 10_000;

fn main() {
    let lines = |section: usize| {
        let task =
            |task| format!("- [ ] {section}.{task} Write part {task} of the durable log for section {section}\n");
        let tasks: Vec<String> = (1..9).map(task).collect();
        format!("## {section}. Section {section}\n\n{}\n", tasks.concat())
    };
    let sections: Vec<String> = (1..910).map(lines).collect();
    let text = format!("# Plan\n{}", sections.concat());
    assert_eq!(text.lines().count(), LINES);
    let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
    println!("{} lines, {bytes} bytes", text.lines().count());
    let rate = |time: Duration| f64::from(bytes) / 1e6 / time.as_secs_f64();
    // Giving the memory back is neither parsing nor printing; the second figure has it, too.
    let mut kept = None;
    let parsing = best_of(&mut kept, |kept| {
        let document = parse(black_box(&text));
        let printed = document.print();
        *kept = Some((document, printed));
    });
    let all = best(ROUNDS, || drop(black_box(parse(black_box(&text)).print())));
    println!("parse + print: {:.0} MB/s; with the memory given back: {:.0} MB/s", rate(parsing), rate(all));
    let base: Vec<Known<usize>> = known(parse(&text));
    let ticked = parse(&text.replacen("- [ ] 455.4", "- [x] 455.4", 1));
    report("diff of one tick", || drop(black_box(diff(&base, &ticked))));
    let both = parse(&text.replacen("- [ ] 3.4 Write", "- [x] 3.4 Read", 1).replacen(
        "- [ ] 900.4 Write",
        "- [ ] 900.4 Read",
        1,
    ));
    report("diff of two edits far apart", || drop(black_box(diff(&base, &both))));
    let other = known(parse(&text.replacen("- [ ] 700.4", "- [x] 700.4", 1)));
    report("merge of one tick", || drop(black_box(merge3(&base, &ticked, &other))));
    report("merge of two edits far apart", || drop(black_box(merge3(&base, &both, &other))));
    let rewritten = parse(&text.replace("Write part", "Compose piece").replace("durable", "lasting"));
    report("diff of a rewrite of every line", || drop(black_box(diff(&base, &rewritten))));
    let inserted = text.replacen("- [ ] 455.4", "- [ ] 455.0 A new task of a few words\n- [ ] 455.4", 1);
    report("diff of one inserted line", || drop(black_box(diff(&base, &parse(&inserted)))));
    let reworded = parse(&text.replacen("- [ ] 455.4 Write part", "- [ ] 455.4 Write the first part", 1));
    report("diff of one reworded line", || drop(black_box(diff(&base, &reworded))));
    let moved = moved(&text);
    report("diff of one section moved to the end", || drop(black_box(diff(&base, &moved))));
    let theirs = known(rewritten.clone());
    report("merge of one tick onto a rewrite", || drop(black_box(merge3(&base, &ticked, &theirs))));
    worst_cases();
}

fn moved(text: &str) -> Document {
    let start = text.find("## 300.").unwrap_or_default();
    let end = text.find("## 301.").unwrap_or_default();
    let (before, rest) = text.split_at(start);
    let (section, after) = rest.split_at(end - start);
    parse(&format!("{before}{after}{section}"))
}

/// Files that match everywhere, or nowhere, at half and at the full limit: twice the size may cost about twice the time.
fn worst_cases() {
    for unit in ["#\n", "\n", "a\n", "- [ ] a b c d\n", "- [ ] 1.1 the same id and words\n", "- [ ] {} of its own\n"] {
        let time = |bytes: usize| {
            let text = |offset: usize| -> String {
                let line = |at: usize| unit.replace("{}", &format!("number{}", at + offset));
                (0..bytes / unit.len().max(2)).map(line).collect()
            };
            let base = known(parse(&text(0)));
            let local = parse(&text(1 << 30).to_uppercase());
            let other = known(parse(&text(1 << 31)));
            (
                best(3, || drop(black_box(diff(&base, &local)))),
                best(3, || drop(black_box(merge3(&base, &local, &other)))),
            )
        };
        let (half, whole) = (time(1 << 19), time(1 << 20));
        let told = |half: Duration, whole: Duration| {
            let growth = whole.as_secs_f64() / half.as_secs_f64().max(f64::MIN_POSITIVE);
            format!("{:.0} ms ({growth:.1} times half of it)", whole.as_secs_f64() * 1e3)
        };
        println!("1 MiB of {unit:?} rewritten: diff {}, merge {}", told(half.0, whole.0), told(half.1, whole.1));
    }
}

fn known(document: Document) -> Vec<Known<usize>> {
    document.blocks.into_iter().enumerate().map(|(id, block)| Known { id, block }).collect()
}

/// The best time of a run whose result is dropped outside the time.
fn best_of<T>(kept: &mut Option<T>, run: impl Fn(&mut Option<T>)) -> Duration {
    let mut time = || {
        *kept = None;
        let start = Instant::now();
        run(kept);
        let time = start.elapsed();
        black_box(&*kept);
        time
    };
    (0..ROUNDS).map(|_| time()).min().unwrap_or_default()
}

fn best(rounds: u32, run: impl Fn()) -> Duration {
    let time = || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..rounds).map(|_| time()).min().unwrap_or_default()
}

fn report(what: &str, run: impl Fn()) {
    println!("{what}: {:.3} ms", best(ROUNDS, run).as_secs_f64() * 1e3);
}
