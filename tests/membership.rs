//! Members come and go under load, on real processes: nothing that was acknowledged is lost, and whoever was removed disturbs nobody.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use zyflow_client::read::{Consistency, Read, TaskFilter};
use zyflow_client::{Client, Profile};
use zyflow_machine::id::RecordId;
use zyflow_tests::load::Load;
use zyflow_tests::spare::Spare;
use zyflow_tests::{Harness, Said, WITHIN, check, text, until, zyflow};

/// Writers under load.
const WRITERS: usize = 4;

/// Refused calls of a removed node that are waited for: it has asked everybody several times.
const REFUSED: usize = 9;

/// How often something is looked at again where the voters have held an election of their own: one that stalls for a second causes it, and a
/// busy machine doesn't stall every time.
const LOOKS_MAX: usize = 6;

/// A member as `zyflow cluster status` shows it.
#[derive(Clone, Debug)]
struct Shown {
    node: u64,
    role: String,
    is_leader: bool,
    api: String,
    term: u64,
    lag: Option<u64>,
    version: Option<String>,
}

fn members(profile: &Path) -> anyhow::Result<Vec<Shown>> {
    let said = zyflow(Some(profile), &["-o", "json", "cluster", "status"])?;
    ensure!(said.code == 0, "{said:?}");
    let items: Vec<serde_json::Value> = serde_json::from_str(&said.out).with_context(|| said.out.clone())?;
    let text = |item: &serde_json::Value, key: &str| item[key].as_str().map(str::to_owned);
    Ok(items
        .iter()
        .map(|item| Shown {
            node: item["node"].as_u64().unwrap_or_default(),
            role: text(item, "role").unwrap_or_default(),
            is_leader: item["leader"] == true,
            api: text(item, "api_address").unwrap_or_default(),
            term: item["term"].as_u64().unwrap_or_default(),
            lag: item["lag"].as_u64(),
            version: text(item, "version"),
        })
        .collect())
}

fn with_role(members: &[Shown], role: &str) -> Vec<u64> {
    members.iter().filter(|member| member.role == role).map(|member| member.node).collect()
}

fn leader(members: &[Shown]) -> anyhow::Result<Shown> {
    members.iter().find(|member| member.is_leader).cloned().context("no leader")
}

/// The leader, as soon as there is one.
async fn led(profile: &Path) -> anyhow::Result<Shown> {
    let mut found = None;
    until("a leader", || {
        found = members(profile).and_then(|members| leader(&members)).ok();
        found.is_some()
    })
    .await?;
    found.context("a leader")
}

