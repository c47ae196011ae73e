//! What one command costs in the machine: sets the note of one of 10,000 tasks, in batches, over the map
//! view; storing the rows isn't counted.
//!
//! `cargo run --release -p zyflow-machine --example apply_cost`

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures time, which the machine itself doesn't know"
)]

use std::time::{Duration, Instant};
use zyflow_machine::command::{Author, Batch, Body, Command, NewBlock, TaskField};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::{Machine, MapView};

const TASKS: usize = 10_000;
const COMMANDS: u64 = 64_000;
const SESSIONS: u64 = 64;
const NOTE_BYTES: usize = 256;

fn main() {
    for (batch, with_sessions) in [(1, false), (1, true), (64, false), (64, true), (1_000, true)] {
        let (mut node, tasks, sessions) = prepare();
        let mut spent = Duration::ZERO;
        for first in (0..COMMANDS).step_by(usize::try_from(batch).unwrap_or(1)) {
            let commands = (first..first + batch).map(|at| {
                let session = SessionId(sessions[index(at % SESSIONS)].0);
                let request = with_sessions.then_some(RequestId { session, seq: at / SESSIONS + 1 });
                set_note(tasks[index(at.wrapping_mul(7_919)) % TASKS], request, at)
            });
            let commands = commands.collect();
            let outcomes = node.apply(commands, &mut spent);
            assert!(
                outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })),
                "a command was refused"
            );
        }
        let each = spent / u32::try_from(COMMANDS).unwrap_or(1);
        let (began, dirty) = (Instant::now(), node.machine.take_dirty_sessions());
        let (saving, bytes) =
            (began.elapsed(), dirty.iter().filter_map(|(_, bytes)| Some(bytes.as_ref()?.len())).sum::<usize>());
        let sessions = if with_sessions { "with sessions" } else { "no sessions" };
        println!(
            "batch {batch:>5}, {sessions:<13}: {each:?} a command; {} sessions, {bytes} bytes, saved in {saving:?}",
            dirty.len()
        );
    }
}

struct Node {
    machine: Machine,
    view: MapView,
}

impl Node {
    fn apply(&mut self, commands: Vec<Command>, spent: &mut Duration) -> Vec<Outcome> {
        let revision = Revision(self.machine.revision().0 + 1);
        let batch = Batch { stamped: ClusterTime(0), commands };
        let began = Instant::now();
        let effects = self.machine.apply(&self.view, revision, &batch).unwrap_or_else(|never| match never {});
        *spent += began.elapsed();
        self.view.commit_effects(&effects);
        effects.outcomes
    }

    fn create(&mut self, body: Body) -> Vec<RecordId> {
        let mut uncounted = Duration::ZERO;
        match self.apply(vec![Command { request: None, author: Author::default(), body }], &mut uncounted).pop() {
            Some(Outcome::Accepted { created, .. }) => created,
            refused => panic!("the example's own state is refused: {refused:?}"),
        }
    }
}

fn prepare() -> (Node, Vec<RecordId>, Vec<RecordId>) {
    let mut node = Node { machine: Machine::new(), view: MapView::new() };
    let project = node.create(Body::CreateProject { name: "p".to_owned(), files: Vec::new() })[0];
    let line =
        |at| NewBlock { kind: 2, lead: "- [".to_owned(), mark: " ".to_owned(), text: format!("] {at} Do it well\n") };
    let blocks = (0..TASKS).map(line).collect();
    let tasks =
        node.create(Body::CreateChange { project, path: "tasks.md".to_owned(), blocks, ops: Vec::new() }).split_off(1);
    let sessions = (0..SESSIONS).map(|_| node.create(Body::OpenSession)[0]).collect();
    (node, tasks, sessions)
}

fn set_note(task: RecordId, request: Option<RequestId>, at: u64) -> Command {
    let note = format!("{at:0>NOTE_BYTES$}");
    let body = Body::SetTask { task, expected: None, fields: vec![TaskField::Note(note)], mark: None };
    Command { request, author: Author::default(), body }
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
