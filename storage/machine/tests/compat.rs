//! Frozen examples of every stored format: what was written once is read for ever, and written the same.
//!
//! Each file in `tests/compat` holds one value a line, `name hex`. A test that fails here means that stored data would be read
//! wrongly or that nodes of two versions would disagree: give the format a new version, keep the old file, add a new one. (The
//! first versions of some formats were never released and are gone: docs/adr/0009-formats-begin-at-two.md.)

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use zyflow_machine::command::{
    Anchor, Author, Batch, BlockOp, BlockRef, Body, Command, EditMode, Expected, NewBlock, NewConflict, Scope,
    TaskField,
};
use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::format::{self, FormatError};
use zyflow_machine::id::{ClusterTime, EventId, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::{Outcome, Reject, StaleField};
use zyflow_machine::record::{
    Block, Change, Claim, Comment, Conflict, ConflictClass, Field, Keep, OrderKey, Point, Policy, Priority, Project,
    Record, Restore, Retention, Settled, SettledBy, Settlement, Status, Strategy, TaskFields,
};
use zyflow_machine::{Digest, Machine, MapView};

fn id(revision: u64, ordinal: u32) -> RecordId {
    RecordId(EventId::new(Revision(revision), ordinal).unwrap())
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn request() -> RequestId {
    RequestId { session: SessionId(id(3, 1).0), seq: 300 }
}

fn author() -> Author {
    Author { name: text("ann@desk"), clock_ms: 1_790_000_000_123 }
}

fn new_block() -> NewBlock {
    NewBlock { kind: 2, lead: text("  - ["), mark: text("x"), text: text("] 1.2 Grüße\r\n") }
}

fn fields() -> Vec<TaskField> {
    vec![
        TaskField::Status(Status::Review),
        TaskField::Assignee(Some(text("bob"))),
        TaskField::Priority(Some(Priority::High)),
        TaskField::Due(Some(text("2026-12-24"))),
        TaskField::Labels(BTreeSet::from([text("ui"), text("api")])),
        TaskField::BlockedBy(BTreeSet::from([id(9, 4), id(2, 2)])),
        TaskField::Note(text("see 1.1")),
        TaskField::Requirements(BTreeSet::from([text("1.1"), text("2.3")])),
    ]
}

fn conflict() -> Conflict {
    Conflict {
        change: id(2, 0),
        block: Some(id(2, 7)),
        class: ConflictClass::Structure,
        field: text("existence"),
        base: Some(text("old")),
        spec: None,
        runtime: Some(text("new")),
        author: text("ann@desk"),
        settled: Some(settled()),
    }
}

fn settlement() -> Settlement {
    Settlement { strategy: Strategy::Merge, by: SettledBy::User, value: Some(text("both")) }
}

fn settled() -> Settled {
    Settled { at: Revision(77), author: text("bob"), settlement: settlement() }
}

fn policy() -> Policy {
    Policy {
        strategy: Strategy::LastWriteWins,
        strategies: BTreeMap::from([(text("mark"), Strategy::SpecWins), (text("text"), Strategy::RuntimeWins)]),
        order: vec![Status::Todo, Status::Done],
        transitions: BTreeMap::from([(Status::Todo, BTreeSet::from([Status::InProgress, Status::Cancelled]))]),
        convention: Some(text("kiro,~=blocked")),
    }
}

fn restore() -> Restore {
    Restore { cut: Revision(700), last: Revision(900) }
}

fn claim() -> Claim {
    Claim { holder: text("agent-7"), until: ClusterTime(1_790_000_060_000) }
}

fn comment() -> Comment {
    Comment { task: id(2, 7), author: text("ann@desk"), time: ClusterTime(1_790_000_000_000), text: text("why?") }
}

fn point() -> Point {
    Point {
        name: text("before-release"),
        revision: Revision(41),
        note: text("1.0"),
        author: text("ann@desk"),
        time: ClusterTime(1_790_000_000_000),
        is_automatic: true,
    }
}

fn edit() -> Body {
    let conflict = NewConflict {
        block: Some(id(2, 7)),
        class: ConflictClass::Dependency,
        field: text("place"),
        base: Some(text("a")),
        spec: Some(text("b")),
        runtime: None,
        settlement: Some(settlement()),
    };
    Body::Edit {
        change: id(2, 0),
        base: Revision(128),
        mode: EditMode::Strict,
        ops: vec![
            BlockOp::Insert { after: Anchor::Start, block: new_block() },
            BlockOp::Insert { after: Anchor::After(id(2, 3)), block: new_block() },
            BlockOp::SetText { block: id(2, 1), kind: 3, lead: String::new(), text: text("words\n") },
            BlockOp::SetMark { block: id(2, 2), mark: text("-"), status: Some(Status::InProgress) },
            BlockOp::Move { block: id(2, 3), after: Anchor::AfterNew(1) },
            BlockOp::Delete { block: id(2, 4) },
            BlockOp::SetFields { block: BlockRef::New(1), fields: fields() },
            BlockOp::SetBlockers {
                block: BlockRef::Known(id(2, 2)),
                on: BTreeSet::from([BlockRef::Known(id(2, 1)), BlockRef::New(0)]),
            },
            BlockOp::Resolve { conflict: id(5, 5), settlement: settlement() },
        ],
        conflicts: vec![conflict],
    }
}

fn batch() -> Batch {
    let bodies = [
        Body::OpenSession,
        Body::CloseSession,
        Body::CreateProject { name: text("demo"), files: vec![text("openspec/changes/*/tasks.md")] },
        Body::CreateChange {
            project: id(1, 0),
            path: text("a/tasks.md"),
            blocks: vec![new_block()],
            ops: vec![BlockOp::SetFields { block: BlockRef::New(0), fields: fields() }],
        },
        Body::MoveChange { change: id(2, 0), path: text("archive/tasks.md"), from: text("a/tasks.md") },
        Body::DeleteChange { change: id(2, 0), base: Revision(5) },
        edit(),
        Body::SetTask { task: id(2, 7), expected: Some(Revision(1 << 40)), fields: fields(), mark: Some(text("-")) },
        Body::Claim { task: id(2, 7), holder: text("agent-7"), lease_ms: 60_000, fields: fields(), mark: None },
        Body::Release { task: id(2, 7), holder: Some(text("agent-7")) },
        Body::Comment { task: id(2, 7), text: text("why?") },
        Body::CreatePoint { name: text("p"), at: Some(Revision(4)), note: text("n"), is_automatic: false },
        Body::RemovePoint { point: id(6, 0) },
        Body::SetPolicy { project: id(1, 0), expected: Some(Revision(3)), policy: policy() },
    ];
    sealed(bodies)
}

fn rollbacks() -> Batch {
    sealed([
        Body::Rollback { scope: Scope::All, to: Revision(4), expected: None },
        Body::Rollback { scope: Scope::Project(id(1, 0)), to: Revision(4), expected: Some(Revision(77)) },
        Body::Rollback { scope: Scope::Change(id(2, 0)), to: Revision(4), expected: None },
    ])
}

fn retentions() -> Batch {
    sealed([
        Body::SetRetention { keep: keep() },
        Body::Compact { to: Revision(1 << 40), time: ClusterTime(1_790_000_000_000) },
    ])
}

fn keep() -> Keep {
    Keep { revisions: Some(100_000), age_ms: Some(7_776_000_000) }
}

fn every_batch() -> [(&'static str, Batch); 5] {
    [
        ("every-command", batch()),
        ("expecting", expecting()),
        ("group", group()),
        ("rollbacks", rollbacks()),
        ("retentions", retentions()),
    ]
}

fn sealed<const N: usize>(bodies: [Body; N]) -> Batch {
    let commands = bodies.into_iter().zip([None, Some(request())].into_iter().cycle());
    let commands = commands.map(|(body, request)| Command { request, author: author(), body });
    Batch { stamped: ClusterTime(1_790_000_000_000), commands: commands.collect() }
}

fn expecting() -> Batch {
    let expected = vec![
        Expected { record: id(2, 7), revision: Revision(9) },
        Expected { record: id(1, 0), revision: Revision(1 << 40) },
    ];
    let body = Box::new(Body::Release { task: id(2, 7), holder: None });
    let body = Body::Expecting { expected, body };
    Batch {
        stamped: ClusterTime(1_790_000_000_000),
        commands: vec![Command { request: Some(request()), author: author(), body }],
    }
}

fn group() -> Batch {
    let bodies =
        vec![Body::Release { task: id(2, 7), holder: None }, Body::Comment { task: id(2, 7), text: text("why?") }];
    let command = Command { request: Some(request()), author: author(), body: Body::Group { bodies } };
    Batch { stamped: ClusterTime(1_790_000_000_000), commands: vec![command] }
}

fn records() -> Vec<(&'static str, Option<Record>)> {
    let mut task = TaskFields::default();
    for (at, field) in (10..).zip(fields()) {
        task.set(&field, Revision(at));
    }
    task.claim = Field::new(Some(claim()), Revision(30));
    let block = Block {
        change: id(2, 0),
        kind: 2,
        order: Field::new(OrderKey(vec![0x80, 0xc0, 7]), Revision(4)),
        lead: text("- ["),
        mark: Field::new(text(" "), Revision(5)),
        text: Field::new(text("] Tell\n"), Revision(6)),
        task: Some(Box::new(task)),
    };
    let prose = Block { kind: 3, lead: String::new(), mark: Field::default(), task: None, ..block.clone() };
    vec![
        ("deleted", None),
        ("project", Some(Record::Project(project()))),
        ("change", Some(Record::Change(Change { project: id(1, 0), path: text("a/tasks.md") }))),
        ("task", Some(Record::Block(block))),
        ("prose", Some(Record::Block(prose))),
        ("conflict", Some(Record::Conflict(conflict()))),
        ("open-conflict", Some(Record::Conflict(Conflict { settled: None, ..conflict() }))),
        ("comment", Some(Record::Comment(comment()))),
        ("point", Some(Record::Point(point()))),
        (
            "retention",
            Some(Record::Retention(Retention {
                keep: Keep { age_ms: None, ..keep() },
                horizon: Revision(77),
                horizon_time: ClusterTime(1_790_000_000_000),
            })),
        ),
        ("restore", Some(Record::Restore(restore()))),
    ]
}

fn project() -> Project {
    Project { name: text("demo"), files: vec![text("*.md")], policy: Field::new(policy(), Revision(3)) }
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let stale = StaleField { record: id(2, 7), field: text("mark"), changed_at: id(9, 4).0 };
    let accepted = Outcome::Accepted { revision: Revision(9), created: vec![id(9, 4), id(9, 5)] };
    let rejected = |reject| Outcome::Rejected(reject);
    vec![
        ("accepted", accepted.clone()),
        ("stale", Outcome::Stale { revision: Revision(9), fields: vec![stale] }),
        ("not-found", rejected(Reject::NotFound { what: text("task"), id: id(2, 7) })),
        ("exists", rejected(Reject::Exists { what: text("project"), name: text("demo"), id: id(1, 0) })),
        ("wrong-kind", rejected(Reject::WrongKind { what: text("task"), id: id(2, 7) })),
        ("over-limit", rejected(Reject::OverLimit { what: text("bytes of a note"), actual: 65_537, limit: 65_536 })),
        ("invalid", rejected(Reject::Invalid(text("a label is blank")))),
        ("session-expired", rejected(Reject::SessionExpired)),
        ("request-too-old", rejected(Reject::RequestTooOld { seq: 44, window: 256 })),
        (
            "claimed",
            rejected(Reject::Claimed { task: id(2, 7), holder: text("bob"), until: ClusterTime(1_790_000_060_000) }),
        ),
        ("transition", rejected(Reject::Transition { task: id(2, 7), from: Status::Todo, to: Status::Done })),
        ("duplicate", Outcome::Duplicate(Box::new(accepted))),
        (
            "no-revision",
            rejected(Reject::NoRevision { revision: Revision(3), oldest: Revision(5), newest: Revision(77) }),
        ),
    ]
}

fn facts() -> Vec<(&'static str, Fact)> {
    let order = OrderKey(vec![0x80, 0xc0, 7]);
    vec![
        ("project-created", Fact::ProjectCreated { name: text("demo"), files: vec![text("*.md")] }),
        ("change-created", Fact::ChangeCreated { project: id(1, 0), path: text("a/tasks.md") }),
        ("change-deleted", Fact::ChangeDeleted),
        (
            "block-inserted",
            Fact::BlockInserted {
                change: id(2, 0),
                order: order.clone(),
                block: new_block(),
                status: Some(Status::Done),
            },
        ),
        ("text-set", Fact::BlockTextSet { kind: 3, lead: String::new(), text: text("words\n") }),
        ("marked", Fact::BlockMarked { mark: text("x"), status: Some(Status::Done) }),
        ("moved", Fact::BlockMoved { order }),
        ("deleted", Fact::BlockDeleted),
        ("task-set", Fact::TaskSet { fields: fields(), mark: Some(text(" ")) }),
        ("conflict", Fact::ConflictRecorded(conflict())),
        ("conflict-settled", Fact::ConflictSettled(settled())),
        ("change-moved", Fact::ChangeMoved { path: text("archive/tasks.md") }),
        ("policy-set", Fact::PolicySet(policy())),
        ("claimed", Fact::Claimed { claim: claim(), fields: fields(), mark: Some(text("-")) }),
        ("released", Fact::Released),
        ("commented", Fact::Commented(comment())),
        ("point-created", Fact::PointCreated(point())),
        ("point-removed", Fact::PointRemoved),
        ("change-restored", Fact::ChangeRestored { path: text("a/tasks.md") }),
        (
            "block-restored",
            Fact::BlockRestored { order: OrderKey(vec![0x80, 0xc0, 7]), block: new_block(), fields: fields() },
        ),
        ("conflict-restored", Fact::ConflictRestored { settled: Some(settled()) }),
        ("retention-created", Fact::RetentionCreated(keep())),
        ("retention-set", Fact::RetentionSet(Keep::default())),
        ("horizon-moved", Fact::HorizonMoved { to: Revision(77), time: ClusterTime(1_790_000_000_000) }),
        ("backup-restored", Fact::Restored(restore())),
    ]
}

fn of_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Holds `values` against the lines of a frozen file, byte for byte, in both directions.
fn check<T: Debug + PartialEq>(
    frozen: &str,
    values: &[(&str, T)],
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let mut written = String::new();
    for (name, value) in values {
        writeln!(written, "{name} {}", to_hex(&encode(value))).unwrap();
    }
    assert_eq!(written, frozen, "the format is written in another way than it was");
    for (line, (name, value)) in frozen.lines().zip(values) {
        let bytes = of_hex(line.split_once(' ').unwrap().1);
        assert_eq!(&decode(&bytes).unwrap(), value, "{name}");
        refuses_damage(&bytes, &decode);
    }
}

fn refuses_damage<T: Debug>(bytes: &[u8], decode: &impl Fn(&[u8]) -> Result<T, FormatError>) {
    let own = u16::from_be_bytes([bytes[0], bytes[1]]);
    for end in 0..bytes.len() {
        assert!(matches!(decode(&bytes[..end]), Err(FormatError::Malformed { .. })), "{end} bytes of {}", bytes.len());
    }
    let longer = [bytes, &[0]].concat();
    assert!(matches!(decode(&longer), Err(FormatError::TrailingBytes { count: 1, .. })));
    for version in [own - 1, own + 1, u16::MAX] {
        let other = [&version.to_be_bytes(), &bytes[2..]].concat();
        let refused = decode(&other).unwrap_err();
        assert!(
            matches!(refused, FormatError::UnknownVersion { found, known, .. } if (found, known) == (version, own)),
            "{refused}"
        );
    }
}

#[test]
fn batches() {
    let frozen = include_str!("../../../tests/compat/batch-v2.hex");
    let batches = every_batch();
    check(frozen, &batches, format::encode_batch, format::decode_batch);
}

#[test]
fn versions_of_records() {
    let frozen = include_str!("../../../tests/compat/record-v2.hex");
    check(frozen, &records(), |record| format::encode_record(record.as_ref()), format::decode_record);
}

#[test]
fn outcomes_of_commands() {
    check(
        include_str!("../../../tests/compat/outcome-v2.hex"),
        &outcomes(),
        format::encode_outcome,
        format::decode_outcome,
    );
}

#[test]
fn facts_of_events() {
    check(include_str!("../../../tests/compat/fact-v2.hex"), &facts(), format::encode_fact, format::decode_fact);
}

#[test]
fn provenance_of_versions() {
    let provenance = Provenance { author: author(), time: ClusterTime(1_790_000_000_000), request: Some(request()) };
    let frozen = include_str!("../../../tests/compat/provenance-v1.hex");
    check(frozen, &[("request", provenance)], format::encode_provenance, format::decode_provenance);
}

/// The header and the sessions of a machine that has lived a little, and its digest.
#[test]
fn a_machine_at_rest() {
    let (mut machine, mut view) = (Machine::new(), MapView::new());
    let entry = |bodies: Vec<(Option<RequestId>, Body)>| Batch {
        stamped: ClusterTime(1_790_000_000_000),
        commands: bodies.into_iter().map(|(request, body)| Command { request, author: author(), body }).collect(),
    };
    let request = |seq| Some(RequestId { session: SessionId(id(1, 0).0), seq });
    let create = Body::CreateProject { name: text("demo"), files: vec![text("*.md")] };
    let change =
        Body::CreateChange { project: id(2, 0), path: text("tasks.md"), blocks: vec![new_block()], ops: Vec::new() };
    let set =
        Body::SetTask { task: id(3, 1), expected: None, fields: vec![TaskField::Note(text("noted"))], mark: None };
    for (revision, bodies) in (1..).zip([
        vec![(None, Body::OpenSession)],
        vec![(request(1), create.clone())],
        vec![(None, change)],
        vec![(request(3), set), (request(2), create)],
    ]) {
        let effects = machine.apply(&view, Revision(revision), &entry(bodies)).unwrap();
        view.commit_effects(&effects);
    }
    machine.skip(Revision(9));

    let mut written = format!("digest {}\nheader {}\n", machine.digest(), to_hex(&machine.save().header));
    for (id, bytes) in machine.sessions() {
        writeln!(written, "session-{} {}", id.0, to_hex(&bytes)).unwrap();
    }
    let frozen = include_str!("../../../tests/compat/machine-v2.hex");
    assert_eq!(written, frozen, "the format is written in another way than it was");

    let lines: Vec<Vec<u8>> = frozen.lines().skip(1).map(|line| of_hex(line.split_once(' ').unwrap().1)).collect();
    let session = (SessionId(id(1, 0).0), lines[1].clone());
    let restored = Machine::restore(&lines[0], std::iter::once(session.clone())).unwrap();
    assert_eq!(restored.save(), machine.save());
    assert_eq!(restored.digest(), machine.digest());
    assert!(restored.sessions().eq(machine.sessions()));
    refuses_damage(&lines[0], &|bytes| Machine::restore(bytes, std::iter::once(session.clone())));
    refuses_damage(&lines[1], &|bytes| zyflow_machine::session::digest_of_saved(session.0, bytes));
}

#[test]
fn digests_of_rows() {
    let mut written = String::new();
    for (name, record) in records() {
        if let Some(record) = record {
            writeln!(written, "{name} {}", Digest::of_row(id(2, 7), &record)).unwrap();
        }
    }
    assert_eq!(
        written,
        include_str!("../../../tests/compat/digest-v2.hex"),
        "the digest of a row changed: nodes of two versions disagree"
    );
}

#[test]
fn a_duplicate_nested_in_a_duplicate_is_refused_before_the_stack_is_full() {
    let mut bytes = vec![0, 2];
    bytes.extend(std::iter::repeat_n(3, 4 << 20));
    assert!(matches!(format::decode_outcome(&bytes), Err(FormatError::Inconsistent { .. })));
    let overlong = [&[0, 2], [0x83, 0].repeat(1 << 20).as_slice()].concat();
    assert!(matches!(format::decode_outcome(&overlong), Err(FormatError::Inconsistent { .. })));
}
