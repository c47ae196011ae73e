//! Three-way merge with identity: what a writer changed since its base, as operations on the current state.
//!
//! ```text
//!            base
//!           /    \
//!     local        current        local:   what the writer has on disk
//!           \    /                current: what the cluster has now; committed first, so it stays in a clash
//!           merged = current + ops
//! ```
//! Each field of each block is decided by the one table in [`rules`]. Invariants, held by property tests:
//! - `local == base` gives no operations; `current == base` gives exactly `local`;
//! - no word that local added is missing from both the merged text and the conflicts;
//! - `text` is what applying `ops` to `current` prints; equal inputs give equal results.
//!
//! It doesn't know who is right: a clash keeps the current value and records both.

mod conflict;
mod fold;
#[cfg(test)]
mod laws;
mod revive;
mod rules;
mod settle;
mod strategy;
#[cfg(test)]
mod tests;
mod text;
mod union;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::align::{Known, align};
use crate::block::Block;
use crate::chain::{Chain, Node};
use crate::diff::{content_ops, is_same_text};
use crate::ops::{Anchor, Op, apply, print};
use crate::order;
use crate::parse::Document;
pub use conflict::{Conflict, ConflictClass, ConflictField, Severity, UnknownField, severity};
pub use settle::{Settled, SettledConflict, settle};
pub use strategy::{Strategies, Strategy, UnknownStrategy};
pub use text::{TextMerge, merge_text};

/// Blocks looked back over to see whether a moved block already stands where it shall; beyond that it is moved again, which is
/// harmless.
const LOOK_BACK_MAX: usize = 64;

/// The result of [`merge3`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge<I> {
    /// The operations to apply to the current state.
    pub ops: Vec<Op<I>>,
    /// What could not be united.
    pub conflicts: Vec<Conflict<I>>,
    /// The merged canonical text: what applying `ops` to the current state prints.
    pub text: String,
    /// The identity of each block of local; `None` = new.
    pub local_ids: Vec<Option<I>>,
}

/// Merges what `local` changed since `base` into `current`. Blocks of `current` that `base` lacks are new in the cluster.
#[must_use]
pub fn merge3<I: Copy + Ord + Debug>(base: &[Known<I>], local: &Document, current: &[Known<I>]) -> Merge<I> {
    let untouched = |local_ids| Merge {
        ops: Vec::new(),
        conflicts: Vec::new(),
        text: print(current.iter().map(|known| &known.block)),
        local_ids,
    };
    if is_same_text(base.iter().map(|known| &known.block), &local.blocks) {
        return untouched(align(base, local));
    }
    if is_same_text(current.iter().map(|known| &known.block), &local.blocks) {
        return untouched(align(current, local));
    }
    let ids = align(base, local);
    Merger::new(base, local, current, ids).run()
}

/// What a block of the merged sequence is.
struct Slot<I> {
    anchor: Anchor<I>,
    is_in_local: bool,
}

struct Merger<'a, I> {
    base: BTreeMap<I, &'a Block>,
    current: &'a [Known<I>],
    blocks: BTreeMap<I, (&'a Block, Node)>,
    local: &'a [Block],
    local_ids: Vec<Option<I>>,
    folds: Vec<Option<I>>,
    moved_by_us: BTreeSet<I>,
    moved_by_them: BTreeSet<I>,
    chain: Chain<Slot<I>>,
    anchor: Option<Node>,
    inserts: u32,
    ops: Vec<Op<I>>,
    conflicts: Vec<Conflict<I>>,
}

