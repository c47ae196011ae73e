//! Replays over real tables that are fed entry by entry: lanes that are stopped, and what comes back from behind the horizon.

use zeroize::Zeroizing;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::{Author, Batch, BlockOp, Body, Command, EditMode, NewBlock, Scope, TaskField};
use zyflow_machine::event::Fact;
use zyflow_machine::id::{ClusterTime, RecordId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::KIND_TASK;
use zyflow_storage::tables::{Entry, EntryPayload, Position, TablesConfig};

use super::*;

/// When all entries were made.
const STAMPED: ClusterTime = ClusterTime(1_000);

/// Tables that are fed entry by entry, with a log that is durable at once.
pub(crate) struct Fed {
    pub(crate) tables: Tables,
    index: u64,
    _dir: tempfile::TempDir,
}

impl Fed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])));
        let key = Arc::new(LocalKey::create_or_load(&dir.path().join("node.key"), &ring).unwrap());
        let durable = tokio::sync::watch::Sender::new(Some(u64::MAX)).subscribe();
        let config = TablesConfig::new(dir.path().join("tables"), Lineage([7; 16]));
        Self { tables: Tables::open(config, key, durable).unwrap(), index: 0, _dir: dir }
    }

    /// Applies a command, which must be accepted; what it created.
    pub(crate) fn run(&mut self, body: Body) -> Vec<RecordId> {
        self.index += 1;
        let command = Command { request: None, author: Author::default(), body };
        let batch = Batch { stamped: STAMPED, commands: vec![command] };
        let position = Position { term: 1, leader: 0, index: self.index };
        let outcome = self.tables.apply(Entry { position, payload: EntryPayload::Batch(batch) }).unwrap().remove(0);
        match outcome {
            Outcome::Accepted { created, .. } => created,
            other @ (Outcome::Stale { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_)) => {
                panic!("not accepted: {other:?}")
            }
        }
    }

    /// A project of that name with a change of `count` tasks: project, change, tasks.
    pub(crate) fn project(&mut self, name: &str, count: usize) -> (RecordId, RecordId, Vec<RecordId>) {
        let project = self.run(Body::CreateProject { name: name.to_owned(), files: Vec::new() })[0];
        let created = self.change(project, "a/tasks.md", count);
        (project, created[0], created[1..].to_vec())
    }

    fn change(&mut self, project: RecordId, path: &str, count: usize) -> Vec<RecordId> {
        let block = |at| NewBlock {
            kind: KIND_TASK,
            lead: "- [".to_owned(),
            mark: " ".to_owned(),
            text: format!("] task {at}\n"),
        };
        let blocks = (0..count).map(block).collect();
        self.run(Body::CreateChange { project, path: path.to_owned(), blocks, ops: Vec::new() })
    }

    pub(crate) fn note(&mut self, task: RecordId, note: &str) {
        let fields = vec![TaskField::Note(note.to_owned())];
        self.run(Body::SetTask { task, expected: None, fields, mark: None });
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.index)
    }

    fn plan(&self, from: Revision, mode: Mode, strategy: Strategy) -> Plan {
        Plan { from, to: self.revision(), mode, strategy, filter: Filter::default() }
    }
}

#[test]
fn what_was_deleted_before_the_horizon_and_restored_after_it_is_no_difference() {
    let mut fed = Fed::new();
    let (project, change, tasks) = fed.project("one", 2);
    let other = fed.change(project, "b/tasks.md", 2)[0];
    let whole = fed.revision();
    let ops = vec![BlockOp::Delete { block: tasks[1] }];
    fed.run(Body::Edit { change, base: whole, mode: EditMode::Merge, ops, conflicts: Vec::new() });
    fed.run(Body::DeleteChange { change: other, base: fed.revision() });
    fed.note(tasks[0], "between");
    let horizon = fed.revision();
    fed.run(Body::Rollback { scope: Scope::Project(project), to: whole, expected: None });
    fed.run(Body::Compact { to: horizon, time: STAMPED });
    for mode in [Mode::Safe, Mode::Fast, Mode::Verbose] {
        for strategy in [Strategy::Sequential, Strategy::Parallel] {
            let verdict = run(&fed.tables, &fed.plan(horizon, mode, strategy), &mut |_, _| true).unwrap();
            assert_eq!(verdict.differences, [], "{mode:?}, {strategy:?}");
            assert!(verdict.types["restored"] >= 3 && verdict.types["change-restored"] == 1, "{:?}", verdict.types);
            let (replayed, stored) = verdict.digests.unwrap();
            assert_eq!(replayed, stored);
        }
    }
}

#[test]
fn a_lane_that_is_stopped_is_not_held_against_the_end() {
    let mut fed = Fed::new();
    let (one, other) = (fed.project("one", 1).2[0], fed.project("other", 1).2[0]);
    let from = fed.revision();
    for note in ["first", "second"] {
        fed.note(one, note);
        fed.note(other, note);
    }
    let changes = fed.tables.changes_from(Revision(from.0 + 1), 100).unwrap().changes;
    let of = |task: RecordId| -> Page {
        changes.iter().flat_map(|change| &change.rows).filter(|row| row.id == task).cloned().collect()
    };
    let (mut wrong, half) = (of(one), of(other)[..1].to_vec());
    let never = Fact::TaskSet { fields: vec![TaskField::Note("never".to_owned())], mark: None };
    wrong[0] = Arc::new(Row { fact: never, ..(*wrong[0]).clone() });
    let (start, end) = (fed.tables.view(Some(from)).unwrap(), fed.tables.view(None).unwrap());
    let parts = in_lanes(&start, &end, Mode::Safe, 2, |lanes| {
        lanes[0].send(wrong).unwrap();
        lanes[1].send(half).unwrap();
        Ok(false)
    });
    let verdict = united(&fed.plan(from, Mode::Safe, Strategy::Parallel), parts.unwrap());
    assert_eq!(verdict.difference_count, 1, "{:?}", verdict.differences);
    assert!(verdict.differences[0].event.is_some(), "the version that differs, and no record at the end");
    assert_eq!(verdict.digests, None, "of half a replay there are none");
    let whole = in_lanes(&start, &end, Mode::Safe, 2, |lanes| {
        lanes[0].send(of(one)).unwrap();
        lanes[1].send(of(other)).unwrap();
        Ok(true)
    });
    let verdict = united(&fed.plan(from, Mode::Safe, Strategy::Parallel), whole.unwrap());
    assert_eq!((verdict.difference_count, verdict.records), (0, 2));
    assert!(verdict.digests.is_some_and(|(replayed, stored)| replayed == stored));
}

#[test]
fn it_is_known_whether_all_was_fed() {
    let mut fed = Fed::new();
    let task = fed.project("one", 1).2[0];
    fed.note(task, "one");
    let (plan, end) = (fed.plan(Revision(0), Mode::Safe, Strategy::Sequential), fed.tables.view(None).unwrap());
    let (tx, rx) = sync_channel(PAGES_WAITING_MAX);
    let lanes = [tx];
    assert!(feed(&fed.tables, &plan, &end, &lanes, &mut |_, _| true).unwrap());
    assert!(!feed(&fed.tables, &plan, &end, &lanes, &mut |_, _| false).unwrap(), "nobody waits for it any more");
    drop(rx);
    assert!(!feed(&fed.tables, &plan, &end, &lanes, &mut |_, _| true).unwrap(), "the lane has ended");
}
