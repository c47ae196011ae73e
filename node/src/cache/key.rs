//! What an answer is kept under: a keyed hash of everything that it depends on.
//!
//! ```text
//!   hash = BLAKE3, keyed by HKDF(data key, purpose), of
//!          format | release | lineage | cluster | who may see it | revision | horizon | clock, where it counts | query, as it came
//! ```
//!
//! Two questions with one key have one answer, on every node, at any time: so what is found under a key is never stale. The key is
//! the cluster's own, so what stands in a Redis that others read tells neither what was asked nor whether two clusters asked the same.
//! Whatever an answer will depend on must come in here first; that is why callers hand over an [`Asked`] and not bytes.

use std::fmt::Write as _;

use zyflow_api::v1::query_request::Query;
use zyflow_crypto::{DataKey, Lineage, Purpose};
use zyflow_machine::id::{ClusterTime, Revision};

/// The form of what is kept. Raised when equal questions get other bytes though the release stays.
const FORMAT: u16 = 2;

/// Bytes of a hash that name it in an envelope; the hash itself has twice as many.
const ID_BYTES: usize = 16;

/// Whose rights an answer was read with. What somebody may see is part of the answer, so it is part of the key: as soon as nodes tell
/// callers apart, each set of rights is a variant here, and none of them is ever given another's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: all that nodes know so far.
    All,
}

/// A question, with all that its answer depends on.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Whose rights it is answered with.
    pub scope: Scope,
    /// The revision that it is answered at.
    pub revision: Revision,
    /// The oldest revision that could be read then: what was deleted by it is in no answer.
    pub horizon: Revision,
    /// What leases are compared with; `None` = the answer doesn't depend on it.
    pub clock: Option<ClusterTime>,
    /// The question, encoded.
    pub query: &'a [u8],
    /// Where its answer is kept.
    pub levels: Levels,
}

/// Which levels keep the answer of a question: those where finding it costs clearly less than reading it again. The figures are in
/// docs/adr/0019-answers-are-cached-by-revision.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// The memory of this node.
    pub memory: bool,
    /// The Redis that nodes share.
    pub shared: bool,
}

impl Levels {
    /// No level.
    pub const NONE: Self = Self { memory: false, shared: false };

    /// Where the answer of `query` is kept.
    #[must_use]
    pub fn of(query: &Query, is_past: bool) -> Self {
        let is_list = match query {
            // A few look-ups in memory: as fast as finding the answer would be.
            Query::Task(_)
            | Query::Change(_)
            | Query::Conflict(_)
            | Query::Points(_)
            | Query::Projects(_)
            | Query::Retention(_) => false,
            // It is of the newest state by its nature.
            Query::Digest(_) => return Self::NONE,
            Query::Tasks(tasks) => {
                // By the wall clock, which never shows the same time twice.
                if !is_past && depends_on_clock(query) {
                    return Self::NONE;
                }
                tasks.filter.as_ref().is_none_or(|filter| filter.limit == 0 || filter.limit > SHORT_LIST)
            }
            Query::Changes(_)
            | Query::Document(_)
            | Query::TaskHistory(_)
            | Query::ChangeHistory(_)
            | Query::Conflicts(_)
            | Query::Comments(_) => true,
        };
        // What is asked of now is at another revision after the next write: other nodes would hardly ever find it.
        Self { memory: is_list || is_past, shared: is_list && is_past }
    }
}

/// Tasks that are listed as fast as an answer is found.
const SHORT_LIST: u32 = 20;

/// Whether the answer depends on more than the revision: on whether leases have ended.
#[must_use]
pub fn depends_on_clock(query: &Query) -> bool {
    matches!(query, Query::Tasks(tasks) if tasks.filter.as_ref().is_some_and(|filter| filter.ready))
}

/// The key of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; blake3::OUT_LEN]);

impl Key {
    /// As an envelope is told what it holds.
    pub(super) fn id(&self) -> [u8; ID_BYTES] {
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&self.0[..ID_BYTES]);
        id
    }

    /// As it stands in Redis.
    pub(super) fn name(&self) -> String {
        let mut name = String::with_capacity(7 + 2 * self.0.len());
        name.push_str("zyflow:");
        for byte in self.0 {
            write!(name, "{byte:02x}").expect("invariant: writing to a string doesn't fail");
        }
        name
    }
}

/// Makes keys.
pub(super) struct Keys {
    hasher: blake3::Hasher,
}

