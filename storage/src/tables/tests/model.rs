//! Random commands, flushes, crashes and readers of the past: the tables always answer as the machine's own model does.

use proptest::prelude::*;
use proptest::sample::Index;
use zyflow_machine::command::{Anchor, BlockOp, Body, EditMode, Expected, NewConflict, Scope};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, Revision, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{ConflictClass, Kind, Status};

use super::harness::{Model, Node, batch, command, edit, note, task_block};
use crate::tables::{EntryPayload, TablesError};

#[derive(Clone, Debug)]
enum Step {
    Blank,
    Membership(u8),
    OpenSession,
    /// Of one entry, some in a session.
    Commands(Vec<(Option<u64>, Ask)>),
    /// A scope goes back to a past revision.
    Rollback(Index, Index),
    /// The history before a past revision is let go of.
    Compact(Index),
    /// Everything written that is durable.
    Flush,
    /// The log becomes durable up to so many entries before its end.
    Durable(u8),
    /// Killed, opened, replayed.
    Crash,
    /// Compares one past revision.
    LookBack(Index),
}

#[derive(Clone, Debug)]
enum Ask {
    Project(u8),
    Change(Index, u8, u8),
    DeleteChange(Index),
    Insert(Index, Index, u8),
    Move(Index, Index),
    Text(Index, u8),
    Mark(Index),
    Delete(Index),
    Note(Index, u8),
    Conflict(Index),
    MoveChange(Index, u8),
    Comment(Index, u8),
    Point(u8),
    RemovePoint(Index),
    Claim(Index, u8),
    /// Of an author who saw the state of some revisions ago, and takes no part of a change for granted.
    Strict(Index, u8),
    /// The same, about a project or a change.
    Expecting(Index, u8, u8),
    /// A change that was seen some revisions ago is deleted.
    DeleteSeen(Index, u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    let index = any::<Index>;
    prop_oneof![
        1 => (0..3_u8).prop_map(Ask::Project),
        1 => (index(), 0..3_u8, 0..4_u8).prop_map(|(project, path, blocks)| Ask::Change(project, path, blocks)),
        1 => index().prop_map(Ask::DeleteChange),
        4 => (index(), index(), any::<u8>()).prop_map(|(change, after, text)| Ask::Insert(change, after, text)),
        3 => (index(), index()).prop_map(|(block, after)| Ask::Move(block, after)),
        2 => (index(), any::<u8>()).prop_map(|(block, text)| Ask::Text(block, text)),
        2 => index().prop_map(Ask::Mark),
        2 => index().prop_map(Ask::Delete),
        3 => (index(), any::<u8>()).prop_map(|(block, text)| Ask::Note(block, text)),
        1 => index().prop_map(Ask::Conflict),
        2 => (index(), 0..5_u8).prop_map(|(change, path)| Ask::MoveChange(change, path)),
        1 => (index(), any::<u8>()).prop_map(|(task, text)| Ask::Comment(task, text)),
        1 => (0..3_u8).prop_map(Ask::Point),
        1 => index().prop_map(Ask::RemovePoint),
        1 => (index(), 0..3_u8).prop_map(|(task, holder)| Ask::Claim(task, holder)),
        1 => (index(), 0..40_u8).prop_map(|(block, age)| Ask::Strict(block, age)),
        1 => (index(), 0..40_u8, any::<u8>()).prop_map(|(of, age, text)| Ask::Expecting(of, age, text)),
        1 => (index(), 0..40_u8).prop_map(|(change, age)| Ask::DeleteSeen(change, age)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Blank),
        1 => any::<u8>().prop_map(Step::Membership),
        1 => Just(Step::OpenSession),
        16 => prop::collection::vec((prop::option::weighted(0.3, 1..6_u64), ask()), 1..5).prop_map(Step::Commands),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(scope, to)| Step::Rollback(scope, to)),
        1 => any::<Index>().prop_map(Step::Compact),
        4 => Just(Step::Flush),
        2 => (0..4_u8).prop_map(Step::Durable),
        1 => Just(Step::Crash),
        4 => any::<Index>().prop_map(Step::LookBack),
    ]
}

