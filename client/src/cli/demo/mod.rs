//! `zyflow demo`: a cluster of three nodes with a checkout each, either to play with or led through a script.
//!
//! The script does what people do: edits in each checkout, a change by command, many edits one after the other, editors with
//! stale buffers, a leader that is killed. Every step checks what it did; the first that fails ends the script with exit
//! code 1, and the folder is kept so that one can look.

mod editors;
mod latency;
mod load;
mod script;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::Status;

use super::args::duration;
use super::context::Context;
use super::dev;
use super::report::{Failure, Output, Report};
use crate::code::Code;
use crate::dev::{DevCluster, DevConfig};
use crate::read::{Consistency, Read, TaskFilter};
use crate::session::Session;
use script::{Script, agree_on, everywhere, save, text, wait_for};

/// The file that most steps edit.
const CHANGE: &str = "openspec/changes/add-login/tasks.md";

/// One step may wait this long for what it awaits.
const WITHIN: Duration = Duration::from_secs(30);

/// Writes go on this soon after the leader is gone.
const FAILOVER_MAX: Duration = Duration::from_secs(2);

/// The p99 of an edit from disk to disk that the script demands; what it aims at is a tenth. It runs a development build beside
/// whatever else the machine does.
const EDIT_P99_MAX: Duration = Duration::from_secs(1);

/// Commands under load while the leader is killed.
const WRITERS: usize = 8;

/// What `zyflow demo` is told.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Lead the cluster through a script, a line per step, and stop: exit code 0 or 1.
    #[arg(long)]
    once: bool,
    /// Where everything is kept [default: a new temporary folder with --once, else zyflow-dev].
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: u64,
    /// Edits that are measured one after the other.
    #[arg(long, value_name = "N", default_value_t = 500)]
    edits: u32,
    /// How long the editors with stale buffers edit.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    editors: Duration,
}

/// Runs the demo.
pub(super) async fn run(context: &Context, args: DemoArgs) -> Result<Report, Failure> {
    let began = Instant::now();
    if !args.once {
        let dir = args.dir.unwrap_or_else(|| PathBuf::from("zyflow-dev"));
        return dev::run(context, dev::DevArgs { nodes: Some(args.nodes), dir }).await;
    }
    let temporary = tempfile::Builder::new().prefix("zyflow-demo-").tempdir();
    let temporary = temporary.map_err(|error| Failure::new(Code::File, format!("no temporary folder: {error}")))?;
    // Where the folder is temporary, it is kept if a step fails, so that one can look.
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().join("dev"));
    let config = DevConfig { dir: dir.clone(), nodes: Some(args.nodes), zyflowd: None };
    let cluster = DevCluster::start(config).await?;
    let length = Length { edits: args.edits, editors: args.editors };
    match once(cluster, began, length, std::io::stdout()).await {
        Ok(()) => Ok(Output::Nothing.into()),
        Err(error) => {
            let kept = if args.dir.is_none() { temporary.keep().join("dev") } else { dir };
            Err(Failure::new(Code::Dev, format!("{error:#}; the cluster's folder is kept: {}", kept.display())))
        }
    }
}

/// How long the script is.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Edits that are measured one after the other.
    pub edits: u32,
    /// How long the editors with stale buffers edit.
    pub editors: Duration,
}

/// Leads the cluster through the script and stops it.
///
/// # Errors
/// The step that failed.
pub async fn once(cluster: DevCluster, began: Instant, length: Length, out: impl Write) -> anyhow::Result<()> {
    let mut script = Script::new(out);
    let checkouts: Vec<PathBuf> = cluster.layout().node_ids().map(|id| cluster.layout().checkout(id)).collect();
    let started = format!("{} nodes with mutual TLS, a leader, a checkout each", checkouts.len());
    script.done("start", began, Ok(((), started)))?;
    let session = Session::new(cluster.client().clone(), "demo", 0);
    let files = everywhere(&checkouts, CHANGE);
    let mut demo = Demo { cluster, session, files, checkouts, shown: Vec::new() };
    let result = demo.lead(&mut script, length).await;
    let stopping = Instant::now();
    let stopped = demo.cluster.stop().await;
    result?;
    script.done(
        "stop",
        stopping,
        stopped.map(|()| ((), "every node ended by itself".to_owned())).map_err(Into::into),
    )?;
    script.end()
}

struct Demo {
    cluster: DevCluster,
    session: Session,
    checkouts: Vec<PathBuf>,
    /// [`CHANGE`] in every checkout.
    files: Vec<PathBuf>,
    /// Tokens of the editors that every checkout shows.
    shown: Vec<String>,
}

type Step = anyhow::Result<((), String)>;

