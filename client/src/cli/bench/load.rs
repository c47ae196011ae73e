//! The clients of a benchmark: each a loop of its own over shared connections.

use crate::cli::report::Failure;
use crate::client::Client;
use crate::code::Code;
use crate::error::ClientError;
use crate::read::{Consistency, Read};
use crate::session::Session;
use futures::future::join_all;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;

/// Digits of the histogram: p99 to a tenth of a percent.
const HISTOGRAM_DIGITS: u8 = 3;

/// Longest time that is told apart, in microseconds: an hour, far over any deadline.
const MICROS_MAX: u64 = 3_600_000_000;

/// What the clients do.
pub(super) struct Load {
    pub(super) client: Client,
    pub(super) tasks: Arc<Vec<RecordId>>,
    pub(super) size: usize,
    pub(super) batch: usize,
    pub(super) end: Instant,
    pub(super) within: Duration,
    /// Reads of this consistency instead of writes.
    pub(super) consistency: Option<Consistency>,
}

/// What came of it.
pub(super) struct Tally {
    /// Time of each operation that was done, in microseconds.
    pub(super) micros: Histogram<u64>,
    pub(super) errors: u64,
    /// Newest revision that was acknowledged.
    pub(super) newest: Revision,
    pub(super) last_code: Option<Code>,
    pub(super) last_error: String,
}

impl Tally {
    fn new() -> Self {
        let micros =
            Histogram::new_with_max(MICROS_MAX, HISTOGRAM_DIGITS).expect("invariant: these bounds are possible");
        Self { micros, errors: 0, newest: Revision(0), last_code: None, last_error: String::new() }
    }

    fn count(&mut self, began: Instant, result: Result<Revision, Failure>) {
        match result {
            Ok(revision) => {
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.micros.saturating_record(micros);
                self.newest = self.newest.max(revision);
            }
            Err(failure) => {
                self.errors += 1;
                (self.last_code, self.last_error) = (Some(failure.code), failure.message);
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.micros.add(&other.micros).expect("invariant: both have the same bounds");
        self.errors += other.errors;
        self.newest = self.newest.max(other.newest);
        if other.last_code.is_some() {
            (self.last_code, self.last_error) = (other.last_code, other.last_error);
        }
    }
}

/// Runs all clients to the end.
pub(super) async fn run(load: &Arc<Load>, clients: usize) -> Result<Tally, Failure> {
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(client(Arc::clone(load), number));
    }
    let mut total = Tally::new();
    while let Some(ended) = running.join_next().await {
        let tally = ended
            .map_err(|error| Failure::new(Code::Protocol, format!("a client of the benchmark failed: {error}")))?;
        total.add(tally);
    }
    Ok(total)
}

async fn client(load: Arc<Load>, number: usize) -> Tally {
    let session = Session::new(load.client.clone(), "zyflow bench", number);
    let mut numbers = Numbers::new(number);
    let mut tally = Tally::new();
    while Instant::now() < load.end {
        if load.batch == 1 {
            let began = Instant::now();
            tally.count(began, load.operate(&session, &mut numbers).await);
            continue;
        }
        let began = Instant::now();
        let mut seeds: Vec<Numbers> = (0..load.batch).map(|_| numbers.split()).collect();
        let results = join_all(seeds.iter_mut().map(|seed| load.operate(&session, seed))).await;
        for result in results {
            tally.count(began, result);
        }
    }
    tally
}

impl Load {
    async fn operate(&self, session: &Session, numbers: &mut Numbers) -> Result<Revision, Failure> {
        let task = self.tasks[numbers.below(self.tasks.len())];
        if let Some(consistency) = self.consistency {
            let read = Read { consistency, at: None, within: self.within };
            return Ok(self.client.task(read, task).await?.revision);
        }
        let fields = vec![TaskField::Note(numbers.text(self.size))];
        let body = Body::SetTask { task, expected: None, fields, mark: None };
        match session.propose(body, self.within).await {
            Ok(Outcome::Accepted { revision, .. }) => Ok(revision),
            Ok(other) => Err(Failure::new(Code::Protocol, format!("the cluster answered {other:?}"))),
            Err(ClientError::Service { error, .. }) => Err(Failure::new(error.code.into(), error.message)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reproducible numbers (`SplitMix64`: Steele, Lea, Flood 2014): the same clients do the same in every run.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(client: usize) -> Self {
        let client = u64::try_from(client).unwrap_or(u64::MAX);
        Self(client.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn split(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % limit).expect("invariant: below a usize")
    }

    /// Text of this many bytes that compresses badly, 10 letters a number.
    fn text(&mut self, bytes: usize) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(bytes + 10);
        while text.len() < bytes {
            let number = self.next();
            text.extend((0..10).map(|letter| {
                let index = usize::try_from(number >> (letter * 6) & 63).expect("invariant: masked to 6 bits");
                char::from(LETTERS[index])
            }));
        }
        text.truncate(bytes);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_as_they_are() {
        let mut tally = Tally::new();
        let began = Instant::now().checked_sub(Duration::from_millis(1500)).unwrap();
        tally.count(began, Ok(Revision(7)));
        tally.count(began, Err(Failure::new(Code::Timeout, "late")));
        let mut total = Tally::new();
        total.add(tally);
        assert!((1_400_000..60_000_000).contains(&total.micros.value_at_quantile(0.5)), "{}", total.micros.max());
        assert_eq!((total.micros.len(), total.errors, total.newest), (1, 1, Revision(7)));
        assert_eq!((total.last_code, total.last_error.as_str()), (Some(Code::Timeout), "late"));
    }

    #[test]
    fn notes_have_the_size_that_was_asked_for_and_differ() {
        let mut numbers = Numbers::new(1);
        for size in [1, 9, 10, 11, 256] {
            assert_eq!(numbers.text(size).len(), size);
        }
        assert_ne!(numbers.text(256), numbers.text(256));
        assert_ne!(Numbers::new(1).text(256), Numbers::new(2).text(256));
    }
}
