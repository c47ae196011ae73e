//! What a save takes away that its writer may never have seen.
//!
//! [`start`](super::start) guesses which text a writer started from; its guess can be wrong, as two histories can lead to the same
//! bytes: an old buffer with a line reworded in it looks like a fresh one in which our newer rewording was overwritten. The guess
//! decides what the file says. It doesn't decide what survives: whatever the guessed edit removes and an older start, one that
//! nothing in the saved text disproves, wouldn't have removed is recorded as a conflict with its words in full.
//!
//! ```text
//!   shown   S0 ──us── S1 ──us── S2 (guessed start)
//!           possible   disproved: the save holds words that only S2 brought
//! ```
//! So an ordinary save records nothing: one line of ours that it keeps disproves every start before that line.

use std::collections::{BTreeMap, BTreeSet};

use zyflow_machine::id::RecordId;
use zyflow_spec::{Block, BlockKind, Conflict, ConflictClass, ConflictField, Content, Document, Known, Op};

use super::start::is_reworded;
use super::{By, Origin, Shown};

/// A title of fewer words may be written twice by chance, so it proves nothing.
const PROOF_WORDS_MIN: usize = 2;

/// A line that holds all words of an unseen one of this many may be its rewording. Fewer than prove that to the guess of a start, as this only
/// leads to a record: two lines that are one task are told of, two tasks are never made one.
const TWIN_WORDS_MIN: usize = 3;

/// Records of one save; a save that takes more away gets one record with the whole text.
const RECORDS_MAX: usize = 256;

/// Conflicts for the words that `ops`, made from `local` as read against `base` (`shown[start]` and lines known beyond it), take out of `cluster` though their
/// writer may have started from an older text that lacked them.
pub(super) fn unseen(
    shown: &[Shown],
    start: usize,
    base: &[Known<RecordId>],
    origin: Origin,
    local: &Document,
    cluster: &[Known<RecordId>],
    ops: &[Op<RecordId>],
) -> Vec<Conflict<RecordId>> {
    if !ops.iter().any(|op| matches!(op, Op::Delete { .. } | Op::SetText { .. })) {
        return Vec::new();
    }
    let guessed = by_id(base);
    let own = by_id(&shown[start].text.blocks);
    let mut possible: Vec<BTreeMap<RecordId, &Block>> = possible_starts(shown, start, origin, local)
        .into_iter()
        .map(|index| by_id(&shown[index].text.blocks))
        .collect();
    if base.len() > own.len() {
        // A line that the base has beyond the guessed start was recognised by likeness: it may be another one.
        possible.push(own);
    }
    if possible.is_empty() {
        return Vec::new();
    }
    let current = by_id(cluster);
    let kept: BTreeSet<&str> = local.blocks.iter().map(|block| block.content.text.as_str()).collect();
    let taken = ops.iter().filter_map(|op| {
        let (id, theirs, ours) = match op {
            Op::Delete { id } => (*id, *current.get(id)?, None),
            Op::SetText { id, kind, lead, text } => {
                let theirs = *current.get(id)?;
                let content = Content { lead: lead.clone(), mark: theirs.content.mark.clone(), text: text.clone() };
                (*id, theirs, Some(Block { kind: *kind, content }))
            }
            Op::Insert { .. } | Op::SetMark { .. } | Op::Move { .. } => return None,
        };
        let text = ours.as_ref().map_or("", |block| &block.content.text);
        let read = guessed.get(&id)?;
        let is_nothing_lost = theirs.kind == BlockKind::Blank
            || kept.contains(theirs.content.text.as_str())
            || holds_words_of(text, &theirs.content.text);
        let older = possible.iter().find(|older| older.get(&id).is_none_or(|b| b.content.text != read.content.text))?;
        (!is_nothing_lost).then(|| record(id, older.get(&id).copied(), ours.as_ref(), theirs))
    });
    let records: Vec<_> = taken.collect();
    if records.len() <= RECORDS_MAX { records } else { vec![whole(cluster)] }
}

