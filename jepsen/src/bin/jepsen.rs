//! `./x chaos [watch] [SECONDS] [SEED]`: kills nodes of a real cluster under load and checks the history; with `watch`, also what watchers
//! were told of it.

use std::time::Duration;

use anyhow::Context;
use zyflow_jepsen::kill::Plan;
use zyflow_jepsen::{kill, watch};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_watched = arguments.first().is_some_and(|first| first == "watch");
    if is_watched {
        arguments.remove(0);
    }
    let number = |at: usize, default: u64| match arguments.get(at) {
        Some(text) => {
            text.parse::<u64>().with_context(|| format!("`{text}` is no number: jepsen [watch] [SECONDS] [SEED]"))
        }
        None => Ok(default),
    };
    let (seconds, seed) = (number(0, 30)?, number(1, 1)?);
    let folder = tempfile::tempdir()?;
    let (span, dir) = (Duration::from_secs(seconds), folder.path().join("dev"));
    let plan = Plan { span, kills_min: 0, writers: 8, seed, dir, zyflowd: None };
    if is_watched {
        let report = watch::run(plan).await?;
        println!(
            "seed {seed}, {seconds} s: {} events told to each watcher, {} writes acknowledged, {} kills, {} begun anew: 0 lost, 0 repeated, in order",
            report.events, report.writes, report.kills, report.begun_anew
        );
        return Ok(());
    }
    let report = kill::run(plan).await?;
    println!(
        "seed {seed}, {seconds} s: {} writes acknowledged, {} kills, longest pause {} ms, nothing lost, one digest",
        report.writes,
        report.kills,
        report.gap.as_millis()
    );
    Ok(())
}
