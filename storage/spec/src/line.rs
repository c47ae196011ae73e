//! What one line looks like, by itself: blank, heading, task, table row, fence, comment, list item or text.
//!
//! It knows nothing of the lines around it (that is `parse`), allocates nothing, and takes time linear in the line. A task is what people
//! write as one: any of the five list markers, any indentation, quote prefixes, and a mark: in brackets, or as a status emoji (`- ✅ text`), or as a
//! status word in capitals (`- TODO: text`). Rows of tables need their header to be told and are left to `parse`.

use crate::status;

/// Longest mark between the brackets of a task, in bytes: the longest status word in use (`IN PROGRESS`) and an emoji sequence fit.
pub(crate) const MARK_BYTES_MAX: usize = 16;

/// The shape of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Blank,
    Heading,
    /// Where the mark starts, and its length, both in bytes. A length of one byte keeps a million lines small.
    Task {
        start: usize,
        length: u8,
    },
    Table,
    Fence(Fence),
    /// Starts with `<!--`.
    Comment,
    /// A list item that is no task.
    Item,
    Text,
}

/// A line that opens or closes a code fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    /// The fence's character, a backtick or a tilde.
    pub symbol: u8,
    /// How many of them.
    pub length: usize,
    /// Nothing but blanks follows, so the line can close a fence.
    pub is_bare: bool,
}

/// The shape of `line`, given without its LF.
pub(crate) fn shape(line: &str) -> Shape {
    let start = prefix_bytes(line);
    let body = line.get(start..).unwrap_or_default();
    match body.as_bytes().first() {
        None => {
            if line.contains('>') {
                Shape::Text
            } else {
                Shape::Blank
            }
        }
        Some(b'#') if heading_level(body) > 0 && indent_columns(line) <= 3 => Shape::Heading,
        Some(b'|') => Shape::Table,
        Some(b'`' | b'~') => fence(body).map_or(Shape::Text, Shape::Fence),
        Some(b'<') if body.starts_with("<!--") => Shape::Comment,
        Some(b'-' | b'*' | b'+' | b'0'..=b'9') => list_item(line, start),
        Some(_) => Shape::Text,
    }
}

/// Columns of blanks before the first other character; a tab goes to the next multiple of four.
pub(crate) fn indent_columns(line: &str) -> usize {
    let mut columns = 0;
    for byte in line.bytes() {
        match byte {
            b' ' => columns += 1,
            b'\t' => columns += 4 - columns % 4,
            _ => break,
        }
    }
    columns
}

/// Number of `#` of an ATX heading, 0 when `body` is none.
pub(crate) fn heading_level(body: &str) -> usize {
    let level = body.bytes().take(7).take_while(|byte| *byte == b'#').count();
    let is_closed = matches!(body.as_bytes().get(level), None | Some(b' ' | b'\t' | b'\r' | b'\n'));
    if is_closed && level <= 6 { level } else { 0 }
}

/// Whether a line, or the start of one, belongs to a row of a pipe table.
pub(crate) fn is_row(line: &str) -> bool {
    line.as_bytes().get(prefix_bytes(line)) == Some(&b'|')
}

/// Bytes of blanks and quote signs that a line starts with.
fn prefix_bytes(line: &str) -> usize {
    let bytes = line.as_bytes();
    let ascii = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'>' | b'\r')).count();
    if bytes.get(ascii).is_none_or(u8::is_ascii_graphic) {
        return ascii;
    }
    line.find(|symbol: char| symbol != '>' && !symbol.is_whitespace()).unwrap_or(line.len())
}

/// Bytes of a list marker at the start of `body` (`-`, `*`, `+`, `1.`, `1)`), 0 when there is none.
fn marker_bytes(body: &str) -> usize {
    let bytes = body.as_bytes();
    if matches!(bytes.first(), Some(b'-' | b'*' | b'+')) {
        return 1;
    }
    let digits = bytes.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
    if (1..=9).contains(&digits) && matches!(bytes.get(digits), Some(b'.' | b')')) { digits + 1 } else { 0 }
}

