//! Words: how a text is cut for merging, and how alike two texts are.
//!
//! The cut is lossless (tokens concatenate to the text) and works without spaces between words: each Han, Hiragana or Katakana character is a
//! token of its own. It doesn't know grammar, stems or case.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// At most this many words of a block are compared; what differs after 512 words doesn't make it another block.
const COMPARED_WORDS_MAX: usize = 512;

/// Texts of more tokens than this are not merged by words: the diff's cost grows with size times difference. 32,768 tokens are about
/// 100 KB of prose, beyond any paragraph that people write.
const MERGED_TOKENS_MAX: usize = 1 << 15;

/// Likeness of two equal texts, in thousandths.
pub(crate) const LIKENESS_MAX: usize = 1000;

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Blank,
    /// A token by itself: punctuation, line end, a character of a script that has no spaces.
    Single,
}

fn class(symbol: char) -> Class {
    if symbol.is_ascii_alphanumeric() || symbol == '_' {
        Class::Word
    } else if symbol == '\n' {
        Class::Single
    } else if symbol.is_whitespace() {
        Class::Blank
    } else if symbol.is_alphanumeric() && !is_unspaced(symbol) {
        Class::Word
    } else {
        Class::Single
    }
}

/// Scripts in which words are not set apart: CJK radicals to the Yi block, compatibility ideographs, the supplementary planes.
fn is_unspaced(symbol: char) -> bool {
    matches!(symbol, '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The tokens of `text`; they concatenate to it.
pub(crate) fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut running = Class::Single;
    for (at, symbol) in text.char_indices() {
        let class = class(symbol);
        if at > start && (class == Class::Single || class != running) {
            tokens.extend(text.get(start..at));
            start = at;
        }
        running = class;
    }
    tokens.extend(text.get(start..).filter(|last| !last.is_empty()));
    tokens
}

/// Whether a token carries meaning for matching: a word or an unspaced character, not blanks or punctuation.
fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|first| first.is_alphanumeric() || first == '_')
}

/// The words of a text as sorted hashes, for comparing many texts with each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<u64>);

impl Fingerprint {
    pub(crate) fn of(text: &str) -> Self {
        let mut hashes: Vec<u64> = tokens(text)
            .into_iter()
            .filter(|token| is_word(token))
            .take(COMPARED_WORDS_MAX)
            .map(|word| hash([word]))
            .collect();
        hashes.sort_unstable();
        Self(hashes)
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }

    /// Share of words in common (Dice's coefficient over the multisets), in thousandths.
    pub(crate) fn likeness(&self, other: &Self) -> usize {
        let total = self.0.len() + other.0.len();
        if total == 0 {
            return 0;
        }
        let mut common = 0;
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(one), Some(two)) = (left.peek(), right.peek()) {
            match one.cmp(two) {
                std::cmp::Ordering::Less => drop(left.next()),
                std::cmp::Ordering::Greater => drop(right.next()),
                std::cmp::Ordering::Equal => {
                    common += 1;
                    left.next();
                    right.next();
                }
            }
        }
        2 * common * LIKENESS_MAX / total
    }
}

/// FNV-1a over the parts, each closed by a byte that no text has; the same on every machine and in every version. Only for matching: a
/// collision makes two texts look alike, and what is done with them is decided by the texts themselves.
pub(crate) fn hash<const N: usize>(parts: [&str; N]) -> u64 {
    let bytes = parts.into_iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Small numbers for equal keys, so that a diff compares integers.
pub(crate) struct Interner<K>(BTreeMap<K, u32>);

impl<K: Ord> Interner<K> {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn intern(&mut self, key: K) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(key).or_insert(next)
    }
}

/// A stretch of the base that one side replaced: `base[base_start..base_end]` by `side[side_start..side_end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hunk {
    base: (usize, usize),
    side: (usize, usize),
}

