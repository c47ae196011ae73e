//! A machine with its rows, as a node has them; every step proves that the digest that is kept up to date is the one that
//! the rows add up to.

#![allow(dead_code, reason = "each test program uses its own part")]

use zyflow_machine::command::{Author, Batch, Body, Command, NewBlock};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{Kind, Record};
use zyflow_machine::session::digest_of_saved;
use zyflow_machine::view::View;
use zyflow_machine::{Digest, Effects, Machine, MapView};

/// A machine and its rows.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub machine: Machine,
    pub view: MapView,
    pub stamp: ClusterTime,
}

impl Node {
    /// Applies a batch as the next entry.
    pub fn apply_batch(&mut self, batch: &Batch) -> Effects {
        let revision = Revision(self.machine.revision().0 + 1);
        let effects = self.machine.apply(&self.view, revision, batch).unwrap();
        self.view.commit_effects(&effects);
        assert_eq!(effects.outcomes.len(), batch.commands.len());
        assert_eq!(self.machine.rows_digest(), self.view.rows_digest(), "the digest of the rows drifted");
        let sessions = self.machine.sessions().map(|(id, bytes)| digest_of_saved(id, &bytes).unwrap());
        assert_eq!(self.machine.digest(), self.view.rows_digest().add(sessions.sum::<Digest>()));
        effects
    }

    /// Applies commands as one entry.
    pub fn apply(&mut self, commands: Vec<Command>) -> Effects {
        self.apply_batch(&Batch { stamped: self.stamp, commands })
    }

    /// Applies one command as an entry of its own.
    pub fn run(&mut self, body: Body) -> Outcome {
        self.apply(vec![command(body)]).outcomes.remove(0)
    }

    /// Applies one request of a session as an entry of its own.
    pub fn request(&mut self, session: SessionId, seq: u64, body: Body) -> Outcome {
        let request = Some(RequestId { session, seq });
        self.apply(vec![Command { request, ..command(body) }]).outcomes.remove(0)
    }

    /// Applies one command that must succeed; the ids that it created.
    pub fn create(&mut self, body: Body) -> Vec<RecordId> {
        match self.run(body) {
            Outcome::Accepted { created, .. } => created,
            other => panic!("expected success, got {other:?}"),
        }
    }

    /// A project and in it a change of these blocks; the change and its blocks.
    pub fn change(&mut self, path: &str, blocks: Vec<NewBlock>) -> (RecordId, Vec<RecordId>) {
        let project = match self.view.find(Kind::Project, RecordId::ROOT, b"p").unwrap() {
            Some(project) => project,
            None => self.create(Body::CreateProject { name: "p".to_owned(), files: Vec::new() })[0],
        };
        let mut created = self.create(Body::CreateChange { project, path: path.to_owned(), blocks, ops: Vec::new() });
        let blocks = created.split_off(1);
        (created[0], blocks)
    }

    /// The live record.
    pub fn record(&self, id: RecordId) -> Option<Record> {
        self.view.get(id).unwrap().and_then(|stored| stored.record.clone())
    }
}

/// A command without a request.
pub fn command(body: Body) -> Command {
    Command { request: None, author: Author { name: "ann".to_owned(), clock_ms: 7 }, body }
}

/// A task where the line has a box, else prose; a line end is added.
pub fn block(line: &str) -> NewBlock {
    if let Some((mark, text)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return NewBlock { kind: 2, lead: "- [".to_owned(), mark: mark.to_owned(), text: format!("]{text}\n") };
    }
    let kind = if line.starts_with('#') { 1 } else { 3 };
    NewBlock { kind, lead: String::new(), mark: String::new(), text: format!("{line}\n") }
}
