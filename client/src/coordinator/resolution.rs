//! Resolving a conflict: the operations that make one of its values stand, and the settlement that closes it.
//!
//! A conflict keeps both values; one of them stands in the text. Which one is looked up, not remembered, since the text may have gone on: *current* is
//! the value that stands now, *other* the recorded one that doesn't. A value of a text or of whether a block exists is the whole block; of a place it is the
//! line before; of a runtime field it is written as `zyflow_checkout::fields::written` does.

use super::Change;
use zyflow_checkout::fields::{read, status_of};
use zyflow_machine::command::{Anchor, BlockOp, BlockRef, NewBlock, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::record::{Conflict, SettledBy, Settlement, Strategy};
use zyflow_spec::{BlockKind, parse};

/// Which value shall stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// The one that stands now.
    Current,
    /// The recorded one that doesn't stand.
    Other,
    /// The one that both sides started from.
    Base,
    /// The file's.
    Spec,
    /// The cluster's.
    Runtime,
    /// These words.
    Text(String),
}

/// Why a value can't be made to stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolutionError {
    /// It is settled already.
    #[error("it was settled at revision {0} already")]
    Settled(u64),
    /// There is no such value.
    #[error("it has no {0} value: take another one, or write the text")]
    NoValue(&'static str),
    /// The text isn't of the kind that the field needs.
    #[error("{value:?} is no value of {field}: {hint}")]
    Unfit {
        /// The value.
        value: String,
        /// The field.
        field: String,
        /// What would be.
        hint: &'static str,
    },
    /// The block that it is about is deleted, and the value is a part of it.
    #[error("the block is deleted, so its {0} can't be set: take `current`, or restore the block first")]
    BlockGone(String),
}

/// What resolving a conflict comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The operations on the change, the last of which closes the conflict.
    pub ops: Vec<BlockOp>,
    /// The value that stands afterwards; `None` = there is no such block or no value.
    pub value: Option<String>,
}

/// How a conflict named `id` is resolved by taking a value.
///
/// # Errors
/// [`ResolutionError`]; nothing is changed then.
pub fn resolve(change: &Change, id: RecordId, conflict: &Conflict, take: &Take) -> Result<Resolution, ResolutionError> {
    if let Some(settled) = &conflict.settled {
        return Err(ResolutionError::Settled(settled.at.0));
    }
    let now = current(change, conflict);
    let (value, strategy) = match take {
        Take::Current => (now.clone(), Strategy::Manual),
        Take::Spec => (conflict.spec.clone(), Strategy::SpecWins),
        Take::Runtime => (conflict.runtime.clone(), Strategy::RuntimeWins),
        Take::Base => (Some(conflict.base.clone().ok_or(ResolutionError::NoValue("base"))?), Strategy::Manual),
        Take::Text(text) => (Some(whole(change, conflict, text)), Strategy::Manual),
        Take::Other => {
            let is_spec_standing = conflict.spec == now && conflict.runtime != now;
            (if is_spec_standing { conflict.runtime.clone() } else { conflict.spec.clone() }, Strategy::Manual)
        }
    };
    let mut ops = if value == now { Vec::new() } else { operations(change, conflict, value.as_deref())? };
    let settlement = Settlement { strategy, by: SettledBy::User, value: value.clone() };
    ops.push(BlockOp::Resolve { conflict: id, settlement });
    Ok(Resolution { ops, value })
}

/// The value that stands now: of the field in the block, or of the block as a whole.
#[must_use]
pub fn current(change: &Change, conflict: &Conflict) -> Option<String> {
    let at = place_of(change, conflict)?;
    let part = change.blocks.get(at)?;
    match conflict.field.as_str() {
        "mark" => Some(part.block.content.mark.clone()),
        "text" | "existence" => Some(part.block.print()),
        "place" => Some(
            at.checked_sub(1)
                .and_then(|at| change.blocks.get(at))
                .map_or_else(String::new, |before| before.block.print()),
        ),
        name => {
            let task = part.row.record.task.as_deref()?;
            let like = read(name, None).or_else(|| read(name, Some("todo")))?;
            zyflow_checkout::fields::written(&zyflow_checkout::fields::current_of(task, &like))
        }
    }
}