impl Keys {
    /// A cluster that was restored has the lineage of the one that was backed up, and other revisions.
    pub(super) fn new(key: &DataKey, lineage: Lineage, cluster: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&key.hash_key(Purpose::Answer));
        let release = env!("CARGO_PKG_VERSION").as_bytes();
        hasher.update(&FORMAT.to_be_bytes());
        hasher.update(&[u8::try_from(release.len()).expect("invariant: a version is a few bytes")]).update(release);
        hasher.update(&lineage.0).update(blake3::hash(cluster.as_bytes()).as_bytes());
        Self { hasher }
    }

    pub(super) fn of(&self, asked: &Asked<'_>) -> Key {
        let mut hasher = self.hasher.clone();
        let scope = match asked.scope {
            Scope::All => 0_u8,
        };
        let clock = asked.clock.map_or([0; 9], |clock| {
            let mut bytes = [1; 9];
            bytes[1..].copy_from_slice(&clock.0.to_be_bytes());
            bytes
        });
        // All but the last have one length, so no two questions are written alike.
        hasher.update(&[scope]).update(&asked.revision.0.to_be_bytes()).update(&asked.horizon.0.to_be_bytes());
        hasher.update(&clock).update(asked.query);
        Key(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use zeroize::Zeroizing;
    use zyflow_api::v1::{self, query_request as ask};
    use zyflow_crypto::KeyId;

    pub(crate) fn data_key(byte: u8) -> DataKey {
        DataKey::new(KeyId(1), Zeroizing::new([byte; 32]))
    }

    const LINEAGE: Lineage = Lineage([3; 16]);

    #[test]
    fn whatever_an_answer_depends_on_makes_another_key() {
        let keys = Keys::new(&data_key(7), LINEAGE, "team");
        let asked = |revision, clock, query| {
            let clock: Option<u64> = clock;
            let (revision, clock) = (Revision(revision), clock.map(ClusterTime));
            let horizon = Revision(0);
            keys.of(&Asked { scope: Scope::All, revision, horizon, clock, query, levels: Levels::NONE })
        };
        let one = asked(5, None, b"query");
        assert_eq!(one, asked(5, None, b"query"), "and nothing else does");
        let others = [
            asked(6, None, b"query"),
            asked(5, Some(0), b"query"),
            asked(5, Some(9), b"query"),
            asked(5, None, b"quer"),
            asked(5, None, b""),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(*other, one, "{at}");
            assert!(!others[at + 1..].contains(other), "{at}");
        }
        let question = || Asked {
            scope: Scope::All,
            revision: Revision(5),
            horizon: Revision(0),
            clock: None,
            query: b"query",
            levels: Levels::NONE,
        };
        let later = Asked { horizon: Revision(1), ..question() };
        assert_ne!(keys.of(&later), one, "with less of the past");
        let restored = Keys::new(&data_key(7), LINEAGE, "restored");
        assert_ne!(restored.of(&question()), one, "a cluster that was made of its backup");
        assert_ne!(Keys::new(&data_key(8), LINEAGE, "team").of(&question()), one, "another cluster's");
        assert_ne!(Keys::new(&data_key(7), Lineage([4; 16]), "team").of(&question()), one, "another history's");
        assert_eq!(one.name().len(), "zyflow:".len() + 64);
    }

    #[test]
    fn an_answer_by_the_wall_clock_is_never_kept() {
        let tasks = |ready, limit| {
            let filter = v1::TaskFilter { ready, limit, ..v1::TaskFilter::default() };
            Query::Tasks(ask::Tasks { filter: Some(filter) })
        };
        assert_eq!(Levels::of(&tasks(true, 0), false), Levels::NONE);
        assert_eq!(Levels::of(&tasks(true, 0), true), Levels { memory: true, shared: true });
        assert_eq!(Levels::of(&tasks(false, 0), false), Levels { memory: true, shared: false });
        assert!(depends_on_clock(&tasks(true, 0)) && !depends_on_clock(&tasks(false, 0)));
        assert_eq!(Levels::of(&Query::Digest(ask::Digest {}), true), Levels::NONE);
    }

    #[test]
    fn what_is_found_as_fast_in_the_tables_is_not_shared() {
        let task = Query::Task(ask::Task { id: 1 });
        assert_eq!(Levels::of(&task, false), Levels::NONE);
        assert!(!Levels::of(&task, true).shared);
    }
}
