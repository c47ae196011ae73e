//! Expected versions: a command that builds on what its proposer saw is stale where that has changed.

use super::change::check_unchanged;
use super::retention::check_kept;
use super::{Decided, check_seen, invalid, not_found, stale};
use crate::command::{Body, Expected};
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::record::Kind;
use crate::scratch::Scratch;
use crate::view::{Stored, View};

/// Stale where any of what is expected changed; the first one that did is named.
pub(super) fn check_expected<V: View>(scratch: &Scratch<'_, V>, expected: &[Expected], body: &Body) -> Decided<(), V> {
    check("expected versions of a command", expected.len(), limits::EXPECTED_PER_COMMAND_MAX)?;
    if matches!(body, Body::Expecting { .. } | Body::OpenSession | Body::CloseSession) {
        return Err(
            invalid("expected versions go with one command that changes records, and stand side by side").into()
        );
    }
    for Expected { record, revision } in expected {
        check_seen(scratch, *revision)?;
        let Some(stored) = scratch.get(*record)? else {
            if record.0.revision() <= *revision {
                check_kept(scratch, *record, *revision)?;
            }
            return Err(not_found("record", *record).into());
        };
        match stored.kind {
            Kind::Change => check_unchanged(scratch, *record, *revision)?,
            Kind::Project => check_project(scratch, *record, &stored, *revision)?,
            Kind::Block | Kind::Conflict | Kind::Comment | Kind::Point | Kind::Retention | Kind::Restore => {
                check_one(scratch, *record, &stored, *revision)?;
            }
        }
    }
    Ok(())
}

/// The project itself, and which changes it has had under which paths since; what stands in them is theirs.
fn check_project<V: View>(
    scratch: &Scratch<'_, V>,
    project: RecordId,
    stored: &Stored,
    revision: Revision,
) -> Decided<(), V> {
    check_one(scratch, project, stored, revision)?;
    check_kept(scratch, project, revision)?;
    for change in scratch.changed(Kind::Change, project, revision)? {
        check_one(scratch, change.id, &change.now, revision)?;
    }
    Ok(())
}

fn check_one<V: View>(scratch: &Scratch<'_, V>, id: RecordId, stored: &Stored, revision: Revision) -> Decided<(), V> {
    if stored.version.revision() <= revision {
        return Ok(());
    }
    let field = if stored.record.is_some() { "any" } else { "existence" };
    Err(stale(scratch, id, field, stored.version))
}
