//! Laws: out and in again is the same; anything that isn't what its type promises is refused by the field's name.

use super::*;
use crate::v1;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use std::time::Duration;
use zyflow_machine::command::{
    Anchor, Author, BlockOp, BlockRef, Body, Command, EditMode, Expected, NewBlock, NewConflict, Scope, TaskField,
};
use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::id::{ClusterTime, EventId, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::{Outcome, Reject, StaleField};
use zyflow_machine::record::{
    Block, Change, Claim, Comment, Conflict, ConflictClass, Field, Kind, OrderKey, Point, Policy, Priority, Project,
    Restore, Settled, SettledBy, Settlement, Status, Strategy as Way, TaskFields,
};

fn event() -> impl Strategy<Value = EventId> {
    (0..=i64::MAX.cast_unsigned()).prop_map(EventId::from_u64)
}

fn record() -> impl Strategy<Value = RecordId> {
    event().prop_map(RecordId)
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision)
}

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn maybe_text() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL.to_vec())
}

fn way() -> impl Strategy<Value = Way> {
    prop::sample::select(vec![Way::SpecWins, Way::RuntimeWins, Way::LastWriteWins, Way::Merge, Way::Manual, Way::Skip])
}

fn settlement() -> impl Strategy<Value = Settlement> {
    let by = prop::sample::select(vec![SettledBy::Auto, SettledBy::User, SettledBy::System]);
    (way(), by, maybe_text()).prop_map(|(strategy, by, value)| Settlement { strategy, by, value })
}

fn settled() -> impl Strategy<Value = Settled> {
    (revision(), text(), settlement()).prop_map(|(at, author, settlement)| Settled { at, author, settlement })
}

fn policy() -> impl Strategy<Value = Policy> {
    let transitions = btree_map(status(), btree_set(status(), 0..3), 0..3);
    (way(), btree_map(text(), way(), 0..3), vec(status(), 0..4), transitions, maybe_text()).prop_map(
        |(strategy, strategies, order, transitions, convention)| Policy {
            strategy,
            strategies,
            order,
            transitions,
            convention,
        },
    )
}

fn claim() -> impl Strategy<Value = Claim> {
    (text(), any::<u64>()).prop_map(|(holder, until)| Claim { holder, until: ClusterTime(until) })
}

fn comment() -> impl Strategy<Value = Comment> {
    (record(), text(), any::<u64>(), text()).prop_map(|(task, author, time, text)| Comment {
        task,
        author,
        time: ClusterTime(time),
        text,
    })
}

fn point() -> impl Strategy<Value = Point> {
    (text(), revision(), text(), text(), any::<u64>(), any::<bool>()).prop_map(
        |(name, revision, note, author, time, is_automatic)| Point {
            name,
            revision,
            note,
            author,
            time: ClusterTime(time),
            is_automatic,
        },
    )
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(vec![Priority::Low, Priority::Medium, Priority::High])
}

fn class() -> impl Strategy<Value = ConflictClass> {
    prop::sample::select(vec![
        ConflictClass::Data,
        ConflictClass::Structure,
        ConflictClass::Version,
        ConflictClass::Dependency,
        ConflictClass::Permission,
        ConflictClass::Schema,
    ])
}

fn request() -> impl Strategy<Value = RequestId> {
    (event(), any::<u64>()).prop_map(|(session, seq)| RequestId { session: SessionId(session), seq })
}

fn author() -> impl Strategy<Value = Author> {
    (text(), any::<u64>()).prop_map(|(name, clock_ms)| Author { name, clock_ms })
}

fn new_block() -> impl Strategy<Value = NewBlock> {
    (any::<u8>(), text(), text(), text()).prop_map(|(kind, lead, mark, text)| NewBlock { kind, lead, mark, text })
}

fn anchor() -> impl Strategy<Value = Anchor> {
    prop_oneof![Just(Anchor::Start), record().prop_map(Anchor::After), any::<u32>().prop_map(Anchor::AfterNew)]
}

