//! Random commands. A wish names records by number; it becomes a command once it is known which records there are.

#![allow(dead_code, reason = "each test program uses its own part")]

use crate::harness::{Node, command};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;
use zyflow_machine::command::{
    Anchor, BlockOp, BlockRef, Body, Command, EditMode, Expected, NewBlock, NewConflict, Scope, TaskField,
};
use zyflow_machine::id::{ClusterTime, EventId, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::record::{
    ConflictClass, Keep, Kind, Policy, Priority, SettledBy, Settlement, Status, Strategy as Way,
};

/// What a command may refer to: the state before its batch.
pub struct Ids {
    projects: Vec<RecordId>,
    /// Each with its blocks, deleted ones included.
    changes: Vec<(RecordId, Vec<RecordId>)>,
    /// Deleted ones included.
    all_changes: Vec<RecordId>,
    sessions: Vec<SessionId>,
    conflicts: Vec<RecordId>,
    points: Vec<RecordId>,
    revision: Revision,
}

impl Ids {
    pub fn of(node: &Node) -> Self {
        let of_kind = |wanted: Kind| node.view.records().filter(move |(_, record)| record.kind() == wanted);
        let blocks = |change| node.view.all(Kind::Block, change).collect();
        Self {
            projects: of_kind(Kind::Project).map(|(id, _)| id).collect(),
            changes: of_kind(Kind::Change).map(|(id, _)| (id, blocks(id))).collect(),
            all_changes: of_kind(Kind::Project).flat_map(|(id, _)| node.view.all(Kind::Change, id)).collect(),
            sessions: node.machine.sessions().map(|(id, _)| id).collect(),
            conflicts: of_kind(Kind::Conflict).map(|(id, _)| id).collect(),
            points: of_kind(Kind::Point).map(|(id, _)| id).collect(),
            revision: node.machine.revision(),
        }
    }

    /// Projects and changes more often than what stands in them.
    fn expected(&self, wished: &[(Index, u64)]) -> Vec<Expected> {
        let blocks = self.changes.iter().flat_map(|(_, blocks)| blocks.iter().take(3));
        let all: Vec<RecordId> = self.projects.iter().chain(&self.all_changes).chain(blocks).copied().collect();
        let expected = wished.iter().map(|(record, age)| Expected {
            record: Self::pick(&all, *record),
            revision: Revision(self.revision.0.saturating_sub(*age)),
        });
        expected.collect()
    }

    /// One in thirty-two is a record that there never is.
    fn pick(known: &[RecordId], index: Index) -> RecordId {
        let nowhere = RecordId(EventId::new(Revision(1 << 40), 7).unwrap());
        if known.is_empty() || index.index(32) == 0 { nowhere } else { known[index.index(known.len())] }
    }
}

/// The age of a revision that isn't there yet.
const AHEAD: u64 = 1_000;

#[derive(Clone, Debug)]
pub struct Wish {
    request: Option<(Index, u64)>,
    /// What it expects unchanged since a revision of that age.
    expected: Vec<(Index, u64)>,
    body: BodyWish,
}

#[derive(Clone, Debug)]
enum BodyWish {
    OpenSession,
    CloseSession,
    CreateProject(String),
    CreateChange(Index, String, Vec<NewBlock>),
    DeleteChange(Index, u64),
    Edit { change: Index, age: u64, is_strict: bool, ops: Vec<OpWish>, conflicts: Vec<Index> },
    SetTask { change: Index, block: Index, age: Option<u64>, fields: Vec<FieldWish> },
    MoveChange(Index, String, String),
    Claim { change: Index, block: Index, holder: String, lease_ms: u64, fields: Vec<FieldWish> },
    Release { change: Index, block: Index, holder: Option<String> },
    Comment { change: Index, block: Index, text: String },
    CreatePoint { name: String, age: Option<u64> },
    RemovePoint(Index),
    SetPolicy { project: Index, age: Option<u64>, policy: Policy },
    Rollback { scope: ScopeWish, age: u64, seen: Option<u64> },
    SetRetention(Keep),
    Compact { age: u64 },
}

#[derive(Clone, Debug)]
enum ScopeWish {
    All,
    Project(Index),
    Change(Index),
}

#[derive(Clone, Debug)]
enum OpWish {
    Insert(AnchorWish, NewBlock),
    SetText(Index, NewBlock),
    SetMark(Index, String, Option<Status>),
    Move(Index, AnchorWish),
    Delete(Index),
    SetFields(RefWish, Vec<FieldWish>),
    SetBlockers(RefWish, Vec<RefWish>),
    Resolve(Index),
}

#[derive(Clone, Debug)]
enum RefWish {
    Known(Index),
    New(u32),
}

#[derive(Clone, Debug)]
enum AnchorWish {
    Start,
    After(Index),
    AfterNew(u32),
}

#[derive(Clone, Debug)]
enum FieldWish {
    Plain(TaskField),
    BlockedBy(Vec<Index>),
}

impl Wish {
    /// The command, for the state that has these records.
    pub fn resolve(self, ids: &Ids) -> Command {
        let request = self.request.map(|(session, seq)| {
            let none = SessionId(EventId::new(Revision(1 << 40), 9).unwrap());
            let known = (!ids.sessions.is_empty()).then(|| ids.sessions[session.index(ids.sessions.len())]);
            RequestId { session: known.unwrap_or(none), seq }
        });
        let (expected, body) = (ids.expected(&self.expected), self.body.resolve(ids));
        let body = if expected.is_empty() { body } else { Body::Expecting { expected, body: Box::new(body) } };
        Command { request, ..command(body) }
    }

    /// Whether it matters where in its entry the command stands.
    pub fn is_rollback(&self) -> bool {
        matches!(self.body, BodyWish::Rollback { .. })
    }
}

impl BodyWish {
    fn resolve(self, ids: &Ids) -> Body {
        let base = |age: u64| Revision(ids.revision.0.saturating_sub(age));
        let changes: Vec<RecordId> = ids.changes.iter().map(|(id, _)| *id).collect();
        let all: Vec<RecordId> = ids.changes.iter().flat_map(|(_, blocks)| blocks.clone()).collect();
        let of = |change| ids.changes.iter().find(|(id, _)| *id == change).map_or(&[][..], |(_, blocks)| blocks);
        match self {
            Self::OpenSession => Body::OpenSession,
            Self::CloseSession => Body::CloseSession,
            Self::CreateProject(name) => Body::CreateProject { name, files: vec!["*.md".to_owned()] },
            Self::CreateChange(project, path, blocks) => {
                Body::CreateChange { project: Ids::pick(&ids.projects, project), path, blocks, ops: Vec::new() }
            }
            Self::DeleteChange(change, age) => {
                Body::DeleteChange { change: Ids::pick(&changes, change), base: base(age) }
            }
            Self::Edit { change, age, is_strict, ops, conflicts } => {
                let change = Ids::pick(&changes, change);
                let blocks = of(change);
                Body::Edit {
                    change,
                    base: base(age),
                    mode: if is_strict { EditMode::Strict } else { EditMode::Merge },
                    ops: ops.into_iter().map(|op| op.resolve(blocks, ids)).collect(),
                    conflicts: conflicts.into_iter().map(|block| conflict(Ids::pick(blocks, block))).collect(),
                }
            }
            Self::SetTask { change, block, age, fields } => Body::SetTask {
                task: Ids::pick(of(Ids::pick(&changes, change)), block),
                expected: age.map(base),
                fields: fields.into_iter().map(|field| field.resolve(&all)).collect(),
                mark: None,
            },
            Self::MoveChange(change, path, from) => {
                Body::MoveChange { change: Ids::pick(&changes, change), path, from }
            }
            Self::Claim { change, block, holder, lease_ms, fields } => Body::Claim {
                task: Ids::pick(of(Ids::pick(&changes, change)), block),
                holder,
                lease_ms,
                fields: fields.into_iter().map(|field| field.resolve(&all)).collect(),
                mark: None,
            },
            Self::Release { change, block, holder } => {
                Body::Release { task: Ids::pick(of(Ids::pick(&changes, change)), block), holder }
            }
            Self::Comment { change, block, text } => {
                Body::Comment { task: Ids::pick(of(Ids::pick(&changes, change)), block), text }
            }
            Self::CreatePoint { name, age } => {
                Body::CreatePoint { name, at: age.map(base), note: String::new(), is_automatic: false }
            }
            Self::RemovePoint(point) => Body::RemovePoint { point: Ids::pick(&ids.points, point) },
            Self::SetPolicy { project, age, policy } => {
                Body::SetPolicy { project: Ids::pick(&ids.projects, project), expected: age.map(base), policy }
            }
            Self::Rollback { scope, age, seen } => Body::Rollback {
                scope: match scope {
                    ScopeWish::All => Scope::All,
                    ScopeWish::Project(project) => Scope::Project(Ids::pick(&ids.projects, project)),
                    ScopeWish::Change(change) => Scope::Change(Ids::pick(&ids.all_changes, change)),
                },
                to: if age == AHEAD { Revision(ids.revision.0 + AHEAD) } else { base(age) },
                expected: seen.map(base),
            },
            Self::SetRetention(keep) => Body::SetRetention { keep },
            Self::Compact { age } => Body::Compact {
                to: if age == AHEAD { Revision(ids.revision.0 + AHEAD) } else { base(age) },
                time: ClusterTime(7),
            },
        }
    }
}

fn conflict(block: RecordId) -> NewConflict {
    NewConflict {
        block: Some(block),
        class: ConflictClass::Data,
        field: "text".to_owned(),
        base: None,
        spec: Some("mine".to_owned()),
        runtime: Some("theirs".to_owned()),
        settlement: None,
    }
}

impl RefWish {
    fn resolve(self, blocks: &[RecordId]) -> BlockRef {
        match self {
            Self::Known(block) => BlockRef::Known(Ids::pick(blocks, block)),
            Self::New(nth) => BlockRef::New(nth),
        }
    }
}

impl OpWish {
    fn resolve(self, blocks: &[RecordId], ids: &Ids) -> BlockOp {
        let anchor = |anchor: AnchorWish| match anchor {
            AnchorWish::Start => Anchor::Start,
            AnchorWish::After(block) => Anchor::After(Ids::pick(blocks, block)),
            AnchorWish::AfterNew(number) => Anchor::AfterNew(number),
        };
        match self {
            Self::Insert(after, block) => BlockOp::Insert { after: anchor(after), block },
            Self::SetText(block, NewBlock { kind, lead, text, .. }) => {
                BlockOp::SetText { block: Ids::pick(blocks, block), kind, lead, text }
            }
            Self::SetMark(block, mark, status) => BlockOp::SetMark { block: Ids::pick(blocks, block), mark, status },
            Self::Move(block, after) => BlockOp::Move { block: Ids::pick(blocks, block), after: anchor(after) },
            Self::Delete(block) => BlockOp::Delete { block: Ids::pick(blocks, block) },
            Self::SetFields(block, fields) => BlockOp::SetFields {
                block: block.resolve(blocks),
                fields: fields.into_iter().map(|field| field.resolve(blocks)).collect(),
            },
            Self::SetBlockers(block, on) => BlockOp::SetBlockers {
                block: block.resolve(blocks),
                on: on.into_iter().map(|each| each.resolve(blocks)).collect(),
            },
            Self::Resolve(conflict) => BlockOp::Resolve {
                conflict: Ids::pick(&ids.conflicts, conflict),
                settlement: Settlement { strategy: Way::Skip, by: SettledBy::User, value: None },
            },
        }
    }
}

impl FieldWish {
    fn resolve(self, all: &[RecordId]) -> TaskField {
        match self {
            Self::Plain(field) => field,
            Self::BlockedBy(tasks) => {
                TaskField::BlockedBy(tasks.into_iter().map(|task| Ids::pick(all, task)).collect::<BTreeSet<_>>())
            }
        }
    }
}

fn new_block() -> impl Strategy<Value = NewBlock> {
    let task = (mark(), "[a-d]{1,2}").prop_map(|(mark, text)| NewBlock {
        kind: 2,
        lead: "- [".to_owned(),
        mark,
        text: format!("] {text}\n"),
    });
    let prose = (prop::sample::select(vec![1_u8, 3, 4, 99]), "[a-d]{0,2}").prop_map(|(kind, text)| NewBlock {
        kind,
        lead: String::new(),
        mark: String::new(),
        text: text + "\n",
    });
    prop_oneof![6 => task, 3 => prose, 1 => any::<(u8, String, String, String)>().prop_map(|(kind, lead, mark, text)| NewBlock {
        kind,
        lead,
        mark,
        text,
    })]
}

fn mark() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "X", " ", "-", "", "v"]).prop_map(str::to_owned)
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Todo,
        Status::InProgress,
        Status::Review,
        Status::Blocked,
        Status::Done,
        Status::Cancelled,
        Status::Archived,
    ])
}

