//! Laws of the rollback, for every history of commands: the scope is as it was, nothing else is touched, and the way back is open.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failing test should panic")]

mod harness;
mod wish;

use harness::{Node, block, command};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use wish::{Ids, Wish, batches};
use zyflow_machine::MapView;
use zyflow_machine::command::{Anchor, BlockOp, Body, EditMode, Scope};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::limits;
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_machine::record::{Block, Kind, Policy, Record, Settlement};
use zyflow_machine::view::View;

/// What a rollback puts back of a record.
#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Project(Policy),
    Change(String),
    Block(Box<Block>),
    Conflict(Option<Settlement>),
}

fn changes(view: &MapView, scope: Scope) -> Vec<RecordId> {
    match scope {
        Scope::All => projects(view).into_iter().flat_map(|id| view.all(Kind::Change, id)).collect(),
        Scope::Project(project) => view.all(Kind::Change, project).collect(),
        Scope::Change(change) => vec![change],
    }
}

fn projects(view: &MapView) -> Vec<RecordId> {
    view.all(Kind::Project, RecordId::ROOT).collect()
}

/// Every record that there ever was in a scope.
fn ids(view: &MapView, scope: Scope) -> Vec<RecordId> {
    let mut ids = match scope {
        Scope::All => projects(view),
        Scope::Project(project) => vec![project],
        Scope::Change(_) => Vec::new(),
    };
    for change in changes(view, scope) {
        ids.push(change);
        ids.extend(view.all(Kind::Block, change));
        ids.extend(view.all(Kind::Conflict, change));
    }
    ids
}

/// What lives in a scope at a revision, without who has taken what and without when each field was set; conflicts only of live changes.
fn plain(view: &MapView, scope: Scope, at: Revision) -> BTreeMap<RecordId, Plain> {
    let record = |id: RecordId| view.get_at(id, at).unwrap()?.record.clone();
    let live = |id: RecordId| match record(id)? {
        Record::Conflict(conflict) if record(conflict.change).is_none() => None,
        record => Some((id, plain_record(record))),
    };
    ids(view, scope).into_iter().filter_map(live).collect()
}

fn plain_record(record: Record) -> Plain {
    match record {
        Record::Project(project) => Plain::Project(project.policy.value),
        Record::Change(change) => Plain::Change(change.path),
        Record::Block(block) => Plain::Block(Box::new(plain_block(block))),
        Record::Conflict(conflict) => Plain::Conflict(conflict.settled.map(|settled| settled.settlement)),
        other => panic!("{other:?} goes back nowhere"),
    }
}

fn plain_block(mut block: Block) -> Block {
    let nowhen = Revision::default();
    (block.order.at, block.mark.at, block.text.at) = (nowhen, nowhen, nowhen);
    if let Some(task) = &mut block.task {
        for field in task.values() {
            task.set(&field, nowhen);
        }
        task.claim = zyflow_machine::record::Field::default();
    }
    block
}

fn live(histories: Vec<Vec<Wish>>) -> Node {
    let mut node = Node::default();
    for wishes in histories {
        let ids = Ids::of(&node);
        node.apply(wishes.into_iter().map(|wish| wish.resolve(&ids)).collect());
    }
    node
}

fn scope_of(node: &Node, kind: Index, which: Index) -> Scope {
    let projects = projects(&node.view);
    let changes = changes(&node.view, Scope::All);
    match kind.index(3) {
        1 => Scope::Project(projects[which.index(projects.len())]),
        2 if !changes.is_empty() => Scope::Change(changes[which.index(changes.len())]),
        _ => Scope::All,
    }
}

/// What a rollback that was accepted must have done.
fn check_state(node: &Node, scope: Scope, to: Revision, before: &MapView) {
    let now = node.machine.revision();
    let (is, was) = (plain(&node.view, scope, now), plain(&node.view, scope, to));
    for (id, is) in &is {
        match (is, was.get(id)) {
            (is, Some(was)) => assert_eq!(is, was, "{id}"),
            (Plain::Conflict(Some(_)) | Plain::Project(_), None) => {}
            (is, None) => panic!("{id} was made after revision {to} and is still {is:?}"),
        }
    }
    for (id, was) in &was {
        assert!(is.contains_key(id), "{id} was {was:?} and isn't there");
    }
    let touched: BTreeSet<RecordId> = ids(&node.view, scope).into_iter().collect();
    for (id, record) in before.records().filter(|(id, record)| !touched.contains(id) && record.kind() != Kind::Point) {
        assert_eq!(node.record(id).as_ref(), Some(record), "{id} is outside of the scope");
    }
    check_places(&node.view);
}

