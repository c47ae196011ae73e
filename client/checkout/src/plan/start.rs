//! Which text did the writer start from? The answer to the stale whole-file save.
//!
//! A tool reads the file, we write another text over it, the tool saves its old buffer plus one edit. Read against the newest
//! text, the save undoes what we wrote, in the tool's name; so it has to be read against the text that the tool had read.
//!
//! ```text
//!   shown:   S0 ──us── S1 ──writer── S2 ──us── S3          which Si explains the saved text D?
//!            └─ candidate            └─ candidate └─ candidate (the newest)
//! ```
//!
//! Candidates are the newest text and every text that *we* wrote over (or meant to, when a save crossed ours): a writer's own undo
//! must stay an undo. Where HEAD moved, all of them: git put the text there. For each candidate
//! every field of every block that ever differed between shown texts is looked at (existence, mark, words, place):
//! - D has a value that only a *later* text had: a writer who started here can't have known it (clairvoyance, dear);
//! - D has an *older* value that we had replaced: the writer undid our write by hand (restoration, cheaper). What a writer
//!   replaced may be undone for nothing, unless that save had crossed our write: then others haven't seen it yet;
//! - D has its own value: an edit, which costs nothing, as it is one against every candidate.
//!
//! The cheapest candidate wins; of equals the one that takes the fewest edits to D, then the newest. So a save that undoes all of a
//! write of ours and carries another edit is read as stale; one that undoes a part of it is read as an edit; and one that is exactly the text before a write of ours, and
//! nothing explains it better, is a deliberate revert of all since.
//! What this can't tell apart: somebody who reverts our whole last write by hand *and* edits in the same save looks like a stale
//! buffer; what they reverted comes back, and reverting it in a save of its own then works.

use std::collections::{BTreeMap, BTreeSet};

use zyflow_machine::id::RecordId;
use zyflow_spec::{Block, BlockKind, Document, Known, align, diff};

use super::{By, Shown};

/// How a text came to stand on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody saved it.
    Saved,
    /// It came together with another HEAD: a pull, a merge, a reset.
    HeadMoved,
    /// It was found under our write, or in a file that we had replaced.
    Displaced,
}

/// The text that a writer started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its index among the shown texts.
    pub index: usize,
    /// Why it is that one.
    pub reason: Reason,
}

/// Why a text is taken for the writer's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest, and nothing speaks for another.
    Newest,
    /// The saved text is exactly one that we wrote over: whoever saved it wanted that text back. It is read against the newest.
    Revert,
    /// The saved text is exactly an older one, and nobody wrote it: nothing new.
    Past,
    /// The save undoes our writes after that text and carries other edits.
    Stale,
}

/// What a value speaks against a start with.
#[derive(Clone, Copy)]
struct Weights {
    /// Only a later text had it.
    clairvoyant: u32,
    /// An older text had it, and we had replaced it.
    restored: u32,
}

/// Words that nobody writes twice by chance: seeing them is near to a proof, and undoing them by mistake is the worst.
const WORDS: Weights = Weights { clairvoyant: 8, restored: 2 };

/// A block that isn't there: two people do delete the same line, but undoing an insert by mistake loses it.
const GONE: Weights = Weights { clairvoyant: 1, restored: 2 };

/// A mark or a place: two people do tick the same box.
const MARK: Weights = Weights { clairvoyant: 1, restored: 1 };

/// The newest shown texts, among which a start is looked for first: weighing all costs the square of their number.
const NEAR_MAX: usize = 16;

/// The shown text that `local` was made from. `shown` is oldest first and not empty.
///
/// # Panics
/// Where `shown` is empty: the caller has nothing to choose from.
#[must_use]
pub fn choose(shown: &[Shown], local: &Document, local_text: &str, origin: Origin) -> Start {
    let far = shown.len().saturating_sub(NEAR_MAX);
    let start = choose_among(&shown[far..], local, local_text, origin);
    if start.reason == Reason::Past || !lacks_what_came_before(shown, far, local) {
        return Start { index: start.index + far, ..start };
    }
    choose_among(shown, local, local_text, origin)
}

