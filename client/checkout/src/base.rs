//! What a checkout remembers of one file between saves and across restarts, and the store that keeps it.
//!
//! ```text
//!   state_dir/
//!     checkout            what is bound: lineage, project, branch
//!     files/HASH          one record per path, HASH of the path
//! ```
//!
//! A record is written whole: to a temporary, fsynced, renamed, the folder fsynced; so it is the old or the new one after a power
//! cut. It holds texts, so it is sealed by the key that the node derives ([`StateSeal`]); version and checksum stand outside the
//! seal. A record that is damaged or of another version is refused, never guessed at: forgetting a base could undo other people's
//! edits.
//!
//! Order of writes, which the plan's safety argument leans on: a flight before it is proposed, an intent before the file is
//! replaced, a shown text after.

mod codec;
mod store;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;

use zyflow_machine::command::{BlockOp, Body};
use zyflow_machine::id::{RecordId, RequestId, Revision};
use zyflow_spec::{Known, parse};

/// The bytes of a record, for tests of other modules.
#[cfg(test)]
pub(crate) mod codec_for_tests {
    use super::{Record, codec};
    use crate::testing::TestSeal;

    pub(crate) fn encode(record: &Record) -> Vec<u8> {
        codec::encode(record, &TestSeal, b"test").unwrap()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Record {
        codec::decode(bytes, &TestSeal, b"test").unwrap()
    }
}

pub use codec::FormatError;
pub use store::{Binding, Loaded, Store, StoreError};

use crate::plan::{By, SHOWN_BYTES_MAX, SHOWN_MAX, Shown};
use crate::text::KnownText;

/// Seals what a checkout keeps on the disk: the node gives its own key, so that no text lies about in clear.
pub trait StateSeal: Send + Sync + 'static {
    /// Seals `plaintext`; `context` must be given again to open it.
    ///
    /// # Errors
    /// [`SealError`] when the key can't be used.
    fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens what [`StateSeal::seal`] made.
    ///
    /// # Errors
    /// [`SealError`] when it was sealed by another key, in another context, or was changed since.
    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

/// Why sealing or opening failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SealError(#[from] pub Box<dyn StdError + Send + Sync>);

/// What a checkout remembers of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its path.
    pub path: String,
    /// The change it is; `None` until its creation is accepted.
    pub change: Option<RecordId>,
    /// Texts that were on the disk, oldest first; the last one is the base. Empty until something was agreed on.
    pub shown: Vec<Shown>,
    /// A text that was about to be written when this was stored.
    pub intent: Option<Intent>,
    /// A command that was about to be proposed when this was stored.
    pub flight: Option<Flight>,
    /// BLAKE3 of the bytes that this checkout wrote last.
    pub wrote: Option<[u8; 32]>,
}

/// A text of a change that is about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The change.
    pub change: RecordId,
    /// Its text.
    pub text: KnownText,
}

/// A command whose fate isn't known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Its request: proposing it again has no second effect.
    pub request: RequestId,
    /// What is asked.
    pub body: Body,
    /// The local text whose edits it carries.
    pub text: Option<String>,
    /// The ids of that text's blocks, as in [`crate::plan::Proposal::ids`].
    pub ids: Vec<Option<RecordId>>,
    /// The name of the displaced file that the text comes from, where it isn't the file itself.
    pub displaced: Option<String>,
}