/// The heir that a node's log names last, after so many bytes.
fn heir(log: &str, after: usize) -> Option<u64> {
    let handed = log.get(after..)?.lines().rfind(|line| line.contains("handed leadership over"))?;
    handed.split("\"heir\":").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The nodes that `zyflow verify` has compared.
fn compared(said: &Said) -> anyhow::Result<Vec<u64>> {
    let items: Vec<serde_json::Value> = serde_json::from_str(&said.out).with_context(|| said.out.clone())?;
    let mut nodes: Vec<u64> = items.iter().filter_map(|item| item["node"].as_u64()).collect();
    nodes.sort_unstable();
    Ok(nodes)
}

/// The first tasks of the demo's changes, once they are there.
async fn tasks(client: &Client) -> anyhow::Result<Vec<RecordId>> {
    let read = Read { consistency: Consistency::Linearizable, at: None, within: WITHIN };
    loop {
        let found = client.tasks(read, TaskFilter::default()).await?.value.tasks;
        if found.len() >= WRITERS {
            return Ok(found.iter().map(|task| task.block.id).take(WRITERS).collect());
        }
        tokio::task::yield_now().await;
    }
}

/// The members of a cluster whose processes all run on after some of them were removed.
struct Stage {
    harness: Harness,
    spares: Vec<Spare>,
    removed: Vec<u64>,
}

impl Stage {
    fn profile(&self) -> PathBuf {
        self.harness.cluster.layout().profile()
    }

    fn members(&self) -> anyhow::Result<Vec<Shown>> {
        members(&self.profile())
    }

    /// Runs `zyflow` on the cluster; it has to succeed.
    fn done(&self, args: &[&str]) -> anyhow::Result<()> {
        let said = self.harness.zyflow(&[&["--timeout", "30s"], args].concat())?;
        ensure!(said.code == 0, "{args:?}: {said:#?}");
        Ok(())
    }

    fn join(&mut self, id: u64) -> anyhow::Result<()> {
        let spare = Spare::start(&self.harness, id)?;
        self.done(&["cluster", "add", &id.to_string(), &spare.peer, "--api", &spare.api])?;
        self.done(&["cluster", "promote", &id.to_string()])?;
        self.spares.push(spare);
        Ok(())
    }

    fn remove(&mut self, id: u64) -> anyhow::Result<()> {
        self.done(&["cluster", "remove", &id.to_string(), "--yes"])?;
        self.removed.push(id);
        Ok(())
    }

    fn log(&self, id: u64) -> String {
        let spare = self.spares.iter().find(|spare| spare.id == id).map(|spare| spare.log.clone());
        text(&spare.unwrap_or_else(|| self.harness.cluster.layout().log(id)))
    }

    /// How often the members have refused calls of removed nodes.
    fn refused(&self, members: &[u64]) -> usize {
        let refusal = |line: &&str| line.contains("refused a call on the peer port") && line.contains("was removed");
        members.iter().map(|id| self.log(*id).lines().filter(refusal).count()).sum()
    }

    /// A profile of the members alone.
    fn write_profile(&self, members: &[Shown]) -> anyhow::Result<PathBuf> {
        let mut profile = Profile::load(&self.profile())?;
        profile.endpoints = members.iter().map(|member| member.api.clone()).filter(|api| !api.is_empty()).collect();
        let path = self.harness.cluster.layout().dir().join("members.toml");
        std::fs::write(&path, toml::to_string(&profile)?)?;
        Ok(path)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_become_five_and_three_others_under_load() -> anyhow::Result<()> {
    let harness = Harness::start(3).await?;
    let client = harness.cluster.client().clone();
    let load = Load::start(&client, &tasks(&client).await?);
    let mut stage = Stage { harness, spares: Vec::new(), removed: Vec::new() };
    stage.join(4)?;
    stage.join(5)?;
    let five = stage.members()?;
    ensure!(with_role(&five, "voter") == [1, 2, 3, 4, 5], "{five:?}");
    ensure!(five.iter().all(|member| member.version.is_some() && member.lag.is_some()), "{five:?}");

    // The leader, while it leads, and then one of the others that were there from the beginning.
    let first = leader(&five)?.node;
    stage.remove(first)?;
    let now = leader(&stage.members()?)?.node;
    let second = [3, 2, 1].into_iter().find(|id| *id != first && *id != now).context("a voter to remove")?;
    // It is down meanwhile, so that to itself it is a voter when it comes back.
    stage.harness.cluster.kill(second).await?;
    stage.remove(second)?;
    stage.harness.cluster.restart(second).await?;
    let three = stage.members()?;
    let voters = with_role(&three, "voter");
    ensure!(voters.len() == 3 && with_role(&three, "removed").len() == 2, "{three:?}");
    ensure!(leader(&three)?.node != first, "{three:?}");

    // Their processes run on: one misses its leader, the other was demoted first and learns of it from what it is asked.
    let mut elections = Vec::new();
    loop {
        let before = led(&stage.profile()).await?;
        let refused = stage.refused(&voters);
        until("the removed node to ask for votes", || stage.refused(&voters) >= refused + REFUSED).await?;
        let after = led(&stage.profile()).await?;
        ensure!(voters.contains(&before.node) && voters.contains(&after.node), "{before:?} became {after:?}");
        if (after.node, after.term) == (before.node, before.term) {
            break;
        }
        elections.push(format!("{before:?} became {after:?}"));
        ensure!(elections.len() < LOOKS_MAX, "whenever a removed node asks there is an election: {elections:#?}");
    }
    let of_first = stage.harness.cluster.layout().profile_of(first);
    check(&zyflow(Some(&of_first), &["--timeout", "3s", "task", "list"])?, 5, &["removed"]);
    for id in stage.removed.clone() {
        ensure!(stage.log(id).contains("this node was removed from the cluster"), "node {id} doesn't know it");
    }
    let again = stage.harness.zyflow(&["cluster", "add", &first.to_string(), "127.0.0.1:1"])?;
    check(&again, 4, &["never used again", "6"]);

    let profile = stage.write_profile(&three)?;
    let report = load.stop(&Client::new(&Profile::load(&profile)?)?).await?;
    ensure!(report.writes > 0, "nothing was written");
    println!("3 to 5 to 3 voters: {} writes, longest pause {:?}", report.writes, report.pause);
    let verified = zyflow(Some(&profile), &["verify", "--recompute"])?;
    check(&verified, 0, &[]);
    // Two of the three came later, and whoever asks knows one of them.
    let one: Vec<Shown> = three.iter().filter(|member| member.role == "voter").take(1).cloned().collect();
    let verified = zyflow(Some(&stage.write_profile(&one)?), &["-o", "json", "verify"])?;
    check(&verified, 0, &[]);
    ensure!(compared(&verified)? == voters, "{voters:?} are members: {verified:#?}");
    stage.harness.cluster.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_and_no_write_fails() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    let client = harness.cluster.client().clone();
    let load = Load::start(&client, &tasks(&client).await?);
    let profile = harness.cluster.layout().profile();
    let mut elections = Vec::new();
    let (before, after) = loop {
        let before = led(&profile).await?;
        let log = harness.cluster.layout().log(before.node);
        let said = text(&log).len();
        harness.cluster.stop_node(before.node).await?;
        let after = led(&profile).await?;
        let heir = heir(&text(&log), said);
        // One election, and one that nobody had to wait for: the heir was asked to hold it.
        if heir == Some(after.node) && after.node != before.node && after.term == before.term + 1 {
            break (before, after);
        }
        elections.push(format!("{before:?} told {heir:?}, and became {after:?}"));
        ensure!(elections.len() < LOOKS_MAX, "no leader hands over: {elections:#?}");
        harness.cluster.restart(before.node).await?;
    };
    let report = load.stop(&client).await?;
    println!("the leader was told to stop: {} writes, longest pause {:?}", report.writes, report.pause);

    let profile = harness.cluster.layout().profile();
    let mut one = Profile::load(&profile)?;
    one.endpoints = vec![after.api.clone()];
    let path = harness.folder().join("one.toml");
    std::fs::write(&path, toml::to_string(&one)?)?;
    check(&zyflow(Some(&path), &["verify"])?, 5, &["could not be compared", &before.api]);
    let refused = zyflow(Some(&profile), &["cluster", "promote", "9"])?;
    check(&refused, 3, &["node 9"]);
    let refused = zyflow(Some(&profile), &["cluster", "remove", "2"])?;
    check(&refused, 2, &["--yes"]);
    harness.cluster.stop().await?;
    Ok(())
}
