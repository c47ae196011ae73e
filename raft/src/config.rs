//! How this node takes part: who it is, its timing and its limits. Validated once, at the start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use zyflow_crypto::Lineage;
use zyflow_storage::types::NodeId;

use crate::clock::{Clock, SystemClock};
use crate::error::StartError;

/// How often a leader shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_millis(150);
/// Shortest silence of the leader after which a follower campaigns: five heartbeats.
pub const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(800);
/// Longest such silence; half of it is the leader's lease. With the votes after it writes go on within 2 s.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(1200);
/// Entries between two snapshots: at about 64 commands an entry this is a few minutes of full load.
pub const SNAPSHOT_ENTRIES: u64 = 20_000;
/// Entries that stay in the log below a snapshot, so that a follower that was away briefly needs no snapshot.
pub const ENTRIES_KEPT: u64 = 5_000;
/// Entries in one append message. Their bytes are bounded by the log reader and by the message limit.
pub const APPEND_ENTRIES_MAX: u64 = 64;
/// Rows that may wait for SQLite before this node, as leader, accepts no more commands: half of what the tables hold, some
/// tenths of a second of SQLite's work.
pub const BACKLOG_OPS_MAX: usize = 16_384;
/// A node without a log votes for nobody whose log is longer: either it has never been reached, or it has lost its log and with it its votes,
/// and would elect whoever asks, also one that lacks what was acknowledged. Above what a cluster is begun with, where nobody has a log yet.
pub const EMPTY_VOTES_MAX: u64 = 1_024;
/// How long a snapshot may take to travel and be installed.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_mins(10);

/// Everything that a node brings with it into its cluster.
#[derive(Clone)]
pub struct ConsensusConfig {
    /// This node's number.
    pub node_id: NodeId,
    /// The cluster's name, as in the certificates.
    pub cluster: String,
    /// The history that its entries belong to.
    pub lineage: Lineage,
    /// Where the other nodes reach this one: `host:port`.
    pub advertise: String,
    /// Where snapshots are built and received.
    pub snapshots: PathBuf,
    /// See [`HEARTBEAT`].
    pub heartbeat: Duration,
    /// See [`ELECTION_TIMEOUT_MIN`].
    pub election_timeout_min: Duration,
    /// See [`ELECTION_TIMEOUT_MAX`].
    pub election_timeout_max: Duration,
    /// See [`SNAPSHOT_ENTRIES`].
    pub snapshot_entries: u64,
    /// See [`ENTRIES_KEPT`].
    pub entries_kept: u64,
    /// See [`EMPTY_VOTES_MAX`].
    pub empty_votes_max: u64,
    /// See [`BACKLOG_OPS_MAX`].
    pub backlog_ops_max: usize,
    /// Below this much free disk proposals are refused, see [`zyflow_storage::log::FREE_BYTES_MIN`].
    pub disk_free_bytes_min: u64,
    /// Writes under way at once, see [`crate::proposer::WRITES_IN_FLIGHT`].
    pub writes_in_flight: usize,
    /// What stamps commands.
    pub clock: Arc<dyn Clock>,
    /// Snapshots are looked for, built and installed by the task that needs them, and not on a thread for it: only for
    /// simulations, whose time stands still meanwhile.
    pub snapshots_inline: bool,
}

impl ConsensusConfig {
    /// The configuration of a node with the defaults of this module.
    #[must_use]
    pub fn new(node_id: NodeId, cluster: String, lineage: Lineage, advertise: String, snapshots: PathBuf) -> Self {
        Self {
            node_id,
            cluster,
            lineage,
            advertise,
            snapshots,
            heartbeat: HEARTBEAT,
            election_timeout_min: ELECTION_TIMEOUT_MIN,
            election_timeout_max: ELECTION_TIMEOUT_MAX,
            snapshot_entries: SNAPSHOT_ENTRIES,
            entries_kept: ENTRIES_KEPT,
            empty_votes_max: EMPTY_VOTES_MAX,
            backlog_ops_max: BACKLOG_OPS_MAX,
            disk_free_bytes_min: zyflow_storage::log::FREE_BYTES_MIN,
            writes_in_flight: crate::proposer::WRITES_IN_FLIGHT,
            clock: Arc::new(SystemClock),
            snapshots_inline: false,
        }
    }

    /// The same for openraft.
    pub(crate) fn to_openraft(&self) -> Result<Arc<Config>, StartError> {
        if self.writes_in_flight == 0 {
            return Err(StartError::Config("writes_in_flight must be at least 1".to_owned()));
        }
        // openraft counts differently: a follower waits for the end of the lease, and then for a random time.
        //
        //   last heartbeat ---- lease ----|---- random: min .. lease ----> campaigns
        let lease = self.election_timeout_max / 2;
        let random_min = self.election_timeout_min.saturating_sub(lease);
        let config = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(random_min),
            election_timeout_max: millis(lease),
            install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
            max_payload_entries: APPEND_ENTRIES_MAX,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.entries_kept,
            // A node that lost unsynced entries must not resume a term in which it may have sent others under the same ids.
            enable_leader_restore: Some(false),
            // A node that was cut off must not raise the term when it comes back.
            enable_pre_vote: Some(true),
            // A follower whose log shrank lost what it had promised: that is for people to decide.
            allow_log_reversion: Some(false),
            backoff: "50ms 100ms 200ms ..1s".to_owned(),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| StartError::Config(error.to_string()))
    }
}

/// Whole milliseconds, as openraft takes them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConsensusConfig {
        ConsensusConfig::new(1, "team".into(), Lineage([7; 16]), "localhost:1".into(), "snapshots".into())
    }

    #[test]
    fn the_defaults_hold_together_and_are_the_safe_ones() {
        let config = config().to_openraft().expect("valid");
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.allow_log_reversion, Some(false));
        let silence = config.election_timeout_max + config.election_timeout_min..=2 * config.election_timeout_max;
        assert_eq!(silence, 800..=1200, "milliseconds of silence before a campaign");
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let slow = ConsensusConfig { heartbeat: Duration::from_secs(9), ..config() };
        assert!(matches!(slow.to_openraft(), Err(StartError::Config(_))));
        let idle = ConsensusConfig { writes_in_flight: 0, ..config() };
        assert!(matches!(idle.to_openraft(), Err(StartError::Config(_))));
    }
}
