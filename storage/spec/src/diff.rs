//! The fewest operations that turn an identified document into a new text.
//!
//! Moves are all matched blocks outside one longest increasing subsequence. The new text is walked in order; every block is placed right
//! behind the one before it, deletions come last:
//!
//! ```text
//! old  a b c d          new  a d x c        ops  Move d after a · Insert x after d · Delete b
//! ```
//! Why it is right: after each step the blocks walked so far stand in order and nothing but blocks still to be moved or deleted stands
//! between them; those leave. An operation never refers to a deleted block.

#[cfg(test)]
mod tests;

use std::fmt::Debug;

use crate::align::{Known, align_blocks};
use crate::block::Block;
use crate::ops::{Anchor, Op};
use crate::order;
use crate::parse::Document;

/// The operations that turn `old` into `new`: applying them to `old` prints exactly `new`.
///
/// None when the texts are equal, even where the same text was cut into other blocks before.
#[must_use]
pub fn diff<I: Copy + Ord + Debug>(old: &[Known<I>], new: &Document) -> Vec<Op<I>> {
    if is_same_text(old.iter().map(|known| &known.block), &new.blocks) {
        return Vec::new();
    }
    let old_blocks: Vec<&Block> = old.iter().map(|known| &known.block).collect();
    let new_blocks: Vec<&Block> = new.blocks.iter().collect();
    let matched = align_blocks(&old_blocks, &new_blocks);
    let places: Vec<usize> = matched.iter().copied().flatten().collect();
    let mut stays = order::stays(&places).into_iter();
    let mut is_kept = vec![false; old.len()];
    let mut walk = Walk { ops: Vec::new(), anchor: Anchor::Start, inserts: 0 };
    for (block, matched) in new.blocks.iter().zip(matched) {
        match matched.and_then(|at| Some((old.get(at)?, is_kept.get_mut(at)?))) {
            Some((known, is_kept)) => {
                *is_kept = true;
                walk.keep(known, block, stays.next() == Some(true));
            }
            None => walk.insert(block),
        }
    }
    let gone = old.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
    walk.ops.extend(gone.map(|(known, _)| Op::Delete { id: known.id }));
    walk.ops
}

/// Whether two sequences of blocks print the same text.
pub(crate) fn is_same_text<'a>(one: impl Iterator<Item = &'a Block> + Clone, two: &'a [Block]) -> bool {
    let length: usize = one.clone().map(Block::bytes).sum();
    length == two.iter().map(Block::bytes).sum::<usize>() && bytes(one).eq(bytes(two.iter()))
}

fn bytes<'a>(blocks: impl Iterator<Item = &'a Block>) -> impl Iterator<Item = u8> {
    blocks.flat_map(|block| {
        let content = &block.content;
        [&content.lead, &content.mark, &content.text].into_iter().flat_map(|part| part.bytes())
    })
}

/// The operations that change a block's content from `from` to `to`.
pub(crate) fn content_ops<I: Copy>(id: I, from: &Block, to: &Block) -> impl Iterator<Item = Op<I>> {
    let (old, new) = (&from.content, &to.content);
    let is_reworded = old.lead != new.lead || old.text != new.text || from.kind != to.kind;
    let text = is_reworded.then(|| Op::SetText { id, lead: new.lead.clone(), text: new.text.clone(), kind: to.kind });
    let mark = (old.mark != new.mark).then(|| Op::SetMark { id, mark: new.mark.clone() });
    text.into_iter().chain(mark)
}

struct Walk<I> {
    ops: Vec<Op<I>>,
    anchor: Anchor<I>,
    inserts: u32,
}

impl<I: Copy> Walk<I> {
    fn keep(&mut self, known: &Known<I>, block: &Block, stays: bool) {
        if !stays {
            self.ops.push(Op::Move { id: known.id, after: self.anchor });
        }
        self.ops.extend(content_ops(known.id, &known.block, block));
        self.anchor = Anchor::After(known.id);
    }

    fn insert(&mut self, block: &Block) {
        self.ops.push(Op::Insert { after: self.anchor, block: block.clone() });
        self.anchor = Anchor::AfterNew(self.inserts);
        self.inserts = self.inserts.saturating_add(1);
    }
}
