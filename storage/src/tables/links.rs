//! Which version each of the newest ones replaced: the chains of the recent past, in memory.
//!
//! A version and the one that it replaced are known when it is written, and never change. So whoever asks for a list of the recent
//! past needn't ask SQLite to walk the chain of each record that has changed since (`read.rs`), which is most of what such a list costs.
//!
//! Invariants: versions ascend, as the log makes them; of those from the oldest one here on, none is missing.

use std::collections::VecDeque;

use zyflow_machine::id::{EventId, Revision};

/// See the module.
pub(crate) struct Links {
    /// Each version with the one before it of the same record.
    replaced: VecDeque<(EventId, Option<EventId>)>,
    links_max: usize,
}

/// What the links tell of a record at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// It had this version.
    To(EventId),
    /// It was made later.
    Before,
    /// The chain leads further back than the links do.
    Off,
}

impl Links {
    /// None so far, and never more than so many.
    pub(crate) fn new(links_max: usize) -> Self {
        Self { replaced: VecDeque::new(), links_max }
    }

    /// Adds versions that are later than all that are here, in their order.
    pub(crate) fn extend(&mut self, versions: impl Iterator<Item = (EventId, Option<EventId>)>) {
        for link in versions {
            debug_assert!(self.replaced.back().is_none_or(|last| last.0 < link.0), "{} comes too late", link.0);
            if self.replaced.len() >= self.links_max {
                self.replaced.pop_front();
            }
            if self.links_max > 0 {
                self.replaced.push_back(link);
            }
        }
    }

    /// The version at or before `at` of a record that has or had the version `from`.
    pub(crate) fn walk(&self, from: EventId, at: Revision) -> Walked {
        let mut version = from;
        while version.revision() > at {
            let Ok(place) = self.replaced.binary_search_by_key(&version, |link| link.0) else { return Walked::Off };
            let Some(before) = self.replaced[place].1 else { return Walked::Before };
            version = before;
        }
        Walked::To(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(revision: u64) -> EventId {
        EventId::new(Revision(revision), 0).unwrap()
    }

    /// One record with the versions 2, 5 and 9, another with 7; those of the others are from 1 on.
    fn links(links_max: usize) -> Links {
        let mut links = Links::new(links_max);
        links.extend([(2, None), (5, Some(2))].map(|(at, before)| (version(at), before.map(version))).into_iter());
        links.extend(
            [(7, None), (8, Some(1)), (9, Some(5))].map(|(at, before)| (version(at), before.map(version))).into_iter(),
        );
        links
    }

    #[test]
    fn a_chain_is_walked_to_the_revision() {
        let links = links(5);
        let walk = |at| links.walk(version(9), Revision(at));
        assert_eq!([12, 9, 8, 5, 4, 2].map(walk), [9, 9, 5, 5, 2, 2].map(|at| Walked::To(version(at))));
        assert_eq!(walk(1), Walked::Before);
        assert_eq!(links.walk(version(7), Revision(6)), Walked::Before);
        assert_eq!(links.walk(version(8), Revision(4)), Walked::To(version(1)), "which nobody has to know more of");
    }

    #[test]
    fn the_oldest_make_room_and_are_unknown_then() {
        let links = links(3);
        assert_eq!(links.replaced.len(), 3);
        assert_eq!(links.walk(version(9), Revision(5)), Walked::To(version(5)));
        assert_eq!(links.walk(version(9), Revision(4)), Walked::Off);
        assert_eq!(Links::new(0).walk(version(9), Revision(8)), Walked::Off);
    }
}
