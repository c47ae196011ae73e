//! Real folders, real inotify, a cluster in memory. Nothing sleeps for luck: every wait is for a condition, with a deadline.

mod editors;
mod faults;
mod files;
mod git;
mod half;
mod hazards;
mod limits;
mod many;
mod offline;
mod restore;
mod rollback;
mod sync;

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use fs_err as fs;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zyflow_machine::command::{Body, EditMode};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_spec::{diff, parse};

use super::*;
use crate::config::{Timing, WritePolicy};
use crate::status::FileState;
use crate::testing::{Ledger, Node, TestSeal, cluster};
use crate::text::{block_op, new_block};
use crate::write::Way;

/// Longest wait for anything: far more than a loaded machine needs.
const DEADLINE: Duration = Duration::from_secs(20);
const PATH: &str = "openspec/changes/add-x/tasks.md";

/// A checkout's folders; survives the run of an engine.
struct Bench {
    dir: TempDir,
    node: Arc<Node>,
    policy: WritePolicy,
    take: Option<Take>,
    timing: Timing,
    seams: Seams,
}

struct Running {
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Bench {
    fn new(node: &Arc<Node>) -> Self {
        Self::new_in(node, &std::env::temp_dir())
    }

    fn new_in(node: &Arc<Node>, place: &Path) -> Self {
        let dir = TempDir::new_in(place).unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        let timing = Timing {
            quiet: Duration::from_millis(20),
            quiet_cap: Duration::from_millis(200),
            emptied_hold: Duration::from_millis(300),
            deletion_grace: Duration::from_millis(100),
            keep: Duration::from_millis(500),
            git_hold: Duration::from_secs(10),
            retry: Duration::from_millis(20),
            poll: Duration::from_millis(30),
            ..Timing::default()
        };
        Self { dir, node: node.clone(), policy: WritePolicy::Clean, take: None, timing, seams: Seams::default() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.root().join(PATH)
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        self.write_at(PATH, text);
    }

    fn write_at(&self, path: &str, text: impl AsRef<[u8]>) {
        let file = self.root().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self) -> String {
        self.read_at(PATH)
    }

    fn read_at(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_default()
    }

    fn start(&self) -> Running {
        self.start_at(self.root())
    }

    fn start_at(&self, root: PathBuf) -> Running {
        let config = Config {
            root,
            project: "p".to_owned(),
            lineage: "lineage".to_owned(),
            state_dir: self.state(),
            seal: Arc::new(TestSeal),
            author: "tester".to_owned(),
            convention: None,
            policy: self.policy,
            take: self.take,
            timing: self.timing,
        };
        let (mut checkout, handle) = Checkout::new(config, self.node.clone());
        checkout.seams = self.seams.clone();
        let stop = CancellationToken::new();
        let task = tokio::spawn(checkout.run(stop.clone()));
        Running { handle, stop, task }
    }

    /// The file holds exactly `text`.
    async fn holds(&self, text: &str) {
        let what = || format!("the file holds\n{text}\nbut it holds\n{}", self.read());
        until(what, || self.read() == text).await;
    }

    fn git(&self, args: &[&str]) -> String {
        git_in(&self.root(), args).unwrap()
    }

    /// Commits all that there is.
    fn commit(&self, message: &str) {
        self.git(&["add", "."]);
        self.git(&["commit", "-qm", message]);
    }

    /// Makes the folder a repository with one commit of what is in it.
    fn init(&self) {
        self.git(&["init", "-q"]);
        self.commit("one");
    }
}

/// What git prints; its complaint where it fails.
fn git_in(folder: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder);
    for setting in
        ["user.name=t", "user.email=t@t", "init.defaultBranch=main", "commit.gpgsign=false", "core.editor=true"]
    {
        command.args(["-c", setting]);
    }
    let output = command.args(args).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("git {args:?}: {}{}", text(&output.stdout), text(&output.stderr)))
    }
}

impl Running {
    fn state_of(&self, path: &str) -> Option<FileState> {
        self.handle.status().files.into_iter().find(|file| file.path == path).map(|file| file.state)
    }

    async fn is(&self, path: &str, state: FileState) {
        until(
            || format!("{path} is {state:?}; the status is {:#?}", self.handle.status()),
            || self.state_of(path).as_ref() == Some(&state),
        )
        .await;
    }

    async fn synced(&self) {
        self.is(PATH, FileState::Synced).await;
    }

    async fn says(&self, path: &str, part: &str) {
        until(
            || format!("{path} says {part:?}; the status is {:#?}", self.handle.status()),
            || self.state_of(path).is_some_and(|state| format!("{state:?}").contains(part)),
        )
        .await;
    }

    async fn paused(&self, part: &str) {
        until(
            || format!("paused for {part:?}; the status is {:#?}", self.handle.status()),
            || self.handle.status().paused.is_some_and(|reason| reason.contains(part)),
        )
        .await;
    }

    /// Everything has been looked at after this call.
    async fn looked_at(&self) {
        let number = self.handle.rescan();
        until(|| "a rescan is done".to_owned(), || self.handle.status().rescans >= number).await;
    }

    /// The loop has gone round at least once after this call, though the gate is closed for `reason`.
    async fn has_turned(&self, reason: &str) {
        self.handle.pause();
        self.paused("by request").await;
        self.handle.resume();
        self.paused(reason).await;
    }

