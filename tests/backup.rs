//! A backup of a cluster under load, and a new cluster of it: real processes, checkouts and watchers included.

#[path = "backup/s3.rs"]
mod s3;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, ensure};
use s3::Bucket;
use serde_json::Value;
use zyflow_client::Client;
use zyflow_client::read::{Consistency, Read, TaskFilter};
use zyflow_machine::id::RecordId;
use zyflow_tests::load::Load;
use zyflow_tests::spare::make;
use zyflow_tests::{Harness, Said, WITHIN, binary, check, said, text, until, zyflow};

const CHANGE: &str = "openspec/changes/add-login/tasks.md";

/// The name of the cluster that begins with the backup.
const NEW: &str = "restored";

fn json(said: &Said) -> anyhow::Result<Value> {
    ensure!(said.code == 0, "{said:#?}");
    serde_json::from_str(&said.out).with_context(|| said.out.clone())
}

/// Up to three tasks of the demo's changes, once they are there.
async fn tasks(client: &Client) -> anyhow::Result<Vec<RecordId>> {
    let read = Read { consistency: Consistency::Linearizable, at: None, within: WITHIN };
    loop {
        let found = client.tasks(read, TaskFilter::default()).await?.value.tasks;
        if found.len() > 3 {
            return Ok(found.iter().map(|task| task.block.id).take(3).collect());
        }
        tokio::task::yield_now().await;
    }
}

/// A node of the new cluster. Dropping it kills it.
struct NewNode {
    config: PathBuf,
    data: PathBuf,
    peer: String,
    api: String,
    profile: PathBuf,
    process: Option<Child>,
}

impl Drop for NewNode {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // One that has ended already can't be killed, and is gone all the same.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// The new cluster's certificates and configurations.
struct NewCluster {
    dir: PathBuf,
    old: String,
    old_certs: String,
    old_data: String,
    old_ports: [u16; 3],
}

impl NewCluster {
    fn make(harness: &Harness, nodes: &[u64]) -> anyhow::Result<Self> {
        let dir = harness.folder().join("new");
        std::fs::create_dir(&dir)?;
        let script =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").context("cargo sets it")?).join("../deploy/certificates.sh");
        let mut command = Command::new("sh");
        command.arg(script).arg(dir.join("certs")).args([NEW, "ca", "admin", "dev"]);
        for node in nodes {
            command.args(["node", &node.to_string()]);
        }
        let made = command.output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let layout = harness.cluster.layout();
        let ports = layout.ports(1).context("node 1")?;
        Ok(Self {
            dir,
            old: text(&layout.config(1)),
            old_certs: layout.dir().join("certs").display().to_string(),
            old_data: layout.data(1).display().to_string(),
            old_ports: [ports.peer, ports.api, ports.http],
        })
    }

    /// The configuration of the old node 1, with all that is that node's and that cluster's own replaced.
    fn node(&self, id: u64) -> anyhow::Result<NewNode> {
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let data = self.dir.join(format!("data-{id}"));
        let mut config = self
            .old
            .replace("id = 1\n", &format!("id = {id}\n"))
            .replace("cluster = \"dev\"", &format!("cluster = \"{NEW}\""))
            .replace(&self.old_certs, &self.dir.join("certs").display().to_string())
            .replace("node-1.pem", &format!("node-{id}.pem"))
            .replace("node-1.key", &format!("node-{id}.key"))
            .replace(&self.old_data, &data.display().to_string());
        let mut addresses = Vec::new();
        for (listener, old) in held.into_iter().zip(self.old_ports) {
            let address = listener?.local_addr()?.to_string();
            config = config.replace(&format!("127.0.0.1:{old}"), &address);
            addresses.push(address);
        }
        let [peer, api, _http] = <[String; 3]>::try_from(addresses).ok().context("three ports")?;
        let (path, profile) = (self.dir.join(format!("node-{id}.toml")), self.dir.join(format!("client-{id}.toml")));
        std::fs::write(&path, config)?;
        let certs = "ca = \"certs/ca.pem\"\ncert = \"certs/admin-dev.pem\"\nkey = \"certs/admin-dev.key\"\n";
        std::fs::write(&profile, format!("cluster = \"{NEW}\"\nendpoints = [\"{api}\"]\n{certs}"))?;
        Ok(NewNode { config: path, data, peer, api, profile, process: None })
    }
}

impl NewNode {
    /// Starts the process, and waits until it answers.
    async fn start(&mut self) -> anyhow::Result<()> {
        if !self.data.exists() {
            make(&self.config)?;
        }
        let log = self.config.with_extension("log");
        let said = std::fs::File::create(&log)?;
        let mut command = Command::new(binary("zyflowd")?);
        command.args(["run", "--config"]).arg(&self.config).stdout(said.try_clone()?).stderr(said);
        self.process = Some(command.spawn()?);
        let answers =
            || self.zyflow(&["--timeout", "1s", "status"]).is_ok_and(|said| !said.out.contains("unreachable"));
        until("the node answers", answers).await.with_context(|| text(&log))
    }

