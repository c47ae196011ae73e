//! Laws that hold for every history of commands, sensible or not.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failing test should panic")]

mod harness;
mod wish;

use harness::{Node, command};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use wish::{Ids, Wish, forgetful_batches, wish};
use zyflow_machine::command::{Anchor, Batch, BlockOp, Body, Command, EditMode, Scope};
use zyflow_machine::event::Event;
use zyflow_machine::evolve::evolve;
use zyflow_machine::format::{decode_batch, decode_outcome, decode_record, encode_batch};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{Block, Field, Kind, Record, TaskFields};
use zyflow_machine::view::View;
use zyflow_machine::{Machine, MapView};

/// A history: a node that went through it, and what it was asked.
fn live(histories: Vec<Vec<Wish>>) -> (Node, Vec<Batch>) {
    let mut node = Node::default();
    let mut history = Vec::new();
    for wishes in histories {
        let ids = Ids::of(&node);
        let commands = wishes.into_iter().map(|wish| wish.resolve(&ids)).collect();
        let batch = Batch { stamped: node.stamp, commands };
        node.apply_batch(&batch);
        history.push(batch);
    }
    (node, history)
}

/// A state without ids and revisions: by path, the blocks in order; and how many conflicts there are.
#[derive(Debug, PartialEq)]
struct Bare {
    changes: BTreeMap<(String, String), Vec<Block>>,
    conflicts: usize,
}

fn bare(view: &MapView) -> Bare {
    let mut changes = BTreeMap::new();
    for (id, record) in view.records() {
        let Record::Change(change) = record else { continue };
        let project = match view.get(change.project).unwrap().unwrap().record.clone() {
            Some(Record::Project(project)) => project.name,
            other => panic!("{other:?} is no project"),
        };
        let blocks = view.children(Kind::Block, id).unwrap().into_iter().map(|(_, block)| bare_block(view, block));
        changes.insert((project, change.path.clone()), blocks.collect());
    }
    let conflicts = view.records().filter(|(_, record)| record.kind() == Kind::Conflict).count();
    Bare { changes, conflicts }
}

fn bare_block(view: &MapView, id: RecordId) -> Block {
    let Some(Record::Block(mut block)) = view.get(id).unwrap().unwrap().record.clone() else { panic!("no block") };
    let nowhen = Revision::default();
    block.change = RecordId::ROOT;
    (block.order, block.mark.at, block.text.at) = (Field::default(), nowhen, nowhen);
    if let Some(task) = &mut block.task {
        let TaskFields { status, assignee, priority, due, labels, blocked_by, note, requirements, claim } =
            task.as_mut();
        (status.at, assignee.at, priority.at, due.at) = (nowhen, nowhen, nowhen, nowhen);
        (labels.at, blocked_by.at, note.at, requirements.at, claim.at) = (nowhen, nowhen, nowhen, nowhen, nowhen);
        blocked_by.value = blocked_by.value.iter().map(|blocker| place(view, *blocker)).collect();
    }
    block
}

/// Where a block stands in its change, as an id: ids of blocks that are made later differ with the entry they are made in. A task may go on
/// waiting for one that was deleted and let go of: that stands nowhere.
fn place(view: &MapView, id: RecordId) -> RecordId {
    let Some(stored) = view.get(id).unwrap() else { return RecordId::from_u64(u64::from(u32::MAX)) };
    let parent = stored.parent;
    let siblings = view.children(Kind::Block, parent).unwrap();
    let at = siblings.iter().position(|(_, block)| *block == id).unwrap_or(siblings.len());
    RecordId::from_u64(u64::try_from(at).unwrap())
}

/// What an outcome says, without where.
fn verdict(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { created, .. } => format!("accepted {}", created.len()),
        Outcome::Stale { fields, .. } => {
            let fields: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
            format!("stale {}", fields.join(" "))
        }
        Outcome::Rejected(reject) => format!("rejected {}", variant(reject)),
        Outcome::Duplicate(first) => format!("duplicate {}", verdict(first)),
    }
}

