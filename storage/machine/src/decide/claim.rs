//! Claims: a task is taken by one holder for a while, by compare-and-set against the cluster's clock.
//!
//! A lease that is over keeps nobody away, but stays in the record until somebody takes the task or it is given back: nothing has
//! to run when time passes. The clock is the stamp of the claiming command, the same on every node, never this node's own.

use super::task::{Change, changes};
use super::{Decided, check_name, invalid, not_found, task_of};
use crate::command::TaskField;
use crate::event::Fact;
use crate::id::{ClusterTime, RecordId};
use crate::limits::{self, check};
use crate::outcome::Reject;
use crate::record::Claim;
use crate::scratch::Scratch;
use crate::view::View;

/// What the claimant asks for.
pub(super) struct Wish<'c> {
    pub(super) holder: &'c str,
    pub(super) lease_ms: u64,
    pub(super) fields: &'c [TaskField],
    pub(super) mark: Option<&'c str>,
}

pub(super) fn claim<V: View>(
    scratch: &mut Scratch<'_, V>,
    now: ClusterTime,
    task: RecordId,
    wish: &Wish<'_>,
) -> Decided<Vec<RecordId>, V> {
    check_name("holder", wish.holder)?;
    if wish.lease_ms == 0 {
        return Err(invalid("a lease of no time takes nothing").into());
    }
    let lease = usize::try_from(wish.lease_ms).unwrap_or(usize::MAX);
    check("milliseconds of a lease", lease, usize::try_from(limits::LEASE_MS_MAX).unwrap_or(usize::MAX))?;
    let stored = scratch.get(task)?.ok_or_else(|| not_found("task", task))?;
    let (_, fields) = task_of(&stored, task)?;
    if let Some(other) = &fields.claim.value
        && other.holder != wish.holder
        && other.holds_at(now)
    {
        return Err(claimed(task, other).into());
    }
    if !fields.status.value.is_open() {
        return Err(invalid(format!("task {task} is {}: only an open task can be taken", fields.status.value)).into());
    }
    let Change { fields, mark } = changes(scratch, task, &stored, wish.fields, wish.mark)?;
    let until = ClusterTime(now.0.saturating_add(wish.lease_ms));
    let claim = Claim { holder: wish.holder.to_owned(), until };
    scratch.change(task, &stored, Fact::Claimed { claim, fields, mark })?;
    Ok(Vec::new())
}

pub(super) fn release<V: View>(
    scratch: &mut Scratch<'_, V>,
    now: ClusterTime,
    task: RecordId,
    holder: Option<&str>,
) -> Decided<Vec<RecordId>, V> {
    let stored = scratch.get(task)?.ok_or_else(|| not_found("task", task))?;
    let (_, fields) = task_of(&stored, task)?;
    let Some(claim) = &fields.claim.value else { return Ok(Vec::new()) };
    if holder.is_some_and(|holder| holder != claim.holder) {
        // A lease of somebody else that is over is theirs to leave alone: whoever wants the task claims it.
        return if claim.holds_at(now) { Err(claimed(task, claim).into()) } else { Ok(Vec::new()) };
    }
    scratch.change(task, &stored, Fact::Released)?;
    Ok(Vec::new())
}

fn claimed(task: RecordId, claim: &Claim) -> Reject {
    Reject::Claimed { task, holder: claim.holder.clone(), until: claim.until }
}