fn list_item(line: &str, start: usize) -> Shape {
    let marker = marker_bytes(line.get(start..).unwrap_or_default());
    if marker == 0 {
        return Shape::Text;
    }
    let after_marker = line.get(start + marker..).unwrap_or_default();
    let body = after_marker.trim_start();
    let is_spaced = body.len() < after_marker.len();
    if body.starts_with('[') {
        let open = line.len() - body.len();
        if let Some(close) = mark_end(line, open, is_spaced) {
            return task(open + 1, close - open - 1);
        }
    }
    if !is_spaced && !body.is_empty() {
        return Shape::Text;
    }
    if let Some(start) = bare_mark_start(line, body) {
        let mark = line.get(start..).and_then(status::bullet_mark);
        if let Some(length) = mark {
            return task(start, length);
        }
    }
    fence(body).map_or(Shape::Item, Shape::Fence)
}

/// The shape of a task with its mark there.
pub(crate) fn task(start: usize, length: usize) -> Shape {
    u8::try_from(length).map_or(Shape::Item, |length| Shape::Task { start, length })
}

/// Offset at which the body of a bullet could have a mark without brackets; emphasis may stand around a word.
fn bare_mark_start(line: &str, body: &str) -> Option<usize> {
    match *body.as_bytes().first()? {
        b'A'..=b'Z' | 0x80.. => Some(line.len() - body.len()),
        b'*' | b'_' | b'`' => {
            let inside = body.trim_start_matches(['*', '_', '`']);
            inside.starts_with(|first: char| first.is_ascii_uppercase()).then(|| line.len() - inside.len())
        }
        _ => None,
    }
}

/// Offset of the bracket that closes a task's mark, when what stands from `open` is one.
fn mark_end(line: &str, open: usize, is_spaced: bool) -> Option<usize> {
    let inner = line.as_bytes().get(open + 1..)?;
    let length = inner.iter().take(MARK_BYTES_MAX + 1).position(|byte| *byte == b']')?;
    let close = open + 1 + length;
    let mark = line.get(open + 1..close)?;
    let after = line.get(close + 1..)?;
    is_mark(mark, after, is_spaced).then_some(close)
}

/// Whether `[mark]after` starts a task rather than a link, a reference or a legend.
fn is_mark(mark: &str, after: &str, is_spaced: bool) -> bool {
    let is_link = after.starts_with('(');
    let trimmed = mark.trim();
    let mut symbols = trimmed.chars();
    match (symbols.next(), symbols.next()) {
        (None, _) => !(mark.is_empty() && is_link),
        (Some('x' | 'X'), None) => true,
        (Some(symbol), None) => {
            is_spaced && symbol != '[' && !is_link && !after.starts_with(['[', ':']) && !is_legend(symbol, after)
        }
        (Some(first), Some(_)) => is_spaced && !is_link && !after.starts_with(':') && is_status(first, trimmed),
    }
}

/// `- [P] tasks = different files` explains a flag; it is no task. `[P]` is never a status in any dialect.
fn is_legend(symbol: char, after: &str) -> bool {
    symbol == 'P'
        || (symbol.is_ascii_alphabetic() && (after.trim_start().starts_with(['=', ':']) || after.contains(" = ")))
}

/// A mark of several characters: a status word, or an emoji with its modifiers.
fn is_status(first: char, mark: &str) -> bool {
    let is_picture = |symbol: char| !symbol.is_ascii() && !symbol.is_alphanumeric();
    (!first.is_ascii() && mark.chars().all(is_picture)) || status::is_bracket_word(mark)
}