/// Where the block of a conflict stands. One that was deleted by one side and put back as a new block is found by its words.
fn place_of(change: &Change, conflict: &Conflict) -> Option<usize> {
    if let Some(id) = conflict.block {
        return change.blocks.iter().position(|part| part.row.id == id);
    }
    let values = [&conflict.spec, &conflict.runtime];
    let is_it = |text: &String| values.iter().any(|value| value.as_ref() == Some(text));
    change.blocks.iter().position(|part| is_it(&part.block.print()))
}

/// What people write on a command line has no line end, and of a task often only the words: list marker and mark stay.
fn whole(change: &Change, conflict: &Conflict, text: &str) -> String {
    if !matches!(conflict.field.as_str(), "text" | "existence") {
        return text.to_owned();
    }
    let text = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let stands = place_of(change, conflict).and_then(|at| change.blocks.get(at)).map(|part| &part.block);
    let is_task = |block: &zyflow_spec::Block| block.kind == BlockKind::Task;
    match stands {
        Some(task) if is_task(task) && !parse(&text).blocks.iter().any(is_task) => {
            format!("{}{}] {text}", task.content.lead, task.content.mark)
        }
        Some(_) | None => text,
    }
}

fn unfit(conflict: &Conflict, value: &str, hint: &'static str) -> ResolutionError {
    ResolutionError::Unfit { value: value.to_owned(), field: conflict.field.clone(), hint }
}

fn operations(change: &Change, conflict: &Conflict, value: Option<&str>) -> Result<Vec<BlockOp>, ResolutionError> {
    let at = place_of(change, conflict);
    let part = at.and_then(|at| change.blocks.get(at));
    match (conflict.field.as_str(), part, value) {
        ("text" | "existence", Some(part), Some(value)) => reworded(conflict, part, value),
        ("text" | "existence", Some(part), None) => Ok(vec![BlockOp::Delete { block: part.row.id }]),
        ("text" | "existence", None, Some(value)) => restored(change, conflict, value),
        ("text" | "existence", None, None) => Ok(Vec::new()),
        (field, None, _) => Err(ResolutionError::BlockGone(field.to_owned())),
        ("mark", Some(part), Some(mark)) => {
            let status = change.convention.state_of(mark).map(status_of);
            Ok(vec![BlockOp::SetMark { block: part.row.id, mark: mark.to_owned(), status }])
        }
        ("place", Some(part), Some(before)) => {
            let before_it = change.blocks.iter().find(|other| other.block.print() == before);
            let after = match (before.is_empty(), before_it) {
                (true, _) => Anchor::Start,
                (false, Some(before_it)) => Anchor::After(before_it.row.id),
                (false, None) => return Err(unfit(conflict, before, "no line of the file reads so any more")),
            };
            Ok(vec![BlockOp::Move { block: part.row.id, after }])
        }
        (name, Some(part), value) => {
            let hint = "write it as `zyflow conflict show` does";
            let field = read(name, value).ok_or_else(|| unfit(conflict, value.unwrap_or_default(), hint))?;
            let block = BlockRef::Known(part.row.id);
            Ok(vec![if let TaskField::BlockedBy(ids) = field {
                BlockOp::SetBlockers { block, on: ids.into_iter().map(BlockRef::Known).collect() }
            } else {
                BlockOp::SetFields { block, fields: vec![field] }
            }])
        }
    }
}

