//! Power cuts under the log: a child process writes to a log on an ext4 file system in a loop device, the power of that
//! file system is cut, and after a new mount nothing that was acknowledged may be missing, and no start may be refused.
//!
//! Half of the cuts fall exactly between the write and the sync of a batch, with random pages of it written back, so
//! that the tail of the WAL is torn and out of order. An operation counts as acknowledged if that was reported before the
//! cut began. Needs root; says so and does nothing without.
//! `ZYFLOW_POWER_CUTS` sets the number of cuts,
//! `ZYFLOW_POWER_SEED` where they fall.
#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, waitpid};
use tempfile::TempDir;
use zyflow_jepsen::disk::LoopDisk;
use zyflow_storage::log::{
    LogStore, PLANTED,
    drill::{self, Model, Op, Random, Script},
    failpoint,
};
use zyflow_storage::types::EntryPayload;

const DIR: &str = "ZYFLOW_DRILL_DIR";
const SCRIPT: &str = "ZYFLOW_DRILL_SCRIPT";
const CUTS: &str = "ZYFLOW_POWER_CUTS";
const SEED: &str = "ZYFLOW_POWER_SEED";
/// Enough for every kind of cut to occur, few enough for every test run.
const CUTS_DEFAULT: u64 = 10;
/// After so many cuts one log gives way to a new one: each child first repeats what its predecessors did, to know where
/// it stands.
const CUTS_PER_LOG: u64 = 20;
/// One cut in ten leaves a torn tail; none in so many would be strange.
const CUTS_TORN: u64 = 100;
/// More than any child gets to before its power is cut.
const OPERATIONS: u64 = 1_000_000;
/// The size of the file system; it is a sparse file.
const IMAGE_BYTES: u64 = 512 << 20;
const DEADLINE: Duration = Duration::from_mins(1);

/// Not a test of its own: what the child process runs. Without its environment there is nothing to do. It ends with an
/// error when its disk is gone.
#[tokio::test]
async fn the_child() {
    let (Ok(dir), Ok(script)) = (std::env::var(DIR), std::env::var(SCRIPT)) else { return };
    drill::work(&drill::config(dir), &Script::decode(&script).unwrap(), OPERATIONS).await.unwrap();
}

/// An ext4 file system of its own.
struct Disk {
    disk: LoopDisk,
    folder: TempDir,
}

impl Disk {
    /// `None`, with a notice, where loop devices can't be mounted.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        match LoopDisk::create(folder.path().join("image"), folder.path().join("mount"), IMAGE_BYTES) {
            Ok(disk) => Some(Self { disk, folder }),
            Err(missing) => {
                // Straight to the terminal: the notice must not be swallowed with the output of passed tests.
                let notice = format!("SKIPPED: the power loss test did not run, {missing:#}\n");
                std::io::stderr().write_all(notice.as_bytes()).unwrap();
                None
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.disk.mount_point().join("log")
    }

    /// What the child wrote to its standard error.
    fn errors(&self) -> PathBuf {
        self.folder.path().join("errors")
    }

    /// Cuts the power, with random parts of the log's files written back, and says when.
    fn cut(&self, seed: u64) -> u64 {
        let mut files = Vec::new();
        for folder in [self.log(), self.log().join("rocks")] {
            files.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        }
        let output = Command::new(env!("CARGO_BIN_EXE_powercut"))
            .arg(self.disk.mount_point())
            .arg(seed.to_string())
            .args(files.iter().filter(|path| path.is_file()))
            .output()
            .unwrap();
        assert!(output.status.success(), "the power could not be cut: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Mounts the file system again, as after a start of the machine.
    fn remount(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.disk.unmount() {
            assert!(Instant::now() < deadline, "the file system stays busy");
        }
        assert!(self.disk.mount());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            let kept = self.folder.path().display();
            eprintln!("the file system is kept for a look: {kept}");
        }
    }
}

/// A child at work, and the lines that it prints.
struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    fn start(disk: &Disk, script: &Script, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child", "--nocapture"])
            .env(DIR, disk.log())
            .env(SCRIPT, script.encode())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(disk.errors()).unwrap())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for so many lines, and returns them.
    fn acknowledges(&self, count: u64) -> String {
        let line = |_| self.lines.recv_timeout(DEADLINE).expect("the child works") + "\n";
        (0..count).map(line).collect()
    }

    /// Waits until the child stops at its failpoint.
    fn stops(&self, disk: &Disk) {
        let pid = Pid::from_child(&self.child);
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        let errors = || std::fs::read_to_string(disk.errors()).unwrap();
        assert!(status.stopped(), "the child ended before its failpoint: {status:?}: {}", errors());
    }

    /// Kills the child and returns how much it had acknowledged before the cut, and how much it ever reported, given the
    /// lines already read.
    fn ends(mut self, mut output: String, cut_ns: u64) -> Known {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for line in &self.lines {
            output += &line;
            output.push('\n');
        }
        let open = "the child opened the log";
        Known {
            acknowledged: drill::acknowledged(&output, cut_ns).expect(open),
            reported: drill::acknowledged(&output, u64::MAX).expect(open),
        }
    }
}

/// What is known of the operations of a child.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// These must be found again.
    acknowledged: u64,
    /// What was reported during the cut is worth nothing: the sync under it may have been aborted without an error.
    reported: u64,
}

impl Known {
    const fn exactly(operations: u64) -> Self {
        Self { acknowledged: operations, reported: operations }
    }
}

