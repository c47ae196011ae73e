//! Front matter, as far as task files use it: keys at the start of a line with a value, a list in brackets, or a list of dashes.
//!
//! It is no YAML parser: nested maps, folded texts and anchors are passed over, and nothing is ever written anew but the one value asked for.

use crate::dialect::fields::Syntax;
use crate::facts::FACT_VALUES_MAX;

/// Most keys that are read of one front matter; files have a dozen or two.
const KEYS_MAX: usize = 256;

/// Whether a field is this key of a front matter.
pub(super) fn is_key(syntax: Syntax, name: &str) -> bool {
    matches!(syntax, Syntax::Front(key) if key == name)
}

/// Keys with their values, in order.
pub(super) fn entries(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut entries: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        if let Some(item) = line.trim_start().strip_prefix("- ") {
            if let Some((_, values)) = entries.last_mut().filter(|(_, values)| values.len() < FACT_VALUES_MAX) {
                values.extend(scalar(item));
            }
        } else if let Some((key, value)) = pair(line) {
            if entries.len() == KEYS_MAX {
                break;
            }
            entries.push((key, values(value)));
        }
    }
    entries
}

/// The text with another value for a key: the value alone changes, quotes and what follows them stay. `None` without that key.
pub(crate) fn with_value(text: &str, key: &str, value: &str) -> Option<String> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some((_, old)) = pair(line).filter(|(name, _)| *name == key) {
            let old = scalar(old)?;
            let at = start + line.find(':')? + 1;
            let at = at + text.get(at..)?.find(old)?;
            return Some(format!("{}{value}{}", text.get(..at)?, text.get(at + old.len()..)?));
        }
        start += line.len();
    }
    None
}

/// `key: value` at the start of a line.
fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    (is_key && (value.is_empty() || value.starts_with(char::is_whitespace))).then(|| (key, value.trim()))
}

fn values(value: &str) -> Vec<&str> {
    match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => list.split(',').filter_map(scalar).take(FACT_VALUES_MAX).collect(),
        None => scalar(value).into_iter().collect(),
    }
}

/// A value without its quotes or the comment behind it; `None` when nothing is left.
fn scalar(value: &str) -> Option<&str> {
    let value = value.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.split_once(*quote));
    let plain = || value.split(" #").next().unwrap_or(value).trim_end();
    let value = quoted.map_or_else(plain, |(inside, _)| inside);
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: &str = "---\nid: task-12\nstatus: 'In Progress' # by hand\nassignee:\n  - '@ada'\nlabels: [log, \"store\"]\nempty:\nmap:\n  inner: 1\n---\n";

    #[test]
    fn keys_have_their_values() {
        let expected = [
            ("id", vec!["task-12"]),
            ("status", vec!["In Progress"]),
            ("assignee", vec!["@ada"]),
            ("labels", vec!["log", "store"]),
            ("empty", vec![]),
            ("map", vec![]),
        ];
        assert_eq!(entries(FRONT), expected);
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        let changed = with_value(FRONT, "status", "Done").unwrap_or_default();
        assert_eq!(changed, FRONT.replace("In Progress", "Done"));
        assert_eq!(with_value(FRONT, "owner", "ada"), None);
        assert_eq!(with_value(FRONT, "empty", "a"), None);
    }
}
