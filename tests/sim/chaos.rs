//! Faults, drawn from the seed: what happens when, and when it is undone.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;
use zyflow_raft::{NodeId, Role};

use crate::facts::Facts;
use crate::net::host_of;
use crate::node::Machine;

/// Time between two faults, in milliseconds: shorter than an election takes, longer than a write does.
const PAUSE_MS: RangeInclusive<u64> = 100..=1800;
/// How long a machine is down, in milliseconds.
const DOWN_MS: RangeInclusive<u64> = 50..=4000;
/// How long the network is disturbed, in milliseconds: some shorter, some longer than an election timeout.
const DISTURBED_MS: RangeInclusive<u64> = 200..=6000;
/// Added to each sync of a slow disk, in milliseconds.
const STALL_MS: RangeInclusive<u64> = 20..=700;
/// Longest time that a message takes on a slow link, in milliseconds.
const SLOW_MS: RangeInclusive<u64> = 80..=900;

/// Undoes a fault.
#[derive(Debug)]
enum Undo {
    Restart(NodeId),
    Repair(Vec<(NodeId, NodeId)>),
    Quicken(NodeId, NodeId),
    Release(NodeId, NodeId),
    Unstall(NodeId),
}

/// The faults of one run.
pub struct Chaos {
    rng: StdRng,
    machines: Vec<Arc<Machine>>,
    facts: Arc<Facts>,
    latency_max: Duration,
    next: Duration,
    active: Vec<(Duration, Undo)>,
}

impl Chaos {
    pub fn new(
        seed: u64,
        machines: Vec<Arc<Machine>>,
        facts: Arc<Facts>,
        begin: Duration,
        latency_max: Duration,
    ) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), machines, facts, latency_max, next: begin, active: Vec::new() }
    }

    /// Does what is due at `now`.
    pub fn step(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (due, active) = std::mem::take(&mut self.active).into_iter().partition(|(at, _)| *at <= now);
        self.active = active;
        let due: Vec<(Duration, Undo)> = due;
        for (_, undo) in due {
            self.undo(sim, undo);
        }
        if now >= self.next {
            self.next = now + self.millis(PAUSE_MS);
            self.strike(sim, now);
        }
    }

    /// Undoes everything.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, undo) in std::mem::take(&mut self.active) {
            self.undo(sim, undo);
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, now: Duration) {
        match self.rng.random_range(0..100) {
            0..22 => {
                let node = self.node();
                self.crash(sim, now, node);
            }
            22..36 => {
                let node = self.leader().unwrap_or_else(|| self.machines[0].id);
                self.crash(sim, now, node);
            }
            36..46 => {
                for node in self.ids() {
                    self.crash(sim, now, node);
                }
            }
            46..58 => {
                let (here, there): (Vec<_>, Vec<_>) = self.ids().into_iter().partition(|_| self.rng.random_bool(0.5));
                self.cut(sim, now, &pairs(&here, &there), true);
            }
            58..68 => {
                let node = self.leader().unwrap_or_else(|| self.node());
                let others: Vec<_> = self.ids().into_iter().filter(|id| *id != node).collect();
                self.cut(sim, now, &pairs(&[node], &others), true);
            }
            68..80 => {
                let (from, to) = self.link();
                self.cut(sim, now, &[(from, to)], false);
            }
            80..86 => self.slow(sim, now),
            86..91 => self.hold(sim, now),
            _ => self.stall(now),
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, node: NodeId) {
        if !sim.is_host_running(host_of(node)) {
            return;
        }
        self.facts.note(&format!("chaos: node {node} crashes"));
        sim.crash(host_of(node));
        let until = now + self.millis(DOWN_MS);
        self.active.push((until, Undo::Restart(node)));
    }

    fn cut(&mut self, sim: &mut Sim<'_>, now: Duration, links: &[(NodeId, NodeId)], both: bool) {
        // Links that are cut twice would be repaired with the first of the two.
        if links.is_empty() || self.active.iter().any(|(_, undo)| matches!(undo, Undo::Repair(_) | Undo::Release(..))) {
            return;
        }
        let back = links.iter().filter(|_| both).map(|(from, to)| (*to, *from));
        let links: Vec<(NodeId, NodeId)> = links.iter().copied().chain(back).collect();
        self.facts.note(&format!("chaos: {links:?} are cut"));
        for (from, to) in &links {
            sim.partition_oneway(host_of(*from), host_of(*to));
        }
        let until = now + self.millis(DISTURBED_MS);
        self.active.push((until, Undo::Repair(links)));
    }

    fn slow(&mut self, sim: &Sim<'_>, now: Duration) {
        let ((one, other), latency) = (self.link(), self.millis(SLOW_MS));
        self.facts.note(&format!("chaos: between {one} and {other} messages take up to {latency:?}"));
        sim.set_link_max_message_latency(host_of(one), host_of(other), latency);
        let until = now + self.millis(DISTURBED_MS);
        self.active.push((until, Undo::Quicken(one, other)));
    }

    fn hold(&mut self, sim: &Sim<'_>, now: Duration) {
        if self.active.iter().any(|(_, undo)| matches!(undo, Undo::Repair(_) | Undo::Release(..))) {
            return;
        }
        let (one, other) = self.link();
        self.facts.note(&format!("chaos: between {one} and {other} messages are held"));
        sim.hold(host_of(one), host_of(other));
        let until = now + self.millis(DISTURBED_MS);
        self.active.push((until, Undo::Release(one, other)));
    }

    fn stall(&mut self, now: Duration) {
        let (node, stall_ms) = (self.node(), self.rng.random_range(STALL_MS));
        self.facts.note(&format!("chaos: syncs of node {node} take {stall_ms} ms more"));
        self.machine(node).disk.stall(stall_ms);
        let until = now + self.millis(DISTURBED_MS);
        self.active.push((until, Undo::Unstall(node)));
    }

    fn undo(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        self.facts.note(&format!("chaos: {undo:?}"));
        match undo {
            Undo::Restart(node) => sim.bounce(host_of(node)),
            Undo::Repair(links) => {
                for (from, to) in links {
                    sim.repair_oneway(host_of(from), host_of(to));
                }
            }
            Undo::Quicken(one, other) => {
                sim.set_link_max_message_latency(host_of(one), host_of(other), self.latency_max);
            }
            Undo::Release(one, other) => sim.release(host_of(one), host_of(other)),
            Undo::Unstall(node) => self.machine(node).disk.stall(0),
        }
    }

    fn machine(&self, node: NodeId) -> &Machine {
        self.machines.iter().find(|machine| machine.id == node).expect("invariant: nodes are the machines' numbers")
    }

    fn ids(&self) -> Vec<NodeId> {
        self.machines.iter().map(|machine| machine.id).collect()
    }

    fn node(&mut self) -> NodeId {
        let at = self.rng.random_range(0..self.machines.len());
        self.machines[at].id
    }

    /// Two different nodes.
    fn link(&mut self) -> (NodeId, NodeId) {
        let from = self.rng.random_range(0..self.machines.len());
        let to = (from + self.rng.random_range(1..self.machines.len())) % self.machines.len();
        (self.machines[from].id, self.machines[to].id)
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |machine: &&Arc<Machine>| {
            machine.running().is_some_and(|running| running.consensus.status().role == Role::Leader)
        };
        self.machines.iter().find(leads).map(|machine| machine.id)
    }

    fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }
}

fn pairs(here: &[NodeId], there: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    here.iter().flat_map(|from| there.iter().map(move |to| (*from, *to))).collect()
}
