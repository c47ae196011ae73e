//! Changes: made under paths that no live sibling has, moved with all they hold, deleted only where nobody worked on them meanwhile.

use super::note::automatic_point;
use super::retention::check_kept;
use super::{
    Cause, Decided, Halt, check_new_block, check_seen, exists, first_status, invalid, known, not_found, stale, task,
};
use crate::command::{BlockOp, BlockRef, NewBlock};
use crate::event::Fact;
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::order_key;
use crate::outcome::{Outcome, Reject, StaleField};
use crate::record::{Kind, Record};
use crate::scratch::Scratch;
use crate::view::View;

pub(super) fn create_change<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    project: RecordId,
    path: &str,
    blocks: &[NewBlock],
    ops: &[BlockOp],
) -> Decided<Vec<RecordId>, V> {
    check_path(path)?;
    check("blocks of a change", blocks.len(), limits::BLOCKS_PER_CHANGE_MAX)?;
    check("operations of a change", ops.len(), limits::OPS_PER_EDIT_MAX)?;
    blocks.iter().try_for_each(check_new_block)?;
    let bytes = blocks.iter().map(|block| block.lead.len() + block.mark.len() + block.text.len()).sum();
    check("bytes of a command's texts", bytes, limits::COMMAND_TEXT_BYTES_MAX)?;
    if known(scratch, Kind::Project, project)?.record.is_none() {
        return Err(not_found("project", project).into());
    }
    let siblings = scratch.children(Kind::Change, project)?;
    check("changes of a project", siblings.len() + 1, limits::CHANGES_PER_PROJECT_MAX)?;
    check_unique(path, &siblings)?;

    let change = scratch.create(Fact::ChangeCreated { project, path: path.to_owned() })?;
    let mut created = vec![change];
    for (block, order) in blocks.iter().zip(order_key::first(blocks.len())) {
        let status = first_status(block);
        created.push(scratch.create(Fact::BlockInserted { change, order, block: block.clone(), status })?);
    }
    let conflicts = text_fields(scratch, cause, change, &created[1..], ops)?;
    created.extend(conflicts);
    Ok(created)
}

/// What the text of a new change says of runtime fields; returns the conflicts that were recorded with it.
fn text_fields<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    change: RecordId,
    blocks: &[RecordId],
    ops: &[BlockOp],
) -> Decided<Vec<RecordId>, V> {
    let mut conflicts = Vec::new();
    for op in ops {
        match op {
            BlockOp::SetFields { block, fields } => {
                let id = resolve_ref(*block, blocks)?;
                let stored = known(scratch, Kind::Block, id)?;
                task::set_fields(scratch, id, &stored, fields)?;
            }
            BlockOp::SetBlockers { block, on } => {
                let id = resolve_ref(*block, blocks)?;
                let stored = known(scratch, Kind::Block, id)?;
                let on: Result<_, Reject> = on.iter().map(|each| resolve_ref(*each, blocks)).collect();
                if let Some(conflict) = task::set_blockers(scratch, cause.author, change, id, &stored, on?)? {
                    conflicts.push(conflict);
                }
            }
            BlockOp::Insert { .. }
            | BlockOp::SetText { .. }
            | BlockOp::SetMark { .. }
            | BlockOp::Move { .. }
            | BlockOp::Delete { .. }
            | BlockOp::Resolve { .. } => {
                return Err(
                    invalid("a new change takes its blocks as they are: only fields and blockers can be set").into()
                );
            }
        }
    }
    Ok(conflicts)
}

/// The block that is meant, where `made` are those that the command has made.
pub(super) fn resolve_ref(block: BlockRef, made: &[RecordId]) -> Result<RecordId, Reject> {
    match block {
        BlockRef::Known(id) => Ok(id),
        BlockRef::New(nth) => {
            let at = usize::try_from(nth).ok().and_then(|at| made.get(at)).copied();
            at.ok_or_else(|| invalid(format!("the command has made no block {nth}, counted from 0")))
        }
    }
}

