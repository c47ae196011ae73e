//! Clients: each proposes numbered lines for one shared change, through any node, and again through another one until it is
//! told that it happened; between them it reads. Everything they were told is in the [`Ledger`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use zyflow_machine::command::{Anchor, Author, BlockOp, Body, Command, EditMode, NewBlock};
use zyflow_machine::id::{RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::{Outcome, Reject};

use crate::facts::Facts;
use crate::node::{Ask, Machine, Read};

/// Longest time that a client gives a node.
const PATIENCE_MS: std::ops::RangeInclusive<u64> = 300..=2500;
/// A node's answer comes by then or not at all.
const GRACE: Duration = Duration::from_millis(200);
/// Pause after an attempt that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause between two operations, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 5..=120;
/// Lines that each client must still get through after all faults are healed.
const FINAL_WRITES: u32 = 5;
/// One of so many operations is a read.
const READ_SHARE: u32 = 4;
/// Any kind that isn't a task's.
const KIND_TEXT: u8 = 3;

/// What clients tried and what they were told, since the beginning.
#[derive(Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Default)]
pub struct Book {
    pub change: Option<RecordId>,
    /// Every line that was ever proposed.
    pub tried: BTreeSet<String>,
    /// The lines that were acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// The newest revision at which one was.
    pub newest: Revision,
    pub retries: u32,
    pub reads: u32,
    /// The faults are over: finish.
    pub is_healed: bool,
}

impl Ledger {
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("invariant: the simulation has one thread and stops at the first panic")
    }
}

/// See the module.
pub struct Client {
    pub number: u32,
    machines: Vec<Arc<Machine>>,
    ledger: Arc<Ledger>,
    facts: Arc<Facts>,
    rng: StdRng,
    session: Option<SessionId>,
    seq: u64,
}

impl Client {
    pub fn new(number: u32, seed: u64, machines: Vec<Arc<Machine>>, ledger: Arc<Ledger>, facts: Arc<Facts>) -> Self {
        Self { number, machines, ledger, facts, rng: StdRng::seed_from_u64(seed), session: None, seq: 0 }
    }

    /// Until the faults are over, and a few writes more.
    pub async fn run(mut self) -> turmoil::Result {
        let opened = self.accepted(Body::OpenSession).await;
        self.session = opened.map(|(_, id)| SessionId(id.0));
        let change = self.change().await;
        let (mut line, mut after_healing) = (0, 0);
        while after_healing < FINAL_WRITES {
            let is_healed = self.ledger.book().is_healed;
            if self.rng.random_range(0..READ_SHARE) == 0 {
                self.read(change).await;
            } else {
                line += 1;
                self.write(change, line).await;
                after_healing += u32::from(is_healed);
            }
            let pause = self.rng.random_range(PAUSE_MS);
            sleep(Duration::from_millis(pause)).await;
        }
        self.read(change).await;
        Ok(())
    }