/// Conflicts for the lines that `ops` insert although they may be there, read against a start that its writer may not have had:
/// - all their words stand in a line of `cluster` whose id had other words in `base`: somebody gave one line's number to the
///   other, and a save from before that brings the other as a new one;
/// - they hold all words of a line of `cluster` that `base` hasn't got: the writer had seen that short line after all, and reworded it.
pub(super) fn maybe_twice(
    base: &[Known<RecordId>],
    cluster: &[Known<RecordId>],
    ops: &[Op<RecordId>],
) -> Vec<Conflict<RecordId>> {
    let inserted = ops.iter().filter_map(|op| match op {
        Op::Insert { block, .. } => Some(block),
        Op::Delete { .. } | Op::SetText { .. } | Op::SetMark { .. } | Op::Move { .. } => None,
    });
    let words = |block: &Block| block.title().split_whitespace().count();
    let mut inserted = inserted.filter(|block| words(block) > TWIN_WORDS_MIN).peekable();
    if inserted.peek().is_none() {
        return Vec::new();
    }
    let before = by_id(base);
    let other_words = |known: &&Known<RecordId>| {
        let old = before.get(&known.id);
        old.is_some_and(|old| !is_reworded(old.title(), known.block.title()))
    };
    let renamed: Vec<&Known<RecordId>> = cluster.iter().filter(other_words).collect();
    let is_new = |known: &&Known<RecordId>| !before.contains_key(&known.id) && words(&known.block) >= TWIN_WORDS_MIN;
    let mut new: Vec<&Known<RecordId>> = cluster.iter().filter(is_new).collect();
    let found = inserted.filter_map(|block| {
        let is_renamed = |known: &&&Known<RecordId>| {
            known.block.kind == block.kind && holds_words_of(known.block.title(), block.title())
        };
        if let Some(known) = renamed.iter().find(is_renamed) {
            return Some(record(known.id, before.get(&known.id).copied(), Some(block), &known.block));
        }
        let is_twin = |known: &&Known<RecordId>| {
            known.block.kind == block.kind && holds_words_of(block.title(), known.block.title())
        };
        // Each is at most one line's rewording.
        let known = new.swap_remove(new.iter().position(is_twin)?);
        Some(record(known.id, None, Some(block), &known.block))
    });
    found.take(RECORDS_MAX).collect()
}

/// The other texts that the writer can have started from: the newest and those we wrote over, unless the save holds words that only a
/// later write of ours brought. Any where git puts them back, and where the save missed a write of ours: its buffer is an old one,
/// and may be older than what a neighbour in the same checkout saved in between.
fn possible_starts(shown: &[Shown], start: usize, origin: Origin, local: &Document) -> Vec<usize> {
    // Titles, not whole lines: two people who renumber give one line the same number.
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, each) in shown.iter().enumerate() {
        for known in &each.text.blocks {
            first.entry(known.block.title()).or_insert(index);
        }
    }
    let is_telling = |block: &&Block| block.title().split_whitespace().count() >= PROOF_WORDS_MIN;
    let brought = local.blocks.iter().filter(is_telling).filter_map(|block| {
        let index = *first.get(block.title())?;
        (shown[index].by == By::Us).then_some(index)
    });
    let oldest = brought.filter(|index| *index <= start).max().unwrap_or_default();
    let is_any = origin == Origin::HeadMoved || start + 1 < shown.len();
    let is_possible =
        |index: &usize| *index != start && (is_any || shown.get(index + 1).is_none_or(|next| next.by != By::Writer));
    (oldest..shown.len()).filter(is_possible).collect()
}

fn by_id(blocks: &[Known<RecordId>]) -> BTreeMap<RecordId, &Block> {
    blocks.iter().map(|known| (known.id, &known.block)).collect()
}

/// Whether every word of `theirs` is still in `ours`, as often.
pub(super) fn holds_words_of(ours: &str, theirs: &str) -> bool {
    let mut rest: Vec<&str> = ours.split_whitespace().collect();
    theirs.split_whitespace().all(|word| {
        let place = rest.iter().position(|other| *other == word);
        place.map(|place| rest.swap_remove(place)).is_some()
    })
}

/// The values are whole blocks, as in every conflict about a text or about whether a block exists.
fn record(id: RecordId, base: Option<&Block>, ours: Option<&Block>, theirs: &Block) -> Conflict<RecordId> {
    let (class, field) = match ours {
        None => (ConflictClass::Structure, ConflictField::Existence),
        Some(_) => (ConflictClass::Data, ConflictField::Text),
    };
    Conflict {
        id: Some(id),
        class,
        field,
        base: base.map(Block::print),
        ours: ours.map(Block::print),
        theirs: Some(theirs.print()),
    }
}

fn whole(cluster: &[Known<RecordId>]) -> Conflict<RecordId> {
    let theirs = cluster.iter().map(|known| known.block.print()).collect();
    let (class, field) = (ConflictClass::Structure, ConflictField::Existence);
    Conflict { id: None, class, field, base: None, ours: None, theirs: Some(theirs) }
}
