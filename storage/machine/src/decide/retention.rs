//! The horizon: how much of the history is kept, and letting go of the rest (docs/adr/0017).
//!
//! Nothing is decided by a clock here. Who leads proposes where the history is to begin; the machine holds it to what people rely on: a
//! rollback point that somebody made keeps its revision.

use super::{Decided, check_not_undone, invalid, known, stale};
use crate::event::Fact;
use crate::id::{ClusterTime, EventId, RecordId, Revision};
use crate::outcome::Reject;
use crate::record::{Keep, Kind, Point, Record, Retention};
use crate::scratch::Scratch;
use crate::view::{Stored, View};
use std::sync::Arc;

/// The oldest revision that can be read.
pub(super) fn horizon<V: View>(scratch: &Scratch<'_, V>) -> Decided<Revision, V> {
    Ok(current(scratch)?.map_or(Revision::default(), |(_, _, retention)| retention.horizon))
}

/// Stale where `base` is below the horizon: what has changed since can't be told any more, so whoever asked looks again.
pub(super) fn check_kept<V: View>(scratch: &Scratch<'_, V>, record: RecordId, base: Revision) -> Decided<(), V> {
    let horizon = horizon(scratch)?;
    match EventId::new(horizon, 0).filter(|_| base < horizon) {
        Some(changed_at) => Err(stale(scratch, record, "any", changed_at)),
        None => Ok(()),
    }
}

pub(super) fn set_retention<V: View>(scratch: &mut Scratch<'_, V>, keep: Keep) -> Decided<Vec<RecordId>, V> {
    if keep.revisions == Some(0) || keep.age_ms == Some(0) {
        return Err(invalid("a retention of nothing would leave nothing to go back to: keep at least one").into());
    }
    match current(scratch)? {
        None => Ok(vec![scratch.create(Fact::RetentionCreated(keep))?]),
        Some((id, stored, retention)) => {
            if retention.keep != keep {
                scratch.change(id, &stored, Fact::RetentionSet(keep))?;
            }
            Ok(Vec::new())
        }
    }
}

pub(super) fn compact<V: View>(
    scratch: &mut Scratch<'_, V>,
    to: Revision,
    time: ClusterTime,
) -> Decided<Vec<RecordId>, V> {
    let newest = Revision(scratch.revision().0.saturating_sub(1));
    let oldest = horizon(scratch)?;
    if to > newest {
        return Err(Reject::NoRevision { revision: to, oldest, newest }.into());
    }
    if to <= oldest {
        return Ok(Vec::new());
    }
    check_not_undone(scratch, to)?;
    for (point, stored) in points_before(scratch, to)? {
        scratch.change(point, &stored, Fact::PointRemoved)?;
    }
    let mut created = Vec::new();
    if current(scratch)?.is_none() {
        created.push(scratch.create(Fact::RetentionCreated(Keep::default()))?);
    }
    let (id, stored, _) = current(scratch)?.expect("invariant: it was made where there was none");
    scratch.change(id, &stored, Fact::HorizonMoved { to, time })?;
    Ok(created)
}

/// The automatic points that name an older revision; an error where one was made by somebody.
fn points_before<V: View>(scratch: &Scratch<'_, V>, to: Revision) -> Decided<Vec<(RecordId, Arc<Stored>)>, V> {
    let mut found = Vec::new();
    for (_, id) in scratch.children(Kind::Point, RecordId::ROOT)? {
        let stored = known(scratch, Kind::Point, id)?;
        let Some(Record::Point(Point { name, revision, is_automatic, .. })) = &stored.record else { continue };
        if *revision >= to {
            continue;
        }
        if !is_automatic {
            return Err(invalid(format!(
                "the rollback point `{name}` names revision {revision}, so the history can't begin at {to}: \
                 keep it from {revision} on, or remove the point"
            ))
            .into());
        }
        found.push((id, stored));
    }
    Ok(found)
}

/// The one record, if there is one.
fn current<V: View>(scratch: &Scratch<'_, V>) -> Decided<Option<(RecordId, Arc<Stored>, Retention)>, V> {
    let Some(id) = scratch.find(Kind::Retention, RecordId::ROOT, Retention::ORDER)? else { return Ok(None) };
    let stored = known(scratch, Kind::Retention, id)?;
    let retention = match &stored.record {
        Some(Record::Retention(retention)) => Some(*retention),
        _ => None,
    };
    Ok(retention.map(|retention| (id, stored, retention)))
}