/// Opens the log after a cut and says how many operations survived; in words, if too few, or if the start is refused.
async fn survived(disk: &Disk, script: &Script, known: Known) -> Result<u64, String> {
    let opened = LogStore::open(&drill::config(disk.log()));
    let mut store = opened.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    let found = Model::read(&mut store).await.map_err(|error| error.to_string())?;
    script.survived(known.acknowledged, known.reported, &found)
}

/// The bytes of the WAL files as the cut left them.
fn wal(disk: &Disk) -> Vec<u8> {
    let files = std::fs::read_dir(disk.log().join("rocks")).unwrap().map(|entry| entry.unwrap().path());
    let wals = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    wals.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

/// Whether the WAL holds pieces of operations that did not survive: the tail was torn, not just missing.
fn was_torn(wal: &[u8], script: &Script, survivors: u64) -> bool {
    let mut operations = script.operations();
    for _ in 0..survivors {
        operations.step();
    }
    let mut words = BTreeSet::new();
    for _ in 0..2 * drill::WINDOW {
        if let Op::Append(entries) = operations.step() {
            for entry in entries {
                if let EntryPayload::Normal(payload) = entry.payload {
                    words.extend(payload.0.chunks_exact(8).map(<[u8]>::to_vec));
                }
            }
        }
    }
    wal.windows(8).any(|window| words.contains(window))
}

/// Lets a child work, cuts the power, and says how much was acknowledged.
fn work_and_cut(disk: &Disk, script: &Script, random: &mut Random, planted: &[(&str, &str)]) -> Known {
    let (worker, output) = if random.below(2) == 0 {
        let armed = format!("{}:{}:stop", failpoint::AFTER_WRITE_BEFORE_SYNC, 1 + random.below(400));
        let environment: Vec<_> = planted.iter().copied().chain([(failpoint::VARIABLE, armed.as_str())]).collect();
        let worker = Worker::start(disk, script, &environment);
        worker.stops(disk);
        (worker, String::new())
    } else {
        let worker = Worker::start(disk, script, planted);
        let output = worker.acknowledges(1 + random.below(600));
        (worker, output)
    };
    let cut_ns = disk.cut(random.next_u64());
    let known = worker.ends(output, cut_ns);
    disk.remount();
    known
}

/// What a run of cuts has shown.
#[derive(Default)]
struct Tally {
    cuts: u64,
    acknowledged: u64,
    more: u64,
    torn: u64,
    aborted: u64,
}

/// Cuts the power of one log again and again.
async fn cut_and_cut_again(disk: &Disk, random: &mut Random, tally: &mut Tally, cuts: u64) {
    LogStore::init(&drill::config(disk.log())).unwrap();
    let mut script = Script::new(random.next_u64());
    for cut in 1..=cuts {
        let known = work_and_cut(disk, &script, random, &[]);
        let wal = wal(disk);
        let what = |which, error| format!("{which} cut {cut} of {}, {known:?}: {error}", script.encode());
        let mut survivors = survived(disk, &script, known).await.unwrap_or_else(|error| panic!("{}", what("", error)));
        tally.torn += u64::from(was_torn(&wal, &script, survivors));
        if random.below(4) == 0 {
            // What one start has found, the next one finds too, whatever happens in between.
            let store = LogStore::open(&drill::config(disk.log())).unwrap();
            disk.cut(random.next_u64());
            drop(store);
            disk.remount();
            let again = survived(disk, &script, Known::exactly(survivors)).await;
            survivors = again.unwrap_or_else(|error| panic!("{}", what("second", error)));
        }
        tally.cuts += 1;
        tally.acknowledged += known.acknowledged;
        tally.more += survivors - known.acknowledged;
        tally.aborted += known.reported.saturating_sub(survivors);
        script.crashed(survivors, random.next_u64());
    }
    std::fs::remove_dir_all(disk.log()).unwrap();
}

#[tokio::test]
async fn no_power_cut_loses_what_was_acknowledged_or_prevents_a_start() {
    let Some(disk) = Disk::new() else { return };
    let cuts = std::env::var(CUTS).map_or(CUTS_DEFAULT, |cuts| cuts.parse().unwrap());
    let mut random = Random(std::env::var(SEED).map_or(1, |seed| seed.parse().unwrap()));
    let mut tally = Tally::default();
    while tally.cuts < cuts {
        let left = cuts - tally.cuts;
        cut_and_cut_again(&disk, &mut random, &mut tally, left.min(CUTS_PER_LOG)).await;
    }
    let Tally { cuts, acknowledged, more, torn, aborted } = tally;
    eprintln!("{cuts} power cuts: {acknowledged} operations acknowledged before them, all found; {more} more found;");
    eprintln!("{torn} torn tails; {aborted} operations reported during a cut and lost");
    assert!(torn > 0 || cuts < CUTS_TORN, "no cut tore a tail: this test has lost its teeth");
}

#[tokio::test]
async fn a_log_that_does_not_sync_is_caught() {
    let Some(disk) = Disk::new() else { return };
    LogStore::init(&drill::config(disk.log())).unwrap();
    let mut random = Random(3);
    let mut script = Script::new(random.next_u64());
    for _ in 0..CUTS_DEFAULT {
        let known = work_and_cut(&disk, &script, &mut random, &[(PLANTED, "log-nosync")]);
        match survived(&disk, &script, known).await {
            Ok(survivors) => script.crashed(survivors, random.next_u64()),
            Err(_) => return,
        }
    }
    panic!("{CUTS_DEFAULT} power cuts did not show that nothing was ever synced");
}
