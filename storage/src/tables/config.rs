//! What the tables can be told, and the limits they keep.

use std::path::PathBuf;
use std::time::Duration;

use zyflow_crypto::Lineage;

/// Rows that may wait for SQLite before [`apply`](super::Tables::apply) itself waits: at 2 KiB a row about 64 MiB.
const BACKLOG_OPS_MAX: usize = 32_768;

/// Bytes of rows that may wait, for the case that rows are large: 256 MiB.
const BACKLOG_BYTES_MAX: usize = 256 << 20;

/// Rows of one SQLite transaction: where the price of a row stops falling (docs/adr/0004-tables-append-only.md).
const FLUSH_OPS_MAX: usize = 4096;

/// How long a row waits for company before it is written. Nobody waits for it: answers, reads and conflicts are decided
/// in memory; it only bounds what a start replays, and lets one page hold many changes.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Newest versions of records that are kept opened: 64 MiB.
const CACHE_BYTES_MAX: u64 = 64 << 20;

/// Versions that were read for lists of the past, opened: 32 MiB, some forty thousand of a usual size.
const PAST_VERSIONS_BYTES_MAX: u64 = 32 << 20;

/// Versions of which is remembered what they replaced: 6 MiB.
const PAST_LINKS_MAX: usize = 1 << 18;

/// Families at past revisions, places and records: 64 MiB, or a list of 10,000 tasks at about five revisions. Records that several of them
/// share are counted in each.
const PAST_FAMILIES_BYTES_MAX: u64 = 64 << 20;

/// Connections that read at once, besides the one that apply has for itself: more only compete for two to eight cores.
const READERS_MAX: usize = 4;

/// How much the writer gives way to the threads that answer clients. It holds no lock while it works.
const WRITER_NICE: i32 = 5;

/// How tables work; [`TablesConfig::new`] gives what suits a node.
#[derive(Clone, Debug)]
pub struct TablesConfig {
    /// The folder of the database; made if it isn't there.
    pub dir: PathBuf,
    /// The history that the tables are derived from; a database of another is refused.
    pub lineage: Lineage,
    /// Rows that may wait for SQLite; past it apply waits.
    pub backlog_ops_max: usize,
    /// Bytes of rows that may wait for SQLite; past it apply waits.
    pub backlog_bytes_max: usize,
    /// Rows of one transaction; an entry is never divided.
    pub flush_ops_max: usize,
    /// How long a row waits for company.
    pub flush_interval: Duration,
    /// Bytes of the cache of records.
    pub cache_bytes_max: u64,
    /// Bytes of the cache of past versions.
    pub past_versions_bytes_max: u64,
    /// Versions of which is remembered what they replaced.
    pub past_links_max: usize,
    /// Bytes of the cache of families at past revisions; what one takes at most to be kept.
    pub past_families_bytes_max: u64,
    /// Connections that read at once.
    pub readers_max: usize,
    /// Added to the writer thread's niceness, 0 to 19.
    pub writer_nice: i32,
    /// How the database gives up durability for speed; only measurements change it.
    pub synchronous: Synchronous,
}

impl TablesConfig {
    /// What suits a node.
    #[must_use]
    pub fn new(dir: PathBuf, lineage: Lineage) -> Self {
        Self {
            dir,
            lineage,
            backlog_ops_max: BACKLOG_OPS_MAX,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            flush_ops_max: FLUSH_OPS_MAX,
            flush_interval: FLUSH_INTERVAL,
            cache_bytes_max: CACHE_BYTES_MAX,
            past_versions_bytes_max: PAST_VERSIONS_BYTES_MAX,
            past_links_max: PAST_LINKS_MAX,
            past_families_bytes_max: PAST_FAMILIES_BYTES_MAX,
            readers_max: READERS_MAX,
            writer_nice: WRITER_NICE,
            synchronous: Synchronous::Normal,
        }
    }
}

/// SQLite's `synchronous`, as far as it makes sense for a projection of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Synced at checkpoints: a power cut takes the last transactions, never the consistency of the database.
    Normal,
    /// Never synced: a power cut may leave a database that must be rebuilt. For measurements.
    Off,
}

impl Synchronous {
    pub(super) fn pragma(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}
