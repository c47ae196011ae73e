//! What to do about one file: a pure function of what the checkout and the cluster last agreed on, the text on the disk and the
//! text in the cluster.
//!
//! ```text
//!              start (a shown text, see `start`)
//!             ╱     ╲
//!   the writer's     everyone else's          merge3 puts the writer's edits on top of the cluster's newest text;
//!           ╱         ╲                       what it can't unite becomes a recorded conflict
//!        disk        cluster
//!           ╲         ╱
//!       Propose, and once accepted, Write
//! ```
//!
//! Order of things, which is the safety argument: the writer's edits go to the cluster first; only a text that already contains
//! them is ever written over the file; a shown text is added only when all its edits are accepted. So at any point the disk holds
//! a shown text, a shown text plus unproposed edits, or one text whose proposal is in flight, and nothing is undone twice.
//!
//! **Why a crash between acceptance and the base's move repeats nothing.** Folding equal inserts in the merge isn't enough: if
//! somebody deleted the accepted line meanwhile, a second merge against the old base would bring it back. So the engine stores
//! the whole command with its request id before proposing it, and after a restart proposes *that command* again, before it plans
//! anything: it is answered with its first outcome, and then its text is a shown text like any other. Only if the session has
//! expired meanwhile (256 later requests or a long time) is the fate unknown; then the merge's folding is the last guard.
//!
//! It doesn't read files, ask the cluster, look at a clock or decide whether a write is allowed.

mod start;
#[cfg(test)]
mod tests;
mod unseen;

use std::collections::{BTreeMap, BTreeSet};

use zyflow_machine::command::{Body, EditMode, NewBlock, NewConflict};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_spec::{Block, BlockKind, Conflict, ConflictClass, ConflictField, Document, Known, Merge, Op, align, merge3, parse, Strategies, settle};

pub use start::{Origin, Reason, Start, choose};

use crate::text::{KnownText, block_op, new_block, new_conflict};

/// Most texts that are remembered per file: an agent that holds a buffer over more of our writes than this is not seen before.
pub const SHOWN_MAX: usize = 16;

/// Most bytes of older shown texts that are remembered per file, so that a large file doesn't cost 16 times its size: 4 MiB.
pub const SHOWN_BYTES_MAX: usize = 4 << 20;

/// Pairs of words compared for what two blocks have in common, about a page against a page; of larger ones the common beginning.
const COMMON_CELLS_MAX: usize = 1 << 18;

/// Who made a text stand on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// A person or a tool.
    Writer,
    /// A person or a tool, but our write was over it before anybody else could see it.
    Crossing,
    /// This checkout's write-back.
    Us,
}

/// A text that was on the disk, all of whose edits the cluster has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The text.
    pub text: KnownText,
    /// Who made it stand there.
    pub by: By,
}

/// What to do with a file that differs from the cluster's and was never agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The cluster's text replaces the file.
    Cluster,
    /// The file's text replaces the cluster's.
    Local,
    /// Both: lines of either side stay; where one line differs, the cluster's stands and a conflict is recorded.
    Merge,
}

/// The cluster's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// No change has or had this path.
    Absent,
    /// The change that had this path is deleted.
    Deleted {
        /// Which.
        change: RecordId,
    },
    /// The change that has this path, and its text.
    Live {
        /// Which.
        change: RecordId,
        /// Its text, true at its revision.
        text: KnownText,
    },
}

