//! A history that comes in parts, from the newest version down: what to ask for next, and when it is whole.

use super::{Answer, Consistency, Read, Version};
use std::cmp::Reverse;
use zyflow_machine::id::{ClusterTime, EventId, Revision};

/// One part, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) versions: Vec<Version>,
    /// There are older ones.
    pub(super) is_more: bool,
}

/// What has come so far.
pub(super) struct Parts {
    /// 0 = all.
    limit: u32,
    /// Newest first.
    versions: Vec<Version>,
    /// What the first part is true at.
    first: Option<(Revision, ClusterTime)>,
}

impl Parts {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, versions: Vec::new(), first: None }
    }

    /// How the next part is read: as asked, but never by a node that is behind the one that gave the first.
    pub(super) fn read(&self, read: Read) -> Read {
        match self.first {
            Some((revision, _)) => Read { consistency: Consistency::AtLeast(revision), ..read },
            None => read,
        }
    }

    /// Most versions that are still wanted; 0 = all.
    pub(super) fn left(&self) -> u32 {
        self.limit.saturating_sub(self.count())
    }

    /// The version that the next part ends before.
    pub(super) fn before(&self) -> Option<u64> {
        self.oldest().map(EventId::to_u64)
    }

    /// Takes the next part; all versions, newest first, where that was the last one. A part that brings nothing older is.
    pub(super) fn take(&mut self, part: Answer<Part>) -> Option<Answer<Vec<Version>>> {
        let (revision, time) = *self.first.get_or_insert((part.revision, part.time));
        let (oldest, count) = (self.oldest(), self.versions.len());
        let older = part.value.versions.into_iter();
        self.versions.extend(older.filter(|version| oldest.is_none_or(|oldest| version.version < oldest)));
        self.versions[count..].sort_unstable_by_key(|version| Reverse(version.version));
        let is_enough = self.limit > 0 && self.count() >= self.limit;
        let is_last = !part.value.is_more || is_enough || self.versions.len() == count;
        if is_enough {
            // A node that doesn't know of a limit gives all.
            self.versions.truncate(usize::try_from(self.limit).unwrap_or(usize::MAX));
        }
        is_last.then(|| Answer { revision, time, value: std::mem::take(&mut self.versions) })
    }

    fn oldest(&self) -> Option<EventId> {
        self.versions.last().map(|version| version.version)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.versions.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use zyflow_machine::command::Author;
    use zyflow_machine::event::{Fact, Provenance};

    fn version(revision: u64) -> Version {
        let provenance = Provenance { author: Author::default(), time: ClusterTime(revision), request: None };
        let version = EventId::new(Revision(revision), 0).unwrap();
        Version { version, provenance, fact: Fact::BlockDeleted, block: None }
    }

    /// What a node has of versions 1 to 10, at most three at once, oldest first.
    fn answered(parts: &Parts, revision: u64) -> Answer<Part> {
        let before = parts.before().map_or(11, |before| EventId::from_u64(before).revision().0);
        let most = if parts.left() == 0 { 3 } else { parts.left().min(3) };
        let first = before.saturating_sub(u64::from(most)).max(1);
        let versions: Vec<Version> = (first..before).map(version).collect();
        let value = Part { versions, is_more: first > 1 };
        Answer { revision: Revision(revision), time: ClusterTime(revision), value }
    }

    fn gathered(limit: u32) -> (usize, Vec<u64>) {
        let (mut parts, mut count) = (Parts::new(limit), 0);
        loop {
            count += 1;
            let answer = answered(&parts, 20 + u64::try_from(count).unwrap());
            if let Some(all) = parts.take(answer) {
                assert_eq!((all.revision, all.time), (Revision(21), ClusterTime(21)), "as the first part says");
                return (count, all.value.iter().map(|version| version.version.revision().0).collect());
            }
        }
    }

    #[test]
    fn parts_are_asked_for_until_there_are_as_many_as_wanted() {
        assert_eq!(gathered(0), (4, (1..=10).rev().collect()));
        assert_eq!(gathered(4), (2, vec![10, 9, 8, 7]));
        assert_eq!(gathered(3), (1, vec![10, 9, 8]));
        assert_eq!(gathered(99), (4, (1..=10).rev().collect()));
    }

    #[test]
    fn what_brings_nothing_older_ends_it_and_a_node_that_is_behind_is_not_asked() {
        let read = Read { consistency: Consistency::Local, at: None, within: Duration::from_secs(1) };
        let mut parts = Parts::new(0);
        assert_eq!(parts.read(read).consistency, Consistency::Local);
        let again = answered(&parts, 30);
        assert!(parts.take(again.clone()).is_none());
        assert_eq!(parts.read(read).consistency, Consistency::AtLeast(Revision(30)));
        // As a node would that doesn't know of parts.
        assert_eq!(parts.take(again.clone()).map(|all| all.value.len()), Some(3));
        assert_eq!(Parts::new(2).take(again).map(|all| all.value.len()), Some(2));
    }
}