fn op() -> impl Strategy<Value = BlockOp> {
    prop_oneof![
        (anchor(), new_block()).prop_map(|(after, block)| BlockOp::Insert { after, block }),
        (record(), any::<u8>(), text(), text()).prop_map(|(block, kind, lead, text)| BlockOp::SetText {
            block,
            kind,
            lead,
            text
        }),
        (record(), text(), option::of(status())).prop_map(|(block, mark, status)| BlockOp::SetMark {
            block,
            mark,
            status
        }),
        (record(), anchor()).prop_map(|(block, after)| BlockOp::Move { block, after }),
        record().prop_map(|block| BlockOp::Delete { block }),
        (block_ref(), vec(task_field(), 0..4)).prop_map(|(block, fields)| BlockOp::SetFields { block, fields }),
        (block_ref(), btree_set(block_ref(), 0..4)).prop_map(|(block, on)| BlockOp::SetBlockers { block, on }),
        (record(), settlement()).prop_map(|(conflict, settlement)| BlockOp::Resolve { conflict, settlement }),
    ]
}

fn block_ref() -> impl Strategy<Value = BlockRef> {
    prop_oneof![record().prop_map(BlockRef::Known), any::<u32>().prop_map(BlockRef::New)]
}

fn new_conflict() -> impl Strategy<Value = NewConflict> {
    let values = (maybe_text(), maybe_text(), maybe_text());
    (option::of(record()), class(), text(), values, option::of(settlement())).prop_map(
        |(block, class, field, (base, spec, runtime), settlement)| NewConflict {
            block,
            class,
            field,
            base,
            spec,
            runtime,
            settlement,
        },
    )
}

fn task_field() -> impl Strategy<Value = TaskField> {
    prop_oneof![
        status().prop_map(TaskField::Status),
        maybe_text().prop_map(TaskField::Assignee),
        option::of(priority()).prop_map(TaskField::Priority),
        maybe_text().prop_map(TaskField::Due),
        btree_set(text(), 0..4).prop_map(TaskField::Labels),
        btree_set(record(), 0..4).prop_map(TaskField::BlockedBy),
        text().prop_map(TaskField::Note),
        btree_set(text(), 0..4).prop_map(TaskField::Requirements),
    ]
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::All), record().prop_map(Scope::Project), record().prop_map(Scope::Change)]
}

