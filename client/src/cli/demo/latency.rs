//! How long an edit takes from a save in one checkout to the bytes on disk in all others.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use super::file::SpecFile;
use super::frame::{all_hold, wait_for};

/// One edit may take this long before the script fails.
const EDIT_WITHIN: Duration = Duration::from_secs(10);

/// What was measured.
pub(super) struct Latency {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// Makes `edits` edits one after the other, in turn in each checkout, each a new task with a token of its own.
pub(super) async fn measure(files: &[SpecFile], edits: u32) -> anyhow::Result<Latency> {
    let mut histogram = Histogram::<u64>::new(3).context("a histogram")?;
    for number in 0..edits {
        let at = usize::try_from(number)? % files.len();
        let mut edited = files[at].text()?;
        writeln!(edited, "- [ ] 9.{number} measured edit-{number:04}")?;
        let since = Instant::now();
        files[at].replace(&edited)?;
        // The next edit begins where all agree, so that each measures itself alone.
        let what = format!("edit {number}, made in checkout {}, in all checkouts", at + 1);
        wait_for(&what, EDIT_WITHIN, || all_hold(files, &edited)).await?;
        histogram.record(u64::try_from(since.elapsed().as_micros())?)?;
    }
    Ok(Latency {
        p50: Duration::from_micros(histogram.value_at_quantile(0.5)),
        p99: Duration::from_micros(histogram.value_at_quantile(0.99)),
        max: Duration::from_micros(histogram.max()),
    })
}
