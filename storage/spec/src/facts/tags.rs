//! Fields in the line of a task: flags, pictures, tags, inline fields, and the state that a tag gives an open task.

use crate::dialect::fields::{Fact, Syntax};
use crate::dialect::rules::Rules;
use crate::facts::{TaskFacts, value};
use crate::state::State;

/// Longest word that can be a label or a name with its sign, in bytes.
const TAG_BYTES_MAX: usize = 64;

/// Longest value of an inline field, in bytes: a list of ids.
const INLINE_BYTES_MAX: usize = 1 << 10;

/// Most tags for states that are taken out of one line.
const STATE_TAGS_MAX: usize = 16;

/// Reads all fields in the text of a task, which is what follows its mark.
pub(super) fn read(text: &str, rules: &Rules, facts: &mut TaskFacts) {
    for (syntax, fact) in rules.fields.iter().copied().flatten() {
        match *syntax {
            Syntax::Flag(flag) if find_word(text, flag).is_some() => value::read(*fact, "", facts),
            Syntax::Picture(picture) if text.contains(picture) => value::read(*fact, "", facts),
            Syntax::After(before) => {
                if let Some(at) = find_ignoring_case(text, before) {
                    value::read_leading(*fact, text.get(at + before.len()..).unwrap_or_default(), facts);
                }
            }
            Syntax::Numbered(before, after) => {
                numbered(text, before, after).for_each(|number| value::read(*fact, number, facts));
            }
            Syntax::Inline(key) => inline(text, key).for_each(|found| value::read(*fact, found, facts)),
            Syntax::Star if text.starts_with("]*") => value::read(*fact, "", facts),
            Syntax::Prefix(_) | Syntax::Date => words(text, *syntax, *fact, rules, facts),
            Syntax::Flag(_) | Syntax::Picture(_) | Syntax::Star | Syntax::Key(_) | Syntax::Front(_) => {}
        }
    }
}

/// The state that a tag gives an open task.
pub(super) fn state(text: &str, rules: &Rules) -> Option<State> {
    state_flags(rules).find(|(flag, _)| find_word(text, flag).is_some()).map(|(_, state)| state)
}

/// The text with a tag for `state` and no other tag for a state; `None` when the dialect has no such tag.
pub(crate) fn with_state(text: &str, state: State, rules: &Rules) -> Option<String> {
    let (flag, _) = state_flags(rules).find(|(_, known)| *known == state)?;
    let text = without_states(text, rules);
    let body = text.trim_end_matches(['\r', '\n', ' ']);
    let gap = if body.ends_with([' ', '\t']) { "" } else { " " };
    Some(format!("{body}{gap}{flag}{}", text.get(body.len()..).unwrap_or_default()))
}

/// The text without tags for states.
pub(crate) fn without_states(text: &str, rules: &Rules) -> String {
    let mut text = text.to_owned();
    for (flag, _) in state_flags(rules) {
        for _ in 0..STATE_TAGS_MAX {
            let Some(at) = find_word(&text, flag) else { break };
            let before = text.get(..at).map_or(at, |before| before.trim_end_matches(' ').len());
            text.replace_range(before..at + flag.len(), "");
        }
    }
    text
}

fn state_flags(rules: &Rules) -> impl Iterator<Item = (&'static str, State)> {
    rules.fields.iter().copied().flatten().filter_map(|field| match field {
        (Syntax::Flag(flag), Fact::State(state)) => Some((*flag, *state)),
        _ => None,
    })
}

/// Where `word` stands by itself: blanks, brackets or nothing around it.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_edge = |symbol: char| symbol.is_whitespace() || matches!(symbol, '[' | ']' | '(' | ')' | '*' | ',');
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = text.get(..*at).and_then(|before| before.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|after| after.chars().next());
        before.is_none_or(is_edge) && (after.is_none_or(is_edge) || word.ends_with(':'))
    })
}

/// Where `needle`, whose letters are ASCII and small, stands in any case.
fn find_ignoring_case(text: &str, needle: &str) -> Option<usize> {
    if !needle.starts_with(|first: char| first.is_ascii_lowercase()) {
        return text.find(needle);
    }
    let first = needle.as_bytes().first()?;
    let bytes = text.as_bytes();
    let is_there =
        |at: &usize| bytes.get(*at..at + needle.len()).is_some_and(|part| part.eq_ignore_ascii_case(needle.as_bytes()));
    let starts = bytes.iter().enumerate().filter(|(_, byte)| byte.eq_ignore_ascii_case(first)).map(|(at, _)| at);
    starts.into_iter().find(is_there)
}

/// Numbers between two texts, with what the first ends with: `[US1]` gives `US1`.
fn numbered<'t>(text: &'t str, before: &'static str, after: &'static str) -> impl Iterator<Item = &'t str> {
    text.match_indices(before).filter_map(move |(at, _)| {
        let start = at + before.len();
        let digits = text.get(start..)?.bytes().take(4).take_while(u8::is_ascii_digit).count();
        let is_closed = text.get(start + digits..)?.starts_with(after);
        (digits > 0 && is_closed).then(|| text.get(at + 1..start + digits)).flatten()
    })
}

/// Values of `[key:: value]` and `(key:: value)`.
fn inline<'t>(text: &'t str, key: &'static str) -> impl Iterator<Item = &'t str> {
    text.match_indices(key).filter_map(move |(at, _)| {
        let open = text.get(..at)?.trim_end_matches(' ').chars().next_back()?;
        let close = match open {
            '[' => ']',
            '(' => ')',
            _ => return None,
        };
        let value = text.get(at + key.len()..)?.strip_prefix("::")?;
        let end = value.char_indices().take_while(|(at, _)| *at <= INLINE_BYTES_MAX).find(|(_, one)| *one == close)?.0;
        value.get(..end)
    })
}

/// Reads words that begin with a sign, or that are dates.
fn words(text: &str, syntax: Syntax, fact: Fact, rules: &Rules, facts: &mut TaskFacts) {
    for word in text.split_whitespace().filter(|word| word.len() <= TAG_BYTES_MAX) {
        match syntax {
            Syntax::Prefix(sign) => {
                let is_other = || state_flags(rules).any(|(flag, _)| flag == word) || word.contains(':');
                if let Some(name) =
                    word.strip_prefix(sign).filter(|name| name.starts_with(char::is_alphabetic) && !is_other())
                {
                    value::read(fact, name, facts);
                }
            }
            Syntax::Date => {
                if value::date(word).is_some_and(|date| date.len() == word.len()) {
                    value::read(fact, word, facts);
                }
            }
            Syntax::Key(_)
            | Syntax::Flag(_)
            | Syntax::Picture(_)
            | Syntax::After(_)
            | Syntax::Numbered(..)
            | Syntax::Inline(_)
            | Syntax::Front(_)
            | Syntax::Star => {}
        }
    }
}
