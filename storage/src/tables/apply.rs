//! Applying an entry: decided in memory over the overlay, answered at once, handed to the writer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use zyflow_machine::event::{Provenance, RowChange};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::view::Stored;

use super::entry::{Change, Entry, EntryPayload, Position, Row};
use super::error::TablesError;
use super::group::{OpenGroup, Size};
use super::shared::{Applier, Shared};
use super::view::{Lane, TablesView};

/// The highest index that the first entry of a log may have: logs begin at 0 or 1. A later one means that entries are missing.
const FIRST_INDEX_MAX: u64 = 1;

impl Shared {
    /// See [`super::Tables::apply`].
    pub(crate) fn apply(self: &Arc<Self>, entry: Entry) -> Result<Vec<Outcome>, TablesError> {
        self.check()?;
        self.try_apply(entry).map_err(|error| if error.is_fatal() { self.latch(error) } else { error })
    }

    fn try_apply(self: &Arc<Self>, entry: Entry) -> Result<Vec<Outcome>, TablesError> {
        let mut applier = self.wait_for_room()?;
        let position = entry.position;
        check_order(applier.position, position)?;
        let revision = position.revision();
        let (outcomes, rows) = match entry.payload {
            EntryPayload::Blank => {
                applier.machine.skip(revision);
                (Vec::new(), Vec::new())
            }
            EntryPayload::Membership(membership) => {
                applier.machine.skip(revision);
                applier.membership = Some((position, membership));
                (Vec::new(), Vec::new())
            }
            EntryPayload::Batch(batch) => {
                let view = TablesView::newest(self, Lane::Apply)?;
                let effects = applier.machine.apply(&view, revision, &batch)?;
                (effects.outcomes, effects.rows.into_iter().map(to_row).collect())
            }
        };
        applier.position = Some(position);
        let digest = applier.machine.digest();
        applier.digests.keep(revision, digest);
        let change = Arc::new(Change { revision, rows });
        self.overlay_mut()?.publish(&change);
        self.enqueue(&mut applier, &change);
        // The change before the revision: whoever sees the revision move must find the change that moved it. Fails only where
        // nobody listens.
        drop(self.changes.send(change));
        self.applied.send_replace(revision);
        Ok(outcomes)
    }

    /// The applier, as soon as the backlog is below its limits.
    fn wait_for_room(&self) -> Result<MutexGuard<'_, Applier>, TablesError> {
        let mut applier = self.applier()?;
        loop {
            self.check()?;
            if applier.is_stopped {
                return Err(TablesError::Stopped);
            }
            let Size { ops, bytes } = applier.backlog;
            if ops < self.config.backlog_ops_max && bytes < self.config.backlog_bytes_max {
                return Ok(applier);
            }
            // What waits must be on its way, or this waits for ever.
            applier.close_group();
            self.wake.notify_one();
            applier = self.room.wait(applier).map_err(|_| TablesError::Poisoned)?;
        }
    }

    /// Hands an applied entry to the writer.
    fn enqueue(&self, applier: &mut Applier, change: &Arc<Change>) {
        let size = Size::of(change);
        applier.backlog = applier.backlog.plus(size);
        self.backlog_ops.store(applier.backlog.ops, Ordering::Relaxed);
        let is_first = applier.open.is_none();
        let open = applier.open.get_or_insert_with(|| OpenGroup {
            changes: Vec::new(),
            size: Size::default(),
            since: Instant::now(),
        });
        open.changes.push(Arc::clone(change));
        open.size = open.size.plus(size);
        let is_full = open.size.ops >= self.config.flush_ops_max;
        if is_full {
            // Here, at this thread's priority, and not under this lock at the writer's.
            applier.close_group();
        }
        if is_first || is_full {
            self.wake.notify_one();
        }
    }
}

fn check_order(applied: Option<Position>, given: Position) -> Result<(), TablesError> {
    let is_next = match applied {
        None => given.index <= FIRST_INDEX_MAX,
        Some(applied) => given.index == applied.index + 1 && given.term >= applied.term,
    };
    if is_next { Ok(()) } else { Err(TablesError::OutOfOrder { applied, given }) }
}

fn to_row((change, provenance): (RowChange, Arc<Provenance>)) -> Arc<Row> {
    let RowChange { version, id, kind, parent, order, record, previous, fact } = change;
    let stored = Arc::new(Stored { version, kind, parent, order, record });
    Arc::new(Row { id, stored, previous, fact, provenance })
}
