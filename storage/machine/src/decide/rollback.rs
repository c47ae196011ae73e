//! Rollback: a new revision whose state, in a scope, equals the state at an older one. History stays; docs/adr/0013 says what goes back.
//!
//! ```text
//!   for each record of the scope that changed after `to`          then = at `to`, now = before this entry
//!     then lives, now lives     set back where they differ
//!     then lives, now deleted   there again, under its id
//!     then not,   now lives     deleted (a conflict: settled; a project stays, with nothing in it)
//!     a claim                   stays with a holder who had the task then too, else the task is given back
//! ```
//!
//! All steps are found before the first is taken. No two live blocks of a change get the same place: those that live afterwards are those
//! that lived at `to`, each where it stood then. A deleted one may stand at the same place as a live one.

use super::change::check_unique;
use super::note::automatic_point;
use super::retention::horizon;
use super::task::check_no_circle;
use super::{Cause, Decided, Halt, check_not_undone, check_seen, invalid, known, not_found};
use crate::command::{NewBlock, Scope, TaskField};
use crate::event::Fact;
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::{Outcome, Reject, StaleField};
use crate::record::{Block, Claim, Conflict, Kind, Record, Settled, SettledBy, Settlement, Strategy, TaskFields};
use crate::scratch::Scratch;
use crate::view::{Changed, Stored, View};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a rollback behind other commands of its entry is refused: the revision before the entry would not be the state before it.
pub(crate) const ROLLBACK_NOT_FIRST: &str = "a rollback is the first command of its entry";

/// A rollback, as it was asked for.
pub(super) struct Rollback {
    pub(super) scope: Scope,
    pub(super) to: Revision,
    pub(super) expected: Option<Revision>,
}

/// What has to happen to a record.
struct Step {
    id: RecordId,
    now: Arc<Stored>,
    facts: Vec<Fact>,
}

/// What has been found so far.
struct Found {
    at: Revision,
    author: String,
    steps: Vec<Step>,
    stale: Vec<StaleField>,
}

impl Rollback {
    pub(super) fn decide<V: View>(&self, scratch: &mut Scratch<'_, V>, cause: Cause<'_>) -> Decided<Vec<RecordId>, V> {
        self.check_revisions(scratch)?;
        if scratch.is_touched() {
            return Err(invalid(ROLLBACK_NOT_FIRST).into());
        }
        let author = cause.author.to_owned();
        let mut found = Found { at: scratch.revision(), author, steps: Vec::new(), stale: Vec::new() };
        match self.scope {
            Scope::All => {
                for (_, project) in scratch.children(Kind::Project, RecordId::ROOT)? {
                    self.look_at_project(scratch, &mut found, project)?;
                }
            }
            Scope::Project(project) => {
                self.check_was_there(scratch, Kind::Project, project)?;
                self.look_at_project(scratch, &mut found, project)?;
            }
            Scope::Change(change) => self.look_at_change_alone(scratch, &mut found, change)?,
        }
        if !found.stale.is_empty() {
            return Err(Halt::Outcome(Outcome::Stale { revision: scratch.revision(), fields: found.stale }));
        }
        self.take(scratch, cause, found.steps)
    }

    fn check_revisions<V: View>(&self, scratch: &Scratch<'_, V>) -> Decided<(), V> {
        let newest = Revision(scratch.revision().0.saturating_sub(1));
        let oldest = horizon(scratch)?;
        if self.to < oldest || self.to > newest {
            return Err(Reject::NoRevision { revision: self.to, oldest, newest }.into());
        }
        check_not_undone(scratch, self.to)?;
        let Some(expected) = self.expected else { return Ok(()) };
        if expected < self.to {
            return Err(invalid("what the author saw can't be older than what it goes back to").into());
        }
        check_seen(scratch, expected)
    }

    /// What was made later can't go back as such; what was deleted at `to` is deleted again.
    fn check_was_there<V: View>(&self, scratch: &Scratch<'_, V>, kind: Kind, id: RecordId) -> Decided<(), V> {
        known(scratch, kind, id)?;
        match scratch.get_at(id, self.to)? {
            Some(_) => Ok(()),
            None => Err(not_found(&format!("at revision {} the {}", self.to, kind.noun()), id).into()),
        }
    }

