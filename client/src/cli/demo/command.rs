//! The real command line, run by the script, and an editor who works through it alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::editors::{Journal, pause};
use super::habits;
use super::random::Random;

/// The name of the editor who works by command.
const NAME: &str = "command";

/// Exit codes that say that nothing was done, as somebody else was there first: 3 not found (deleted), 4 stale.
const OVERTAKEN: [i32; 2] = [3, 4];

/// `zyflow` with a profile.
#[derive(Clone, Debug)]
pub(super) struct CommandLine {
    program: PathBuf,
    profile: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: i32,
    /// The JSON that it printed; null where it printed none.
    pub(super) value: Value,
    pub(super) errors: String,
}

impl CommandLine {
    /// This very program, with that profile.
    pub(super) fn new(profile: PathBuf) -> anyhow::Result<Self> {
        Ok(Self { program: std::env::current_exe().context("this program's own path")?, profile })
    }

    /// Runs `zyflow -o json ARGUMENTS` and waits for its end.
    pub(super) async fn run(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(&self.program);
        command.arg("--profile").arg(&self.profile).args(["-o", "json", "--yes", "--timeout", "30s"]).args(arguments);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("running zyflow {}", arguments.join(" ")))?;
        let value = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout)? };
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(Said { code: output.status.code().unwrap_or(-1), value, errors })
    }

    /// The same, where anything but success is a failure; gives the JSON.
    pub(super) async fn must(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let said = self.run(arguments).await?;
        ensure!(said.code == 0, "zyflow {} ended with {}: {}", arguments.join(" "), said.code, said.errors);
        Ok(said.value)
    }
}

/// What the editor who works by command was told to be done.
#[derive(Debug, Default)]
pub(super) struct Commanded {
    /// Tokens of tasks that were added.
    pub(super) added: Vec<String>,
    /// Notes by task: the file doesn't show them.
    pub(super) notes: BTreeMap<String, Noted>,
}

/// A note on a task.
#[derive(Debug)]
pub(super) struct Noted {
    /// The token that the task was added with.
    pub(super) task: String,
    pub(super) note: String,
}

/// Adds tasks to a change and sets them to in progress with a note, in turn, for `span`.
pub(super) async fn work(
    command: &CommandLine,
    change: &str,
    span: Duration,
    journal: &Arc<Journal>,
) -> anyhow::Result<Commanded> {
    let mut random = Random::new(0x5eed_c0de);
    let mut done = Commanded::default();
    let mut number = 0;
    let end = Instant::now() + span;
    while Instant::now() < end {
        let token = habits::token(NAME, number);
        number += 1;
        let words = format!("written by {token}");
        let said = command.run(&["task", "add", change, &words]).await?;
        if is_done(&said)? {
            journal.note(&format!("by command  {token}"))?;
            done.added.push(token.clone());
            let id = said.value["id"].as_str().context("an added task without an id")?.to_owned();
            tokio::time::sleep(pause(&mut random)).await;
            let note = habits::token(NAME, number);
            number += 1;
            let said = command.run(&["task", "set", &id, "--status", "in-progress", "--note", &note]).await?;
            if is_done(&said)? {
                journal.note(&format!("by command  {note}  on task {id} of {token}"))?;
                done.notes.insert(id, Noted { task: token, note });
            }
        }
        tokio::time::sleep(pause(&mut random)).await;
    }
    Ok(done)
}

fn is_done(said: &Said) -> anyhow::Result<bool> {
    ensure!(said.code == 0 || OVERTAKEN.contains(&said.code), "a command ended with {}: {}", said.code, said.errors);
    Ok(said.code == 0)
}
