//! A short run of watchers under the kill nemesis; `./x chaos watch SECONDS SEED` runs it for longer.

use std::time::Duration;

use zyflow_jepsen::kill::Plan;
use zyflow_jepsen::watch::run;

#[tokio::test]
async fn watchers_are_told_everything_once_and_in_order_whoever_is_killed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let test = std::env::current_exe()?;
    let zyflowd = test.parent().and_then(std::path::Path::parent).map(|folder| folder.join("zyflowd"));
    let (span, dir) = (Duration::from_secs(12), folder.path().join("dev"));
    let plan = Plan { span, kills_min: 3, writers: 4, seed: 11, dir, zyflowd };
    let report = run(plan).await?;
    anyhow::ensure!(
        report.events > 100 && report.kills >= 3 && report.begun_anew >= 2,
        "{report:?} is too little to mean anything"
    );
    Ok(())
}