fn body() -> impl Strategy<Value = Body> {
    let mode = prop::sample::select(vec![EditMode::Merge, EditMode::Strict]);
    prop_oneof![
        Just(Body::OpenSession),
        Just(Body::CloseSession),
        (text(), vec(text(), 0..4)).prop_map(|(name, files)| Body::CreateProject { name, files }),
        (record(), text(), vec(new_block(), 0..4), vec(op(), 0..3))
            .prop_map(|(project, path, blocks, ops)| Body::CreateChange { project, path, blocks, ops }),
        (record(), text(), text()).prop_map(|(change, path, from)| Body::MoveChange { change, path, from }),
        (record(), revision()).prop_map(|(change, base)| Body::DeleteChange { change, base }),
        (record(), revision(), mode, vec(op(), 0..6), vec(new_conflict(), 0..3))
            .prop_map(|(change, base, mode, ops, conflicts)| Body::Edit { change, base, mode, ops, conflicts }),
        (record(), option::of(revision()), vec(task_field(), 0..4), maybe_text())
            .prop_map(|(task, expected, fields, mark)| Body::SetTask { task, expected, fields, mark }),
        (record(), text(), any::<u64>(), vec(task_field(), 0..4), maybe_text())
            .prop_map(|(task, holder, lease_ms, fields, mark)| Body::Claim { task, holder, lease_ms, fields, mark }),
        (record(), maybe_text()).prop_map(|(task, holder)| Body::Release { task, holder }),
        (record(), text()).prop_map(|(task, text)| Body::Comment { task, text }),
        (text(), option::of(revision()), text(), any::<bool>())
            .prop_map(|(name, at, note, is_automatic)| Body::CreatePoint { name, at, note, is_automatic }),
        record().prop_map(|point| Body::RemovePoint { point }),
        (record(), option::of(revision()), policy()).prop_map(|(project, expected, policy)| Body::SetPolicy {
            project,
            expected,
            policy
        }),
        (scope(), revision(), option::of(revision())).prop_map(|(scope, to, expected)| Body::Rollback {
            scope,
            to,
            expected
        }),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let deadline = option::of((1..u64::MAX / 2).prop_map(Duration::from_millis));
    let expected = vec((record(), revision()).prop_map(|(record, revision)| Expected { record, revision }), 0..3);
    (any::<u64>(), deadline, option::of(request()), author(), expected, body()).prop_map(
        |(call, deadline, request, author, expected, body)| {
            let body = if expected.is_empty() { body } else { Body::Expecting { expected, body: Box::new(body) } };
            Call { call, deadline, command: Command { request, author, body } }
        },
    )
}

fn reject() -> impl Strategy<Value = Reject> {
    prop_oneof![
        (text(), record()).prop_map(|(what, id)| Reject::NotFound { what, id }),
        (text(), text(), record()).prop_map(|(what, name, id)| Reject::Exists { what, name, id }),
        (text(), record()).prop_map(|(what, id)| Reject::WrongKind { what, id }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(what, actual, limit)| Reject::OverLimit {
            what,
            actual,
            limit
        }),
        text().prop_map(Reject::Invalid),
        Just(Reject::SessionExpired),
        (any::<u64>(), any::<u64>()).prop_map(|(seq, window)| Reject::RequestTooOld { seq, window }),
        (record(), claim()).prop_map(|(task, claim)| Reject::Claimed {
            task,
            holder: claim.holder,
            until: claim.until
        }),
        (record(), status(), status()).prop_map(|(task, from, to)| Reject::Transition { task, from, to }),
        (revision(), revision(), revision()).prop_map(|(revision, oldest, newest)| Reject::NoRevision {
            revision,
            oldest,
            newest
        }),
    ]
}

fn first_outcome() -> impl Strategy<Value = Outcome> {
    let stale_field =
        (record(), text(), event()).prop_map(|(record, field, changed_at)| StaleField { record, field, changed_at });
    prop_oneof![
        (revision(), vec(record(), 0..4)).prop_map(|(revision, created)| Outcome::Accepted { revision, created }),
        (revision(), vec(stale_field, 0..4)).prop_map(|(revision, fields)| Outcome::Stale { revision, fields }),
        reject().prop_map(Outcome::Rejected),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![first_outcome(), first_outcome().prop_map(|first| Outcome::Duplicate(Box::new(first)))]
}

fn conflict() -> impl Strategy<Value = Conflict> {
    let values = (maybe_text(), maybe_text(), maybe_text(), text(), option::of(settled()));
    (record(), option::of(record()), class(), text(), values).prop_map(
        |(change, block, class, field, (base, spec, runtime, author, settled))| Conflict {
            change,
            block,
            class,
            field,
            base,
            spec,
            runtime,
            author,
            settled,
        },
    )
}

fn field<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Field<T>> {
    (value, revision()).prop_map(|(value, at)| Field::new(value, at))
}

fn task_fields() -> impl Strategy<Value = TaskFields> {
    (
        field(status()),
        field(maybe_text()),
        field(option::of(priority())),
        field(maybe_text()),
        field(btree_set(text(), 0..3)),
        field(btree_set(record(), 0..3)),
        field(text()),
        field(btree_set(text(), 0..3)),
        field(option::of(claim())),
    )
        .prop_map(|(status, assignee, priority, due, labels, blocked_by, note, requirements, claim)| TaskFields {
            status,
            assignee,
            priority,
            due,
            labels,
            blocked_by,
            note,
            requirements,
            claim,
        })
}

fn order() -> impl Strategy<Value = OrderKey> {
    vec(any::<u8>(), 0..8).prop_map(OrderKey)
}

fn block() -> impl Strategy<Value = Block> {
    let task = option::of(task_fields().prop_map(Box::new));
    (record(), any::<u8>(), field(order()), text(), field(text()), field(text()), task)
        .prop_map(|(change, kind, order, lead, mark, text, task)| Block { change, kind, order, lead, mark, text, task })
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (text(), vec(text(), 0..4)).prop_map(|(name, files)| Fact::ProjectCreated { name, files }),
        (record(), text()).prop_map(|(project, path)| Fact::ChangeCreated { project, path }),
        Just(Fact::ChangeDeleted),
        (record(), order(), new_block(), option::of(status()))
            .prop_map(|(change, order, block, status)| Fact::BlockInserted { change, order, block, status }),
        (any::<u8>(), text(), text()).prop_map(|(kind, lead, text)| Fact::BlockTextSet { kind, lead, text }),
        (text(), option::of(status())).prop_map(|(mark, status)| Fact::BlockMarked { mark, status }),
        order().prop_map(|order| Fact::BlockMoved { order }),
        Just(Fact::BlockDeleted),
        (vec(task_field(), 0..4), maybe_text()).prop_map(|(fields, mark)| Fact::TaskSet { fields, mark }),
        conflict().prop_map(Fact::ConflictRecorded),
        settled().prop_map(Fact::ConflictSettled),
        text().prop_map(|path| Fact::ChangeMoved { path }),
        policy().prop_map(Fact::PolicySet),
        (claim(), vec(task_field(), 0..4), maybe_text()).prop_map(|(claim, fields, mark)| Fact::Claimed {
            claim,
            fields,
            mark
        }),
        Just(Fact::Released),
        comment().prop_map(Fact::Commented),
        point().prop_map(Fact::PointCreated),
        Just(Fact::PointRemoved),
        (any::<u64>(), any::<u64>())
            .prop_map(|(cut, last)| Fact::Restored(Restore { cut: Revision(cut), last: Revision(last) })),
        text().prop_map(|path| Fact::ChangeRestored { path }),
        (order(), new_block(), vec(task_field(), 0..4)).prop_map(|(order, block, fields)| Fact::BlockRestored {
            order,
            block,
            fields
        }),
        option::of(settled()).prop_map(|settled| Fact::ConflictRestored { settled }),
    ]
}

fn provenance() -> impl Strategy<Value = Provenance> {
    (author(), any::<u64>(), option::of(request())).prop_map(|(author, time, request)| Provenance {
        author,
        time: ClusterTime(time),
        request,
    })
}

/// Through the message and its bytes, and back.
fn check<T, M>(value: T) -> Result<(), TestCaseError>
where
    T: TryFrom<M> + Clone + PartialEq + std::fmt::Debug,
    <T as TryFrom<M>>::Error: std::fmt::Debug,
    M: From<T> + Message + Default,
{
    let bytes = M::from(value.clone()).encode_to_vec();
    let back = T::try_from(M::decode(bytes.as_slice()).unwrap()).unwrap();
    prop_assert_eq!(back, value);
    Ok(())
}

proptest! {
    #[test]
    fn calls_survive_the_wire(call in call()) {
        check::<_, v1::ProposeRequest>(call)?;
    }

    #[test]
    fn outcomes_survive_the_wire(outcome in outcome()) {
        check::<_, v1::Outcome>(outcome)?;
    }

    #[test]
    fn facts_survive_the_wire(fact in fact()) {
        check::<_, v1::Fact>(fact)?;
    }

    #[test]
    fn provenances_survive_the_wire(provenance in provenance()) {
        check::<_, v1::Provenance>(provenance)?;
    }

    #[test]
    fn records_survive_the_wire(
        block in block(), conflict in conflict(), project in record(), path in text(), files in vec(text(), 0..4),
        policy in field(policy()), comment in comment(), point in point(),
    ) {
        check::<_, v1::CommentRecord>(comment)?;
        check::<_, v1::PointRecord>(point)?;
        check::<_, v1::BlockRecord>(block)?;
        check::<_, v1::ConflictRecord>(conflict)?;
        check::<_, v1::ChangeRecord>(Change { project, path: path.clone() })?;
        check::<_, v1::ProjectRecord>(Project { name: path, files, policy })?;
    }

    #[test]
    fn any_bytes_are_a_call_or_a_clear_error(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(message) = v1::ProposeRequest::decode(bytes.as_slice()) {
            let _: Result<Call, ConvertError> = message.try_into();
        }
    }
}

#[test]
fn every_kind_of_record_has_its_number() {
    for kind in Kind::ALL {
        assert_eq!(Kind::try_from(v1::RecordKind::from(kind)), Ok(kind));
    }
    let unset = Kind::try_from(v1::RecordKind::Unspecified);
    assert_eq!(unset, Err(ConvertError::UnknownValue { field: "kind", value: 0 }));
}

#[test]
fn a_deadline_under_a_millisecond_is_not_none() {
    let command = Command { request: None, author: Author::default(), body: Body::OpenSession };
    let call = Call { call: 1, deadline: Some(Duration::from_micros(10)), command };
    assert_eq!(v1::ProposeRequest::from(call).deadline_ms, 1);
}

fn set_status(status: i32, task: u64) -> v1::ProposeRequest {
    let field = v1::TaskField { field: Some(v1::task_field::Field::Status(status)) };
    let set = v1::propose_request::SetTask { task, expected: None, fields: vec![field], mark: None };
    v1::ProposeRequest { body: Some(v1::propose_request::Body::SetTask(set)), ..Default::default() }
}

#[test]
fn what_is_missing_unknown_or_too_large_is_named() {
    let refused = |message: v1::ProposeRequest| Call::try_from(message).unwrap_err();
    assert_eq!(refused(v1::ProposeRequest::default()), ConvertError::Missing { field: "body" });
    let nowhere = v1::propose_request::Rollback { scope: None, to: 1, expected: None };
    let rollback =
        v1::ProposeRequest { body: Some(v1::propose_request::Body::Rollback(nowhere)), ..Default::default() };
    assert_eq!(refused(rollback), ConvertError::Missing { field: "rollback.scope" });
    assert_eq!(refused(set_status(0, 1)), ConvertError::UnknownValue { field: "status", value: 0 });
    assert_eq!(refused(set_status(99, 1)), ConvertError::UnknownValue { field: "status", value: 99 });
    let limit = i64::MAX.cast_unsigned();
    let too_large = ConvertError::OutOfRange { field: "set_task.task", value: limit + 1, limit };
    assert_eq!(refused(set_status(1, limit + 1)), too_large);
}

#[test]
fn a_duplicate_of_a_duplicate_is_refused() {
    let accepted = Outcome::Accepted { revision: Revision(1), created: vec![] };
    let twice = Outcome::Duplicate(Box::new(Outcome::Duplicate(Box::new(accepted))));
    let refused = Outcome::try_from(v1::Outcome::from(twice)).unwrap_err();
    assert_eq!(refused, ConvertError::OutOfRange { field: "depth of duplicate", value: 2, limit: 1 });
}

#[test]
fn a_group_holds_commands_and_no_group() {
    let comment = |text: &str| Body::Comment { task: RecordId::from_u64(9), text: text.to_owned() };
    let group = Body::Group { bodies: vec![comment("a"), comment("b")] };
    assert_eq!(body_of(part(group.clone())).unwrap(), group);
    let nested = part(Body::Group { bodies: vec![group] });
    assert_eq!(body_of(nested), Err(ConvertError::Nested { field: "group.commands" }));
}
