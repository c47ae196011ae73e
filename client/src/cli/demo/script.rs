//! The script: which steps there are, in which order, and what they share.
//!
//! To add a step, write one function and one line:
//! - `async fn my_step(&mut self) -> Step` in an `impl Demo`, here or in a file beside this one. It does what a user would do
//!   ([`SpecFile::replace`] on one of `self.files`, or `self.command.must(&["task", "next"])`, which runs the real `zyflow`), waits for what
//!   must come of it with a deadline ([`wait_for`](super::frame::wait_for), [`agree_on`](super::frame::agree_on),
//!   [`Demo::wait_until_quiet`]), and gives a line that says what was seen, or an error that says what wasn't;
//! - `frame.step("title", self.my_step()).await?;` in [`Demo::lead`]. Number, time and the exit code follow.
//!
//! A step leaves all checkouts in agreement. One that kills a node starts it again, or the step after it does.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;

use super::command::CommandLine;
use super::file::{SpecFile, everywhere};
use super::frame::{Frame, agree_on};
use super::{CHANGE, Length, MEASURED, QUIET_WITHIN, WITHIN};
use crate::dev::DevCluster;
use crate::read::{Consistency, Read, Task, TaskFilter};

/// Pause between two looks whether all is quiet.
const QUIET_POLL: Duration = Duration::from_millis(50);

/// What the steps share.
pub(super) struct Demo {
    pub(super) cluster: DevCluster,
    pub(super) command: CommandLine,
    /// The folders, in the order of their numbers.
    pub(super) checkouts: Vec<PathBuf>,
    /// [`CHANGE`] in every checkout.
    pub(super) files: Vec<SpecFile>,
    /// [`MEASURED`] in every checkout.
    pub(super) measured: Vec<SpecFile>,
    /// Tokens of the editors that every checkout shows.
    pub(super) shown: BTreeSet<String>,
    /// The node that was killed and isn't back.
    pub(super) killed: Option<u64>,
}

impl Demo {
    pub(super) fn new(cluster: DevCluster) -> anyhow::Result<Self> {
        let layout = cluster.layout();
        let checkouts: Vec<PathBuf> = layout.checkout_numbers().map(|number| layout.checkout(number)).collect();
        Ok(Self {
            command: CommandLine::new(layout.profile())?,
            files: everywhere(&checkouts, CHANGE),
            measured: everywhere(&checkouts, MEASURED),
            shown: BTreeSet::new(),
            killed: None,
            checkouts,
            cluster,
        })
    }

    /// Every step.
    pub(super) async fn lead<W: Write>(&mut self, frame: &mut Frame<W>, length: Length) -> anyhow::Result<()> {
        frame.step("files in, files out", self.bind()).await?;
        frame.step("line ends of their own", self.use_crlf()).await?;
        for number in 1..=self.checkouts.len() {
            frame.step(&format!("edit in checkout {number}"), self.edit_in(number)).await?;
        }
        frame.step("set a task by command", self.set_by_command()).await?;
        frame.step("a new file, folders too", self.new_file()).await?;
        frame.step(&format!("{} edits, disk to disk", length.edits), self.measure(length.edits)).await?;
        frame.step("ten editors at once", self.edit_at_once(length.editors)).await?;
        frame.step("two agents, two tasks", self.claim()).await?;
        frame.step("a conflict, and its resolution", self.disagree()).await?;
        frame.step("texts and runtime state", self.validate()).await?;
        frame.step("back to a point, and forward", self.roll_back()).await?;
        frame.step("kill the leader under load", self.kill_leader()).await?;
        frame.step("start it again", self.restart()).await?;
        frame.step("verify", self.verify()).await
    }

    /// Tasks of the demo's change.
    pub(super) async fn tasks(&self) -> anyhow::Result<Vec<Task>> {
        let tasks = self.cluster.client().tasks(linearizable(), TaskFilter::default()).await?.value.tasks;
        Ok(tasks.into_iter().filter(|task| task.change_path == CHANGE).collect())
    }

    /// Until all checkouts hold the same text and no node knows of anything that is under way.
    pub(super) async fn wait_until_quiet(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let before = self.files[0].text()?;
            agree_on(&self.files, QUIET_WITHIN, |_| true).await?;
            let mut unsynced = 0;
            for node in 0..self.cluster.client().endpoints().len() {
                let list =
                    |mut admin: AdminClient<_>| async move { admin.checkout_list(v1::CheckoutListRequest {}).await };
                let listed = self.cluster.client().admin(node, WITHIN, list).await?;
                unsynced += listed.checkouts.iter().map(|checkout| checkout.unsynced).sum::<u32>();
            }
            if unsynced == 0 && self.files[0].text()? == before {
                return Ok(());
            }
            let waited = QUIET_WITHIN.as_secs();
            ensure!(since.elapsed() < QUIET_WITHIN, "{unsynced} files are still not synced after {waited} s");
            tokio::time::sleep(QUIET_POLL).await;
        }
    }
}

pub(super) fn linearizable() -> Read {
    Read { consistency: Consistency::Linearizable, at: None, within: WITHIN }
}