    fn look_at_project<V: View>(&self, scratch: &Scratch<'_, V>, found: &mut Found, id: RecordId) -> Decided<(), V> {
        let now = known(scratch, Kind::Project, id)?;
        if now.version.revision() > self.to {
            let changed = Changed { id, then: scratch.get_at(id, self.to)?, now };
            self.note_stale(found, &changed);
            if let (Some(Record::Project(now)), Some(Record::Project(then))) = (now_of(&changed), then_of(&changed))
                && now.policy.value != then.policy.value
            {
                found.add(&changed, vec![Fact::PolicySet(then.policy.value.clone())])?;
            }
        }
        let mut changes: BTreeMap<RecordId, Option<Changed>> =
            scratch.children(Kind::Change, id)?.into_iter().map(|(_, change)| (change, None)).collect();
        for changed in scratch.changed(Kind::Change, id, self.to)? {
            changes.insert(changed.id, Some(changed));
        }
        changes.into_iter().try_for_each(|(change, changed)| self.look_at_change(scratch, found, change, changed))
    }

    /// A change whose siblings stay: none of them may have its path meanwhile.
    fn look_at_change_alone<V: View>(
        &self,
        scratch: &Scratch<'_, V>,
        found: &mut Found,
        id: RecordId,
    ) -> Decided<(), V> {
        self.check_was_there(scratch, Kind::Change, id)?;
        let now = known(scratch, Kind::Change, id)?;
        let then = scratch.get_at(id, self.to)?;
        if let Some(Record::Change(was)) = then.as_ref().and_then(|then| then.record.as_ref()) {
            let siblings: Vec<_> =
                scratch.children(Kind::Change, was.project)?.into_iter().filter(|(_, other)| *other != id).collect();
            check("changes of a project", siblings.len() + 1, limits::CHANGES_PER_PROJECT_MAX)?;
            check_unique(&was.path, &siblings)?;
        }
        let changed = (now.version.revision() > self.to).then_some(Changed { id, now, then });
        self.look_at_change(scratch, found, id, changed)
    }

    /// `changed` = the change's own record; its blocks and conflicts may have changed without it.
    fn look_at_change<V: View>(
        &self,
        scratch: &Scratch<'_, V>,
        found: &mut Found,
        id: RecordId,
        changed: Option<Changed>,
    ) -> Decided<(), V> {
        let mut deleted = None;
        if let Some(changed) = changed {
            self.note_stale(found, &changed);
            match (now_of(&changed), then_of(&changed)) {
                (Some(Record::Change(now)), Some(Record::Change(then))) if now.path == then.path => {}
                (_, Some(Record::Change(then))) => {
                    found.add(&changed, vec![Fact::ChangeRestored { path: then.path.clone() }])?;
                }
                (Some(_), _) => deleted = Some(changed),
                // It lives neither then nor now, and so do its blocks; nobody is asked about its conflicts.
                (None, _) => return Ok(()),
            }
        }
        for changed in scratch.changed(Kind::Block, id, self.to)? {
            self.note_stale(found, &changed);
            found.add(&changed, of_block(&changed))?;
        }
        for changed in scratch.changed(Kind::Conflict, id, self.to)? {
            self.note_stale(found, &changed);
            let facts = found.of_conflict(&changed);
            found.add(&changed, facts)?;
        }
        match deleted {
            Some(changed) => Ok(found.add(&changed, vec![Fact::ChangeDeleted])?),
            None => Ok(()),
        }
    }

    fn note_stale(&self, found: &mut Found, changed: &Changed) {
        let version = changed.now.version;
        let is_stale = self.expected.is_some_and(|expected| version.revision() > expected);
        if is_stale && found.stale.len() < limits::STALE_FIELDS_MAX {
            let field = if changed.now.record.is_some() { "any" } else { "existence" };
            found.stale.push(StaleField { record: changed.id, field: field.to_owned(), changed_at: version });
        }
    }