/// All that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The path within the project.
    pub path: &'a str,
    /// The project.
    pub project: RecordId,
    /// What was agreed on: the change and the texts shown since, oldest first.
    pub agreed: Option<(RecordId, &'a [Shown])>,
    /// The canonical text on the disk; `None` = there is no file.
    pub local: Option<&'a str>,
    /// How that text came there.
    pub origin: Origin,
    /// The cluster's side.
    pub cluster: &'a Side,
    /// What to do with texts that were never agreed on; `None` = ask.
    pub take: Option<Take>,
    /// The file's absence is meant.
    pub is_deletion_confirmed: bool,
    /// What the project wants done with conflicts.
    pub strategies: &'a Strategies,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Both sides agree, and that is known.
    Settled,
    /// Both sides agree: remember the text as shown.
    Learn {
        /// The change.
        change: RecordId,
        /// The text.
        text: KnownText,
    },
    /// Ask the cluster.
    Propose(Box<Proposal>),
    /// Write the cluster's text over the file, or make the file.
    Write {
        /// The change.
        change: RecordId,
        /// What stands on the disk now, where it holds nothing that the cluster hasn't got but isn't a shown text yet.
        seen: Option<KnownText>,
        /// What to write.
        text: KnownText,
    },
    /// Remove the file: the change is deleted, and the file holds nothing new.
    Remove,
    /// Gone on both sides: forget what was agreed on.
    Forget,
    /// The file is gone and the cluster's text isn't: wait whether that is meant.
    AwaitDeletion,
    /// Two different texts that were never agreed on: the user has to say which to take.
    NeedsTake,
    /// What is applied here is older than what was agreed on.
    Behind {
        /// The revision to wait for.
        need: Revision,
    },
}

/// A command that brings the local text to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The command.
    pub body: Body,
    /// The local text whose edits it carries; `None` for a deletion.
    pub text: Option<String>,
    /// For each block of that text its id; `None` = the n-th of these is the n-th that the command creates.
    pub ids: Vec<Option<RecordId>>,
    /// What the text was read against, for the log.
    pub start: Option<Start>,
}

/// The text that a proposal's edits were read against: the start that was guessed, or where nothing was agreed on the cluster's.
#[must_use]
pub fn base_of<'a>(input: &Input<'a>, proposal: &Proposal) -> Option<&'a KnownText> {
    let of_start = || Some(&input.agreed?.1.get(proposal.start?.index)?.text);
    let of_cluster = || if let Side::Live { text, .. } = input.cluster { Some(text) } else { None };
    of_start().or_else(of_cluster)
}

/// What to do about one file.
#[must_use]
pub fn plan(input: &Input<'_>) -> Step {
    match (input.agreed, input.local, input.cluster) {
        (None, None, Side::Absent | Side::Deleted { .. }) => Step::Settled,
        (None, None, Side::Live { change, text }) => write(*change, None, text),
        (None, Some(local), Side::Absent) => create(input, local),
        (None, Some(local), Side::Deleted { .. }) => match input.take {
            None => Step::NeedsTake,
            Some(Take::Cluster) => Step::Remove,
            Some(Take::Local | Take::Merge) => create(input, local),
        },
        (None, Some(local), Side::Live { change, text }) => first_binding(input, *change, text, local, input.take),
        (Some((change, shown)), local, cluster) => agreed(input, change, shown, local, cluster),
    }
}

fn agreed(input: &Input<'_>, change: RecordId, shown: &[Shown], local: Option<&str>, cluster: &Side) -> Step {
    let newest = &shown.last().expect("invariant: what is agreed on has at least one shown text").text;
    let need = shown.iter().map(|each| each.text.revision).max().unwrap_or_default();
    match (local, cluster) {
        (_, Side::Absent) => Step::Behind { need },
        (_, Side::Live { text, .. }) if text.revision < need => Step::Behind { need },
        (None, Side::Deleted { .. }) => Step::Forget,
        (Some(local), Side::Deleted { .. }) => {
            let start = choose(shown, &parse(local), local, input.origin);
            let is_nothing_new = newest.text() == local || start.reason == Reason::Past;
            if is_nothing_new { Step::Remove } else { create(input, local) }
        }
        (None, Side::Live { change: live, text }) => {
            if *live != change || text.text() != newest.text() {
                return write(*live, None, text);
            }
            if input.is_deletion_confirmed { delete(change, text.revision) } else { Step::AwaitDeletion }
        }
        (Some(local), Side::Live { change: live, text }) if *live != change => {
            // Deleted and made anew by somebody: none of the known ids stands any more.
            if newest.text() == local {
                write(*live, None, text)
            } else {
                first_binding(input, *live, text, local, Some(Take::Merge))
            }
        }
        (Some(local), Side::Live { text, .. }) => both(input, change, shown, local, text),
    }
}

