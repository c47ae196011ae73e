//! Three texts and no cluster: the merge behind the command line and the git merge driver. Identities are made up from positions.

use super::{Conflict, merge3};
use crate::align::{Known, align};
use crate::parse::{Document, parse};

/// The result of [`merge_text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextMerge {
    /// The merged text. Where the sides clash it holds ours.
    pub text: String,
    /// What could not be united, both values in full. The ids number the blocks of the base, then those that ours added.
    pub conflicts: Vec<Conflict<usize>>,
}

/// Merges what `ours` and `theirs` made of `base`. The texts are canonical, as [`crate::decode`] gives them; a missing last line end is
/// added.
///
/// Ours stays in a clash, as somebody who merges another branch into theirs expects.
#[must_use]
pub fn merge_text(base: &str, ours: &str, theirs: &str) -> TextMerge {
    let base = numbered(parse(&ended(base)));
    let ours = parse(&ended(ours));
    let theirs = parse(&ended(theirs));
    let mut next = base.len()..;
    let ids: Vec<usize> =
        align(&base, &ours).into_iter().map(|id| id.or_else(|| next.next()).unwrap_or(usize::MAX)).collect();
    let current: Vec<Known<usize>> = ids.into_iter().zip(ours.blocks).map(|(id, block)| Known { id, block }).collect();
    let merge = merge3(&base, &theirs, &current);
    let swapped = |conflict: Conflict<usize>| Conflict { ours: conflict.theirs, theirs: conflict.ours, ..conflict };
    TextMerge { text: merge.text, conflicts: merge.conflicts.into_iter().map(swapped).collect() }
}

fn ended(text: &str) -> String {
    let mut ended = text.to_owned();
    if !ended.is_empty() && !ended.ends_with('\n') {
        ended.push('\n');
    }
    ended
}

fn numbered(document: Document) -> Vec<Known<usize>> {
    document.blocks.into_iter().enumerate().map(|(id, block)| Known { id, block }).collect()
}