pub(super) fn move_change<V: View>(
    scratch: &mut Scratch<'_, V>,
    change: RecordId,
    path: &str,
    from: &str,
) -> Decided<Vec<RecordId>, V> {
    check_path(path)?;
    let stored = known(scratch, Kind::Change, change)?;
    let Some(Record::Change(now)) = &stored.record else { return Err(not_found("change", change).into()) };
    if now.path == path {
        return Ok(Vec::new());
    }
    if now.path != from {
        return Err(stale(scratch, change, "path", stored.version));
    }
    let siblings: Vec<_> =
        scratch.children(Kind::Change, now.project)?.into_iter().filter(|(_, id)| *id != change).collect();
    check_unique(path, &siblings)?;
    scratch.change(change, &stored, Fact::ChangeMoved { path: path.to_owned() })?;
    Ok(Vec::new())
}

pub(super) fn delete_change<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    change: RecordId,
    base: Revision,
) -> Decided<Vec<RecordId>, V> {
    check_seen(scratch, base)?;
    let stored = known(scratch, Kind::Change, change)?;
    if stored.record.is_none() {
        return Ok(Vec::new());
    }
    check_unchanged(scratch, change, base)?;
    let blocks = scratch.children(Kind::Block, change)?;
    let count = blocks.len();
    for (_, block) in blocks {
        let stored = known(scratch, Kind::Block, block)?;
        scratch.change(block, &stored, Fact::BlockDeleted)?;
    }
    scratch.change(change, &stored, Fact::ChangeDeleted)?;
    point_before_deletion(scratch, cause, change, count)
}

/// A point before `count` blocks went, where they are many; its id.
pub(super) fn point_before_deletion<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    change: RecordId,
    count: usize,
) -> Decided<Vec<RecordId>, V> {
    if count < limits::MASS_DELETION_BLOCKS {
        return Ok(Vec::new());
    }
    let note = format!("{count} blocks of change {change} were deleted");
    Ok(vec![automatic_point(scratch, cause, "deletion", &note)?])
}

/// Stale where the change or any of its blocks, deleted ones included, has a version after `base`. The first one found is
/// named: who asked for this much looks at all of it again anyway.
pub(super) fn check_unchanged<V: View>(scratch: &Scratch<'_, V>, change: RecordId, base: Revision) -> Decided<(), V> {
    let check = |id| match scratch.get(id)? {
        Some(stored) if stored.version.revision() > base => {
            let field = if stored.record.is_some() { "any" } else { "existence" };
            let stale = StaleField { record: id, field: field.to_owned(), changed_at: stored.version };
            Err(Halt::Outcome(Outcome::Stale { revision: scratch.revision(), fields: vec![stale] }))
        }
        Some(_) | None => Ok(()),
    };
    check(change)?;
    check_kept(scratch, change, base)?;
    for block in scratch.changed(Kind::Block, change, base)? {
        check(block.id)?;
    }
    Ok(())
}

/// A path must mean the same file below every checkout's root, and never one outside of it.
fn check_path(path: &str) -> Result<(), Reject> {
    check("bytes of a path", path.len(), limits::PATH_BYTES_MAX)?;
    if path.contains(['\\', '\0']) || path.contains(char::is_control) {
        return Err(invalid("a path holds a backslash or a control character; its separator is `/`"));
    }
    for segment in path.split('/') {
        check("bytes of a path's segment", segment.len(), limits::PATH_SEGMENT_BYTES_MAX)?;
        if matches!(segment, "" | "." | "..") {
            return Err(invalid("a path is empty, absolute, or has an empty segment, `.` or `..`"));
        }
    }
    Ok(())
}

/// Two paths that differ by case only would be one file on some checkouts.
pub(super) fn check_unique(path: &str, siblings: &[(Vec<u8>, RecordId)]) -> Result<(), Reject> {
    let folded = fold(path);
    for (order, id) in siblings {
        let sibling = String::from_utf8_lossy(order);
        if sibling == path || fold(&sibling) == folded {
            return Err(exists(Kind::Change, &sibling, *id));
        }
    }
    Ok(())
}

/// Lower case for the scripts whose letters are all assigned (Latin, Greek, Cyrillic, Armenian), so that nodes built with another version of
/// Unicode fold alike. Other scripts with case are compared as they stand.
fn fold(path: &str) -> String {
    let mut folded = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter < '\u{590}' {
            folded.extend(letter.to_lowercase());
        } else {
            folded.push(letter);
        }
    }
    folded
}
