//! Wall clocks: the one that stamps commands, and those of the peers that it is held against.
//!
//! Every append and its reply carry the sender's clock, so a leader knows within a heartbeat how far it is ahead of each
//! voter. A leader that is ahead of a majority by more than [`CLOCK_AHEAD_MAX`] stamps nothing: cluster time never goes
//! back, so one bad stamp would hold every lease and every timestamp until the others caught up. A clock that is behind does
//! no harm, the machine keeps the greater time. Machines that sleep and wake together (a cluster on one laptop) agree with
//! each other, which is why peers are the measure and not this process's own monotonic clock.
//!
//! Deliberately not here: ordering. Nothing is ordered by clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use zyflow_machine::limits::STAMP_AHEAD_MS_MAX;
use zyflow_storage::types::NodeId;

/// How far the leader's clock may be ahead of a majority: the machine's own limit, 10 minutes. Disciplined clocks differ by
/// milliseconds, so this is past any honest difference.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_millis(STAMP_AHEAD_MS_MAX);

/// A peer's clock counts while it was heard this lately: several heartbeats.
const PEER_CLOCK_AGE_MAX: Duration = Duration::from_secs(2);

/// The wall clock, so that a simulation can bring its own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the peers' clocks showed, and when that was heard.
#[derive(Debug, Default)]
pub(crate) struct PeerClocks {
    heard: Mutex<BTreeMap<NodeId, (u64, Instant)>>,
}

impl PeerClocks {
    /// Notes what `peer` said its clock shows.
    pub(crate) fn hear(&self, peer: NodeId, clock_ms: u64, at: Instant) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(peer, (clock_ms, at));
    }

    /// By how much `own_ms` is ahead of a majority of `voters`, if that is too much. Clocks that were not heard lately, and
    /// this node's own, count as agreeing: without evidence there is no refusal.
    pub(crate) fn ahead(&self, own_ms: u64, voters: &BTreeSet<NodeId>, now: Instant) -> Option<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut leads: Vec<Duration> = voters
            .iter()
            .map(|voter| match heard.get(voter) {
                Some((clock_ms, at)) if now.duration_since(*at) <= PEER_CLOCK_AGE_MAX => {
                    let shows = Duration::from_millis(*clock_ms) + now.duration_since(*at);
                    Duration::from_millis(own_ms).saturating_sub(shows)
                }
                Some(_) | None => Duration::ZERO,
            })
            .collect();
        leads.sort_unstable();
        // A majority is at least this far behind: of n ascending leads, all from n - (n / 2 + 1) on.
        let lead = leads.len().checked_sub(leads.len() / 2 + 1).and_then(|at| leads.get(at).copied())?;
        (lead > CLOCK_AHEAD_MAX).then_some(lead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn check(clocks_ms: &[(NodeId, u64)], own_ms: u64, voters: &[NodeId]) -> Option<Duration> {
        let (clocks, now) = (PeerClocks::default(), Instant::now());
        for (peer, clock_ms) in clocks_ms {
            clocks.hear(*peer, *clock_ms, now);
        }
        clocks.ahead(own_ms, &voters.iter().copied().collect(), now)
    }

    #[test]
    fn ahead_of_a_majority_is_refused() {
        let lead = check(&[(2, HOUR_MS), (3, HOUR_MS)], 2 * HOUR_MS, &[1, 2, 3]);
        assert_eq!(lead, Some(Duration::from_millis(HOUR_MS)));
    }

    #[test]
    fn ahead_of_a_minority_is_the_minoritys_fault() {
        assert_eq!(check(&[(2, HOUR_MS), (3, 2 * HOUR_MS)], 2 * HOUR_MS, &[1, 2, 3]), None);
        assert_eq!(check(&[(2, HOUR_MS)], 2 * HOUR_MS, &[1, 2, 3]), None);
    }

    #[test]
    fn behind_alone_or_unheard_is_no_reason() {
        assert_eq!(check(&[(2, 2 * HOUR_MS), (3, 2 * HOUR_MS)], HOUR_MS, &[1, 2, 3]), None);
        assert_eq!(check(&[], 2 * HOUR_MS, &[1]), None);
        assert_eq!(check(&[], 2 * HOUR_MS, &[]), None);
    }

    #[test]
    fn old_news_do_not_count() {
        let (clocks, now) = (PeerClocks::default(), Instant::now());
        clocks.hear(2, HOUR_MS, now);
        clocks.hear(3, HOUR_MS, now);
        let later = now + PEER_CLOCK_AGE_MAX + Duration::from_millis(1);
        assert_eq!(clocks.ahead(2 * HOUR_MS, &BTreeSet::from([1, 2, 3]), later), None);
    }
}
