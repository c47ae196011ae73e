//! One renderer: a table for people, JSON for programs, JSON lines for pipes.
//!
//! A list is `{"revision": R, "items": [...]}` in JSON (a bare array where it is true at no revision), an item a line in JSON
//! lines. One thing is an object, with its revision as a member. A table shows chosen columns, cut to one line each.

use super::args::Format;
use super::report::Output;
use serde_json::{Value, json};
use std::fmt::Write;
use zyflow_machine::id::Revision;

/// Widest cell of a table but for the last column, in characters.
const CELL_CHARS_MAX: usize = 60;

/// What goes to stdout, line ends included.
pub(super) fn render(output: &Output, format: Format) -> Vec<u8> {
    match (output, format) {
        (Output::Nothing, _) => Vec::new(),
        (Output::Text { text, .. }, Format::Table) => text.clone(),
        (Output::Text { value, .. }, Format::Json | Format::Jsonl) => line(value),
        (Output::List { columns, items, revision }, Format::Table) => table(columns, items, *revision).into_bytes(),
        (Output::List { items, revision, .. }, Format::Json) => match revision {
            Some(revision) => line(&json!({ "revision": revision.0, "items": items })),
            None => line(&json!(items)),
        },
        (Output::List { items, .. }, Format::Jsonl) => items.iter().flat_map(line).collect(),
        (Output::One { item, revision }, Format::Table) => fields(item, *revision).into_bytes(),
        (Output::One { item, revision }, Format::Json | Format::Jsonl) => line(&with_revision(item, *revision)),
    }
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn with_revision(item: &Value, revision: Option<Revision>) -> Value {
    let mut item = item.clone();
    if let (Some(members), Some(revision)) = (item.as_object_mut(), revision) {
        members.insert("revision".to_owned(), revision.0.into());
    }
    item
}

/// Chosen columns of things, a line each.
pub(super) fn table(columns: &[&str], items: &[Value], revision: Option<Revision>) -> String {
    let header: Vec<String> = columns.iter().map(|column| column.to_uppercase().replace('_', " ")).collect();
    let cells = |item: &Value| columns.iter().map(|column| cell(&item[*column])).collect::<Vec<_>>();
    let mut rows = vec![header];
    rows.extend(items.iter().map(cells));
    let last = columns.len().saturating_sub(1);
    for row in &mut rows {
        row.iter_mut().take(last).for_each(|cell| *cell = cut(cell));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string can't fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    if let Some(revision) = revision {
        let _ = writeln!(out, "({} at revision {revision})", items.len());
    }
    out
}

fn fields(item: &Value, revision: Option<Revision>) -> String {
    let item = with_revision(item, revision);
    let Some(members) = item.as_object() else { return format!("{}\n", cell(&item)) };
    let width = members.keys().map(String::len).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in members {
        let _ = writeln!(out, "{}", format!("{name:<width$}  {}", cell(value)).trim_end());
    }
    out
}

/// One value on one line.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    };
    // A terminal must not be steered by the text of a task.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Bytes as two digits each.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn cut(text: &str) -> String {
    if text.chars().count() <= CELL_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn list() -> Output {
        let items = vec![
            json!({ "id": "12.3", "status": "todo", "labels": ["a", "b"], "title": "Write it", "hidden": 1 }),
            json!({ "id": "7.1", "status": "in-progress", "labels": [], "title": "two\u{1b}[31m\nlines", "due": null }),
        ];
        Output::List { columns: &["id", "status", "labels", "title"], items, revision: Some(Revision(40)) }
    }

    fn check(output: &Output, format: Format, expected: &Expect) {
        expected.assert_eq(&String::from_utf8(render(output, format)).unwrap());
    }

    #[test]
    fn lists() {
        check(
            &list(),
            Format::Table,
            &expect![[r"
            ID    STATUS       LABELS  TITLE
            12.3  todo         a, b    Write it
            7.1   in-progress          two [31m lines
            (2 at revision 40)
        "]],
        );
        check(
            &list(),
            Format::Json,
            &expect![[r#"
            {"items":[{"hidden":1,"id":"12.3","labels":["a","b"],"status":"todo","title":"Write it"},{"due":null,"id":"7.1","labels":[],"status":"in-progress","title":"two\u001b[31m\nlines"}],"revision":40}
        "#]],
        );
        check(
            &list(),
            Format::Jsonl,
            &expect![[r#"
            {"hidden":1,"id":"12.3","labels":["a","b"],"status":"todo","title":"Write it"}
            {"due":null,"id":"7.1","labels":[],"status":"in-progress","title":"two\u001b[31m\nlines"}
        "#]],
        );
        let bare = Output::List { columns: &["id"], items: vec![], revision: None };
        check(
            &bare,
            Format::Json,
            &expect![[r"
            []
        "]],
        );
    }

    #[test]
    fn one_thing() {
        let one = Output::One { item: json!({ "id": "12.3", "note": null }), revision: Some(Revision(7)) };
        check(
            &one,
            Format::Table,
            &expect![[r"
            id        12.3
            note
            revision  7
        "]],
        );
        check(
            &one,
            Format::Json,
            &expect![[r#"
            {"id":"12.3","note":null,"revision":7}
        "#]],
        );
    }

    #[test]
    fn text_is_printed_as_it_is() {
        let text = Output::Text { text: b"- [ ] a\r\n".to_vec(), value: json!({ "text": "- [ ] a\r\n" }) };
        check(&text, Format::Table, &expect!["- [ ] a\r\n"]);
        check(
            &text,
            Format::Json,
            &expect![[r#"
            {"text":"- [ ] a\r\n"}
        "#]],
        );
        assert!(render(&Output::Nothing, Format::Json).is_empty());
    }

    #[test]
    fn long_cells_are_cut_but_for_the_last() {
        let long = "x".repeat(100);
        let items = vec![json!({ "a": long, "b": long })];
        let output = Output::List { columns: &["a", "b"], items, revision: None };
        let text = String::from_utf8(render(&output, Format::Table)).unwrap();
        assert!(text.contains(&format!("{}…  {long}", "x".repeat(59))), "{text}");
    }
}
