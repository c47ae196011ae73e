//! The little language of `tests/scripts`: lines that begin with `> ` are asked, the lines below are what happened.
//!
//! Consecutive `> ` lines are one batch. A line is words and calls: `edit tasks.md base=2 mark(2.1, "x")`.

use crate::harness::{Node, block, command};
use std::collections::BTreeSet;
use std::fmt::Write;
use zyflow_machine::Machine;
use zyflow_machine::command::{
    Anchor, BlockOp, BlockRef, Body, Command, EditMode, Expected, NewBlock, NewConflict, Scope, TaskField,
};
use zyflow_machine::event::{Fact, RowChange};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{
    Conflict, ConflictClass, Keep, Kind, Policy, Priority, Record, SettledBy, Settlement, Status, Strategy,
};
use zyflow_machine::view::View;

/// Runs the asked lines of a script and writes it anew, with what happened.
pub fn run(script: &str) -> String {
    let mut node = Node::default();
    let mut out = String::new();
    for paragraph in script.split("\n\n") {
        let asked: Vec<&str> = paragraph.lines().filter_map(|line| line.strip_prefix("> ")).collect();
        let remarks = paragraph.lines().filter(|line| line.starts_with('#'));
        for line in remarks {
            writeln!(out, "{line}").unwrap();
        }
        for line in &asked {
            writeln!(out, "> {line}").unwrap();
        }
        if !asked.is_empty() {
            answer(&mut node, &asked, &mut out);
        }
        out.push('\n');
    }
    format!("{}\n", out.trim_end())
}

fn answer(node: &mut Node, asked: &[&str], out: &mut String) {
    let words = split(asked[0], &[' ']);
    match words[0].as_str() {
        "skip" => {
            node.machine.skip(Revision(node.machine.revision().0 + words[1].parse::<u64>().unwrap()));
            writeln!(out, "at {}", node.machine.revision()).unwrap();
        }
        "stamp" => node.stamp = ClusterTime(words[1].parse().unwrap()),
        "time" => writeln!(out, "{} ms", node.machine.cluster_time().0).unwrap(),
        "show" => show(node, &words[1], out),
        "points" => points(node, out),
        "horizon" => writeln!(out, "{}", node.view.horizon()).unwrap(),
        "purge" => node.view.purge(),
        "restart" => {
            let header = node.machine.save().header;
            node.machine = Machine::restore(&header, node.machine.sessions()).unwrap();
        }
        _ => {
            let commands = asked.iter().map(|line| parse(node, line)).collect();
            let effects = node.apply(commands);
            for outcome in &effects.outcomes {
                writeln!(out, "{}", of_outcome(outcome)).unwrap();
            }
            for (row, _) in &effects.rows {
                writeln!(out, "  {}", of_row(row)).unwrap();
            }
        }
    }
}

fn show(node: &Node, path: &str, out: &mut String) {
    let Some(change) = find_change(node, path) else {
        writeln!(out, "no such change").unwrap();
        return;
    };
    for kind in [Kind::Block, Kind::Conflict] {
        for (_, id) in node.view.children(kind, change).unwrap() {
            match node.record(id).unwrap() {
                Record::Block(block) => {
                    let status = block.task.map_or(String::new(), |task| {
                        let taken = task.claim.value.map_or(String::new(), |claim| {
                            format!("  taken by {} until {} ms", claim.holder, claim.until.0)
                        });
                        format!("  {:?}{taken}", task.status.value)
                    });
                    let text = block.lead + &block.mark.value + &block.text.value;
                    writeln!(out, "{id}  {}{status}", text.trim_end()).unwrap();
                    for (_, id) in node.view.children(Kind::Comment, id).unwrap() {
                        let Some(Record::Comment(comment)) = node.record(id) else { continue };
                        writeln!(out, "  {id}  {} said {:?}", comment.author, comment.text).unwrap();
                    }
                }
                Record::Conflict(conflict) => writeln!(out, "{id}  {}", of_conflict(&conflict)).unwrap(),
                Record::Project(_)
                | Record::Change(_)
                | Record::Comment(_)
                | Record::Point(_)
                | Record::Retention(_)
                | Record::Restore(_) => {}
            }
        }
    }
}

