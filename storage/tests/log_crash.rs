//! A process that writes the log dies at each failpoint, or is killed: what it acknowledged is there at the next start.
//!
//! The child is this test binary again; see [`zyflow_storage::log::drill`] for what is compared.
#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use zyflow_storage::log::{
    LogStore,
    drill::{self, Model, Script},
    failpoint,
};

const DIR: &str = "ZYFLOW_DRILL_DIR";
const SCRIPT: &str = "ZYFLOW_DRILL_SCRIPT";
/// More than any child gets to before its failpoint.
const OPERATIONS: u64 = 100_000;

/// Not a test of its own: what the child process runs. Without its environment there is nothing to do.
#[tokio::test]
async fn the_child() {
    let (Ok(dir), Ok(script)) = (std::env::var(DIR), std::env::var(SCRIPT)) else { return };
    drill::work(&drill::config(dir), &Script::decode(&script).unwrap(), OPERATIONS).await.unwrap();
}

fn start(dir: &Path, script: &Script, failpoint: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_child", "--nocapture"]).env(DIR, dir).env(SCRIPT, script.encode());
    if let Some(failpoint) = failpoint {
        command.env(failpoint::VARIABLE, failpoint);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Checks the log after a crash and notes in the script how far it got.
async fn survive(dir: &Path, script: &mut Script, acknowledged: u64, what: &str) {
    let mut store = LogStore::open(&drill::config(dir)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = Model::read(&mut store).await.unwrap();
    let survived =
        script.survived(acknowledged, acknowledged, &found).unwrap_or_else(|error| panic!("{what}: {error}"));
    script.crashed(survived, survived ^ acknowledged << 20 ^ 0x5eed);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_at_any_failpoint() {
    for name in failpoint::ALL {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        LogStore::init(&drill::config(&log)).unwrap();
        let mut script = Script::new(1);
        for count in [1, 2, 17, 150, 400] {
            let armed = format!("{name}:{count}");
            let output = start(&log, &script, Some(&armed)).wait_with_output().unwrap();
            assert!(!output.status.success(), "{armed}: the child came to the end");
            let acknowledged = drill::acknowledged(&String::from_utf8(output.stdout).unwrap(), u64::MAX).unwrap();
            survive(&log, &mut script, acknowledged, &armed).await;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    LogStore::init(&drill::config(&log)).unwrap();
    let mut script = Script::new(2);
    for lines in [1, 30, 3, 500, 1500] {
        let mut child = start(&log, &script, None);
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut output = String::new();
        while output.matches("acknowledged").count() < lines {
            assert_ne!(reader.read_line(&mut output).unwrap(), 0, "the child ended by itself");
        }
        child.kill().unwrap();
        reader.read_to_string(&mut output).unwrap();
        child.wait().unwrap();
        let acknowledged = drill::acknowledged(&output, u64::MAX).unwrap();
        survive(&log, &mut script, acknowledged, &format!("killed after {acknowledged} operations")).await;
    }
}
