//! Rows of pipe tables: where their cells are, and which of them holds a status.
//!
//! It looks at one row at a time and doesn't know alignment or rendering. A backslash escapes a pipe, as in the tables of GitHub.

use crate::status;

/// Columns of a table that are looked at; a wider table has no status column after that.
const COLUMNS_MAX: usize = 64;

/// Names of columns that hold a status, in lower case, the more telling first: a table may have "Completed" for a count beside "Status".
const STATUS_HEADERS: &[&str] = &[
    "status",
    "state",
    "ステータス",
    "状態",
    "状況",
    "状态",
    "狀態",
    "상태",
    "진행 상태",
    "estado",
    "statut",
    "état",
    "stato",
    "zustand",
    "статус",
    "состояние",
    "trạng thái",
    "الحالة",
    "done",
    "done?",
    "completed",
    "complete",
    "progress",
    "進捗",
    "进度",
    "진행",
];

/// Names of columns that explain statuses or count tasks: such a table is a legend or a summary, and its rows are no tasks.
const SUMMARY_HEADERS: &[&str] = &[
    "meaning",
    "definition",
    "legend",
    "count",
    "total",
    "completed",
    "total tasks",
    "task count",
    "意味",
    "件数",
    "合計",
    "含义",
    "数量",
    "总数",
    "의미",
    "개수",
    "합계",
    "значение",
    "всего",
    "significado",
];

/// What groups tasks. Beside one of these, "Tasks" is a count.
const GROUP_HEADERS: &[&str] = &["phase", "group", "section", "milestone", "wave", "epic", "category"];

/// Signs around the words of a cell.
const EMPHASIS: &[char] = &['*', '_', '`', '~'];

/// Byte ranges of the cells of a row, without the blanks around their text. What stands before the first pipe is no cell.
pub(crate) fn cells(row: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let first = row.find('|').map_or(row.len(), |at| at + 1);
    let mut start = Some(first).filter(|start| *start < row.len());
    std::iter::from_fn(move || {
        let from = start?;
        let end = pipe(row, from);
        start = end.map(|end| end + 1);
        let cell = row.get(from..end.unwrap_or(row.len()))?;
        // After the last pipe there is only a cell when something stands in it.
        if end.is_none() && cell.trim().is_empty() {
            return None;
        }
        let lead = cell.len() - cell.trim_start().len();
        Some((from + lead, from + lead + cell.trim().len()))
    })
}

/// The column of the cell in which a row goes on after `lead`.
pub(crate) fn column_at(lead: &str) -> usize {
    let pipes = std::iter::successors(pipe(lead, 0), |at| pipe(lead, at + 1)).count();
    pipes.saturating_sub(1)
}

/// The first pipe at or after `from` that isn't escaped.
fn pipe(row: &str, from: usize) -> Option<usize> {
    let bytes = row.as_bytes();
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| matches!(byte, b'|' | b'\\'))?;
        if bytes.get(at) == Some(&b'|') {
            return Some(at);
        }
        at += 2;
    }
}

/// Whether a row separates the header from the rest: `|---|:--:|`.
pub(crate) fn is_separator(row: &str) -> bool {
    let body = row.trim_matches(|symbol: char| symbol.is_whitespace() || symbol == '>');
    body.contains('-') && body.bytes().all(|byte| matches!(byte, b'|' | b'-' | b':' | b' ' | b'\t'))
}

/// The names in a header row, in lower case and without emphasis.
pub(crate) fn header_names(header: &str) -> Vec<String> {
    let name = |(start, end)| header.get(start..end).unwrap_or_default().trim_matches(EMPHASIS).trim().to_lowercase();
    cells(header).take(COLUMNS_MAX).map(name).collect()
}

/// The column of a header that names a status. None in a legend (its first column of two is the status) and in a summary.
pub(crate) fn status_column(header: &str) -> Option<usize> {
    let names = header_names(header);
    let at = |known: &&str| names.iter().position(|name| name == known);
    let column = STATUS_HEADERS.iter().find_map(at)?;
    let others = || names.iter().enumerate().filter(|(at, _)| *at != column).map(|(_, name)| name.as_str());
    let is_group = others().any(|name| GROUP_HEADERS.contains(&name));
    let is_summary = others().any(|name| SUMMARY_HEADERS.contains(&name) || (is_group && name == "tasks"));
    let is_legend = column == 0 && names.len() < 3;
    (!is_summary && !is_legend && names.len() > 1).then_some(column)
}

/// Byte range of the status in a row's cell, when it begins with one: a known word or emoji, or a checkbox (then what stands in it).
pub(crate) fn status_in(row: &str, column: usize) -> Option<(usize, usize)> {
    let (start, end) = cells(row).nth(column)?;
    let cell = row.get(start..end)?;
    let body = cell.trim_start_matches(EMPHASIS);
    let at = start + cell.len() - body.len();
    if let Some(inside) = body.strip_prefix('[') {
        let mark = inside
            .chars()
            .next()
            .filter(|mark| *mark == ' ' || mark.is_ascii_punctuation() || matches!(mark, 'x' | 'X'))?;
        let is_closed = mark != ']' && inside.get(mark.len_utf8()..)?.starts_with(']');
        return is_closed.then(|| (at + 1, at + 1 + mark.len_utf8()));
    }
    let (length, _) = status::leading(body)?;
    Some((at, at + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(row: &str) -> Vec<&str> {
        cells(row).map(|(start, end)| row.get(start..end).unwrap_or_default()).collect()
    }

    #[test]
    fn cells_are_cut_at_pipes_that_are_not_escaped() {
        assert_eq!(texts("| a | b |\n"), ["a", "b"]);
        assert_eq!(texts("> |a|b"), ["a", "b"]);
        assert_eq!(texts(r"| a \| b | |"), [r"a \| b", ""]);
        assert_eq!(texts("|"), Vec::<&str>::new());
        assert_eq!(texts(r"|\"), [r"\"]);
    }

    #[test]
    fn headers_name_a_status_column_or_explain_statuses() {
        for (header, column) in [
            ("| ID | Task | Status |", Some(2)),
            ("| Task | **Status** | Owner |", Some(1)),
            ("| 任务 | 状态 |", Some(1)),
            ("| Status | Meaning |", None),
            ("| Status | Task | Owner |", Some(0)),
            ("| Status | Work | Count |", None),
            ("| Status |", None),
            ("| Phase | Tasks | Status |", None),
            ("| Phase | Status | Completed | Total |", None),
            ("| Task | Completed | Notes |", Some(1)),
            ("| Task | Progress | Status |", Some(2)),
            ("| Task | Current state |", None),
        ] {
            assert_eq!(status_column(header), column, "{header}");
        }
    }

    #[test]
    fn rows_hold_a_status_or_not() {
        for (row, mark) in [
            ("| 1 | Types | ✅ |", Some("✅")),
            ("| 1 | Types | **Done** |", Some("Done")),
            ("| 1 | Types | [x] |", Some("x")),
            ("| 1 | Types | [ ] |", Some(" ")),
            ("| 1 | Types | [D] |", None),
            ("| 1 | Types | 5/6 |", None),
            ("| 1 | Types |", None),
            ("| 1 | Types | []] |", None),
        ] {
            let seen = status_in(row, 2).and_then(|(start, end)| row.get(start..end));
            assert_eq!(seen, mark, "{row}");
        }
    }
}