fn of_conflict(conflict: &Conflict) -> String {
    let settled = conflict.settled.as_ref().map_or(String::new(), |settled| {
        let Settlement { strategy, by, value } = &settled.settlement;
        format!(", settled at {} by {}: {strategy:?} {by:?} {value:?}", settled.at, settled.author)
    });
    format!(
        "conflict over {}: {:?} was {:?}, stands as {:?}, says {}{settled}",
        conflict.field, conflict.spec, conflict.base, conflict.runtime, conflict.author
    )
}

fn points(node: &Node, out: &mut String) {
    for (_, id) in node.view.children(Kind::Point, RecordId::ROOT).unwrap() {
        let Some(Record::Point(point)) = node.record(id) else { continue };
        writeln!(out, "{id}  {} at {} by {}", point.name, point.revision, point.author).unwrap();
    }
}

fn of_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { revision, created } if created.is_empty() => format!("accepted at {revision}"),
        Outcome::Accepted { revision, created } => {
            let created: Vec<String> = created.iter().map(ToString::to_string).collect();
            format!("accepted at {revision}, created {}", created.join(" "))
        }
        Outcome::Stale { revision, fields } => {
            let field = |field: &zyflow_machine::outcome::StaleField| {
                format!("{} {} changed at {}", field.record, field.field, field.changed_at)
            };
            format!("stale at {revision}: {}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Outcome::Rejected(reject) => format!("rejected: {reject}"),
        Outcome::Duplicate(first) => format!("duplicate: {}", of_outcome(first)),
    }
}

fn of_row(row: &RowChange) -> String {
    let what = match &row.fact {
        Fact::ProjectCreated { name, .. } => format!("project created {name}"),
        Fact::ChangeCreated { path, .. } => format!("change created {path}"),
        Fact::ChangeDeleted => "change deleted".to_owned(),
        Fact::BlockInserted { block, status, .. } => {
            let text = format!("{}{}{}", block.lead, block.mark, block.text);
            format!("block inserted {:?}{}", text.trim_end(), of_status(*status))
        }
        Fact::BlockTextSet { kind, lead, text } => format!("text set kind={kind} {lead:?} {:?}", text.trim_end()),
        Fact::BlockMarked { mark, status } => format!("marked {mark:?}{}", of_status(*status)),
        Fact::BlockMoved { .. } => "block moved".to_owned(),
        Fact::BlockDeleted => "block deleted".to_owned(),
        Fact::TaskSet { fields, mark } => {
            let mark = mark.as_ref().map_or(String::new(), |mark| format!(" mark {mark:?}"));
            format!("task set {fields:?}{mark}")
        }
        Fact::ConflictRecorded(conflict) => format!("conflict recorded over {}", conflict.field),
        Fact::ConflictSettled(settled) => format!("conflict settled by {:?}", settled.settlement.strategy),
        Fact::ChangeMoved { path } => format!("change moved to {path}"),
        Fact::PolicySet(policy) => format!("policy set {:?} {:?}", policy.strategies, policy.transitions),
        Fact::Claimed { claim, fields, mark } => {
            let mark = mark.as_ref().map_or(String::new(), |mark| format!(" mark {mark:?}"));
            format!("taken by {} until {} ms {fields:?}{mark}", claim.holder, claim.until.0)
        }
        Fact::Released => "given back".to_owned(),
        Fact::Commented(comment) => format!("said {:?}", comment.text),
        Fact::PointCreated(point) => format!("point {} is {}", point.name, point.revision),
        Fact::PointRemoved => "point removed".to_owned(),
        Fact::ChangeRestored { path } => format!("change restored at {path}"),
        Fact::BlockRestored { block, fields, .. } => {
            let text = format!("{}{}{}", block.lead, block.mark, block.text);
            format!("block restored {:?} {fields:?}", text.trim_end())
        }
        Fact::ConflictRestored { settled } => {
            let settled = settled.as_ref().map(|settled| settled.settlement.strategy);
            format!("conflict restored {settled:?}")
        }
        Fact::RetentionCreated(keep) | Fact::RetentionSet(keep) => {
            format!("kept: {:?} revisions, {:?} ms", keep.revisions, keep.age_ms)
        }
        Fact::HorizonMoved { to, time } => format!("history begins at {to}, {} ms", time.0),
        Fact::Restored(restore) => format!("restored to {}", restore.cut),
    };
    let previous = row.previous.map_or(String::new(), |previous| format!(" after {previous}"));
    format!("{} of {}{previous}: {what}", row.version, row.id)
}

