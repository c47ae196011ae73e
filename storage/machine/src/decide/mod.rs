//! From a command and the state to what happens: either all of it, as events, or nothing and a reason.
//!
//! A function of the command, the view and the revision; no other input. Each event goes through [`crate::evolve`] into the
//! scratch view at once, so a command sees the effects of its own earlier parts and of the commands before it in the batch; the
//! machine undoes them together where the command halts. Only revisions are compared here, never texts: what may be merged is the
//! proposer's business.

mod change;
mod claim;
mod edit;
mod expect;
mod group;
mod note;
mod place;
mod project;
mod retention;
mod rollback;
mod task;

pub(crate) use rollback::ROLLBACK_NOT_FIRST;

use crate::command::{Body, NewBlock};
use crate::id::{ClusterTime, EventId, RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::{Outcome, Reject, StaleField};
use crate::record::{Block, KIND_TASK, Kind, Record, Status, TaskFields};
use crate::scratch::Scratch;
use crate::view::{Stored, View};
use std::sync::Arc;

/// Why a command goes no further.
#[derive(Debug)]
pub(crate) enum Halt<E> {
    /// This is what the proposer is told.
    Outcome(Outcome),
    /// The state can't be read: the node must stop.
    View(E),
}

impl<E> From<Reject> for Halt<E> {
    fn from(reject: Reject) -> Self {
        Self::Outcome(Outcome::Rejected(reject))
    }
}

/// The result of a part of a decision over the view `V`.
pub(crate) type Decided<T, V> = Result<T, Halt<<V as View>::Error>>;

/// In whose name and when a command happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause<'c> {
    /// Who, as they say themselves.
    pub(crate) author: &'c str,
    /// When, by the cluster's clock.
    pub(crate) now: ClusterTime,
}

/// Does what `body` asks; returns the ids of the records it created.
pub(crate) fn decide<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    body: &Body,
) -> Decided<Vec<RecordId>, V> {
    match body {
        Body::CreateProject { name, files } => project::create_project(scratch, name, files),
        Body::SetPolicy { project, expected, policy } => project::set_policy(scratch, *project, *expected, policy),
        Body::CreateChange { project, path, blocks, ops } => {
            change::create_change(scratch, cause, *project, path, blocks, ops)
        }
        Body::MoveChange { change, path, from } => change::move_change(scratch, *change, path, from),
        Body::DeleteChange { change, base } => change::delete_change(scratch, cause, *change, *base),
        Body::Edit { change, base, mode, ops, conflicts } => {
            let edit = edit::Edit { change: *change, base: *base, mode: *mode, ops, conflicts, cause };
            edit.decide(scratch)
        }
        Body::SetTask { task, expected, fields, mark } => {
            task::set_task(scratch, *task, *expected, fields, mark.as_deref())
        }
        Body::Claim { task, holder, lease_ms, fields, mark } => {
            let wish = claim::Wish { holder, lease_ms: *lease_ms, fields, mark: mark.as_deref() };
            claim::claim(scratch, cause.now, *task, &wish)
        }
        Body::Release { task, holder } => claim::release(scratch, cause.now, *task, holder.as_deref()),
        Body::Comment { task, text } => note::comment(scratch, cause, *task, text),
        Body::CreatePoint { name, at, note, is_automatic } => {
            note::create_point(scratch, cause, name, *at, note, *is_automatic)
        }
        Body::RemovePoint { point } => note::remove_point(scratch, *point),
        Body::Expecting { expected, body } => {
            expect::check_expected(scratch, expected, body)?;
            decide(scratch, cause, body)
        }
        Body::Group { bodies } => group::group(scratch, cause, bodies),
        Body::Rollback { scope, to, expected } => {
            let rollback = rollback::Rollback { scope: *scope, to: *to, expected: *expected };
            rollback.decide(scratch, cause)
        }
        Body::SetRetention { keep } => retention::set_retention(scratch, *keep),
        Body::Compact { to, time } => retention::compact(scratch, *to, *time),
        Body::OpenSession | Body::CloseSession => Ok(Vec::new()),
    }
}

/// The newest version of a record that must be there and be of that kind; it may be deleted.
fn known<V: View>(scratch: &Scratch<'_, V>, kind: Kind, id: RecordId) -> Decided<Arc<Stored>, V> {
    let stored = scratch.get(id)?.ok_or_else(|| not_found(kind.noun(), id))?;
    if stored.kind != kind {
        return Err(Reject::WrongKind { what: kind.noun().to_owned(), id }.into());
    }
    Ok(stored)
}

