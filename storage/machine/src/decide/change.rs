//! Projects and changes: made under names that no live sibling has, deleted only where nobody worked on them meanwhile.

use super::{Decided, Halt, check_new_block, check_seen, first_status, invalid, known, not_found};
use crate::command::NewBlock;
use crate::event::Fact;
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::order_key;
use crate::outcome::{Outcome, Reject, StaleField};
use crate::record::Kind;
use crate::scratch::Scratch;
use crate::view::View;

pub(super) fn create_project<V: View>(
    scratch: &mut Scratch<'_, V>,
    name: &str,
    files: &[String],
) -> Decided<Vec<RecordId>, V> {
    check_name("project", name)?;
    check("globs of a project", files.len(), limits::GLOBS_PER_PROJECT_MAX)?;
    for glob in files {
        check("bytes of a glob", glob.len(), limits::PATH_BYTES_MAX)?;
        if glob.is_empty() || glob.contains(char::is_control) {
            return Err(invalid("a glob is empty or holds a control character").into());
        }
    }
    if let Some(id) = scratch.find(Kind::Project, RecordId::ROOT, name.as_bytes())? {
        return Err(exists(Kind::Project, name, id).into());
    }
    let projects = scratch.children(Kind::Project, RecordId::ROOT)?;
    check("projects", projects.len() + 1, limits::PROJECTS_MAX)?;
    let project = scratch.create(Fact::ProjectCreated { name: name.to_owned(), files: files.to_vec() })?;
    Ok(vec![project])
}

pub(super) fn create_change<V: View>(
    scratch: &mut Scratch<'_, V>,
    project: RecordId,
    path: &str,
    blocks: &[NewBlock],
) -> Decided<Vec<RecordId>, V> {
    check_path(path)?;
    check("blocks of a change", blocks.len(), limits::BLOCKS_PER_CHANGE_MAX)?;
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
    Ok(created)
}

pub(super) fn delete_change<V: View>(
    scratch: &mut Scratch<'_, V>,
    change: RecordId,
    base: Revision,
) -> Decided<Vec<RecordId>, V> {
    check_seen(base, scratch.revision())?;
    let stored = known(scratch, Kind::Change, change)?;
    if stored.record.is_none() {
        return Ok(Vec::new());
    }
    check_unchanged(scratch, change, base)?;
    for (_, block) in scratch.children(Kind::Block, change)? {
        let stored = known(scratch, Kind::Block, block)?;
        scratch.change(block, &stored, Fact::BlockDeleted)?;
    }
    scratch.change(change, &stored, Fact::ChangeDeleted)?;
    Ok(Vec::new())
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
    let mut after: Option<Vec<u8>> = None;
    while let Some((order, block)) = scratch.next(Kind::Block, change, after.as_deref())? {
        check(block)?;
        after = Some(order);
    }
    Ok(())
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
fn check_unique(path: &str, siblings: &[(Vec<u8>, RecordId)]) -> Result<(), Reject> {
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

fn exists(kind: Kind, name: &str, id: RecordId) -> Reject {
    Reject::Exists { what: kind.noun().to_owned(), name: name.to_owned(), id }
}
