//! Entries on their way into one transaction.
//!
//! The machine's header and the sessions must be those of the last entry in the transaction. Saving them with every entry
//! would cost more than the rows; so entries are gathered in an open group, and the machine is saved once, at the moment
//! when the group is closed and before the next entry is applied.

use std::sync::Arc;
use std::time::Instant;

use zyflow_machine::id::SessionId;

use super::entry::{Change, weight};
use super::state::SavedState;

/// Counted for an entry besides its rows, so that entries without rows fill a group too.
const OPS_PER_ENTRY: usize = 1;

/// Entries that are still being gathered.
pub(crate) struct OpenGroup {
    pub(crate) changes: Vec<Arc<Change>>,
    pub(crate) size: Size,
    pub(crate) since: Instant,
}

/// Entries that go into one transaction, with all that moves with them.
pub(crate) struct Group {
    pub(crate) changes: Vec<Arc<Change>>,
    pub(crate) size: Size,
    pub(crate) state: SavedState,
    /// Sessions that changed; `None` = deleted.
    pub(crate) sessions: Vec<(SessionId, Option<Vec<u8>>)>,
}

/// How much is waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) ops: usize,
    pub(crate) bytes: usize,
}

impl Size {
    pub(crate) fn of(change: &Change) -> Self {
        Self { ops: OPS_PER_ENTRY + change.rows.len(), bytes: change.rows.iter().map(|row| weight(row)).sum() }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { ops: self.ops + other.ops, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self { ops: self.ops - other.ops, bytes: self.bytes - other.bytes }
    }
}