/// The ordinary case: a file, a live change, and what they last agreed on.
fn both(input: &Input<'_>, change: RecordId, shown: &[Shown], local: &str, cluster: &KnownText) -> Step {
    let newest = &shown.last().expect("invariant: checked by the caller").text;
    if newest.text() == local {
        if newest.blocks == cluster.blocks {
            return Step::Settled;
        }
        return if cluster.text() == local { learn(change, cluster) } else { write(change, None, cluster) };
    }
    let document = parse(local);
    let start = choose(shown, &document, local, input.origin);
    if start.reason == Reason::Past {
        // It stands on the disk again, so whoever saves into our write has seen it.
        let seen = Some(shown[start.index].text.clone());
        return if cluster.text() == local { learn(change, cluster) } else { write(change, seen, cluster) };
    }
    from_start(input, change, shown, start, input.origin, local, &document, cluster)
}

/// What follows from reading `local` against the shown text that its writer probably started from.
#[expect(clippy::too_many_arguments, reason = "what a merge depends on; a struct for two callers would say it twice")]
fn from_start(
    input: &Input<'_>,
    change: RecordId,
    shown: &[Shown],
    start: Start,
    origin: Origin,
    local: &str,
    document: &Document,
    cluster: &KnownText,
) -> Step {
    let base = &shown[start.index].text.blocks;
    let mut merge = merge3(base, document, &cluster.blocks);
    let unseen = unseen::unseen(shown, start.index, origin, document, &cluster.blocks, &merge.ops);
    let recorded: BTreeSet<_> = merge.conflicts.iter().map(|conflict| (conflict.id, conflict.field)).collect();
    merge.conflicts.extend(unseen.into_iter().filter(|conflict| !recorded.contains(&(conflict.id, conflict.field))));
    after(input, change, base, local, document, cluster, merge, Some(start))
}

/// What follows from a merge of `local`, made from `base`, onto `cluster`.
#[expect(clippy::too_many_arguments, reason = "what follows from a merge depends on all of it")]
fn after(
    input: &Input<'_>,
    change: RecordId,
    base: &[Known<RecordId>],
    local: &str,
    document: &Document,
    cluster: &KnownText,
    merge: Merge<RecordId>,
    start: Option<Start>,
) -> Step {
    let mut merge = settle(merge, base, document, &cluster.blocks, input.strategies);
    if !merge.ops.is_empty() || !merge.conflicts.is_empty() {
        forget_revived(&mut merge.local_ids, base, document, &cluster.blocks);
        let conflicts: Vec<NewConflict> = merge.conflicts.into_iter().map(new_conflict).collect();
        let ops = merge.ops.into_iter().map(block_op).collect();
        let body = Body::Edit { change, base: cluster.revision, mode: EditMode::Merge, ops, conflicts };
        return Step::Propose(Box::new(Proposal { body, text: Some(local.to_owned()), ids: merge.local_ids, start }));
    }
    if cluster.text() == local {
        return learn(change, cluster);
    }
    // An emptied file is a writer's truncation: nobody has read it.
    let seen = named(document, merge.local_ids, cluster.revision).filter(|seen| !seen.blocks.is_empty());
    Step::Write { change, seen, text: cluster.clone() }
}

/// A block that the cluster deleted and the writer edited is put back by the merge as a new one: its old id is void.
fn forget_revived(
    ids: &mut [Option<RecordId>],
    base: &[Known<RecordId>],
    local: &Document,
    cluster: &[Known<RecordId>],
) {
    let alive: BTreeSet<RecordId> = cluster.iter().map(|known| known.id).collect();
    let before: BTreeMap<RecordId, &Block> = base.iter().map(|known| (known.id, &known.block)).collect();
    for (slot, block) in ids.iter_mut().zip(&local.blocks) {
        let is_revived = slot.is_some_and(|id| {
            let is_edited = before.get(&id).is_some_and(|base| base.content != block.content);
            !alive.contains(&id) && is_edited && block.kind != BlockKind::Blank
        });
        if is_revived {
            *slot = None;
        }
    }
}

