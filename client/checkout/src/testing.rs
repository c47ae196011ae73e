//! A cluster in memory for tests: one ordered history, applied by the real state machine, and nodes that see it late, lose
//! connection, or answer although the answer gets lost.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use zyflow_machine::command::{Author, Batch, Body, Command};
use zyflow_machine::event::{Event, Fact};
use zyflow_machine::evolve::evolve;
use zyflow_machine::id::{ClusterTime, EventId, RecordId, RequestId, Revision};
use zyflow_machine::machine::Machine;
use zyflow_machine::map_view::MapView;
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_machine::record::{Conflict, Kind, Project, Record, Restore, TaskFields};
use zyflow_machine::view::View;
use zyflow_spec::{Block, BlockKind, Content, Known};

use crate::base::{SealError, StateSeal};
use crate::cluster::{Cluster, ClusterDocument, ClusterError, Touched, Undone};

/// Seals by flipping bits, so that a text in clear on the disk is noticed.
pub(crate) struct TestSeal;

impl StateSeal for TestSeal {
    fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = blake3::hash(context).as_bytes().to_vec();
        sealed.extend(plaintext.iter().map(|byte| byte ^ 0x5a));
        Ok(sealed)
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        match sealed.strip_prefix(blake3::hash(context).as_bytes()) {
            Some(body) => Ok(body.iter().map(|byte| byte ^ 0x5a).collect()),
            None => Err(SealError("another context".into())),
        }
    }
}

/// The one history.
#[derive(Default)]
pub(crate) struct Ledger {
    machine: Machine,
    view: MapView,
    touched: Vec<(Revision, RecordId)>,
    accepted: usize,
}

impl Ledger {
    pub(crate) fn revision(&self) -> Revision {
        self.machine.revision()
    }

    pub(crate) fn apply(&mut self, request: Option<RequestId>, body: Body, author: &str) -> Outcome {
        let revision = Revision(self.machine.revision().0 + 1);
        let is_session = body == Body::OpenSession;
        let author = Author { name: author.to_owned(), clock_ms: 0 };
        let batch = Batch { stamped: ClusterTime(revision.0), commands: vec![Command { request, author, body }] };
        let effects = self.machine.apply(&self.view, revision, &batch).unwrap();
        self.view.commit_effects(&effects);
        for (row, _) in &effects.rows {
            match row.kind {
                Kind::Change | Kind::Project => {
                    self.touched.push((revision, row.id));
                    // A change that was moved, or is there again, is a matter of the project's list.
                    if matches!(row.fact, Fact::ChangeMoved { .. } | Fact::ChangeRestored { .. }) {
                        self.touched.push((revision, row.parent));
                    }
                }
                Kind::Block => self.touched.push((revision, row.parent)),
                Kind::Conflict | Kind::Comment | Kind::Point | Kind::Retention | Kind::Restore => {}
            }
        }
        let outcome = effects.outcomes.into_iter().next().unwrap();
        self.accepted += usize::from(matches!(outcome, Outcome::Accepted { .. }) && !is_session);
        outcome
    }

    /// Begins anew at `at` with what there was in a backup.
    pub(crate) fn restore(&mut self, backup: Self, at: Revision) {
        let (cut, last) = (backup.revision(), self.revision());
        let version = EventId::new(at, 0).unwrap();
        let event = Event { id: version, record: RecordId(version), fact: Fact::Restored(Restore { cut, last }) };
        *self = backup;
        self.view.commit(&[evolve(event, None).unwrap()]);
        self.machine = Machine::begin_at(at, ClusterTime(at.0), self.view.rows_digest());
    }

