//! A cluster that was restored from a backup: what a file was agreed on may be of a time that the restore has undone.
//!
//! ```text
//!            cut                    base                       at
//!   ---------|. . . . . . . . . . . .|. . . . . . . . . . . . .|---->
//!     cluster's text: common to both      the file holds this, and what was written since
//! ```
//! Read against its base, the file would hold nothing new, and the lines that came after the cut would look as if the cluster had deleted
//! them: they would be written over. So the base becomes the cluster's text at the cut, which both sides have in common, and all that the
//! file holds beyond it is an edit again, one that is accepted once however many checkouts hold it. A change that was made after the cut is unknown, and the file is one that was never agreed on.

use tokio::time::Instant;
use zyflow_machine::id::Revision;

use super::run::Engine;
use crate::base::Record;
use crate::cluster::{Cluster, ClusterError, Undone};
use crate::path::FilePath;
use crate::plan::{By, Shown};
use crate::text::KnownText;

impl<C: Cluster> Engine<C> {
    /// Moves the base of a file out of what was undone. Whether the file can be looked at now: what is remembered of it is stored first.
    pub(super) fn leave_undone(&mut self, path: &FilePath, now: Instant) -> Result<bool, ClusterError> {
        let Some(file) = self.files.get(path) else { return Ok(true) };
        // The latest first: what it went back to may itself lie in what an earlier one has undone.
        let mut restores = self.cluster.undone()?;
        restores.sort_by_key(|undone| std::cmp::Reverse(undone.at));
        let Some(undone) = restores.into_iter().find(|undone| touches(&file.record, *undone)) else { return Ok(true) };
        let at_cut = match file.record.change {
            // Where that isn't kept any more, the file is one that was never agreed on: lines of either side stay.
            Some(change) => self.cluster.document(change, Some(undone.cut)).unwrap_or_else(|error| {
                tracing::warn!(path = path.as_str(), %error, "the text before the restore can't be read");
                None
            }),
            None => None,
        };
        let at_cut = at_cut.filter(|document| !document.deleted);
        let at_cut = at_cut.map(|document| KnownText { revision: undone.cut, blocks: document.blocks });
        tracing::info!(path = path.as_str(), cut = %undone.cut, is_known = at_cut.is_some(), "the base was undone by a restore");
        let Some(file) = self.files.get_mut(path) else { return Ok(true) };
        go_back(&mut file.record, undone, at_cut);
        Ok(self.save(path, now))
    }

    /// Whether the base of a file is the text at a cut: every checkout that agreed on more than the restored cluster has brings the same.
    pub(super) fn is_at_cut(&self, path: &FilePath) -> bool {
        let base = self.files.get(path).and_then(|file| file.record.base()).map(|base| base.revision);
        // Where it can't be told, they are united like any other edits.
        let undone = self.cluster.undone().unwrap_or_default();
        undone.iter().any(|undone| Some(undone.cut) == base)
    }
}

fn is_undone(revision: Revision, undone: Undone) -> bool {
    undone.cut < revision && revision < undone.at
}

/// Whether anything that a record holds was undone.
fn touches(record: &Record, undone: Undone) -> bool {
    let shown = record.shown.iter().map(|shown| shown.text.revision);
    let intent = record.intent.iter().map(|intent| intent.text.revision);
    shown.chain(intent).any(|revision| is_undone(revision, undone))
}

/// Forgets what was undone; the text at the cut is what was agreed on last.
fn go_back(record: &mut Record, undone: Undone, at_cut: Option<KnownText>) {
    record.intent = record.intent.take().filter(|intent| !is_undone(intent.text.revision, undone));
    record.shown.retain(|shown| !is_undone(shown.text.revision, undone));
    match at_cut {
        // Nothing that it stood for is known to the cluster.
        None => (record.change, record.shown) = (None, Vec::new()),
        Some(text) => {
            record.shown.retain(|shown| shown.text.text() != text.text());
            record.shown.push(Shown { text, by: By::Found });
        }
    }
}