impl Record {
    /// A file of which nothing is known.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), change: None, shown: Vec::new(), intent: None, flight: None, wrote: None }
    }

    /// The text that was last agreed on.
    #[must_use]
    pub fn base(&self) -> Option<&KnownText> {
        self.shown.last().map(|shown| &shown.text)
    }

    /// What a plan takes as agreed.
    #[must_use]
    pub fn agreed(&self) -> Option<(RecordId, &[Shown])> {
        let change = self.change?;
        (!self.shown.is_empty()).then_some((change, &self.shown[..]))
    }

    /// Remembers that `text` stands on the disk, as the newest. The same bytes again only renew their ids and revision.
    pub fn show(&mut self, change: RecordId, text: KnownText, by: By) {
        if self.change != Some(change) {
            self.change = Some(change);
            self.shown.clear();
        }
        match self.shown.last_mut() {
            Some(last) if last.text.text() == text.text() => last.text = text,
            Some(_) | None => self.shown.push(Shown { text, by }),
        }
        self.trim();
    }

    /// Remembers a text that was found on the disk and holds nothing new. Nobody of this checkout may have written it (a pull, a
    /// backup, an older state of ours), so a buffer from before it has not seen it. `is_watched` = the file was looked at since the
    /// start, so that it came there at once.
    pub fn learn(&mut self, change: RecordId, text: KnownText, is_watched: bool) {
        let by = match self.agreed() {
            None => By::Writer,
            Some(_) if is_watched => By::Us,
            Some(_) => By::Found,
        };
        self.show(change, text, by);
    }

    /// Remembers a text that stood on the disk for a moment, under the newest one. Not where nothing is agreed on with that change:
    /// what stands on the disk now, or the lack of a file, was not made from that text, so it can't be read against it.
    pub fn show_below_newest(&mut self, change: RecordId, text: KnownText) {
        if self.change != Some(change) || self.shown.is_empty() {
            return;
        }
        let newest = self.shown.len() - 1;
        if self.shown[newest].text.text() != text.text() {
            // The newest was written over it, whoever wrote it first.
            self.shown[newest].by = By::Us;
            self.shown.insert(newest, Shown { text, by: By::Crossing });
            self.trim();
        }
    }

    fn trim(&mut self) {
        let mut bytes: usize = self.shown.iter().map(|shown| shown.text.bytes()).sum();
        while self.shown.len() > SHOWN_MAX || (self.shown.len() > 1 && bytes > SHOWN_BYTES_MAX) {
            bytes -= self.shown.remove(0).text.bytes();
        }
    }

    /// After a restart: whether the text that was about to be written stands on the disk. A text that is neither it nor the one
    /// before may be made from either, so both count as shown, and the evidence decides. Only where the file had been emptied the
    /// one about to be written doesn't: whoever emptied it writes what they had read before. Returns a text that isn't shown.
    pub fn settle_intent(&mut self, local: Option<&str>) -> Option<String> {
        let Intent { change, text } = self.intent.take()?;
        let is_still_before = match local {
            None => true,
            Some(local) => {
                self.base().is_some_and(|base| base.text() == local || (base.blocks.is_empty() && text.text() != local))
            }
        };
        if is_still_before {
            return Some(text.text());
        }
        self.show(change, text, By::Us);
        None
    }
}

impl Flight {
    /// The text with all its ids, once the command is accepted at `revision` and has created `created`; `None` = the ids don't add
    /// up, and the text must be aligned with the document at that revision.
    ///
    /// # Panics
    /// Never, where the counts add up, which is checked first.
    #[must_use]
    pub fn named_text(&self, created: &[RecordId], revision: Revision) -> Option<KnownText> {
        let document = parse(self.text.as_deref()?);
        // A change's own id comes before its blocks, an edit's conflicts come after its inserts.
        let (skipped, inserts) = if let Body::CreateChange { blocks, .. } = &self.body {
            (1, blocks.len())
        } else if let Body::Edit { ops, .. } = &self.body {
            (0, ops.iter().filter(|op| matches!(op, BlockOp::Insert { .. })).count())
        } else {
            return None;
        };
        let is_complete = document.blocks.len() == self.ids.len()
            && self.ids.iter().filter(|id| id.is_none()).count() == inserts
            && created.len() >= skipped + inserts;
        if !is_complete {
            return None;
        }
        let mut created = created[skipped..].iter().copied();
        let blocks = self.ids.iter().zip(document.blocks).map(|(id, block)| {
            let id = id.or_else(|| created.next()).expect("invariant: as many were created as are missing");
            Known { id, block }
        });
        Some(KnownText { revision, blocks: blocks.collect() })
    }
}