/// A text that was put in the way of our write, or written into a file that we had replaced: its edits go on top of the cluster's
/// text. `newest_seen` is the newest text that its writer can have seen: what stood there before our write; its buffer may be
/// older still. `None` = it holds nothing new.
#[must_use]
pub fn plan_displaced(input: &Input<'_>, local: &str, newest_seen: Option<&KnownText>) -> Option<Box<Proposal>> {
    let document = parse(local);
    let (change, text) = match input.cluster {
        Side::Live { change, text } => (*change, text),
        Side::Absent | Side::Deleted { .. } => return proposal(create(input, local)),
    };
    let shown = input.agreed.map_or(&[][..], |(_, shown)| shown);
    let seen = match newest_seen {
        Some(newest) => shown.iter().rposition(|shown| shown.text.text() == newest.text()),
        None => shown.len().checked_sub(1),
    };
    let base = match (seen, newest_seen) {
        (Some(seen), _) => {
            let start = choose(&shown[..=seen], &document, local, Origin::Displaced);
            if start.reason == Reason::Past {
                return None;
            }
            let shown = &shown[..=seen];
            return proposal(from_start(input, change, shown, start, Origin::Displaced, local, &document, text));
        }
        (None, Some(newest)) => newest.blocks.clone(),
        (None, None) => {
            let (base, merge) = merge_without_past(text, &document);
            return proposal(after(input, change, &base, local, &document, text, merge, None));
        }
    };
    let merge = merge3(&base, &document, &text.blocks);
    proposal(after(input, change, &base, local, &document, text, merge, None))
}

fn proposal(step: Step) -> Option<Box<Proposal>> {
    match step {
        Step::Propose(proposal) => Some(proposal),
        Step::Settled
        | Step::Learn { .. }
        | Step::Write { .. }
        | Step::Remove
        | Step::Forget
        | Step::AwaitDeletion
        | Step::NeedsTake
        | Step::Behind { .. } => None,
    }
}

fn first_binding(
    input: &Input<'_>,
    change: RecordId,
    cluster: &KnownText,
    local: &str,
    take: Option<Take>,
) -> Step {
    if cluster.text() == local {
        return learn(change, cluster);
    }
    let document = parse(local);
    let base = match take {
        None => return Step::NeedsTake,
        Some(Take::Cluster) => return write(change, None, cluster),
        Some(Take::Local) => cluster.blocks.clone(),
        Some(Take::Merge) => {
            let (base, merge) = merge_without_past(cluster, &document);
            return after(input, change, &base, local, &document, cluster, merge, None);
        }
    };
    let merge = merge3(&base, &document, &cluster.blocks);
    after(input, change, &base, local, &document, cluster, merge, None)
}

/// A merge of two texts without a common past: lines of one side only stay, in the cluster's order; a mark that differs counts as
/// ticked by the side that has it; of words that differ the cluster's stand, and a conflict keeps the others, unless the file's
/// only add to them.
fn merge_without_past(cluster: &KnownText, local: &Document) -> (Vec<Known<RecordId>>, Merge<RecordId>) {
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
        block.content.mark = " ".to_owned();
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
    let (ones, others): (Vec<&str>, Vec<&str>) =
        (one.split_whitespace().collect(), other.split_whitespace().collect());
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

/// The blocks of a text with their ids, if each has one.
fn named(document: &Document, ids: Vec<Option<RecordId>>, revision: Revision) -> Option<KnownText> {
    let ids: Option<Vec<RecordId>> = ids.into_iter().collect();
    let blocks = ids?.into_iter().zip(&document.blocks).map(|(id, block)| Known { id, block: block.clone() }).collect();
    Some(KnownText { revision, blocks })
}

fn learn(change: RecordId, text: &KnownText) -> Step {
    Step::Learn { change, text: text.clone() }
}

fn write(change: RecordId, seen: Option<KnownText>, text: &KnownText) -> Step {
    Step::Write { change, seen, text: text.clone() }
}

fn create(input: &Input<'_>, local: &str) -> Step {
    let document = parse(local);
    let blocks: Vec<NewBlock> = document.blocks.iter().map(new_block).collect();
    let ids = vec![None; blocks.len()];
    let body = Body::CreateChange { project: input.project, path: input.path.to_owned(), blocks, ops: Vec::new() };
    Step::Propose(Box::new(Proposal { body, text: Some(local.to_owned()), ids, start: None }))
}

fn delete(change: RecordId, base: Revision) -> Step {
    let body = Body::DeleteChange { change, base };
    Step::Propose(Box::new(Proposal { body, text: None, ids: Vec::new(), start: None }))
}