    /// How many commands had an effect, sessions apart.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted
    }

    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        let conflicts = self.view.records().filter_map(|(_, record)| match record {
            Record::Conflict(conflict) => Some(conflict.clone()),
            Record::Project(_)
            | Record::Change(_)
            | Record::Block(_)
            | Record::Comment(_)
            | Record::Point(_)
            | Record::Retention(_)
            | Record::Restore(_) => None,
        });
        conflicts.collect()
    }

    /// Every record of a kind and parent, deleted ones included.
    fn all(&self, kind: Kind, parent: RecordId) -> BTreeSet<RecordId> {
        self.view.all(kind, parent).collect()
    }

    pub(crate) fn document(&self, change: RecordId, at: Revision) -> Option<ClusterDocument> {
        let stored = self.view.get_at(change, at).unwrap()?;
        let deleted = stored.record.is_none();
        let mut blocks = Vec::new();
        for id in self.all(Kind::Block, change) {
            let Some(stored) = self.view.get_at(id, at).unwrap() else { continue };
            let Some(Record::Block(block)) = &stored.record else { continue };
            let kind = BlockKind::try_from(block.kind).unwrap();
            let content =
                Content { lead: block.lead.clone(), mark: block.mark.value.clone(), text: block.text.value.clone() };
            blocks.push((stored.order.clone(), Known { id, block: Block { kind, content } }));
        }
        blocks.sort_by(|one, two| one.0.cmp(&two.0));
        Some(ClusterDocument { revision: at, deleted, blocks: blocks.into_iter().map(|(_, known)| known).collect() })
    }

    pub(crate) fn paths(&self, project: RecordId, at: Revision) -> Vec<(String, RecordId, bool)> {
        let changes = self.all(Kind::Change, project).into_iter().filter_map(|id| {
            let stored = self.view.get_at(id, at).unwrap()?;
            Some((String::from_utf8(stored.order.clone()).unwrap(), id, stored.record.is_none()))
        });
        changes.collect()
    }
}

/// What goes wrong with the next proposals, first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never arrives.
    LostRequest,
    /// It happens, and the answer is lost.
    LostAnswer,
    /// It happens, the answer is lost, and the session is gone before it is asked for again.
    ExpiredSession,
}

type Interference = Box<dyn FnOnce(&mut Ledger) + Send>;

#[derive(Default)]
struct Behaviour {
    is_lagging: bool,
    is_unavailable: bool,
    faults: Vec<Fault>,
    loses_answers: bool,
    before_next: Option<Interference>,
    proposals: usize,
    sessions: usize,
    refused: usize,
}

/// A node that sees the history.
pub(crate) struct Node {
    ledger: Arc<Mutex<Ledger>>,
    behaviour: Mutex<Behaviour>,
    applied: watch::Sender<Revision>,
}

/// Nodes over one history.
pub(crate) fn cluster(nodes: usize) -> Vec<Arc<Node>> {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let node = |_| {
        Arc::new(Node {
            ledger: Arc::clone(&ledger),
            behaviour: Mutex::default(),
            applied: watch::Sender::new(Revision(0)),
        })
    };
    (0..nodes).map(node).collect()
}

/// Lets every node that doesn't lag see all of the history.
pub(crate) fn deliver(nodes: &[Arc<Node>]) {
    for node in nodes {
        node.catch_up();
    }
}

impl Node {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) fn catch_up(&self) {
        if !self.behaviour.lock().unwrap().is_lagging {
            let revision = self.ledger().revision();
            self.applied.send_if_modified(|applied| {
                let is_newer = *applied < revision;
                *applied = revision.max(*applied);
                is_newer
            });
        }
    }

    pub(crate) fn lag(&self, is_lagging: bool) {
        self.behaviour.lock().unwrap().is_lagging = is_lagging;
        self.catch_up();
    }

    pub(crate) fn set_unavailable(&self, is_unavailable: bool) {
        self.behaviour.lock().unwrap().is_unavailable = is_unavailable;
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.behaviour.lock().unwrap().faults.push(fault);
    }

    /// Every answer gets lost, or none any more.
    pub(crate) fn lose_answers(&self, is_lost: bool) {
        self.behaviour.lock().unwrap().loses_answers = is_lost;
    }

    /// Something that happens right before the next file's proposal is applied.
    pub(crate) fn before_next(&self, interfere: impl FnOnce(&mut Ledger) + Send + 'static) {
        self.behaviour.lock().unwrap().before_next = Some(Box::new(interfere));
    }

    /// How many commands were asked for, sessions apart.
    pub(crate) fn proposals(&self) -> usize {
        self.behaviour.lock().unwrap().proposals
    }

    /// How many sessions were opened.
    pub(crate) fn sessions(&self) -> usize {
        self.behaviour.lock().unwrap().sessions
    }

    /// How often it was asked while it was unavailable.
    pub(crate) fn refused(&self) -> usize {
        self.behaviour.lock().unwrap().refused
    }

    /// A command by somebody else.
    pub(crate) fn act(&self, body: Body) -> Outcome {
        let outcome = self.ledger().apply(None, body, "somebody");
        self.catch_up();
        outcome
    }

    fn ask(&self, request: Option<RequestId>, body: Body, author: &str) -> Result<Outcome, ClusterError> {
        let lost = || ClusterError::Unavailable("no quorum".to_owned());
        let (fault, interfere) = {
            let mut behaviour = self.behaviour.lock().unwrap();
            if behaviour.is_unavailable {
                behaviour.refused += 1;
                return Err(lost());
            }
            if body == Body::OpenSession {
                behaviour.sessions += 1;
                (None, None)
            } else {
                behaviour.proposals += 1;
                let fault = if behaviour.loses_answers {
                    Some(Fault::LostAnswer)
                } else {
                    (!behaviour.faults.is_empty()).then(|| behaviour.faults.remove(0))
                };
                (fault, behaviour.before_next.take())
            }
        };
        if fault == Some(Fault::LostRequest) {
            return Err(lost());
        }
        let outcome = {
            let mut ledger = self.ledger();
            if let Some(interfere) = interfere {
                interfere(&mut ledger);
            }
            ledger.apply(request, body, author)
        };
        self.catch_up();
        match fault {
            Some(Fault::LostAnswer) => Err(lost()),
            Some(Fault::ExpiredSession) => Ok(Outcome::Rejected(Reject::SessionExpired)),
            Some(Fault::LostRequest) | None => Ok(outcome),
        }
    }
}

