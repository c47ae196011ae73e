//! What was ever seen in a run, on any node, and the first thing in it that must not be.
//!
//! Facts outlive every crash: what one node once knew to be committed holds for all nodes for ever. Invariants, named as in
//! Ongaro 2014, figure 3.2: election safety, log matching, leader completeness, state machine safety; and what the project
//! adds: nothing is committed that a power cut of any minority could take, and equal revisions have equal digests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use zyflow_machine::Digest;
use zyflow_raft::{NodeId, Role, Status};
use zyflow_storage::types::{Entry, EntryPayload, LogId};

use crate::log::Disk;

/// Connections that a node may try to make in one step, to four peers over three connections each: more means that it doesn't
/// pause between attempts.
const CONNECTS_MAX: u32 = 24;

/// Identifies what an entry carries.
type Fingerprint = [u8; 32];

/// Something happened that must not.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

/// See the module.
pub struct Facts(Mutex<Known>);

#[derive(Default)]
struct Known {
    now: Duration,
    connects: BTreeMap<NodeId, u32>,
    trace: String,
    violation: Option<Violation>,
    leaders: BTreeMap<u64, NodeId>,
    /// By term and index: what the entry carries, and the term of the entry before it.
    entries: BTreeMap<(u64, u64), (Fingerprint, Option<u64>)>,
    committed: BTreeMap<u64, (u64, Fingerprint)>,
    digests: BTreeMap<u64, Digest>,
    /// What each running node was at when it was looked at last; forgotten when it stops.
    seen: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    term: u64,
    committed: u64,
    applied: u64,
}

impl Facts {
    pub fn new() -> Self {
        Self(Mutex::new(Known::default()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("invariant: the simulation has one thread and stops at the first panic")
    }

    /// From now on it is `now`.
    pub fn set_time(&self, now: Duration) {
        let mut known = self.known();
        known.now = now;
        known.connects.clear();
    }

    /// One line of the trace.
    pub fn note(&self, line: &str) {
        self.known().note(line);
    }

    /// Everything that was noted.
    pub fn trace(&self) -> String {
        self.known().trace.clone()
    }

    /// Notes a violation; the first one stays.
    pub fn fail(&self, invariant: &'static str, seen: String) {
        self.known().fail(invariant, seen);
    }

    /// The first violation.
    pub fn violation(&self) -> Option<Violation> {
        self.known().violation.clone()
    }

    /// How many entries were committed.
    pub fn committed(&self) -> usize {
        self.known().committed.len()
    }

    /// The last term in which a node led.
    pub fn terms(&self) -> usize {
        self.known().leaders.len()
    }

    /// A node connects to a peer; gives whether it does that too often.
    pub fn connects(&self, node: NodeId) -> bool {
        let mut known = self.known();
        let count = known.connects.entry(node).or_default();
        *count += 1;
        let is_too_often = *count > CONNECTS_MAX;
        if is_too_often {
            known.fail("nodes pause between attempts", format!("node {node} connects again and again"));
        }
        is_too_often
    }

    /// A node's process is gone.
    pub fn stopped(&self, node: NodeId) {
        self.known().seen.remove(&node);
    }

    /// Log matching: entries of the same index and term carry the same, and so do all before them.
    pub fn appended(&self, node: NodeId, before: Option<LogId>, entry: &Entry) {
        let mut known = self.known();
        let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
        let fact = (fingerprint(entry), before.map(|id| id.leader_id.term));
        known.note(&format!("node {node} appends {term}.{index}, {} bytes", payload_bytes(entry)));
        let first = *known.entries.entry((term, index)).or_insert(fact);
        if first != fact {
            known.fail(
                "log matching",
                format!("node {node} appended another entry {term}.{index} than was seen before"),
            );
        }
    }

    /// Looks at a running node.
    pub fn look(&self, node: NodeId, status: &Status, digest: impl FnOnce() -> (u64, Digest), disks: &Disks<'_>) {
        let mut known = self.known();
        let before = known.seen.get(&node).copied().unwrap_or_default();
        let now = Seen { term: status.term, committed: status.committed, applied: status.applied };
        if now.term < before.term || now.committed < before.committed || now.applied < before.applied {
            let seen = format!("node {node} went back in term, committed or applied: {status:?}");
            known.fail("monotone", seen);
        }
        if let Some(reason) = &status.fatal {
            known.fail("no node fails", format!("node {node}: {reason}"));
        }
        if status.role == Role::Leader {
            known.leads(node, status.term, disks);
        }
        for index in before.committed + 1..=now.committed {
            known.commits(node, index, disks);
        }
        if now.applied != before.applied {
            let (revision, digest) = digest();
            known.has_digest(node, revision, digest);
        }
        known.seen.insert(node, now);
    }
}

/// The disks of all nodes, and whether what they confirm is held against them.
pub struct Disks<'a> {
    pub of: BTreeMap<NodeId, &'a Disk>,
    pub are_audited: bool,
}

impl Known {
    fn note(&mut self, line: &str) {
        tracing::info!("{:.3} {line}", self.now.as_secs_f64());
        writeln!(self.trace, "{:>9.3} {line}", self.now.as_secs_f64()).expect("invariant: a string takes all");
    }

