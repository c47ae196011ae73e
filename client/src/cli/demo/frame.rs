//! The script's frame: numbered steps, each with its time, and waiting for a condition with a deadline.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::file::SpecFile;

/// Files are looked at this often while something is waited for: fine enough for a figure in milliseconds, coarse enough to
/// leave the two cores to the nodes.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// What a step did, in one line; an error ends the script.
pub(super) type Step = anyhow::Result<String>;

/// Prints a line per step and remembers how many there were.
pub(super) struct Frame<W> {
    out: W,
    began: Instant,
    step: u32,
}

impl<W: Write> Frame<W> {
    pub(super) fn new(out: W, began: Instant) -> Self {
        Self { out, began, step: 0 }
    }

    /// Waits for a step and says how it ended; a failed one ends the script.
    pub(super) async fn step(&mut self, title: &str, step: impl Future<Output = Step>) -> anyhow::Result<()> {
        let since = Instant::now();
        let result = step.await;
        self.done(title, since, result)
    }

    /// Says how a step ended that began at `since`.
    pub(super) fn done(&mut self, title: &str, since: Instant, result: Step) -> anyhow::Result<()> {
        self.step += 1;
        let seconds = since.elapsed().as_secs_f64();
        match result {
            Ok(detail) => Ok(writeln!(self.out, "ok     {:>2}  {seconds:>7.3} s  {title}: {detail}", self.step)?),
            Err(error) => {
                writeln!(self.out, "FAILED {:>2}  {seconds:>7.3} s  {title}: {error:#}", self.step)?;
                Err(error.context(format!("step {} failed: {title}", self.step)))
            }
        }
    }

    /// The last line.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(writeln!(self.out, "all {} steps passed in {seconds:.1} s", self.step)?)
    }
}

/// Waits until `is_so`, and says how long it took.
pub(super) async fn wait_for(
    what: &str,
    within: Duration,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let since = Instant::now();
    while !is_so()? {
        if since.elapsed() > within {
            bail!("{what} didn't happen within {} s", within.as_secs_f64());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(since.elapsed())
}

/// Waits until all files hold the same text, each in its own encoding, and that text is `wanted`.
pub(super) async fn agree_on(
    files: &[SpecFile],
    within: Duration,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Duration> {
    wait_for("all checkouts showing the same, awaited text", within, || {
        let first = files[0].text()?;
        Ok(wanted(&first) && all_hold(files, &first)?)
    })
    .await
}

/// Whether every file holds exactly the bytes that its checkout writes for `text`.
pub(super) fn all_hold(files: &[SpecFile], text: &str) -> anyhow::Result<bool> {
    files.iter().try_fold(true, |same, file| Ok(same && file.bytes()? == file.rendered(text)))
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
