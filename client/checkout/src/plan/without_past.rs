//! The merge of a file and the cluster's text that have no common past: the first binding, or a change that was made anew.
//!
//! What both have is found by likeness; nothing that either side has is taken away. It doesn't decide whether to merge.

use std::collections::BTreeMap;

use zyflow_machine::id::RecordId;
use zyflow_spec::{
    Block, BlockKind, Conflict, ConflictClass, ConflictField, Document, Known, Merge, Op, align, merge3,
};

use crate::text::KnownText;

/// Pairs of words compared for what two blocks have in common, about a page against a page; of larger ones the common beginning.
const COMMON_CELLS_MAX: usize = 1 << 18;

/// A merge of two texts without a common past: lines of one side only stay, in the cluster's order; a mark that differs counts as
/// ticked by the side that has it; of words that differ the cluster's stand, and a conflict keeps the others, unless the file's
/// only add to them.
pub(super) fn merge_without_past(cluster: &KnownText, local: &Document) -> (Vec<Known<RecordId>>, Merge<RecordId>) {
    let current: BTreeMap<RecordId, &Block> = cluster.blocks.iter().map(|known| (known.id, &known.block)).collect();
    let pairs: Vec<(RecordId, &Block, &Block)> = align(&cluster.blocks, local)
        .into_iter()
        .zip(&local.blocks)
        .filter_map(|(id, ours)| Some((id?, ours, *current.get(&id?)?)))
        .collect();
    let base: Vec<_> =
        pairs.iter().map(|(id, ours, theirs)| Known { id: *id, block: without_mark(ours, theirs) }).collect();
    let mut merge = merge3(&base, local, &cluster.blocks);
    for (id, ours, theirs) in pairs {
        unite_words(id, ours, theirs, &mut merge);
    }
    (base, merge)
}

/// `ours`, unticked where `theirs` has another mark.
fn without_mark(ours: &Block, theirs: &Block) -> Block {
    let mut block = ours.clone();
    if theirs.kind == BlockKind::Task && ours.content.mark != theirs.content.mark {
        " ".clone_into(&mut block.content.mark);
    }
    block
}

fn unite_words(id: RecordId, ours: &Block, theirs: &Block, merge: &mut Merge<RecordId>) {
    let (our, their) = (&ours.content.text, &theirs.content.text);
    if our == their {
        return;
    }
    let common = common_words(our, their);
    let is_all_of = |text: &str| common.iter().copied().eq(text.split_whitespace());
    if is_all_of(our) {
        return;
    }
    if is_all_of(their) && ours.kind == theirs.kind {
        let (lead, text) = (theirs.content.lead.clone(), our.clone());
        merge.ops.push(Op::SetText { id, lead, text, kind: theirs.kind });
        return;
    }
    // Neither text is a version of the other that anybody remembers.
    let (class, field) = (ConflictClass::Version, ConflictField::Text);
    let (ours, theirs) = (Some(ours.print()), Some(theirs.print()));
    merge.conflicts.push(Conflict { id: Some(id), class, field, base: None, ours, theirs });
}

/// The words that two texts have in common, in order: what else either has is what that side wrote.
fn common_words<'a>(one: &'a str, other: &str) -> Vec<&'a str> {
    let (ones, others): (Vec<&str>, Vec<&str>) = (one.split_whitespace().collect(), other.split_whitespace().collect());
    if ones.len().saturating_mul(others.len()) <= COMMON_CELLS_MAX {
        longest_common(&ones, &others)
    } else {
        ones.iter().zip(&others).take_while(|(one, other)| one == other).map(|(one, _)| *one).collect()
    }
}

/// A longest common subsequence.
fn longest_common<'a>(ones: &[&'a str], others: &[&str]) -> Vec<&'a str> {
    let mut lengths = vec![vec![0_usize; others.len() + 1]; ones.len() + 1];
    for (i, one) in ones.iter().enumerate().rev() {
        for (j, other) in others.iter().enumerate().rev() {
            lengths[i][j] =
                if one == other { lengths[i + 1][j + 1] + 1 } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut common) = (0, 0, Vec::new());
    while i < ones.len() && j < others.len() {
        if ones[i] == others[j] {
            common.push(ones[i]);
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}
