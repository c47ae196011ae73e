//! The stages of matching, in the order of [`super`]'s table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::matcher::{Item, Matcher};
use crate::block::{Block, BlockKind};
use crate::words::{Interner, LIKENESS_MAX};

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
    pub(super) const NAMED: usize = 300;
    /// Between the same neighbours.
    pub(super) const NEAR: usize = 500;
    /// The only ones of their kind between the same neighbours.
    pub(super) const ALONE: usize = 300;
    /// A bullet that became a task, or the other way round, between the same neighbours.
    pub(super) const OTHER_KIND: usize = 700;
    /// Anywhere.
    pub(super) const FAR: usize = 700;
}

/// Words that a block needs to be recognised anywhere by likeness alone.
const FAR_WORDS_MIN: usize = 4;

/// Matches two sequences: for each new block the index of the old one.
pub(super) fn run(old: &[&Block], new: &[&Block]) -> Vec<Option<usize>> {
    let mut matcher = Matcher::new(old, new);
    runs(&mut matcher);
    by_key(&mut matcher, 0, |item| item.id.map(|id| (item.block.kind, id, item.title)));
    by_key(&mut matcher, 0, |item| (!item.is_filler).then_some((item.block.kind, item.title)));
    by_key(&mut matcher, likeness::NAMED, |item| item.id.map(|id| (item.block.kind, id)));
    near(&mut matcher);
    far(&mut matcher);
    by_place(&mut matcher);
    fillers(&mut matcher);
    matcher.into_matched()
}

/// What a line is for the diff: a repeated task line counts with its mark, so that a ticked one isn't taken for an open one.
fn line_key<'a>(block: &'a Block, is_repeated: bool) -> (BlockKind, &'a str, &'a str, Option<&'a str>) {
    let content = &block.content;
    (block.kind, &content.lead, &content.text, is_repeated.then_some(&content.mark))
}

/// Stage 1: unchanged lines by a patience diff. Fillers don't take part: they match everywhere and would lead it astray.
fn runs<'a>(matcher: &mut Matcher<'a>) {
    let (old, new) = (substantial(&matcher.old), substantial(&matcher.new));
    let mut seen: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    for at in &old {
        count(&mut seen, matcher.old.get(*at), |(in_old, _)| in_old);
    }
    for at in &new {
        count(&mut seen, matcher.new.get(*at), |(_, in_new)| in_new);
    }
    let mut interner = Interner::new();
    let mut number = |item: &Item<'a>| -> u32 {
        let content = &item.block.content;
        let is_repeated = seen.get(&(content.lead.as_str(), content.text.as_str())).is_some_and(|(one, two)| *one > 1 || *two > 1);
        interner.intern(line_key(item.block, is_repeated))
    };
    let old_numbers: Vec<u32> = old.iter().filter_map(|at| matcher.old.get(*at)).map(&mut number).collect();
    let new_numbers: Vec<u32> = new.iter().filter_map(|at| matcher.new.get(*at)).map(&mut number).collect();
    for op in capture_diff_slices(Algorithm::Patience, &old_numbers, &new_numbers) {
        if let DiffOp::Equal { old_index, new_index, len } = op {
            for step in 0..len {
                if let (Some(one), Some(two)) = (old.get(old_index + step), new.get(new_index + step)) {
                    matcher.join(*one, *two);
                }
            }
        }
    }
    matcher.settle();
}

fn substantial(items: &[Item<'_>]) -> Vec<usize> {
    items.iter().enumerate().filter(|(_, item)| !item.is_filler).map(|(at, _)| at).collect()
}

fn count<'a>(
    seen: &mut BTreeMap<(&'a str, &'a str), (u32, u32)>,
    item: Option<&Item<'a>>,
    side: impl Fn(&mut (u32, u32)) -> &mut u32,
) {
    if let Some(item) = item {
        let content = &item.block.content;
        let times = side(seen.entry((&content.lead, &content.text)).or_default());
        *times = times.saturating_add(1);
    }
}

/// Stages 2 to 4: matches free items of equal key, each with the candidate whose surroundings agree best.
fn by_key<'a, K: Ord>(matcher: &mut Matcher<'a>, likeness_min: usize, key: impl Fn(&Item<'a>) -> Option<K>) {
    let mut candidates: BTreeMap<K, VecDeque<usize>> = BTreeMap::new();
    for at in matcher.free_old() {
        if let Some(key) = matcher.old.get(at).and_then(&key) {
            candidates.entry(key).or_default().push_back(at);
        }
    }
    for new in matcher.free_new() {
        let Some(item) = matcher.new.get(new) else { continue };
        let Some(olds) = key(item).and_then(|key| candidates.get_mut(&key)) else { continue };
        let scored = olds.iter().take(CANDIDATES_MAX).enumerate().filter_map(|(place, old)| {
            let likeness = matcher.old.get(*old)?.print.likeness(&item.print);
            (likeness >= likeness_min).then(|| ((matcher.surroundings(*old, new), likeness), Reverse(place)))
        });
        if let Some((_, Reverse(place))) = scored.max() {
            if let Some(old) = olds.remove(place) {
                matcher.join(old, new);
            }
        }
    }
    matcher.settle();
}

