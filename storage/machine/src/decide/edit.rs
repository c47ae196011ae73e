//! Edits of a change's text: each operation is held against the field it is about, and against nothing else.
//!
//! | operation | clashes where, after `base`, ... to another value | without effect where |
//! |---|---|---|
//! | insert | never | never |
//! | set text | text, lead or kind changed (also the mark, where the block stops being a task) | they are so already |
//! | set mark | the mark changed | mark and status are so already |
//! | move | the place changed | it stands there already |
//! | delete | text, mark or place changed | it is deleted already |
//! | set fields | one of these runtime fields changed | they are so already |
//! | set blockers | the blockers changed | they are so already |
//! | resolve | the conflict was settled | |
//! | any but delete | the block was deleted | |
//!
//! What this same edit did before doesn't count as a change after the base. All clashes of an edit are told at once.
//!
//! An edit that resolves a conflict, or deletes much, makes a rollback point: here, so that no client can forget it, and last, so that one that
//! is refused or stale leaves none.

use super::change::{check_unchanged, point_before_deletion, resolve_ref};
use super::note::point_before_resolution;
use super::place::{Place, Places};
use super::retention::horizon;
use super::task::{check_transition, set_blockers, set_fields};
use super::{
    Cause, Decided, Halt, changed_at, check_block, check_new_block, check_seen, first_status, invalid, is_check, known,
    not_found, stale, task_of,
};
use crate::command::{BlockOp, EditMode, NewBlock, NewConflict, TaskField};
use crate::event::Fact;
use crate::id::{EventId, RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::{Outcome, Reject, StaleField};
use crate::record::{
    Block, CONFLICT_FIELDS, Conflict, Field, KIND_TASK, Kind, Record, Settled, Settlement, Status, TaskFields,
};
use crate::scratch::Scratch;
use crate::view::{Stored, View};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One edit, as it was asked for.
pub(super) struct Edit<'c> {
    pub(super) change: RecordId,
    pub(super) base: Revision,
    pub(super) mode: EditMode,
    pub(super) ops: &'c [BlockOp],
    pub(super) conflicts: &'c [NewConflict],
    pub(super) cause: Cause<'c>,
}

/// What an edit has come to so far.
struct Progress {
    places: Places,
    created: Vec<RecordId>,
    /// Conflicts that operations led to.
    conflicts: Vec<RecordId>,
    stale: Vec<StaleField>,
    /// Blocks that are gone.
    deleted: usize,
    /// Conflicts that operations settled.
    resolved: Vec<RecordId>,
}

/// A block that an operation is about.
struct Target {
    id: RecordId,
    /// Its newest version, with what this edit did to it.
    stored: Arc<Stored>,
    /// As it was when this edit began; `None` where this edit made it.
    before: Option<Arc<Stored>>,
}

impl Target {
    fn block(&self) -> Option<&Block> {
        block_of(&self.stored)
    }
}

fn block_of(stored: &Stored) -> Option<&Block> {
    match &stored.record {
        Some(Record::Block(block)) => Some(block),
        Some(
            Record::Project(_)
            | Record::Change(_)
            | Record::Conflict(_)
            | Record::Comment(_)
            | Record::Point(_)
            | Record::Retention(_)
            | Record::Restore(_),
        )
        | None => None,
    }
}