fn anchor() -> impl Strategy<Value = AnchorWish> {
    prop_oneof![
        1 => Just(AnchorWish::Start),
        4 => any::<Index>().prop_map(AnchorWish::After),
        2 => (0_u32..3).prop_map(AnchorWish::AfterNew),
    ]
}

fn op() -> impl Strategy<Value = OpWish> {
    prop_oneof![
        (anchor(), new_block()).prop_map(|(anchor, block)| OpWish::Insert(anchor, block)),
        (any::<Index>(), new_block()).prop_map(|(block, new)| OpWish::SetText(block, new)),
        (any::<Index>(), mark(), prop::option::of(status()))
            .prop_map(|(block, mark, status)| OpWish::SetMark(block, mark, status)),
        (any::<Index>(), anchor()).prop_map(|(block, anchor)| OpWish::Move(block, anchor)),
        any::<Index>().prop_map(OpWish::Delete),
        (block_ref(), prop::collection::vec(field(), 0..3))
            .prop_map(|(block, fields)| OpWish::SetFields(block, fields)),
        (block_ref(), prop::collection::vec(block_ref(), 0..3)).prop_map(|(block, on)| OpWish::SetBlockers(block, on)),
        any::<Index>().prop_map(OpWish::Resolve),
    ]
}

fn block_ref() -> impl Strategy<Value = RefWish> {
    prop_oneof![3 => any::<Index>().prop_map(RefWish::Known), 1 => (0_u32..3).prop_map(RefWish::New)]
}

