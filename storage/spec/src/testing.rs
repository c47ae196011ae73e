//! What the property tests share: generators of task files and of edits, and made-up identities.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::{Document, Known, Op, Placed, apply, parse};

/// A document whose blocks have their positions as ids.
pub(crate) fn known(text: &str) -> Vec<Known<u32>> {
    (0..).zip(parse(text).blocks).map(|(id, block)| Known { id, block }).collect()
}

/// Ids for the blocks that `apply` placed: new ones count from `next`.
pub(crate) fn identified(old: &[Known<u32>], ops: &[Op<u32>], next: u32) -> Vec<Known<u32>> {
    let placed = apply(old, ops).expect("the operations fit");
    let id = |placed: &Placed<u32>| placed.id.or(placed.insert.map(|insert| next + insert)).expect("old or new");
    placed.into_iter().map(|placed| Known { id: id(&placed), block: placed.block }).collect()
}

pub(crate) fn print(blocks: &[Known<u32>]) -> String {
    blocks.iter().map(|known| known.block.print()).collect()
}

/// One line of a task file, with words from a small vocabulary so that repeats and likeness occur.
pub(crate) fn line() -> impl Strategy<Value = String> {
    let words = || {
        prop::collection::vec("(alpha|beta|gamma|delta|log|raft|spec|write|read|the|日誌)", 0..5)
            .prop_map(|words| words.join(" "))
    };
    let indent = || prop_oneof![4 => Just(""), 1 => Just("  "), 1 => Just("\t")];
    let id = || prop_oneof![2 => Just(String::new()), 2 => (1..4u8, 1..9u8).prop_map(|(one, two)| format!("{one}.{two} ")), 1 => (1..9u8).prop_map(|id| format!("T00{id} "))];
    prop_oneof![
        6 => (indent(), prop_oneof![3 => Just(" "), 2 => Just("x"), 1 => Just("-")], id(), words()).prop_map(|(indent, mark, id, words)| format!("{indent}- [{mark}] {id}{words}\n")),
        2 => Just("\n".to_owned()),
        2 => (1..4usize, words()).prop_map(|(level, words)| format!("{} {words}\n", "#".repeat(level))),
        2 => words().prop_map(|words| format!("{words}\n")),
        1 => words().prop_map(|words| format!("- {words}\n")),
        1 => prop_oneof![Just("```\n"), Just("```sh\n"), Just("---\n"), Just("<!--\n"), Just("-->\n"), Just("| a | b |\n")].prop_map(str::to_owned),
    ]
}

/// A canonical text.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..16).prop_map(|lines| lines.concat())
}

/// A change of a text by lines.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    Insert(Index, String),
    Remove(Index),
    Replace(Index, String),
    Append(Index, String),
    Tick(Index),
    Move(Index, Index),
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        2 => (any::<Index>(), line()).prop_map(|(at, line)| Edit::Insert(at, line)),
        1 => any::<Index>().prop_map(Edit::Remove),
        1 => (any::<Index>(), line()).prop_map(|(at, line)| Edit::Replace(at, line)),
        2 => (any::<Index>(), "[a-z]{3}").prop_map(|(at, word)| Edit::Append(at, word)),
        2 => any::<Index>().prop_map(Edit::Tick),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Move(from, to)),
    ];
    prop::collection::vec(edit, 0..6)
}

/// Applies edits; every text they give is canonical.
pub(crate) fn edited(text: &str, edits: &[Edit]) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for edit in edits {
        let count = lines.len();
        match edit {
            Edit::Insert(at, line) => lines.insert(at.index(count + 1), line.clone()),
            Edit::Remove(_) | Edit::Replace(..) | Edit::Append(..) | Edit::Tick(_) | Edit::Move(..) if count == 0 => {}
            Edit::Remove(at) => drop(lines.remove(at.index(count))),
            Edit::Replace(at, line) => {
                lines.remove(at.index(count));
                lines.insert(at.index(count), line.clone());
            }
            Edit::Append(at, word) => {
                let line = lines.remove(at.index(count));
                lines.insert(at.index(count), format!("{} {word}\n", line.trim_end_matches('\n')));
            }
            Edit::Tick(at) => {
                let line = lines.remove(at.index(count));
                lines.insert(at.index(count), line.replacen("[ ]", "[x]", 1));
            }
            Edit::Move(from, to) => {
                let line = lines.remove(from.index(count));
                lines.insert(to.index(count), line);
            }
        }
    }
    lines.concat()
}

/// Blocks of a document as `Known`, keeping the ids that are known and numbering the rest from `next`.
pub(crate) fn reidentified(document: Document, ids: Vec<Option<u32>>, next: u32) -> Vec<Known<u32>> {
    let mut fresh = next..;
    ids.into_iter()
        .zip(document.blocks)
        .map(|(id, block)| Known { id: id.or_else(|| fresh.next()).unwrap_or(u32::MAX), block })
        .collect()
}
