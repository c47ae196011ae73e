//! How long an edit takes from a save in one checkout to the bytes on disk in all others.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use super::script::{save, text, wait_for};

/// One edit may take this long before the script fails.
const EDIT_WITHIN: Duration = Duration::from_secs(10);

/// What was measured.
pub(super) struct Latency {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// Makes `edits` edits one after the other, in turn in each checkout, each a new task with a token of its own.
pub(super) async fn measure(files: &[PathBuf], edits: u32) -> anyhow::Result<Latency> {
    let mut histogram = Histogram::<u64>::new(3).context("a histogram")?;
    for number in 0..edits {
        let at = usize::try_from(number)? % files.len();
        let token = format!("edit-{number:04}");
        let mut edited = text(&files[at])?;
        writeln!(edited, "- [ ] 9.{number} measured {token}")?;
        let since = Instant::now();
        save(&files[at], &edited)?;
        for (other, file) in files.iter().enumerate() {
            if other != at {
                let what = format!("{token} from checkout {} in checkout {}", at + 1, other + 1);
                wait_for(&what, EDIT_WITHIN, || Ok(text(file)?.contains(&token))).await?;
            }
        }
        histogram.record(u64::try_from(since.elapsed().as_micros())?)?;
        // The next edit begins where all agree, so that each measures itself alone.
        wait_for("all checkouts agreeing", EDIT_WITHIN, || {
            let first = text(&files[0])?;
            files[1..].iter().try_fold(true, |same, file| anyhow::Ok(same && text(file)? == first))
        })
        .await?;
    }
    Ok(Latency {
        p50: Duration::from_micros(histogram.value_at_quantile(0.5)),
        p99: Duration::from_micros(histogram.value_at_quantile(0.99)),
        max: Duration::from_micros(histogram.max()),
    })
}