/// The name of a value's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect()
}

#[test]
fn random_histories_reach_every_fact_and_every_answer() {
    let mut runner = TestRunner::deterministic();
    let (mut facts, mut answers) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..2_000 {
        let mut node = Node::default();
        for wishes in forgetful_batches().new_tree(&mut runner).unwrap().current() {
            let ids = Ids::of(&node);
            let effects = node.apply(wishes.into_iter().map(|wish| wish.resolve(&ids)).collect());
            for (row, _) in &effects.rows {
                *facts.entry(variant(&row.fact)).or_insert(0) += 1;
            }
            for outcome in &effects.outcomes {
                let answer = if let Outcome::Rejected(reject) = outcome { variant(reject) } else { variant(outcome) };
                *answers.entry(answer).or_insert(0) += 1;
            }
        }
    }
    println!("{facts:#?} {answers:#?}");
    assert_eq!(facts.len(), 24, "of 24 facts: {facts:?}");
    let expected = [
        "Accepted",
        "Claimed",
        "Duplicate",
        "Exists",
        "Invalid",
        "NoRevision",
        "NotFound",
        "RequestTooOld",
        "SessionExpired",
        "Stale",
        "WrongKind",
    ];
    for answer in expected {
        assert!(answers.get(answer).is_some_and(|count| *count >= 10), "{answer} is rare: {answers:?}");
    }
}