impl Cluster for Node {
    fn propose(
        &self,
        request: Option<RequestId>,
        body: Body,
        author: &str,
    ) -> impl Future<Output = Result<Outcome, ClusterError>> + Send {
        std::future::ready(self.ask(request, body, author))
    }

    fn project(&self, name: &str) -> Result<Option<(RecordId, Project)>, ClusterError> {
        let ledger = self.ledger();
        let Some(id) = ledger.view.find(Kind::Project, RecordId::ROOT, name.as_bytes()).unwrap() else {
            return Ok(None);
        };
        let stored = ledger.view.get_at(id, *self.applied.borrow()).unwrap();
        Ok(stored.and_then(|stored| match &stored.record {
            Some(Record::Project(project)) => Some((id, project.clone())),
            _ => None,
        }))
    }

    fn paths(&self, project: RecordId) -> Result<Vec<(String, RecordId, bool)>, ClusterError> {
        Ok(self.ledger().paths(project, *self.applied.borrow()))
    }

    fn document(&self, change: RecordId, at: Option<Revision>) -> Result<Option<ClusterDocument>, ClusterError> {
        let at = at.unwrap_or(*self.applied.borrow());
        Ok(self.ledger().document(change, at))
    }

    fn tasks(&self, change: RecordId) -> Result<BTreeMap<RecordId, TaskFields>, ClusterError> {
        let ledger = self.ledger();
        let blocks = ledger.all(Kind::Block, change).into_iter();
        let at = *self.applied.borrow();
        let task = |id: RecordId| match ledger.view.get_at(id, at).unwrap()?.record.clone()? {
            Record::Block(block) => Some((id, *block.task?)),
            _ => None,
        };
        Ok(blocks.filter_map(task).collect())
    }

    fn revisions(&self, change: RecordId, most: usize) -> Result<Vec<Revision>, ClusterError> {
        let applied = *self.applied.borrow();
        let ledger = self.ledger();
        let touched = ledger.touched.iter().rev().filter(|(at, touched)| *touched == change && *at <= applied);
        let mut revisions: Vec<Revision> = touched.map(|(at, _)| *at).collect();
        revisions.dedup();
        revisions.truncate(most);
        Ok(revisions)
    }

    fn undone(&self) -> Result<Vec<Undone>, ClusterError> {
        let ledger = self.ledger();
        let at = *self.applied.borrow();
        let found = ledger.view.records().filter_map(|(id, record)| match record {
            Record::Restore(restore) if id.0.revision() <= at => Some(Undone { cut: restore.cut, at: id.0.revision() }),
            _ => None,
        });
        Ok(found.collect())
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    fn touched(&self, since: Revision) -> Touched {
        let up_to = *self.applied.borrow();
        let ledger = self.ledger();
        let changes = ledger.touched.iter().filter(|(at, _)| *at > since && *at <= up_to).map(|(_, change)| *change);
        Touched::Changes { up_to, changes: changes.collect() }
    }
}

impl Clone for Ledger {
    /// For a model that goes on in several ways from one state.
    fn clone(&self) -> Self {
        Self {
            machine: self.machine.clone(),
            view: self.view.clone(),
            touched: self.touched.clone(),
            accepted: self.accepted,
        }
    }
}