    async fn goes_on(&self) {
        until(|| format!("it goes on; {:?}", self.handle.status().paused), || self.handle.status().paused.is_none())
            .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Waits until something holds.
async fn until(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let start = StdInstant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in {DEADLINE:?}: {}", what());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn created(outcome: &Outcome) -> Vec<RecordId> {
    match outcome {
        Outcome::Accepted { created, .. } => created.clone(),
        other => panic!("not accepted: {other:?}"),
    }
}

/// One node with the project `p`.
fn one() -> Arc<Node> {
    let node = cluster(1).remove(0);
    make_project(&node);
    node
}

fn make_project(node: &Node) -> RecordId {
    let files = vec!["openspec/changes/*/tasks.md".to_owned(), "tasks.md".to_owned()];
    created(&node.act(Body::CreateProject { name: "p".to_owned(), files }))[0]
}

fn project_of(node: &Node) -> RecordId {
    use crate::cluster::Cluster as _;
    node.project("p").unwrap().unwrap().0
}

/// The live change at a path.
fn change_at(node: &Node, path: &str) -> Option<RecordId> {
    let project = project_of(node);
    let ledger = node.ledger();
    let paths = ledger.paths(project, ledger.revision());
    paths.into_iter().find(|(at, _, is_deleted)| at == path && !is_deleted).map(|(_, change, _)| change)
}

/// The cluster's text at a path; empty = there is none.
fn cluster_text_at(node: &Node, path: &str) -> String {
    let Some(change) = change_at(node, path) else { return String::new() };
    text_of(&node.ledger(), change)
}

fn text_of(ledger: &Ledger, change: RecordId) -> String {
    let document = ledger.document(change, ledger.revision()).unwrap();
    document.blocks.iter().map(|known| known.block.print()).collect()
}

fn cluster_text(node: &Node) -> String {
    cluster_text_at(node, PATH)
}

async fn cluster_holds(node: &Node, text: &str) {
    until(|| format!("the cluster holds\n{text}\nbut it holds\n{}", cluster_text(node)), || cluster_text(node) == text)
        .await;
}

fn create(node: &Node, path: &str, text: &str) -> RecordId {
    let blocks = parse(text).blocks.iter().map(new_block).collect();
    let body = Body::CreateChange { project: project_of(node), path: path.to_owned(), blocks, ops: Vec::new() };
    created(&node.act(body))[0]
}

/// Somebody else makes the cluster's text be `text`.
fn set(node: &Node, text: &str) {
    let change = change_at(node, PATH).unwrap();
    set_in(&mut node.ledger(), change, text);
    node.catch_up();
}

fn set_in(ledger: &mut Ledger, change: RecordId, text: &str) {
    let base: Revision = ledger.revision();
    let document = ledger.document(change, base).unwrap();
    let ops = diff(&document.blocks, &parse(text)).into_iter().map(block_op).collect();
    let body = Body::Edit { change, base, mode: EditMode::Merge, ops, conflicts: Vec::new() };
    created(&ledger.apply(None, body, "somebody"));
}

const TWO: &str = "## Plan\n\n- [ ] 1.1 write the log\n- [ ] 1.2 read it back\n";
const TWO_TICKED: &str = "## Plan\n\n- [x] 1.1 write the log\n- [ ] 1.2 read it back\n";
const THREE: &str = "## Plan\n\n- [ ] 1.1 write the log\n- [ ] 1.2 read it back\n- [ ] 1.3 cut the power\n";
const THREE_TICKED: &str = "## Plan\n\n- [x] 1.1 write the log\n- [ ] 1.2 read it back\n- [ ] 1.3 cut the power\n";

/// A bench whose file, cluster and HEAD agree on [`TWO`], running.
async fn committed(node: &Arc<Node>, policy: WritePolicy) -> (Bench, Running) {
    let mut bench = Bench::new(node);
    bench.policy = policy;
    bench.write(TWO);
    bench.init();
    let running = bench.start();
    running.synced().await;
    (bench, running)
}

/// A bench whose file and cluster agree on [`TWO`], running.
async fn agreed(node: &Arc<Node>) -> (Bench, Running) {
    let bench = Bench::new(node);
    bench.write(TWO);
    let running = bench.start();
    running.synced().await;
    (bench, running)
}

/// Runs a test of one checkout whose file and cluster agree on [`TWO`].
fn scene(test: impl AsyncFnOnce(&Arc<Node>, &Bench, &Running)) {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        test(&node, &bench, &running).await;
        running.stop().await;
    });
}

/// Says on the terminal, past the capture of output, that a test did nothing.
fn skipped(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {test}: {reason}\n").as_bytes()).unwrap();
}

/// Set in the process that [`is_inside`] starts.
const INSIDE: &str = "ZYFLOW_CHECKOUT_INSIDE";

/// Whether this process is the one in which the test is to happen. If not, that one is started by `prefix`, and its result is this
/// one's; where it can't be started, the test is skipped.
fn is_inside(test: &str, prefix: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let command = |program: &std::ffi::OsStr| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).arg(program).env(INSIDE, "1");
        command
    };
    match command("true".as_ref()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            skipped(test, String::from_utf8_lossy(&output.stderr).trim());
            return false;
        }
        Err(error) => {
            skipped(test, &format!("{}: {error}", prefix[0]));
            return false;
        }
    }
    let exe = std::env::current_exe().unwrap();
    let output = command(exe.as_os_str()).args(["--exact", test, "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}