/// What one side changed. Words left between two larger changes are chance, not agreement: such changes are one.
fn hunks(base: &[u32], side: &[u32]) -> Vec<Hunk> {
    let ops = capture_diff_slices(Algorithm::Myers, base, side);
    let hunk = |op: DiffOp| match op {
        DiffOp::Equal { .. } => None,
        DiffOp::Delete { .. } | DiffOp::Insert { .. } | DiffOp::Replace { .. } => {
            let (old, new) = (op.old_range(), op.new_range());
            Some(Hunk { base: (old.start, old.end), side: (new.start, new.end) })
        }
    };
    let mut hunks: Vec<Hunk> = Vec::new();
    for hunk in ops.into_iter().filter_map(hunk) {
        match hunks.last_mut() {
            Some(last) if hunk.base.0 - last.base.1 <= last.tokens().min(hunk.tokens()) => {
                *last = Hunk { base: (last.base.0, hunk.base.1), side: (last.side.0, hunk.side.1) };
            }
            Some(_) | None => hunks.push(hunk),
        }
    }
    hunks
}

impl Hunk {
    /// Size of the change, in tokens of the larger side.
    fn tokens(&self) -> usize {
        (self.base.1 - self.base.0).max(self.side.1 - self.side.0)
    }
}

/// What [`unite`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Words; only additions are united.
    Words,
    /// Whole lines; lines that both replaced are all kept.
    Lines,
}

/// Unites two edits of one text, `[base, ours, theirs]`, that [`merge_words`] can't merge: at a place that both changed, theirs comes first,
/// then what ours has besides. `None` when that would take more than putting one behind the other.
pub(crate) fn unite([base, ours, theirs]: [&str; 3], cut: Cut) -> Option<String> {
    let pieces = |text| match cut {
        Cut::Words => tokens(text),
        Cut::Lines => str::split_inclusive(text, '\n').collect(),
    };
    let (base, ours, theirs) = (pieces(base), pieces(ours), pieces(theirs));
    if base.len().max(ours.len()).max(theirs.len()) > MERGED_TOKENS_MAX {
        return None;
    }
    let mut interner = Interner::new();
    let [base_ids, our_ids, their_ids] = [&base, &ours, &theirs].map(|side| numbers(&mut interner, side));
    let (our_hunks, their_hunks) = (hunks(&base_ids, &our_ids), hunks(&base_ids, &their_ids));
    let mut out = String::new();
    let mut at = 0;
    for stretch in stretches(&our_hunks, &their_hunks) {
        out.extend(base.get(at..stretch.base.0).unwrap_or_default().iter().copied());
        at = stretch.base.1;
        let our_part = part(&ours, stretch.ours);
        let their_part = part(&theirs, stretch.theirs);
        match (our_part, their_part) {
            (Some(part), None) | (None, Some(part)) => out.extend(part.iter().copied()),
            (Some(ours), Some(theirs)) if ours == theirs => out.extend(theirs.iter().copied()),
            (Some(ours), Some(theirs)) => {
                if cut == Cut::Words && stretch.base.0 < stretch.base.1 {
                    return None;
                }
                out.extend(theirs.iter().copied());
                let is_new = |piece: &&&str| cut == Cut::Words || !theirs.contains(piece);
                out.extend(ours.iter().filter(is_new).copied());
            }
            (None, None) => {}
        }
    }
    out.extend(base.get(at..).unwrap_or_default().iter().copied());
    Some(out)
}

/// A stretch of the base that one or both sides changed, with what each side that did has there.
struct Stretch {
    base: (usize, usize),
    ours: Option<(usize, usize)>,
    theirs: Option<(usize, usize)>,
}

