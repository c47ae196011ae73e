//! Values: what a text means as a date, a name, a list of ids, once its place has said which of these it is.

use std::collections::BTreeSet;

use crate::dialect::fields::Fact;
use crate::facts::{FACT_BYTES_MAX, FACT_VALUES_MAX, TaskFacts};
use crate::naming;
use crate::state::Urgency;

/// Signs around a value that don't belong to it.
const WRAPPERS: &[char] = &['_', '*', '`', '"', '\'', '[', ']', '(', ')', '<', '>', ' ', '\t', '\r', '\n'];

/// What lies between two values of a list.
const SEPARATORS: &[char] = &[',', ';', '、', '，', '；'];

/// Reads a whole value into the field that it belongs to. What doesn't fit is left out; of single values the first one counts.
pub(super) fn read(fact: Fact, value: &str, facts: &mut TaskFacts) {
    match fact {
        Fact::Urgency(urgency) => drop(facts.urgency.get_or_insert(urgency)),
        Fact::Priority => facts.urgency = facts.urgency.or_else(|| urgency(value)),
        Fact::Due => facts.due = facts.due.take().or_else(|| date(value.trim_matches(WRAPPERS)).map(str::to_owned)),
        Fact::Id => {
            if let Some(id) = name(value) {
                facts.id = Some(id.to_owned());
            }
        }
        Fact::Assignee => {
            let who =
                value.split(SEPARATORS).find_map(|part| name(part.trim_matches(WRAPPERS).trim_start_matches('@')));
            facts.assignee = facts.assignee.take().or_else(|| who.map(str::to_owned));
        }
        Fact::Label => {
            let labels =
                value.split(SEPARATORS).filter_map(|part| name(part.trim_matches(WRAPPERS).trim_start_matches('#')));
            extend(&mut facts.labels, labels);
        }
        Fact::BlockedBy => extend(&mut facts.blocked_by, value.split(SEPARATORS).filter_map(first_id)),
        Fact::Requirement => extend(&mut facts.requirements, value.split(SEPARATORS).filter_map(requirement)),
        Fact::Optional => facts.is_optional = true,
        Fact::Parallel => facts.is_parallel = true,
        Fact::State(_) | Fact::Note => {}
    }
}

/// Reads a value that a text begins with and that other words follow.
pub(super) fn read_leading(fact: Fact, text: &str, facts: &mut TaskFacts) {
    match fact {
        Fact::Due => read(fact, first_bytes(text.trim_start(), DATE_BYTES), facts),
        Fact::BlockedBy => extend(&mut facts.blocked_by, leading_ids(text)),
        Fact::Priority | Fact::Id | Fact::Assignee | Fact::Label | Fact::Requirement => {
            let text = text.trim_start();
            let end = text.find(|symbol: char| symbol.is_whitespace() || matches!(symbol, ',' | ';' | ')' | ']'));
            read(fact, text.get(..end.unwrap_or(text.len())).unwrap_or_default(), facts);
        }
        Fact::Urgency(_) | Fact::Optional | Fact::Parallel | Fact::State(_) | Fact::Note => read(fact, "", facts),
    }
}

fn extend<'v>(set: &mut BTreeSet<String>, values: impl Iterator<Item = &'v str>) {
    for value in values {
        if set.len() >= FACT_VALUES_MAX {
            return;
        }
        if !set.contains(value) {
            set.insert(value.to_owned());
        }
    }
}

/// A value that can be a name: it has a letter or digit and isn't too long.
fn name(value: &str) -> Option<&str> {
    let value = value.trim_matches(WRAPPERS);
    let is_named = value.len() <= FACT_BYTES_MAX && value.contains(char::is_alphanumeric);
    is_named.then_some(value)
}

/// A priority by its first word: `high`, `P1 (must have)`.
fn urgency(value: &str) -> Option<Urgency> {
    let value = value.trim_matches(WRAPPERS);
    let end = value.find(|symbol: char| !symbol.is_alphanumeric()).unwrap_or(value.len());
    Urgency::of_word(first_bytes(value.get(..end)?, FACT_BYTES_MAX))
}

