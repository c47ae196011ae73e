//! Reads the explicit id and the title out of the text of a task or heading.
//!
//! Ids are what people write: `1.2`, `3.`, `T012`, `CHK001`, `T-F001-01`, `#4`, `Phase 2`. It is a guess that serves matching and
//! display; a wrong guess costs a worse match, never text. Nothing here changes a text.

use crate::block::{Block, BlockKind, MarkPlace};
use crate::table;

/// Longest explicit id, in bytes. The longest scheme seen is about 20 (`SPEC-AUTH-001-T12`).
const ID_BYTES_MAX: usize = 32;

/// A task whose id has a single digit is believed only with one of these prefixes, since `S3`, `E2` or `UTF-8` are ordinary words.
const SHORT_CODE_PREFIXES: &[&str] = &["T", "TASK", "WP", "US", "AC", "FR", "REQ", "BUG"];

/// Words that make an id together with the number after them.
const NUMBERED_WORDS: &[&str] =
    &["Phase", "Task", "Step", "Milestone", "Stage", "Part", "Section", "Story", "Epic", "Sprint", "Week"];

/// The two parts of a block's wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    pub id: Option<&'a str>,
    pub title: &'a str,
}

/// Splits the wording of a block; only tasks and headings have ids.
pub(crate) fn split(block: &Block) -> Named<'_> {
    let text = &block.content.text;
    match block.kind {
        BlockKind::Task => match block.mark_place() {
            Some(MarkPlace::Cell) => split_row(&block.content.lead, text),
            Some(MarkPlace::Brackets) => split_wording(text.strip_prefix(']').unwrap_or(text)),
            Some(MarkPlace::Bare) | None => {
                split_wording(text.trim_start_matches(['*', '_', '`']).trim_start_matches(':'))
            }
        },
        BlockKind::Heading => split_wording(text.trim_start_matches([' ', '\t', '>']).trim_start_matches('#')),
        BlockKind::Prose
        | BlockKind::Blank
        | BlockKind::Fence
        | BlockKind::FrontMatter
        | BlockKind::Comment
        | BlockKind::Table => Named { id: None, title: text.trim() },
    }
}

/// The wording of a row whose status cell lies between `lead` and `text`: a cell that is nothing but an id, then the first cell with words.
fn split_row<'a>(lead: &'a str, text: &'a str) -> Named<'a> {
    let before_status = lead.rfind('|').and_then(|end| lead.get(..end)).unwrap_or_default();
    let cell = |row: &'a str, (start, end): (usize, usize)| row.get(start..end).unwrap_or_default();
    let before = table::cells(before_status).map(|range| cell(before_status, range));
    let mut cells = before.chain(table::cells(text).map(|range| cell(text, range))).filter(|cell| !cell.is_empty());
    let Some(first) = cells.next() else { return Named { id: None, title: "" } };
    match whole_id(first) {
        Some(id) => Named { id: Some(id), title: cells.next().unwrap_or(first) },
        None => split_wording(first),
    }
}

/// The id that a cell consists of; in a cell of its own also a bare number is one.
fn whole_id(cell: &str) -> Option<&str> {
    let plain = cell.trim_matches(['*', '`', '_', '~', ' ', '[', ']']);
    let is_id = reference(plain).is_some_and(|length| length == plain.len());
    is_id.then_some(plain)
}

/// Bytes of the id that `text` begins with where an id is meant to stand: in a cell for ids, or after "depends on". There a bare number is one.
pub(crate) fn reference(text: &str) -> Option<usize> {
    let token = token(text);
    // A range names more tasks than its ends.
    if token.contains("..") {
        return None;
    }
    let number = token.strip_prefix('#').unwrap_or(token);
    if is_dotted_number(number) && ends_reference(text.get(token.len()..)?) {
        return Some(token.len());
    }
    let length = id_bytes(text).or_else(|| is_code_id(token).then_some(token.len()))?;
    ends_reference(text.get(length..)?).then_some(length)
}

fn ends_reference(after: &str) -> bool {
    after.chars().next().is_none_or(|next| !next.is_alphanumeric())
}

fn split_wording(wording: &str) -> Named<'_> {
    let optional = wording.strip_prefix('*').filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(wording);
    let plain = optional.trim();
    let direct = split_id(plain);
    if direct.is_some() {
        return direct.unwrap_or(Named { id: None, title: plain });
    }
    let flag_end = plain.strip_prefix('[').and_then(|rest| rest.find(']')).filter(|end| *end <= 8);
    let after_flag = flag_end.and_then(|end| plain.get(end + 2..)).and_then(split_id);
    after_flag.unwrap_or(Named { id: None, title: plain })
}

fn split_id(plain: &str) -> Option<Named<'_>> {
    let start = plain.trim_start_matches(['*', '`', '_', '~', ' ', '\t', '[']);
    let length = id_bytes(start)?;
    let id = start.get(..length)?;
    let rest = start.get(length..)?;
    let title = rest.trim_start_matches(|symbol: char| {
        matches!(symbol, '*' | '`' | '_' | '~' | '.' | ':' | ')' | ']') || symbol.is_whitespace()
    });
    Some(Named { id: Some(id), title: if title.is_empty() { plain } else { title } })
}

/// Length of the id that `start` begins with.
fn id_bytes(start: &str) -> Option<usize> {
    let token = token(start);
    if NUMBERED_WORDS.iter().any(|word| word.eq_ignore_ascii_case(token)) {
        let number = start.get(token.len()..)?.trim_start();
        let at = start.len() - number.len();
        let digits = self::token(number);
        return (is_dotted_number(digits) && ends_id(number.get(digits.len()..)?)).then(|| at + digits.len());
    }
    let after = start.get(token.len()..)?;
    let is_id = ends_id(after) && (is_number_id(token, after) || is_code_id(token));
    is_id.then_some(token.len())
}

