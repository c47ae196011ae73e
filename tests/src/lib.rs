//! The harness of the end-to-end tests: a cluster of real `zyflowd` processes, and the real `zyflow` command to talk to it.
//!
//! Cargo builds the binaries of other packages only where it is told to, so `./x test` builds them first; a test that doesn't find them
//! says so.

pub mod load;
pub mod spare;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use zyflow_client::dev::{DevCluster, DevConfig};

/// Longest wait for anything that a test awaits.
pub const WITHIN: Duration = Duration::from_secs(30);

/// A binary of the workspace, built beside the test that runs.
///
/// # Errors
/// Where it isn't there.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("a test lies in TARGET/PROFILE/deps")?;
    let binary = folder.join(name);
    ensure!(binary.is_file(), "{} isn't there: run ./x test, which builds it", binary.display());
    Ok(binary)
}

/// Three nodes in a temporary folder.
pub struct Harness {
    /// The nodes.
    pub cluster: DevCluster,
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Harness {
    /// Starts a cluster of `nodes` and waits until it has a leader and its checkouts are bound.
    ///
    /// # Errors
    /// Where it doesn't start.
    pub async fn start(nodes: u64) -> anyhow::Result<Self> {
        // One at a time: a port that was found free is taken only once its node runs.
        static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _starting = STARTING.lock().await;
        let folder = tempfile::Builder::new().prefix("zyflow-test-").tempdir()?;
        let config =
            DevConfig { dir: folder.path().join("dev"), nodes: Some(nodes), zyflowd: Some(binary("zyflowd")?) };
        Ok(Self { cluster: DevCluster::start(config).await?, folder })
    }

    /// A folder for whatever a test needs besides.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in a node's checkout.
    #[must_use]
    pub fn file(&self, node: u64, path: &str) -> PathBuf {
        self.cluster.layout().checkout(node).join(path)
    }

    /// Runs `zyflow` with the cluster's profile.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn zyflow(&self, args: &[&str]) -> anyhow::Result<Said> {
        zyflow(Some(&self.cluster.layout().profile()), args)
    }
}

/// Runs `zyflow` with a profile.
///
/// # Errors
/// Where it can't be run.
pub fn zyflow(profile: Option<&Path>, args: &[&str]) -> anyhow::Result<Said> {
    let mut command = Command::new(binary("zyflow")?);
    if let Some(profile) = profile {
        command.arg("--profile").arg(profile);
    }
    said(&command.args(args).output()?)
}

/// What a finished process said.
///
/// # Errors
/// Where it was ended by a signal.
pub fn said(output: &Output) -> anyhow::Result<Said> {
    Ok(Said {
        code: output.status.code().context("the process was ended by a signal")?,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// That it ended with this code and said these words.
///
/// # Panics
/// Where it didn't.
#[track_caller]
pub fn check(said: &Said, code: i32, words: &[&str]) {
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, code, "{said:#?}");
    for word in words {
        assert!(all.contains(word), "`{word}` isn't said: {said:#?}");
    }
}

/// Waits until `is_so`.
///
/// # Errors
/// Where it isn't within [`WITHIN`].
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let since = Instant::now();
    while !is_so() {
        ensure!(since.elapsed() < WITHIN, "{what} didn't happen within {} s", WITHIN.as_secs());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// The text of a file; empty where it isn't there.
#[must_use]
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
