//! What becomes of the conflicts of a merge when a project has chosen strategies for them.
//!
//! ```text
//! merge3 -> ops + conflicts --settle--> ops' + the same conflicts, each with how it was settled (or left open)
//! ```
//! | strategy                       | mark, text, place  | block: we deleted, they edited | block: we edited, they deleted |
//! |--------------------------------|--------------------|--------------------------------|--------------------------------|
//! | `SPEC_WINS`, `LAST_WRITE_WINS` | ours is set        | deleted                        | ours is put back               |
//! | `RUNTIME_WINS`, `SKIP`         | theirs stays       | theirs stays                   | stays deleted                  |
//! | `MERGE`                        | see below          | theirs stays, open             | ours is put back, open         |
//! | `MANUAL`                       | theirs stays, open | theirs stays, open             | ours is put back, open         |
//!
//! `MERGE` unites a text by the rule of [`super::union`], takes their mark where both marks say the same (`-` and `/`), and leaves
//! everything else open. An open conflict keeps what [`super::merge3`] made of it: edit beats delete.
//!
//! Invariants, held by property tests: applying `ops` to the current state prints `text`; every conflict of the merge is in the result,
//! once and in order; no word of either side is missing from both the text and the conflicts. A conflict that isn't about what the
//! two states hold (callers may add such) is never settled by setting ours.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::conflict::{Conflict, ConflictField};
use super::strategy::{Strategies, Strategy};
use super::{Merge, rules, union};
use crate::align::Known;
use crate::block::{Block, BlockKind};
use crate::ops::{Anchor, Op, Placed, apply, print};
use crate::parse::Document;

/// A conflict and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledConflict<I> {
    /// The disagreement, all values in full.
    pub conflict: Conflict<I>,
    /// How it was settled without asking; `None` = it is open.
    pub settled: Option<Strategy>,
    /// The value that the field has in the settled text, written as the conflict's values are; `None` = there is no such block.
    pub value: Option<String>,
}

/// The result of [`settle`]: a [`Merge`] whose conflicts have been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled<I> {
    /// The operations to apply to the current state.
    pub ops: Vec<Op<I>>,
    /// The identity of each block of local; `None` = new.
    pub local_ids: Vec<Option<I>>,
    /// What applying `ops` to the current state prints.
    pub text: String,
    /// The conflicts of the merge, in its order.
    pub conflicts: Vec<SettledConflict<I>>,
}

/// What to do about one conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Open,
    Theirs,
    Ours,
    /// This wording.
    United(String),
}

/// Settles the conflicts of `merge`, which [`super::merge3`] made of the same three states.
///
/// # Panics
/// When the operations of `merge` don't fit `current`, so it is of other states: the caller's error.
#[must_use]
pub fn settle<I: Copy + Ord + Debug>(
    merge: Merge<I>,
    base: &[Known<I>],
    local: &Document,
    current: &[Known<I>],
    strategies: &Strategies,
) -> Settled<I> {
    let mut settler = Settler::new(merge.ops, base, local, &merge.local_ids, current);
    let decisions: Vec<Decision> =
        merge.conflicts.iter().map(|conflict| settler.decide(conflict, strategies.of(conflict.field))).collect();
    let decided: Vec<(&Conflict<I>, &Decision)> = merge.conflicts.iter().zip(&decisions).collect();
    settler.withdraw(&decided);
    settler.place(&decided, &merge.local_ids);
    settler.reword(&decided);
    settler.delete(&decided);
    let applied = apply(current, &settler.ops);
    let placed = applied.expect("invariant: the merge fits current, and what is added names blocks of its result");
    let stands = Standing::new(&placed);
    let settled = |(conflict, decision): (Conflict<I>, Decision)| SettledConflict {
        value: stands.value(&conflict),
        settled: (decision != Decision::Open).then(|| strategies.of(conflict.field)),
        conflict,
    };
    let conflicts = merge.conflicts.into_iter().zip(decisions).map(settled).collect();
    let text = print(placed.iter().map(|placed| &placed.block));
    Settled { ops: settler.ops, local_ids: merge.local_ids, text, conflicts }
}

