//! What the product asks of a view: projects, changes, blocks, tasks, conflicts, histories.

mod history;

use std::cmp::Reverse;
use std::sync::Arc;

use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::id::{ClusterTime, EventId, RecordId};
use zyflow_machine::record::{Block, Kind, Priority, Record, Retention, Status, TaskFields};
use zyflow_machine::view::{Stored, View};

use super::error::TablesError;
use super::view::TablesView;
use history::History;

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
    /// Those in whose text, note, labels, requirements or comments this is, in either case.
    pub search: Option<String>,
    /// Those that somebody can begin at this time: todo, not taken, waiting for no open task, and without open tasks nested below
    /// them. The most urgent come first, then those that are due first.
    pub ready_at: Option<ClusterTime>,
    /// At most so many, the first in the order of projects, paths and lines (for ready ones, of urgency).
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
            let mut blocks = self.blocks(change)?;
            if let Some(now) = filter.ready_at {
                blocks = self.ready(blocks, now)?;
            }
            for (id, stored) in blocks {
                if tasks.len() >= limit && filter.ready_at.is_none() {
                    return Ok(tasks);
                }
                if wanted.matches(&stored) && self.holds_searched(&wanted, id, &stored)? {
                    tasks.push((id, stored));
                }
            }
        }
        if filter.ready_at.is_some() {
            tasks.sort_by_key(|(_, stored)| urgency(stored));
            tasks.truncate(limit);
        }
        Ok(tasks)
    }

    /// Of the blocks of one change, the tasks that somebody can begin.
    fn ready(&self, blocks: Vec<Found>, now: ClusterTime) -> Result<Vec<Found>, TablesError> {
        let leaves = leaves(&blocks);
        let mut ready = Vec::new();
        for ((id, stored), is_leaf) in blocks.into_iter().zip(leaves) {
            let Some(task) = task_of(&stored) else { continue };
            let is_free = task.claim.value.as_ref().is_none_or(|claim| !claim.holds_at(now));
            if !is_leaf || !is_free || task.status.value != Status::Todo {
                continue;
            }
            let mut is_waiting = false;
            for blocker in &task.blocked_by.value {
                let blocker = self.settle(self.get(*blocker))?;
                is_waiting |=
                    blocker.is_some_and(|stored| task_of(&stored).is_some_and(|task| task.status.value.is_open()));
            }
            if !is_waiting {
                ready.push((id, stored));
            }
        }
        Ok(ready)
    }

    /// The comments on a task, oldest first.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn comments(&self, task: RecordId) -> Result<Vec<Found>, TablesError> {
        self.live(Kind::Comment, task)
    }

    /// All rollback points, by name.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn points(&self) -> Result<Vec<Found>, TablesError> {
        self.live(Kind::Point, RecordId::ROOT)
    }

    /// How much of the history is kept, as was said by the view's revision.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn retention(&self) -> Result<Retention, TablesError> {
        let found = self.live(Kind::Retention, RecordId::ROOT)?;
        Ok(match found.first().and_then(|(_, stored)| stored.record.as_ref()) {
            Some(Record::Retention(retention)) => *retention,
            _ => Retention::default(),
        })
    }

    fn holds_searched(&self, wanted: &Wanted<'_>, id: RecordId, stored: &Stored) -> Result<bool, TablesError> {
        let Some(words) = &wanted.search else { return Ok(true) };
        let Some(Record::Block(block)) = &stored.record else { return Ok(false) };
        let Some(task) = &block.task else { return Ok(false) };
        let in_sets = task.labels.value.iter().chain(&task.requirements.value);
        if holds(block, task, words) || in_sets.into_iter().any(|word| word.to_lowercase().contains(words)) {
            return Ok(true);
        }
        let comments = self.comments(id)?;
        Ok(comments.iter().any(|(_, stored)| match &stored.record {
            Some(Record::Comment(comment)) => comment.text.to_lowercase().contains(words),
            _ => false,
        }))
    }

    /// Every version of a record up to the view's revision, oldest first; those before the horizon aren't kept.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn history(&self, record: RecordId) -> Result<Vec<Version>, TablesError> {
        let mut versions = Vec::new();
        self.walk_history(record, None, |version| {
            versions.push(version);
            true
        })?;
        versions.reverse();
        Ok(versions)
    }

    /// The newest versions of a change and of everything in it, newest first, deleted blocks included.
    ///
    /// # Errors
    /// The tables can't be read.
    pub fn change_history(&self, change: RecordId, limit: usize) -> Result<Vec<Version>, TablesError> {
        let mut versions = Vec::new();
        if limit > 0 {
            self.walk_change_history(change, None, |version| {
                versions.push(version);
                versions.len() < limit
            })?;
        }
        Ok(versions)
    }

    /// Gives `take` the versions of a record up to the view's revision, newest first, until it answers `false`; only those before `before`
    /// where there is one. None is opened that `take` isn't given, but for deletions that are let go of.
    ///
    /// # Errors
    /// The tables can't be read, or the horizon has passed the view's revision meanwhile: then what was given is no answer.
    pub fn walk_history(
        &self,
        record: RecordId,
        before: Option<EventId>,
        take: impl FnMut(Version) -> bool,
    ) -> Result<(), TablesError> {
        self.settle(self.walk(record, &[], before, take))
    }

    /// The same of a change and of everything in it. Numbers of versions are held in memory: 16 bytes for each that there is.
    ///
    /// # Errors
    /// As [`TablesView::walk_history`].
    pub fn walk_change_history(
        &self,
        change: RecordId,
        before: Option<EventId>,
        take: impl FnMut(Version) -> bool,
    ) -> Result<(), TablesError> {
        self.settle(self.walk(change, &[Kind::Block, Kind::Conflict], before, take))
    }

    fn walk(
        &self,
        record: RecordId,
        kinds: &[Kind],
        before: Option<EventId>,
        take: impl FnMut(Version) -> bool,
    ) -> Result<(), TablesError> {
        let walked = History::begin(self, record, kinds).and_then(|history| history.walk(before, take));
        // What lies below the horizon may have been half removed while it was read: then neither versions nor errors mean anything.
        self.refuse_compacted_since(self.revision())?;
        walked
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

    /// All records of that kind and parent, deleted ones included.
    pub(crate) fn family(&self, kind: Kind, parent: RecordId) -> Result<Vec<RecordId>, TablesError> {
        let siblings = self.settle(self.siblings((kind, parent)))?;
        Ok(siblings.all().map(|(_, id, _)| id).collect())
    }

    fn ids(&self, kind: Kind, parent: RecordId) -> Result<Vec<RecordId>, TablesError> {
        let siblings = self.settle(self.siblings((kind, parent)))?;
        Ok(siblings.live().map(|(_, id)| id).collect())
    }

    fn live(&self, kind: Kind, parent: RecordId) -> Result<Vec<Found>, TablesError> {
        if let Some(pinned) = self.settle(self.pinned_family((kind, parent)))? {
            return Ok(pinned.live().to_vec());
        }
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

fn task_of(stored: &Stored) -> Option<&TaskFields> {
    match &stored.record {
        Some(Record::Block(block)) => block.task.as_deref(),
        _ => None,
    }
}

/// For each block whether it is a task that no open task is nested below.
fn leaves(blocks: &[Found]) -> Vec<bool> {
    let indent = |stored: &Stored| match &stored.record {
        Some(Record::Block(block)) => block.lead.len() - block.lead.trim_start().len(),
        _ => 0,
    };
    let mut leaves = vec![false; blocks.len()];
    // Depths of open tasks further down that no task in between stands above.
    let mut open: Vec<usize> = Vec::new();
    for (at, (_, stored)) in blocks.iter().enumerate().rev() {
        let Some(task) = task_of(stored) else {
            if matches!(&stored.record, Some(Record::Block(block)) if block.text.value.starts_with('#')) {
                open.clear();
            }
            continue;
        };
        let depth = indent(stored);
        let before = open.len();
        open.retain(|below| *below <= depth);
        leaves[at] = open.len() == before;
        // A closed task with open ones below it is as open as they are for the task above it.
        if task.status.value.is_open() || open.len() < before {
            open.push(depth);
        }
    }
    leaves
}

/// What is more urgent comes first; then what is due first, and what is never due last. Ties keep their order.
fn urgency(stored: &Stored) -> (Reverse<Option<Priority>>, bool, Option<String>) {
    let task = task_of(stored);
    let due = task.and_then(|task| task.due.value.clone());
    let priority = task.and_then(|task| task.priority.value);
    // Without a word about it, a task is as urgent as usual.
    (Reverse(Some(priority.unwrap_or(Priority::Medium))), due.is_none(), due)
}

/// A filter, prepared.
struct Wanted<'a> {
    filter: &'a TaskFilter,
    text: Option<String>,
    search: Option<String>,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a TaskFilter) -> Self {
        let lower = |words: &Option<String>| words.as_ref().map(|words| words.to_lowercase());
        Self { filter, text: lower(&filter.text), search: lower(&filter.search) }
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
