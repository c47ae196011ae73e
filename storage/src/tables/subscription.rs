//! The event bus of a node: whoever wants to hear of some types of events subscribes to those, and gets them in order as they are applied.
//!
//! ```text
//!   apply ─▶ broadcast, at most 1,024 changes ─┬─▶ subscription: conflicts      ─▶ webhook
//!                                              ├─▶ subscription: blocks, ..     ─▶ a checkout
//!                                              └─▶ ..
//! ```
//! Nothing waits for a subscriber. One that falls behind too far is told how much it missed, once, and goes on with what there still is: so
//! it looks at a view again, or does without. Who must miss nothing reads the past instead
//! (docs/adr/0014-the-past-is-read-from-versions.md). Memory is that of the broadcast, however many subscribe.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use zyflow_machine::event::Fact;
use zyflow_machine::id::Revision;

use super::Tables;
use super::entry::{Change, Row};

/// Which events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    types: BTreeSet<&'static str>,
}

impl Interest {
    /// Events of these types.
    ///
    /// # Panics
    /// Where one of them isn't among [`Fact::NAMES`].
    #[must_use]
    pub fn in_types(types: &[&'static str]) -> Self {
        for name in types {
            assert!(Fact::NAMES.contains(name), "`{name}` is a type of events");
        }
        Self { types: types.iter().copied().collect() }
    }

    fn wants(&self, row: &Row) -> bool {
        self.types.contains(row.fact.name())
    }
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// One applied revision, with its events of the wanted types: at least one.
    Events {
        /// The revision.
        revision: Revision,
        /// The events, in order.
        rows: Vec<Arc<Row>>,
    },
    /// So many revisions were missed, by falling behind or by a snapshot that was installed; what was in them is unknown.
    Behind {
        /// How many.
        missed: u64,
    },
}

/// A place on the bus.
#[derive(Debug)]
pub struct Subscription {
    changes: broadcast::Receiver<Arc<Change>>,
    interest: Interest,
    /// Up to here all was heard, or told to be missed.
    heard: Revision,
    /// Heard already, behind a gap that had to be told first.
    pending: Option<Arc<Change>>,
}

impl Subscription {
    /// What comes next; `None` = the tables are gone. Nothing is lost where this is dropped before it ends.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            let heard = match self.pending.take() {
                Some(change) => Ok(change),
                None => self.changes.recv().await,
            };
            match heard {
                Ok(change) => {
                    if let Some(news) = self.news(change) {
                        return Some(news);
                    }
                }
                Err(RecvError::Lagged(missed)) => return Some(self.missed(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What has come already; `None` = nothing, or the tables are gone.
    pub fn try_next(&mut self) -> Option<News> {
        loop {
            match self.pending.take().map_or_else(|| self.changes.try_recv(), Ok) {
                Ok(change) => {
                    if let Some(news) = self.news(change) {
                        return Some(news);
                    }
                }
                Err(TryRecvError::Lagged(missed)) => return Some(self.missed(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    fn missed(&mut self, missed: u64) -> News {
        self.heard = Revision(self.heard.0 + missed);
        News::Behind { missed }
    }

    /// Every entry is on the bus, so a revision that is left out was in a snapshot.
    fn news(&mut self, change: Arc<Change>) -> Option<News> {
        if change.revision <= self.heard {
            return None;
        }
        let missed = change.revision.0 - self.heard.0 - 1;
        if missed > 0 {
            self.pending = Some(change);
            return Some(self.missed(missed));
        }
        self.heard = change.revision;
        let rows: Vec<Arc<Row>> = change.rows.iter().filter(|row| self.interest.wants(row)).cloned().collect();
        (!rows.is_empty()).then_some(News::Events { revision: change.revision, rows })
    }
}

impl Tables {
    /// Everything of interest that is applied from now on, in order.
    #[must_use]
    pub fn subscribe_to(&self, interest: Interest) -> Subscription {
        // In this order: what is applied in between is left out once it is heard.
        let changes = self.subscribe();
        Subscription { changes, interest, heard: *self.applied().borrow(), pending: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::EntryPayload;
    use crate::tables::shared::SUBSCRIBER_LAG_MAX;
    use crate::tables::tests::harness::{Node, batch, command, edit, insert_first, note, populate};

    fn revisions(subscription: &mut Subscription) -> Vec<(u64, usize)> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|news| match news {
                News::Events { revision, rows } => (revision.0, rows.len()),
                News::Behind { missed } => panic!("{missed} were missed"),
            })
            .collect()
    }

    #[test]
    fn each_hears_of_its_own_types_in_order_and_of_nothing_else() {
        let mut node = Node::new(|_| {});
        let mut notes = node.tables().subscribe_to(Interest::in_types(&["task-set"]));
        let mut blocks = node.tables().subscribe_to(Interest::in_types(&["inserted", "deleted"]));
        let mut nothing = node.tables().subscribe_to(Interest::in_types(&[]));
        let (_, change, tasks) = populate(&mut node, 2);
        node.apply(EntryPayload::Blank).unwrap();
        let both = vec![command(None, note(tasks[0], "one")), command(None, note(tasks[1], "two"))];
        node.apply(batch(both)).unwrap();
        node.run(edit(change, Revision(4), vec![insert_first("more")]));
        assert_eq!(revisions(&mut notes), [(4, 2)]);
        assert_eq!(revisions(&mut blocks), [(2, 2), (5, 1)]);
        assert_eq!(revisions(&mut nothing), []);
    }

    #[test]
    fn who_is_too_far_behind_is_told_and_goes_on() {
        let mut node = Node::new(|_| {});
        let (_, _, tasks) = populate(&mut node, 1);
        let mut slow = node.tables().subscribe_to(Interest::in_types(&["task-set"]));
        let more = 5;
        for at in 0..SUBSCRIBER_LAG_MAX + more {
            node.run(note(tasks[0], &at.to_string()));
        }
        let missed = u64::try_from(more).unwrap();
        assert_eq!(slow.try_next(), Some(News::Behind { missed }));
        let rest = revisions(&mut slow);
        assert_eq!((rest.len(), rest[0].0), (SUBSCRIBER_LAG_MAX, 3 + missed));
    }

    #[test]
    fn what_a_snapshot_brought_is_told_as_missed() {
        let mut node = Node::new(|_| {});
        let (_, _, tasks) = populate(&mut node, 1);
        let mut subscription = node.tables().subscribe_to(Interest::in_types(&["task-set"]));
        node.run(note(tasks[0], "heard"));
        let heard = revisions(&mut subscription);
        // As if an installed snapshot had brought the entries in between.
        subscription.heard = Revision(heard[0].0 - 1);
        node.run(note(tasks[0], "after it"));
        let missed = Some(News::Behind { missed: 1 });
        assert_eq!(subscription.try_next(), missed);
        assert_eq!(revisions(&mut subscription), [(heard[0].0 + 1, 1)]);
    }

    #[test]
    #[should_panic(expected = "is a type of events")]
    fn a_type_that_there_is_not_is_a_mistake() {
        drop(Interest::in_types(&["task-sat"]));
    }
}
