//! The machine and the specification agree on what operations mean: an edit made from a difference prints the new text.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failing test should panic")]

mod harness;

use harness::Node;
use proptest::prelude::*;
use proptest::sample::Index;
use zyflow_machine::command::{Anchor, BlockOp, Body, EditMode, NewBlock};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{KIND_TASK, Kind, Record};
use zyflow_machine::view::View;
use zyflow_spec::{Block, BlockKind, Content, Known, Op, diff, merge3, parse};

fn new_block(block: &Block) -> NewBlock {
    let Content { lead, mark, text } = block.content.clone();
    NewBlock { kind: block.kind.into(), lead, mark, text }
}

fn anchor(anchor: zyflow_spec::Anchor<RecordId>) -> Anchor {
    match anchor {
        zyflow_spec::Anchor::Start => Anchor::Start,
        zyflow_spec::Anchor::After(id) => Anchor::After(id),
        zyflow_spec::Anchor::AfterNew(number) => Anchor::AfterNew(number),
    }
}

fn block_op(op: Op<RecordId>) -> BlockOp {
    match op {
        Op::Insert { after, block } => BlockOp::Insert { after: anchor(after), block: new_block(&block) },
        Op::SetText { id, lead, text, kind } => BlockOp::SetText { block: id, kind: kind.into(), lead, text },
        Op::SetMark { id, mark } => BlockOp::SetMark { block: id, mark, status: None },
        Op::Move { id, after } => BlockOp::Move { block: id, after: anchor(after) },
        Op::Delete { id } => BlockOp::Delete { block: id },
    }
}

fn known(node: &Node, change: RecordId) -> Vec<Known<RecordId>> {
    let of = |id| match node.record(id) {
        Some(Record::Block(block)) => {
            assert_eq!(block.task.is_some(), block.kind == KIND_TASK);
            let content = Content { lead: block.lead, mark: block.mark.value, text: block.text.value };
            Known { id, block: Block { kind: block.kind.try_into().unwrap(), content } }
        }
        other => panic!("{other:?} is no block"),
    };
    node.view.children(Kind::Block, change).unwrap().into_iter().map(|(_, id)| of(id)).collect()
}

fn edit(node: &mut Node, change: RecordId, base: Revision, ops: Vec<Op<RecordId>>) -> Outcome {
    let ops = ops.into_iter().map(block_op).collect();
    node.run(Body::Edit { change, base, mode: EditMode::Merge, ops, conflicts: Vec::new() })
}

fn line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "# Plan",
        "## Build",
        "- [ ] 1.1 Write the log",
        "- [x] 1.1 Write the log",
        "- [ ] 1.2 Read the log back",
        "  - [-] a detail",
        "- [ ] same",
        "- [ ] same",
        "words that go",
        "on and on",
        "",
        "```",
        "| a | b |",
        "<!-- note -->",
    ])
}

fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(line(), 0..14)
}

#[derive(Clone, Debug)]
enum Change {
    Put(Index, &'static str),
    Drop(Index),
    Shift(Index, Index),
    Tick(Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (any::<Index>(), line()).prop_map(|(at, line)| Change::Put(at, line)),
        any::<Index>().prop_map(Change::Drop),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Shift(from, to)),
        any::<Index>().prop_map(Change::Tick),
    ];
    prop::collection::vec(change, 0..6)
}

fn changed(lines: &[&'static str], changes: Vec<Change>) -> String {
    let mut lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    for change in changes {
        match change {
            Change::Put(at, line) => lines.insert(at.index(lines.len() + 1), format!("{line}\n")),
            Change::Drop(at) if !lines.is_empty() => drop(lines.remove(at.index(lines.len()))),
            Change::Shift(from, to) if !lines.is_empty() => {
                let line = lines.remove(from.index(lines.len()));
                lines.insert(to.index(lines.len() + 1), line);
            }
            Change::Tick(at) if !lines.is_empty() => {
                let at = at.index(lines.len());
                lines[at] = lines[at].replace("[ ]", "[x]");
            }
            Change::Drop(_) | Change::Shift(..) | Change::Tick(_) => {}
        }
    }
    lines.concat()
}

/// A node that holds `text` as a change, and the change.
fn holding(text: &str) -> (Node, RecordId) {
    let mut node = Node::default();
    let blocks = parse(text).blocks.iter().map(new_block).collect();
    let (change, _) = node.change("tasks.md", blocks);
    assert_eq!(node.view.text(change), text);
    (node, change)
}

#[test]
fn both_name_tasks_by_the_same_number() {
    assert_eq!(u8::from(BlockKind::Task), KIND_TASK);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_from_a_difference_prints_the_new_text(lines in lines(), versions in prop::collection::vec(changes(), 1..5)) {
        let (mut node, change) = holding(&changed(&lines, Vec::new()));
        for changes in versions {
            let text = changed(&lines, changes);
            let base = node.machine.revision();
            let ops = diff(&known(&node, change), &parse(&text));
            let expects_rows = !ops.is_empty();
            let outcome = edit(&mut node, change, base, ops);
            prop_assert!(matches!(outcome, Outcome::Accepted { .. }), "{:?}", outcome);
            prop_assert_eq!(node.view.text(change), text);
            let rows = node.view.records().any(|(id, _)| node.view.history(id).iter().any(|stored| stored.version.revision() > base));
            prop_assert!(expects_rows || !rows, "an edit without operations made rows");
        }
    }

    #[test]
    fn an_edit_from_a_merge_prints_the_merged_text(lines in lines(), here in changes(), there in changes()) {
        let (mut node, change) = holding(&changed(&lines, Vec::new()));
        let base = known(&node, change);
        let seen = node.machine.revision();
        edit(&mut node, change, seen, diff(&base, &parse(&changed(&lines, there))));
        let current = known(&node, change);
        let merge = merge3(&base, &parse(&changed(&lines, here)), &current);
        let merged_at = node.machine.revision();
        let outcome = edit(&mut node, change, merged_at, merge.ops);
        prop_assert!(matches!(outcome, Outcome::Accepted { .. }), "{:?}", outcome);
        prop_assert_eq!(node.view.text(change), merge.text);
    }

    #[test]
    fn edits_of_two_writers_clash_only_where_both_changed_one_field(lines in lines(), here in changes(), there in changes()) {
        let (mut node, change) = holding(&changed(&lines, Vec::new()));
        let base = known(&node, change);
        let seen = node.machine.revision();
        let (ours, theirs) = (diff(&base, &parse(&changed(&lines, here))), diff(&base, &parse(&changed(&lines, there))));
        edit(&mut node, change, seen, theirs.clone());
        if let Outcome::Stale { fields, .. } = edit(&mut node, change, seen, ours.clone()) {
            for field in fields {
                let touches = |ops: &[Op<RecordId>]| ops.iter().any(|op| about(op) == Some(field.record));
                prop_assert!(touches(&ours) && touches(&theirs), "{:?}", field);
            }
        }
    }
}

fn about(op: &Op<RecordId>) -> Option<RecordId> {
    match op {
        Op::Insert { .. } => None,
        Op::SetText { id, .. } | Op::SetMark { id, .. } | Op::Move { id, .. } | Op::Delete { id } => Some(*id),
    }
}