/// The changes of both sides in order; those that clash are one stretch.
fn stretches(ours: &[Hunk], theirs: &[Hunk]) -> Vec<Stretch> {
    let mut all: Vec<(Hunk, bool)> =
        ours.iter().map(|hunk| (*hunk, true)).chain(theirs.iter().map(|hunk| (*hunk, false))).collect();
    all.sort_by_key(|(hunk, _)| hunk.base);
    let mut groups: Vec<Vec<(Hunk, bool)>> = Vec::new();
    for (hunk, is_ours) in all {
        let clashes = |(other, other_is_ours): &(Hunk, bool)| *other_is_ours != is_ours && is_clash(&hunk, other);
        match groups.last_mut().filter(|group| group.iter().any(clashes)) {
            Some(group) => group.push((hunk, is_ours)),
            None => groups.push(vec![(hunk, is_ours)]),
        }
    }
    let stretch = |group: Vec<(Hunk, bool)>| {
        let start = group.iter().map(|(hunk, _)| hunk.base.0).min().unwrap_or_default();
        let end = group.iter().map(|(hunk, _)| hunk.base.1).max().unwrap_or_default();
        let side = |wanted: bool| {
            let mut hunks = group.iter().filter(|(_, is_ours)| *is_ours == wanted).map(|(hunk, _)| hunk);
            let first = hunks.next()?;
            let last = hunks.next_back().unwrap_or(first);
            Some((first.side.0 - (first.base.0 - start), last.side.1 + (end - last.base.1)))
        };
        Stretch { base: (start, end), ours: side(true), theirs: side(false) }
    };
    groups.into_iter().map(stretch).collect()
}

fn part<'a, 't>(tokens: &'a [&'t str], range: Option<(usize, usize)>) -> Option<&'a [&'t str]> {
    range.map(|(start, end)| tokens.get(start..end).unwrap_or_default())
}

/// Merges two edits of one text by words: `None` when both changed the same words, or put different words at the same place.
///
/// ```text
/// base    write the log
/// ours    write the *durable* log      -> write the durable log *first*
/// theirs  write the log *first*
/// ```
#[must_use]
pub fn merge_words(base: &str, ours: &str, theirs: &str) -> Option<String> {
    if ours == theirs || theirs == base {
        return Some(ours.to_owned());
    }
    if ours == base {
        return Some(theirs.to_owned());
    }
    let (base, ours, theirs) = (tokens(base), tokens(ours), tokens(theirs));
    if base.len().max(ours.len()).max(theirs.len()) > MERGED_TOKENS_MAX {
        return None;
    }
    let mut interner = Interner::new();
    let base_ids = numbers(&mut interner, &base);
    let our_ids = numbers(&mut interner, &ours);
    let their_ids = numbers(&mut interner, &theirs);
    weave(&base, (&ours, &hunks(&base_ids, &our_ids)), (&theirs, &hunks(&base_ids, &their_ids)))
}

fn numbers<'t>(interner: &mut Interner<&'t str>, tokens: &[&'t str]) -> Vec<u32> {
    tokens.iter().map(|token| interner.intern(*token)).collect()
}

fn weave(
    base: &[&str],
    (ours, our_hunks): (&[&str], &[Hunk]),
    (theirs, their_hunks): (&[&str], &[Hunk]),
) -> Option<String> {
    let mut out = String::new();
    let mut at = 0;
    let (mut our_hunks, mut their_hunks) = (our_hunks.iter().peekable(), their_hunks.iter().peekable());
    loop {
        let (tokens, hunk) = match (our_hunks.peek().copied(), their_hunks.peek().copied()) {
            (None, None) => break,
            (Some(one), Some(two)) if one.base == two.base && side(ours, one) == side(theirs, two) => {
                their_hunks.next();
                our_hunks.next();
                (ours, one)
            }
            (Some(one), Some(two)) if is_clash(one, two) => return None,
            (Some(one), Some(two)) if one.base > two.base => {
                their_hunks.next();
                (theirs, two)
            }
            (Some(one), _) => {
                our_hunks.next();
                (ours, one)
            }
            (None, Some(two)) => {
                their_hunks.next();
                (theirs, two)
            }
        };
        out.extend(base.get(at..hunk.base.0).unwrap_or_default().iter().copied());
        out.extend(side(tokens, hunk).iter().copied());
        at = hunk.base.1;
    }
    out.extend(base.get(at..).unwrap_or_default().iter().copied());
    Some(out)
}

