//! Laws of merging, over texts in which every word is written once: what became of each word can be told exactly.
//!
//! Base words are `b0`, `b1`, ..; words of the local side `x0`, `x1`, ..; words of the cluster's side `y0`, `y1`, ... A failing case shrinks
//! to the fewest lines and changes.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::Strategy;

use super::tests::evolved;
use super::*;
use crate::parse;
use crate::testing::known;

/// A change of one line, or of the order.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Tick(Index),
    /// A word at the end.
    Add(Index),
    /// Another first word behind the mark.
    Replace(Index),
    Remove(Index),
    Insert(Index),
    Move(Index, Index),
}

pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        2 => any::<Index>().prop_map(Change::Tick),
        2 => any::<Index>().prop_map(Change::Add),
        1 => any::<Index>().prop_map(Change::Replace),
        1 => any::<Index>().prop_map(Change::Remove),
        1 => any::<Index>().prop_map(Change::Insert),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Move(from, to)),
    ];
    prop::collection::vec(change, 0..4)
}

/// Words of a line: enough that one which was moved and had a word replaced is known again.
const WORDS: usize = 5;

/// Lines of a file: tasks mostly, with headings and bullets between them.
pub(super) fn lines() -> impl Strategy<Value = Vec<String>> {
    let kind = prop_oneof![6 => Just("- [ ] "), 1 => Just("## "), 1 => Just("- ")];
    prop::collection::vec(kind, 1..7).prop_map(|kinds| {
        let words =
            |at: usize| (WORDS * at..WORDS * (at + 1)).map(|word| format!("b{word}")).collect::<Vec<_>>().join(" ");
        kinds.into_iter().enumerate().map(|(at, kind)| format!("{kind}{}\n", words(at))).collect()
    })
}

/// Applies changes; new words carry `side` and a number from `next` on.
pub(super) fn changed(lines: &[String], changes: &[Change], side: char, next: usize) -> Vec<String> {
    let mut lines = lines.to_vec();
    for (number, change) in (next..).zip(changes) {
        let count = lines.len();
        let word = format!("{side}{number}");
        match change {
            Change::Insert(at) => lines.insert(at.index(count + 1), format!("- [ ] {word}\n")),
            Change::Tick(_) | Change::Add(_) | Change::Replace(_) | Change::Remove(_) | Change::Move(..)
                if count == 0 => {}
            Change::Tick(at) => lines[at.index(count)] = lines[at.index(count)].replacen("[ ]", "[x]", 1),
            Change::Add(at) => {
                let line = &mut lines[at.index(count)];
                *line = format!("{} {word}\n", line.trim_end());
            }
            Change::Replace(at) => {
                let line = &mut lines[at.index(count)];
                let first = words(line).into_iter().next().unwrap_or_default();
                *line = line.replacen(&first, &word, 1);
            }
            Change::Remove(at) => drop(lines.remove(at.index(count))),
            Change::Move(from, to) => {
                let line = lines.remove(from.index(count));
                lines.insert(to.index(count), line);
            }
        }
    }
    lines
}

pub(super) fn words(text: &str) -> Vec<String> {
    let is_word = |word: &&str| {
        word.starts_with(['b', 'x', 'y']) && word.len() > 1 && word.chars().skip(1).all(|c| c.is_ascii_digit())
    };
    text.split_whitespace().filter(is_word).map(str::to_owned).collect()
}

/// Words that are neither in the text nor in a value of a conflict, though a side wrote them, or both kept them.
pub(super) fn vanished<'a>(
    [base, local, current]: [&str; 3],
    text: &str,
    conflicts: impl Iterator<Item = &'a Conflict<u32>>,
) -> Vec<String> {
    let values = conflicts.flat_map(|conflict| [&conflict.base, &conflict.ours, &conflict.theirs]).flatten();
    let kept: BTreeSet<String> = words(text).into_iter().chain(values.flat_map(|value| words(value))).collect();
    let [base, local, current] = [base, local, current].map(|text| BTreeSet::from_iter(words(text)));
    let written = local.iter().chain(&current).filter(|word| !base.contains(*word));
    let unchanged = base.iter().filter(|word| local.contains(*word) && current.contains(*word));
    written.chain(unchanged).filter(|word| !kept.contains(*word)).cloned().collect()
}

