//! The stages of matching, in the order of [`super`]'s table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::matcher::{Item, Matcher};
use crate::block::{Block, BlockKind};
use crate::words::hash;

/// Candidates looked at for one block among others of the same name or words; further ones are taken in order.
const CANDIDATES_MAX: usize = 32;

/// Pairs compared between one pair of neighbours; a larger gap compares each block with those at about the same height only.
const GAP_PAIRS_MAX: usize = 4096;

/// In a gap over [`GAP_PAIRS_MAX`], how many places up and down a block is compared.
const GAP_REACH: usize = 8;

/// A word that is in more left-over blocks than this says nothing about which of them is meant.
const COMMON_WORD_BLOCKS_MAX: usize = 8;

/// Left-over blocks anywhere that one block is compared with: those with the most rare words in common.
const FAR_CANDIDATES_MAX: usize = 8;

/// Likeness that makes two blocks the same, by how much else speaks for it, in thousandths.
mod likeness {
    /// Same explicit id.
    pub(super) const NAMED: usize = 250;
    /// Between the same neighbours.
    pub(super) const NEAR: usize = 500;
    /// The only ones of their kind between the same neighbours.
    pub(super) const ALONE: usize = 300;
    /// A bullet that became a task, or the other way round, between the same neighbours.
    pub(super) const OTHER_KIND: usize = 700;
    /// Anywhere.
    pub(super) const FAR: usize = 700;
}

/// What else speaks for a pair that is alike, in thousandths of likeness.
mod bonus {
    /// Same explicit id.
    pub(super) const NAMED: usize = 200;
    /// Between the same neighbours.
    pub(super) const NEAR: usize = 100;
}

/// Words that a block needs to be recognised anywhere by likeness alone.
const FAR_WORDS_MIN: usize = 4;

/// Matches two sequences: for each new block the index of the old one.
pub(super) fn run(old: &[&Block], new: &[&Block]) -> Vec<Option<usize>> {
    let mut matcher = Matcher::new(old, new);
    runs(&mut matcher);
    by_key(&mut matcher, |_, item| item.id.map(|id| (item.block.kind, id, item.title)));
    by_key(&mut matcher, |items, item| {
        (!item.is_filler).then_some((item.block.kind, item.title, heading(items, item)))
    });
    by_key(&mut matcher, |_, item| (!item.is_filler).then_some((item.block.kind, item.title)));
    alike(&mut matcher);
    near(&mut matcher);
    by_place(&mut matcher);
    fillers(&mut matcher);
    matcher.into_matched()
}

fn heading<'a>(items: &[Item<'a>], item: &Item<'a>) -> Option<&'a str> {
    item.section.and_then(|section| items.get(section)).map(|heading| heading.title)
}

/// Stage 1: unchanged lines by a patience diff. Fillers don't take part: they match everywhere and would lead it astray. A line that
/// repeats counts with its mark and heading, so that the same line elsewhere isn't taken for it.
fn runs(matcher: &mut Matcher<'_>) {
    let (old, new) = (substantial(&matcher.old), substantial(&matcher.new));
    let old_lines = lines(&matcher.old, &old);
    let new_lines = lines(&matcher.new, &new);
    let repeated = [repeated(old_lines.clone()), repeated(new_lines.clone())].concat().into_iter().collect();
    let old_lines = specific(&matcher.old, &old, old_lines, &repeated);
    let new_lines = specific(&matcher.new, &new, new_lines, &repeated);
    for op in capture_diff_slices(Algorithm::Patience, &old_lines, &new_lines) {
        if let DiffOp::Equal { old_index, new_index, len } = op {
            for step in 0..len {
                if let (Some(one), Some(two)) = (old.get(old_index + step), new.get(new_index + step)) {
                    matcher.join(*one, *two);
                }
            }
        }
    }
    matcher.settle();
    matcher.read_words();
}

