//! A count of tasks that shares nothing with the parser: each line by itself, by rules that fit on a page. Only a table needs the line of its
//! header. It counts inside fences and comments, as OpenSpec does, unless asked not to.

use std::fmt;

/// Tasks, and how many are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) tasks: usize,
    pub(crate) done: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.done, self.tasks)
    }
}

/// What is left out of a count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Lines from one code fence to the next.
    without_fences: bool,
    /// Lines from `<!--` to `-->`.
    without_comments: bool,
    /// Lines that explain a mark.
    without_legends: bool,
}

impl Reading {
    pub(crate) const PLAIN: Self = Self { without_fences: true, without_comments: false, without_legends: false };

    /// Other readings, with the reason that a file counts so with us.
    pub(crate) const OTHERS: [(Self, &'static str); 4] = [
        (Self { without_comments: true, ..Self::PLAIN }, "tasks inside a comment"),
        (Self { without_legends: true, ..Self::PLAIN }, "a line that explains a mark"),
        (Self { without_fences: false, ..Self::PLAIN }, "a stray fence doesn't hide the tasks after it"),
        (Self { without_comments: true, without_legends: true, without_fences: false }, "several of these"),
    ];
}

/// Counts a text.
pub(crate) fn tally(text: &str, reading: Reading) -> Tally {
    let lines: Vec<&str> = text.lines().collect();
    let (mut tally, mut is_fenced, mut is_comment) = (Tally::default(), false, false);
    let mut column = None;
    for (at, line) in lines.iter().enumerate() {
        let body = line.trim_start_matches(|one: char| one.is_whitespace() || one == '>');
        if body.trim_start_matches(['-', ' ']).starts_with("```") {
            is_fenced = !is_fenced;
        }
        is_comment |= body.starts_with("<!--");
        let is_left_out = (is_fenced && reading.without_fences)
            || (is_comment && reading.without_comments)
            || (body.contains(" = ") && reading.without_legends);
        is_comment &= !line.contains("-->");
        let is_rule = |line: &&str| line.contains("--") && line.chars().all(|one| "|-: \t>".contains(one));
        if !body.starts_with('|') {
            column = None;
        } else if lines.get(at + 1).is_some_and(is_rule) {
            column = status_column(body);
            continue;
        }
        let found = column.map_or_else(|| of_bullet(body), |column| of_row(body, column));
        if let Some(is_done) = found.filter(|_| !is_left_out) {
            tally.tasks += 1;
            tally.done += usize::from(is_done);
        }
    }
    tally
}

/// OpenSpec's rule for one line, `^\s*(?:[-*+]|\d{1,9}[.)])\s*\[([\sxX])\]`: whether it counts, and as done.
pub(crate) fn openspec_rule(line: &str) -> Option<bool> {
    let inside = after_marker(line.trim_start())?.trim_start().strip_prefix('[')?;
    let mark = inside.chars().next().filter(|mark| mark.is_whitespace() || matches!(mark, 'x' | 'X'))?;
    inside.get(mark.len_utf8()..)?.starts_with(']').then_some(!mark.is_whitespace())
}

fn after_marker(body: &str) -> Option<&str> {
    match body.bytes().take_while(u8::is_ascii_digit).count() {
        0 => body.strip_prefix(['-', '*', '+']),
        digits @ 1..=9 => body.get(digits..)?.strip_prefix(['.', ')']),
        _ => None,
    }
}

/// Words that open brackets, cells and lists with a status, and whether they mean done.
const WORDS: &[(&str, bool)] = &[
    ("to do", false),
    ("todo", false),
    ("pending", false),
    ("open", false),
    ("planned", false),
    ("not started", false),
    ("ready", false),
    ("in progress", false),
    ("doing", false),
    ("review", false),
    ("blocked", false),
    ("completed", true),
    ("complete", true),
    ("done", true),
    ("closed", true),
    ("merged", true),
    ("implemented", true),
    ("fixed", true),
];

fn word(text: &str) -> Option<bool> {
    let lower = text.to_lowercase();
    let (word, is_done) = WORDS.iter().find(|(word, _)| lower.starts_with(word))?;
    let rest = lower.get(word.len()..)?.trim_start_matches([' ', '*', '_', '`', '~']);
    (!rest.starts_with(char::is_alphanumeric) || rest.starts_with(|one: char| one.is_ascii_digit())).then_some(*is_done)
}

/// Whether a bullet is a task, and done.
fn of_bullet(body: &str) -> Option<bool> {
    let after = after_marker(body)?;
    let body = after.trim_start();
    let is_spaced = body.len() < after.len();
    if let Some((inside, rest)) = body.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        let mark = inside.trim();
        if mark.is_empty() || mark.eq_ignore_ascii_case("x") {
            return Some(!mark.is_empty()).filter(|_| !(inside.is_empty() && rest.starts_with('(')));
        }
        let is_sign = mark.chars().count() == 1 && !mark.chars().all(char::is_alphanumeric);
        let is_word = WORDS.iter().any(|(word, _)| *word == mark.to_lowercase());
        let is_task = is_spaced && (is_sign || is_word) && !rest.starts_with(['(', '[', ':']);
        return is_task.then(|| matches!(mark, "✅" | "✔" | "☑") || word(mark) == Some(true));
    }
    let sign = body.chars().next().filter(|_| is_spaced)?;
    let rest = body.get(sign.len_utf8()..)?.trim_start_matches('\u{fe0f}');
    match sign {
        '✅' | '☑' | '✔' => rest.starts_with(' ').then_some(true),
        '⬜' | '☐' | '🔲' | '⏳' | '🚧' => rest.starts_with(' ').then_some(false),
        _ => {
            let plain = body.trim_start_matches('*');
            let (head, _) = plain.split_once(':')?;
            let head = head.trim_end_matches('*');
            let is_capital = head.len() > 2 && head.chars().all(|one| one.is_ascii_uppercase() || one == ' ');
            (is_capital && word(head).is_some() && head.len() < 12).then(|| head == "DONE")
        }
    }
}

