//! Identity: which block of a new text is which block of the old one.
//!
//! A task keeps its id through re-numbering, re-wording, moving, re-indenting and ticking. Evidence is used from the strongest to the weakest,
//! and each stage sees only what the stages before left over:
//!
//! ```text
//! 1 runs        equal head and tail, then a patience diff over the lines between (ticks aside)
//! 2 name+words  same explicit id and same title: re-indented or moved
//! 3 section     same title under the same heading: renumbered
//! 4 words       same title: moved and renumbered
//! 5 alike       same explicit id and some words in common; alike between the same unmoved neighbours; very alike anywhere:
//!               re-worded, all weighed together, the best pairs first
//! 6 near        alike, between the unmoved neighbours that are known by now
//! 7 place       same explicit id, alone of its kind at the same place: re-worded beyond recognition
//! 8 fillers     blank lines and rules, between the same unmoved neighbours; they never move
//! ```
//! Title goes before id, and likeness is weighed against it, since inserting one task renumbers all after it. How well this does on real
//! histories is measured by the example `identity`. Invariants: the result is injective; it is a function of its
//! arguments alone. Every stage is bounded (named limits), so the time is near linear for any input.

mod matcher;
mod stages;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use crate::block::{Block, BlockKind};
use crate::parse::Document;

/// A block that already has an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<I> {
    /// The identity; unique within a document.
    pub id: I,
    /// The block as it was.
    pub block: Block,
}

/// For each block of `new` the id of the block of `old` that it is, or `None` when it is new. Injective.
#[must_use]
pub fn align<I: Copy + Ord + Debug>(old: &[Known<I>], new: &Document) -> Vec<Option<I>> {
    let old_blocks: Vec<&Block> = old.iter().map(|known| &known.block).collect();
    let new_blocks: Vec<&Block> = new.blocks.iter().collect();
    align_blocks(&old_blocks, &new_blocks)
        .into_iter()
        .map(|at| at.and_then(|at| old.get(at)).map(|known| known.id))
        .collect()
}

/// [`align`] by position: for each new block the index of the old one.
pub(crate) fn align_blocks(old: &[&Block], new: &[&Block]) -> Vec<Option<usize>> {
    let head = old.iter().zip(new).take_while(|(one, two)| one == two).count();
    let (old_rest, new_rest) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(one, two)| one == two).count();
    let tail = if heading_before(old, tail) == heading_before(new, tail) { tail } else { whole_sections(old, tail) };
    let old_middle = old_rest.get(..old_rest.len() - tail).unwrap_or_default();
    let new_middle = new_rest.get(..new_rest.len() - tail).unwrap_or_default();
    let mut matched: Vec<Option<usize>> = (0..head).map(Some).collect();
    if !old_middle.is_empty() && !new_middle.is_empty() {
        matched.extend(stages::run(old_middle, new_middle).into_iter().map(|at| at.map(|at| at + head)));
    } else {
        matched.extend(new_middle.iter().map(|_| None));
    }
    matched.extend((old.len() - tail..old.len()).map(Some));
    matched
}

/// The heading that the last `tail` blocks begin under.
fn heading_before<'a>(blocks: &[&'a Block], tail: usize) -> Option<&'a Block> {
    let before = blocks.get(..blocks.len() - tail)?;
    before.iter().rev().find(|block| block.kind == BlockKind::Heading).copied()
}

/// Of an equal tail that begins under different headings, the part from its own first heading on.
fn whole_sections(blocks: &[&Block], tail: usize) -> usize {
    let start = blocks.len() - tail;
    let before_heading = blocks.iter().skip(start).take_while(|block| block.kind != BlockKind::Heading).count();
    tail - before_heading
}