fn of_status(status: Option<Status>) -> String {
    status.map_or(String::new(), |status| format!(" {status:?}"))
}

#[expect(clippy::too_many_lines, reason = "one arm for each command of the language")]
fn parse(node: &Node, line: &str) -> Command {
    let mut words = split(line, &[' ']);
    let request = words[0].strip_prefix('@').map(|name| {
        let (session, seq) = name.split_once(':').unwrap();
        RequestId { session: SessionId(id(session).0), seq: seq.parse().unwrap() }
    });
    if request.is_some() {
        words.remove(0);
    }
    let expected: Vec<Expected> =
        words[0].strip_prefix("expecting:").map(|list| list.split(',').map(expectation).collect()).unwrap_or_default();
    if !expected.is_empty() {
        words.remove(0);
    }
    let base = value(&words, "base").map(|base| Revision(base.parse().unwrap()));
    let body = match words[0].as_str() {
        "open" => Body::OpenSession,
        "close" => Body::CloseSession,
        "project" => Body::CreateProject { name: words[1].clone(), files: words[2..].to_vec() },
        "change" => {
            let project = node.view.find(Kind::Project, RecordId::ROOT, words[1].as_bytes()).unwrap();
            let blocks: Vec<NewBlock> = words[3..].iter().map(|line| block(line)).collect();
            let (ops, _) = operations(&words);
            let blocks = if ops.is_empty() { blocks } else { blocks[..words.len() - 3 - ops.len()].to_vec() };
            Body::CreateChange { project: project.unwrap_or(RecordId::ROOT), path: words[2].clone(), blocks, ops }
        }
        "rename" => Body::MoveChange {
            change: change(node, &words[1]),
            path: words[2].clone(),
            from: value(&words, "from").unwrap_or(&words[1]).to_owned(),
        },
        "claim" => Body::Claim {
            task: id(&words[1]),
            holder: words[2].clone(),
            lease_ms: words[3].parse().unwrap(),
            fields: words[4..].iter().filter_map(|word| field(word)).collect(),
            mark: value(&words, "mark").map(str::to_owned),
        },
        "release" => Body::Release { task: id(&words[1]), holder: words.get(2).cloned() },
        "comment" => Body::Comment { task: id(&words[1]), text: words[2].clone() },
        "point" => Body::CreatePoint {
            name: words[1].clone(),
            at: value(&words, "at").map(|revision| Revision(revision.parse().unwrap())),
            note: String::new(),
            is_automatic: false,
        },
        "unpoint" => Body::RemovePoint { point: id(&words[1]) },
        "rollback" => Body::Rollback {
            scope: match words[1].as_str() {
                "all" => Scope::All,
                word => match node.view.find(Kind::Project, RecordId::ROOT, word.as_bytes()).unwrap() {
                    Some(project) => Scope::Project(project),
                    None => Scope::Change(change(node, word)),
                },
            },
            to: Revision(value(&words, "to").unwrap().parse().unwrap()),
            expected: value(&words, "expected").map(|revision| Revision(revision.parse().unwrap())),
        },
        "retain" => {
            let number = |name| value(&words, name).map(|number| number.parse().unwrap());
            Body::SetRetention { keep: Keep { revisions: number("revisions"), age_ms: number("age") } }
        }
        "compact" => {
            let number = |name| value(&words, name).map_or(0, |number| number.parse().unwrap());
            Body::Compact { to: Revision(number("to")), time: ClusterTime(number("time")) }
        }
        "policy" => policy(node, &words),
        "delete" => Body::DeleteChange { change: change(node, &words[1]), base: base.unwrap() },
        "edit" => edit(node, &words, base.unwrap()),
        "set" => Body::SetTask {
            task: id(&words[1]),
            expected: value(&words, "expected").map(|revision| Revision(revision.parse().unwrap())),
            fields: words[2..].iter().filter_map(|word| field(word)).collect(),
            mark: value(&words, "mark").map(str::to_owned),
        },
        other => panic!("unknown command {other}"),
    };
    let body = if expected.is_empty() { body } else { Body::Expecting { expected, body: Box::new(body) } };
    Command { request, ..command(body) }
}

