//! One run: a cluster, its clients and its faults from one seed, looked at after every step.
//!
//! ```text
//!   start | elect | faults, clients write and read ............ | heal, converge, some writes more | settle, compare
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;
use zyflow_machine::Digest;
use zyflow_raft::NodeId;

use crate::Plant;
use crate::chaos::Chaos;
use crate::client::{Client, Ledger};
use crate::facts::{Disks, Facts, Violation};
use crate::log::Disk;
use crate::net::host_of;
use crate::node::{Machine, lines};

/// How far simulated time moves at once.
const TICK: Duration = Duration::from_millis(5);
/// Faults begin.
const CHAOS_BEGINS: Duration = Duration::from_secs(3);
/// Faults end.
const CHAOS_ENDS: Duration = Duration::from_secs(40);
/// After the faults, how long it may take until every client has written again, and then until all nodes are equal.
const CONVERGENCE_MAX: Duration = Duration::from_secs(15);
const CLIENTS: u32 = 4;

/// What a run was like.
pub struct Report {
    pub violation: Option<Violation>,
    pub summary: String,
    pub trace: String,
}

/// What a run consists of.
struct Run {
    machines: Vec<Arc<Machine>>,
    ledger: Arc<Ledger>,
    facts: Arc<Facts>,
    plant: Option<Plant>,
}

/// Runs `seed` in a folder of its own. Once in a process: the random numbers of everything in it come from the seed.
pub fn run(seed: u64, plant: Option<Plant>) -> anyhow::Result<Report> {
    // First of all: hash maps take their keys from what comes first on a thread.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    // Names that are drawn are the same wherever this seed runs.
    let dir = tempfile::Builder::new().prefix(&format!("sim-{}-", std::process::id())).tempdir()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let nodes: u64 = if rng.random_range(0..4) == 0 { 5 } else { 3 };
    let latency_max = Duration::from_millis(rng.random_range(2..=40));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(latency_max)
        .simulation_duration(CHAOS_ENDS + 4 * CONVERGENCE_MAX)
        .tcp_capacity(4096)
        .build();
    let facts = Arc::new(Facts::new());
    facts.note(&format!("seed {seed}: {nodes} nodes, messages take up to {latency_max:?}"));
    let machines = (1..=nodes).map(|id| {
        let folder = dir.path().join(host_of(id));
        std::fs::create_dir(&folder)?;
        let disk = Disk::new(rng.random(), plant);
        Ok(Arc::new(Machine::new(id, (1..=nodes).collect(), folder, disk, plant, Arc::clone(&facts))))
    });
    let machines = machines.collect::<anyhow::Result<Vec<_>>>()?;
    for machine in &machines {
        let machine = Arc::clone(machine);
        sim.host(host_of(machine.id), move || Arc::clone(&machine).run());
    }
    let ledger = Arc::new(Ledger::default());
    for number in 1..=CLIENTS {
        let client = Client::new(number, rng.random(), machines.clone(), Arc::clone(&ledger), Arc::clone(&facts));
        sim.client(format!("client-{number}"), client.run());
    }
    let mut chaos = Chaos::new(rng.random(), machines.clone(), Arc::clone(&facts), CHAOS_BEGINS, latency_max);
    let run = Run { machines, ledger, facts, plant };
    run.go(&mut sim, &mut chaos);
    Ok(run.report(sim.elapsed()))
}

impl Run {
    /// Until the end or the first violation.
    fn go(&self, sim: &mut Sim<'_>, chaos: &mut Chaos) {
        while sim.elapsed() < CHAOS_ENDS && self.step(sim).is_some() {
            if sim.elapsed() >= CHAOS_BEGINS {
                chaos.step(sim, sim.elapsed());
            }
        }
        self.facts.note("all faults are healed");
        chaos.heal(sim);
        self.ledger.book().is_healed = true;
        self.until(sim, "after the faults writes go on", |has_finished, _| has_finished);
        let is_settled = |_, run: &Self| {
            let digests: Vec<_> = run.digests().collect();
            let is_durable = |revision| run.machines.iter().all(|machine| machine.disk.durable() >= Some(revision));
            digests.len() == run.machines.len()
                && digests.windows(2).all(|pair| pair[0] == pair[1])
                && digests.first().is_some_and(|(revision, _)| is_durable(*revision))
        };
        self.until(sim, "after the faults all nodes become equal", is_settled);
        if self.facts.violation().is_none() {
            self.check_end();
        }
    }

    /// One step, looked at; gives whether the clients have finished, or nothing after a violation.
    fn step(&self, sim: &mut Sim<'_>) -> Option<bool> {
        if self.facts.violation().is_some() {
            return None;
        }
        self.facts.set_time(sim.elapsed());
        let has_finished = match sim.step() {
            Ok(has_finished) => has_finished,
            Err(error) => {
                self.facts.fail("the simulation goes on", error.to_string());
                return None;
            }
        };
        let disks = Disks {
            of: self.machines.iter().map(|machine| (machine.id, machine.disk.as_ref())).collect(),
            are_audited: self.plant != Some(Plant::AckBeforeDurable),
        };
        for machine in &self.machines {
            if let Some(running) = machine.running() {
                let digest = || {
                    let (revision, digest) =
                        running.tables.digest().expect("the tables of a running node have a digest");
                    (revision.0, digest)
                };
                self.facts.look(machine.id, &running.consensus.status(), digest, &disks);
            }
        }
        Some(has_finished)
    }

    fn until(&self, sim: &mut Sim<'_>, claim: &'static str, reached: impl Fn(bool, &Self) -> bool) {
        let deadline = sim.elapsed() + CONVERGENCE_MAX;
        while let Some(has_finished) = self.step(sim) {
            if reached(has_finished, self) {
                return;
            }
            if sim.elapsed() > deadline {
                let statuses: BTreeMap<NodeId, _> = self
                    .machines
                    .iter()
                    .map(|machine| (machine.id, machine.running().map(|running| running.consensus.status())))
                    .collect();
                self.facts.fail(claim, format!("not within {CONVERGENCE_MAX:?}: {statuses:#?}"));
            }
        }
    }

    fn digests(&self) -> impl Iterator<Item = (u64, Digest)> {
        self.machines.iter().filter_map(|machine| machine.running()).map(|running| {
            let (revision, digest) = running.tables.digest().expect("the tables of a running node have a digest");
            (revision.0, digest)
        })
    }

    /// What every node holds at the end, in memory and in SQLite.
    fn check_end(&self) {
        let change = self.ledger.book().change.expect("invariant: the clients have finished");
        for machine in &self.machines {
            let running = machine.running().expect("invariant: all nodes are equal, so all run");
            self.ledger.check_all(&lines(&running.tables, change), &self.facts);
            machine.flush(&running);
            let recomputed = running.tables.recompute_digest().expect("SQLite can be read");
            let kept = running.tables.digest().expect("the tables of a running node have a digest");
            if kept != recomputed {
                self.facts
                    .fail("SQLite holds what was applied", format!("node {}: {kept:?}, {recomputed:?}", machine.id));
            }
        }
    }

    fn report(&self, elapsed: Duration) -> Report {
        let book = self.ledger.book();
        let summary = format!(
            "{} nodes, {:.0} simulated seconds, {} writes acknowledged, {} retries, {} reads, {} entries, {} leaders",
            self.machines.len(),
            elapsed.as_secs_f64(),
            book.acknowledged.len(),
            book.retries,
            book.reads,
            self.facts.committed(),
            self.facts.terms(),
        );
        Report { violation: self.facts.violation(), summary, trace: self.facts.trace() }
    }
}