fn merged(base: &str, local: &str, current: &str) -> Merge<u32> {
    let blocks = known(base);
    merge3(&blocks, &parse(local), &evolved(&blocks, current))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1024)))]

    #[test]
    fn nothing_vanishes_and_nothing_stands_twice(base in lines(), ours in changes(), theirs in changes()) {
        let (local, current) = (changed(&base, &ours, 'x', 0).concat(), changed(&base, &theirs, 'y', 0).concat());
        let base = base.concat();
        let merge = merged(&base, &local, &current);
        prop_assert_eq!(vanished([&base, &local, &current], &merge.text, merge.conflicts.iter()), Vec::<String>::new());
        let all = words(&merge.text);
        prop_assert_eq!(BTreeSet::from_iter(&all).len(), all.len(), "{}", merge.text);
    }

    #[test]
    fn the_same_change_on_both_sides_is_no_conflict(base in lines(), both in changes(), more in changes()) {
        let current = changed(&base, &both, 'x', 0);
        // what changes a line of theirs once more looks, from the old base, like another change of the same words
        let is_apart = |change: &&Change| matches!(change, Change::Tick(_) | Change::Insert(_));
        let more: Vec<Change> = more.iter().filter(is_apart).cloned().collect();
        let local = changed(&current, &more, 'x', 100).concat();
        let (base, current) = (base.concat(), current.concat());
        prop_assert_eq!(merged(&base, &current, &current).ops, vec![]);
        prop_assert_eq!(merged(&base, &local, &current).conflicts, vec![]);
    }

    /// Each side changes its own half, beyond a line that nobody touches: the merge is one half behind the other, whoever comes first.
    #[test]
    fn disjoint_changes_unite_and_commute(front in lines(), back in lines(), ours in changes(), theirs in changes()) {
        let middle = vec!["- [ ] b900 b901\n".to_owned()];
        let back: Vec<String> = back.into_iter().map(|line| line.replace('b', "b50")).collect();
        let base = [front.clone(), middle.clone(), back.clone()].concat().concat();
        let (our_front, their_back) = (changed(&front, &ours, 'x', 0), changed(&back, &theirs, 'y', 0));
        let local = [our_front.clone(), middle.clone(), back].concat().concat();
        let current = [front, middle.clone(), their_back.clone()].concat().concat();
        let united = [our_front, middle, their_back].concat().concat();
        for (one, two) in [(&local, &current), (&current, &local)] {
            let merge = merged(&base, one, two);
            prop_assert_eq!(&merge.conflicts, &vec![]);
            prop_assert_eq!(&merge.text, &united);
        }
    }

    #[test]
    fn an_edit_beats_a_deletion_and_is_recorded(base in lines(), at: Index, ours in changes()) {
        let Some(edited) = (0..base.len()).cycle().skip(at.index(base.len())).take(base.len()).find(|at| base[*at].starts_with("- [")) else {
            return Ok(());
        };
        let mut current = base.clone();
        current[edited] = format!("{} y9\n", current[edited].trim_end());
        let mut local = base.clone();
        local.remove(edited);
        // what else the deleting side does may not touch that line, which it no longer has
        let local = changed(&local, &ours, 'x', 0).concat();
        let (base, current) = (base.concat(), current.concat());
        let is_recorded = |merge: &Merge<u32>| {
            let is_that = |value: &Option<String>| value.as_ref().is_some_and(|value| value.contains("y9"));
            merge.conflicts.iter().any(|conflict| {
                conflict.field == ConflictField::Existence && (is_that(&conflict.ours) || is_that(&conflict.theirs))
            })
        };
        for merge in [merged(&base, &local, &current), merged(&base, &current, &local)] {
            prop_assert!(words(&merge.text).contains(&"y9".to_owned()), "{}", merge.text);
            prop_assert!(is_recorded(&merge), "{:?}", merge.conflicts);
        }
    }
}