/// `2.1@5`: the record as it was at revision 5.
fn expectation(text: &str) -> Expected {
    let (record, revision) = text.split_once('@').unwrap();
    Expected { record: id(record), revision: Revision(revision.parse().unwrap()) }
}

/// `policy p text=MERGE todo=in-progress,blocked`: strategies by field, transitions by status.
fn policy(node: &Node, words: &[String]) -> Body {
    let project = node.view.find(Kind::Project, RecordId::ROOT, words[1].as_bytes()).unwrap();
    let mut policy = Policy::default();
    for (name, value) in words[2..].iter().filter_map(|word| word.split_once('=')) {
        match value {
            _ if name == "expected" => {}
            "MERGE" => drop(policy.strategies.insert(name.to_owned(), Strategy::Merge)),
            "SPEC_WINS" => drop(policy.strategies.insert(name.to_owned(), Strategy::SpecWins)),
            list => drop(policy.transitions.insert(status(name), list.split(',').map(status).collect())),
        }
    }
    let expected = value(words, "expected").map(|revision| Revision(revision.parse().unwrap()));
    Body::SetPolicy { project: project.unwrap_or(RecordId::ROOT), expected, policy }
}

fn edit(node: &Node, words: &[String], base: Revision) -> Body {
    let (ops, conflicts) = operations(words);
    let mode = if words.iter().any(|word| word == "strict") { EditMode::Strict } else { EditMode::Merge };
    Body::Edit { change: change(node, &words[1]), base, mode, ops, conflicts }
}

fn operations(words: &[String]) -> (Vec<BlockOp>, Vec<NewConflict>) {
    let (mut ops, mut conflicts) = (Vec::new(), Vec::new());
    for call in words {
        let Some((name, arguments)) = call.strip_suffix(')').and_then(|call| call.split_once('(')) else { continue };
        let mut arguments = split(arguments, &[' ', ',']).into_iter();
        let mut next = || arguments.next();
        match name {
            "insert" => ops.push(BlockOp::Insert { after: anchor(&next().unwrap()), block: block(&next().unwrap()) }),
            "text" => {
                let (id, block) = (id(&next().unwrap()), block(&next().unwrap()));
                ops.push(BlockOp::SetText { block: id, kind: block.kind, lead: block.lead, text: block.text });
            }
            "mark" => ops.push(BlockOp::SetMark {
                block: id(&next().unwrap()),
                mark: next().unwrap(),
                status: next().map(|word| status(&word)),
            }),
            "move" => ops.push(BlockOp::Move { block: id(&next().unwrap()), after: anchor(&next().unwrap()) }),
            "delete" => ops.push(BlockOp::Delete { block: id(&next().unwrap()) }),
            "conflict" => conflicts.push(NewConflict {
                block: Some(id(&next().unwrap())),
                class: ConflictClass::Data,
                field: next().unwrap(),
                base: next(),
                spec: next(),
                runtime: next(),
                settlement: None,
            }),
            "fields" => {
                let block = block_ref(&next().unwrap());
                let fields = std::iter::from_fn(next).filter_map(|word| field(&word)).collect();
                ops.push(BlockOp::SetFields { block, fields });
            }
            "blockers" => {
                let block = block_ref(&next().unwrap());
                let on: BTreeSet<BlockRef> = std::iter::from_fn(next).map(|word| block_ref(&word)).collect();
                ops.push(BlockOp::SetBlockers { block, on });
            }
            "resolve" => ops.push(BlockOp::Resolve {
                conflict: id(&next().unwrap()),
                settlement: Settlement { strategy: Strategy::Manual, by: SettledBy::User, value: next() },
            }),
            other => panic!("unknown operation {other}"),
        }
    }
    (ops, conflicts)
}

