//! Edits as operations on identified blocks: the vocabulary, and what it means.
//!
//! Operations are applied in order. "After" means right behind: what is already there moves down. [`apply`] is the meaning in
//! its shortest form; the replicated machine implements the same and is tested against it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::align::Known;
use crate::block::{Block, BlockKind};
use crate::chain::{Chain, Node};

/// What a block comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anchor<I> {
    /// Nothing: it comes first.
    Start,
    /// The block with this id.
    After(I),
    /// The block of the n-th [`Op::Insert`] of the same list, counted from 0.
    AfterNew(u32),
}

/// One operation on a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op<I> {
    /// A new block.
    Insert {
        /// Where.
        after: Anchor<I>,
        /// What.
        block: Block,
    },
    /// Other wording, indentation, marker or kind; the mark stays.
    SetText {
        /// Which block.
        id: I,
        /// Its new lead.
        lead: String,
        /// Its new text.
        text: String,
        /// Its kind from now on.
        kind: BlockKind,
    },
    /// Another mark.
    SetMark {
        /// Which block.
        id: I,
        /// Its new mark.
        mark: String,
    },
    /// Another place.
    Move {
        /// Which block.
        id: I,
        /// Where.
        after: Anchor<I>,
    },
    /// The block is gone.
    Delete {
        /// Which block.
        id: I,
    },
}

/// A block of the result of [`apply`]: an old one with its id, or the n-th insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<I> {
    /// The id of a block that was there before, `None` for a new one.
    pub id: Option<I>,
    /// For a new block, which [`Op::Insert`] of the list made it, counted from 0.
    pub insert: Option<u32>,
    /// The block.
    pub block: Block,
}

/// Operations that don't fit the document they are applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// An operation names a block that isn't there, or no longer.
    #[error("operation {op} names block {id}, which the document doesn't have")]
    UnknownBlock {
        /// Position of the operation, from 0.
        op: usize,
        /// The id.
        id: String,
    },
    /// An anchor names an insert that comes later or never.
    #[error("operation {op} comes after insert {insert}, which isn't before it")]
    UnknownInsert {
        /// Position of the operation, from 0.
        op: usize,
        /// The insert's number.
        insert: u32,
    },
    /// Two blocks of the document have one id.
    #[error("two blocks of the document have the id {id}")]
    RepeatedBlock {
        /// The id.
        id: String,
    },
}

/// Applies operations in order and gives the resulting blocks.
///
/// # Errors
/// [`ApplyError`] when an operation refers to something that isn't there; the first such operation is named.
pub fn apply<I: Copy + Ord + Debug>(old: &[Known<I>], ops: &[Op<I>]) -> Result<Vec<Placed<I>>, ApplyError> {
    let mut state = Applying { chain: Chain::new(), of_id: BTreeMap::new(), inserts: Vec::new() };
    let mut last = None;
    for known in old {
        let node = state.chain.insert(last, Placed { id: Some(known.id), insert: None, block: known.block.clone() });
        if state.of_id.insert(known.id, node).is_some() {
            return Err(ApplyError::RepeatedBlock { id: format!("{:?}", known.id) });
        }
        last = Some(node);
    }
    for (at, op) in ops.iter().enumerate() {
        state.apply(at, op)?;
    }
    Ok(state.chain.into_items())
}

struct Applying<I> {
    chain: Chain<Placed<I>>,
    of_id: BTreeMap<I, Node>,
    inserts: Vec<Node>,
}

impl<I: Copy + Ord + Debug> Applying<I> {
    fn apply(&mut self, at: usize, op: &Op<I>) -> Result<(), ApplyError> {
        match op {
            Op::Insert { after, block } => {
                let anchor = self.anchor(at, *after)?;
                let insert = u32::try_from(self.inserts.len()).ok();
                let node = self.chain.insert(anchor, Placed { id: None, insert, block: block.clone() });
                self.inserts.push(node);
            }
            Op::SetText { id, lead, text, kind } => {
                let block = self.block(at, *id)?;
                block.kind = *kind;
                block.content.lead.clone_from(lead);
                block.content.text.clone_from(text);
            }
            Op::SetMark { id, mark } => self.block(at, *id)?.content.mark.clone_from(mark),
            Op::Move { id, after } => {
                let (node, anchor) = (self.node(at, *id)?, self.anchor(at, *after)?);
                self.chain.shift(node, anchor);
            }
            Op::Delete { id } => {
                let node = self.node(at, *id)?;
                self.chain.remove(node);
            }
        }
        Ok(())
    }

    fn anchor(&self, op: usize, anchor: Anchor<I>) -> Result<Option<Node>, ApplyError> {
        match anchor {
            Anchor::Start => Ok(None),
            Anchor::After(id) => self.node(op, id).map(Some),
            Anchor::AfterNew(insert) => {
                let node = usize::try_from(insert).ok().and_then(|insert| self.inserts.get(insert));
                node.map(|node| Some(*node)).ok_or(ApplyError::UnknownInsert { op, insert })
            }
        }
    }

    fn node(&self, op: usize, id: I) -> Result<Node, ApplyError> {
        let node = self.of_id.get(&id).copied().filter(|node| !self.chain.is_removed(*node));
        node.ok_or_else(|| ApplyError::UnknownBlock { op, id: format!("{id:?}") })
    }

    fn block(&mut self, op: usize, id: I) -> Result<&mut Block, ApplyError> {
        let node = self.node(op, id)?;
        let placed = self.chain.get_mut(node);
        placed.map(|placed| &mut placed.block).ok_or_else(|| ApplyError::UnknownBlock { op, id: format!("{id:?}") })
    }
}

/// The text of a sequence of blocks.
pub(crate) fn print<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> String {
    let mut out = String::new();
    for block in blocks {
        block.print_into(&mut out);
    }
    out
}