/// A block gets other words.
fn reworded(conflict: &Conflict, part: &super::Part, value: &str) -> Result<Vec<BlockOp>, ResolutionError> {
    let id = part.row.id;
    let mut parsed = parse(value).blocks.into_iter();
    let (first, more) = (parsed.next(), parsed.next());
    let (Some(block), None) = (first, more) else {
        return Err(unfit(conflict, value, "it has to be one line, as the block that it replaces"));
    };
    let kind: u8 = block.kind.into();
    let mut ops = vec![BlockOp::SetText { block: id, kind, lead: block.content.lead, text: block.content.text }];
    if block.kind == BlockKind::Task && block.content.mark != part.block.content.mark && conflict.field == "existence" {
        ops.push(BlockOp::SetMark { block: id, mark: block.content.mark, status: None });
    }
    Ok(ops)
}

/// A deleted block comes back as a new one, where it stood: its place is kept.
fn restored(change: &Change, conflict: &Conflict, value: &str) -> Result<Vec<BlockOp>, ResolutionError> {
    let last = change.blocks.last().map_or(Anchor::Start, |part| Anchor::After(part.row.id));
    let mut anchor = conflict.block.map_or(last, Anchor::After);
    let blocks = parse(value).blocks;
    if blocks.is_empty() {
        return Err(unfit(conflict, value, "it holds no text"));
    }
    let mut ops = Vec::new();
    for (block, nth) in blocks.into_iter().zip(0..) {
        let new = NewBlock {
            kind: block.kind.into(),
            lead: block.content.lead,
            mark: block.content.mark,
            text: block.content.text,
        };
        ops.push(BlockOp::Insert { after: anchor, block: new });
        anchor = Anchor::AfterNew(nth);
    }
    Ok(ops)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{change, id};
    use super::*;
    use expect_test::{Expect, expect};
    use zyflow_machine::record::{ConflictClass, Priority};

    const TEXT: &str = "- [ ] 1.1 one\n- [ ] 1.2 two\nprose\n";

    fn conflict(block: Option<u32>, field: &str, values: [Option<&str>; 3]) -> Conflict {
        let [base, spec, runtime] = values.map(|value| value.map(str::to_owned));
        Conflict {
            change: id(0),
            block: block.map(id),
            class: ConflictClass::Data,
            field: field.to_owned(),
            base,
            spec,
            runtime,
            author: "ann".to_owned(),
            settled: None,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "each take is written where it is tried")]
    fn check(conflict: &Conflict, take: Take, expected: &Expect) {
        let fields = [(0, TaskField::Priority(Some(Priority::Low)))];
        let said = match resolve(&change(TEXT, &fields), id(77), conflict, &take) {
            Err(error) => error.to_string(),
            Ok(Resolution { mut ops, value }) => {
                assert!(matches!(ops.pop(), Some(BlockOp::Resolve { .. })), "the last operation closes it");
                let ops: Vec<String> = ops.iter().map(describe).collect();
                format!("{} -> {value:?}", ops.join(", "))
            }
        };
        expected.assert_eq(&said);
    }

    fn describe(op: &BlockOp) -> String {
        match op {
            BlockOp::Insert { after, block } => {
                format!("insert {:?} {:?}", after, format!("{}{}{}", block.lead, block.mark, block.text))
            }
            BlockOp::SetText { block, lead, text, .. } => format!("text {block} {lead:?} {text:?}"),
            BlockOp::SetMark { block, mark, status } => format!("mark {block} {mark:?} {status:?}"),
            BlockOp::Move { block, after } => format!("move {block} {after:?}"),
            BlockOp::Delete { block } => format!("delete {block}"),
            BlockOp::SetFields { block, fields } => format!("set {block:?} {fields:?}"),
            BlockOp::SetBlockers { block, on } => format!("blockers {block:?} {on:?}"),
            BlockOp::Resolve { .. } => "resolve".to_owned(),
        }
    }

    #[test]
    fn each_value_of_a_text_can_be_taken() {
        let text =
            conflict(Some(1), "text", [Some("- [ ] 1.1 uno\n"), Some("- [ ] 1.1 eins\n"), Some("- [ ] 1.1 one\n")]);
        check(&text, Take::Current, &expect![[r#" -> Some("- [ ] 1.1 one\n")"#]]);
        check(&text, Take::Other, &expect![[r#"text 2.1 "- [" "] 1.1 eins\n" -> Some("- [ ] 1.1 eins\n")"#]]);
        check(&text, Take::Base, &expect![[r#"text 2.1 "- [" "] 1.1 uno\n" -> Some("- [ ] 1.1 uno\n")"#]]);
        check(
            &text,
            Take::Text("1.1 both".to_owned()),
            &expect![[r#"text 2.1 "- [" "] 1.1 both\n" -> Some("- [ ] 1.1 both\n")"#]],
        );
        check(
            &text,
            Take::Text("two\n\nlines".to_owned()),
            &expect![[
                r#""- [ ] two\n\nlines\n" is no value of text: it has to be one line, as the block that it replaces"#
            ]],
        );
    }

    #[test]
    fn what_stands_is_looked_up() {
        // The file's value won: the other one is the cluster's.
        let text = conflict(Some(1), "text", [None, Some("- [ ] 1.1 one\n"), Some("- [ ] 1.1 newer\n")]);
        check(&text, Take::Other, &expect![[r#"text 2.1 "- [" "] 1.1 newer\n" -> Some("- [ ] 1.1 newer\n")"#]]);
        check(&text, Take::Base, &expect!["it has no base value: take another one, or write the text"]);
    }

    #[test]
    fn a_deleted_block_comes_back_where_it_stood_and_a_kept_one_can_go() {
        let deleted = conflict(Some(9), "existence", [None, None, Some("- [ ] 1.3 three\n")]);
        check(&deleted, Take::Current, &expect![" -> None"]);
        check(
            &deleted,
            Take::Runtime,
            &expect![[r#"insert After(RecordId(EventId(2097161))) "- [ ] 1.3 three\n" -> Some("- [ ] 1.3 three\n")"#]],
        );
        let kept = conflict(Some(2), "existence", [Some("- [ ] 1.2 b\n"), None, Some("- [ ] 1.2 two\n")]);
        check(&kept, Take::Other, &expect!["delete 2.2 -> None"]);
        let revived = conflict(None, "existence", [None, Some("- [ ] 1.2 two\n"), None]);
        check(&revived, Take::Other, &expect!["delete 2.2 -> None"]);
    }

    #[test]
    fn marks_places_and_runtime_fields() {
        check(
            &conflict(Some(1), "mark", [Some(" "), Some("x"), Some(" ")]),
            Take::Other,
            &expect![[r#"mark 2.1 "x" Some(Done) -> Some("x")"#]],
        );
        check(
            &conflict(Some(1), "place", [Some(""), Some("- [ ] 1.2 two\n"), Some("")]),
            Take::Other,
            &expect![[r#"move 2.1 After(RecordId(EventId(2097154))) -> Some("- [ ] 1.2 two\n")"#]],
        );
        check(
            &conflict(Some(1), "place", [None, Some("gone\n"), Some("")]),
            Take::Other,
            &expect![[r#""gone\n" is no value of place: no line of the file reads so any more"#]],
        );
        check(
            &conflict(Some(1), "priority", [None, Some("high"), Some("low")]),
            Take::Other,
            &expect![[r#"set Known(RecordId(EventId(2097153))) [Priority(Some(High))] -> Some("high")"#]],
        );
        check(
            &conflict(Some(9), "mark", [None, Some("x"), Some(" ")]),
            Take::Spec,
            &expect!["the block is deleted, so its mark can't be set: take `current`, or restore the block first"],
        );
    }

    #[test]
    fn it_is_settled_once() {
        let mut text = conflict(Some(1), "text", [None, None, None]);
        text.settled = Some(zyflow_machine::record::Settled {
            at: zyflow_machine::id::Revision(5),
            author: "bob".to_owned(),
            settlement: Settlement { strategy: Strategy::Skip, by: SettledBy::User, value: None },
        });
        check(&text, Take::Current, &expect!["it was settled at revision 5 already"]);
    }
}