impl<'a, I: Copy + Ord + Debug> Merger<'a, I> {
    fn new(base: &'a [Known<I>], local: &'a Document, current: &'a [Known<I>], mut ids: Vec<Option<I>>) -> Self {
        let in_current: BTreeSet<I> = current.iter().map(|known| known.id).collect();
        let mut places: BTreeMap<I, usize> = base.iter().enumerate().map(|(at, known)| (known.id, at)).collect();
        let mut base_blocks: BTreeMap<I, &Block> = base.iter().map(|known| (known.id, &known.block)).collect();
        // A block that the cluster deleted and local edited comes back: as the block that another writer put back already, else as an
        // insertion, so it can fold like one.
        let is_gone = |id: I, block: &Block| {
            let is_edited = base_blocks.get(&id).is_some_and(|base| base.content != block.content);
            !in_current.contains(&id) && is_edited
        };
        let gone: BTreeSet<I> =
            ids.iter().zip(&local.blocks).filter_map(|(id, block)| id.filter(|id| is_gone(*id, block))).collect();
        let revived = revive::revived(base, &gone, current);
        for id in ids.iter_mut().flatten() {
            if let Some(now) = revived.get(id) {
                places.extend(places.get(id).copied().map(|place| (*now, place)));
                base_blocks.extend(base_blocks.get(id).copied().map(|block| (*now, block)));
                *id = *now;
            }
        }
        let in_local: BTreeSet<I> = ids.iter().copied().flatten().collect();
        let ids_in_place: Vec<Option<I>> = ids.iter().map(|id| id.filter(|id| !gone.contains(id))).collect();
        let folds = fold::fold(
            &local.blocks,
            &ids_in_place,
            current,
            |id| in_local.contains(&id) && in_current.contains(&id),
            |id| places.contains_key(&id),
        );
        let folded: BTreeSet<I> = folds.iter().copied().flatten().collect();
        let mut chain = Chain::new();
        let mut blocks = BTreeMap::new();
        let mut last = None;
        for known in current {
            let is_in_local = in_local.contains(&known.id) || folded.contains(&known.id);
            let node = chain.insert(last, Slot { anchor: Anchor::After(known.id), is_in_local });
            blocks.insert(known.id, (&known.block, node));
            last = Some(node);
        }
        Self {
            base: base_blocks,
            current,
            blocks,
            local: &local.blocks,
            moved_by_us: moved(&places, ids.iter().copied().flatten()),
            moved_by_them: moved(&places, current.iter().map(|known| known.id)),
            local_ids: ids,
            folds,
            chain,
            anchor: None,
            inserts: 0,
            ops: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    fn run(mut self) -> Merge<I> {
        let local = self.local;
        let mut ids = std::mem::take(&mut self.local_ids);
        let folds = std::mem::take(&mut self.folds);
        for (at, (block, (id, fold))) in local.iter().zip(ids.iter_mut().zip(folds)).enumerate() {
            match (*id, fold) {
                (_, Some(fold)) => {
                    self.fold(fold, block);
                    *id = Some(fold);
                }
                (Some(known), None) => self.keep(known, at, block),
                (None, None) => self.insert(block),
            }
        }
        self.delete(&ids.iter().copied().flatten().collect());
        let applied = apply(self.current, &self.ops);
        let placed = applied.expect("invariant: every operation names a block of current or an earlier insert");
        Merge {
            text: print(placed.iter().map(|placed| &placed.block)),
            ops: self.ops,
            conflicts: self.conflicts,
            local_ids: ids,
        }
    }

    /// A block of the base that local still has.
    fn keep(&mut self, id: I, at: usize, ours: &'a Block) {
        let Some(base) = self.base.get(&id).copied() else { return };
        let Some((theirs, node)) = self.blocks.get(&id).copied() else {
            if ours.content != base.content && !ours.is_blank() {
                self.record(None, ConflictField::Existence, Some(base.print()), Some(ours.print()), None);
                self.insert(ours);
            }
            return;
        };
        self.place(id, at, node);
        let fields = rules::merge_fields(base, ours, theirs);
        self.ops.extend(content_ops(id, theirs, &fields.merged));
        if fields.is_text_clash {
            self.record(Some(id), ConflictField::Text, Some(base.print()), Some(ours.print()), Some(theirs.print()));
        }
        if fields.is_mark_clash {
            let mark = |block: &Block| Some(block.content.mark.clone());
            self.record(Some(id), ConflictField::Mark, mark(base), mark(ours), mark(theirs));
        }
        self.anchor = Some(node);
    }

    /// Moves a block that local moved, unless the cluster moved it too.
    fn place(&mut self, id: I, at: usize, node: Node) {
        if !self.moved_by_us.contains(&id) || self.is_in_place(node) {
            return;
        }
        if self.moved_by_them.contains(&id) {
            let before =
                |blocks: &mut dyn Iterator<Item = &'a Block>| blocks.last().map(Block::print).unwrap_or_default();
            let ours = before(&mut self.local.iter().take(at));
            let theirs = before(&mut self.current.iter().take_while(|known| known.id != id).map(|known| &known.block));
            self.record(Some(id), ConflictField::Place, None, Some(ours), Some(theirs));
            return;
        }
        self.ops.push(Op::Move { id, after: self.anchor() });
        self.chain.shift(node, self.anchor);
    }

    /// Whether the nearest block before `node` that local has is the anchor.
    fn is_in_place(&self, node: Node) -> bool {
        let mut before = self.chain.before(node);
        for _ in 0..LOOK_BACK_MAX {
            match before {
                Some(other) if self.chain.get(other).is_some_and(|slot| !slot.is_in_local) => {
                    before = self.chain.before(other);
                }
                Some(_) | None => return before == self.anchor,
            }
        }
        false
    }

    /// A line that both inserted at the same place.
    fn fold(&mut self, id: I, ours: &Block) {
        let Some((theirs, node)) = self.blocks.get(&id).copied() else { return };
        match rules::both_marked(&ours.content.mark, &theirs.content.mark) {
            rules::Outcome::Theirs => {}
            rules::Outcome::Set(mark) => self.ops.push(Op::SetMark { id, mark }),
            rules::Outcome::Clash => {
                let (ours, theirs) = (ours.content.mark.clone(), theirs.content.mark.clone());
                self.record(Some(id), ConflictField::Mark, None, Some(ours), Some(theirs));
            }
        }
        self.anchor = Some(node);
    }

    fn insert(&mut self, block: &Block) {
        self.ops.push(Op::Insert { after: self.anchor(), block: block.clone() });
        let slot = Slot { anchor: Anchor::AfterNew(self.inserts), is_in_local: true };
        self.anchor = Some(self.chain.insert(self.anchor, slot));
        self.inserts = self.inserts.saturating_add(1);
    }

    /// Deletes what local deleted, unless the cluster edited it.
    fn delete(&mut self, in_local: &BTreeSet<I>) {
        for known in self.current.iter().filter(|known| !in_local.contains(&known.id)) {
            let Some(base) = self.base.get(&known.id).copied() else { continue };
            if base.content == known.block.content || known.block.is_blank() {
                self.ops.push(Op::Delete { id: known.id });
            } else {
                self.record(
                    Some(known.id),
                    ConflictField::Existence,
                    Some(base.print()),
                    None,
                    Some(known.block.print()),
                );
            }
        }
    }

    fn anchor(&self) -> Anchor<I> {
        self.anchor.and_then(|node| self.chain.get(node)).map_or(Anchor::Start, |slot| slot.anchor)
    }

    fn record(
        &mut self,
        id: Option<I>,
        field: ConflictField,
        base: Option<String>,
        ours: Option<String>,
        theirs: Option<String>,
    ) {
        let class = match field {
            ConflictField::Mark | ConflictField::Text => ConflictClass::Data,
            ConflictField::Place | ConflictField::Existence => ConflictClass::Structure,
        };
        self.conflicts.push(Conflict { id, class, field, base, ours, theirs });
    }
}

/// The ids that a side moved, given the order it has them in.
fn moved<I: Copy + Ord>(base: &BTreeMap<I, usize>, order: impl Iterator<Item = I>) -> BTreeSet<I> {
    let shared: Vec<(I, usize)> = order.filter_map(|id| base.get(&id).map(|place| (id, *place))).collect();
    let places: Vec<usize> = shared.iter().map(|(_, place)| *place).collect();
    shared.into_iter().zip(order::stays(&places)).filter(|(_, stays)| !stays).map(|((id, _), _)| id).collect()
}
