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
/// Shortest silence after which a follower campaigns: four heartbeats.
pub const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(600);
/// Longest such silence, and the leader's lease. Twice the shortest, so that two followers seldom campaign together.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(1200);
/// Entries between two snapshots: at about 64 commands an entry this is a few minutes of full load.
pub const SNAPSHOT_ENTRIES: u64 = 20_000;
/// Entries that stay in the log below a snapshot, so that a follower that was away briefly needs no snapshot.
pub const ENTRIES_KEPT: u64 = 5_000;
/// A follower that is further behind gets a snapshot. More than one snapshot's distance, else it would never end.
pub const LAG_ENTRIES_MAX: u64 = 60_000;
/// Entries in one append message. Their bytes are bounded by the log reader and by the message limit.
pub const APPEND_ENTRIES_MAX: u64 = 64;
/// Changes that may wait for SQLite before proposals are refused: some seconds of its work.
pub const BACKLOG_OPS_MAX: usize = 100_000;
/// How long a snapshot may take to travel and be installed.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

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
    /// See [`LAG_ENTRIES_MAX`].
    pub lag_entries_max: u64,
    /// See [`BACKLOG_OPS_MAX`].
    pub backlog_ops_max: usize,
    /// Below this much free disk proposals are refused, see [`zyflow_storage::log::FREE_BYTES_MIN`].
    pub disk_free_bytes_min: u64,
    /// Writes under way at once, see [`crate::proposer::WRITES_IN_FLIGHT`].
    pub writes_in_flight: usize,
    /// What stamps commands.
    pub clock: Arc<dyn Clock>,
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
            lag_entries_max: LAG_ENTRIES_MAX,
            backlog_ops_max: BACKLOG_OPS_MAX,
            disk_free_bytes_min: zyflow_storage::log::FREE_BYTES_MIN,
            writes_in_flight: crate::proposer::WRITES_IN_FLIGHT,
            clock: Arc::new(SystemClock),
        }
    }

    /// The same for openraft.
    pub(crate) fn to_openraft(&self) -> Result<Arc<Config>, StartError> {
        if self.lag_entries_max <= self.snapshot_entries {
            return Err(StartError::Config(format!(
                "lag_entries_max ({}) must be greater than snapshot_entries ({}), or a snapshot never ends a lag",
                self.lag_entries_max, self.snapshot_entries
            )));
        }
        if self.writes_in_flight == 0 {
            return Err(StartError::Config("writes_in_flight must be at least 1".to_owned()));
        }
        let config = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout_min),
            election_timeout_max: millis(self.election_timeout_max),
            install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
            max_payload_entries: APPEND_ENTRIES_MAX,
            replication_lag_threshold: self.lag_entries_max,
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
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let slow = ConsensusConfig { heartbeat: Duration::from_secs(9), ..config() };
        assert!(matches!(slow.to_openraft(), Err(StartError::Config(_))));
        let endless = ConsensusConfig { lag_entries_max: 5, ..config() };
        assert!(matches!(endless.to_openraft(), Err(StartError::Config(_))));
    }
}
