//! A deleted block that two writers edited comes back once.
//!
//! The first of them put it back as a new block, since its identity was gone. To the second it is the block that they both know:
//!
//! ```text
//! base      a b        local   a b+one        -> the first merge gives   a b+one   (b+one is new to the cluster)
//! current   a          local   a b+two        -> the second merge gives  a b+one+two, not a b+one b+two
//! ```
//! Only blocks that local edited and the cluster deleted are looked for, among those that are new to local, and only what is alike counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::align::{Known, align_blocks};
use crate::block::Block;
use crate::words::Fingerprint;

/// Likeness of a deleted block and a new one that makes them one, in thousandths: as much as between the same neighbours.
const REVIVED_LIKENESS_MIN: usize = 500;

/// For blocks of the base that the cluster deleted and local edited (`gone`), the id under which another writer put them back.
pub(super) fn revived<I: Copy + Ord + Debug>(
    base: &[Known<I>],
    gone: &BTreeSet<I>,
    current: &[Known<I>],
) -> BTreeMap<I, I> {
    if gone.is_empty() {
        return BTreeMap::new();
    }
    let known: BTreeSet<I> = base.iter().map(|known| known.id).collect();
    let old: Vec<&Known<I>> = base.iter().filter(|known| gone.contains(&known.id)).collect();
    let new: Vec<&Known<I>> = current.iter().filter(|block| !known.contains(&block.id)).collect();
    let old_blocks: Vec<&Block> = old.iter().map(|known| &known.block).collect();
    let new_blocks: Vec<&Block> = new.iter().map(|known| &known.block).collect();
    let matched = align_blocks(&old_blocks, &new_blocks);
    let pair = |(new, old_at): (&&Known<I>, Option<usize>)| {
        let old = old_at.and_then(|at| old.get(at))?;
        let likeness = Fingerprint::of(old.block.title()).likeness(&Fingerprint::of(new.block.title()));
        let is_same = old.block.kind == new.block.kind && likeness >= REVIVED_LIKENESS_MIN;
        is_same.then_some((old.id, new.id))
    };
    new.iter().zip(matched).filter_map(pair).collect()
}
