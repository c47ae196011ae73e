//! Fields with a key: `_Requirements: 1.1_`, `**Priority**: high`, `- Due: 2026-01-02`, and the columns of a table.

use crate::dialect::fields::{Fact, Syntax};
use crate::dialect::rules::Rules;
use crate::facts::{TaskFacts, value};
use crate::state::State;
use crate::table;

/// Longest key, in bytes. The longest in the table of dialects has 24.
const KEY_BYTES_MAX: usize = 40;

/// What the columns of a table's header hold.
pub(super) fn columns(header: &str, rules: &Rules) -> Vec<Option<Fact>> {
    table::header_names(header).iter().map(|name| fact_of(name, rules)).collect()
}

/// Whether a line continues the text before it: it is not blank and has no list marker.
pub(super) fn is_plain(line: &str) -> bool {
    let body = line.trim_start();
    !body.is_empty() && marker_bytes(body) == 0
}

/// Reads one line below a task: a key at its start, and underscored keys anywhere. The state that the line gives the task, when it does.
pub(super) fn read_line(line: &str, rules: &Rules, facts: &mut TaskFacts) -> Option<State> {
    let body = line.trim_start();
    let body = body.get(marker_bytes(body)..).unwrap_or_default().trim_start();
    if let Some((fact, value)) = keyed(body, rules).filter(|_| !body.starts_with('_')) {
        value::read(fact, value, facts);
        return state_of(fact);
    }
    read_inline(body, rules, facts)
}

/// Reads underscored keys anywhere in a text. The state that they give the task, when they do.
pub(super) fn read_inline(text: &str, rules: &Rules, facts: &mut TaskFacts) -> Option<State> {
    let mut state = None;
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find('_')).map(|at| from + at) {
        from = at + 1;
        let is_start = text.get(..at).is_some_and(|before| !before.ends_with(|one: char| one.is_alphanumeric()));
        let found = if is_start { text.get(at..).and_then(|rest| keyed(rest, rules)) } else { None };
        if let Some((fact, rest)) = found {
            let value = rest.get(..closing(rest)).unwrap_or_default();
            from = text.len() - rest.len() + value.len();
            value::read(fact, value, facts);
            state = state.or(state_of(fact));
        }
    }
    state
}

/// Where the underscore stands that closes a value: before a blank or the end. Without one, the value is the rest.
fn closing(rest: &str) -> usize {
    let is_closing = |at: &usize| {
        rest.get(at + 1..)
            .is_none_or(|after| after.chars().next().is_none_or(|next| !next.is_alphanumeric() && next != '_'))
    };
    rest.match_indices('_').map(|(at, _)| at).find(is_closing).unwrap_or(rest.len())
}

fn state_of(fact: Fact) -> Option<State> {
    if let Fact::State(state) = fact { Some(state) } else { None }
}

/// The field whose key a text begins with, and what follows the colon.
fn keyed<'t>(text: &'t str, rules: &Rules) -> Option<(Fact, &'t str)> {
    let body = text.trim_start_matches(['*', '_']);
    let key_end =
        body.char_indices().take_while(|(at, _)| *at <= KEY_BYTES_MAX).find(|(_, one)| matches!(one, ':' | '：'));
    let (end, colon) = key_end?;
    let key = body.get(..end)?.trim_matches(['*', '_', ' ']);
    let fact = fact_of(&key.to_lowercase(), rules)?;
    Some((fact, body.get(end + colon.len_utf8()..)?))
}

fn fact_of(key: &str, rules: &Rules) -> Option<Fact> {
    let fields = rules.fields.iter().copied().flatten();
    fields.into_iter().find(|(syntax, _)| matches!(syntax, Syntax::Key(known) if *known == key)).map(|(_, fact)| *fact)
}

/// Bytes of a bullet at the start of a line without its indent.
fn marker_bytes(body: &str) -> usize {
    let bytes = body.as_bytes();
    let digits = bytes.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
    let length = match bytes.get(digits) {
        Some(b'-' | b'*' | b'+') if digits == 0 => 1,
        Some(b'.' | b')') if (1..=9).contains(&digits) => digits + 1,
        Some(_) | None => return 0,
    };
    if matches!(bytes.get(length), None | Some(b' ' | b'\t')) { length } else { 0 }
}
