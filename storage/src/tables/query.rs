//! What the product asks of a view: projects, changes, blocks, tasks, conflicts, histories.

use std::sync::Arc;

use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::id::{EventId, RecordId};
use zyflow_machine::record::{Block, Kind, Record, Status, TaskFields};
use zyflow_machine::view::{Stored, View};

use super::error::TablesError;
use super::read;
use super::view::TablesView;

/// A record with its id.
pub type Found = (RecordId, Arc<Stored>);

/// Which tasks are asked for; what is `None` doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Those of this project.
    pub project: Option<RecordId>,
    /// Those of this change.
    pub change: Option<RecordId>,
    /// Those in this status.
    pub status: Option<Status>,
    /// Those of this person or agent.
    pub assignee: Option<String>,
    /// Those whose text or note holds this, in either case.
    pub text: Option<String>,
    /// At most so many, the first in the order of projects, paths and lines.
    pub limit: Option<usize>,
}

/// A version of a record with what made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The event.
    pub version: EventId,
    /// What the record was from then on.
    pub stored: Arc<Stored>,
    /// What happened.
    pub fact: Fact,
    /// Who did it, and when.
    pub provenance: Arc<Provenance>,
}

impl TablesView {
    /// All projects, by name.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn projects(&self) -> Result<Vec<Found>, TablesError> {
        self.live(Kind::Project, RecordId::ROOT)
    }

    /// The project of that name.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn project_named(&self, name: &str) -> Result<Option<Found>, TablesError> {
        self.found(Kind::Project, RecordId::ROOT, name)
    }

    /// The changes of a project, by path.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn changes(&self, project: RecordId) -> Result<Vec<Found>, TablesError> {
        self.live(Kind::Change, project)
    }

    /// All paths that changes of a project have or had, each with its newest record and whether that is deleted.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn paths(&self, project: RecordId) -> Result<Vec<(String, RecordId, bool)>, TablesError> {
        let siblings = self.settle(self.siblings((Kind::Change, project)))?;
        let mut paths: Vec<(String, RecordId, bool)> = Vec::with_capacity(siblings.len());
        for (order, id, is_live) in siblings.all() {
            let path = String::from_utf8_lossy(order).into_owned();
            match paths.last_mut() {
                // Ids ascend within a path, and at most one of them lives.
                Some(last) if last.0 == path => {
                    if is_live || last.2 {
                        *last = (path, id, !is_live);
                    }
                }
                Some(_) | None => paths.push((path, id, !is_live)),
            }
        }
        Ok(paths)
    }

    /// The change at that path of a project.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn change_at_path(&self, project: RecordId, path: &str) -> Result<Option<Found>, TablesError> {
        self.found(Kind::Change, project, path)
    }

    /// The blocks of a change, in order: their texts concatenate to the canonical text.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn blocks(&self, change: RecordId) -> Result<Vec<Found>, TablesError> {
        self.live(Kind::Block, change)
    }

    /// The conflicts of a change, oldest first, resolved ones included.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn conflicts(&self, change: RecordId) -> Result<Vec<Found>, TablesError> {
        self.live(Kind::Conflict, change)
    }

    /// The tasks that `filter` describes.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn tasks(&self, filter: &TaskFilter) -> Result<Vec<Found>, TablesError> {
        let wanted = Wanted::new(filter);
        let limit = filter.limit.unwrap_or(usize::MAX);
        let mut tasks = Vec::new();
        for change in self.changes_of(filter)? {
            for (id, stored) in self.blocks(change)? {
                if tasks.len() >= limit {
                    return Ok(tasks);
                }
                if wanted.matches(&stored) {
                    tasks.push((id, stored));
                }
            }
        }
        Ok(tasks)
    }

    /// Every version of a record up to the view's revision, oldest first; those before the horizon aren't kept.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn history(&self, record: RecordId) -> Result<Vec<Version>, TablesError> {
        self.settle(self.history_of(record))
    }

    fn history_of(&self, id: RecordId) -> Result<Vec<Version>, TablesError> {
        let at = self.revision();
        let (here, base) = self.shared().overlay()?.look_chain(id, at);
        let oldest_here = here.first().map(|row| row.stored.version);
        let sealed = {
            let connection = self.pool(&base).lease()?;
            read::chain(&connection, id, at)?
        };
        let mut versions = Vec::with_capacity(sealed.len() + here.len());
        for sealed in sealed.into_iter().rev() {
            // What was written meanwhile is in both.
            if oldest_here.is_none_or(|oldest| sealed.version < oldest) {
                let body = self.shared().codec.open_body(sealed.version, id, sealed.previous, &sealed.body)?;
                let row = body.row(sealed.version, id, sealed.previous)?;
                versions.push(Version {
                    version: sealed.version,
                    stored: row.stored,
                    fact: row.fact,
                    provenance: row.provenance,
                });
            }
        }
        versions.extend(here.into_iter().map(|row| Version {
            version: row.stored.version,
            stored: Arc::clone(&row.stored),
            fact: row.fact.clone(),
            provenance: Arc::clone(&row.provenance),
        }));
        Ok(versions)
    }

    fn changes_of(&self, filter: &TaskFilter) -> Result<Vec<RecordId>, TablesError> {
        if let Some(change) = filter.change {
            let stored = self.get(change)?;
            let is_asked = stored.is_some_and(|stored| {
                stored.kind == Kind::Change
                    && stored.record.is_some()
                    && filter.project.is_none_or(|project| project == stored.parent)
            });
            return Ok(if is_asked { vec![change] } else { Vec::new() });
        }
        let projects = match filter.project {
            Some(project) => vec![project],
            None => self.ids(Kind::Project, RecordId::ROOT)?,
        };
        let mut changes = Vec::new();
        for project in projects {
            changes.extend(self.ids(Kind::Change, project)?);
        }
        Ok(changes)
    }

    fn ids(&self, kind: Kind, parent: RecordId) -> Result<Vec<RecordId>, TablesError> {
        let siblings = self.settle(self.siblings((kind, parent)))?;
        Ok(siblings.live().map(|(_, id)| id).collect())
    }

    fn live(&self, kind: Kind, parent: RecordId) -> Result<Vec<Found>, TablesError> {
        let siblings = self.settle(self.siblings((kind, parent)))?;
        let mut found = Vec::with_capacity(siblings.len());
        for (_, id) in siblings.live() {
            let missing = || TablesError::damaged(format!("{id} has a place but no version"));
            let stored = self.settle(self.get(id)?.ok_or_else(missing))?;
            found.push((id, stored));
        }
        Ok(found)
    }

    fn found(&self, kind: Kind, parent: RecordId, name: &str) -> Result<Option<Found>, TablesError> {
        let Some(id) = self.find(kind, parent, name.as_bytes())? else { return Ok(None) };
        Ok(self.get(id)?.map(|stored| (id, stored)))
    }
}

/// A filter, prepared.
struct Wanted<'a> {
    filter: &'a TaskFilter,
    text: Option<String>,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a TaskFilter) -> Self {
        Self { filter, text: filter.text.as_ref().map(|text| text.to_lowercase()) }
    }

    fn matches(&self, stored: &Stored) -> bool {
        let Some(Record::Block(block)) = &stored.record else { return false };
        let Some(task) = &block.task else { return false };
        let filter = self.filter;
        filter.status.is_none_or(|status| status == task.status.value)
            && filter.assignee.as_ref().is_none_or(|assignee| Some(assignee) == task.assignee.value.as_ref())
            && self.text.as_ref().is_none_or(|text| holds(block, task, text))
    }
}

fn holds(block: &Block, task: &TaskFields, lower: &str) -> bool {
    block.text.value.to_lowercase().contains(lower) || task.note.value.to_lowercase().contains(lower)
}
