//! What the log holds, in memory: its positions, and its newest entries.
//!
//! ```text
//!            purged | first ........................... last
//!  gone             |  in RocksDB only   |  in memory too    |   not yet appended
//!                                        tail                durable <= last
//! ```
//!
//! Pure: no IO, no clock. The view changes when an operation is *submitted*, so what was appended is readable at once;
//! the writer follows and reports back what is durable. Entries leave the memory only when they are durable, so
//! whatever the memory lacks is in `RocksDB`.

use std::{collections::VecDeque, ops::Range};

use super::error::LogError;
use crate::types::{Entry, EntryPayload, LogId, Vote};

/// What an entry costs in memory besides its payload: the struct and its share of the queue.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// What a membership entry is counted as; there are few of them.
const MEMBERSHIP_BYTES: usize = 1024;

/// Positions and newest entries of the log.
#[derive(Debug)]
pub(crate) struct View {
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The index of the first entry present; of the next one to come if there is none.
    first: u64,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    durable: Option<u64>,
    /// Counts truncations: what was written before one says nothing about the entries after it.
    truncations: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
}

/// Where the entries of a range are.
#[derive(Debug)]
pub(crate) struct Plan {
    /// To be read from `RocksDB` first.
    pub on_disk: Range<u64>,
    /// The ones that follow.
    pub in_memory: Vec<Entry>,
}

impl View {
    /// The view of an empty log, or of one whose entries up to `purged` are gone.
    pub(crate) fn new(purged: Option<LogId>, tail_bytes_max: usize) -> Self {
        Self {
            purged,
            last: purged,
            first: purged.map_or(0, |id| id.index + 1),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max,
            durable: purged.map(|id| id.index),
            truncations: 0,
            vote: None,
            committed: None,
        }
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry, or the last purged one if there is none.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(crate) fn durable(&self) -> Option<u64> {
        self.durable
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// The entries present.
    pub(crate) fn present(&self) -> Range<u64> {
        self.first..self.last.map_or(0, |id| id.index + 1).max(self.first)
    }

    /// Adds entries behind the last one.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        for entry in entries {
            let next = match self.last {
                Some(last) => entry.log_id.index == last.index + 1 && entry.log_id.leader_id >= last.leader_id,
                None => true,
            };
            if !next {
                return Err(LogError::NotNext { last: self.last, appended: entry.log_id });
            }
            if self.present().is_empty() {
                self.first = entry.log_id.index;
            }
            self.last = Some(entry.log_id);
            self.tail_bytes += cost(entry);
            self.tail.push_back(entry.clone());
        }
        Ok(())
    }

    /// Drops the entries after `after` and returns the indexes that went.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) -> Range<u64> {
        let present = self.present();
        let keep_to = after.map_or(present.start, |id| (id.index + 1).max(present.start));
        if keep_to >= present.end {
            return present.end..present.end;
        }
        while self.tail.back().is_some_and(|entry| entry.log_id.index >= keep_to) {
            self.forget_back();
        }
        self.last = if keep_to == present.start { self.purged } else { after };
        self.durable =
            self.durable.and_then(|durable| if durable < keep_to { Some(durable) } else { keep_to.checked_sub(1) });
        self.truncations += 1;
        keep_to..present.end
    }

    /// Forgets the entries up to `upto`, which may lie beyond the last one, and returns the indexes that went.
    pub(crate) fn purge(&mut self, upto: LogId) -> Range<u64> {
        let present = self.present();
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return present.start..present.start;
        }
        let end = (upto.index + 1).min(present.end).max(present.start);
        while self.tail.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.forget_front();
        }
        self.purged = Some(upto);
        self.first = upto.index + 1;
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        present.start..end
    }

    /// Notes that everything up to `index`, submitted when there had been `truncations` truncations, is on disk.
    pub(crate) fn set_durable(&mut self, index: u64, truncations: u64) {
        if truncations == self.truncations {
            self.durable = self.durable.max(Some(index));
        }
        self.shrink();
    }

    /// Where to find the entries of `range`; with a limit, at least one entry and then no more than that many bytes.
    pub(crate) fn plan(&self, range: Range<u64>, bytes_max: Option<usize>) -> Plan {
        let present = self.present();
        let (start, end) = (range.start.max(present.start), range.end.min(present.end));
        let memory = self.tail.front().map_or(present.end, |entry| entry.log_id.index);
        if start >= end {
            return Plan { on_disk: start..start, in_memory: Vec::new() };
        }
        let on_disk = start..end.min(memory).max(start);
        let skip = usize::try_from(on_disk.end.saturating_sub(memory)).unwrap_or(usize::MAX);
        let take = usize::try_from(end - on_disk.end).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let within = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += cost(entry);
            first || bytes_max.is_none_or(|max| bytes <= max)
        };
        // With a limit, what is on disk comes first and the rest is asked for again.
        let take = if bytes_max.is_some() && !on_disk.is_empty() { 0 } else { take };
        let in_memory = self.tail.iter().skip(skip).take(take).take_while(within).cloned().collect();
        Plan { on_disk, in_memory }
    }

    fn shrink(&mut self) {
        while self.tail_bytes > self.tail_bytes_max
            && self.tail.front().is_some_and(|entry| Some(entry.log_id.index) <= self.durable)
        {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= cost(&entry);
        }
    }

    fn forget_back(&mut self) {
        if let Some(entry) = self.tail.pop_back() {
            self.tail_bytes -= cost(&entry);
        }
    }
}