fn policy() -> impl Strategy<Value = Policy> {
    let steps = prop::collection::btree_map(status(), prop::collection::btree_set(status(), 0..6), 0..2);
    let fields = prop::sample::select(vec!["text", "mark", "colour"]).prop_map(str::to_owned);
    let strategies = prop::collection::btree_map(fields, Just(Way::Merge), 0..2);
    (steps, strategies).prop_map(|(transitions, strategies)| Policy { strategies, transitions, ..Policy::default() })
}

fn field() -> impl Strategy<Value = FieldWish> {
    let plain = prop_oneof![
        3 => status().prop_map(TaskField::Status),
        1 => prop::option::of("[ab]").prop_map(TaskField::Assignee),
        1 => prop::option::of(Just(Priority::High)).prop_map(TaskField::Priority),
        1 => prop::option::of("2026-1[0-4]-[0-3]0").prop_map(TaskField::Due),
        1 => prop::collection::btree_set("[ab]", 0..3).prop_map(TaskField::Labels),
        1 => "[ab]{0,2}".prop_map(TaskField::Note),
    ];
    prop_oneof![
        6 => plain.prop_map(FieldWish::Plain),
        2 => prop::collection::vec(any::<Index>(), 0..3).prop_map(FieldWish::BlockedBy),
    ]
}