/// No two live blocks of a change stand at one place.
fn check_places(view: &MapView) {
    for change in changes(view, Scope::All) {
        let blocks = view.children(Kind::Block, change).unwrap();
        assert!(blocks.is_sorted_by(|(one, _), (next, _)| one < next), "two blocks of {change} share a place");
    }
}

fn roll_back(scope: Scope, to: Revision) -> Body {
    Body::Rollback { scope, to, expected: None }
}

/// Rolls back there and forth. Whether the first was accepted.
fn there_and_forth(node: &mut Node, scope: Scope, to: Revision) -> bool {
    let (before, start) = (node.view.clone(), node.machine.revision());
    let outcome = node.run(roll_back(scope, to));
    let created = match outcome {
        Outcome::Accepted { created, .. } => created,
        Outcome::Rejected(Reject::NotFound { .. }) => {
            assert!(matches!(scope, Scope::Project(id) | Scope::Change(id) if id.0.revision() > to));
            return false;
        }
        Outcome::Rejected(Reject::Exists { .. }) => {
            assert!(matches!(scope, Scope::Change(_)));
            return false;
        }
        Outcome::Rejected(Reject::Invalid(why)) => {
            assert!(scope != Scope::All && why.contains("would wait for itself"), "{why}");
            return false;
        }
        other => panic!("{other:?}"),
    };
    check_state(node, scope, to, &before);
    let again = node.apply(vec![command(roll_back(scope, to))]);
    assert!(matches!(&again.outcomes[..], [Outcome::Accepted { created, .. }] if created.is_empty()));
    assert!(again.rows.is_empty(), "the state was there already");

    let Some(point) = created.first() else {
        assert_eq!(node.view, before, "nothing was to be done");
        return true;
    };
    let Some(Record::Point(point)) = node.record(*point) else { panic!("{point} is no point") };
    assert!(point.is_automatic && point.revision == start, "{point:?}");
    let middle = node.view.clone();
    match node.run(roll_back(scope, point.revision)) {
        Outcome::Accepted { .. } => {}
        other => panic!("not rolled forward: {other:?}"),
    }
    let (now, was) = (node.machine.revision(), plain(&before, scope, start));
    assert_eq!(plain(&node.view, scope, now), was, "rolled forward");
    check_state(node, scope, start, &middle);
    true
}

