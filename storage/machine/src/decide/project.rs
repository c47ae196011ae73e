//! Projects: made under names that no live sibling has; each with a policy, which is set as a whole.

use super::{Decided, check_name, check_seen, exists, invalid, known, not_found, stale};
use crate::event::Fact;
use crate::id::{RecordId, Revision};
use crate::limits::{self, check};
use crate::outcome::Reject;
use crate::record::{CONFLICT_FIELDS, Kind, Policy, Record};
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

pub(super) fn set_policy<V: View>(
    scratch: &mut Scratch<'_, V>,
    project: RecordId,
    expected: Option<Revision>,
    policy: &Policy,
) -> Decided<Vec<RecordId>, V> {
    check_policy(policy)?;
    let stored = known(scratch, Kind::Project, project)?;
    let Some(Record::Project(now)) = &stored.record else { return Err(not_found("project", project).into()) };
    if let Some(expected) = expected {
        check_seen(scratch, expected)?;
        if now.policy.at > expected {
            return Err(stale(scratch, project, "policy", super::changed_at(&stored, now.policy.at)));
        }
    }
    if now.policy.value != *policy {
        scratch.change(project, &stored, Fact::PolicySet(policy.clone()))?;
    }
    Ok(Vec::new())
}

fn check_policy(policy: &Policy) -> Result<(), Reject> {
    if let Some(field) = policy.strategies.keys().find(|field| !CONFLICT_FIELDS.contains(&field.as_str())) {
        return Err(invalid(format!("no conflict is about `{field}`; fields are {}", CONFLICT_FIELDS.join(", "))));
    }
    let convention = policy.convention.as_deref().unwrap_or_default();
    check("bytes of a convention", convention.len(), limits::CONVENTION_BYTES_MAX)
}
