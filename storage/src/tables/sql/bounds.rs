//! What ends a script that goes on for too long: the clock, memory, or that nobody waits for its answer any more.
//!
//! ```text
//!   while a statement is prepared:  looked at for each action that SQLite asks for     (guard)
//!   while it runs:                  looked at every few hundred steps
//!   in between:                     looked at by whoever loops over rows
//! ```
//! Memory is what the process has taken since the last [`Bounds::measure`]: SQLite sorts and keeps intermediate tables in memory, since a node
//! has no text in clear on its disk, and says of no script how much that is. So what the node takes for other things meanwhile counts too:
//! the node is what has to live. Where the system doesn't tell (it isn't Linux), memory isn't bounded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{SqlError, SqlLimits};

/// Steps of SQLite's machine between two looks at the clock: some microseconds, or 200 values of the largest size.
const STEPS_BETWEEN_LOOKS: i32 = 200;

/// Between two looks at memory, which cost some ten microseconds: a sort takes a few mebibytes meanwhile.
const MEMORY_LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The watch over one script. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Bounds(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    deadline: Instant,
    memory_bytes: u64,
    is_unwanted: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes that the process had when it was measured.
    before: u64,
    looked: Instant,
    /// What was passed first.
    over: Option<Over>,
}

/// What was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Time,
    Memory,
    Unwanted,
}

impl Bounds {
    /// From now on. `is_unwanted` ends the script.
    pub(super) fn new(limits: &SqlLimits, is_unwanted: &Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            deadline: now + limits.time,
            memory_bytes: u64::try_from(limits.memory_bytes).unwrap_or(u64::MAX),
            is_unwanted: Arc::clone(is_unwanted),
            state: Mutex::new(State { before: resident_bytes().unwrap_or(u64::MAX), looked: now, over: None }),
        }))
    }

    /// What the process has now is no longer the script's: its tables are counted as they are filled.
    pub(super) fn measure(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.before = resident_bytes().unwrap_or(u64::MAX);
    }

    /// Looks at all of them while statements of `connection` run.
    pub(super) fn set(&self, connection: &Connection) -> rusqlite::Result<()> {
        let bounds = self.clone();
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || bounds.check().is_err()))
    }

    /// The error of what was passed, now or before.
    pub(super) fn check(&self) -> Result<(), SqlError> {
        self.check_by(Shared::look)
    }

    /// The same without memory, for what is counted elsewhere.
    pub(super) fn check_time(&self) -> Result<(), SqlError> {
        self.check_by(|shared, now, _| shared.look_at_time(now))
    }

    fn check_by(&self, look: impl FnOnce(&Shared, Instant, &mut State) -> Option<Over>) -> Result<(), SqlError> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over.is_none() {
            let over = look(&self.0, Instant::now(), &mut state);
            state.over = over;
        }
        match state.over {
            None => Ok(()),
            Some(Over::Time) => Err(SqlError::OverTime),
            Some(Over::Memory) => Err(SqlError::TooMuchMemory),
            Some(Over::Unwanted) => Err(SqlError::Ended),
        }
    }
}

impl Shared {
    fn look_at_time(&self, now: Instant) -> Option<Over> {
        if self.is_unwanted.load(Ordering::Relaxed) {
            return Some(Over::Unwanted);
        }
        (now >= self.deadline).then_some(Over::Time)
    }

    fn look(&self, now: Instant, state: &mut State) -> Option<Over> {
        let over = self.look_at_time(now);
        if over.is_some() {
            return over;
        }
        if now.saturating_duration_since(state.looked) < MEMORY_LOOK_INTERVAL {
            return None;
        }
        state.looked = now;
        let grown = resident_bytes().unwrap_or(0).saturating_sub(state.before);
        (grown > self.memory_bytes).then_some(Over::Memory)
    }
}

/// Bytes that the process has in memory and that no file stands behind; `None` = the system doesn't tell.
fn resident_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    resident_of(&status)
}

/// The same from the text of proc(5). Kernels before 4.5, and some that are none, tell only of all memory.
fn resident_of(status: &str) -> Option<u64> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1 << 10)
    };
    field("RssAnon:").or_else(|| field("VmRSS:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SqlLimits =
        SqlLimits { time: Duration::from_mins(1), rows: 1, read_bytes: 1, answer_bytes: 1, memory_bytes: 1 << 20 };

    #[test]
    fn memory_is_read_from_what_the_system_says() {
        let status = "Name:\tzyflowd\nVmRSS:\t    2196 kB\nRssAnon:\t     152 kB\nRssFile:\t    2044 kB\n";
        assert_eq!(resident_of(status), Some(152 << 10));
        assert_eq!(resident_of("VmRSS:\t    2196 kB\n"), Some(2_196 << 10));
        assert_eq!(resident_of("VmRSS:\tmuch\n"), None);
    }

    #[test]
    fn what_is_passed_first_is_what_is_said() {
        let is_unwanted = Arc::new(AtomicBool::new(false));
        let bounds = Bounds::new(&LIMITS, &is_unwanted);
        assert!(bounds.check().is_ok());
        is_unwanted.store(true, Ordering::Relaxed);
        assert!(matches!(bounds.check(), Err(SqlError::Ended)));
        is_unwanted.store(false, Ordering::Relaxed);
        assert!(matches!(bounds.check(), Err(SqlError::Ended)), "once ended, it stays so");
        let hasty = Bounds::new(&SqlLimits { time: Duration::ZERO, ..LIMITS }, &is_unwanted);
        assert!(matches!(hasty.check(), Err(SqlError::OverTime)));
    }
}