/// A possible match; the best come first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    unlikeness: usize,
    distance: usize,
    old: usize,
    new: usize,
}

fn join_best(matcher: &mut Matcher<'_>, mut pairs: Vec<Pair>) {
    pairs.sort_unstable();
    for pair in pairs {
        matcher.join(pair.old, pair.new);
    }
    matcher.settle();
}

/// Stage 5: blocks that are alike between the same neighbours.
fn near(matcher: &mut Matcher<'_>) {
    let olds = grouped(matcher.free_old(), |at| matcher.old_gap(at));
    let news = grouped(matcher.free_new(), |at| matcher.new_gap(at));
    let mut pairs = Vec::new();
    for (gap, news) in &news {
        if let Some(olds) = olds.get(gap) {
            near_pairs(matcher, olds, news, &mut pairs);
        }
    }
    join_best(matcher, pairs);
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
        let range = if is_large { level.saturating_sub(GAP_REACH)..(level + GAP_REACH).min(olds.len()) } else { 0..olds.len() };
        for (at, old) in olds.get(range.clone()).unwrap_or_default().iter().enumerate() {
            let (Some(one), Some(two)) = (matcher.old.get(*old), matcher.new.get(*new)) else { continue };
            let is_alone = old_kinds.get(&one.block.kind) == Some(&1) && new_kinds.get(&two.block.kind) == Some(&1);
            let Some(needed) = near_likeness(one.block.kind, two.block.kind, is_alone) else { continue };
            let likeness = one.print.likeness(&two.print);
            if likeness >= needed {
                pairs.push(Pair { unlikeness: LIKENESS_MAX - likeness, distance: (range.start + at).abs_diff(level), old: *old, new: *new });
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

/// Stage 6: blocks that are very alike anywhere, found by the rare words that they share.
fn far(matcher: &mut Matcher<'_>) {
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
        let Some(item) = matcher.new.get(new).filter(|item| item.print.words().len() >= FAR_WORDS_MIN) else { continue };
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for old in item.print.words().iter().filter_map(|word| olds_of_word.get(word)).flatten() {
            *votes.entry(*old).or_default() += 1;
        }
        let mut ranked: Vec<(Reverse<usize>, usize)> =
            votes.into_iter().map(|(old, votes)| (Reverse(votes), old)).collect();
        ranked.sort_unstable();
        for (_, old) in ranked.into_iter().take(FAR_CANDIDATES_MAX) {
            let Some(other) = matcher.old.get(old).filter(|other| other.block.kind == item.block.kind) else { continue };
            let likeness = other.print.likeness(&item.print);
            if likeness >= likeness::FAR {
                pairs.push(Pair { unlikeness: LIKENESS_MAX - likeness, distance: old.abs_diff(new), old, new });
            }
        }
    }
    join_best(matcher, pairs);
}

/// Stage 7: the same explicit id between the same neighbours, whatever the words. An id that repeats says nothing.
fn by_place(matcher: &mut Matcher<'_>) {
    let mut olds: BTreeMap<(usize, BlockKind, &str), Vec<usize>> = BTreeMap::new();
    let mut news: BTreeMap<(usize, BlockKind, &str), Vec<usize>> = BTreeMap::new();
    for at in matcher.free_old() {
        if let Some((item, id)) = matcher.old.get(at).and_then(|item| Some((item, item.id?))) {
            olds.entry((matcher.old_gap(at), item.block.kind, id)).or_default().push(at);
        }
    }
    for at in matcher.free_new() {
        if let Some((item, id)) = matcher.new.get(at).and_then(|item| Some((item, item.id?))) {
            news.entry((matcher.new_gap(at), item.block.kind, id)).or_default().push(at);
        }
    }
    for (key, news) in news {
        if let (Some([old]), [new]) = (olds.get(&key).map(Vec::as_slice), news.as_slice()) {
            matcher.join(*old, *new);
        }
    }
    matcher.settle();
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
        if let Some(olds) = olds.get_mut(&(matcher.new_gap(new), item.block.kind, item.title)) {
            if let Some(old) = olds.pop_front() {
                matcher.join(old, new);
            }
        }
    }
}