    /// The change that all write to: the first client makes it.
    async fn change(&mut self) -> RecordId {
        if self.number == 1 {
            let project = Body::CreateProject { name: "sim".to_owned(), files: vec!["tasks.md".to_owned()] };
            let project = self.made(project).await;
            let change =
                Body::CreateChange { project, path: "tasks.md".to_owned(), blocks: Vec::new(), ops: Vec::new() };
            let change = self.made(change).await;
            self.ledger.book().change = Some(change);
        }
        loop {
            if let Some(change) = self.ledger.book().change {
                return change;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn write(&mut self, change: RecordId, line: u32) {
        let text = format!("client {} line {line}\n", self.number);
        self.ledger.book().tried.insert(text.clone());
        let block = NewBlock { kind: KIND_TEXT, lead: String::new(), mark: String::new(), text: text.clone() };
        let insert = BlockOp::Insert { after: Anchor::Start, block };
        let body = Body::Edit {
            change,
            base: change.0.revision(),
            mode: EditMode::Merge,
            ops: vec![insert],
            conflicts: Vec::new(),
        };
        if let Some((revision, _)) = self.accepted(body).await {
            let mut book = self.ledger.book();
            book.acknowledged.insert(text);
            book.newest = book.newest.max(revision);
        }
    }

    /// Proposes something that makes a record, and gives its id; without request ids it may have happened before.
    async fn made(&mut self, body: Body) -> RecordId {
        loop {
            match self.outcome(&body).await {
                Outcome::Accepted { created, .. } if !created.is_empty() => return created[0],
                Outcome::Rejected(Reject::Exists { id, .. }) => return id,
                other @ (Outcome::Accepted { .. }
                | Outcome::Stale { .. }
                | Outcome::Rejected(_)
                | Outcome::Duplicate(_)) => {
                    self.facts.fail("legal commands are accepted", format!("{body:?}: {other:?}"));
                }
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn accepted(&mut self, body: Body) -> Option<(Revision, RecordId)> {
        match self.outcome(&body).await {
            Outcome::Accepted { revision, created } => Some((revision, *created.first()?)),
            other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
                self.facts.fail("legal commands are accepted", format!("{body:?}: {other:?}"));
                None
            }
        }
    }

    /// Proposes the same request until there is an outcome.
    async fn outcome(&mut self, body: &Body) -> Outcome {
        self.seq += 1;
        let request = self.session.map(|session| RequestId { session, seq: self.seq });
        let author = Author { name: format!("client {}", self.number), clock_ms: 0 };
        let command = Command { request, author, body: body.clone() };
        loop {
            let patience = self.patience();
            let (reply, answered) = oneshot::channel();
            let at = self.rng.random_range(0..self.machines.len());
            let machine = &self.machines[at];
            machine.ask(Ask::Propose { command: command.clone(), patience, reply });
            let answer = timeout(patience + GRACE, answered).await;
            let told = format!("client {} request {} on node {}", self.number, self.seq, machine.id);
            match answer {
                Ok(Ok(Ok(Outcome::Duplicate(first)))) => {
                    self.facts.note(&format!("{told}: again, {}", brief(&first)));
                    return *first;
                }
                Ok(Ok(Ok(outcome))) => {
                    self.facts.note(&format!("{told}: {}", brief(&outcome)));
                    return outcome;
                }
                Ok(Ok(Err(error))) => self.facts.note(&format!("{told}: {error}")),
                Ok(Err(_dropped)) => self.facts.note(&format!("{told}: no answer from a node that is down")),
                Err(_elapsed) => self.facts.note(&format!("{told}: no answer")),
            }
            self.ledger.book().retries += 1;
            sleep(RETRY_PAUSE).await;
        }
    }

    /// A linearizable read sees everything that was acknowledged before it began, and nothing twice.
    async fn read(&mut self, change: RecordId) {
        let (newest, before) = {
            let book = self.ledger.book();
            (book.newest, book.acknowledged.clone())
        };
        let patience = self.patience();
        let (reply, answered) = oneshot::channel();
        let at = self.rng.random_range(0..self.machines.len());
        let machine = &self.machines[at];
        machine.ask(Ask::Read { change, patience, reply });
        let Ok(Ok(Ok(Read { revision, lines }))) = timeout(patience + GRACE, answered).await else {
            self.facts.note(&format!("client {} reads nothing on node {}", self.number, machine.id));
            return;
        };
        self.facts.note(&format!(
            "client {} reads {} lines at {revision} on node {}",
            self.number,
            lines.len(),
            machine.id
        ));
        if revision < newest {
            let seen = format!("node {} read at {revision} what was acknowledged at {newest} before", machine.id);
            self.facts.fail("reads are linearizable", seen);
        }
        if let Some(missing) = before.iter().find(|line| !lines.contains_key(*line)) {
            let seen = format!("a read on node {} at {revision} lacks {missing:?}", machine.id);
            self.facts.fail("reads are linearizable", seen);
        }
        self.ledger.check_once(&lines, &self.facts);
        self.ledger.book().reads += 1;
    }

    fn patience(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(PATIENCE_MS))
    }
}

impl Ledger {
    /// No line stands there twice, and none that nobody wrote.
    pub fn check_once(&self, lines: &BTreeMap<String, usize>, facts: &Facts) {
        let book = self.book();
        for (line, count) in lines {
            if *count != 1 {
                facts.fail("requests are applied once", format!("{line:?} stands there {count} times"));
            }
            if !book.tried.contains(line) {
                facts.fail("requests are applied once", format!("{line:?} was never written"));
            }
        }
    }

    /// The end: everything acknowledged is there.
    pub fn check_all(&self, lines: &BTreeMap<String, usize>, facts: &Facts) {
        self.check_once(lines, facts);
        let lost = self.book().acknowledged.iter().find(|line| !lines.contains_key(*line)).cloned();
        if let Some(lost) = lost {
            facts.fail("acknowledged writes are never lost", format!("{lost:?} is gone"));
        }
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { revision, .. } => format!("accepted at {revision}"),
        Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_) => format!("{outcome:?}"),
    }
}
