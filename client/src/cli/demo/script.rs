//! The script's frame: numbered steps, each with its time, and waiting for a condition with a deadline.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Files are looked at this often while something is waited for: fine enough for a figure in milliseconds, coarse enough to
/// leave the two cores to the nodes.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// Prints a line per step and remembers how many there were.
pub(super) struct Script<W> {
    out: W,
    began: Instant,
    step: u32,
}

impl<W: Write> Script<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, began: Instant::now(), step: 0 }
    }

    /// Says how a step ended, with what it took; a failed one ends the script.
    pub(super) fn done<T>(
        &mut self,
        title: &str,
        since: Instant,
        result: anyhow::Result<(T, String)>,
    ) -> anyhow::Result<T> {
        self.step += 1;
        let seconds = since.elapsed().as_secs_f64();
        match result {
            Ok((value, detail)) => {
                writeln!(self.out, "ok     {:>2}  {seconds:>7.3} s  {title}: {detail}", self.step)?;
                Ok(value)
            }
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

/// The text of a file; empty where it isn't there (yet).
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Saves a file as most editors do: a new file beside it, then a rename over it.
pub(super) fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("md.editor-tmp");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("saving {}", path.display()))
}

/// The same path in every checkout.
pub(super) fn everywhere(checkouts: &[PathBuf], path: &str) -> Vec<PathBuf> {
    checkouts.iter().map(|checkout| checkout.join(path)).collect()
}

/// Waits until all files hold the same text and that text is `wanted`.
pub(super) async fn agree_on(
    files: &[PathBuf],
    within: Duration,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Duration> {
    wait_for("all checkouts showing the same, awaited text", within, || {
        let first = text(&files[0])?;
        Ok(wanted(&first) && files[1..].iter().try_fold(true, |same, file| anyhow::Ok(same && text(file)? == first))?)
    })
    .await
}
