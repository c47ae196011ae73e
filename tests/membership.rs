//! Members come and go under load, on real processes: nothing that was acknowledged is lost, and whoever was removed disturbs nobody.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use zyflow_client::read::{Consistency, Read, TaskFilter};
use zyflow_client::{Client, Profile};
use zyflow_machine::id::RecordId;
use zyflow_tests::load::Load;
use zyflow_tests::spare::Spare;
use zyflow_tests::{Harness, WITHIN, check, text, until, zyflow};

/// Writers under load.
const WRITERS: usize = 4;

/// Refused calls of a removed node that are waited for: it has asked everybody several times.
const REFUSED: usize = 9;

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

fn members(profile: &std::path::Path) -> anyhow::Result<Vec<Shown>> {
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
    let before = leader(&three)?;
    let refused = stage.refused(&voters);
    until("the removed node to ask for votes", || stage.refused(&voters) >= refused + REFUSED).await?;
    let of_first = stage.harness.cluster.layout().profile_of(first);
    check(&zyflow(Some(&of_first), &["--timeout", "3s", "task", "list"])?, 5, &["removed"]);
    let after = leader(&stage.members()?)?;
    ensure!((after.node, after.term) == (before.node, before.term), "{before:?} became {after:?}");
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
    stage.harness.cluster.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_and_no_write_fails() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    let client = harness.cluster.client().clone();
    let load = Load::start(&client, &tasks(&client).await?);
    let profile = harness.cluster.layout().profile();
    let before = leader(&members(&profile)?)?;
    harness.cluster.stop_node(before.node).await?;
    let after = leader(&members(&profile)?)?;
    // One election, and one that nobody had to wait for: the heir was asked to hold it.
    ensure!(after.node != before.node && after.term == before.term + 1, "{before:?} became {after:?}");
    let said = text(&harness.cluster.layout().log(before.node));
    let handed = said.lines().find(|line| line.contains("handed leadership over")).context("it handed over")?;
    ensure!(handed.contains(&format!("\"heir\":{}", after.node)), "{handed}");
    let report = load.stop(&client).await?;
    println!("the leader was told to stop: {} writes, longest pause {:?}", report.writes, report.pause);

    let profile = harness.cluster.layout().profile();
    let refused = zyflow(Some(&profile), &["cluster", "promote", "9"])?;
    check(&refused, 3, &["node 9"]);
    let refused = zyflow(Some(&profile), &["cluster", "remove", "2"])?;
    check(&refused, 2, &["--yes"]);
    harness.cluster.stop().await?;
    Ok(())
}
