//! The first level: answers in the memory of this node, weighed by their bytes.

use bytes::Bytes;
use moka::sync::Cache;

use super::key::Key;

/// Bytes of an entry besides the answer: the key twice, and what the cache knows of it.
const ENTRY_BYTES: usize = 160;

/// Of all that may be kept, one answer takes at most this part: else one list would be all there is.
const ANSWER_PART_MAX: u64 = 4;

/// See the module.
pub(super) struct Memory {
    kept: Cache<Key, Bytes>,
    answer_bytes_max: u64,
}

impl Memory {
    pub(super) fn new(bytes_max: u64) -> Self {
        let weigh = |_: &Key, answer: &Bytes| u32::try_from(ENTRY_BYTES + answer.len()).unwrap_or(u32::MAX);
        Self {
            kept: Cache::builder().max_capacity(bytes_max).weigher(weigh).build(),
            answer_bytes_max: bytes_max / ANSWER_PART_MAX,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        self.kept.get(key)
    }

    pub(super) fn put(&self, key: Key, answer: &Bytes) {
        let is_small = u64::try_from(answer.len()).is_ok_and(|bytes| bytes <= self.answer_bytes_max);
        if is_small {
            self.kept.insert(key, answer.clone());
        }
    }

    /// Bytes that are kept, about.
    pub(super) fn bytes(&self) -> u64 {
        self.kept.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{Asked, Keys, Levels, Scope, tests::data_key};
    use super::*;
    use zyflow_crypto::Lineage;
    use zyflow_machine::id::Revision;

    fn key(revision: u64) -> Key {
        let asked = Asked {
            scope: Scope::All,
            revision: Revision(revision),
            horizon: Revision(0),
            clock: None,
            query: b"",
            levels: Levels::NONE,
        };
        Keys::new(&data_key(1), Lineage([1; 16]), "team").of(&asked)
    }

    #[test]
    fn what_is_kept_is_bounded_and_one_answer_takes_a_part() {
        let memory = Memory::new(10_000);
        for revision in 0..100 {
            memory.put(key(revision), &Bytes::from(vec![7; 1_000]));
        }
        memory.kept.run_pending_tasks();
        assert!((1..=10_000).contains(&memory.bytes()), "{}", memory.bytes());
        memory.put(key(200), &Bytes::from(vec![7; 2_501]));
        assert!(memory.get(&key(200)).is_none(), "too large");
        let small = Memory::new(10_000);
        small.put(key(1), &Bytes::from_static(b"answer"));
        assert_eq!(small.get(&key(1)).as_deref(), Some(&b"answer"[..]));
        assert!(small.get(&key(2)).is_none());
    }
}