fn side<'a, 't>(tokens: &'a [&'t str], hunk: &Hunk) -> &'a [&'t str] {
    tokens.get(hunk.side.0..hunk.side.1).unwrap_or_default()
}

/// Two hunks clash when they replace a word in common, when one replaces words around the place where the other inserts, when both
/// insert at the same place, or when one adds to words that the other takes away. Other hunks that only touch don't: their order is given.
fn is_clash(one: &Hunk, two: &Hunk) -> bool {
    let is_touching = one.base.0 <= two.base.1 && two.base.0 <= one.base.1;
    let is_insertion = |hunk: &Hunk| hunk.base.0 == hunk.base.1;
    let is_deletion = |hunk: &Hunk| hunk.side.0 == hunk.side.1;
    let is_overlapping = one.base.0 < two.base.1 && two.base.0 < one.base.1;
    let is_same_place = is_insertion(one) && is_insertion(two);
    let is_undermined = (is_insertion(one) && is_deletion(two)) || (is_deletion(one) && is_insertion(two));
    is_overlapping || (is_touching && (is_same_place || is_undermined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(base: &str, ours: &str, theirs: &str, expected: &Expect) {
        let merged = merge_words(base, ours, theirs);
        assert_eq!(merged.is_some(), merge_words(base, theirs, ours).is_some(), "clashes don't depend on the side");
        expected.assert_eq(&format!("{merged:?}"));
    }

    #[test]
    fn words_merge_and_clash() {
        check(
            "write the log",
            "write the durable log",
            "write the log first",
            &expect![[r#"Some("write the durable log first")"#]],
        );
        check("a b c", "x b c", "a b z", &expect![[r#"Some("x b z")"#]]);
        check("a b c", "x b c", "x b c", &expect![[r#"Some("x b c")"#]]);
        check("a b c", "x b c", "y b c", &expect!["None"]);
        check("a b c", "a c", "a q c", &expect!["None"]);
        check("a", "a one", "a two", &expect!["None"]);
        check("書く日誌", "書く新日誌", "読む日誌", &expect![[r#"Some("読む新日誌")"#]]);
        check("a b c d", "a c d", "a b c", &expect![[r#"Some("a c")"#]]);
        check("", "a", "", &expect![[r#"Some("a")"#]]);
        check("one two three", "", "one two four", &expect!["None"]);
        check("write log", "write log (done)", "write journal", &expect![[r#"Some("write journal (done)")"#]]);
        check("| a | [D] |", "| a | [D] | [D] |", "| a |", &expect!["None"]);
    }

    #[test]
    fn likeness_counts_common_words() {
        let likeness = |one: &str, two: &str| Fingerprint::of(one).likeness(&Fingerprint::of(two));
        assert_eq!(likeness("write the log", "write the log"), LIKENESS_MAX);
        assert_eq!(likeness("write the log", "(log) the: write!"), LIKENESS_MAX);
        assert_eq!(likeness("write the log", "read the book"), 333);
        assert_eq!(likeness("", ""), 0);
        assert_eq!(likeness("a a", "a"), 666);
    }

    #[test]
    fn what_is_too_long_clashes_at_once() {
        let long = "a ".repeat(MERGED_TOKENS_MAX);
        assert_eq!(merge_words(&long, &format!("x{long}"), &format!("{long}y")), None);
    }

    proptest! {
        #[test]
        fn tokens_concatenate_to_the_text(text: String) {
            prop_assert_eq!(tokens(&text).concat(), text);
        }

        #[test]
        fn a_merge_keeps_the_new_words_of_both(base in "([a-e] ){0,8}", ours in "([a-h] ){0,8}", theirs in "([a-e]|[p-t] ){0,8}") {
            if let Some(merged) = merge_words(&base, &ours, &theirs) {
                let has = |word: &str| base.contains(word) || merged.contains(word);
                prop_assert!(tokens(&ours).into_iter().all(has) && tokens(&theirs).into_iter().all(has));
            }
        }
    }
}
