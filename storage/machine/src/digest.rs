//! One number for the whole state, cheap to keep up to date: equal states have equal digests, on every node.
//!
//! ```text
//!   digest = sum over live records of blake3('R', id, encoded record)        mod 2^256
//!          + sum over sessions     of blake3('S', id, use, window, chain)
//!   chain  = blake3(chain before, revision, request number, encoded outcome)
//! ```
//!
//! A sum doesn't depend on order, so a change of one record costs two hashes, and a second program can recompute the sum over SQLite in
//! any order. It protects against what makes replicas differ by accident: a bug, a flipped bit, a lost write, a page of an old backup.
//! It does **not** protect against somebody who may choose records at will: a sum of 256 bits can be forged by a generalised birthday
//! search (Wagner 2002) far below 2^128 work. Authenticity is what sealing and mutual TLS are for. It covers live records with the
//! revision of each of their fields, and what sessions remember; it doesn't cover closed versions, deleted records or provenance.

use crate::format;
use crate::id::RecordId;
use crate::record::Record;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A sum of hashes, as 32 bytes, little endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// What a live record adds.
    #[must_use]
    pub fn of_row(id: RecordId, record: &Record) -> Self {
        Self::of_encoded_row(id, &format::encode_record(Some(record)))
    }

    /// What a live record adds, by its bytes as [`format::encode_record`] makes them; for rows that are stored encoded.
    #[must_use]
    pub fn of_encoded_row(id: RecordId, encoded: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"R").update(&id.to_u64().to_be_bytes()).update(encoded);
        Self(*hasher.finalize().as_bytes())
    }

    /// A hash as a summand.
    pub(crate) fn of_hash(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }

    /// The digest of both.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "the twin of `remove`: rows come and go; no other arithmetic makes sense"
    )]
    pub fn add(self, other: Self) -> Self {
        self.combine(other, |limb, other, carry| {
            let (sum, first) = limb.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (sum, first || second)
        })
    }

    /// The digest without `other`.
    #[must_use]
    pub fn remove(self, other: Self) -> Self {
        self.combine(other, |limb, other, borrow| {
            let (rest, first) = limb.overflowing_sub(other);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (rest, first || second)
        })
    }

    /// As it is stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// As it was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn combine(self, other: Self, step: impl Fn(u64, u64, bool) -> (u64, bool)) -> Self {
        let mut result = [0; 32];
        let mut carry = false;
        let (own, other) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
        for (out, (own, other)) in result.as_chunks_mut::<8>().0.iter_mut().zip(own.iter().zip(other)) {
            let (limb, next) = step(u64::from_le_bytes(*own), u64::from_le_bytes(*other), carry);
            *out = limb.to_le_bytes();
            carry = next;
        }
        Self(result)
    }
}

impl std::iter::Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Self::add)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(seed: u8) -> Digest {
        Digest::of_encoded_row(RecordId::from_u64(u64::from(seed)), &[seed])
    }

    #[test]
    fn the_order_of_summands_does_not_matter() {
        let all: Digest = (0..100).map(digest).sum();
        assert_eq!(all, (0..100).rev().map(digest).sum());
        assert_ne!(all, (0..99).map(digest).sum());
    }

    #[test]
    fn removing_undoes_adding_across_carries() {
        let full = Digest([0xff; 32]);
        let one = Digest::from_bytes(std::array::from_fn(|at| u8::from(at == 0)));
        assert_eq!(full.add(one), Digest::ZERO);
        assert_eq!(Digest::ZERO.remove(one), full);
        for seed in 0..200 {
            assert_eq!(full.add(digest(seed)).remove(digest(seed)), full);
        }
    }

    #[test]
    fn id_and_bytes_both_count() {
        let of = |id, bytes: &[u8]| Digest::of_encoded_row(RecordId::from_u64(id), bytes);
        assert_ne!(of(1, b"a"), of(2, b"a"));
        assert_ne!(of(1, b"a"), of(1, b"b"));
    }
}