/// The memory that an entry takes, in bytes.
pub(crate) fn cost(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(payload) => payload.0.len(),
            EntryPayload::Membership(_) => MEMBERSHIP_BYTES,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { log_id: LogId::new_term_index(term, index), payload: EntryPayload::Blank }
    }

    fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
        range.map(|index| entry(term, index)).collect()
    }

    fn indexes(plan: &Plan) -> Vec<u64> {
        plan.in_memory.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn appended_entries_are_readable_before_they_are_durable_and_leave_memory_only_after() {
        let mut view = View::new(None, 3 * ENTRY_OVERHEAD_BYTES);
        view.append(&entries(1, 0..10)).unwrap();
        assert_eq!(indexes(&view.plan(2..5, None)), [2, 3, 4]);
        assert_eq!(view.durable(), None);
        view.set_durable(4, 0);
        let plan = view.plan(0..100, None);
        assert_eq!((plan.on_disk.clone(), indexes(&plan)), (0..5, vec![5, 6, 7, 8, 9]));
        view.set_durable(9, 0);
        let plan = view.plan(6..100, None);
        assert_eq!((plan.on_disk.clone(), indexes(&plan)), (6..7, vec![7, 8, 9]));
        assert_eq!(indexes(&view.plan(8..100, Some(1))), [8], "at least one");
        let plan = view.plan(6..100, Some(1));
        assert_eq!((plan.on_disk.clone(), indexes(&plan)), (6..7, vec![]), "disk first");
    }

    #[test]
    fn holes_and_falling_terms_are_refused() {
        let mut view = View::new(None, 1000);
        view.append(&entries(2, 5..7)).unwrap();
        for wrong in [entry(2, 8), entry(2, 6), entry(1, 7)] {
            assert!(matches!(view.append(&[wrong]), Err(LogError::NotNext { .. })));
        }
        view.append(&[entry(2, 7)]).unwrap();
        let mut view = View::new(Some(LogId::new_term_index(2, 7)), 1000);
        assert!(view.append(&[entry(2, 9)]).is_err());
        view.append(&[entry(2, 8)]).unwrap();
    }

    #[test]
    fn what_was_written_before_a_truncation_says_nothing_about_what_came_after() {
        let mut view = View::new(None, 1000);
        view.append(&entries(1, 0..10)).unwrap();
        view.set_durable(6, 0);
        assert_eq!(view.truncate(Some(LogId::new_term_index(1, 4))), 5..10);
        assert_eq!(view.durable(), Some(4));
        view.append(&entries(2, 5..8)).unwrap();
        view.set_durable(9, 0);
        assert_eq!(view.durable(), Some(4), "index 9 was of the entries that are gone");
        view.set_durable(7, 1);
        assert_eq!(view.durable(), Some(7));
        assert_eq!(view.last(), Some(LogId::new_term_index(2, 7)));
    }

    #[test]
    fn truncating_never_reaches_behind_what_is_purged_nor_beyond_the_end() {
        let mut view = View::new(None, 1000);
        view.append(&entries(1, 0..5)).unwrap();
        assert!(view.truncate(Some(LogId::new_term_index(1, 9))).is_empty());
        view.purge(LogId::new_term_index(1, 1));
        assert_eq!(view.truncate(None), 2..5);
        assert_eq!((view.last(), view.present()), (Some(LogId::new_term_index(1, 1)), 2..2));
    }

    #[test]
    fn purging_beyond_the_end_moves_the_end() {
        let mut view = View::new(None, 1000);
        view.append(&entries(1, 0..5)).unwrap();
        assert_eq!(view.purge(LogId::new_term_index(1, 2)), 0..3);
        assert_eq!(view.purge(LogId::new_term_index(1, 1)), 3..3, "never backwards");
        assert_eq!(indexes(&view.plan(0..9, None)), [3, 4]);
        assert_eq!(view.purge(LogId::new_term_index(3, 20)), 3..5);
        assert_eq!((view.last(), view.present()), (Some(LogId::new_term_index(3, 20)), 21..21));
        view.append(&[entry(3, 21)]).unwrap();
    }
}
