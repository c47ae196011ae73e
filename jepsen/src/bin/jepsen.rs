//! `./x chaos`: kills nodes of a real cluster under load and checks the history.

use std::time::Duration;

use anyhow::Context;
use zyflow_jepsen::kill::{Plan, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let number = |at: usize, default: u64| match std::env::args().nth(at) {
        Some(text) => text.parse::<u64>().with_context(|| format!("`{text}` is no number: jepsen [SECONDS] [SEED]")),
        None => Ok(default),
    };
    let (seconds, seed) = (number(1, 30)?, number(2, 1)?);
    let folder = tempfile::tempdir()?;
    let plan =
        Plan { span: Duration::from_secs(seconds), writers: 8, seed, dir: folder.path().join("dev"), zyflowd: None };
    let report = run(plan).await?;
    println!(
        "seed {seed}, {seconds} s: {} writes acknowledged, {} kills, longest pause {} ms, nothing lost, one digest",
        report.writes,
        report.kills,
        report.gap.as_millis()
    );
    Ok(())
}
