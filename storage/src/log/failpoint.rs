//! Named places at which a test can end the process, in the order in which a batch passes them.
//!
//! `ZYFLOW_FAILPOINT=name:count` aborts at the `count`-th passing of `name`. Compiled in with the cargo feature
//! `failpoints` only, which nothing but tests switches on.

/// Nothing of the batch has been handed to `RocksDB`.
pub const BEFORE_WRITE: &str = "before_write";
/// The batch is in the WAL as far as the system's page cache.
pub const AFTER_WRITE_BEFORE_SYNC: &str = "after_write_before_sync";
/// The batch is on disk, its vote is not yet in the promises.
pub const AFTER_SYNC_BEFORE_PROMISE: &str = "after_sync_before_promise";
/// Everything is on disk, nobody has been told.
pub const AFTER_SYNC_BEFORE_CALLBACK: &str = "after_sync_before_callback";

/// All of them.
pub const ALL: [&str; 4] = [BEFORE_WRITE, AFTER_WRITE_BEFORE_SYNC, AFTER_SYNC_BEFORE_PROMISE, AFTER_SYNC_BEFORE_CALLBACK];

/// The environment variable that arms a failpoint.
pub const VARIABLE: &str = "ZYFLOW_FAILPOINT";

/// Ends the process here if a test asked for it.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn pass(_name: &str) {}

/// Ends the process here if a test asked for it.
#[cfg(feature = "failpoints")]
pub(crate) fn pass(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let parsed = value.split_once(':').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
        let Some((name, count)) = parsed.filter(|(name, _)| ALL.contains(&name.as_str())) else {
            panic!("{VARIABLE} must be one of {ALL:?} and a count, as in {BEFORE_WRITE}:1, not {value:?}");
        };
        Some((name, AtomicU64::new(count)))
    });
    if let Some((armed, left)) = armed
        && armed == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}