fn age() -> impl Strategy<Value = u64> {
    prop_oneof![5 => Just(0), 4 => 1_u64..4, 1 => 4_u64..40]
}

fn rollback() -> impl Strategy<Value = BodyWish> {
    let scope = prop_oneof![
        2 => Just(ScopeWish::All),
        2 => any::<Index>().prop_map(ScopeWish::Project),
        3 => any::<Index>().prop_map(ScopeWish::Change),
    ];
    let age = prop_oneof![4 => 1_u64..6, 2 => 6_u64..40, 1 => Just(0), 1 => Just(AHEAD)];
    (scope, age, prop::option::weighted(0.1, 0_u64..3)).prop_map(|(scope, age, seen)| BodyWish::Rollback {
        scope,
        age,
        seen,
    })
}

fn compact() -> impl Strategy<Value = BodyWish> {
    let keep = (prop::option::of(0_u64..3), prop::option::of(1_u64..3))
        .prop_map(|(revisions, age_ms)| BodyWish::SetRetention(Keep { revisions, age_ms }));
    let age = prop_oneof![4 => 1_u64..8, 1 => Just(0), 1 => Just(AHEAD)];
    prop_oneof![1 => keep, 2 => age.prop_map(|age| BodyWish::Compact { age })]
}

fn body() -> impl Strategy<Value = BodyWish> {
    let path =
        prop::sample::select(vec!["a/tasks.md", "b/tasks.md", "A/tasks.md", "c.md", "../d.md"]).prop_map(str::to_owned);
    let moved = prop::sample::select(vec!["a/tasks.md", "b/tasks.md", "old/a.md"]).prop_map(str::to_owned);
    let claim = (
        any::<Index>(),
        any::<Index>(),
        "[ab]",
        prop_oneof![4 => 1_u64..50, 1 => Just(0)],
        prop::collection::vec(field(), 0..2),
    );
    let blocks = prop::collection::vec(new_block(), 0..6);
    let edit = (
        any::<Index>(),
        age(),
        prop::bool::weighted(0.1),
        prop::collection::vec(op(), 0..5),
        prop::collection::vec(any::<Index>(), 0..2),
    );
    let set =
        (any::<Index>(), any::<Index>(), prop::option::weighted(0.3, age()), prop::collection::vec(field(), 0..4));
    prop_oneof![
        2 => Just(BodyWish::OpenSession),
        1 => Just(BodyWish::CloseSession),
        2 => "[pq]".prop_map(BodyWish::CreateProject),
        5 => (any::<Index>(), path, blocks).prop_map(|(project, path, blocks)| BodyWish::CreateChange(project, path, blocks)),
        1 => (any::<Index>(), age()).prop_map(|(change, age)| BodyWish::DeleteChange(change, age)),
        16 => edit.prop_map(|(change, age, is_strict, ops, conflicts)| BodyWish::Edit { change, age, is_strict, ops, conflicts }),
        1 => (any::<Index>(), moved.clone(), moved).prop_map(|(change, path, from)| BodyWish::MoveChange(change, path, from)),
        4 => claim.prop_map(|(change, block, holder, lease_ms, fields)| BodyWish::Claim { change, block, holder, lease_ms, fields }),
        2 => (any::<Index>(), any::<Index>(), prop::option::of("[ab]"))
            .prop_map(|(change, block, holder)| BodyWish::Release { change, block, holder }),
        1 => (any::<Index>(), any::<Index>(), "[ab ]{0,2}").prop_map(|(change, block, text)| BodyWish::Comment { change, block, text }),
        1 => ("[rs1]", prop::option::of(age())).prop_map(|(name, age)| BodyWish::CreatePoint { name, age }),
        1 => any::<Index>().prop_map(BodyWish::RemovePoint),
        1 => (any::<Index>(), prop::option::of(age()), policy())
            .prop_map(|(project, age, policy)| BodyWish::SetPolicy { project, age, policy }),
        2 => rollback(),
        8 => set.prop_map(|(change, block, age, fields)| BodyWish::SetTask { change, block, age, fields }),
    ]
}