/// A number for each line, ticks aside.
fn lines(items: &[Item<'_>], at: &[usize]) -> Vec<u64> {
    let contents = at.iter().filter_map(|at| items.get(*at)).map(|item| &item.block.content);
    contents.map(|content| hash([&content.lead, &content.text])).collect()
}

fn repeated(mut lines: Vec<u64>) -> Vec<u64> {
    lines.sort_unstable();
    lines
        .windows(2)
        .filter_map(|pair| if let [one, two] = pair { (one == two).then_some(*one) } else { None })
        .collect()
}

/// The numbers of lines, those of repeated ones with mark and heading.
fn specific(items: &[Item<'_>], at: &[usize], lines: Vec<u64>, repeated: &BTreeSet<u64>) -> Vec<u64> {
    let specify = |(at, line): (&usize, u64)| match items.get(*at).filter(|_| repeated.contains(&line)) {
        Some(item) => {
            let content = &item.block.content;
            hash([&content.lead, &content.text, &content.mark, heading(items, item).unwrap_or_default()])
        }
        None => line,
    };
    at.iter().zip(lines).map(specify).collect()
}

fn substantial(items: &[Item<'_>]) -> Vec<usize> {
    items.iter().enumerate().filter(|(_, item)| !item.is_filler).map(|(at, _)| at).collect()
}

/// Free old items by key, in order.
fn candidates<'a, K: Ord>(
    matcher: &Matcher<'a>,
    key: impl Fn(&[Item<'a>], &Item<'a>) -> Option<K>,
) -> BTreeMap<K, VecDeque<usize>> {
    let mut candidates: BTreeMap<K, VecDeque<usize>> = BTreeMap::new();
    for at in matcher.free_old() {
        if let Some(key) = matcher.old.get(at).and_then(|item| key(&matcher.old, item)) {
            candidates.entry(key).or_default().push_back(at);
        }
    }
    candidates
}

/// Stages 2 to 4: matches free items of equal key, each with the candidate whose surroundings agree best.
fn by_key<'a, K: Ord>(matcher: &mut Matcher<'a>, key: impl Fn(&[Item<'a>], &Item<'a>) -> Option<K>) {
    let mut candidates = candidates(matcher, &key);
    for new in matcher.free_new() {
        let Some(item) = matcher.new.get(new) else { continue };
        let Some(olds) = key(&matcher.new, item).and_then(|key| candidates.get_mut(&key)) else { continue };
        let scored = olds.iter().take(CANDIDATES_MAX).enumerate().filter_map(|(place, old)| {
            let likeness = matcher.old.get(*old)?.likeness(item);
            Some(((matcher.surroundings(*old, new), likeness), Reverse(place)))
        });
        if let Some((_, Reverse(place))) = scored.max()
            && let Some(old) = olds.remove(place)
        {
            matcher.join(old, new);
        }
    }
    matcher.settle();
}

/// A possible match; the best come first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    score: Reverse<usize>,
    distance: usize,
    old: usize,
    new: usize,
}

/// How much speaks for a pair of this likeness.
fn score(matcher: &Matcher<'_>, old: usize, new: usize, likeness: usize) -> usize {
    let (Some(one), Some(two)) = (matcher.old.get(old), matcher.new.get(new)) else { return likeness };
    let named = if one.id.is_some() && one.id == two.id { bonus::NAMED } else { 0 };
    let near = if matcher.old_gap(old) == matcher.new_gap(new) { bonus::NEAR } else { 0 };
    likeness + named + near
}

fn join_best(matcher: &mut Matcher<'_>, mut pairs: Vec<Pair>) {
    pairs.sort_unstable();
    for pair in pairs {
        matcher.join(pair.old, pair.new);
    }
    matcher.settle();
}

/// Stage 5: blocks that are alike and have something else in common, the best pairs first. The kinds of evidence are weighed together:
/// after an insertion every number names another task, and a good likeness elsewhere says more than a number on a poor one.
fn alike(matcher: &mut Matcher<'_>) {
    let mut pairs = named_pairs(matcher);
    pairs.extend(all_near_pairs(matcher));
    pairs.extend(far_pairs(matcher));
    join_best(matcher, pairs);
}

/// Blocks of the same explicit id that have some words in common.
fn named_pairs(matcher: &Matcher<'_>) -> Vec<Pair> {
    let candidates = candidates(matcher, |_, item| item.id.map(|id| (item.block.kind, id)));
    let mut pairs = Vec::new();
    for new in matcher.free_new() {
        let Some(item) = matcher.new.get(new) else { continue };
        let olds = item.id.and_then(|id| candidates.get(&(item.block.kind, id)));
        for old in olds.into_iter().flatten().take(CANDIDATES_MAX).copied() {
            let likeness = matcher.old.get(old).map_or(0, |other| other.likeness(item));
            if likeness >= likeness::NAMED {
                let score = score(matcher, old, new, likeness) + usize::from(matcher.surroundings(old, new));
                pairs.push(Pair { score: Reverse(score), distance: old.abs_diff(new), old, new });
            }
        }
    }
    pairs
}

/// Stage 6: blocks that are alike between the same neighbours, now that more of these are known.
fn near(matcher: &mut Matcher<'_>) {
    let pairs = all_near_pairs(matcher);
    join_best(matcher, pairs);
}

fn all_near_pairs(matcher: &Matcher<'_>) -> Vec<Pair> {
    let olds = grouped(matcher.free_old(), |at| matcher.old_gap(at));
    let news = grouped(matcher.free_new(), |at| matcher.new_gap(at));
    let mut pairs = Vec::new();
    for (gap, news) in &news {
        if let Some(olds) = olds.get(gap) {
            near_pairs(matcher, olds, news, &mut pairs);
        }
    }
    pairs
}

fn grouped(items: Vec<usize>, gap: impl Fn(usize) -> usize) -> BTreeMap<usize, Vec<usize>> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in items {
        groups.entry(gap(at)).or_default().push(at);
    }
    groups
}

fn near_pairs(matcher: &Matcher<'_>, olds: &[usize], news: &[usize], pairs: &mut Vec<Pair>) {
    let is_large = olds.len().saturating_mul(news.len()) > GAP_PAIRS_MAX;
    let (old_kinds, new_kinds) = (kinds(&matcher.old, olds), kinds(&matcher.new, news));
    for (height, new) in news.iter().enumerate() {
        let level = height * olds.len() / news.len().max(1);
        let range =
            if is_large { level.saturating_sub(GAP_REACH)..(level + GAP_REACH).min(olds.len()) } else { 0..olds.len() };
        for (at, old) in olds.get(range.clone()).unwrap_or_default().iter().enumerate() {
            let (Some(one), Some(two)) = (matcher.old.get(*old), matcher.new.get(*new)) else { continue };
            let is_alone = old_kinds.get(&one.block.kind) == Some(&1) && new_kinds.get(&two.block.kind) == Some(&1);
            let Some(needed) = near_likeness(one.block.kind, two.block.kind, is_alone) else { continue };
            let likeness = one.likeness(two);
            if likeness >= needed {
                pairs.push(Pair {
                    score: Reverse(score(matcher, *old, *new, likeness)),
                    distance: (range.start + at).abs_diff(level),
                    old: *old,
                    new: *new,
                });
            }
        }
    }
}

fn kinds(items: &[Item<'_>], among: &[usize]) -> BTreeMap<BlockKind, usize> {
    let mut kinds = BTreeMap::new();
    for item in among.iter().filter_map(|at| items.get(*at)) {
        *kinds.entry(item.block.kind).or_default() += 1;
    }
    kinds
}

fn near_likeness(old: BlockKind, new: BlockKind, is_alone: bool) -> Option<usize> {
    let is_list = |kind| matches!(kind, BlockKind::Task | BlockKind::Prose);
    if old == new {
        Some(if is_alone { likeness::ALONE } else { likeness::NEAR })
    } else {
        (is_list(old) && is_list(new)).then_some(likeness::OTHER_KIND)
    }
}

/// Blocks that are very alike anywhere, found by the rare words that they share.
fn far_pairs(matcher: &Matcher<'_>) -> Vec<Pair> {
    let mut olds_of_word: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for old in matcher.free_old() {
        let mut words = matcher.old.get(old).map(|item| item.print.words().to_vec()).unwrap_or_default();
        words.dedup();
        for word in words {
            olds_of_word.entry(word).or_default().push(old);
        }
    }
    olds_of_word.retain(|_, olds| olds.len() <= COMMON_WORD_BLOCKS_MAX);
    let mut pairs = Vec::new();
    for new in matcher.free_new() {
        let Some(item) = matcher.new.get(new).filter(|item| item.print.words().len() >= FAR_WORDS_MIN) else {
            continue;
        };
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for old in item.print.words().iter().filter_map(|word| olds_of_word.get(word)).flatten() {
            *votes.entry(*old).or_default() += 1;
        }
        let mut ranked: Vec<(Reverse<usize>, usize)> =
            votes.into_iter().map(|(old, votes)| (Reverse(votes), old)).collect();
        ranked.sort_unstable();
        for (_, old) in ranked.into_iter().take(FAR_CANDIDATES_MAX) {
            let Some(other) = matcher.old.get(old).filter(|other| other.block.kind == item.block.kind) else {
                continue;
            };
            let likeness = other.likeness(item);
            if likeness >= likeness::FAR {
                let score = Reverse(score(matcher, old, new, likeness));
                pairs.push(Pair { score, distance: old.abs_diff(new), old, new });
            }
        }
    }
    pairs
}

/// Stage 7: the same explicit id between the same neighbours, whatever the words, when there is no other of its kind. Where several
/// blocks in a row were rewritten, numbers say nothing: they were given anew.
fn by_place(matcher: &mut Matcher<'_>) {
    let olds = grouped(matcher.free_old(), |at| matcher.old_gap(at));
    let news = grouped(matcher.free_new(), |at| matcher.new_gap(at));
    let mut pairs = Vec::new();
    for (gap, news) in &news {
        let olds = olds.get(gap).map(Vec::as_slice).unwrap_or_default();
        let (old_alone, new_alone) = (alone(&matcher.old, olds), alone(&matcher.new, news));
        for (kind, old) in old_alone {
            let id = |items: &[Item<'_>], at: usize| items.get(at).and_then(|item| item.id.map(str::to_owned));
            if let Some(new) = new_alone.get(&kind)
                && let Some(id_of_old) = id(&matcher.old, old)
                && id(&matcher.new, *new) == Some(id_of_old)
            {
                pairs.push((old, *new));
            }
        }
    }
    for (old, new) in pairs {
        matcher.join(old, new);
    }
    matcher.settle();
}

/// The blocks that are the only ones of their kind among these.
fn alone(items: &[Item<'_>], among: &[usize]) -> BTreeMap<BlockKind, usize> {
    let counts = kinds(items, among);
    let of_kind = among.iter().filter_map(|at| Some((items.get(*at)?.block.kind, *at)));
    of_kind.filter(|(kind, _)| counts.get(kind) == Some(&1)).collect()
}

/// Stage 8: blank lines and other fillers, in order, between the same unmoved neighbours.
fn fillers(matcher: &mut Matcher<'_>) {
    let mut olds: BTreeMap<(usize, BlockKind, &str), VecDeque<usize>> = BTreeMap::new();
    for at in matcher.free_old() {
        if let Some(item) = matcher.old.get(at).filter(|item| item.is_filler) {
            olds.entry((matcher.old_gap(at), item.block.kind, item.title)).or_default().push_back(at);
        }
    }
    for new in matcher.free_new() {
        let Some(item) = matcher.new.get(new).filter(|item| item.is_filler) else { continue };
        let same = olds.get_mut(&(matcher.new_gap(new), item.block.kind, item.title));
        if let Some(old) = same.and_then(VecDeque::pop_front) {
            matcher.join(old, new);
        }
    }
}
