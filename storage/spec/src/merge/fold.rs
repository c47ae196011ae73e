//! The same line inserted twice at one place folds into one.
//!
//! A place is the gap behind a block that both sides still have. Within a gap, a line that local inserted is the one that current inserted when
//! both have the same wording under the same heading; ticks may differ. Without the heading rule two new sections that each bring a
//! "Write tests" would lose one of them. Blank lines fold only beside a line that folded, or when local inserted nothing else, so that sections don't grow into one another.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

use crate::align::Known;
use crate::block::{Block, BlockKind};

/// Candidates of the same wording that are looked at for one inserted line; a gap with more copies of one line keeps the others apart.
const COPIES_MAX: usize = 16;

/// What was inserted in one gap, in order.
struct Gap<I> {
    local: Vec<usize>,
    current: Vec<(I, usize)>,
}

/// For each block of `local` the id of the block of `current` that is the same insertion. `ids` are the identities of the local blocks.
pub(super) fn fold<I: Copy + Ord + Debug>(
    local: &[Block],
    ids: &[Option<I>],
    current: &[Known<I>],
    is_shared: impl Fn(I) -> bool,
    is_in_base: impl Fn(I) -> bool,
) -> Vec<Option<I>> {
    let mut gaps: BTreeMap<Option<I>, Gap<I>> = BTreeMap::new();
    let mut place = None;
    for (at, id) in ids.iter().enumerate() {
        match id {
            Some(id) if is_shared(*id) => place = Some(*id),
            Some(_) => {}
            None => gaps.entry(place).or_insert_with(|| Gap { local: Vec::new(), current: Vec::new() }).local.push(at),
        }
    }
    place = None;
    for (at, known) in current.iter().enumerate() {
        if is_shared(known.id) {
            place = Some(known.id);
        } else if !is_in_base(known.id)
            && let Some(gap) = gaps.get_mut(&place)
        {
            gap.current.push((known.id, at));
        }
    }
    let mut folded = vec![None; local.len()];
    for gap in gaps.into_values().filter(|gap| !gap.current.is_empty()) {
        let ours: Vec<&Block> = gap.local.iter().filter_map(|at| local.get(*at)).collect();
        let theirs: Vec<&Block> =
            gap.current.iter().filter_map(|(_, at)| current.get(*at)).map(|known| &known.block).collect();
        for (our, their) in fold_gap(&ours, &theirs) {
            if let (Some(slot), Some((id, _))) =
                (gap.local.get(our).and_then(|at| folded.get_mut(*at)), gap.current.get(their))
            {
                *slot = Some(*id);
            }
        }
    }
    folded
}

/// Pairs (ours, theirs) of insertions that are the same. Injective.
fn fold_gap(ours: &[&Block], theirs: &[&Block]) -> Vec<(usize, usize)> {
    let our_parents = parents(ours);
    let their_parents = parents(theirs);
    let mut copies: BTreeMap<(BlockKind, &str, &str), VecDeque<usize>> = BTreeMap::new();
    for (at, block) in theirs.iter().enumerate() {
        copies.entry(wording(block)).or_default().push_back(at);
    }
    let mut to_theirs: Vec<Option<usize>> = vec![None; ours.len()];
    let mut is_taken = vec![false; theirs.len()];
    let mut last = None;
    for (our, block) in ours.iter().enumerate() {
        let Some(copies) = copies.get_mut(&wording(block)).filter(|_| !block.is_blank()) else {
            continue;
        };
        let parent = our_parents.get(our).copied().flatten();
        let parent = parent.map(|parent| to_theirs.get(parent).copied().flatten());
        let is_same_parent = |their: &usize| match (parent, their_parents.get(*their).copied().flatten()) {
            (None, None) => true,
            (Some(Some(one)), Some(two)) => one == two,
            (Some(_) | None, Some(_) | None) => false,
        };
        let candidates = copies.iter().take(COPIES_MAX).enumerate().filter(|(_, their)| is_same_parent(their));
        let chosen = candidates.min_by_key(|(place, their)| (Some(**their) <= last, *place)).map(|(place, _)| place);
        if let Some(their) = chosen.and_then(|place| copies.remove(place)) {
            join(&mut to_theirs, &mut is_taken, our, their);
            last = last.max(Some(their));
        }
    }
    if ours.iter().all(|block| block.is_blank()) {
        for at in 0..ours.len() {
            fold_blank(ours, theirs, &mut to_theirs, &mut is_taken, at, Some(at));
        }
    }
    let forth: Vec<usize> = (1..ours.len()).collect();
    for our in forth.iter().copied() {
        let their = to_theirs.get(our - 1).copied().flatten().map(|before| before + 1);
        fold_blank(ours, theirs, &mut to_theirs, &mut is_taken, our, their);
    }
    for after in forth.into_iter().rev() {
        let their = to_theirs.get(after).copied().flatten().and_then(|after| after.checked_sub(1));
        fold_blank(ours, theirs, &mut to_theirs, &mut is_taken, after - 1, their);
    }
    to_theirs.into_iter().enumerate().filter_map(|(our, their)| their.map(|their| (our, their))).collect()
}

fn wording(block: &Block) -> (BlockKind, &str, &str) {
    (block.kind, &block.content.lead, &block.content.text)
}

/// For each block the index of the inserted heading it stands under; for a heading, the one of a higher level.
fn parents(blocks: &[&Block]) -> Vec<Option<usize>> {
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut parents = Vec::with_capacity(blocks.len());
    for (at, block) in blocks.iter().enumerate() {
        let level = block.heading_level();
        if level > 0 {
            while open.last().is_some_and(|(above, _)| *above >= level) {
                open.pop();
            }
        }
        parents.push(open.last().map(|(_, heading)| *heading));
        if level > 0 {
            open.push((level, at));
        }
    }
    parents
}

fn join(to_theirs: &mut [Option<usize>], is_taken: &mut [bool], our: usize, their: usize) {
    if let (Some(slot @ None), Some(taken @ false)) = (to_theirs.get_mut(our), is_taken.get_mut(their)) {
        *slot = Some(their);
        *taken = true;
    }
}

fn fold_blank(
    ours: &[&Block],
    theirs: &[&Block],
    to_theirs: &mut [Option<usize>],
    is_taken: &mut [bool],
    our: usize,
    their: Option<usize>,
) {
    let pair = their.and_then(|their| Some((ours.get(our)?, theirs.get(their)?, their)));
    if let Some((one, two, their)) = pair
        && one.is_blank()
        && one == two
    {
        join(to_theirs, is_taken, our, their);
    }
}