fn block_ref(word: &str) -> BlockRef {
    word.strip_prefix('+').map_or_else(|| BlockRef::Known(id(word)), |nth| BlockRef::New(nth.parse().unwrap()))
}

fn field(word: &str) -> Option<TaskField> {
    let (name, value) = word.split_once('=')?;
    let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let list = || value.split(',').filter(|part| !part.is_empty());
    Some(match name {
        "status" => TaskField::Status(status(value)),
        "assignee" => TaskField::Assignee(some(value)),
        "priority" => TaskField::Priority(Some(if value == "high" { Priority::High } else { Priority::Low })),
        "due" => TaskField::Due(some(value)),
        "labels" => TaskField::Labels(list().map(str::to_owned).collect()),
        "blocked-by" => TaskField::BlockedBy(list().map(id).collect()),
        "note" => TaskField::Note(value.to_owned()),
        "requirements" => TaskField::Requirements(list().map(str::to_owned).collect()),
        _ => return None,
    })
}

fn status(word: &str) -> Status {
    let all = [
        ("todo", Status::Todo),
        ("in-progress", Status::InProgress),
        ("review", Status::Review),
        ("blocked", Status::Blocked),
        ("done", Status::Done),
        ("cancelled", Status::Cancelled),
        ("archived", Status::Archived),
    ];
    all.into_iter().find(|(name, _)| *name == word).unwrap().1
}

fn anchor(word: &str) -> Anchor {
    match word.strip_prefix('+') {
        Some(number) => Anchor::AfterNew(number.parse().unwrap()),
        None if word == "start" => Anchor::Start,
        None => Anchor::After(id(word)),
    }
}

fn value<'w>(words: &'w [String], name: &str) -> Option<&'w str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn id(word: &str) -> RecordId {
    word.parse().unwrap()
}

fn change(node: &Node, word: &str) -> RecordId {
    find_change(node, word).unwrap_or_else(|| id(word))
}

fn find_change(node: &Node, path: &str) -> Option<RecordId> {
    let projects = node.view.children(Kind::Project, RecordId::ROOT).unwrap();
    projects.into_iter().find_map(|(_, project)| node.view.find(Kind::Change, project, path.as_bytes()).unwrap())
}

/// Words between separators; quotes and brackets hold a word together, quotes are dropped outside of brackets, `\n` is a line end.
fn split(line: &str, separators: &[char]) -> Vec<String> {
    let (mut words, mut word, mut depth, mut is_quoted, mut is_word) = (Vec::new(), String::new(), 0, false, false);
    for letter in line.chars() {
        match letter {
            '"' => {
                is_quoted = !is_quoted;
                is_word = true;
                if depth > 0 {
                    word.push(letter);
                }
            }
            _ if separators.contains(&letter) && !is_quoted && depth == 0 => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            _ => {
                depth += i32::from(letter == '(' && !is_quoted) - i32::from(letter == ')' && !is_quoted);
                is_word = true;
                word.push(letter);
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}
