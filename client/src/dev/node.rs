//! One node's process.

use super::{DevError, DevLayout};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How much of the end of a log is shown when a node fails, in bytes: a screenful.
const SAID_BYTES_MAX: u64 = 4096;

/// A node that was started; its process may have ended.
pub(super) struct Node {
    id: u64,
    program: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(super) fn spawn(program: &Path, layout: &DevLayout, id: u64) -> Result<Self, DevError> {
        let mut node = Self { id, program: program.to_owned(), log: layout.log(id), child: None };
        node.respawn(layout)?;
        Ok(node)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts the process, if it doesn't run. Its words go to the end of the log.
    pub(super) fn respawn(&mut self, layout: &DevLayout) -> Result<(), DevError> {
        if self.pid().is_some() {
            return Ok(());
        }
        let open = |source| DevError::File { what: "write to", path: self.log.clone(), source };
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(open)?;
        let errors = log.try_clone().map_err(open)?;
        // A group of its own: Ctrl-C at the terminal reaches us alone, and we end the nodes in order.
        let child = Command::new(&self.program)
            .arg("run")
            .arg("--config")
            .arg(layout.config(self.id))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DevError::Spawn { program: self.program.clone(), source })?;
        self.child = Some(child);
        Ok(())
    }

    /// How the process ended, if it has ended by itself. Told once.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        // A process that can't be asked is ours and waited for by nobody else: it runs.
        let status = self.child.as_mut()?.try_wait().ok().flatten();
        if status.is_some() {
            self.child = None;
        }
        status
    }

    pub(super) async fn kill(&mut self) -> Result<(), DevError> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(|source| DevError::Process { what: "kill", id: self.id, source })?;
        }
        Ok(())
    }

    pub(super) async fn stop(&mut self, within: Duration) -> Result<(), DevError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let id = self.id;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let signalled = kill_process(pid, Signal::TERM);
            signalled.map_err(|error| DevError::Process { what: "stop", id, source: error.into() })?;
        }
        let waiting = |source| DevError::Process { what: "wait for", id, source };
        match timeout(within, child.wait()).await {
            Ok(status) => {
                let status = status.map_err(waiting)?;
                let log = self.log.clone();
                if status.success() { Ok(()) } else { Err(DevError::Ended { id, status, said: last_lines(&log), log }) }
            }
            Err(_elapsed) => {
                child.kill().await.map_err(waiting)?;
                Err(DevError::Killed { id, waited: within, log: self.log.clone() })
            }
        }
    }
}

/// The end of a log, for an error message; says so where it can't be read.
pub(super) fn last_lines(log: &Path) -> String {
    read_end(log).unwrap_or_else(|error| format!("(its log can't be read: {error})\n"))
}

fn read_end(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(SAID_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(SAID_BYTES_MAX).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let whole = if start == 0 { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole.to_owned())
}