fn pick(ids: &[RecordId], index: Index) -> RecordId {
    // An id that nothing has is asked for too, while there is nothing else.
    if ids.is_empty() { RecordId::from_u64(u64::from(u32::MAX)) } else { ids[index.index(ids.len())] }
}

fn body(model: &Model, ask: &Ask) -> Body {
    let (changes, blocks) = (model.of_kind(Kind::Change), model.of_kind(Kind::Block));
    let base = model.digest().0;
    let of_block = |block: RecordId| {
        let stored = model.map.history(block).last();
        stored.map_or(block, |stored| stored.parent)
    };
    let one = |block: RecordId, op: BlockOp| edit(of_block(block), base, vec![op]);
    match ask {
        Ask::Project(name) => Body::CreateProject { name: format!("project {name}"), files: Vec::new() },
        Ask::Change(project, path, count) => Body::CreateChange {
            project: pick(&model.of_kind(Kind::Project), *project),
            path: format!("{path}/tasks.md"),
            blocks: (0..*count).map(|at| task_block(&at.to_string())).collect(),
            ops: Vec::new(),
        },
        Ask::DeleteChange(change) => Body::DeleteChange { change: pick(&changes, *change), base },
        Ask::Insert(change, after, text) => {
            let after = pick(&blocks, *after);
            let is_sibling = model.map.history(after).last().is_some();
            let (change, after) = if is_sibling && text % 3 > 0 {
                (of_block(after), Anchor::After(after))
            } else {
                (pick(&changes, *change), Anchor::Start)
            };
            edit(change, base, vec![BlockOp::Insert { after, block: task_block(&format!("text {text}")) }])
        }
        Ask::Move(block, after) => {
            let (block, after) = (pick(&blocks, *block), pick(&blocks, *after));
            let after = if of_block(after) == of_block(block) { Anchor::After(after) } else { Anchor::Start };
            one(block, BlockOp::Move { block, after })
        }
        Ask::Text(block, text) => {
            let block = pick(&blocks, *block);
            let text = format!("] {text}\n");
            one(block, BlockOp::SetText { block, kind: 2, lead: "- [".to_owned(), text })
        }
        Ask::Mark(block) => {
            let block = pick(&blocks, *block);
            one(block, BlockOp::SetMark { block, mark: "x".to_owned(), status: Some(Status::Done) })
        }
        Ask::Delete(block) => {
            let block = pick(&blocks, *block);
            one(block, BlockOp::Delete { block })
        }
        Ask::Note(block, text) => note(pick(&blocks, *block), &format!("note {text}")),
        Ask::Strict(..) | Ask::Expecting(..) | Ask::DeleteSeen(..) => seen_before(model, ask, &changes, &blocks),
        Ask::MoveChange(..) | Ask::Comment(..) | Ask::Point(_) | Ask::RemovePoint(_) | Ask::Claim(..) => {
            beside(model, ask, &changes, &blocks)
        }
        Ask::Conflict(change) => Body::Edit {
            change: pick(&changes, *change),
            base,
            mode: EditMode::Merge,
            ops: Vec::new(),
            conflicts: vec![NewConflict {
                block: None,
                class: ConflictClass::Data,
                field: "text".to_owned(),
                base: None,
                spec: Some("mine".to_owned()),
                runtime: Some("yours".to_owned()),
                settlement: None,
            }],
        },
    }
}