/// Whether `local` lacks lines that all near texts have and the oldest hadn't: whoever saved it either deleted them or never saw them.
fn lacks_what_came_before(shown: &[Shown], far: usize, local: &Document) -> bool {
    let (Some(oldest), Some(first)) = (shown.first(), shown.get(far).filter(|_| far > 0)) else { return false };
    let known: BTreeSet<RecordId> = oldest.text.blocks.iter().map(|known| known.id).collect();
    let saved: BTreeSet<&str> = local.blocks.iter().map(|block| block.content.text.as_str()).collect();
    let mut came =
        first.text.blocks.iter().filter(|each| !known.contains(&each.id) && each.block.kind != BlockKind::Blank);
    came.any(|each| !saved.contains(each.block.content.text.as_str()))
}

fn choose_among(shown: &[Shown], local: &Document, local_text: &str, origin: Origin) -> Start {
    let newest = shown.len().checked_sub(1).expect("invariant: a start is chosen only among shown texts");
    if shown[newest].text.text() == local_text {
        return Start { index: newest, reason: Reason::Newest };
    }
    if origin != Origin::Saved
        && let Some(index) = shown.iter().rposition(|shown| shown.text.text() == local_text)
    {
        return Start { index, reason: Reason::Past };
    }
    // Where HEAD moved, git put the older text there and not its writer.
    let is_put_back = origin == Origin::HeadMoved;
    let is_replaced = |index: &usize| is_put_back || shown[index + 1].by != By::Writer;
    let candidates: Vec<usize> = (0..newest).filter(is_replaced).chain([newest]).collect();
    if candidates.len() == 1 {
        return Start { index: newest, reason: Reason::Newest };
    }
    let evidence = Evidence::gather(shown, local, is_put_back);
    let costs: Vec<(u32, usize)> = candidates.into_iter().map(|index| (evidence.cost(index), index)).collect();
    let least = costs.iter().map(|(cost, _)| *cost).min().unwrap_or_default();
    let cheapest = costs.iter().filter(|(cost, _)| *cost == least).map(|(_, index)| *index);
    let edits = |index: &usize| diff(&shown[*index].text.blocks, local).len();
    let index = cheapest.rev().min_by_key(edits).unwrap_or(newest);
    if index != newest && shown[index].text.text() == local_text {
        // Before a crossing it is either the crossing save undone or our write undone: nobody can tell, so nothing is. A crossing
        // save that stands there again is the same buffer saved once more by a writer who never saw our write.
        let is_ambiguous = shown[index].by == By::Crossing || shown[index + 1].by == By::Crossing;
        return if is_ambiguous {
            Start { index, reason: Reason::Past }
        } else {
            Start { index: newest, reason: Reason::Revert }
        };
    }
    let reason = if index == newest { Reason::Newest } else { Reason::Stale };
    Start { index, reason }
}

/// Titles are alike when `ALIKE / ALIKE_OF` of their words are the same: four in five. Lines of one pattern ("written by A", "written by
/// B") are not, or a tool's stale insert would pass for a rewording of its neighbour's line and undo it; a line that is taken for a
/// new one by mistake stands twice, which is the smaller evil.
const ALIKE: usize = 4;
const ALIKE_OF: usize = 5;

/// Blocks left over on either side that are compared by their words; a save that changes more says little about its start.
const LEFT_MAX: usize = 64;

/// What one text says about one block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields<'a> {
    kind: BlockKind,
    lead: &'a str,
    text: &'a str,
    mark: &'a str,
    /// The block before it, among those that every text has.
    after: Option<RecordId>,
}

type Reading<'a> = BTreeMap<RecordId, Fields<'a>>;

struct Evidence<'a> {
    shown: Vec<Reading<'a>>,
    by: Vec<By>,
    local: Reading<'a>,
    /// Not even a writer's own change is undone by a writer.
    is_put_back: bool,
}

impl<'a> Evidence<'a> {
    fn gather(shown: &'a [Shown], local: &'a Document, is_put_back: bool) -> Self {
        let named = name_blocks(shown, local);
        let local_ids: BTreeSet<RecordId> = named.iter().map(|(id, _)| *id).collect();
        let mut stable = local_ids;
        for each in shown {
            let ids: BTreeSet<RecordId> = each.text.blocks.iter().map(|known| known.id).collect();
            stable.retain(|id| ids.contains(id));
        }
        Self {
            shown: shown
                .iter()
                .map(|each| read(each.text.blocks.iter().map(|known| (known.id, &known.block)), &stable))
                .collect(),
            by: shown.iter().map(|each| each.by).collect(),
            local: read(named.into_iter(), &stable),
            is_put_back,
        }
    }

