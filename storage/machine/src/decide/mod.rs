//! From a command and the state to what happens: either all of it, as events, or nothing and a reason.
//!
//! A function of the command, the view and the revision; no other input. Each event goes through [`crate::evolve`] into the
//! scratch view at once, so a command sees the effects of its own earlier parts and of the commands before it in the batch; the
//! machine undoes them together where the command halts. Only revisions are compared here, never texts: what may be merged is the
//! proposer's business.

mod change;
mod edit;
mod place;
mod task;

use crate::command::{Body, NewBlock};
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::{Outcome, Reject};
use crate::record::{KIND_TASK, Kind, Status};
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

/// Does what `body` asks, by the author of that name; returns the ids of the records it created.
pub(crate) fn decide<V: View>(scratch: &mut Scratch<'_, V>, author: &str, body: &Body) -> Decided<Vec<RecordId>, V> {
    match body {
        Body::CreateProject { name, files } => change::create_project(scratch, name, files),
        Body::CreateChange { project, path, blocks } => change::create_change(scratch, *project, path, blocks),
        Body::DeleteChange { change, base } => change::delete_change(scratch, *change, *base),
        Body::Edit { change, base, mode, ops, conflicts } => {
            let edit = edit::Edit { change: *change, base: *base, mode: *mode, ops, conflicts, author };
            edit.decide(scratch)
        }
        Body::SetTask { task, expected, fields } => task::set_task(scratch, *task, *expected, fields),
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

/// A proposer can have seen only what was applied before this entry.
fn check_seen(base: Revision, revision: Revision) -> Result<(), Reject> {
    if base < revision {
        return Ok(());
    }
    Err(invalid(format!("revision {base} has not been reached: the state is at {}", revision.0 - 1)))
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
