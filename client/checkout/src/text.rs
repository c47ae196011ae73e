//! Texts whose every block has its id, and the way between the blocks of `zyflow-spec` and those of `zyflow-machine`.
//!
//! No decisions are made here. Invariant of [`KnownText`]: every edit that led to it is part of the cluster's history at
//! `revision`, so it can stand as the base of a three-way merge against any newer state.

use zyflow_machine::command::{Anchor as MachineAnchor, BlockOp, NewBlock, NewConflict};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{
    ConflictClass as MachineClass, Policy, SettledBy, Settlement, Strategy as MachineStrategy,
};
use zyflow_spec::{Anchor, Block, ConflictClass, ConflictField, Known, Op, SettledConflict, Strategies, Strategy};

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
pub fn new_conflict(settled: SettledConflict<RecordId>) -> NewConflict {
    let SettledConflict { conflict, settled, value } = settled;
    NewConflict {
        block: conflict.id,
        class: match conflict.class {
            ConflictClass::Data => MachineClass::Data,
            ConflictClass::Structure => MachineClass::Structure,
            ConflictClass::Schema => MachineClass::Schema,
            ConflictClass::Version => MachineClass::Version,
            ConflictClass::Dependency => MachineClass::Dependency,
            ConflictClass::Permission => MachineClass::Permission,
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
        settlement: settled.map(|strategy| Settlement {
            strategy: machine_strategy(strategy),
            by: SettledBy::Auto,
            value,
        }),
    }
}

fn machine_strategy(strategy: Strategy) -> MachineStrategy {
    match strategy {
        Strategy::SpecWins => MachineStrategy::SpecWins,
        Strategy::RuntimeWins => MachineStrategy::RuntimeWins,
        Strategy::LastWriteWins => MachineStrategy::LastWriteWins,
        Strategy::Merge => MachineStrategy::Merge,
        Strategy::Manual => MachineStrategy::Manual,
        Strategy::Skip => MachineStrategy::Skip,
    }
}

/// What a project's policy says about conflicts of texts, as the merge takes it.
#[must_use]
pub fn strategies(policy: &Policy) -> Strategies {
    let spec = |strategy| match strategy {
        MachineStrategy::SpecWins => Strategy::SpecWins,
        MachineStrategy::RuntimeWins => Strategy::RuntimeWins,
        MachineStrategy::LastWriteWins => Strategy::LastWriteWins,
        MachineStrategy::Merge => Strategy::Merge,
        MachineStrategy::Manual => Strategy::Manual,
        MachineStrategy::Skip => Strategy::Skip,
    };
    let fields = [
        (ConflictField::Mark, "mark"),
        (ConflictField::Text, "text"),
        (ConflictField::Place, "place"),
        (ConflictField::Existence, "existence"),
    ];
    let all = Strategies::all(spec(policy.strategy));
    fields.into_iter().fold(all, |all, (field, name)| all.with(field, spec(policy.strategy_for(name))))
}
