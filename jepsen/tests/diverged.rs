//! One node's SQLite loses an update, as a bad page or a bug would make it: the row is named, the node stops serving because a majority
//! disagrees with it, the others go on, and its next start makes it whole.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_api::v1::{NodeStatusRequest, VerifyRequest};
use zyflow_client::dev::{DevCluster, DevConfig};
use zyflow_client::read::{Consistency, Read as Question, TaskFilter};
use zyflow_machine::id::RecordId;

/// The node whose SQLite is damaged.
const NODE: u64 = 2;

const WITHIN: Duration = Duration::from_mins(1);

struct Scene {
    cluster: DevCluster,
    zyflow: PathBuf,
    task: RecordId,
}

#[tokio::test]
async fn a_node_that_a_majority_disagrees_with_stops_serving_until_it_is_whole() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let test = std::env::current_exe()?;
    let binaries = test.parent().and_then(Path::parent).context("a test lies in TARGET/PROFILE/deps")?;
    let config = DevConfig { dir: folder.path().join("dev"), nodes: Some(3), zyflowd: Some(binaries.join("zyflowd")) };
    let cluster = DevCluster::start(config).await?;
    let task = any_task(&cluster).await?;
    let mut scene = Scene { cluster, zyflow: binaries.join("zyflow"), task };
    let name = task.to_string();
    scene.done(&["task", "set", &name, "--note", "first"])?;
    scene.done(&["task", "set", &name, "--note", "second"])?;
    scene.done(&["verify", "--recompute"])?;

    scene.cluster.stop_node(NODE).await?;
    lose_an_update(&scene.cluster.layout().data(NODE).join("tables"), task)?;
    scene.cluster.restart(NODE).await?;
    let verified = scene.zyflow(&["verify", "--recompute"])?;
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    ensure!(verified.status.code() == Some(1), "{verified:?}");
    ensure!(said.contains(&format!("node {NODE}")) && said.contains(&format!("{name} (other contents)")), "{said}");

    // From now on the node looks by itself.
    scene.cluster.stop_node(NODE).await?;
    let config = scene.cluster.layout().config(NODE);
    let before = fs::read_to_string(&config)?;
    fs::write(&config, format!("{before}\n[digest]\nrecompute = \"500ms\"\n"))?;
    scene.cluster.restart(NODE).await?;
    let why = scene.until_ready(false).await?;
    ensure!(why.contains("majority") && why.contains("revision"), "{why}");
    let metrics = scene.get("/metrics")?;
    ensure!(metrics.contains("zyflow_digest_alarm 2"), "{metrics}");
    ensure!(fs::read_to_string(scene.cluster.layout().log(NODE))?.contains("differs from a majority's"), "no log line");
    scene.serves_nothing(folder.path())?;
    scene.is_there_to_be_looked_at().await?;
    scene.done(&["task", "set", &name, "--note", "without it"])?;

    scene.cluster.stop_node(NODE).await?;
    scene.cluster.restart(NODE).await?;
    scene.until_ready(true).await?;
    scene.done(&["verify", "--recompute"])?;
    ensure!(scene.get("/metrics")?.contains("zyflow_digest_alarm 0"), "the alarm is over");
    scene.cluster.stop().await?;
    Ok(())
}

async fn any_task(cluster: &DevCluster) -> anyhow::Result<RecordId> {
    let since = Instant::now();
    loop {
        let read = Question { consistency: Consistency::Linearizable, at: None, within: WITHIN };
        let found = cluster.client().tasks(read, TaskFilter::default()).await?.value.tasks;
        if let Some(task) = found.first() {
            return Ok(task.block.id);
        }
        ensure!(since.elapsed() < WITHIN, "the demo has no task");
        tokio::task::yield_now().await;
    }
}

/// Makes the newest version of a record one that never was written.
fn lose_an_update(tables: &Path, id: RecordId) -> anyhow::Result<()> {
    let generation: u64 = fs::read_to_string(tables.join("CURRENT"))?.trim().parse()?;
    let connection = rusqlite::Connection::open(tables.join(format!("tables-{generation:06}.sqlite")))?;
    let lose =
        "UPDATE head SET version = (SELECT previous FROM versions v WHERE v.version = head.version) WHERE id = ?1";
    let changed = connection.execute(lose, [i64::try_from(id.to_u64())?])?;
    ensure!(changed == 1, "{changed} rows were changed");
    Ok(())
}

impl Scene {
    fn zyflow(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.zyflow_as(&self.cluster.layout().profile(), args)
    }

    fn zyflow_as(&self, profile: &Path, args: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(&self.zyflow).arg("--profile").arg(profile).args(args).output()?)
    }

    /// That the node alone, whatever it is asked for, gives nothing of its state away.
    fn serves_nothing(&self, folder: &Path) -> anyhow::Result<()> {
        let alone = self.cluster.layout().profile_of(NODE);
        let backup = folder.join("backup").display().to_string();
        let asked: [&[&str]; 5] = [
            &["--consistency", "local", "task", "list"],
            &["--consistency", "at-least=1", "task", "list"],
            &["--consistency", "local", "sql", "SELECT 1"],
            &["task", "list"],
            &["backup", "create", &backup],
        ];
        for asked in asked {
            let output = self.zyflow_as(&alone, &[&["--timeout", "3s"], asked].concat())?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(5) && said.contains("majority"), "{asked:?}: {output:?}");
        }
        Ok(())
    }

    /// That it says how it is, and compares what it keeps with its SQLite.
    async fn is_there_to_be_looked_at(&self) -> anyhow::Result<()> {
        let client = self.cluster.client();
        let at = usize::try_from(NODE)? - 1;
        let status = |mut admin: AdminClient<_>| async move { admin.node_status(NodeStatusRequest {}).await };
        let status = client.admin(at, WITHIN, status).await?;
        ensure!(
            status.node_id == NODE && status.fatal.as_deref().is_some_and(|reason| reason.contains("majority")),
            "its status"
        );
        for revision in [None, Some(status.applied)] {
            let request = VerifyRequest { revision, recompute: true };
            let verify = |mut admin: AdminClient<_>| async move { admin.verify(request).await };
            let answer = client.admin(at, WITHIN, verify).await?;
            let is_damaged = answer.stored.as_ref().is_some_and(|stored| !stored.matches);
            ensure!(answer.revision >= status.applied && is_damaged, "at {revision:?}: {answer:?}");
        }
        Ok(())
    }

    fn done(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = self.zyflow(args)?;
        ensure!(output.status.success(), "{args:?}: {output:?}");
        Ok(())
    }

    /// What the node's HTTP port says.
    fn get(&self, path: &str) -> anyhow::Result<String> {
        let ports = self.cluster.layout().ports(NODE).context("the node has ports")?;
        let mut stream = TcpStream::connect(("127.0.0.1", ports.http))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    }

    /// Waits until the node says that it is ready, or that it isn't because of its state; gives what it says.
    async fn until_ready(&self, wanted: bool) -> anyhow::Result<String> {
        let since = Instant::now();
        loop {
            let said = self.get("/readyz")?;
            let is_there = if wanted { said.contains("200 OK") } else { said.contains("failed: ") };
            if is_there {
                return Ok(said);
            }
            ensure!(since.elapsed() < WITHIN, "task {}: it says {said}", self.task);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