    fn fail(&mut self, invariant: &'static str, seen: String) {
        if self.violation.is_none() {
            self.note(&format!("VIOLATION of {invariant}: {seen}"));
            self.violation = Some(Violation { invariant, seen });
        }
    }

    /// Election safety, and leader completeness.
    fn leads(&mut self, node: NodeId, term: u64, disks: &Disks<'_>) {
        match self.leaders.insert(term, node) {
            Some(other) if other == node => return,
            Some(other) => self.fail("election safety", format!("nodes {other} and {node} both lead in term {term}")),
            None => self.note(&format!("node {node} leads in term {term}")),
        }
        let disk = disks.of[&node];
        let lacks = self.committed.iter().find(|(index, (entry_term, _))| {
            *entry_term < term && disk.entry(**index).is_none_or(|entry| entry.log_id.leader_id.term != *entry_term)
        });
        if let Some((index, (entry_term, _))) = lacks {
            let seen = format!("node {node} leads in term {term} without the committed entry {entry_term}.{index}");
            self.fail("leader completeness", seen);
        }
    }

    /// What is committed stays, is the same everywhere, and is durable on a majority.
    fn commits(&mut self, node: NodeId, index: u64, disks: &Disks<'_>) {
        let Some(entry) = disks.of[&node].entry(index) else {
            self.fail(
                "committed entries exist",
                format!("node {node} says that {index} is committed and doesn't have it"),
            );
            return;
        };
        let fact = (entry.log_id.leader_id.term, fingerprint(&entry));
        match self.committed.get(&index) {
            Some(first) if *first == fact => {}
            Some(first) => {
                let seen =
                    format!("{index} was committed in term {}, on node {node} it is of term {}", first.0, fact.0);
                self.fail("committed entries never change", seen);
            }
            None => {
                let durable = disks.of.values().filter(|disk| disk.keeps(entry.log_id)).count();
                if disks.are_audited && durable * 2 <= disks.of.len() {
                    let seen =
                        format!("{} is committed and durable on {durable} of {} nodes", entry.log_id, disks.of.len());
                    self.fail("committed entries are durable on a majority", seen);
                }
                self.committed.insert(index, fact);
            }
        }
    }

    /// State machine safety.
    fn has_digest(&mut self, node: NodeId, revision: u64, digest: Digest) {
        let first = *self.digests.entry(revision).or_insert(digest);
        if first != digest {
            let seen = format!("node {node} has {digest:?} at revision {revision}, another one had {first:?}");
            self.fail("equal revisions have equal digests", seen);
        }
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(sealed) => sealed.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

fn fingerprint(entry: &Entry) -> Fingerprint {
    match &entry.payload {
        EntryPayload::Blank => *blake3::hash(b"blank").as_bytes(),
        EntryPayload::Normal(sealed) => *blake3::hash(&sealed.0).as_bytes(),
        EntryPayload::Membership(membership) => *blake3::hash(format!("{membership:?}").as_bytes()).as_bytes(),
    }
}
