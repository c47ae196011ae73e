//! Named places at which a test can end or stop the process, in the order in which a batch passes them.
//!
//! `ZYFLOW_FAILPOINT=name:count` aborts at the `count`-th passing of `name`; `name:count:stop` stops there with SIGSTOP,
//! so that the power can be cut at this very place. Compiled in with the cargo feature `failpoints` only, which nothing
//! but tests switches on.

/// Nothing of the batch has been handed to `RocksDB`.
pub const BEFORE_WRITE: &str = "before_write";
/// The batch is in the WAL as far as the system's page cache.
pub const AFTER_WRITE_BEFORE_SYNC: &str = "after_write_before_sync";
/// The batch is on disk, its vote is not yet in the promises.
pub const AFTER_SYNC_BEFORE_PROMISE: &str = "after_sync_before_promise";
/// Everything is on disk, nobody has been told.
pub const AFTER_SYNC_BEFORE_CALLBACK: &str = "after_sync_before_callback";

/// All of them.
pub const ALL: [&str; 4] =
    [BEFORE_WRITE, AFTER_WRITE_BEFORE_SYNC, AFTER_SYNC_BEFORE_PROMISE, AFTER_SYNC_BEFORE_CALLBACK];

/// The environment variable that arms a failpoint.
pub const VARIABLE: &str = "ZYFLOW_FAILPOINT";

/// Ends the process here if a test asked for it.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn pass(_name: &str) {}

/// Ends or stops the process here if a test asked for it.
#[cfg(feature = "failpoints")]
pub(crate) fn pass(name: &str) {
    use std::sync::{OnceLock, atomic::Ordering};

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|value| Armed::parse(&value)));
    if let Some(armed) = armed
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        if armed.stop {
            let stopped = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
            assert!(stopped.is_ok(), "a process can stop itself");
        } else {
            std::process::abort();
        }
    }
}

#[cfg(feature = "failpoints")]
struct Armed {
    name: String,
    left: std::sync::atomic::AtomicU64,
    stop: bool,
}

#[cfg(feature = "failpoints")]
impl Armed {
    fn parse(value: &str) -> Self {
        let mut parts = value.split(':');
        let name = parts.next().filter(|name| ALL.contains(name));
        let count = parts.next().and_then(|count| count.parse().ok());
        let stop = match parts.next() {
            None => Some(false),
            Some("stop") => Some(true),
            Some(_) => None,
        };
        let (Some(name), Some(left), Some(stop), None) = (name, count, stop, parts.next()) else {
            panic!("{VARIABLE} must be one of {ALL:?}, a count and perhaps stop, not {value:?}");
        };
        Self { name: name.to_owned(), left: std::sync::atomic::AtomicU64::new(left), stop }
    }
}
