//! Counters of this crate, for the node to show. Names of metrics are given there; here are numbers only.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was counted since the start of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Proposals of this node's own clients.
    pub proposals: u64,
    /// Proposals that other nodes forwarded to this one.
    pub forwarded_in: u64,
    /// Proposals that this node forwarded.
    pub forwarded_out: u64,
    /// Proposals that were tried again after a change of leader.
    pub retries: u64,
    /// Entries that this node sealed.
    pub entries_sealed: u64,
    /// Commands in them.
    pub commands_sealed: u64,
    /// Bytes of them, sealed.
    pub bytes_sealed: u64,
    /// Entries that were applied here.
    pub entries_applied: u64,
    /// Reads that asked for a linearizable index.
    pub reads: u64,
    /// Rounds that served them.
    pub read_rounds: u64,
    /// Append messages sent.
    pub appends_sent: u64,
    /// Append messages answered.
    pub appends_answered: u64,
    /// Most appends that were under way to one peer at once.
    pub appends_in_flight_max: u64,
    /// Calls that were refused because caller and certificate didn't fit, or the message was malformed.
    pub calls_refused: u64,
    /// Snapshots sent in full.
    pub snapshots_sent: u64,
    /// Snapshots received and installed.
    pub snapshots_installed: u64,
    /// Transfers of snapshots to this node that went on where an earlier one broke.
    pub snapshots_resumed: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The same while they count.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters!(
    proposals,
    forwarded_in,
    forwarded_out,
    retries,
    entries_sealed,
    commands_sealed,
    bytes_sealed,
    entries_applied,
    reads,
    read_rounds,
    appends_sent,
    appends_answered,
    appends_in_flight_max,
    calls_refused,
    snapshots_sent,
    snapshots_installed,
    snapshots_resumed,
);

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}