    /// Waits until the node leads or follows, and everything can be read.
    async fn serves(&self) -> anyhow::Result<()> {
        let serves = || self.zyflow(&["--timeout", "2s", "task", "list"]).is_ok_and(|said| said.code == 0);
        until("the new cluster serves", serves).await.with_context(|| text(&self.config.with_extension("log")))
    }

    fn zyflow(&self, args: &[&str]) -> anyhow::Result<Said> {
        zyflow(Some(&self.profile), args)
    }

    fn restore(&self, dest: &str, more: &[&str]) -> anyhow::Result<Said> {
        let config = self.config.display().to_string();
        zyflow(None, &[&["-o", "json", "backup", "restore", dest, "--config", &config], more].concat())
    }
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The path of the data key.
fn data_key(harness: &Harness) -> anyhow::Result<String> {
    let config: toml::Table = text(&harness.cluster.layout().config(1)).parse()?;
    let key = config["node"]["key_file"].as_str().context("a key file")?;
    Ok(key.to_owned())
}

fn note(harness: &Harness, task: RecordId, note: &str) -> anyhow::Result<u64> {
    let set = harness.zyflow(&["-o", "json", "task", "set", &task.to_string(), "--note", note])?;
    json(&set)?["revision"].as_u64().context("a revision")
}

/// A base and two segments, each from another node, while writers write.
async fn back_up_under_load(harness: &Harness, dest: &str) -> anyhow::Result<()> {
    let client = harness.cluster.client().clone();
    let load = Load::start(&client, &tasks(&client).await?);
    let mut last = 0;
    for node in 1..=3_u64 {
        let made = harness.zyflow(&["--node", &node.to_string(), "-o", "json", "backup", "create", dest])?;
        let objects = json(&made)?;
        let newest = objects.as_array().and_then(|objects| objects.last()).context("an object")?.clone();
        ensure!(newest["node"] == node && newest["settled"] == true, "{newest}");
        let reached = newest["last"].as_u64().context("a revision")?;
        ensure!(reached > last, "the load goes on, so each has something new: {newest}");
        last = reached;
    }
    let report = load.stop(&client).await?;
    ensure!(report.writes > 0, "nothing was written");
    println!("backed up under {} writes, longest pause of a writer {:?}", report.writes, report.pause);
    Ok(())
}

/// What a restore refuses, and that it leaves everything as it was.
fn refuses(harness: &Harness, dest: &str, node: &NewNode, newest: u64) -> anyhow::Result<()> {
    let refused = |said: &Said, words: &[&str]| {
        check(said, 1, &[&["E-BACKUP"], words].concat());
        assert!(!node.data.join("IDENTITY").exists(), "something was made");
    };
    refused(&node.restore(dest, &["--to", &(newest + 1).to_string()])?, &["newest that can be restored", "revision"]);
    refused(&node.restore(dest, &["--to", "2020-01-01T00:00:00Z"])?, &["holds nothing of 2020", "oldest"]);
    let old = harness.cluster.layout().config(2).display().to_string();
    let same = zyflow(None, &["backup", "restore", dest, "--config", &old])?;
    check(&same, 1, &["E-BACKUP", "another name"]);
    std::fs::create_dir(&node.data)?;
    std::fs::write(node.data.join("mine.txt"), "mine")?;
    refused(&node.restore(dest, &[])?, &["choose an empty folder"]);
    ensure!(text(&node.data.join("mine.txt")) == "mine" && std::fs::read_dir(&node.data)?.count() == 1);
    std::fs::remove_dir_all(&node.data)?;

    let object = Path::new(dest).join("000002.zybackup");
    let good = std::fs::read(&object)?;
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&object, &bad)?;
    let flipped = ["000002.zybackup", "damaged"];
    check(&zyflow(None, &["backup", "verify", dest])?, 1, &[&["E-BACKUP"], &flipped[..]].concat());
    refused(&node.restore(dest, &[])?, &flipped);
    std::fs::write(&object, &good[..good.len() - 1])?;
    refused(&node.restore(dest, &[])?, &["000002.zybackup", "cut short"]);
    std::fs::write(&object, &good)?;
    Ok(())
}

/// A cluster at a moment between two events, and what it says of what came after.
async fn an_older_state_is_restored(
    dest: &str,
    node: &mut NewNode,
    task: RecordId,
    between: u64,
) -> anyhow::Result<()> {
    let restored = json(&node.restore(dest, &["--to", &between.to_string()])?)?;
    ensure!(restored["restored"] == between, "{restored}");
    let begins = restored["revision"].as_u64().context("a revision")?;
    node.start().await?;
    node.serves().await?;
    check(&node.zyflow(&["task", "show", &task.to_string()])?, 0, &["first"]);
    let undone = (between + 1).to_string();
    let named = ["E-REVISION", "was undone", &begins.to_string()];
    check(&node.zyflow(&["task", "list", "--at", &undone])?, 3, &named);
    check(&node.zyflow(&["log", "--from", &(between + 2).to_string(), "--limit", "1"])?, 3, &named);
    check(&node.zyflow(&["log", "--from", &begins.to_string(), "--limit", "1"])?, 0, &["backup-restored"]);
    check(&node.zyflow(&["task", "set", &task.to_string(), "--note", "x", "--expect", &undone])?, 2, &["was undone"]);
    check(&node.zyflow(&["task", "set", &task.to_string(), "--note", "goes on"])?, 0, &[]);
    check(&node.zyflow(&["backup", "create", dest])?, 3, &["E-REVISION", "was undone", "--full"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_backed_up_under_load_and_a_new_one_begins_with_it() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    let dest = harness.folder().join("backup").display().to_string();
    let key = data_key(&harness)?;
    back_up_under_load(&harness, &dest).await?;

    let task = tasks(harness.cluster.client()).await?[0];
    let between = note(&harness, task, "first")?;
    note(&harness, task, "second")?;
    check(&harness.zyflow(&["backup", "create", &dest])?, 0, &["segment"]);
    check(&harness.zyflow(&["-o", "json", "backup", "create", &dest])?, 0, &["[]"]);
    check(&zyflow(None, &["backup", "list", &dest])?, 0, &["base", "000004.zybackup"]);
    check(&zyflow(None, &["backup", "verify", &dest])?, 0, &["base", "000004.zybackup"]);
    let verified = json(&zyflow(None, &["-o", "json", "backup", "verify", &dest, "--key", &key])?)?;
    let newest = verified["newest"].as_u64().context("a revision")?;
    ensure!(verified["cluster"] == "dev" && verified["objects"] == 4, "{verified}");
    let at_newest = newest.to_string();
    let (list, show) =
        (["task", "list", "-o", "json", "--at", &at_newest], ["spec", "show", CHANGE, "--at", &at_newest]);
    let (tasks_then, text_then) = (harness.zyflow(&list)?, harness.zyflow(&show)?);
    ensure!(tasks_then.code == 0 && text_then.code == 0, "{tasks_then:?} {text_then:?}");

    // What is acknowledged after it is in the files of checkouts, and nowhere else.
    let file = harness.file(1, CHANGE);
    std::fs::write(&file, format!("{}- [ ] 9.9 after the last backup\n", text(&file)))?;
    until("the line is everywhere", || text(&harness.file(3, CHANGE)).contains("9.9 after the last backup")).await?;
    let seen = harness.zyflow(&["-o", "jsonl", "log", "--limit", "1"])?;
    let newest_event: Value = serde_json::from_str(seen.out.lines().last().context("an event")?)?;
    let seen = newest_event["revision"].as_u64().context("a revision")?;
    ensure!(seen > newest, "{seen} {newest}");
    let later = text(&file);
    for node in 1..=3 {
        harness.cluster.stop_node(node).await?;
    }

    let new = NewCluster::make(&harness, &[1, 2, 3])?;
    let (mut first, mut second, mut other) = (new.node(1)?, new.node(2)?, new.node(3)?);
    refuses(&harness, &dest, &first, newest)?;
    an_older_state_is_restored(&dest, &mut other, task, between).await?;
    drop(other);

    let restored = json(&first.restore(&dest, &[])?)?;
    let begins = restored["revision"].as_u64().context("a revision")?;
    ensure!(restored["restored"] == newest && begins == newest + 1_000_000, "{restored}");
    check(&first.restore(&dest, &[])?, 1, &["E-BACKUP", "already"]);
    // The machine's checkouts go on with what they remember.
    let old = harness.cluster.layout().data(1);
    copy_folder(&old.join("checkouts"), &first.data.join("checkouts"))?;
    std::fs::copy(old.join("node.key"), first.data.join("node.key"))?;
    first.start().await?;
    first.serves().await?;
    ensure!(first.zyflow(&list)?.out == tasks_then.out && first.zyflow(&show)?.out == text_then.out, "another past");
    check(&first.zyflow(&["log", "--from", &(seen + 1).to_string()])?, 3, &["E-REVISION", &begins.to_string()]);
    let is_back = || first.zyflow(&["spec", "show", CHANGE]).is_ok_and(|said| said.out.contains("9.9 after the last"));
    until("the line that only files had is the cluster's again", is_back).await?;
    ensure!(text(&file) == later, "the file lost something: {}", text(&file));

    // Others join as they join any cluster.
    second.start().await?;
    let add = ["--timeout", "30s", "cluster", "add", "2", &second.peer, "--api", &second.api];
    check(&first.zyflow(&add)?, 0, &["learner"]);
    check(&first.zyflow(&["--timeout", "30s", "cluster", "promote", "2"])?, 0, &["voter"]);
    second.serves().await?;
    check(&second.zyflow(&["verify", "--recompute"])?, 0, &[]);
    ensure!(second.zyflow(&list)?.out == tasks_then.out, "another past on the second");
    check(&second.zyflow(&["task", "list", "--at", &seen.to_string()])?, 3, &["E-REVISION", "was undone"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_in_a_store_is_made_verified_and_restored() -> anyhow::Result<()> {
    let harness = Harness::start(1).await?;
    let bucket = Bucket::default();
    let endpoint = format!("http://{}", bucket.serve().await?);
    let dest = "s3://backups/team/zyflow";
    let zyflow = |args: &[&str]| -> anyhow::Result<Said> {
        let mut command = Command::new(binary("zyflow")?);
        command.arg("--profile").arg(harness.cluster.layout().profile()).args(args);
        command.envs([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "here")]);
        said(&command.env("AWS_ENDPOINT_URL", &endpoint).output()?)
    };
    let run = |args: &[&str]| tokio::task::block_in_place(|| zyflow(args));
    check(&run(&["backup", "create", dest])?, 0, &["base"]);
    let task = tasks(harness.cluster.client()).await?[0];
    note(&harness, task, "later")?;
    check(&run(&["backup", "create", dest])?, 0, &["segment"]);
    let names: Vec<String> = bucket.objects().keys().cloned().collect();
    ensure!(names == ["/backups/team/zyflow/000001.zybackup", "/backups/team/zyflow/000002.zybackup"], "{names:?}");
    check(&run(&["backup", "list", dest])?, 0, &["base", "segment"]);
    check(&run(&["backup", "verify", dest])?, 0, &["segment"]);
    let key = data_key(&harness)?;
    check(&run(&["backup", "verify", dest, "--key", &key])?, 0, &["dev"]);
    let new = NewCluster::make(&harness, &[1])?;
    let node = new.node(1)?;
    let config = node.config.display().to_string();
    check(&run(&["backup", "restore", dest, "--config", &config])?, 0, &["restored"]);

    let damaged = {
        let mut objects = bucket.objects();
        let object = objects.get_mut(&names[1]).context("the segment")?;
        let mut bytes = object.to_vec();
        let end = bytes.len() - 40;
        bytes[end] ^= 4;
        std::mem::replace(object, bytes.into())
    };
    check(&run(&["backup", "verify", dest])?, 1, &["E-BACKUP", "000002.zybackup", "damaged"]);
    check(&run(&["backup", "create", dest])?, 1, &["E-BACKUP", "000002.zybackup", "damaged"]);
    bucket.objects().insert(names[1].clone(), damaged);
    check(&run(&["backup", "verify", dest])?, 0, &[]);
    harness.cluster.stop().await?;
    Ok(())
}

/// A timer that runs on a node which is cut off must not end well for as long as that lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_quorum_says_so_also_where_there_is_nothing_new() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    let dest = harness.folder().join("backup").display().to_string();
    let create = ["--node", "1", "-o", "json", "backup", "create", &dest];
    check(&harness.zyflow(&create)?, 0, &["base"]);
    for node in [2, 3] {
        harness.cluster.stop_node(node).await?;
    }
    // The first takes with it what was committed until then, if there is any; nothing is afterwards.
    check(&harness.zyflow(&create)?, 5, &["E-NO-QUORUM"]);
    check(&harness.zyflow(&create)?, 5, &["[]", "E-NO-QUORUM", "newer changes may be missing"]);
    Ok(())
}