fn fence(body: &str) -> Option<Fence> {
    let symbol = *body.as_bytes().first().filter(|byte| matches!(byte, b'`' | b'~'))?;
    let length = body.bytes().take_while(|byte| *byte == symbol).count();
    let info = body.get(length..)?;
    let is_inline = symbol == b'`' && info.contains('`');
    (length >= 3 && !is_inline).then(|| Fence { symbol, length, is_bare: info.trim().is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(lines: &[&str], expected: &Expect) {
        let describe = |line: &&str| match shape(line) {
            Shape::Task { start, length } => {
                let mark = line.get(start..start + usize::from(length)).unwrap_or_default();
                format!("{line:?} task {mark:?}\n")
            }
            other @ (Shape::Blank
            | Shape::Heading
            | Shape::Table
            | Shape::Fence(_)
            | Shape::Comment
            | Shape::Item
            | Shape::Text) => format!("{line:?} {other:?}\n"),
        };
        let seen: Vec<String> = lines.iter().map(describe).collect();
        expected.assert_eq(&seen.concat());
    }

    #[test]
    fn tasks_in_every_writing() {
        check(
            &[
                "- [ ] a",
                "* [x] a",
                "+ [X] a",
                "1. [ ] a",
                "12) [~] a",
                "\t\t- [-] a",
                "> - [ ] a",
                "\u{3000}- [ ] a",
                "-[ ] a",
                "- []",
                "- [ x] a",
                "- [TODO] a",
                "- [In Progress] a",
                "- [✔️] a",
                "- [⏳] a",
                "- [ ]* 2.1 a",
                "- [ ](link)",
                "- [x](link)",
                "- [TODO][P1] T-F001-01 a",
                "- [完了] a",
                "- ✅ a",
                "1. ⬜ a",
                "- TODO: a",
                "- **DONE**: a",
            ],
            &expect![[r#"
                "- [ ] a" task " "
                "* [x] a" task "x"
                "+ [X] a" task "X"
                "1. [ ] a" task " "
                "12) [~] a" task "~"
                "\t\t- [-] a" task "-"
                "> - [ ] a" task " "
                "\u{3000}- [ ] a" task " "
                "-[ ] a" task " "
                "- []" task ""
                "- [ x] a" task " x"
                "- [TODO] a" task "TODO"
                "- [In Progress] a" task "In Progress"
                "- [✔\u{fe0f}] a" task "✔\u{fe0f}"
                "- [⏳] a" task "⏳"
                "- [ ]* 2.1 a" task " "
                "- [ ](link)" task " "
                "- [x](link)" task "x"
                "- [TODO][P1] T-F001-01 a" task "TODO"
                "- [完了] a" task "完了"
                "- ✅ a" task "✅"
                "1. ⬜ a" task "⬜"
                "- TODO: a" task "TODO"
                "- **DONE**: a" task "DONE"
            "#]],
        );
    }

    #[test]
    fn what_only_resembles_a_task() {
        check(
            &[
                "- [A](url)",
                "- [](url)",
                "- [1]: http",
                "- [P] tasks = different files",
                "- [S] = small",
                "- [Story] label",
                "[ ] no marker",
                "1234567890. [ ] a",
                "-- [ ] a",
                "- [ ",
                "- [this is far too long for a mark] a",
                "- [漢字] a",
                "- ❌ a",
                "- ✅a",
                "- Done: a",
                "- TODO a",
                "-TODO: a",
            ],
            &expect![[r#"
                "- [A](url)" Item
                "- [](url)" Item
                "- [1]: http" Item
                "- [P] tasks = different files" Item
                "- [S] = small" Item
                "- [Story] label" Item
                "[ ] no marker" Text
                "1234567890. [ ] a" Text
                "-- [ ] a" Text
                "- [ " Item
                "- [this is far too long for a mark] a" Item
                "- [漢字] a" Item
                "- ❌ a" Item
                "- ✅a" Item
                "- Done: a" Item
                "- TODO a" Item
                "-TODO: a" Text
            "#]],
        );
    }

    #[test]
    fn other_shapes() {
        check(
            &[
                "",
                "  \t",
                "\r",
                "# a",
                "#tag",
                " ####### a",
                "    # a",
                "| a | b |",
                "```bash",
                "``` a ` b",
                "~~~~",
                "- ```sh",
                "<!-- a",
                "---",
                "a",
                ">",
                "- a",
                "-",
            ],
            &expect![[r##"
                "" Blank
                "  \t" Blank
                "\r" Blank
                "# a" Heading
                "#tag" Text
                " ####### a" Text
                "    # a" Text
                "| a | b |" Table
                "```bash" Fence(Fence { symbol: 96, length: 3, is_bare: false })
                "``` a ` b" Text
                "~~~~" Fence(Fence { symbol: 126, length: 4, is_bare: true })
                "- ```sh" Fence(Fence { symbol: 96, length: 3, is_bare: false })
                "<!-- a" Comment
                "---" Text
                "a" Text
                ">" Text
                "- a" Item
                "-" Item
            "##]],
        );
    }
}