impl Edit<'_> {
    pub(super) fn decide<V: View>(&self, scratch: &mut Scratch<'_, V>) -> Decided<Vec<RecordId>, V> {
        let decided = self.try_decide(scratch);
        let Err(Halt::Outcome(Outcome::Rejected(Reject::NotFound { id, .. }))) = &decided else { return decided };
        // What was there when the author looked and isn't known any more was deleted since, before the horizon.
        let horizon = horizon(scratch)?;
        match EventId::new(horizon, 0).filter(|_| self.base < horizon && id.0.revision() <= horizon) {
            Some(changed_at) => Err(stale(scratch, *id, "existence", changed_at)),
            None => decided,
        }
    }

    fn try_decide<V: View>(&self, scratch: &mut Scratch<'_, V>) -> Decided<Vec<RecordId>, V> {
        check_seen(scratch, self.base)?;
        self.check_limits()?;
        self.check_change(scratch)?;
        let mut progress = Progress {
            places: Places::new(self.change),
            created: Vec::new(),
            conflicts: Vec::new(),
            stale: Vec::new(),
            deleted: 0,
            resolved: Vec::new(),
        };
        for op in self.ops {
            match self.apply(scratch, &mut progress, op) {
                // Refused because an operation before it was left out as stale: that is the reason to tell.
                Err(Halt::Outcome(_)) if !progress.stale.is_empty() => break,
                result => result?,
            }
        }
        if !progress.stale.is_empty() {
            return Err(Halt::Outcome(Outcome::Stale { revision: scratch.revision(), fields: progress.stale }));
        }
        self.check_count(scratch, progress.created.len())?;
        progress.created.append(&mut progress.conflicts);
        for conflict in self.conflicts {
            progress.created.push(self.record(scratch, conflict)?);
        }
        let point = self.point_before(scratch, progress.deleted, &progress.resolved)?;
        progress.created.extend(point);
        Ok(progress.created)
    }

    /// The point before what this edit did, where that asks for one: never two.
    fn point_before<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        deleted: usize,
        resolved: &[RecordId],
    ) -> Decided<Vec<RecordId>, V> {
        let point = point_before_deletion(scratch, self.cause, self.change, deleted)?;
        if !point.is_empty() {
            return Ok(point);
        }
        point_before_resolution(scratch, self.cause, self.change, resolved)
    }

    fn check_limits(&self) -> Result<(), Reject> {
        check("operations of an edit", self.ops.len(), limits::OPS_PER_EDIT_MAX)?;
        check("conflicts of an edit", self.conflicts.len(), limits::CONFLICTS_PER_EDIT_MAX)?;
        let of_ops = self.ops.iter().map(text_bytes);
        let of_conflicts = self.conflicts.iter().flat_map(values).flatten().map(String::len);
        check("bytes of a command's texts", of_ops.chain(of_conflicts).sum(), limits::COMMAND_TEXT_BYTES_MAX)
    }

    fn check_change<V: View>(&self, scratch: &Scratch<'_, V>) -> Decided<(), V> {
        let stored = known(scratch, Kind::Change, self.change)?;
        if stored.record.is_some() {
            return match self.mode {
                EditMode::Merge => Ok(()),
                EditMode::Strict => check_unchanged(scratch, self.change, self.base),
            };
        }
        if stored.version.revision() <= self.base {
            return Err(not_found("change", self.change).into());
        }
        let stale = StaleField { record: self.change, field: "existence".to_owned(), changed_at: stored.version };
        Err(Halt::Outcome(Outcome::Stale { revision: scratch.revision(), fields: vec![stale] }))
    }

    fn check_count<V: View>(&self, scratch: &Scratch<'_, V>, inserted: usize) -> Decided<(), V> {
        if inserted < limits::BLOCKS_COUNTED_FROM {
            return Ok(());
        }
        let blocks = scratch.children(Kind::Block, self.change)?.len();
        Ok(check("blocks of a change", blocks, limits::BLOCKS_PER_CHANGE_MAX)?)
    }

    fn apply<V: View>(&self, scratch: &mut Scratch<'_, V>, progress: &mut Progress, op: &BlockOp) -> Decided<(), V> {
        match op {
            BlockOp::Insert { after, block } => {
                check_new_block(block)?;
                let order = progress.places.insert(scratch, *after)?;
                let status = first_status(block);
                let fact = Fact::BlockInserted { change: self.change, order, block: block.clone(), status };
                progress.created.push(scratch.create(fact)?);
                Ok(())
            }
            BlockOp::Delete { block } => self.delete(scratch, progress, *block),
            BlockOp::SetText { block, kind, lead, text } => {
                check_block(*kind, lead, "", text)?;
                match self.target(scratch, progress, *block)? {
                    Some(target) => self.set_text(scratch, progress, &target, (*kind, lead, text)),
                    None => Ok(()),
                }
            }
            BlockOp::SetMark { block, mark, status } => {
                check("bytes of a mark", mark.len(), limits::MARK_BYTES_MAX)?;
                match self.target(scratch, progress, *block)? {
                    Some(target) => self.set_mark(scratch, progress, &target, mark, *status),
                    None => Ok(()),
                }
            }
            BlockOp::Move { block, after } => match self.target(scratch, progress, *block)? {
                Some(target) => self.move_to(scratch, progress, &target, *after),
                None => Ok(()),
            },
            BlockOp::SetFields { block, fields } => {
                let id = resolve_ref(*block, &progress.created)?;
                match self.target(scratch, progress, id)? {
                    Some(target) => self.set_fields(scratch, progress, &target, fields),
                    None => Ok(()),
                }
            }
            BlockOp::SetBlockers { block, on } => {
                let id = resolve_ref(*block, &progress.created)?;
                let on: Result<_, Reject> = on.iter().map(|each| resolve_ref(*each, &progress.created)).collect();
                match self.target(scratch, progress, id)? {
                    Some(target) => self.set_blockers(scratch, progress, &target, on?),
                    None => Ok(()),
                }
            }
            BlockOp::Resolve { conflict, settlement } => self.resolve(scratch, progress, *conflict, settlement),
        }
    }

    /// The block that an operation is about; `None` where it was deleted after the base, which is noted as stale.
    fn target<V: View>(
        &self,
        scratch: &Scratch<'_, V>,
        progress: &mut Progress,
        id: RecordId,
    ) -> Decided<Option<Target>, V> {
        let target = self.any_target(scratch, id)?;
        if target.stored.record.is_some() {
            return Ok(Some(target));
        }
        match &target.before {
            Some(before) if before.record.is_some() => {
                Err(invalid(format!("the edit has deleted block {id} before")).into())
            }
            Some(before) if before.version.revision() > self.base => {
                progress.stale_at(id, "existence", before.version);
                Ok(None)
            }
            Some(_) | None => Err(not_found("block", id).into()),
        }
    }

    fn any_target<V: View>(&self, scratch: &Scratch<'_, V>, id: RecordId) -> Decided<Target, V> {
        let stored = known(scratch, Kind::Block, id)?;
        if stored.parent != self.change {
            return Err(invalid(format!("block {id} is not in change {}", self.change)).into());
        }
        let before = scratch.before(id, &stored);
        Ok(Target { id, stored, before })
    }

    /// Notes a clash where `field` of the block, as it was when this edit began, changed after the base and isn't as wanted.
    fn is_stale<T>(
        &self,
        progress: &mut Progress,
        target: &Target,
        name: &str,
        field: impl Fn(&Block) -> &Field<T>,
        is_wanted: impl Fn(&Block) -> bool,
    ) -> bool {
        let Some(before) = &target.before else { return false };
        let clash = block_of(before).filter(|block| field(block).at > self.base && !is_wanted(block));
        if let Some(block) = clash {
            progress.stale_at(target.id, name, changed_at(before, field(block).at));
        }
        clash.is_some()
    }

    fn set_text<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        progress: &mut Progress,
        target: &Target,
        (kind, lead, text): (u8, &String, &String),
    ) -> Decided<(), V> {
        let is_wanted = |block: &Block| block.kind == kind && block.lead == *lead && block.text.value == *text;
        let drops_mark = |block: &Block| block.task.is_some() && kind != KIND_TASK;
        let text_is_stale = self.is_stale(progress, target, "text", |block| &block.text, is_wanted);
        let mark_is_stale = self.is_stale(progress, target, "mark", |block| &block.mark, |block| !drops_mark(block));
        if text_is_stale || mark_is_stale || target.block().is_some_and(is_wanted) {
            return Ok(());
        }
        let fact = Fact::BlockTextSet { kind, lead: lead.clone(), text: text.clone() };
        Ok(scratch.change(target.id, &target.stored, fact)?)
    }

    fn set_mark<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        progress: &mut Progress,
        target: &Target,
        mark: &str,
        wanted: Option<Status>,
    ) -> Decided<(), V> {
        let Some(block) = target.block() else { return Ok(()) };
        let Some(task) = &block.task else {
            return if mark.is_empty() {
                Ok(())
            } else {
                Err(Reject::WrongKind { what: "task".to_owned(), id: target.id }.into())
            };
        };
        if self.is_stale(progress, target, "mark", |block| &block.mark, |block| block.mark.value == mark) {
            return Ok(());
        }
        let status = status_after(&block.mark.value, mark, task.status.value, wanted);
        check_transition(scratch, target.id, block, task.status.value, status)?;
        let status = (status != task.status.value).then_some(status);
        if block.mark.value == mark && status.is_none() {
            return Ok(());
        }
        Ok(scratch.change(target.id, &target.stored, Fact::BlockMarked { mark: mark.to_owned(), status })?)
    }

    fn move_to<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        progress: &mut Progress,
        target: &Target,
        after: crate::command::Anchor,
    ) -> Decided<(), V> {
        let Place::New(order) = progress.places.move_to(scratch, target.id, after)? else { return Ok(()) };
        if self.is_stale(progress, target, "place", |block| &block.order, |_| false) {
            return Ok(());
        }
        Ok(scratch.change(target.id, &target.stored, Fact::BlockMoved { order })?)
    }

    fn delete<V: View>(&self, scratch: &mut Scratch<'_, V>, progress: &mut Progress, id: RecordId) -> Decided<(), V> {
        let target = self.any_target(scratch, id)?;
        if target.stored.record.is_none() {
            return Ok(());
        }
        let text = self.is_stale(progress, &target, "text", |block| &block.text, |_| false);
        let mark = self.is_stale(progress, &target, "mark", |block| &block.mark, |_| false);
        let place = self.is_stale(progress, &target, "place", |block| &block.order, |_| false);
        if text || mark || place {
            return Ok(());
        }
        progress.deleted += 1;
        Ok(scratch.change(id, &target.stored, Fact::BlockDeleted)?)
    }

    /// Whether a runtime field, as it was when this edit began, changed after the base to another value; that is noted.
    fn is_field_stale(&self, progress: &mut Progress, target: &Target, field: &TaskField) -> bool {
        let before = target.before.as_deref();
        let task: Option<&TaskFields> = before.and_then(block_of).and_then(|block| block.task.as_deref());
        let (Some(before), Some(task)) = (before, task) else { return false };
        let is_clash = task.at(field) > self.base && !task.has(field);
        if is_clash {
            progress.stale_at(target.id, field.name(), changed_at(before, task.at(field)));
        }
        is_clash
    }

    fn set_fields<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        progress: &mut Progress,
        target: &Target,
        fields: &[TaskField],
    ) -> Decided<(), V> {
        task_of(&target.stored, target.id)?;
        let stale = fields.iter().filter(|field| self.is_field_stale(progress, target, field)).count();
        if stale > 0 { Ok(()) } else { set_fields(scratch, target.id, &target.stored, fields) }
    }

    fn set_blockers<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        progress: &mut Progress,
        target: &Target,
        on: BTreeSet<RecordId>,
    ) -> Decided<(), V> {
        task_of(&target.stored, target.id)?;
        if self.is_field_stale(progress, target, &TaskField::BlockedBy(on.clone())) {
            return Ok(());
        }
        let conflict = set_blockers(scratch, self.cause.author, self.change, target.id, &target.stored, on)?;
        progress.conflicts.extend(conflict);
        Ok(())
    }

    fn resolve<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        progress: &mut Progress,
        id: RecordId,
        settlement: &Settlement,
    ) -> Decided<(), V> {
        let stored = known(scratch, Kind::Conflict, id)?;
        let Some(Record::Conflict(conflict)) = &stored.record else { return Err(not_found("conflict", id).into()) };
        if conflict.change != self.change {
            return Err(invalid(format!("conflict {id} is not about change {}", self.change)).into());
        }
        if let Some(settled) = &conflict.settled {
            progress.stale_at(id, "settlement", changed_at(&stored, settled.at));
            return Ok(());
        }
        let settled =
            Settled { at: scratch.revision(), author: self.cause.author.to_owned(), settlement: settlement.clone() };
        scratch.change(id, &stored, Fact::ConflictSettled(settled))?;
        progress.resolved.push(id);
        Ok(())
    }

    fn record<V: View>(&self, scratch: &mut Scratch<'_, V>, conflict: &NewConflict) -> Decided<RecordId, V> {
        if !CONFLICT_FIELDS.contains(&conflict.field.as_str()) {
            let why = format!("no conflict is about `{}`; fields are {}", conflict.field, CONFLICT_FIELDS.join(", "));
            return Err(invalid(why).into());
        }
        if let Some(id) = conflict.block {
            self.any_target(scratch, id)?;
        }
        let conflict = Conflict {
            change: self.change,
            block: conflict.block,
            class: conflict.class,
            field: conflict.field.clone(),
            base: conflict.base.clone(),
            spec: conflict.spec.clone(),
            runtime: conflict.runtime.clone(),
            author: self.cause.author.to_owned(),
            settled: conflict.settlement.clone().map(|settlement| Settled {
                at: scratch.revision(),
                author: self.cause.author.to_owned(),
                settlement,
            }),
        };
        Ok(scratch.create(Fact::ConflictRecorded(conflict))?)
    }
}