/// What isn't about texts.
fn beside(model: &Model, ask: &Ask, changes: &[RecordId], blocks: &[RecordId]) -> Body {
    match ask {
        Ask::MoveChange(change, path) => {
            let change = pick(changes, *change);
            let from = model.map.history(change).last().and_then(|stored| String::from_utf8(stored.order.clone()).ok());
            Body::MoveChange { change, path: format!("{path}/tasks.md"), from: from.unwrap_or_default() }
        }
        Ask::Comment(task, text) => Body::Comment { task: pick(blocks, *task), text: format!("comment {text}") },
        Ask::Point(name) => {
            Body::CreatePoint { name: format!("point {name}"), at: None, note: String::new(), is_automatic: false }
        }
        Ask::RemovePoint(point) => Body::RemovePoint { point: pick(&model.of_kind(Kind::Point), *point) },
        Ask::Claim(task, holder) => Body::Claim {
            task: pick(blocks, *task),
            holder: format!("holder {holder}"),
            lease_ms: 1,
            fields: vec![],
            mark: None,
        },
        Ask::Project(_)
        | Ask::Change(..)
        | Ask::DeleteChange(_)
        | Ask::Insert(..)
        | Ask::Move(..)
        | Ask::Text(..)
        | Ask::Mark(_)
        | Ask::Delete(_)
        | Ask::Note(..)
        | Ask::Strict(..)
        | Ask::Expecting(..)
        | Ask::DeleteSeen(..)
        | Ask::Conflict(_) => unreachable!("{ask:?} is about texts"),
    }
}

/// What builds on a state of before.
fn seen_before(model: &Model, ask: &Ask, changes: &[RecordId], blocks: &[RecordId]) -> Body {
    let newest = model.digest().0;
    let ago = |age: &u8| Revision(newest.0.saturating_sub(u64::from(*age)));
    if let Ask::Strict(block, age) = ask {
        let block = pick(blocks, *block);
        let change = model.map.history(block).last().map_or(block, |stored| stored.parent);
        let ops = vec![BlockOp::SetMark { block, mark: "x".to_owned(), status: Some(Status::Done) }];
        return Body::Edit { change, base: ago(age), mode: EditMode::Strict, ops, conflicts: Vec::new() };
    }
    if let Ask::Expecting(of, age, text) = ask {
        let all: Vec<RecordId> = model.of_kind(Kind::Project).into_iter().chain(changes.iter().copied()).collect();
        let expected = vec![Expected { record: pick(&all, *of), revision: ago(age) }];
        let body = note(pick(blocks, *of), &format!("note {text}"));
        return Body::Expecting { expected, body: Box::new(body) };
    }
    let Ask::DeleteSeen(change, age) = ask else { unreachable!("{ask:?} builds on nothing") };
    Body::DeleteChange { change: pick(changes, *change), base: ago(age) }
}

struct Run {
    node: Node,
    model: Model,
    session: Option<SessionId>,
    membership: Option<Vec<u8>>,
}

impl Run {
    fn new(is_eager: bool, is_small: bool) -> Self {
        let node = Node::new(|config| {
            if is_eager {
                config.flush_interval = std::time::Duration::ZERO;
            }
            if is_small {
                config.flush_ops_max = 4;
                config.cache_bytes_max = 4096;
                config.past_versions_bytes_max = 4096;
                config.past_families_bytes_max = 8192;
                config.past_links_max = 16;
            }
        });
        Self { node, model: Model::default(), session: None, membership: None }
    }