    fn take<V: View>(
        &self,
        scratch: &mut Scratch<'_, V>,
        cause: Cause<'_>,
        steps: Vec<Step>,
    ) -> Decided<Vec<RecordId>, V> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let what = match self.scope {
            Scope::All => "everything".to_owned(),
            Scope::Project(id) => format!("project {id}"),
            Scope::Change(id) => format!("change {id}"),
        };
        let note = format!("{what} went back to revision {}", self.to);
        let point = automatic_point(scratch, cause, "rollback", &note)?;
        let mut waiting = Vec::new();
        for Step { id, mut now, facts } in steps {
            for fact in facts {
                if let Fact::BlockRestored { fields, .. } = &fact
                    && fields.iter().any(|field| matches!(field, TaskField::BlockedBy(_)))
                {
                    waiting.push(id);
                }
                scratch.change(id, &now, fact)?;
                now = scratch.get(id)?.unwrap_or(now);
            }
        }
        if self.scope != Scope::All {
            // Tasks outside of the scope may wait by now for some inside.
            check_no_circle(scratch, &waiting)?;
        }
        Ok(vec![point])
    }
}

impl Found {
    fn add(&mut self, changed: &Changed, facts: Vec<Fact>) -> Result<(), Reject> {
        if facts.is_empty() {
            return Ok(());
        }
        check("records that a rollback changes", self.steps.len() + 1, limits::ROLLBACK_RECORDS_MAX)?;
        self.steps.push(Step { id: changed.id, now: Arc::clone(&changed.now), facts });
        Ok(())
    }

    /// What arose later is about values that don't stand any more; what was settled later is open again.
    fn of_conflict(&self, changed: &Changed) -> Vec<Fact> {
        let Some(Record::Conflict(now)) = now_of(changed) else { return Vec::new() };
        let settled = |author: &str, settlement| Settled { at: self.at, author: author.to_owned(), settlement };
        match then_of(changed) {
            Some(Record::Conflict(then)) if has_same_settlement(now, then) => Vec::new(),
            Some(Record::Conflict(Conflict { settled: then, .. })) => {
                let then = then.as_ref().map(|then| settled(&then.author, then.settlement.clone()));
                vec![Fact::ConflictRestored { settled: then }]
            }
            Some(_) | None if now.settled.is_none() => {
                let settlement = Settlement { strategy: Strategy::Skip, by: SettledBy::System, value: None };
                vec![Fact::ConflictSettled(settled(&self.author, settlement))]
            }
            Some(_) | None => Vec::new(),
        }
    }
}

fn now_of(changed: &Changed) -> Option<&Record> {
    changed.now.record.as_ref()
}

fn then_of(changed: &Changed) -> Option<&Record> {
    changed.then.as_ref().and_then(|then| then.record.as_ref())
}

fn has_same_settlement(one: &Conflict, other: &Conflict) -> bool {
    let settlement = |conflict: &Conflict| conflict.settled.as_ref().map(|settled| settled.settlement.clone());
    settlement(one) == settlement(other)
}

fn of_block(changed: &Changed) -> Vec<Fact> {
    match (now_of(changed), then_of(changed)) {
        (now, Some(Record::Block(then))) => {
            let now = now.and_then(|now| if let Record::Block(now) = now { Some(now) } else { None });
            let is_same = now.is_some_and(|now| has_same_values(now, then));
            let mut facts = if is_same { Vec::new() } else { vec![restored(then)] };
            let is_task = then.task.is_some();
            if let Some(claim) = now.and_then(claim_of).filter(|_| is_task)
                && claim_of(then).is_none_or(|then| then.holder != claim.holder)
            {
                facts.push(Fact::Released);
            }
            facts
        }
        (Some(_), _) => vec![Fact::BlockDeleted],
        (None, _) => Vec::new(),
    }
}

fn claim_of(block: &Block) -> Option<&Claim> {
    block.task.as_ref()?.claim.value.as_ref()
}

fn restored(then: &Block) -> Fact {
    let new = TaskFields::default();
    let fields = then.task.iter().flat_map(|task| task.values()).filter(|field| !new.has(field)).collect();
    let block = NewBlock {
        kind: then.kind,
        lead: then.lead.clone(),
        mark: then.mark.value.clone(),
        text: then.text.value.clone(),
    };
    Fact::BlockRestored { order: then.order.value.clone(), block, fields }
}

/// Whether two versions of a block differ at most by claim and by when each field was set.
fn has_same_values(one: &Block, other: &Block) -> bool {
    let values = |block: &Block| block.task.as_ref().map(|task| task.values());
    (one.kind, &one.lead, &one.mark.value, &one.text.value, &one.order.value)
        == (other.kind, &other.lead, &other.mark.value, &other.text.value, &other.order.value)
        && values(one) == values(other)
}
