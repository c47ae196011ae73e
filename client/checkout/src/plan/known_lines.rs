//! Lines of a save that its guessed start lacks, though they are known: two saves that crossed our writes can bring a line twice.
//!
//! It decides which line is which, and nothing about what follows.

use std::collections::{BTreeMap, BTreeSet};

use zyflow_machine::id::RecordId;
use zyflow_spec::{Block, BlockKind, Document, Known, align};

use super::{Shown, start};

/// Lines of a save that its start lacks, and lines shown here that it lacks, which are compared with one another.
const KNOWN_LINES_MAX: usize = 64;

/// The text at `start`, and the lines beyond it that stand in the file and, under an id that was shown here, in the cluster: they are
/// those lines and no new ones, wherever they stand. Two saves that crossed our writes can bring a line twice. Word for word comes
/// before alike.
pub(super) fn with_known_lines(
    shown: &[Shown],
    start: usize,
    document: &Document,
    cluster: &[Known<RecordId>],
) -> Vec<Known<RecordId>> {
    let mut base = shown[start].text.blocks.clone();
    let ids = align(&base, document);
    let mut missing: BTreeMap<RecordId, &Known<RecordId>> =
        shown.iter().flat_map(|shown| &shown.text.blocks).map(|known| (known.id, known)).collect();
    let alive: BTreeSet<RecordId> = cluster.iter().map(|known| known.id).collect();
    missing.retain(|id, known| alive.contains(id) && known.block.kind != BlockKind::Blank);
    for known in &base {
        missing.remove(&known.id);
    }
    let aligned: BTreeMap<RecordId, &Block> =
        shown[start].text.blocks.iter().map(|known| (known.id, &known.block)).collect();
    let mut same: Vec<Option<&Known<RecordId>>> = vec![None; ids.len()];
    for is_exact in [true, false] {
        let is_it = |known: &Block, block: &Block| match is_exact {
            _ if known.kind != block.kind => false,
            true => known.content.text == block.content.text,
            false => start::is_reworded(known.title(), block.title()),
        };
        // A line that was aligned with another one for its place alone may still be one that is known.
        let is_free = |id: &Option<RecordId>, block: &Block| {
            id.and_then(|id| aligned.get(&id)).is_none_or(|aligned| !is_it(aligned, block))
        };
        let lines = ids.iter().zip(&document.blocks).zip(&mut same);
        let free = lines.filter(|((id, block), same)| same.is_none() && is_free(id, block));
        let mut free: Vec<_> = free.map(|((_, block), same)| (block, same)).collect();
        if is_exact {
            // Word for word as any shown text had it: the line may have been reworded since.
            let mut had: BTreeMap<&str, Vec<&Known<RecordId>>> =
                free.iter().map(|(block, _)| (block.content.text.as_str(), Vec::new())).collect();
            for known in shown.iter().rev().flat_map(|shown| &shown.text.blocks) {
                if let Some(had) = had.get_mut(known.block.content.text.as_str())
                    && missing.contains_key(&known.id)
                {
                    had.push(known);
                }
            }
            for (block, same) in &mut free {
                let had = &had[block.content.text.as_str()];
                let is_it = |known: &&&Known<RecordId>| missing.contains_key(&known.id) && is_it(&known.block, block);
                **same = had.iter().find(is_it).copied();
                same.and_then(|known| missing.remove(&known.id));
            }
            continue;
        }
        for (block, same) in free.into_iter().take(KNOWN_LINES_MAX) {
            let mut candidates = missing.values().copied().take(KNOWN_LINES_MAX);
            let found = candidates.find(|known| is_it(&known.block, block));
            *same = found.and_then(|known| missing.remove(&known.id));
        }
    }
    let mut before = None;
    for (id, same) in ids.into_iter().zip(same) {
        if let Some(same) = same {
            let place = base.iter().position(|known| Some(known.id) == before).map_or(0, |place| place + 1);
            base.insert(place, same.clone());
        }
        before = same.map(|same| same.id).or(id).or(before);
    }
    base
}