    fn cost(&self, start: usize) -> u32 {
        let ids: BTreeSet<RecordId> = self.shown.iter().flat_map(|reading| reading.keys().copied()).collect();
        let fields = ids.iter().map(|id| self.cost_of(*id, start)).fold(0, u32::saturating_add);
        // One move changes what stands before three blocks, so all places together count once.
        let place = ids.iter().map(|id| self.cost_of_place(*id, start)).max().unwrap_or_default();
        fields.saturating_add(place)
    }

    fn cost_of_place(&self, id: RecordId, start: usize) -> u32 {
        let places: Vec<_> = self.shown.iter().map(|reading| reading.get(&id).map(|fields| fields.after)).collect();
        match (self.local.get(&id), places[start]) {
            (Some(local), Some(_)) if local.kind != BlockKind::Blank => {
                self.weigh(&places, &Some(local.after), start, MARK)
            }
            (Some(_) | None, Some(_) | None) => 0,
        }
    }

    fn cost_of(&self, id: RecordId, start: usize) -> u32 {
        let fields: Vec<Option<&Fields<'_>>> = self.shown.iter().map(|reading| reading.get(&id)).collect();
        let local = self.local.get(&id);
        let is_blank = fields.iter().flatten().any(|fields| fields.kind == BlockKind::Blank);
        if is_blank {
            return 0;
        }
        let exists: Vec<Option<bool>> = fields.iter().map(|fields| Some(fields.is_some())).collect();
        let weights = if local.is_some() { WORDS } else { GONE };
        let mut cost = self.weigh(&exists, &Some(local.is_some()), start, weights);
        if let (Some(local), Some(_)) = (local, fields[start]) {
            let words: Vec<_> = fields.iter().map(|f| f.map(|f| (f.kind, f.lead, f.text))).collect();
            let marks: Vec<_> = fields.iter().map(|f| f.map(|f| f.mark)).collect();
            cost += self.weigh(&words, &Some((local.kind, local.lead, local.text)), start, WORDS);
            cost += self.weigh(&marks, &Some(local.mark), start, MARK);
        }
        cost
    }

    /// What the value `local` of one field costs a start at `start`; `values` are that field in each shown text.
    #[expect(clippy::ref_option, reason = "compared with the options in `values`")]
    fn weigh<V: PartialEq>(&self, values: &[Option<V>], local: &Option<V>, start: usize, weights: Weights) -> u32 {
        if values[start] == *local {
            return 0;
        }
        if let Some(older) = values[..start].iter().rposition(|value| value == local) {
            let replaced = (older + 1..=start).find(|index| values[*index] != *local);
            return match replaced.map(|index| self.by[index]) {
                Some(By::Us | By::Crossing | By::Found) => weights.restored,
                Some(By::Writer) if self.is_put_back => weights.restored,
                Some(By::Writer) | None => 0,
            };
        }
        if values[start + 1..].contains(local) { weights.clairvoyant } else { 0 }
    }
}

fn read<'a>(blocks: impl Iterator<Item = (RecordId, &'a Block)>, stable: &BTreeSet<RecordId>) -> Reading<'a> {
    let mut reading = Reading::new();
    let mut after = None;
    for (id, block) in blocks {
        let place = if stable.contains(&id) { after } else { None };
        let content = &block.content;
        reading.insert(
            id,
            Fields { kind: block.kind, lead: &content.lead, text: &content.text, mark: &content.mark, after: place },
        );
        if stable.contains(&id) && block.kind != BlockKind::Blank {
            after = Some(id);
        }
    }
    reading
}

