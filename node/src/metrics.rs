//! Every metric name of the node, in one place, and how each is read.
//!
//! Gauges are read from the handles when they are asked for, so a metric can't drift from the state and costs nothing
//! between scrapes. Names follow the Prometheus conventions: `zyflow_` first, the unit last.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What the metrics are read from.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// The Raft term.
    pub term: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Whether any leader is known.
    pub has_leader: bool,
    /// Last index in the log.
    pub last_log_index: u64,
    /// Last index known to be committed.
    pub committed: u64,
    /// Last index applied in memory.
    pub applied: u64,
    /// Last index fsynced here.
    pub durable: u64,
    /// Last index whose rows are in SQLite.
    pub flushed: u64,
    /// Row changes that SQLite is behind.
    pub backlog_ops: usize,
    /// Free bytes on the log's disk.
    pub disk_free_bytes: u64,
    /// Checkouts that run here.
    pub checkouts: usize,
    /// Files in them that hold edits which the cluster hasn't got.
    pub files_unsynced: usize,
    /// 0 where nobody's digest differs from this node's, 1 where somebody's does, 2 where a majority's does.
    pub digest_alarm: u64,
    /// Newest revision whose digest was compared with other nodes'.
    pub digest_compared: u64,
    /// Newest revision whose digest was computed again from SQLite.
    pub digest_recomputed: u64,
    /// Oldest revision that can be read.
    pub horizon: u64,
    /// Bytes of answers that are kept in memory.
    pub answers_bytes: u64,
    /// Whether there is a shared cache that isn't asked for a while.
    pub is_shared_cache_broken: bool,
}

/// Where answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// In this node's memory.
    Memory,
    /// In the Redis that nodes share.
    Shared,
}

/// What came of looking for an answer, or of keeping one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerResult {
    /// It was there.
    Hit,
    /// It wasn't.
    Miss,
    /// Nobody was asked: there is no connection, or the breaker is open.
    Skipped,
    /// Asking failed, or took too long.
    Error,
    /// What was there isn't ours, or was altered.
    Damaged,
    /// It is kept from now on.
    Kept,
    /// It couldn't be kept.
    Unkept,
}

const PROPOSALS: &str = "zyflow_proposals_total";
const ANSWERS: &str = "zyflow_cached_answers_total";

/// The process's recorder.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// The recorder couldn't be installed.
#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder can't be installed: {0}")]
pub struct InstallError(#[from] metrics_exporter_prometheus::BuildError);

impl Metrics {
    /// Installs the process's recorder and describes every metric.
    ///
    /// # Errors
    /// Where another recorder is installed already.
    pub fn install() -> Result<Self, InstallError> {
        let handle = PrometheusBuilder::new().install_recorder()?;
        describe_counter!(PROPOSALS, "Commands answered on this node, by result");
        describe_counter!(ANSWERS, "Answers looked for and kept in caches, by level and result");
        for (name, text) in GAUGES {
            describe_gauge!(*name, *text);
        }
        Ok(Self { handle })
    }

    /// Counts one answered command; `result` is one of a small fixed set.
    pub fn count_proposal(result: &'static str) {
        counter!(PROPOSALS, "result" => result).increment(1);
    }

    /// Counts what came of a cache.
    pub(crate) fn count_answer(level: Level, result: AnswerResult) {
        let level = match level {
            Level::Memory => "memory",
            Level::Shared => "shared",
        };
        let result = match result {
            AnswerResult::Hit => "hit",
            AnswerResult::Miss => "miss",
            AnswerResult::Skipped => "skipped",
            AnswerResult::Error => "error",
            AnswerResult::Damaged => "damaged",
            AnswerResult::Kept => "kept",
            AnswerResult::Unkept => "unkept",
        };
        counter!(ANSWERS, "level" => level, "result" => result).increment(1);
    }

    /// The page that Prometheus reads.
    #[must_use]
    pub fn render(&self, readings: &Readings) -> String {
        for ((name, _), value) in GAUGES.iter().zip(readings.values()) {
            gauge!(*name).set(value);
        }
        self.handle.render()
    }
}

/// In the order of [`Readings::values`].
const GAUGES: &[(&str, &str)] = &[
    ("zyflow_raft_term", "The Raft term"),
    ("zyflow_raft_is_leader", "1 where this node leads"),
    ("zyflow_raft_has_leader", "1 where a leader is known"),
    ("zyflow_log_last_index", "Last index in the log"),
    ("zyflow_log_committed_index", "Last index known to be committed"),
    ("zyflow_applied_revision", "Last index applied in memory"),
    ("zyflow_log_durable_index", "Last index fsynced on this node"),
    ("zyflow_flushed_revision", "Last index whose rows are in SQLite"),
    ("zyflow_backlog_rows", "Row changes that SQLite is behind"),
    ("zyflow_disk_free_bytes", "Free bytes on the log's disk"),
    ("zyflow_checkouts", "Checkouts that run on this node"),
    ("zyflow_files_unsynced", "Files that hold edits which the cluster hasn't got"),
    ("zyflow_digest_alarm", "0 where nobody's digest differs, 1 where somebody's does, 2 where a majority's does"),
    ("zyflow_digest_compared_revision", "Newest revision whose digest was compared with other nodes'"),
    ("zyflow_digest_recomputed_revision", "Newest revision whose digest was computed again from SQLite"),
    ("zyflow_horizon_revision", "Oldest revision that can be read"),
    ("zyflow_cached_answers_bytes", "Bytes of answers kept in memory"),
    ("zyflow_shared_cache_is_broken", "1 where the shared cache isn't asked for a while"),
];

impl Readings {
    fn values(&self) -> [f64; 18] {
        let bit = |is: bool| if is { 1.0 } else { 0.0 };
        // Exact up to 2^53; a gauge needs no more.
        let number = |value: u64| metrics::IntoF64::into_f64(std::time::Duration::from_secs(value));
        let size = |value: usize| number(u64::try_from(value).unwrap_or(u64::MAX));
        [
            number(self.term),
            bit(self.is_leader),
            bit(self.has_leader),
            number(self.last_log_index),
            number(self.committed),
            number(self.applied),
            number(self.durable),
            number(self.flushed),
            size(self.backlog_ops),
            number(self.disk_free_bytes),
            size(self.checkouts),
            size(self.files_unsynced),
            number(self.digest_alarm),
            number(self.digest_compared),
            number(self.digest_recomputed),
            number(self.horizon),
            number(self.answers_bytes),
            bit(self.is_shared_cache_broken),
        ]
    }
}
