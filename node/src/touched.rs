//! Which changes were touched lately, for a checkout that asks what it has to look at.
//!
//! What is applied is heard on the tables' bus, an entry at a time, also those that touch nothing. So a revision that is left out shows that
//! something was missed: the bus dropped what was too old, or a snapshot was installed, which is on no bus. Then what lies before is
//! unknown, and the checkout looks at everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};
use zyflow_checkout::Touched;
use zyflow_machine::event::Fact;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Kind;
use zyflow_storage::tables::{Change, Row, Tables};

/// Revisions whose touched changes are remembered; a checkout that is further behind looks at every document.
const TOUCHED_REVISIONS_MAX: usize = 4_096;

/// See the module.
pub(crate) struct TouchedLog {
    bus: broadcast::Receiver<Arc<Change>>,
    applied: watch::Receiver<Revision>,
    /// Everything after this revision is known.
    from: Revision,
    /// Up to this one.
    up_to: Revision,
    entries: Vec<(Revision, BTreeSet<RecordId>)>,
}

impl TouchedLog {
    /// Hears of everything that is applied from now on.
    pub(crate) fn new(tables: &Tables) -> Self {
        // In this order: what is applied in between is heard twice and not never.
        let bus = tables.subscribe();
        Self::heard(bus, tables.applied())
    }

    fn heard(bus: broadcast::Receiver<Arc<Change>>, applied: watch::Receiver<Revision>) -> Self {
        let from = *applied.borrow();
        Self { bus, applied, from, up_to: from, entries: Vec::new() }
    }

    /// What was touched after `since`.
    pub(crate) fn since(&mut self, since: Revision) -> Touched {
        self.drain();
        if since < self.from {
            return Touched::Unknown;
        }
        let newer = self.entries.iter().filter(|(revision, _)| *revision > since);
        Touched::Changes { up_to: self.up_to, changes: newer.flat_map(|(_, changes)| changes.clone()).collect() }
    }

    fn drain(&mut self) {
        // Before the bus: every entry is on it before it counts as applied.
        let applied = *self.applied.borrow_and_update();
        loop {
            match self.bus.try_recv() {
                Ok(change) => self.hear(&change),
                // Seen by the revisions that are left out.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if applied > self.up_to {
            self.begin_anew(applied);
            self.up_to = applied;
        }
        let excess = self.entries.len().saturating_sub(TOUCHED_REVISIONS_MAX);
        if let Some((revision, _)) = self.entries.drain(..excess).next_back() {
            self.from = revision;
        }
    }

    fn hear(&mut self, change: &Change) {
        if change.revision <= self.up_to {
            return;
        }
        let before = Revision(change.revision.0 - 1);
        if before != self.up_to {
            self.begin_anew(before);
        }
        self.up_to = change.revision;
        let touched: BTreeSet<RecordId> = change.rows.iter().filter_map(|row| touched_by(row)).collect();
        if !touched.is_empty() {
            self.entries.push((change.revision, touched));
        }
    }

    /// Nothing up to `from` is known any more.
    fn begin_anew(&mut self, from: Revision) {
        self.entries.clear();
        self.from = from;
    }
}

/// What a checkout has to look at for this event.
fn touched_by(row: &Row) -> Option<RecordId> {
    match row.stored.kind {
        // A change that was moved, or is there again, is a matter of the project's list.
        Kind::Change if matches!(row.fact, Fact::ChangeMoved { .. } | Fact::ChangeRestored { .. }) => {
            Some(row.stored.parent)
        }
        Kind::Block => Some(row.stored.parent),
        // A project's globs and policy: whoever doesn't know it as a change reads the list anew.
        Kind::Project | Kind::Change => Some(row.id),
        Kind::Conflict | Kind::Comment | Kind::Point | Kind::Retention | Kind::Restore => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_machine::command::{Author, TaskField};
    use zyflow_machine::event::Provenance;
    use zyflow_machine::id::{ClusterTime, EventId};
    use zyflow_machine::view::Stored;

    struct Bus {
        changes: broadcast::Sender<Arc<Change>>,
        applied: watch::Sender<Revision>,
    }

    fn document(revision: u64) -> RecordId {
        RecordId(EventId::new(Revision(revision), 0).unwrap())
    }

    impl Bus {
        /// Room for four changes; the state is at 10.
        fn new() -> (Self, TouchedLog) {
            let bus = Self { changes: broadcast::Sender::new(4), applied: watch::Sender::new(Revision(10)) };
            let log = TouchedLog::heard(bus.changes.subscribe(), bus.applied.subscribe());
            (bus, log)
        }

        /// An entry that touches the document of its own number, or none.
        fn apply(&self, revision: u64, touches: bool) {
            let version = EventId::new(Revision(revision), 1).unwrap();
            let stored =
                Stored { version, kind: Kind::Block, parent: document(revision), order: Vec::new(), record: None };
            let fact = Fact::TaskSet { fields: vec![TaskField::Note(String::new())], mark: None };
            let provenance = Provenance { author: Author::default(), time: ClusterTime(0), request: None };
            let row = Row {
                id: RecordId(version),
                stored: Arc::new(stored),
                previous: None,
                fact,
                provenance: Arc::new(provenance),
            };
            let rows = if touches { vec![Arc::new(row)] } else { Vec::new() };
            drop(self.changes.send(Arc::new(Change { revision: Revision(revision), rows })));
            self.applied.send_replace(Revision(revision));
        }
    }

    fn known(log: &mut TouchedLog, since: u64) -> Option<(u64, Vec<RecordId>)> {
        match log.since(Revision(since)) {
            Touched::Changes { up_to, changes } => Some((up_to.0, changes.into_iter().collect())),
            Touched::Unknown => None,
        }
    }

    #[test]
    fn what_was_applied_is_told_from_any_revision_that_was_heard() {
        let (bus, mut log) = Bus::new();
        assert_eq!(known(&mut log, 10), Some((10, vec![])));
        bus.apply(11, true);
        bus.apply(12, false);
        bus.apply(13, true);
        assert_eq!(known(&mut log, 9), None);
        assert_eq!(known(&mut log, 10), Some((13, vec![document(11), document(13)])));
        assert_eq!(known(&mut log, 11), Some((13, vec![document(13)])));
    }

    #[test]
    fn a_snapshot_that_was_installed_leaves_nothing_known() {
        let (bus, mut log) = Bus::new();
        bus.apply(11, true);
        assert_eq!(known(&mut log, 10), Some((11, vec![document(11)])));
        bus.applied.send_replace(Revision(500));
        assert_eq!(known(&mut log, 11), None, "nothing has followed it yet");
        assert_eq!(known(&mut log, 500), Some((500, vec![])));
        bus.apply(501, true);
        assert_eq!(known(&mut log, 11), None);
        assert_eq!(known(&mut log, 500), Some((501, vec![document(501)])));
    }

    #[test]
    fn a_snapshot_is_noticed_by_the_entry_after_it() {
        let (bus, mut log) = Bus::new();
        bus.apply(11, true);
        bus.apply(501, true);
        assert_eq!(known(&mut log, 11), None);
        assert_eq!(known(&mut log, 499), None);
        assert_eq!(known(&mut log, 500), Some((501, vec![document(501)])));
    }

    #[test]
    fn what_the_bus_has_dropped_is_unknown() {
        let (bus, mut log) = Bus::new();
        for revision in 11..=20 {
            bus.apply(revision, true);
        }
        assert_eq!(known(&mut log, 15), None);
        assert_eq!(known(&mut log, 16), Some((20, (17..=20).map(document).collect())));
    }
}