/// The blocks of `local` that are some block of some shown text, with its id. One with the exact words and mark that a block had
/// is that block, before any likeness counts: a line that was deleted and put back has two ids, and an old buffer holds the first.
/// One that is aligned for its place alone is none: two people do append different lines at one place, and taking one for the
/// other's rewording would prove that it had been seen.
fn name_blocks<'a>(shown: &[Shown], local: &'a Document) -> Vec<(RecordId, &'a Block)> {
    let union = union(shown);
    let titles: BTreeMap<RecordId, &str> = union.iter().map(|known| (known.id, known.block.title())).collect();
    let mut by_content: BTreeMap<String, Vec<RecordId>> = BTreeMap::new();
    for known in shown.iter().rev().flat_map(|each| &each.text.blocks) {
        let same = by_content.entry(known.block.print()).or_default();
        if !same.contains(&known.id) {
            same.push(known.id);
        }
    }
    let same: Vec<&[RecordId]> =
        local.blocks.iter().map(|block| by_content.get(&block.print()).map_or(&[][..], Vec::as_slice)).collect();
    let aligned = align(&union, local);
    let exact = |(id, same): (&Option<RecordId>, &&[RecordId])| id.filter(|id| same.contains(id));
    let mut ids: Vec<Option<RecordId>> = aligned.iter().zip(&same).map(exact).collect();
    let mut taken: BTreeSet<RecordId> = ids.iter().flatten().copied().collect();
    for (id, same) in ids.iter_mut().zip(&same).filter(|(id, _)| id.is_none()) {
        *id = same.iter().find(|id| !taken.contains(id)).copied();
        taken.extend(*id);
    }
    for ((id, aligned), block) in ids.iter_mut().zip(aligned).zip(&local.blocks).filter(|((id, _), _)| id.is_none()) {
        let title = |id: &RecordId| titles.get(id).copied().unwrap_or_default();
        *id = aligned.filter(|id| !taken.contains(id) && is_reworded(title(id), block.title()));
        taken.extend(*id);
    }
    name_alike(&union, local, &mut ids, &mut taken);
    ids.into_iter().zip(&local.blocks).filter_map(|(id, block)| Some((id?, block))).collect()
}

/// Where an explicit id repeats, a line can be aligned with another line's place: those left over go by their words alone.
fn name_alike(
    union: &[Known<RecordId>],
    local: &Document,
    ids: &mut [Option<RecordId>],
    taken: &mut BTreeSet<RecordId>,
) {
    let free: Vec<&Known<RecordId>> = union.iter().filter(|known| !taken.contains(&known.id)).take(LEFT_MAX).collect();
    let left = ids.iter_mut().zip(&local.blocks).filter(|(id, block)| id.is_none() && block.kind != BlockKind::Blank);
    for (id, block) in left.take(LEFT_MAX) {
        let is_it = |known: &&&Known<RecordId>| {
            known.block.kind == block.kind
                && !taken.contains(&known.id)
                && is_reworded(known.block.title(), block.title())
        };
        *id = free.iter().find(is_it).map(|known| known.id);
        taken.extend(*id);
    }
}

/// Words of a line that nobody writes again by chance.
const TELLING_WORDS_MIN: usize = 4;

/// Whether `new` may be a rewording of `old`: they share most of their words, or all of a long enough old one are left.
pub(super) fn is_reworded(old: &str, new: &str) -> bool {
    let is_long = old.split_whitespace().count() >= TELLING_WORDS_MIN;
    is_alike(old, new) || (is_long && super::unseen::holds_words_of(new, old))
}

/// Whether two titles share most of their words.
fn is_alike(one: &str, other: &str) -> bool {
    let count = |text: &str| text.split_whitespace().count();
    let mut rest: Vec<&str> = other.split_whitespace().collect();
    let all = count(one) + count(other);
    let mut shared = 0;
    for word in one.split_whitespace() {
        if let Some(place) = rest.iter().position(|candidate| *candidate == word) {
            rest.swap_remove(place);
            shared += 2;
        }
    }
    shared * ALIKE_OF >= all * ALIKE
}

/// Every block that ever stood: the newest text, with older blocks right after what stood before them then, the oldest first.
fn union(shown: &[Shown]) -> Vec<Known<RecordId>> {
    let mut present: BTreeSet<RecordId> = BTreeSet::new();
    let mut after: BTreeMap<Option<RecordId>, Vec<&Known<RecordId>>> = BTreeMap::new();
    for each in shown.iter().rev() {
        let mut last = None;
        for known in &each.text.blocks {
            if present.insert(known.id) {
                after.entry(last).or_default().push(known);
            }
            last = Some(known.id);
        }
    }
    let mut out = Vec::with_capacity(present.len());
    let mut stack: Vec<&Known<RecordId>> = Vec::new();
    let push_after = |stack: &mut Vec<_>, id: Option<RecordId>| {
        stack.extend(after.get(&id).into_iter().flatten().copied());
    };
    push_after(&mut stack, None);
    while let Some(known) = stack.pop() {
        out.push(known.clone());
        push_after(&mut stack, Some(known.id));
    }
    out
}