struct Settler<'a, I> {
    ops: Vec<Op<I>>,
    local: &'a [Block],
    base: BTreeMap<I, &'a Block>,
    current: BTreeMap<I, &'a Block>,
    /// Where the block with this id stands in local.
    places: BTreeMap<I, usize>,
    /// For each block of local the number of the insert that brings it, when one does.
    inserts: Vec<Option<usize>>,
    /// Inserts that put back a block which the cluster deleted, by what they print.
    revived: BTreeMap<String, Vec<usize>>,
}

impl<'a, I: Copy + Ord + Debug> Settler<'a, I> {
    fn new(
        ops: Vec<Op<I>>,
        base: &'a [Known<I>],
        local: &'a Document,
        local_ids: &[Option<I>],
        current: &'a [Known<I>],
    ) -> Self {
        let by_id = |blocks: &'a [Known<I>]| blocks.iter().map(|known| (known.id, &known.block)).collect();
        let current: BTreeMap<I, &Block> = by_id(current);
        let places = local_ids.iter().enumerate().filter_map(|(at, id)| Some(((*id)?, at))).collect();
        let mut inserts = vec![None; local.blocks.len()];
        let mut revived: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        // a merge inserts blocks of local in the order of local, so one walk tells which insert brings which
        let mut brought = ops.iter().filter_map(inserted).enumerate().peekable();
        for (slot, (block, id)) in inserts.iter_mut().zip(local.blocks.iter().zip(local_ids)) {
            let is_absent = id.is_none_or(|id| !current.contains_key(&id));
            if let Some((insert, _)) = brought.next_if(|(_, inserted)| is_absent && *inserted == block) {
                *slot = Some(insert);
                if id.is_some() {
                    revived.entry(block.print()).or_default().push(insert);
                }
            }
        }
        Self { base: by_id(base), local: &local.blocks, current, places, inserts, revived, ops }
    }

    fn decide(&self, conflict: &Conflict<I>, strategy: Strategy) -> Decision {
        match strategy {
            Strategy::Manual => Decision::Open,
            Strategy::RuntimeWins | Strategy::Skip => Decision::Theirs,
            Strategy::SpecWins | Strategy::LastWriteWins => {
                if self.is_as_recorded(conflict) {
                    Decision::Ours
                } else {
                    Decision::Open
                }
            }
            Strategy::Merge => self.unite(conflict).unwrap_or(Decision::Open),
        }
    }

    /// Whether local and current hold what the conflict says they do.
    fn is_as_recorded(&self, conflict: &Conflict<I>) -> bool {
        let Some(id) = conflict.id else {
            return conflict.field == ConflictField::Existence
                && conflict.ours.as_ref().is_some_and(|ours| self.revived.contains_key(ours));
        };
        let Some(theirs) = self.current.get(&id) else { return false };
        let ours = self.ours(id);
        match conflict.field {
            ConflictField::Mark => ours.map(|block| block.content.mark.as_str()) == conflict.ours.as_deref(),
            ConflictField::Text => ours.is_some() && ours.map(Block::print) == conflict.ours,
            ConflictField::Place => ours.is_some(),
            ConflictField::Existence => ours.is_none() && Some(theirs.print()) == conflict.theirs,
        }
    }

