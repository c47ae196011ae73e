//! What people add beside the state: comments on tasks, names for revisions.

use super::retention::horizon;
use super::{Cause, Decided, check_name, check_seen, exists, invalid, known, not_found, task_of};
use crate::event::Fact;
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::Reject;
use crate::record::{Comment, Kind, Point, Record};
use crate::scratch::Scratch;
use crate::view::View;

pub(super) fn comment<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    task: RecordId,
    text: &str,
) -> Decided<Vec<RecordId>, V> {
    check("bytes of a comment", text.len(), limits::COMMENT_BYTES_MAX)?;
    if text.trim().is_empty() {
        return Err(invalid("a comment says something").into());
    }
    let stored = scratch.get(task)?.ok_or_else(|| not_found("task", task))?;
    task_of(&stored, task)?;
    let comments = scratch.children(Kind::Comment, task)?.len();
    check("comments of a task", comments + 1, limits::COMMENTS_PER_TASK_MAX)?;
    let comment = Comment { task, author: cause.author.to_owned(), time: cause.now, text: text.to_owned() };
    Ok(vec![scratch.create(Fact::Commented(comment))?])
}

pub(super) fn create_point<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    name: &str,
    at: Option<Revision>,
    note: &str,
    is_automatic: bool,
) -> Decided<Vec<RecordId>, V> {
    check_name("rollback point", name)?;
    // A name that reads as a revision or a record id would mean two things in `--at`.
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(invalid("a rollback point's name is not a number").into());
    }
    check("bytes of a note", note.len(), limits::NOTE_BYTES_MAX)?;
    let revision = at.unwrap_or(Revision(scratch.revision().0.saturating_sub(1)));
    check_seen(scratch, revision)?;
    let oldest = horizon(scratch)?;
    if revision < oldest {
        let newest = Revision(scratch.revision().0.saturating_sub(1));
        return Err(Reject::NoRevision { revision, oldest, newest }.into());
    }
    if let Some(id) = scratch.find(Kind::Point, RecordId::ROOT, name.as_bytes())? {
        let known = known(scratch, Kind::Point, id)?;
        let is_same = matches!(&known.record, Some(Record::Point(point)) if point.revision == revision);
        // Two that are about to do something to one state name it alike: the one point is good for both.
        return if is_automatic && is_same { Ok(vec![id]) } else { Err(exists(Kind::Point, name, id).into()) };
    }
    make_room(scratch)?;
    let point = Point {
        name: name.to_owned(),
        revision,
        note: note.to_owned(),
        author: cause.author.to_owned(),
        time: cause.now,
        is_automatic,
    };
    Ok(vec![scratch.create(Fact::PointCreated(point))?])
}

/// Names the revision before this entry, for somebody who wants it back after what `reason` says; returns the id of the point, which may be
/// one that is there already.
pub(super) fn automatic_point<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    reason: &str,
    note: &str,
) -> Decided<RecordId, V> {
    let before = Revision(scratch.revision().0.saturating_sub(1));
    let plain = format!("before-{reason}-{before}");
    let mut name = plain.clone();
    let mut copies: usize = 1;
    while let Some(id) = scratch.find(Kind::Point, RecordId::ROOT, name.as_bytes())? {
        let known = known(scratch, Kind::Point, id)?;
        if matches!(&known.record, Some(Record::Point(point)) if point.revision == before) {
            return Ok(id);
        }
        copies += 1;
        check("rollback points of one name", copies, limits::POINTS_MAX)?;
        name = format!("{plain}-{copies}");
    }
    let created = create_point(scratch, cause, &name, None, note, true)?;
    Ok(*created.first().expect("invariant: a point that was made has an id"))
}

/// A point before conflicts of a change were settled; its id, or none where none was.
pub(super) fn point_before_resolution<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    change: RecordId,
    settled: &[RecordId],
) -> Decided<Vec<RecordId>, V> {
    let note = match settled {
        [] => return Ok(Vec::new()),
        [conflict] => format!("conflict {conflict} of change {change} was resolved"),
        [..] => format!("{} conflicts of change {change} were resolved", settled.len()),
    };
    Ok(vec![automatic_point(scratch, cause, "conflict", &note)?])
}

/// Refuses a point more than there may be, unless one that the system made can go: the one of the oldest revision.
fn make_room<V: View>(scratch: &mut Scratch<'_, V>) -> Decided<(), V> {
    let points = scratch.children(Kind::Point, RecordId::ROOT)?;
    let Err(full) = check("rollback points", points.len() + 1, limits::POINTS_MAX) else { return Ok(()) };
    let mut oldest = None;
    for (_, id) in points {
        let stored = known(scratch, Kind::Point, id)?;
        if let Some(Record::Point(Point { is_automatic: true, revision, .. })) = &stored.record
            && oldest.as_ref().is_none_or(|(than, _, _)| revision < than)
        {
            oldest = Some((*revision, id, stored));
        }
    }
    let (_, id, stored) = oldest.ok_or(full)?;
    Ok(scratch.change(id, &stored, Fact::PointRemoved)?)
}

pub(super) fn remove_point<V: View>(scratch: &mut Scratch<'_, V>, point: RecordId) -> Decided<Vec<RecordId>, V> {
    let stored = known(scratch, Kind::Point, point)?;
    if stored.record.is_some() {
        scratch.change(point, &stored, Fact::PointRemoved)?;
    }
    Ok(Vec::new())
}
