//! Hashing of ids for maps in memory.
//!
//! Ids are minted by the log, one after the other, so nobody chooses them to collide, and hashing them must not cost more than the
//! look-up: one multiplication by 2^64 over the golden ratio spreads them (Knuth 1973, section 6.4), and its high half is
//! folded into the low one, which the maps use.

use std::hash::{BuildHasherDefault, Hasher};

/// 2^64 divided by the golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// See the module.
#[derive(Clone, Copy, Default)]
pub(crate) struct IdHasher(u64);

/// Makes [`IdHasher`]s.
pub(crate) type HashIds = BuildHasherDefault<IdHasher>;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0.rotate_left(5) ^ number).wrapping_mul(MULTIPLIER);
        self.0 = product ^ (product >> 32);
    }

    // The discriminant of a kind.
    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs().try_into().unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;
    use zyflow_machine::id::{EventId, RecordId, Revision};

    #[test]
    fn ids_as_the_log_mints_them_spread_in_both_halves() {
        let hash = |id: RecordId| HashIds::default().hash_one(id);
        let ids = (0..256).flat_map(|revision| {
            (0..16).map(move |ordinal| RecordId(EventId::new(Revision(revision), ordinal).unwrap()))
        });
        let hashes: Vec<u64> = ids.map(hash).collect();
        for shift in [0, 52] {
            let slots: BTreeSet<u64> = hashes.iter().map(|hash| (hash >> shift) & 0xfff).collect();
            // 4,096 random balls fill 63% of 4,096 slots.
            assert!(slots.len() > 2400, "{} of 4096 slots at {shift}", slots.len());
        }
    }
}