/// The place of a new block depends on its neighbours: on one that was let go of it must not, deleted or not.
#[test]
fn a_neighbour_that_was_let_go_of_is_none() {
    let mut node = Node::default();
    let (change, blocks) = node.change("a.md", ["[ ] One", "[ ] Two", "[ ] Three"].map(harness::block).to_vec());
    let edit = |node: &Node, op| Body::Edit {
        change,
        base: node.machine.revision(),
        mode: EditMode::Merge,
        ops: vec![op],
        conflicts: Vec::new(),
    };
    let deleted = edit(&node, BlockOp::Delete { block: blocks[1] });
    node.create(deleted);
    node.create(Body::Compact { to: node.machine.revision(), time: ClusterTime(1) });
    let mut purged = node.clone();
    purged.view.purge();
    assert_ne!(purged.view, node.view);
    let inserted = BlockOp::Insert { after: Anchor::After(blocks[0]), block: harness::block("[ ] One and a half") };
    for node in [&mut node, &mut purged] {
        let inserted = edit(node, inserted.clone());
        node.create(inserted);
    }
    assert_eq!(purged.machine.save(), node.machine.save());
    node.view.purge();
    assert_eq!(purged.view, node.view);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn nobody_can_tell_when_what_is_let_go_of_is_deleted(
        histories in forgetful_batches(),
        purges in prop::collection::vec(any::<bool>(), 20),
    ) {
        let (node, history) = live(histories);
        let mut other = Node::default();
        for (batch, is_purged) in history.iter().zip(purges) {
            if is_purged {
                other.view.purge();
            }
            other.apply_batch(batch);
        }
        prop_assert_eq!(other.machine.save(), node.machine.save(), "outcomes and rows are the same");
        let mut purged = node.view.clone();
        purged.purge();
        other.view.purge();
        prop_assert_eq!(other.view, purged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_same_batches_make_the_same_rows_sessions_and_digest(histories in forgetful_batches()) {
        let (node, history) = live(histories);
        let mut replica = Node::default();
        for batch in &history {
            replica.apply_batch(&decode_batch(&encode_batch(batch)).unwrap());
        }
        prop_assert_eq!(&replica.view, &node.view);
        prop_assert_eq!(replica.machine.save(), node.machine.save());
        prop_assert!(replica.machine.sessions().eq(node.machine.sessions()));
    }

    #[test]
    fn a_restart_in_the_middle_changes_nothing(histories in forgetful_batches(), cut: prop::sample::Index) {
        let (node, history) = live(histories);
        let cut = cut.index(history.len() + 1);
        let mut stored = BTreeMap::new();
        let mut replica = Node::default();
        for (done, batch) in history.iter().enumerate() {
            if done == cut {
                let header = replica.machine.save().header;
                store(&mut replica.machine, &mut stored);
                replica.machine = Machine::restore(&header, stored.clone().into_iter()).unwrap();
            }
            replica.apply_batch(batch);
            if done % 2 == 0 {
                store(&mut replica.machine, &mut stored);
            }
        }
        prop_assert_eq!(replica.view, node.view);
        prop_assert_eq!(replica.machine.save(), node.machine.save());
        store(&mut replica.machine, &mut stored);
        prop_assert!(stored.into_iter().eq(node.machine.sessions()), "the sessions stored bit by bit are not all sessions");
    }

    #[test]
    fn a_request_that_is_proposed_again_happens_once(histories in forgetful_batches()) {
        let (mut node, history) = live(histories);
        let Outcome::Accepted { created, .. } = node.run(Body::OpenSession) else { panic!("no session") };
        let session = SessionId(created[0].0);
        let bodies = history.into_iter().flat_map(|batch| batch.commands).map(|command| command.body);
        let bodies = bodies.filter(|body| !matches!(asked(body), Body::CloseSession | Body::Rollback { .. }));
        let requests: Vec<Command> = (1..=256).zip(bodies)
            .map(|(seq, body)| Command { request: Some(RequestId { session, seq }), ..command(body) })
            .collect();
        let first = node.apply(requests.clone()).outcomes;
        let rows = node.view.clone();
        let again = node.apply(requests.into_iter().rev().collect());
        prop_assert!(again.rows.is_empty());
        prop_assert_eq!(node.view, rows);
        let duplicates = first.into_iter().rev().map(|outcome| Outcome::Duplicate(Box::new(outcome)));
        prop_assert!(again.outcomes.into_iter().eq(duplicates));
    }

    #[test]
    fn commands_do_the_same_in_one_entry_and_in_many(histories in forgetful_batches(), wishes in prop::collection::vec(wish(), 1..12)) {
        let (node, _) = live(histories);
        let ids = Ids::of(&node);
        let wishes = wishes.into_iter().filter(|wish| !wish.is_rollback());
        let commands: Vec<Command> = wishes.map(|wish| wish.resolve(&ids)).collect();
        let (mut together, mut apart) = (node.clone(), node);
        let at_once = together.apply(commands.clone()).outcomes;
        let one_by_one: Vec<Outcome> = commands.into_iter().map(|command| apart.apply(vec![command]).outcomes.remove(0)).collect();
        prop_assert_eq!(at_once.iter().map(verdict).collect::<Vec<_>>(), one_by_one.iter().map(verdict).collect::<Vec<_>>());
        prop_assert_eq!(bare(&together.view), bare(&apart.view));
    }

    #[test]
    fn edits_of_different_changes_commute(histories in forgetful_batches(), left in wish(), right in wish()) {
        let (node, _) = live(histories);
        let ids = Ids::of(&node);
        let (left, right) = (left.resolve(&ids), right.resolve(&ids));
        if let (Body::Edit { change: one, .. }, Body::Edit { change: other, .. }) = (&left.body, &right.body)
            && one != other
        {
            let without_request = |command: &Command| Command { request: None, ..command.clone() };
            let (left, right) = (without_request(&left), without_request(&right));
            let (mut there, mut back) = (node.clone(), node);
            let mut forth = there.apply(vec![left.clone(), right.clone()]).outcomes;
            let mut reverse = back.apply(vec![right, left]).outcomes;
            reverse.reverse();
            prop_assert_eq!(forth.drain(..).map(|outcome| verdict(&outcome)).collect::<Vec<_>>(),
                reverse.drain(..).map(|outcome| verdict(&outcome)).collect::<Vec<_>>());
            prop_assert_eq!(bare(&there.view), bare(&back.view));
        }
    }

    #[test]
    fn events_alone_rebuild_every_version(histories in forgetful_batches()) {
        let mut node = Node::default();
        let mut rebuilt = MapView::new();
        for wishes in histories {
            let ids = Ids::of(&node);
            let effects = node.apply(wishes.into_iter().map(|wish| wish.resolve(&ids)).collect());
            for (row, _) in effects.rows {
                let current = rebuilt.get(row.id).unwrap();
                let again = evolve(Event { id: row.version, record: row.id, fact: row.fact.clone() }, current.as_deref());
                prop_assert_eq!(again.as_ref(), Ok(&row));
                rebuilt.commit(&[row]);
            }
        }
        prop_assert_eq!(rebuilt, node.view);
    }

    #[test]
    fn the_past_stays_as_it_was(histories in forgetful_batches()) {
        let mut node = Node::default();
        let mut past = Vec::new();
        for wishes in histories {
            let ids = Ids::of(&node);
            node.apply(wishes.into_iter().map(|wish| wish.resolve(&ids)).collect());
            past.push((node.machine.revision(), node.view.clone()));
        }
        let mut purged = node.view.clone();
        purged.purge();
        for (revision, view) in past {
            past_is_as_it_was(&node.view, revision, &view);
            past_is_as_it_was(&purged, revision, &view);
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(version in 0_u16..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&version.to_be_bytes(), bytes.as_slice()].concat();
        if let Ok(batch) = decode_batch(&bytes) {
            Node::default().apply_batch(&batch);
        }
        drop(decode_record(&bytes));
        drop(decode_outcome(&bytes));
    }
}

/// What is asked for, whatever is expected.
fn asked(body: &Body) -> &Body {
    if let Body::Expecting { body, .. } = body { body } else { body }
}

/// Whoever reads at `revision`, if that may still be read, finds what was there: `past`. Only a record that was deleted by the horizon, even
/// if a rollback brought it back later, isn't there any more; a live one always is.
fn past_is_as_it_was(now: &MapView, revision: Revision, past: &MapView) {
    let horizon = now.horizon();
    if revision < horizon {
        return;
    }
    for (id, _) in now.records().chain(past.records()) {
        let was = past.get(id).unwrap();
        let kept = was.filter(|was| was.record.is_some() || was.version.revision() > horizon);
        assert_eq!(now.get_at(id, revision).unwrap(), kept, "{id} at {revision}, the history begins at {horizon}");
    }
}

/// A rollback brings back a block whose deletion the history has let go of by the time that the past is read.
#[test]
fn a_deletion_by_the_horizon_is_let_go_of_also_where_the_record_came_back() {
    let mut node = Node::default();
    let (change, blocks) = node.change("a.md", vec![harness::block("[ ] One")]);
    let before = (node.machine.revision(), node.view.clone());
    let op = BlockOp::Delete { block: blocks[0] };
    node.create(Body::Edit { change, base: before.0, mode: EditMode::Merge, ops: vec![op], conflicts: Vec::new() });
    let deleted = (node.machine.revision(), node.view.clone());
    assert!(deleted.1.get(blocks[0]).unwrap().is_some_and(|stored| stored.record.is_none()));
    node.create(Body::Rollback { scope: Scope::All, to: before.0, expected: None });
    let back = (node.machine.revision(), node.view.clone());
    node.create(Body::Compact { to: deleted.0, time: ClusterTime(1) });
    let mut purged = node.view.clone();
    purged.purge();
    for view in [&node.view, &purged] {
        assert_eq!(view.get_at(blocks[0], deleted.0).unwrap(), None);
        for (revision, past) in [&before, &deleted, &back] {
            past_is_as_it_was(view, *revision, past);
        }
    }
}

/// What a node does with sessions at each flush.
fn store(machine: &mut Machine, stored: &mut BTreeMap<SessionId, Vec<u8>>) {
    for (id, bytes) in machine.take_dirty_sessions() {
        match bytes {
            Some(bytes) => drop(stored.insert(id, bytes)),
            None => drop(stored.remove(&id)),
        }
    }
}
