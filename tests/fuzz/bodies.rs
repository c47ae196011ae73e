//! What is tried with arbitrary bytes, and what must hold: one body for each fuzz target.
//!
//! Shared by the targets of this folder (libFuzzer) and by `storage/spec/tests/fuzz.rs`, which runs the same bodies over kept
//! inputs and over mutations of samples in every test run. A body panics when a law is broken; it has no other result. Several texts
//! in one input stand between bytes 0xFF, which no UTF-8 has.

use std::collections::BTreeSet;

use zyflow_spec::{
    Document, FILE_BYTES_MAX, Known, Merge, Strategies, Strategy, align, apply, check, decode, encode,
    has_conflict_markers, merge3, parse as parse_text, settle,
};

/// Bytes of an input that are looked at by the bodies that compare texts, so that one run stays in milliseconds.
const COMPARED_BYTES_MAX: usize = 64 << 10;

/// Words of a text that are looked for after a merge; each look is linear in the text.
const WORDS_MAX: usize = 64;

/// Any bytes are read or refused with a reason, and what is read prints back.
pub fn parse(data: &[u8]) {
    let report = check(data, None);
    let Ok((text, encoding)) = decode(data) else {
        assert!(data.len() > FILE_BYTES_MAX || std::str::from_utf8(data).is_err(), "only such files are refused");
        return;
    };
    assert!(report.lossless, "a file that is read prints back");
    assert_eq!(encode(&text, encoding), data, "the habits of a file are kept");
    let document = parse_text(&text);
    assert_eq!(document.print(), text, "blocks concatenate to the text");
    for block in &document.blocks {
        assert!(!block.print().is_empty(), "no block is empty");
        assert!(block.print().contains(block.title()), "a title is a part of its block");
        assert!(block.explicit_id().is_none_or(|id| block.print().contains(id)), "and so is an id");
    }
    let again = parse_text(&text);
    assert_eq!(again, document, "parsing is a function of the text");
    let _ = has_conflict_markers(&text);
}

/// The operations between any two texts give the second, and identities are given once.
pub fn diff(data: &[u8]) {
    let [old, new] = texts(data);
    let old = known(&old);
    let document = parse_text(&new);
    let ids: Vec<usize> = align(&old, &document).into_iter().flatten().collect();
    assert_eq!(BTreeSet::from_iter(&ids).len(), ids.len(), "no identity is given twice");
    let ops = zyflow_spec::diff(&old, &document);
    let placed = apply(&old, &ops).expect("the operations fit");
    assert_eq!(
        placed.iter().map(|placed| placed.block.print()).collect::<String>(),
        new,
        "applied, they give the text"
    );
}

/// Any three texts merge: the operations give the merged text, no new word of either side is lost, and each strategy keeps to that.
pub fn merge(data: &[u8]) {
    let (choice, data) = data.split_first().map_or((0, data), |(choice, rest)| (*choice, rest));
    let [base_text, ours, theirs] = texts(data);
    let base = known(&base_text);
    let local = parse_text(&ours);
    let current = evolved(&base, &theirs);
    let merged = merge3(&base, &local, &current);
    let fits = |merge: &Merge<usize>| {
        let placed = apply(&current, &merge.ops).expect("the operations fit");
        assert_eq!(placed.iter().map(|placed| placed.block.print()).collect::<String>(), merge.text);
    };
    fits(&merged);
    assert_eq!(merge3(&base, &local, &current), merged, "merging is a function of the three texts");
    let strategies = [
        Strategy::SpecWins,
        Strategy::RuntimeWins,
        Strategy::LastWriteWins,
        Strategy::Merge,
        Strategy::Manual,
        Strategy::Skip,
    ];
    let strategy = strategies.get(usize::from(choice) % strategies.len()).copied().unwrap_or_default();
    let conflicts = merged.conflicts.len();
    let settled = settle(merged, &base, &local, &current, &Strategies::all(strategy));
    assert_eq!(settled.conflicts.len(), conflicts, "no conflict is dropped");
    let values = settled.conflicts.iter().map(|settled| &settled.conflict);
    let values = values.flat_map(|conflict| [&conflict.ours, &conflict.theirs]).flatten().map(String::as_str);
    let kept: Vec<&str> = values.chain([settled.text.as_str()]).collect();
    for side in [&ours, &theirs] {
        let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !base_text.contains(*word);
        for word in side.split_whitespace().filter(is_word).take(WORDS_MAX) {
            assert!(kept.iter().any(|text| text.contains(word)), "{word:?} is lost");
        }
    }
    let merge = Merge { ops: settled.ops, conflicts: Vec::new(), text: settled.text, local_ids: settled.local_ids };
    fits(&merge);
    let unchanged = merge3(&base, &document(&base), &current);
    assert!(unchanged.ops.is_empty() && unchanged.conflicts.is_empty(), "who changed nothing proposes nothing");
}

/// Canonical texts out of one input, the missing ones empty.
fn texts<const N: usize>(data: &[u8]) -> [String; N] {
    let data = data.get(..COMPARED_BYTES_MAX).unwrap_or(data);
    let mut parts = data.split(|byte| *byte == 0xff);
    std::array::from_fn(|_| {
        let mut text = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    })
}

fn known(text: &str) -> Vec<Known<usize>> {
    parse_text(text).blocks.into_iter().enumerate().map(|(id, block)| Known { id, block }).collect()
}

/// The cluster's state after somebody made `text` of `base`.
fn evolved(base: &[Known<usize>], text: &str) -> Vec<Known<usize>> {
    let document = parse_text(text);
    let mut fresh = base.len()..;
    let ids = align(base, &document).into_iter().map(|id| id.or_else(|| fresh.next()).unwrap_or(usize::MAX));
    ids.zip(document.blocks).map(|(id, block)| Known { id, block }).collect()
}

fn document(known: &[Known<usize>]) -> Document {
    Document { blocks: known.iter().map(|known| known.block.clone()).collect(), problems: Vec::new() }
}
