//! Texts whose every block has its id, and the way between the blocks of `zyflow-spec` and those of `zyflow-machine`.
//!
//! No decisions are made here. Invariant of [`KnownText`]: every edit that led to it is part of the cluster's history at
//! `revision`, so it can stand as the base of a three-way merge against any newer state.

use zyflow_machine::command::{Anchor as MachineAnchor, BlockOp, NewBlock, NewConflict};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::ConflictClass as MachineClass;
use zyflow_spec::{Anchor, Block, Conflict, ConflictClass, ConflictField, Known, Op};

/// A text that the cluster has seen, block by block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownText {
    /// A revision at which the cluster's history contains every edit that led to this text.
    pub revision: Revision,
    /// Its blocks in order.
    pub blocks: Vec<Known<RecordId>>,
}

impl KnownText {
    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(self.bytes());
        for known in &self.blocks {
            known.block.print_into(&mut out);
        }
        out
    }

    /// Length of the canonical text in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|known| known.block.bytes()).sum()
    }
}

/// A block as the machine takes it.
#[must_use]
pub fn new_block(block: &Block) -> NewBlock {
    NewBlock {
        kind: block.kind.into(),
        lead: block.content.lead.clone(),
        mark: block.content.mark.clone(),
        text: block.content.text.clone(),
    }
}

fn anchor(anchor: Anchor<RecordId>) -> MachineAnchor {
    match anchor {
        Anchor::Start => MachineAnchor::Start,
        Anchor::After(id) => MachineAnchor::After(id),
        Anchor::AfterNew(nth) => MachineAnchor::AfterNew(nth),
    }
}

/// An op as the machine takes it.
#[must_use]
pub fn block_op(op: Op<RecordId>) -> BlockOp {
    match op {
        Op::Insert { after, block } => BlockOp::Insert { after: anchor(after), block: new_block(&block) },
        Op::SetText { id, lead, text, kind } => BlockOp::SetText { block: id, kind: kind.into(), lead, text },
        Op::SetMark { id, mark } => BlockOp::SetMark { block: id, mark, status: None },
        Op::Move { id, after } => BlockOp::Move { block: id, after: anchor(after) },
        Op::Delete { id } => BlockOp::Delete { block: id },
    }
}

/// A conflict as the machine takes it: the file is the spec's side, the cluster the runtime's.
#[must_use]
pub fn new_conflict(conflict: Conflict<RecordId>) -> NewConflict {
    NewConflict {
        block: conflict.id,
        class: match conflict.class {
            ConflictClass::Data => MachineClass::Data,
            ConflictClass::Structure => MachineClass::Structure,
        },
        field: match conflict.field {
            ConflictField::Mark => "mark",
            ConflictField::Text => "text",
            ConflictField::Place => "place",
            ConflictField::Existence => "existence",
        }
        .to_owned(),
        base: conflict.base,
        spec: conflict.ours,
        runtime: conflict.theirs,
        settlement: None,
    }
}
