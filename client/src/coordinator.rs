//! The coordinator: keeps the specification (the text of a change) and the runtime state (fields of its tasks) consistent, and settles
//! conflicts. The functions of ZyFlow's original design under their names, each pure: a state in, commands out.
//!
//! [`consistency`]: what disagrees, with what is expected and what to do. [`sync`]: the operations that bring one side to the other. [`resolution`]:
//! the operations that make one value of a conflict stand. Whoever calls proposes what comes out; nothing here talks to a cluster.
//!
//! ```text
//!   Document (text + fields) ──▶ consistency ──▶ report, some of it with a fix
//!                            ──▶ sync(direction) ──▶ operations, or --dry-run's list of them
//!   Conflict + Document + take ──▶ resolution ──▶ operations + settlement
//! ```
//! An ordinary save needs none of this: the checkout sends what a text says of fields together with the text. The coordinator is for what was
//! there before, was set elsewhere, or was never read (a project whose convention changed).

pub mod consistency;
pub mod resolution;
pub mod sync;

use crate::read::{Document, Row};
use std::collections::BTreeMap;
use zyflow_checkout::fields::{Runtime, status_of};
use zyflow_machine::id::RecordId;
use zyflow_machine::record::{Block, Policy, Status, TaskFields};
use zyflow_spec::{BlockKind, Content, Convention, TaskFacts};

/// A change as the coordinator sees it: each block with what its text says and, for a task, what the runtime has.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its path.
    pub path: String,
    /// What marks mean in it.
    pub convention: Convention,
    /// The policy of its project.
    pub policy: Policy,
    /// Its blocks, in order.
    pub blocks: Vec<Part>,
}

/// A block of a change.
#[derive(Clone, Debug)]
pub struct Part {
    /// The stored block.
    pub row: Row<Block>,
    /// As the spec crate sees it.
    pub block: zyflow_spec::Block,
    /// What its text says; `None` where it is no task.
    pub facts: Option<TaskFacts>,
}

impl Change {
    /// A change of these blocks, under the policy of its project.
    #[must_use]
    pub fn new(path: &str, document: &Document, policy: &Policy) -> Self {
        let blocks: Vec<zyflow_spec::Block> = document.blocks.iter().map(|row| spec_block(&row.record)).collect();
        let text = zyflow_spec::Document { blocks, problems: Vec::new() };
        let runtime = Runtime { policy: policy.clone(), ..Runtime::default() };
        let convention = runtime.convention_of(&text, path);
        let facts = zyflow_spec::facts(&text.blocks, &convention);
        let parts = document.blocks.iter().zip(text.blocks).zip(facts);
        let blocks = parts.map(|((row, block), facts)| Part { row: row.clone(), block, facts }).collect();
        Self { path: path.to_owned(), convention, policy: policy.clone(), blocks }
    }

    /// The tasks: what the text says and what the runtime has.
    pub fn tasks(&self) -> impl Iterator<Item = (&Part, &TaskFacts, &TaskFields)> {
        self.blocks.iter().filter_map(|part| Some((part, part.facts.as_ref()?, part.row.record.task.as_deref()?)))
    }

    /// Tasks by the number that people gave them; of a repeated number the first.
    #[must_use]
    pub fn numbers(&self) -> BTreeMap<String, RecordId> {
        let mut numbers = BTreeMap::new();
        for (part, facts, _) in self.tasks() {
            if let Some(id) = &facts.id {
                numbers.entry(id_key(id)).or_insert(part.row.id);
            }
        }
        numbers
    }

    /// The mark that shows a status in this change, where marks show it.
    #[must_use]
    pub fn mark_of(&self, status: Status) -> Option<String> {
        self.convention.mark_of(zyflow_checkout::fields::state_of(status))
    }
}

/// The part of a number by which references are compared: `Task 1.2`, `#1.2` and `1.2.` are one.
#[must_use]
pub fn id_key(id: &str) -> String {
    let last = id.split_whitespace().next_back().unwrap_or(id);
    last.trim_start_matches('#').trim_end_matches('.').to_lowercase()
}

/// The status that a task's text says; an unknown mark counts as open.
#[must_use]
pub fn said_status(facts: &TaskFacts) -> Option<Status> {
    facts.state.map(status_of)
}

/// The block as the spec crate sees it. A kind of a newer version reads as prose: it is only shown.
#[must_use]
pub fn spec_block(block: &Block) -> zyflow_spec::Block {
    let kind = BlockKind::try_from(block.kind).unwrap_or(BlockKind::Prose);
    let content = Content { lead: block.lead.clone(), mark: block.mark.value.clone(), text: block.text.value.clone() };
    zyflow_spec::Block { kind, content }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Changes for the tests of this module, written as text.

    use super::*;
    use zyflow_machine::command::TaskField;
    use zyflow_machine::id::{EventId, Revision};
    use zyflow_machine::record::{Field, KIND_TASK, OrderKey};

    pub(crate) fn id(ordinal: u32) -> RecordId {
        RecordId(EventId::new(Revision(2), ordinal).unwrap())
    }

    /// A change at revision 2; the n-th block (from 0) is 2.(n+1). `fields` are set at revision 3.
    pub(crate) fn change(text: &str, fields: &[(usize, TaskField)]) -> Change {
        let blocks = zyflow_spec::parse(text).blocks.into_iter().zip(1..);
        let rows = blocks.map(|(block, ordinal)| {
            let task = (block.kind == BlockKind::Task).then(|| {
                let status = if block.is_done() { Status::Done } else { Status::Todo };
                Box::new(TaskFields { status: Field::new(status, Revision(2)), ..TaskFields::default() })
            });
            let record = Block {
                change: id(0),
                kind: if task.is_some() { KIND_TASK } else { block.kind.into() },
                order: Field::new(OrderKey(vec![1]), Revision(2)),
                lead: block.content.lead,
                mark: Field::new(block.content.mark, Revision(2)),
                text: Field::new(block.content.text, Revision(2)),
                task,
            };
            Row { id: id(ordinal), version: id(ordinal).0, record }
        });
        let mut rows: Vec<Row<Block>> = rows.collect();
        for (at, field) in fields {
            rows[*at].record.task.as_mut().unwrap().set(field, Revision(3));
        }
        let record = zyflow_machine::record::Change { project: id(0), path: "tasks.md".to_owned() };
        let change = Row { id: id(0), version: id(0).0, record: Some(record) };
        Change::new("tasks.md", &Document { change, blocks: rows }, &Policy::default())
    }
}
