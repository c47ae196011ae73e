//! Reads on real processes: answers that are kept, in memory and in a real Redis, are the ones that the tables would give; and the same past has the
//! same answer on every node, also on one whose SQLite was deleted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use zyflow_client::dev::DevCluster;
use zyflow_client::read::{Answer, Consistency, Read, TaskFilter, Tasks};
use zyflow_client::{Client, Profile, Session};
use zyflow_machine::command::{Body, NewBlock, TaskField};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::KIND_TASK;
use zyflow_tests::{Harness, WITHIN, check, zyflow};

/// Tasks of the one change that is read.
const TASKS: usize = 60;

/// A `redis-server` on a free loopback port, without a disk.
struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    fn start() -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let port_text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("redis-server is installed by ./x setup")?;
        Ok(Self { port, child })
    }

    /// The figure after `name` in what the server says of itself.
    fn figure(&self, section: &str, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        let rest = said.split(name).nth(1)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    fn kill(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A metric of a node; 0 where it was never counted.
fn metric(cluster: &DevCluster, node: u64, name: &str) -> anyhow::Result<f64> {
    let port = cluster.layout().ports(node).context("there is such a node")?.http;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let line = page.lines().find(|line| line.starts_with(name));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default())
}

fn answers(level: &str, result: &str) -> String {
    format!("zyflow_cached_answers_total{{level=\"{level}\",result=\"{result}\"}}")
}

/// One client for each node alone.
fn clients(cluster: &DevCluster) -> anyhow::Result<Vec<Client>> {
    let client = |id| Ok(Client::new(&Profile::load(&cluster.layout().profile_of(id))?)?);
    cluster.layout().node_ids().map(client).collect()
}

async fn list(client: &Client, project: RecordId, at: Option<Revision>) -> anyhow::Result<Answer<Tasks>> {
    let read = Read { consistency: Consistency::Linearizable, at, within: WITHIN };
    Ok(client.tasks(read, TaskFilter { project: Some(project), ..TaskFilter::default() }).await?)
}

async fn run(session: &Session, body: Body) -> anyhow::Result<(Revision, Vec<RecordId>)> {
    match session.propose(body, WITHIN).await? {
        Outcome::Accepted { revision, created } => Ok((revision, created)),
        other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
            anyhow::bail!("not accepted: {other:?}")
        }
    }
}

/// A project of one change, and its tasks.
async fn populate(session: &Session) -> anyhow::Result<(RecordId, Vec<RecordId>)> {
    let files = vec!["reads/*.md".to_owned()];
    let project = run(session, Body::CreateProject { name: "reads".to_owned(), files }).await?.1[0];
    let block = |number| NewBlock {
        kind: KIND_TASK,
        lead: "- [".to_owned(),
        mark: " ".to_owned(),
        text: format!("] {number}. Read it\n"),
    };
    let blocks = (0..TASKS).map(block).collect();
    let created =
        run(session, Body::CreateChange { project, path: "reads/a.md".to_owned(), blocks, ops: vec![] }).await?;
    Ok((project, created.1[1..].to_vec()))
}

fn note(task: RecordId, text: &str) -> Body {
    Body::SetTask { task, expected: None, fields: vec![TaskField::Note(text.to_owned())], mark: None }
}

fn notes(tasks: &Tasks) -> Vec<String> {
    let note = |task: &zyflow_client::read::Task| {
        task.block.record.task.as_ref().map(|fields| fields.note.value.clone()).unwrap_or_default()
    };
    tasks.tasks.iter().map(note).collect()
}

async fn with_redis(harness: &mut Harness, redis: &Redis) -> anyhow::Result<()> {
    for id in harness.cluster.layout().node_ids() {
        harness.cluster.stop_node(id).await?;
        let path = harness.cluster.layout().config(id);
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{text}\n[cache]\nredis = \"redis://127.0.0.1:{}\"\n", redis.port))?;
        harness.cluster.restart(id).await?;
    }
    harness.cluster.wait_for_leader().await?;
    Ok(())
}