    fn ours(&self, id: I) -> Option<&'a Block> {
        self.places.get(&id).and_then(|at| self.local.get(*at))
    }

    fn unite(&self, conflict: &Conflict<I>) -> Option<Decision> {
        let id = conflict.id.filter(|_| self.is_as_recorded(conflict))?;
        let (ours, theirs) = (self.ours(id)?, self.current.get(&id)?);
        match conflict.field {
            ConflictField::Mark => {
                rules::is_same_rank(&ours.content.mark, &theirs.content.mark).then_some(Decision::Theirs)
            }
            ConflictField::Text => {
                let base = self.base.get(&id)?;
                let is_lead_clash = ours.content.lead != base.content.lead
                    && theirs.content.lead != base.content.lead
                    && ours.content.lead != theirs.content.lead;
                union::union(base, ours, theirs).filter(|_| !is_lead_clash).map(Decision::United)
            }
            ConflictField::Place | ConflictField::Existence => None,
        }
    }

    /// Takes back the inserts of blocks that shall stay deleted.
    fn withdraw(&mut self, decided: &[(&Conflict<I>, &Decision)]) {
        let mut withdrawn = BTreeSet::new();
        for (conflict, decision) in decided {
            let is_revived = conflict.id.is_none() && conflict.field == ConflictField::Existence;
            if is_revived && **decision != Decision::Open {
                let waiting = conflict.ours.as_ref().and_then(|ours| self.revived.get_mut(ours));
                let insert = waiting.filter(|waiting| !waiting.is_empty()).map(|waiting| waiting.remove(0));
                withdrawn.extend(insert.filter(|_| **decision == Decision::Theirs));
            }
        }
        if !withdrawn.is_empty() {
            self.ops = without_inserts(std::mem::take(&mut self.ops), &withdrawn);
            let kept = |insert: usize| insert - withdrawn.range(..insert).count();
            for slot in &mut self.inserts {
                *slot = slot.filter(|insert| !withdrawn.contains(insert)).map(kept);
            }
        }
    }

    /// Moves blocks to where local has them: behind the nearest block before them that is still there.
    fn place(&mut self, decided: &[(&Conflict<I>, &Decision)], local_ids: &[Option<I>]) {
        let moved: BTreeSet<I> = ours(decided, ConflictField::Place).filter_map(|conflict| conflict.id).collect();
        if moved.is_empty() {
            return;
        }
        let deleted: BTreeSet<I> = self.ops.iter().filter_map(deleted).collect();
        let mut anchor = Anchor::Start;
        for (id, insert) in local_ids.iter().zip(&self.inserts) {
            let alive = id.filter(|id| self.current.contains_key(id) && !deleted.contains(id));
            if let Some(id) = alive.filter(|id| moved.contains(id)) {
                self.ops.push(Op::Move { id, after: anchor });
            }
            let new = insert.and_then(|insert| u32::try_from(insert).ok()).map(Anchor::AfterNew);
            anchor = alive.map(Anchor::After).or(new).unwrap_or(anchor);
        }
    }

    fn reword(&mut self, decided: &[(&Conflict<I>, &Decision)]) {
        for (conflict, decision) in decided {
            let Some((id, block)) = conflict.id.and_then(|id| Some((id, self.ours(id)?))) else { continue };
            let base = self.base.get(&id).copied();
            let Some(theirs) = self.current.get(&id) else { continue };
            match (conflict.field, decision) {
                (ConflictField::Mark, Decision::Ours) => {
                    self.ops.push(Op::SetMark { id, mark: block.content.mark.clone() });
                }
                (ConflictField::Text, Decision::Ours) => self.ops.extend(our_wording(id, base, block, theirs)),
                (ConflictField::Text, Decision::United(text)) => {
                    let lead = changed(base.map(|base| &base.content.lead), &block.content.lead, &theirs.content.lead);
                    self.ops.push(Op::SetText { id, lead, text: text.clone(), kind: theirs.kind });
                }
                (ConflictField::Mark | ConflictField::Text | ConflictField::Place | ConflictField::Existence, _) => {}
            }
        }
    }

    fn delete(&mut self, decided: &[(&Conflict<I>, &Decision)]) {
        let deleted = ours(decided, ConflictField::Existence).filter_map(|conflict| conflict.id);
        self.ops.extend(deleted.map(|id| Op::Delete { id }));
    }
}

/// The conflicts about a field that ours wins.
fn ours<'c, I>(
    decided: &[(&'c Conflict<I>, &Decision)],
    field: ConflictField,
) -> impl Iterator<Item = &'c Conflict<I>> {
    let wins =
        move |conflict: &Conflict<I>, decision: &Decision| conflict.field == field && *decision == Decision::Ours;
    decided.iter().filter(move |(conflict, decision)| wins(conflict, decision)).map(|(conflict, _)| *conflict)
}

/// Ours where it was changed, else theirs.
fn changed(base: Option<&String>, ours: &str, theirs: &str) -> String {
    if base.is_some_and(|base| base == ours) { theirs.to_owned() } else { ours.to_owned() }
}

