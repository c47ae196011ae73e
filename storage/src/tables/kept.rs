//! The digests of the newest revisions, in memory: so that all nodes can be asked for their digest at exactly one revision, though
//! each of them goes on.
//!
//! Deliberately not here: older ones. A node that has just started keeps those of what it applies from then on.

use std::collections::VecDeque;

use zyflow_machine::Digest;
use zyflow_machine::id::Revision;

/// Revisions whose digests are kept: at full load, some 400 entries a second, ten seconds of them; 160 KiB.
pub(crate) const KEPT_DIGESTS_MAX: usize = 4_096;

/// In the order of revisions.
#[derive(Debug, Default)]
pub(crate) struct KeptDigests {
    kept: VecDeque<(Revision, Digest)>,
}

impl KeptDigests {
    /// Keeps the digest of a revision after all that are kept.
    pub(crate) fn keep(&mut self, revision: Revision, digest: Digest) {
        if self.kept.len() == KEPT_DIGESTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((revision, digest));
    }

    /// The digest at exactly this revision, if it is kept.
    pub(crate) fn at(&self, revision: Revision) -> Option<Digest> {
        let at = self.kept.partition_point(|(kept, _)| *kept < revision);
        self.kept.get(at).filter(|(kept, _)| *kept == revision).map(|(_, digest)| *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(revision: u64) -> Digest {
        Digest::from_bytes([u8::try_from(revision % 251).expect("below 256"); 32])
    }

    #[test]
    fn the_newest_are_kept_and_no_other_is_made_up() {
        let mut kept = KeptDigests::default();
        assert_eq!(kept.at(Revision(1)), None);
        let last = u64::try_from(KEPT_DIGESTS_MAX).expect("small") + 100;
        // Revisions have gaps where a node got a snapshot.
        for revision in (0..=last).filter(|revision| *revision != 2_000) {
            kept.keep(Revision(revision), digest(revision));
        }
        assert_eq!(kept.at(Revision(last)), Some(digest(last)));
        assert_eq!(kept.at(Revision(1_999)), Some(digest(1_999)));
        assert_eq!(kept.at(Revision(2_000)), None);
        assert_eq!(kept.at(Revision(10)), None, "too old");
        assert_eq!(kept.at(Revision(last + 1)), None, "not yet");
    }
}