impl Progress {
    fn stale_at(&mut self, record: RecordId, field: &str, changed_at: EventId) {
        let stale = StaleField { record, field: field.to_owned(), changed_at };
        if self.stale.len() < limits::STALE_FIELDS_MAX && !self.stale.contains(&stale) {
            self.stale.push(stale);
        }
    }
}

/// The status of a task whose mark goes from `from` to `to`. A check means done; an open mark reopens what was done and else leaves alone a status
/// that was set elsewhere, unless the proposer's dialect says what the mark means.
fn status_after(from: &str, to: &str, status: Status, wanted: Option<Status>) -> Status {
    match wanted {
        None if is_check(to) && is_check(from) => status,
        _ if is_check(to) => Status::Done,
        Some(wanted) => wanted,
        None if status == Status::Done && from != to => Status::Todo,
        None => status,
    }
}

fn text_bytes(op: &BlockOp) -> usize {
    match op {
        BlockOp::Insert { block: NewBlock { lead, mark, text, .. }, .. } => lead.len() + mark.len() + text.len(),
        BlockOp::SetText { lead, text, .. } => lead.len() + text.len(),
        BlockOp::SetMark { mark, .. } => mark.len(),
        BlockOp::Resolve { settlement, .. } => settlement.value.as_ref().map_or(0, String::len),
        BlockOp::Move { .. } | BlockOp::Delete { .. } | BlockOp::SetFields { .. } | BlockOp::SetBlockers { .. } => 0,
    }
}

fn values(conflict: &NewConflict) -> [Option<&String>; 4] {
    let settled = conflict.settlement.as_ref().and_then(|settlement| settlement.value.as_ref());
    [conflict.base.as_ref(), conflict.spec.as_ref(), conflict.runtime.as_ref(), settled]
}