fn cells(row: &str) -> Vec<String> {
    let cells = row.replace("\\|", "/");
    cells.trim().trim_start_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The status column of a table that is neither a legend nor a summary.
fn status_column(header: &str) -> Option<usize> {
    let cells: Vec<String> =
        cells(header).iter().map(|cell| cell.trim_matches(['*', '`', ' ']).to_lowercase()).collect();
    let has = |names: &[&str]| cells.iter().any(|cell| names.contains(&cell.as_str()));
    let at = |names: &[&str]| cells.iter().position(|cell| names.contains(&cell.as_str()));
    let strong = at(&["status", "state", "状态", "상태", "状況", "статус", "estado"]);
    let is_summary = has(&["meaning", "total", "count", "数量"])
        || (strong.is_some() && has(&["completed"]))
        || (has(&["phase", "group", "section"]) && has(&["tasks"]));
    strong.or_else(|| at(&["done", "completed", "complete", "progress", "進捗"])).filter(|at| *at > 0 && !is_summary)
}

/// Whether a row of a table with a status column is a task, and done.
fn of_row(row: &str, column: usize) -> Option<bool> {
    let cells = cells(row);
    let cell = cells.get(column)?.trim_start_matches(['*', '_', '`', '~']);
    let first = cell.chars().next()?;
    let rest = cell.get(first.len_utf8()..)?.trim_start_matches(['\u{fe0f}', ' ']);
    match first {
        '✅' | '✔' | '✓' | '☑' => Some(word(rest).unwrap_or(true)),
        '⬜' | '☐' | '🔲' | '⏳' | '❌' | '🚧' | '🟡' | '🔄' | '🔍' | '⏸' | '🚫' | '⛔' => {
            Some(word(rest) == Some(true))
        }
        '[' => [(" ]", false), ("x]", true), ("X]", true)]
            .iter()
            .find(|(box_, _)| rest.starts_with(box_.trim_start()))
            .map(|(_, done)| *done),
        _ => word(cell),
    }
}