    fn step(&mut self, step: &Step) -> Result<(), TablesError> {
        match step {
            Step::Blank => self.apply(EntryPayload::Blank)?,
            Step::Membership(seed) => {
                self.membership = Some(vec![*seed; 3]);
                self.apply(EntryPayload::Membership(vec![*seed; 3]))?;
            }
            Step::OpenSession => self.apply(batch(vec![command(None, Body::OpenSession)]))?,
            Step::Commands(asks) => {
                let commands = asks.iter().map(|(seq, ask)| {
                    let request = seq.zip(self.session).map(|(seq, session)| RequestId { session, seq });
                    command(request, body(&self.model, ask))
                });
                self.apply(batch(commands.collect()))?;
            }
            Step::Rollback(scope, to) => {
                let scopes = [Kind::Project, Kind::Change].map(|kind| self.model.of_kind(kind)).concat();
                let all = scopes.len();
                let scope = match scopes.get(scope.index(all + 1)) {
                    Some(id) if self.model.of_kind(Kind::Project).contains(id) => Scope::Project(*id),
                    Some(id) => Scope::Change(*id),
                    None => Scope::All,
                };
                let newest = usize::try_from(self.model.digest().0.0).unwrap();
                let to = Revision(u64::try_from(to.index(newest + 1)).unwrap());
                self.apply(batch(vec![command(None, Body::Rollback { scope, to, expected: None })]))?;
            }
            Step::Compact(to) => {
                let newest = usize::try_from(self.model.digest().0.0).unwrap();
                let to = Revision(u64::try_from(to.index(newest + 1)).unwrap());
                // Points that were made would keep the history.
                let points = self.model.of_kind(Kind::Point).into_iter().map(|point| Body::RemovePoint { point });
                let compact = Body::Compact { to, time: ClusterTime(1000) };
                self.apply(batch(points.chain([compact]).map(|body| command(None, body)).collect()))?;
            }
            Step::Flush => {
                let flushed = self.node.tables().flush()?;
                assert!(Some(flushed.0) <= *self.node.durable.borrow() || flushed.0 == 0);
            }
            Step::Durable(back) => {
                let end = self.node.log.last().map_or(0, |last| last.position.index);
                let durable = end.saturating_sub(u64::from(*back));
                self.node.durable.send_modify(|known| {
                    // It never goes back.
                    let before = known.filter(|known| *known < u64::MAX).unwrap_or_default();
                    *known = Some(durable.max(before));
                });
            }
            Step::Crash => {
                self.node.reopen()?;
                self.check_newest();
            }
            Step::LookBack(index) => {
                if let Some((revision, map)) = self.model.past.get(index.index(self.model.past.len().max(1))) {
                    self.model.assert_same_at(*revision, map, self.node.tables());
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, payload: EntryPayload) -> Result<(), TablesError> {
        let outcomes = self.node.apply(payload)?;
        assert_eq!(outcomes, self.model.apply(self.node.log.last().unwrap()));
        let is_open_session = |entry: &EntryPayload| match entry {
            EntryPayload::Batch(batch) => matches!(batch.commands[..], [ref one] if one.body == Body::OpenSession),
            EntryPayload::Blank | EntryPayload::Membership(_) => false,
        };
        if is_open_session(&self.node.log.last().unwrap().payload)
            && let [Outcome::Accepted { created, .. }] = &outcomes[..]
        {
            self.session = Some(SessionId(created[0].0));
        }
        assert_eq!(self.node.tables().digest()?, self.model.digest());
        Ok(())
    }

    fn check_newest(&self) {
        let revision = self.model.digest().0;
        assert_eq!(self.node.tables().digest().unwrap(), self.model.digest());
        self.model.assert_same(revision, &self.model.map, &self.node.view());
        let (_, membership) = self.node.tables().applied_state().unwrap();
        assert_eq!(membership.map(|(_, bytes)| bytes), self.membership);
    }

    fn finish(mut self) {
        self.check_newest();
        for (revision, map) in &self.model.past {
            self.model.assert_same_at(*revision, map, self.node.tables());
        }
        self.node.durable.send_replace(Some(u64::MAX));
        assert_eq!(self.node.assert_digests_equal(), self.model.digest());
        self.node.tables().shutdown().unwrap();
        assert_eq!(self.node.reopen().unwrap(), 0, "all of it was written");
        assert_eq!(self.node.assert_digests_equal(), self.model.digest());
        for (revision, map) in &self.model.past {
            self.model.assert_same_at(*revision, map, self.node.tables());
        }
        // And from nothing but the log.
        self.node.kill();
        std::fs::remove_file(self.node.database()).unwrap();
        assert_eq!(self.node.reopen().unwrap(), self.node.log.len());
        assert_eq!(self.node.assert_digests_equal(), self.model.digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn tables_answer_as_the_model_does(
        is_eager in any::<bool>(),
        is_small in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new(is_eager, is_small);
        run.node.durable.send_replace(Some(0));
        for step in &steps {
            run.step(step).unwrap();
        }
        run.finish();
    }
}
