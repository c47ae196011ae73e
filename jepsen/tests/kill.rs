//! A short run of the kill nemesis, as a smoke test; `./x chaos SECONDS SEED` runs it for longer.

use std::path::Path;
use std::time::Duration;

use zyflow_jepsen::kill::{Plan, run};

#[tokio::test]
async fn killed_nodes_lose_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let test = std::env::current_exe()?;
    let zyflowd = test.parent().and_then(Path::parent).map(|folder| folder.join("zyflowd"));
    let (span, dir) = (Duration::from_secs(6), folder.path().join("dev"));
    let plan = Plan { span, kills_min: 2, writers: 4, seed: 7, dir, zyflowd };
    let report = run(plan).await?;
    anyhow::ensure!(report.writes > 100 && report.kills >= 2, "{report:?} is too little to mean anything");
    Ok(())
}
