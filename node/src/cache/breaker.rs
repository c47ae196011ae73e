//! A circuit breaker, pure: whether a server that may be slow or gone is asked at all. Time is an argument.
//!
//! ```text
//!             FAILURES_MAX failures in a row                 the pause is over
//!   closed ───────────────────────────────▶ open ───────────────────────────────▶ trying
//!     ▲                                      ▲                                       │ one is let through
//!     │                                      └────────── it failed: twice the pause ─┤
//!     └────────────────────────────────────────────────────────────── it succeeded ──┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which nobody is let through: so many reads wait in vain.
const FAILURES_MAX: u32 = 3;

/// First pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause: how long after its return a server is found again.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    pause: Duration,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All are let through; so many failed in a row.
    Closed { failures: u32 },
    /// Nobody is, until then.
    Open { until: Instant },
    /// One is on its way.
    Trying,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, pause: PAUSE_MIN }
    }

    /// Whether somebody may go now; each who is told so reports how it went.
    pub(super) fn lets_through(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } if now >= until => {
                self.state = State::Trying;
                true
            }
            State::Open { .. } | State::Trying => false,
        }
    }

    /// It went well.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// It failed, or took too long. Gives the pause where that opened the breaker.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
                return None;
            }
            // Those that were on their way when it opened say nothing new.
            State::Open { .. } => return None,
            State::Closed { .. } => {}
            State::Trying => self.pause = (self.pause * 2).min(PAUSE_MAX),
        }
        self.state = State::Open { until: now + self.pause };
        Some(self.pause)
    }

    /// Whether nobody is let through as usual.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        let pauses: Vec<_> = (0..FAILURES_MAX).map(|_| breaker.failed(now)).collect();
        assert_eq!(pauses, [None, None, Some(PAUSE_MIN)]);
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_for_single_ones() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            assert!(breaker.lets_through(now) && !breaker.is_open());
            breaker.succeeded();
        }
        assert!(!opened(now).lets_through(now));
    }

    #[test]
    fn one_tries_after_the_pause_and_decides_for_all() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + PAUSE_MIN;
        assert!(!breaker.lets_through(later.checked_sub(Duration::from_millis(1)).unwrap()));
        assert!(breaker.lets_through(later) && !breaker.lets_through(later), "one, and one only");
        breaker.succeeded();
        assert!(breaker.lets_through(later) && breaker.lets_through(later) && !breaker.is_open());
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_late_failures_dont_count() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.failed(now), None, "that one was on its way");
        let mut pause = PAUSE_MIN;
        for _ in 0..10 {
            now += pause;
            assert!(breaker.lets_through(now));
            pause = (pause * 2).min(PAUSE_MAX);
            assert_eq!(breaker.failed(now), Some(pause));
        }
        assert_eq!(pause, PAUSE_MAX);
    }
}