impl Demo {
    async fn lead<W: Write>(&mut self, script: &mut Script<W>, length: Length) -> anyhow::Result<()> {
        let since = Instant::now();
        script.done("files in, files out", since, self.bind().await)?;
        for number in 1..=self.checkouts.len() {
            let since = Instant::now();
            let step = self.edit_in(number).await;
            script.done(&format!("edit in checkout {number}"), since, step)?;
        }
        let since = Instant::now();
        script.done("set a task by command", since, self.set_by_command().await)?;
        let since = Instant::now();
        script.done("a new file, folders too", since, self.new_file().await)?;
        let since = Instant::now();
        script.done(&format!("{} edits, disk to disk", length.edits), since, self.measure(length.edits).await)?;
        let since = Instant::now();
        script.done("editors with stale buffers", since, self.editors(length.editors).await)?;
        let since = Instant::now();
        let killed = script.done("kill the leader under load", since, self.kill_leader().await)?;
        let since = Instant::now();
        script.done("start it again", since, self.restart(killed).await)?;
        let since = Instant::now();
        script.done("verify", since, self.verify().await)
    }

    async fn bind(&self) -> Step {
        agree_on(&self.files, WITHIN, |text| text.contains("- [")).await?;
        let lines = text(&self.files[0])?.lines().count();
        Ok(((), format!("{CHANGE} ({lines} lines) went from checkout 1 to all {}", self.checkouts.len())))
    }

    async fn edit_in(&self, number: usize) -> Step {
        let file = &self.files[number - 1];
        let before = text(file)?;
        let open = before.find("- [ ]").context("no open task is left to check")?;
        let mut edited = before.clone();
        edited.replace_range(open..open + "- [ ]".len(), "- [x]");
        save(file, &edited)?;
        let took = agree_on(&self.files, WITHIN, |text| text == edited).await?;
        Ok(((), format!("a box checked there is checked in all, {:.1} ms after the save", millis(took))))
    }

    /// Tasks of the demo's change.
    async fn tasks(&self) -> anyhow::Result<Vec<crate::read::Task>> {
        let tasks = self.cluster.client().tasks(linearizable(), TaskFilter::default()).await?.value.tasks;
        Ok(tasks.into_iter().filter(|task| task.change_path == CHANGE).collect())
    }