/// One command, half of them requests of a session.
pub fn wish() -> impl Strategy<Value = Wish> {
    asked(body())
}

fn asked(body: impl Strategy<Value = BodyWish>) -> impl Strategy<Value = Wish> {
    let request = prop::option::of((any::<Index>(), prop_oneof![20 => 0_u64..20, 1 => 200_u64..600]));
    let age = prop_oneof![3 => Just(0), 3 => 1_u64..4, 2 => 4_u64..40];
    let expected = prop_oneof![9 => Just(Vec::new()), 1 => prop::collection::vec((any::<Index>(), age), 1..3)];
    (request, expected, body).prop_map(|(request, expected, body)| Wish { request, expected, body })
}

/// Entries of a few commands each, after a project has been made; all of the history is kept.
pub fn batches() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    batches_of(wish())
}

/// The same, and now and then history is let go of.
pub fn forgetful_batches() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    batches_of(asked(prop_oneof![24 => body(), 1 => compact()]))
}

fn batches_of(wish: impl Strategy<Value = Wish>) -> impl Strategy<Value = Vec<Vec<Wish>>> {
    let first = Wish { request: None, expected: Vec::new(), body: BodyWish::CreateProject("p".to_owned()) };
    prop::collection::vec(prop::collection::vec(wish, 1..6), 1..20).prop_map(move |mut rest| {
        rest.insert(0, vec![first.clone()]);
        rest
    })
}