fn not_found(what: &str, id: RecordId) -> Reject {
    Reject::NotFound { what: what.to_owned(), id }
}

fn invalid(why: impl Into<String>) -> Reject {
    Reject::Invalid(why.into())
}

/// A proposer can have seen only what was applied before this entry, and builds on nothing that a restore has undone.
fn check_seen<V: View>(scratch: &Scratch<'_, V>, base: Revision) -> Decided<(), V> {
    let revision = scratch.revision();
    if base >= revision {
        return Err(invalid(format!("revision {base} has not been reached: the state is at {}", revision.0 - 1)).into());
    }
    check_not_undone(scratch, base)
}

/// Refuses a revision that a restore from a backup has undone: its state is no part of this history, so nothing can be held against it.
fn check_not_undone<V: View>(scratch: &Scratch<'_, V>, revision: Revision) -> Decided<(), V> {
    for (_, id) in scratch.children(Kind::Restore, RecordId::ROOT)? {
        let stored = scratch.get(id)?;
        if let Some(Record::Restore(restore)) = stored.as_ref().and_then(|stored| stored.record.as_ref())
            && restore.undid(revision, id.0.revision())
        {
            return Err(invalid(format!(
                "revision {revision} was undone when the cluster was restored to {} from a backup: look at the state as it \
                 is since {}, then repeat the command",
                restore.cut,
                id.0.revision()
            ))
            .into());
        }
    }
    Ok(())
}

/// Whether a mark is a check: `x` and `done` follow each other.
fn is_check(mark: &str) -> bool {
    matches!(mark.trim(), "x" | "X")
}

fn check_block(kind: u8, lead: &str, mark: &str, text: &str) -> Result<(), Reject> {
    check("bytes of a block", lead.len() + mark.len() + text.len(), limits::BLOCK_BYTES_MAX)?;
    check("bytes of a mark", mark.len(), limits::MARK_BYTES_MAX)?;
    if kind != KIND_TASK && !(lead.is_empty() && mark.is_empty()) {
        return Err(invalid("only a task has a lead and a mark"));
    }
    Ok(())
}

fn check_new_block(block: &NewBlock) -> Result<(), Reject> {
    check_block(block.kind, &block.lead, &block.mark, &block.text)
}

/// The status with which a block begins: a task's by its mark, none for another kind.
fn first_status(block: &NewBlock) -> Option<Status> {
    (block.kind == KIND_TASK).then(|| if is_check(&block.mark) { Status::Done } else { Status::Todo })
}

/// The task in a record, which must be a live one.
fn task_of(stored: &Stored, id: RecordId) -> Result<(&Block, &TaskFields), Reject> {
    let wrong_kind = || Reject::WrongKind { what: "task".to_owned(), id };
    match &stored.record {
        Some(Record::Block(block)) => {
            let task = block.task.as_deref().ok_or_else(wrong_kind)?;
            Ok((block, task))
        }
        Some(
            Record::Project(_)
            | Record::Change(_)
            | Record::Conflict(_)
            | Record::Comment(_)
            | Record::Point(_)
            | Record::Retention(_)
            | Record::Restore(_),
        ) => Err(wrong_kind()),
        None => Err(not_found("task", id)),
    }
}

/// The answer that one record changed after what the proposer saw.
fn stale<V: View>(scratch: &Scratch<'_, V>, record: RecordId, field: &str, changed_at: EventId) -> Halt<V::Error> {
    let field = StaleField { record, field: field.to_owned(), changed_at };
    Halt::Outcome(Outcome::Stale { revision: scratch.revision(), fields: vec![field] })
}

/// The position that changed a record at `at`: its newest version, or else the first position of that revision, as later
/// versions hide it.
fn changed_at(stored: &Stored, at: Revision) -> EventId {
    if stored.version.revision() == at { stored.version } else { EventId::new(at, 0).unwrap_or(stored.version) }
}

fn check_name(what: &str, name: &str) -> Result<(), Reject> {
    check(&format!("bytes of a {what}'s name"), name.len(), limits::NAME_BYTES_MAX)?;
    if name.is_empty() || name.trim() != name || name.contains(char::is_control) {
        return Err(invalid(format!(
            "a {what}'s name is empty, begins or ends with a blank, or holds a control character"
        )));
    }
    Ok(())
}

fn exists(kind: Kind, name: &str, id: RecordId) -> Reject {
    Reject::Exists { what: kind.noun().to_owned(), name: name.to_owned(), id }
}