/// The run of id characters at the start, without trailing punctuation; empty when it is too long for an id.
fn token(start: &str) -> &str {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'#');
    let length = start.as_bytes().iter().take(ID_BYTES_MAX + 1).take_while(|byte| is_part(byte)).count();
    if length > ID_BYTES_MAX {
        return "";
    }
    start.get(..length).unwrap_or_default().trim_end_matches(['.', '-', '_'])
}

fn ends_id(after: &str) -> bool {
    after
        .chars()
        .next()
        .is_none_or(|symbol| matches!(symbol, '.' | ':' | ')' | ']' | '*' | '`' | '_' | '~') || symbol.is_whitespace())
}

fn is_dotted_number(token: &str) -> bool {
    let digits = token.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(token);
    !digits.is_empty()
        && digits.split('.').all(|part| (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `1.2`, `#4`, or `3` with a closing dot, bracket or colon; a bare `3` is the start of a sentence.
fn is_number_id(token: &str, after: &str) -> bool {
    match token.strip_prefix('#') {
        Some(number) => is_dotted_number(number),
        None => is_dotted_number(token) && (token.contains('.') || after.starts_with(['.', ')', ':'])),
    }
}

/// Capitals and digits, with at least two digits at the end (`T012`, `T-F001-01`) or a well-known prefix (`WP1`).
fn is_code_id(token: &str) -> bool {
    let is_code = token
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.'));
    let stem = token.trim_end_matches(|last: char| last.is_ascii_digit());
    let digits = token.len() - stem.len();
    let prefix = stem.trim_end_matches('-');
    is_code
        && token.starts_with(|first: char| first.is_ascii_uppercase())
        && (digits >= 2 || (digits == 1 && SHORT_CODE_PREFIXES.contains(&prefix)) || is_long_code(token))
}

/// A well-known prefix with a dotted number (`T1.2`) or with a word behind the number (`T-001-RED`).
fn is_long_code(token: &str) -> bool {
    let letters = token.bytes().take_while(u8::is_ascii_uppercase).count();
    let is_known = token.get(..letters).is_some_and(|prefix| SHORT_CODE_PREFIXES.contains(&prefix));
    let number = token.get(letters..).unwrap_or_default().trim_start_matches('-');
    let (digits, word) = number.split_once('-').unwrap_or((number, ""));
    is_known && is_dotted_number(digits) && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use crate::parse;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: &Expect) {
        let seen: Vec<String> =
            parse(text).blocks.iter().map(|block| format!("{:?} {:?}\n", block.explicit_id(), block.title())).collect();
        expected.assert_eq(&seen.concat());
    }

    #[test]
    fn ids_of_tasks() {
        check(
            "- [ ] 1.1 one\n- [ ] 2. two\n- [x] 2.1. three\n- [ ] T012 [P] [US1] four\n- [ ]* 2.1 five\n- [TODO][P1] T-F001-01 six\n- [ ] **3.1** seven\n- [ ] #4 eight\n- [ ] **T001**: nine\n- [ ] Task 1.2: ten\n- [ ] CHK001\n- [ ] T1.2 eleven\n- [ ] T-001-RED: twelve\n",
            &expect![[r##"
                Some("1.1") "one"
                Some("2") "two"
                Some("2.1") "three"
                Some("T012") "[P] [US1] four"
                Some("2.1") "five"
                Some("T-F001-01") "six"
                Some("3.1") "seven"
                Some("#4") "eight"
                Some("T001") "nine"
                Some("Task 1.2") "ten"
                Some("CHK001") "CHK001"
                Some("T1.2") "eleven"
                Some("T-001-RED") "twelve"
            "##]],
        );
    }

    #[test]
    fn ids_of_rows_and_of_bullets_without_brackets() {
        check(
            "| ID | Task | Status |\n|---|---|---|\n| 1 | Types | ✅ |\n| **T002** | Writer | Done |\n| Phase 3 | Reader | [ ] |\n| 1. Base | x | Todo |\n| Plain words | y | Todo |\n| | | Todo |\n\n| Status | ID | Task |\n|---|---|---|\n| Done | T1 | Types |\n\n- ✅ 1.2 done\n- **TODO**: T003 write\n- TODO: plain\n",
            &expect![[r#"
                None "| ID | Task | Status |"
                None "|---|---|---|"
                Some("1") "Types"
                Some("T002") "Writer"
                Some("Phase 3") "Reader"
                Some("1") "Base"
                None "Plain words"
                None ""
                None ""
                None "| Status | ID | Task |"
                None "|---|---|---|"
                Some("T1") "Types"
                None ""
                Some("1.2") "done"
                Some("T003") "write"
                None "plain"
            "#]],
        );
    }

    #[test]
    fn ordinary_words_are_no_ids() {
        check(
            "- [ ] 3 retries for the client\n- [ ] S3 bucket\n- [ ] UTF-8 names\n- [ ] 2026-01-02 release\n- [ ] plain\n- [ ]\n- [ ] [P] flagged\n- bullet 1.1\n",
            &expect![[r#"
                None "3 retries for the client"
                None "S3 bucket"
                None "UTF-8 names"
                None "2026-01-02 release"
                None "plain"
                None ""
                None "[P] flagged"
                None "- bullet 1.1"
            "#]],
        );
    }

    #[test]
    fn ids_of_headings() {
        check(
            "## 1. Setup\n### 1.2 Deep\n## Phase 3: User story\n# Tasks\n## WP01 - Base\n#\n",
            &expect![[r##"
                Some("1") "Setup"
                Some("1.2") "Deep"
                Some("Phase 3") "User story"
                None "Tasks"
                Some("WP01") "- Base"
                None ""
            "##]],
        );
    }
}
