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

mod known_lines;
mod start;
#[cfg(test)]
mod tests;
mod unseen;
mod without_past;

use std::collections::{BTreeMap, BTreeSet};

use zyflow_machine::command::{Body, EditMode, NewBlock, NewConflict};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_spec::{Block, BlockKind, Document, Known, Merge, Strategies, merge3, parse, settle};

pub use start::{Origin, Reason, Start, choose};

use known_lines::with_known_lines;
use without_past::merge_without_past;

use crate::text::{KnownText, block_op, new_block, new_conflict};

/// Most texts that are remembered per file while a checkout runs: an agent that holds a buffer over more of our writes than this is
/// not seen before. Ten editors at once make 15 writes a second, and a tool holds a file for some seconds.
pub const SHOWN_MAX: usize = 256;

/// Most of them that survive a restart: they are stored with every agreement, and a buffer from before a restart is rare.
pub const SHOWN_STORED_MAX: usize = 16;

/// Most bytes of older shown texts that are remembered per file, so that a large file doesn't cost 256 times its size: 4 MiB.
pub const SHOWN_BYTES_MAX: usize = 4 << 20;

/// Who made a text stand on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// A person or a tool.
    Writer,
    /// A person or a tool, but our write was over it before anybody else could see it.
    Crossing,
    /// This checkout's write-back.
    Us,
    /// Nobody knows: it was found at the first look after a start. Its lines may have come one by one, so a buffer that holds some
    /// of them need not have seen the others.
    Found,
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
        /// The revision at which it is.
        at: Revision,
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
        // Also where another change had the path: one that was made since then isn't known here yet.
        (_, Side::Live { text: KnownText { revision: at, .. }, .. } | Side::Deleted { at, .. }) if *at < need => {
            Step::Behind { need }
        }
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
    let save = Save { local, document: &document, origin: input.origin, shown, newest_seen: shown.len() - 1 };
    from_start(input, change, &save, start, cluster)
}

/// A text that somebody saved, and what they can have seen.
struct Save<'a> {
    local: &'a str,
    document: &'a Document,
    origin: Origin,
    /// Every text that was shown.
    shown: &'a [Shown],
    /// The index of the newest that its writer can have seen.
    newest_seen: usize,
}

/// What follows from reading a save against the shown text that its writer probably started from.
fn from_start(input: &Input<'_>, change: RecordId, save: &Save<'_>, start: Start, cluster: &KnownText) -> Step {
    let Save { local, document, origin, shown, newest_seen } = *save;
    if start.index == 0 && shown[0].text.blocks.is_empty() {
        // A file that was empty at the first binding is one that a writer had emptied, to write it anew.
        let (base, merge) = merge_without_past(cluster, document);
        return after(input, change, &base, local, document, cluster, merge, Some(start));
    }
    let base = &with_known_lines(shown, start.index, document, &cluster.blocks);
    let mut merge = merge3(base, document, &cluster.blocks);
    let seen = &shown[..=newest_seen];
    let unseen = unseen::unseen(seen, start.index, base, origin, document, &cluster.blocks, &merge.ops);
    let is_stale = start.index < newest_seen;
    let twice = if is_stale { unseen::maybe_twice(base, &cluster.blocks, &merge.ops) } else { Vec::new() };
    let unseen = unseen.into_iter().chain(twice);
    let recorded: BTreeSet<_> = merge.conflicts.iter().map(|conflict| (conflict.id, conflict.field)).collect();
    merge.conflicts.extend(unseen.filter(|conflict| !recorded.contains(&(conflict.id, conflict.field))));
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
    let seen = named(document, merge.local_ids, cluster.revision);
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
    let of_change = input.agreed.filter(|(agreed, _)| *agreed == change);
    let shown = of_change.map_or(&[][..], |(_, shown)| shown);
    let seen = match newest_seen {
        // Nobody starts from an emptied file: whoever emptied it holds the text that they read before.
        Some(newest) if newest.blocks.is_empty() => None,
        Some(newest) => shown.iter().rposition(|shown| shown.text.text() == newest.text()),
        None => shown.len().checked_sub(1),
    };
    if let Some(seen) = seen {
        // A file that holds what it held before, and more, was written on: lines that come back in it were on their way.
        // Its last line may have been cut within, and was ended by the cluster.
        let is_continued = newest_seen
            .map(KnownText::text)
            .is_some_and(|newest| local.starts_with(newest.strip_suffix('\n').unwrap_or(&newest)));
        let start = if is_continued {
            Start { index: seen, reason: Reason::Newest }
        } else {
            choose(&shown[..=seen], &document, local, Origin::Displaced)
        };
        if start.reason == Reason::Past {
            return None;
        }
        let save = Save { local, document: &document, origin: Origin::Displaced, shown, newest_seen: seen };
        return proposal(from_start(input, change, &save, start, text));
    }
    let (base, merge) = match newest_seen.filter(|newest| shares_blocks(newest, text)) {
        Some(newest) => (newest.blocks.clone(), merge3(&newest.blocks, &document, &text.blocks)),
        None => merge_without_past(text, &document),
    };
    proposal(after(input, change, &base, local, &document, text, merge, None))
}

/// Whether two texts are of one change, as far as can be seen: one that was made anew has other ids.
fn shares_blocks(one: &KnownText, other: &KnownText) -> bool {
    let ids: BTreeSet<RecordId> = one.blocks.iter().map(|known| known.id).collect();
    other.blocks.iter().any(|known| ids.contains(&known.id))
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

fn first_binding(input: &Input<'_>, change: RecordId, cluster: &KnownText, local: &str, take: Option<Take>) -> Step {
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
