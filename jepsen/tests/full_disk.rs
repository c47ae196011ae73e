//! One node's own disk runs full: as a follower it falls out and comes back, as a leader it refuses with a clear error. Nothing that
//! was acknowledged is missing. Needs root and loop devices; says so and does nothing without.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use zyflow_client::dev::{DevCluster, DevConfig};
use zyflow_jepsen::disk::LoopDisk;

/// Room for a log with its two warm files, tables and snapshots, and little else.
const DISK_BYTES: u64 = 1 << 30;

/// Less than `limits.disk_free_min`, so that proposals are refused.
const LOW: u64 = 16 << 20;

const WITHIN: Duration = Duration::from_mins(1);

/// Notes of this size fill what a full disk still gives away.
const NOTE_BYTES: usize = 60_000;

/// The node with the disk of its own.
const NODE: u64 = 1;

/// One of the others.
const OTHER: u64 = 2;

struct Scene {
    cluster: DevCluster,
    task: String,
    zyflow: PathBuf,
}

#[tokio::test]
async fn a_full_disk_of_one_node_loses_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let test = std::env::current_exe()?;
    let binaries = test.parent().and_then(Path::parent).context("a test lies in TARGET/PROFILE/deps")?;
    let config = DevConfig { dir: folder.path().join("dev"), nodes: Some(3), zyflowd: Some(binaries.join("zyflowd")) };
    let mut cluster = DevCluster::start(config).await?;
    cluster.stop_node(NODE).await?;
    let disk = match move_to_disk(&cluster.layout().data(NODE), folder.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            // Straight to the terminal: the notice must not be swallowed with the output of passed tests.
            let notice = format!("SKIPPED: the full disk test did not run, {reason:#}\n");
            std::io::stderr().write_all(notice.as_bytes())?;
            return Ok(());
        }
    };
    cluster.restart(NODE).await?;
    cluster.wait_for_leader().await?;
    let mut scene = Scene { cluster, task: String::new(), zyflow: binaries.join("zyflow") };
    scene.task = scene.open_task().await?;
    as_a_follower(&mut scene, &disk).await?;
    as_the_leader(&mut scene, &disk).await?;
    scene.cluster.stop().await?;
    Ok(())
}

/// The follower ends with a reason when it can't write any more, the others go on, and with room again it catches up.
async fn as_a_follower(scene: &mut Scene, disk: &LoopDisk) -> anyhow::Result<()> {
    scene.hand_to(OTHER).await?;
    let ballast = disk.fill(0)?;
    let since = Instant::now();
    let mut last = 0;
    let ended = loop {
        if let Some((id, _)) = scene.cluster.ended() {
            break id;
        }
        ensure!(since.elapsed() < WITHIN, "node {NODE} goes on with a full disk after {last} notes");
        last += 1;
        scene.set(last)?;
    };
    ensure!(ended == NODE, "node {ended} ended");
    let log = fs::read_to_string(scene.cluster.layout().log(NODE))?;
    ensure!(log.contains("No space left on device") || log.contains("disk is full"), "its log doesn't say why");
    scene.set(last + 1)?;
    fs::remove_file(ballast)?;
    scene.cluster.restart(NODE).await?;
    scene.check(last + 1)
}

/// The leader refuses before anything is written, and takes writes again as soon as there is room.
async fn as_the_leader(scene: &mut Scene, disk: &LoopDisk) -> anyhow::Result<()> {
    scene.hand_to(NODE).await?;
    scene.set(1_000)?;
    let ballast = disk.fill(LOW)?;
    let since = Instant::now();
    // The log looks at its free space once a second.
    loop {
        // A stall may have made another one the leader, which has room.
        scene.hand_to(NODE).await?;
        let said = scene.note(1_001)?;
        if said.status.code() == Some(5) {
            let words = String::from_utf8_lossy(&said.stderr).into_owned();
            ensure!(words.contains("E-DISK-FULL"), "it doesn't say that the disk is full: {words}");
            break;
        }
        ensure!(since.elapsed() < WITHIN, "the leader goes on with a disk that is nearly full");
    }
    ensure!(scene.cluster.ended().is_none(), "a node ended though there was room to refuse");
    fs::remove_file(ballast)?;
    let since = Instant::now();
    while scene.note(1_002)?.status.code() != Some(0) {
        ensure!(since.elapsed() < WITHIN, "the leader doesn't take writes again");
    }
    scene.check(1_002)
}

impl Scene {
    fn command(&self, args: &[&str]) -> anyhow::Result<Output> {
        let profile = self.cluster.layout().profile();
        let mut command = Command::new(&self.zyflow);
        Ok(command.arg("--profile").arg(profile).args(["--timeout", "20s"]).args(args).output()?)
    }

    /// A task of the demo's files, as soon as they are in the cluster.
    async fn open_task(&self) -> anyhow::Result<String> {
        let since = Instant::now();
        loop {
            let listed = self.command(&["-o", "json", "task", "list", "--status", "todo"])?;
            let words = String::from_utf8(listed.stdout)?;
            let mut parts = words.split('"').skip_while(|part| *part != "id").skip(2);
            if let Some(id) = parts.next() {
                return Ok(id.to_owned());
            }
            ensure!(since.elapsed() < WITHIN, "no open task in {words}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command again for as long as the cluster says that it can't just now, unless that is because a disk is full.
    fn patient(&self, args: &[&str]) -> anyhow::Result<Output> {
        let since = Instant::now();
        loop {
            let said = self.command(args)?;
            let is_full = String::from_utf8_lossy(&said.stderr).contains("E-DISK-FULL");
            if said.status.code() != Some(5) || is_full || since.elapsed() >= WITHIN {
                return Ok(said);
            }
        }
    }

    fn note(&self, number: u64) -> anyhow::Result<Output> {
        let note = format!("{number} {}", "x".repeat(NOTE_BYTES));
        self.patient(&["task", "set", &self.task, "--note", &note])
    }

    fn set(&self, number: u64) -> anyhow::Result<()> {
        let said = self.note(number)?;
        ensure!(said.status.success(), "note {number}: {said:?}");
        Ok(())
    }

    /// The last note stands, and all nodes have one state.
    fn check(&self, number: u64) -> anyhow::Result<()> {
        let shown = self.patient(&["-o", "json", "task", "show", &self.task])?;
        let words = String::from_utf8_lossy(&shown.stdout).into_owned();
        ensure!(words.contains(&format!("{number} xxx")), "note {number} is missing");
        let verified = self.patient(&["verify"])?;
        ensure!(verified.status.success(), "the nodes differ: {verified:?}");
        Ok(())
    }

    /// Makes a node the leader; one that is behind may have to be asked more than once.
    async fn hand_to(&mut self, node: u64) -> anyhow::Result<()> {
        let (since, to) = (Instant::now(), node.to_string());
        while self.cluster.wait_for_leader().await? != node {
            let said = self.command(&["cluster", "transfer", &to])?;
            ensure!(since.elapsed() < WITHIN, "node {node} doesn't lead: {said:?}");
        }
        Ok(())
    }
}

/// Gives a stopped node a disk of its own.
fn move_to_disk(data: &Path, folder: &Path) -> anyhow::Result<LoopDisk> {
    let before = folder.join("before");
    fs::rename(data, &before)?;
    let disk = LoopDisk::create(folder.join("image"), data.to_owned(), DISK_BYTES)?;
    let copied = Command::new("cp").arg("-a").arg(before.join(".")).arg(data).status()?;
    ensure!(copied.success(), "the data folder can't be copied");
    Ok(disk)
}
