//! The state of a matching: who is matched with whom, who is left, and in which gap between unmoved neighbours each stands.

use crate::block::{Block, BlockKind};
use crate::order;
use crate::words::Fingerprint;

/// A block under matching, with what the stages ask again and again.
pub(crate) struct Item<'a> {
    pub block: &'a Block,
    /// Index of the item's heading, when it stands under one.
    pub section: Option<usize>,
    /// The words of the title; empty until [`Matcher::read_words`] for those that are still free then.
    pub print: Fingerprint,
    pub id: Option<&'a str>,
    pub title: &'a str,
    /// Carries too little to be recognised elsewhere: blank, a rule, a lone word of one or two letters.
    pub is_filler: bool,
}

impl Item<'_> {
    /// How alike two items are, in thousandths. One that carries on where the other ends is the same with a note added, however long the
    /// note is.
    pub(crate) fn likeness(&self, other: &Self) -> usize {
        let likeness = self.print.likeness(&other.print);
        let is_extended = self.title.starts_with(other.title) || other.title.starts_with(self.title);
        let shorter = self.title.len().min(other.title.len());
        if is_extended && shorter >= EXTENDED_BYTES_MIN { likeness.max(EXTENDED_LIKENESS) } else { likeness }
    }
}

/// Bytes of a title that a longer one has to begin with to be the same with a note: two short words, or three ideographs.
const EXTENDED_BYTES_MIN: usize = 9;

/// Likeness of a title and the same title with a note, in thousandths: more than half the words, less than all.
const EXTENDED_LIKENESS: usize = 800;

/// Items of one side.
pub(crate) fn items<'a>(blocks: &[&'a Block]) -> Vec<Item<'a>> {
    let mut section = None;
    let mut items = Vec::with_capacity(blocks.len());
    for (at, block) in blocks.iter().enumerate() {
        let title = block.title();
        let letters = title.chars().filter(|symbol| symbol.is_alphanumeric()).take(LETTER_BYTES_MIN);
        let is_filler = letters.map(char::len_utf8).sum::<usize>() < LETTER_BYTES_MIN;
        items.push(Item { block, section, print: Fingerprint::default(), id: block.explicit_id(), title, is_filler });
        if block.kind == BlockKind::Heading {
            section = Some(at);
        }
    }
    items
}

/// Bytes of letters and digits that a title needs to be recognised by itself in another place; one ideograph has as many.
const LETTER_BYTES_MIN: usize = 3;

/// A matching of two sequences of items.
pub(crate) struct Matcher<'a> {
    pub old: Vec<Item<'a>>,
    pub new: Vec<Item<'a>>,
    to_new: Vec<Option<usize>>,
    to_old: Vec<Option<usize>>,
    old_gaps: Vec<usize>,
    new_gaps: Vec<usize>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(old: &[&'a Block], new: &[&'a Block]) -> Self {
        let (to_new, to_old) = (vec![None; old.len()], vec![None; new.len()]);
        let (old_gaps, new_gaps) = (vec![0; old.len()], vec![0; new.len()]);
        Self { old: items(old), new: items(new), to_new, to_old, old_gaps, new_gaps }
    }

    /// For each new item its old one.
    pub(crate) fn into_matched(self) -> Vec<Option<usize>> {
        self.to_old
    }

    /// Matches two items that are both free; anything else is ignored, which keeps the matching injective.
    pub(crate) fn join(&mut self, old: usize, new: usize) {
        if let (Some(forth @ None), Some(back @ None)) = (self.to_new.get_mut(old), self.to_old.get_mut(new)) {
            *forth = Some(new);
            *back = Some(old);
        }
    }

    /// Reads the words of the free items, for the stages that compare them.
    pub(crate) fn read_words(&mut self) {
        for at in self.free_old() {
            read(self.old.get_mut(at));
        }
        for at in self.free_new() {
            read(self.new.get_mut(at));
        }
    }

    pub(crate) fn free_old(&self) -> Vec<usize> {
        free(&self.to_new)
    }

    pub(crate) fn free_new(&self) -> Vec<usize> {
        free(&self.to_old)
    }

    /// Recomputes the gaps: the number of unmoved matched items before each item. Items of one gap stand between the same neighbours.
    pub(crate) fn settle(&mut self) {
        let pairs: Vec<(usize, usize)> =
            self.to_old.iter().enumerate().filter_map(|(new, old)| old.map(|old| (old, new))).collect();
        let stays = order::stays(&pairs.iter().map(|(old, _)| *old).collect::<Vec<_>>());
        let anchors: Vec<(usize, usize)> =
            pairs.into_iter().zip(stays).filter(|(_, stays)| *stays).map(|(pair, _)| pair).collect();
        self.old_gaps = gaps(self.old.len(), anchors.iter().map(|(old, _)| *old));
        self.new_gaps = gaps(self.new.len(), anchors.iter().map(|(_, new)| *new));
    }

    pub(crate) fn old_gap(&self, old: usize) -> usize {
        self.old_gaps.get(old).copied().unwrap_or_default()
    }

    pub(crate) fn new_gap(&self, new: usize) -> usize {
        self.new_gaps.get(new).copied().unwrap_or_default()
    }

    /// How well the surroundings of two items agree: gap, heading, and the neighbours on both sides.
    pub(crate) fn surroundings(&self, old: usize, new: usize) -> u8 {
        let is_joined = |old: Option<usize>, new: Option<usize>| match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => self.to_new.get(old).copied().flatten() == Some(new),
            (None, Some(_)) | (Some(_), None) => false,
        };
        let section =
            is_joined(self.old.get(old).and_then(|item| item.section), self.new.get(new).and_then(|item| item.section));
        let before = is_joined(old.checked_sub(1), new.checked_sub(1));
        let after = is_joined(Some(old + 1), Some(new + 1));
        let gap = self.old_gap(old) == self.new_gap(new);
        4 * u8::from(section) + 2 * u8::from(gap) + u8::from(before) + u8::from(after)
    }
}

fn read(item: Option<&mut Item<'_>>) {
    if let Some(item) = item.filter(|item| !item.is_filler || item.id.is_some()) {
        item.print = Fingerprint::of(item.title);
    }
}

fn free(matches: &[Option<usize>]) -> Vec<usize> {
    matches.iter().enumerate().filter(|(_, matched)| matched.is_none()).map(|(at, _)| at).collect()
}

fn gaps(length: usize, anchors: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut gaps = Vec::with_capacity(length);
    let mut anchors = anchors.peekable();
    let mut gap = 0;
    for at in 0..length {
        if anchors.next_if_eq(&at).is_some() {
            gap += 1;
        }
        gaps.push(gap);
    }
    gaps
}