/// Lists of the past, each at a revision that nobody has asked about, until node 1 has kept one of them in Redis: a machine that is busy
/// may not be quick enough for the first.
async fn kept_in_redis(
    cluster: &DevCluster,
    session: &Session,
    client: &Client,
    (project, task): (RecordId, RecordId),
) -> anyhow::Result<(Revision, Answer<Tasks>)> {
    let kept = || metric(cluster, 1, &answers("shared", "kept"));
    let since = Instant::now();
    loop {
        ensure!(since.elapsed() < WITHIN, "no answer is kept in Redis");
        let (at, _) = run(session, note(task, "to be kept")).await?;
        run(session, note(task, "later")).await?;
        let before = kept()?;
        let listed = list(client, project, Some(at)).await?;
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(1) {
            if kept()? > before {
                return Ok((at, listed));
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The same, until node 2 has found one of them there.
async fn found_in_redis(
    cluster: &DevCluster,
    session: &Session,
    clients: &[Client],
    of: (RecordId, RecordId),
) -> anyhow::Result<(Revision, Answer<Tasks>)> {
    let hits = || metric(cluster, 2, &answers("shared", "hit"));
    let since = Instant::now();
    loop {
        ensure!(since.elapsed() < WITHIN, "node 2 finds nothing of what node 1 has read");
        let (at, listed) = kept_in_redis(cluster, session, &clients[0], of).await?;
        let before = hits()?;
        assert_eq!(list(&clients[1], of.0, Some(at)).await?, listed, "from Redis");
        if hits()? > before {
            return Ok((at, listed));
        }
    }
}

#[tokio::test]
async fn answers_that_are_kept_are_never_stale_and_are_found_across_nodes() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    let mut redis = Redis::start()?;
    with_redis(&mut harness, &redis).await?;
    let session = Session::new(harness.cluster.client().clone(), "tests", 0);
    let (project, tasks) = populate(&session).await?;
    let clients = clients(&harness.cluster)?;
    never_stale(&session, &clients, project, &tasks).await?;
    let cluster = &harness.cluster;
    let (past, first) = found_in_redis(cluster, &session, &clients, (project, tasks[0])).await?;
    ensure!(redis.figure("keyspace", "db0:keys=").is_some_and(|keys| keys >= 1), "Redis itself says so");
    let before = metric(cluster, 2, &answers("memory", "hit"))?;
    assert_eq!(list(&clients[1], project, Some(past)).await?, first, "from memory");
    ensure!(metric(cluster, 2, &answers("memory", "hit"))? > before, "node 2 has it in memory by now");
    redis.kill();
    for (at, task) in tasks.iter().enumerate().take(20) {
        let (revision, _) = run(&session, note(*task, "without Redis")).await?;
        let listed = list(&clients[2], project, Some(revision)).await?;
        assert_eq!(notes(&listed.value)[at], "without Redis");
    }
    ensure!(metric(cluster, 3, "zyflow_shared_cache_is_broken")? > 0.5, "node 3 has given it up for a while");
    harness.cluster.stop().await?;
    Ok(())
}

/// Each write shows in the next list of every node, and in none of the past.
async fn never_stale(
    session: &Session,
    clients: &[Client],
    project: RecordId,
    tasks: &[RecordId],
) -> anyhow::Result<()> {
    let mut expected = notes(&list(&clients[0], project, None).await?.value);
    let mut history = Vec::new();
    for round in 0..40 {
        let at = (round * 7) % tasks.len();
        expected[at] = format!("round {round}");
        let (revision, _) = run(session, note(tasks[at], &expected[at])).await?;
        history.push((revision, expected.clone()));
        for client in clients {
            // Twice: the second answer is one that was kept.
            for _ in 0..2 {
                assert_eq!(notes(&list(client, project, None).await?.value), expected, "in round {round}");
            }
        }
    }
    for (revision, expected) in history.iter().rev() {
        for client in clients {
            assert_eq!(notes(&list(client, project, Some(*revision)).await?.value), *expected, "at {revision}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_same_past_has_the_same_answer_on_every_node_also_after_sqlite_was_deleted() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    let session = Session::new(harness.cluster.client().clone(), "tests", 0);
    let (project, tasks) = populate(&session).await?;
    let mut revisions = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        revisions.push(run(&session, note(*task, &format!("note {at}"))).await?.0);
    }
    let mut all = Vec::new();
    for client in clients(&harness.cluster)? {
        all.push(printed(&client, project, &revisions).await?);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "nodes answer alike");
    let said = said_by_each(&harness, revisions[TASKS / 2])?;
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "to the byte: {said:#?}");
    harness.cluster.stop_node(2).await?;
    let data = harness.cluster.layout().data(2).join("tables");
    ensure!(data.is_dir(), "{} is where SQLite is", data.display());
    std::fs::remove_dir_all(&data)?;
    harness.cluster.restart(2).await?;
    let verified = harness.zyflow(&["verify"])?;
    assert_eq!(verified.code, 0, "all nodes have one digest: {verified:?}");
    let client = Client::new(&Profile::load(&harness.cluster.layout().profile_of(2))?)?;
    assert_eq!(printed(&client, project, &revisions).await?, all[1], "from a SQLite that was built anew");
    assert_eq!(said_by_each(&harness, revisions[TASKS / 2])?, said);
    harness.cluster.stop().await?;
    Ok(())
}

/// What `zyflow --at` prints of the project's tasks, asked of each node alone.
fn said_by_each(harness: &Harness, at: Revision) -> anyhow::Result<Vec<String>> {
    let layout = harness.cluster.layout();
    let ask = |id| {
        let at = at.0.to_string();
        let args = ["-o", "json", "--consistency", "local", "--at", &at, "task", "list", "--project", "reads"];
        let said = zyflow(Some(&layout.profile_of(id)), &args)?;
        check(&said, 0, &["note 0"]);
        Ok(said.out)
    };
    layout.node_ids().map(ask).collect()
}

/// Everything that a node answers about those revisions.
async fn printed(client: &Client, project: RecordId, revisions: &[Revision]) -> anyhow::Result<Vec<String>> {
    let mut printed = Vec::new();
    for revision in revisions {
        printed.push(format!("{:?}", list(client, project, Some(*revision)).await?));
    }
    Ok(printed)
}