/// The operations that give a block our wording. A part that only they changed stays theirs; a block that became a task, or no longer
/// is one, is taken whole.
fn our_wording<I: Copy>(id: I, base: Option<&Block>, ours: &Block, theirs: &Block) -> Vec<Op<I>> {
    let is_task = |block: &Block| block.kind == BlockKind::Task;
    let base = base.filter(|base| is_task(base) == is_task(ours)).map(|base| &base.content);
    if is_task(ours) == is_task(theirs) {
        let lead = changed(base.map(|base| &base.lead), &ours.content.lead, &theirs.content.lead);
        let text = changed(base.map(|base| &base.text), &ours.content.text, &theirs.content.text);
        return vec![Op::SetText { id, lead, text, kind: ours.kind }];
    }
    let (lead, text) = (ours.content.lead.clone(), ours.content.text.clone());
    vec![Op::SetText { id, lead, text, kind: ours.kind }, Op::SetMark { id, mark: ours.content.mark.clone() }]
}

fn inserted<I>(op: &Op<I>) -> Option<&Block> {
    match op {
        Op::Insert { block, .. } => Some(block),
        Op::SetText { .. } | Op::SetMark { .. } | Op::Move { .. } | Op::Delete { .. } => None,
    }
}

fn deleted<I: Copy>(op: &Op<I>) -> Option<I> {
    match op {
        Op::Delete { id } => Some(*id),
        Op::Insert { .. } | Op::SetText { .. } | Op::SetMark { .. } | Op::Move { .. } => None,
    }
}

/// The same operations without some inserts: what came after one of them comes after what it came after.
fn without_inserts<I: Copy>(ops: Vec<Op<I>>, withdrawn: &BTreeSet<usize>) -> Vec<Op<I>> {
    let mut kept = 0;
    // for each insert of the old list, how the new list names its place
    let mut anchors: Vec<Anchor<I>> = Vec::new();
    let mut rest = Vec::with_capacity(ops.len());
    for op in ops {
        let renamed = |after: Anchor<I>, anchors: &[Anchor<I>]| match after {
            Anchor::AfterNew(insert) => {
                usize::try_from(insert).ok().and_then(|insert| anchors.get(insert)).copied().unwrap_or(after)
            }
            Anchor::Start | Anchor::After(_) => after,
        };
        match op {
            Op::Insert { after, block } => {
                let after = renamed(after, &anchors);
                if withdrawn.contains(&anchors.len()) {
                    anchors.push(after);
                } else {
                    anchors.push(Anchor::AfterNew(kept));
                    kept += 1;
                    rest.push(Op::Insert { after, block });
                }
            }
            Op::Move { id, after } => rest.push(Op::Move { id, after: renamed(after, &anchors) }),
            other @ (Op::SetText { .. } | Op::SetMark { .. } | Op::Delete { .. }) => rest.push(other),
        }
    }
    rest
}

/// The settled blocks, for reading what a field has become.
struct Standing<'a, I> {
    placed: &'a [Placed<I>],
    of_id: BTreeMap<I, usize>,
    new: BTreeSet<String>,
}

impl<'a, I: Copy + Ord> Standing<'a, I> {
    fn new(placed: &'a [Placed<I>]) -> Self {
        let of_id = placed.iter().enumerate().filter_map(|(at, placed)| Some((placed.id?, at))).collect();
        let new = placed.iter().filter(|placed| placed.id.is_none()).map(|placed| placed.block.print()).collect();
        Self { placed, of_id, new }
    }

    fn value(&self, conflict: &Conflict<I>) -> Option<String> {
        let Some(id) = conflict.id else {
            return conflict.ours.clone().filter(|ours| self.new.contains(ours));
        };
        let at = *self.of_id.get(&id)?;
        let block = &self.placed.get(at)?.block;
        match conflict.field {
            ConflictField::Mark => Some(block.content.mark.clone()),
            ConflictField::Text | ConflictField::Existence => Some(block.print()),
            ConflictField::Place => {
                let before = at.checked_sub(1).and_then(|before| self.placed.get(before));
                Some(before.map(|placed| placed.block.print()).unwrap_or_default())
            }
        }
    }
}
