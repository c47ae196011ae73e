//! A new machine becomes a member with a token, on real processes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;
use zyflow_tests::spare::{Spare, free_addresses};
use zyflow_tests::{Harness, Said, check, text, until, zyflow};

/// A machine that isn't a node yet.
struct Machine {
    dir: PathBuf,
    peer: String,
    api: String,
    http: String,
}

impl Machine {
    fn new(harness: &Harness, name: &str) -> anyhow::Result<Self> {
        let [peer, api, http] = free_addresses()?;
        Ok(Self { dir: harness.folder().join(name), peer, api, http })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn join(&self, token: &str, more: &[&str]) -> anyhow::Result<Said> {
        let dir = self.dir.to_str().context("a UTF-8 path")?;
        let own = ["-o", "json", "cluster", "join", token, "--dir", dir];
        let addresses = ["--peer", &self.peer, "--api", &self.api, "--http", &self.http];
        zyflow(None, &[&own[..], &addresses, more].concat())
    }

    fn start(&self, id: u64) -> anyhow::Result<Spare> {
        Spare::run(id, (self.peer.clone(), self.api.clone()), &self.file("zyflowd.toml"), self.file("log"))
    }
}

/// A cluster whose node 1 has the CA's key.
async fn cluster() -> anyhow::Result<Harness> {
    let mut harness = Harness::start(3).await?;
    let refused = harness.zyflow(&["cluster", "token"])?;
    check(&refused, 1, &["E-PRECONDITION", "[join]"]);
    let layout = harness.cluster.layout();
    let [listen] = free_addresses()?;
    let ca_key = layout.dir().join("certs/ca.key");
    let section =
        format!("\n[join]\nlisten = \"{listen}\"\nadvertise = \"{listen}\"\nca_key = \"{}\"\n", ca_key.display());
    std::fs::File::options().append(true).open(layout.config(1))?.write_all(section.as_bytes())?;
    harness.cluster.stop_node(1).await?;
    harness.cluster.restart(1).await?;
    harness.cluster.wait_for_leader().await?;
    Ok(harness)
}

fn token(harness: &Harness, more: &[&str]) -> anyhow::Result<(String, u64)> {
    let said = harness.zyflow(&[&["-o", "json", "cluster", "token"], more].concat())?;
    check(&said, 0, &["zyj1_", "expires"]);
    let made: Value = serde_json::from_str(&said.out)?;
    Ok((made["token"].as_str().context("a token")?.to_owned(), made["node"].as_u64().context("an id")?))
}

fn tasks(profile: &Path) -> anyhow::Result<Said> {
    zyflow(Some(profile), &["-o", "json", "--consistency", "linearizable", "task", "list"])
}

/// A folder that holds another node's files, and no profile.
fn foreign_files_stay(harness: &Harness, token: &str) -> anyhow::Result<()> {
    let machine = Machine::new(harness, "foreign")?;
    std::fs::create_dir(&machine.dir)?;
    let names = ["node.key", "node.pem", "ca.pem", "data.key"];
    for name in names {
        std::fs::write(machine.file(name), name)?;
    }
    check(&machine.join(token, &["--prepare"])?, 1, &["E-FILE", "isn't empty"]);
    assert!(names.iter().all(|name| text(&machine.file(name)) == *name));
    assert_eq!(std::fs::read_dir(&machine.dir)?.count(), names.len());
    Ok(())
}

/// All that changes who takes part, asked by somebody who is no administrator.
fn changes_are_refused(profile: &Path) -> anyhow::Result<()> {
    let asked: [&[&str]; 7] = [
        &["cluster", "promote", "4"],
        &["cluster", "demote", "2"],
        &["cluster", "remove", "2"],
        &["cluster", "add", "9", "127.0.0.1:9"],
        &["cluster", "address", "2", "127.0.0.1:9"],
        &["cluster", "transfer", "2"],
        &["--node", "1", "cluster", "init", "--member", "9=127.0.0.1:9"],
    ];
    for asked in asked {
        check(&zyflow(Some(profile), &[&["--yes"], asked].concat())?, 6, &["E-DENIED", "administrator", "learner/4"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_machine_joins_with_a_token_and_nobody_else_does() -> anyhow::Result<()> {
    let harness = cluster().await?;
    let (token, id) = token(&harness, &[])?;
    assert_eq!(id, 4, "the first that nobody has");
    let machine = Machine::new(&harness, "four")?;
    let (head, tail) = token.split_at(20);
    let wrong = format!("{head}{}{}", if tail.starts_with('0') { '1' } else { '0' }, &tail[1..]);
    check(&machine.join(&wrong, &[])?, 2, &["E-USAGE", "copy all of it"]);

    let prepared = machine.join(&token, &["--prepare"])?;
    check(&prepared, 0, &["prepared", "zyflowd run --config"]);
    for secret in ["node.key", "data.key"] {
        let mode = std::fs::metadata(machine.file(secret))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert_eq!(std::fs::metadata(&machine.dir)?.permissions().mode() & 0o777, 0o700);
    let other = Machine::new(&harness, "other")?;
    check(&other.join(&token, &[])?, 6, &["E-DENIED", "used already", "cluster remove 4"]);
    let silent = machine.join(&token, &["--wait", "1s"])?;
    check(&silent, 5, &["ready; now start the node", "doesn't answer", "repeat this command"]);

    let node = machine.start(id)?;
    let joined = machine.join(&token, &["--wait", "30s"])?;
    check(&joined, 0, &["learner"]);
    check(&machine.join(&token, &[])?, 0, &["learner"]);
    let own = node.profile(&harness)?;
    let of_cluster = tasks(&harness.cluster.layout().profile())?;
    check(&of_cluster, 0, &["title"]);
    assert_eq!(tasks(&own)?.out, of_cluster.out);
    check(&harness.zyflow(&["verify"])?, 0, &[]);

    // Who has a learner's certificate can neither vote nor let others in, nor say who takes part.
    check(&harness.zyflow(&["cluster", "promote", "4"])?, 1, &["E-PRECONDITION", "learner's certificate"]);
    check(&zyflow(Some(&machine.file("client.toml")), &["--node", "1", "cluster", "token"])?, 6, &["E-DENIED"]);
    changes_are_refused(&machine.file("client.toml"))?;
    let members = harness.zyflow(&["cluster", "status"])?;
    assert_eq!((members.out.matches("voter").count(), members.out.matches("learner").count()), (3, 1), "{members:#?}");
    assert!(!text(&node.log).contains(&token), "the token is in a log");
    harness.cluster.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_voters_token_makes_a_node_that_can_be_promoted_and_an_old_one_nothing() -> anyhow::Result<()> {
    let harness = cluster().await?;
    let (late, _) = token(&harness, &["--ttl", "1ms"])?;
    let machine = Machine::new(&harness, "late")?;
    check(&machine.join(&late, &[])?, 6, &["E-DENIED", "expired", "zyflow cluster token"]);

    let (token, id) = token(&harness, &["--role", "voter"])?;
    let learner = Machine::new(&harness, "learner")?;
    check(&learner.join(&self::token(&harness, &[])?.0, &["--prepare"])?, 0, &[]);
    check(&learner.join(&token, &["--prepare"])?, 2, &["E-CERTIFICATE", "folder of its own"]);
    foreign_files_stay(&harness, &token)?;
    let machine = Machine::new(&harness, "voter")?;
    check(&machine.join(&token, &["--prepare"])?, 0, &[]);
    let _node = machine.start(id)?;
    check(&machine.join(&token, &["--wait", "30s"])?, 0, &[]);
    check(&harness.zyflow(&["--timeout", "30s", "cluster", "promote", &id.to_string()])?, 0, &["voter"]);
    until("four voters", || {
        harness.zyflow(&["cluster", "status"]).is_ok_and(|said| said.out.matches("voter").count() == 4)
    })
    .await?;
    let of_node = machine.file("client.toml");
    check(&tasks(&of_node)?, 0, &["title"]);
    check(&harness.zyflow(&["--yes", "--timeout", "30s", "cluster", "remove", &id.to_string()])?, 0, &["removed"]);
    until("the removed node's certificate to open nothing", || tasks(&of_node).is_ok_and(|said| said.code == 5))
        .await?;
    let (_, next) = self::token(&harness, &[])?;
    assert_eq!(next, id + 2, "an id is never used again, and another token has the one after it");
    harness.cluster.stop().await?;
    Ok(())
}