#[test]
fn random_rollbacks_do_something() {
    let mut runner = TestRunner::deterministic();
    let mut done = BTreeMap::new();
    for _ in 0..300 {
        let strategy = (batches(), any::<Index>(), any::<Index>(), any::<Index>());
        let (histories, kind, which, to) = strategy.new_tree(&mut runner).unwrap().current();
        let mut node = live(histories);
        let scope = scope_of(&node, kind, which);
        let to = Revision(to.index(usize::try_from(node.machine.revision().0).unwrap()).try_into().unwrap());
        let before = node.machine.rows_digest();
        let is_done = there_and_forth(&mut node, scope, to) && node.machine.rows_digest() != before;
        let of = format!("{scope:?}").chars().take_while(|letter| letter.is_alphabetic()).collect::<String>();
        *done.entry((of, is_done)).or_insert(0) += 1;
    }
    println!("{done:?}");
    for scope in ["All", "Project", "Change"] {
        assert!(done.get(&(scope.to_owned(), true)).is_some_and(|count| *count >= 10), "{scope} is rare: {done:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_scope_goes_back_and_forth(histories in batches(), kind: Index, which: Index, to: Index) {
        let mut node = live(histories);
        let scope = scope_of(&node, kind, which);
        let to = Revision(u64::try_from(to.index(usize::try_from(node.machine.revision().0).unwrap() + 1)).unwrap());
        there_and_forth(&mut node, scope, to);
    }

    #[test]
    fn work_goes_on_after_a_rollback(histories in batches(), more in batches(), kind: Index, which: Index, to: Index) {
        let mut node = live(histories);
        let scope = scope_of(&node, kind, which);
        let to = Revision(u64::try_from(to.index(usize::try_from(node.machine.revision().0).unwrap() + 1)).unwrap());
        node.run(roll_back(scope, to));
        for wishes in more {
            let ids = Ids::of(&node);
            node.apply(wishes.into_iter().map(|wish| wish.resolve(&ids)).collect());
            check_places(&node.view);
        }
        let scope = scope_of(&node, kind, which);
        there_and_forth(&mut node, scope, to);
    }
}

/// Where a key is free because its block was moved away, another block gets it; the first one wants it back.
#[test]
fn a_place_that_somebody_else_got_meanwhile_is_given_back() {
    let mut node = Node::default();
    let (change, blocks) = node.change("tasks.md", ["[ ] One", "[ ] Two", "[ ] Three"].map(block).to_vec());
    let to = node.machine.revision();
    let text = node.view.text(change);
    let mut edit = |ops| {
        let base = node.machine.revision();
        node.create(Body::Edit { change, base, mode: EditMode::Merge, ops, conflicts: Vec::new() })
    };
    edit(vec![BlockOp::Move { block: blocks[1], after: Anchor::After(blocks[2]) }]);
    let new = edit(vec![BlockOp::Insert { after: Anchor::After(blocks[0]), block: block("[ ] New") }])[0];
    let stands = |node: &Node, id| node.view.get(id).unwrap().unwrap().order.clone();
    assert_eq!(stands(&node, new), node.view.get_at(blocks[1], to).unwrap().unwrap().order, "the place isn't shared");
    assert!(there_and_forth(&mut node, Scope::Change(change), to));
    node.create(roll_back(Scope::Change(change), to));
    assert_eq!(node.view.text(change), text);

    // A deleted block and a live one at one place: what stands behind either stands behind both.
    let base = node.machine.revision();
    let after = |block| Anchor::After(block);
    let insert = |anchor, line| BlockOp::Insert { after: anchor, block: block(line) };
    let ops = vec![insert(after(new), "[ ] Behind new"), insert(after(blocks[0]), "[ ] Behind one")];
    node.create(Body::Edit { change, base, mode: EditMode::Merge, ops, conflicts: Vec::new() });
    let lines: Vec<String> = node.view.text(change).lines().map(|line| line[6..].to_owned()).collect();
    assert_eq!(lines, ["One", "Behind one", "Two", "Behind new", "Three"]);
}

/// A live block that changed isn't hidden by a deleted one at its place: what somebody worked on isn't deleted.
#[test]
fn a_deleted_twin_hides_no_change() {
    let mut node = Node::default();
    let (change, blocks) = node.change("tasks.md", ["[ ] One", "[ ] Two", "[ ] Three"].map(block).to_vec());
    let edit = |node: &mut Node, ops| {
        let base = node.machine.revision();
        node.create(Body::Edit { change, base, mode: EditMode::Merge, ops, conflicts: Vec::new() })
    };
    // New takes Two's place, and both ways of going back leave it there, with Two, the older one, deleted at the same place.
    edit(&mut node, vec![BlockOp::Move { block: blocks[1], after: Anchor::After(blocks[2]) }]);
    let insert = BlockOp::Insert { after: Anchor::After(blocks[0]), block: block("[ ] New") };
    let new = edit(&mut node, vec![insert])[0];
    edit(&mut node, vec![BlockOp::Delete { block: blocks[1] }]);
    let later = node.machine.revision();
    node.create(roll_back(Scope::Change(change), Revision(2)));
    edit(&mut node, vec![BlockOp::Delete { block: blocks[1] }]);
    node.create(roll_back(Scope::Change(change), later));
    let stands = |id| node.view.get(id).unwrap().unwrap().order.clone();
    assert_eq!(stands(new), stands(blocks[1]), "the place isn't shared");
    assert!(node.record(new).is_some() && node.record(blocks[1]).is_none());
    let base = node.machine.revision();
    edit(&mut node, vec![BlockOp::SetMark { block: new, mark: "x".to_owned(), status: None }]);
    let outcome = node.run(Body::DeleteChange { change, base });
    assert!(matches!(outcome, Outcome::Stale { .. }), "{outcome:?}");
}

/// What went back is set at the revision of the rollback, what stayed keeps its own.
#[test]
fn an_edit_from_before_a_rollback_clashes_only_where_that_changed_something() {
    let mut node = Node::default();
    let (change, blocks) = node.change("tasks.md", ["[ ] One", "[ ] Two"].map(block).to_vec());
    let to = node.machine.revision();
    let edit = |node: &mut Node, base, op| {
        node.run(Body::Edit { change, base, mode: EditMode::Merge, ops: vec![op], conflicts: Vec::new() })
    };
    let text = |words: &str| BlockOp::SetText {
        block: blocks[0],
        kind: 2,
        lead: "- [".to_owned(),
        text: format!("] {words}\n"),
    };
    let mark = |block| BlockOp::SetMark { block, mark: "x".to_owned(), status: None };
    let is_accepted = |outcome| matches!(outcome, Outcome::Accepted { .. });
    let is_stale = |outcome| matches!(outcome, Outcome::Stale { .. });
    assert!(is_accepted(edit(&mut node, to, text("Eins"))));
    assert!(is_accepted(edit(&mut node, to, BlockOp::Delete { block: blocks[1] })));
    let base = node.machine.revision();
    node.create(roll_back(Scope::All, to));
    assert!(is_stale(edit(&mut node, base, text("Uno"))), "the words went back");
    assert!(is_accepted(edit(&mut node, base, mark(blocks[0]))), "the mark stayed");
    assert!(
        is_stale(edit(&mut node, base, mark(blocks[1]))),
        "all of a block that came back is new to who saw it gone"
    );
}

/// Whoever deletes much gets a point with it, by the machine: no client can forget it.
#[test]
fn a_mass_deletion_makes_a_point() {
    let lines = |count| vec![block("[ ] One"); count];
    let delete = |blocks: &[RecordId]| blocks.iter().map(|block| BlockOp::Delete { block: *block }).collect();
    for (count, is_many) in [(limits::MASS_DELETION_BLOCKS - 1, false), (limits::MASS_DELETION_BLOCKS, true)] {
        let mut node = Node::default();
        let (edited, blocks) = node.change("edited.md", lines(count + 1));
        let (deleted, _) = node.change("deleted.md", lines(count));
        let before = node.machine.revision();
        let edit = Body::Edit {
            change: edited,
            base: before,
            mode: EditMode::Merge,
            ops: delete(&blocks[1..]),
            conflicts: Vec::new(),
        };
        assert_eq!(edit.begins_entry(), is_many);
        let made = node.create(edit);
        assert_eq!(made.len(), usize::from(is_many));
        let both = vec![
            command(Body::DeleteChange { change: deleted, base: Revision(before.0 + 1) }),
            command(Body::DeleteChange { change: edited, base: Revision(before.0 + 1) }),
        ];
        node.apply(both);
        let points: Vec<_> = node.view.children(Kind::Point, RecordId::ROOT).unwrap();
        let names: Vec<_> = points.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        let wanted = [before.0, before.0 + 1].map(|at| format!("before-deletion-{at}"));
        assert_eq!(names, if is_many { wanted.to_vec() } else { Vec::new() });
        if let [point] = made[..] {
            let Some(Record::Point(point)) = node.record(point) else { panic!("no point") };
            assert!(point.is_automatic && point.revision == before);
            node.create(roll_back(Scope::All, point.revision));
            assert_eq!(node.view.children(Kind::Block, edited).unwrap().len(), count + 1);
            assert_eq!(node.view.children(Kind::Block, deleted).unwrap().len(), count);
        }
    }
}

/// The revision before its entry is the state before it only where it is the first of that entry.
#[test]
fn a_resolution_begins_its_entry() {
    use zyflow_machine::record::{SettledBy, Strategy as Way};
    let settlement = Settlement { strategy: Way::Manual, by: SettledBy::User, value: None };
    let edit = |ops| Body::Edit {
        change: RecordId::ROOT,
        base: Revision(1),
        mode: EditMode::Merge,
        ops,
        conflicts: Vec::new(),
    };
    let resolve = edit(vec![BlockOp::Resolve { conflict: RecordId::ROOT, settlement }]);
    assert!(resolve.begins_entry() && Body::Group { bodies: vec![resolve.clone()] }.begins_entry());
    assert!(!edit(Vec::new()).begins_entry());
}

#[test]
fn a_full_list_of_points_gives_up_its_oldest_automatic_one() {
    let mut node = Node::default();
    let (change, _) = node.change("tasks.md", vec![block("[ ] One")]);
    let point = |name: String, at, is_automatic| {
        command(Body::CreatePoint { name, at: Some(Revision(at)), note: String::new(), is_automatic })
    };
    let mut points: Vec<_> = (2..limits::POINTS_MAX).map(|nth| point(format!("mine-{nth}"), 0, false)).collect();
    points.push(point("newer".to_owned(), 2, true));
    points.push(point("older".to_owned(), 1, true));
    for chunk in points.chunks(limits::COMMANDS_PER_BATCH_MAX) {
        node.apply(chunk.to_vec());
    }
    let names = |node: &Node| {
        let points = node.view.children(Kind::Point, RecordId::ROOT).unwrap();
        points.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&node).len(), limits::POINTS_MAX);
    let start = node.machine.revision();
    node.create(roll_back(Scope::Change(change), Revision(2)));
    assert_eq!(node.machine.revision(), Revision(start.0 + 1));
    assert!(names(&node).contains("older"), "nothing was to be done");
    let ops = vec![BlockOp::Insert { after: Anchor::Start, block: block("[ ] Two") }];
    node.create(Body::Edit { change, base: start, mode: EditMode::Merge, ops, conflicts: Vec::new() });
    node.create(roll_back(Scope::Change(change), Revision(2)));
    let left = names(&node);
    assert!(left.len() == limits::POINTS_MAX && !left.contains("older") && left.contains("newer"));
    assert!(left.contains(&format!("before-rollback-{}", start.0 + 2)));
}