/// One id, with words behind it (`1.2`, `Task 1.2 (types)`), or a single word with a digit (`task-3`).
fn first_id(part: &str) -> Option<&str> {
    let part = part.trim_matches(WRAPPERS);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_word =
        || part.bytes().all(is_part) && !part.contains("..") && part.contains(|one: char| one.is_ascii_digit());
    naming::reference(part).and_then(|length| part.get(..length)).or_else(|| name(part).filter(|_| is_word()))
}

/// A requirement: a number or code, or words that name one.
fn requirement(part: &str) -> Option<&str> {
    let part = part.trim_matches(WRAPPERS);
    let bare =
        ["Requirements ", "Requirement ", "Req "].iter().find_map(|word| part.strip_prefix(word)).unwrap_or(part);
    name(bare)
}

/// The ids of a list that a text begins with: `T003, T004 and T005)`.
fn leading_ids(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.trim_start_matches([' ', '\t', ',', '、', '，', '&', '+', '[', '`', '*', '_']);
        let start = start.strip_prefix("and ").unwrap_or(start);
        let length = naming::reference(start).or_else(|| key_bytes(start))?;
        rest = start.get(length..)?;
        start.get(..length)
    })
}

/// A made-up id, as Obsidian Tasks gives them: six characters, or letters and digits mixed.
fn key_bytes(text: &str) -> Option<usize> {
    let length = text.bytes().take(FACT_BYTES_MAX).take_while(u8::is_ascii_alphanumeric).count();
    let key = text.get(..length)?;
    let is_key = length == 6
        || (key.contains(|one: char| one.is_ascii_digit()) && key.contains(|one: char| one.is_ascii_lowercase()));
    is_key.then_some(length)
}

/// Bytes of `YYYY-MM-DD`.
const DATE_BYTES: usize = 10;

fn first_bytes(text: &str, bytes: usize) -> &str {
    text.get(..bytes.min(text.len())).unwrap_or_default()
}

/// The date that a text begins with (a time may follow), when it is a day that there is.
pub(super) fn date(text: &str) -> Option<&str> {
    let date = text.get(..DATE_BYTES)?;
    let is_date = date
        .bytes()
        .enumerate()
        .all(|(at, byte)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() });
    let is_cut_off = text.get(DATE_BYTES..)?.starts_with(|next: char| next.is_ascii_digit() || next == '-');
    if !is_date || is_cut_off {
        return None;
    }
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u32>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_that_there_are() {
        for (text, is_date) in [
            ("2026-01-31", true),
            ("2024-02-29", true),
            ("2026-02-29", false),
            ("2000-02-29", true),
            ("1900-02-29", false),
            ("2026-04-31", false),
            ("2026-13-01", false),
            ("2026-00-01", false),
            ("2026-01-00", false),
            ("2026-01-02T10:00", true),
            ("2026-01-021", false),
            ("2026/01/02", false),
            ("26-01-02", false),
            ("漢漢漢漢", false),
        ] {
            assert_eq!(date(text).is_some(), is_date, "{text}");
        }
    }

    #[test]
    fn ids_are_read_up_to_the_first_other_word() {
        let ids = |text: &str| leading_ids(text).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(ids("T003, T004 and 1.2)"), ["T003", "T004", "1.2"]);
        assert_eq!(ids(" abc1 , x9y2z1 later"), ["abc1", "x9y2z1"]);
        assert_eq!(ids("Task 1.2"), ["Task 1.2"]);
        assert_eq!(ids("the layout"), Vec::<String>::new());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut facts = TaskFacts::default();
        let many: Vec<String> = (0..FACT_VALUES_MAX * 2).map(|number| format!("1.{number}")).collect();
        read(Fact::Requirement, &many.join(", "), &mut facts);
        read(Fact::Label, &"a".repeat(FACT_BYTES_MAX + 1), &mut facts);
        assert_eq!((facts.requirements.len(), facts.labels.len()), (FACT_VALUES_MAX, 0));
    }
}