    async fn propose(&self, body: Body) -> anyhow::Result<Revision> {
        match self.session.propose(body, WITHIN).await? {
            Outcome::Accepted { revision, .. } => Ok(revision),
            other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
                bail!("the command was answered by {other:?}")
            }
        }
    }

    async fn set_by_command(&self) -> Step {
        let is_open = |task: &&crate::read::Task| task.block.record.mark.value == " ";
        let tasks = self.tasks().await?;
        let task = tasks.iter().find(is_open).context("no open task is left")?;
        let line = |mark: &str| format!("{}{mark}{}", task.block.record.lead, task.block.record.text.value);
        let (open, done) = (line(" "), line("x"));
        ensure!(text(&self.files[0])?.contains(&open), "the file doesn't show the open task {open:?}");
        let fields = vec![TaskField::Status(Status::Done)];
        let revision = self.propose(Body::SetTask { task: task.block.id, expected: None, fields, mark: None }).await?;
        let took = agree_on(&self.files, WITHIN, |text| text.contains(&done)).await?;
        Ok((
            (),
            format!(
                "task {} done at revision {revision}; all files show it {:.1} ms later",
                task.block.id,
                millis(took)
            ),
        ))
    }

    async fn new_file(&self) -> Step {
        const PATH: &str = "specs/001-import/tasks.md";
        let files = everywhere(&self.checkouts, PATH);
        let file = files.last().context("no checkouts")?;
        std::fs::create_dir_all(file.parent().context("a path without a folder")?)?;
        let wanted = "# Tasks: import\n\n## Phase 1: Setup\n\n- [ ] T001 [P] Write the reader in src/read.rs\n- [ ] T002 Map the columns\n";
        save(file, wanted)?;
        agree_on(&files, WITHIN, |text| text == wanted).await?;
        Ok(((), format!("{PATH}, made in checkout {}, is in all", files.len())))
    }

    async fn measure(&self, edits: u32) -> Step {
        let latency = latency::measure(&self.files, edits).await?;
        let detail = format!(
            "from a save to the bytes in all others: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            millis(latency.p50),
            millis(latency.p99),
            millis(latency.max)
        );
        ensure!(latency.p99 <= EDIT_P99_MAX, "{detail}");
        Ok(((), detail))
    }

    async fn editors(&mut self, span: Duration) -> Step {
        let written = editors::run(&self.files, span).await?;
        let tokens: BTreeSet<&String> = written.iter().flat_map(|editor| &editor.tokens).collect();
        let stale: u32 = written.iter().map(|editor| editor.stale_saves).sum();
        self.wait_until_quiet().await?;
        let shown = text(&self.files[0])?;
        let kept = self.conflicting_texts().await?;
        let in_conflict = tokens.iter().filter(|token| !shown.contains(**token)).collect::<Vec<_>>();
        let lost: Vec<_> =
            in_conflict.iter().filter(|token| !kept.iter().any(|text| text.contains(***token))).collect();
        ensure!(
            lost.is_empty(),
            "{} of {} tokens are in no checkout and in no conflict: {lost:?}",
            lost.len(),
            tokens.len()
        );
        let seconds = span.as_secs();
        let conflicts = in_conflict.len();
        let total = tokens.len();
        self.shown = tokens.into_iter().filter(|token| shown.contains(*token)).cloned().collect();
        let shown = self.shown.len();
        Ok((
            (),
            format!(
                "{seconds} s, {total} saves ({stale} stale): {shown} tokens in all checkouts, {conflicts} in recorded conflicts, 0 lost"
            ),
        ))
    }

    /// Until all checkouts hold the same text and no node knows of anything that is under way.
    async fn wait_until_quiet(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let before = text(&self.files[0])?;
            agree_on(&self.files, WITHIN, |_| true).await?;
            let mut unsynced = 0;
            for node in 0..self.checkouts.len() {
                let list =
                    |mut admin: AdminClient<_>| async move { admin.checkout_list(v1::CheckoutListRequest {}).await };
                let listed = self.cluster.client().admin(node, WITHIN, list).await?;
                unsynced += listed.checkouts.iter().map(|checkout| checkout.unsynced).sum::<u32>();
            }
            if unsynced == 0 && text(&self.files[0])? == before {
                return Ok(());
            }
            ensure!(since.elapsed() < WITHIN, "{unsynced} files are still not synced after {} s", WITHIN.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn conflicting_texts(&self) -> anyhow::Result<Vec<String>> {
        let conflicts = self.cluster.client().conflicts(linearizable(), None, true).await?.value;
        let values = conflicts.into_iter().flat_map(|row| [row.record.base, row.record.spec, row.record.runtime]);
        Ok(values.flatten().collect())
    }

    async fn kill_leader(&mut self) -> anyhow::Result<(u64, String)> {
        let tasks: Vec<RecordId> = self.tasks().await?.iter().map(|task| task.block.id).take(WRITERS).collect();
        ensure!(tasks.len() == WRITERS, "the demo's change has fewer than {WRITERS} tasks");
        let load = load::Load::start(self.cluster.client(), &tasks);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = self.cluster.wait_for_leader().await?;
        self.cluster.kill(leader).await?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let report = load.stop().await?;
        report.check(self.cluster.client()).await?;
        let gap = millis(report.gap);
        ensure!(report.gap <= FAILOVER_MAX, "no write was acknowledged for {gap:.0} ms");
        let detail = format!(
            "node {leader} killed; {} writes acknowledged, none lost, longest pause {gap:.0} ms",
            report.writes
        );
        Ok((leader, detail))
    }

    async fn restart(&mut self, killed: u64) -> Step {
        let at = usize::try_from(killed - 1)?;
        let wanted = self.cluster.client().revision(linearizable()).await?;
        self.cluster.restart(killed).await?;
        let since = Instant::now();
        loop {
            let status = self.cluster.client().node_status(at, WITHIN).await?;
            if status.applied >= wanted.0 {
                break;
            }
            ensure!(
                since.elapsed() < WITHIN,
                "node {killed} is at {} of {wanted} after {} s",
                status.applied,
                WITHIN.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let file = &self.files[at];
        let others: Vec<PathBuf> = self.files.iter().filter(|other| *other != file).cloned().collect();
        let newest = text(&others[0])?;
        let what = format!("checkout {killed} catching up");
        wait_for(&what, WITHIN, || Ok(text(file)? == newest)).await?;
        // What the killed node left half-done is looked at by now: it must not have undone anything.
        self.wait_until_quiet().await?;
        let text = text(file)?;
        let lost: Vec<&String> = self.shown.iter().filter(|token| !text.contains(*token)).collect();
        ensure!(lost.is_empty(), "{} tokens that were in all checkouts are gone: {lost:?}", lost.len());
        Ok(((), format!("node {killed} has applied revision {wanted}, its checkout shows it, and nothing was undone")))
    }

    async fn verify(&self) -> Step {
        let wanted = self.cluster.client().revision(linearizable()).await?;
        let mut digests = BTreeSet::new();
        let mut revisions = BTreeSet::new();
        for node in 0..self.checkouts.len() {
            let request = v1::VerifyRequest { revision: Some(wanted.0), recompute: true };
            let verify = |mut admin: AdminClient<_>| async move { admin.verify(request).await };
            let answer = self.cluster.client().admin(node, WITHIN, verify).await?;
            let stored = answer.stored.context("no recomputed digest")?;
            ensure!(stored.matches, "node {}: its SQLite doesn't add up to its digest", answer.node_id);
            revisions.insert(answer.revision);
            digests.insert(answer.digest);
        }
        ensure!(revisions.len() == 1, "the nodes answered for different revisions: {revisions:?}");
        ensure!(digests.len() == 1, "the nodes have {} different digests at revision {wanted}", digests.len());
        Ok((
            (),
            format!("one digest on {} nodes at revision {wanted}, recomputed from each SQLite", self.checkouts.len()),
        ))
    }
}

fn linearizable() -> Read {
    Read { consistency: Consistency::Linearizable, at: None, within: WITHIN }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
