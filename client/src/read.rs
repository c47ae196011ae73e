//! Typed reads: each query with its answer, converted, and the revision that it is true at.

mod parts;

use crate::client::Client;
use crate::error::ClientError;
use parts::{Part, Parts};
use std::time::Duration;
use v1::query_request::{self as ask, Query};
use v1::query_response::Answer as Got;
use zyflow_api::convert::{event_id, record_id};
use zyflow_api::{ConvertError, v1};
use zyflow_machine::event::{Fact, Provenance};
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::record::{Block, Change, Comment, Conflict, Point, Project, Retention, Status};

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What the asked node has applied.
    Local,
    /// At least this revision: reads your own writes on any node.
    AtLeast(Revision),
    /// Everything acknowledged before the query began.
    #[default]
    Linearizable,
    /// As linearizable, trusting the leader's clock for its lease.
    Lease,
}

/// How a query is asked.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// How fresh.
    pub consistency: Consistency,
    /// As of this revision instead of the newest.
    pub at: Option<Revision>,
    /// How long the answer may take.
    pub within: Duration,
}

/// What was asked for, and the revision that it is true at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The revision.
    pub revision: Revision,
    /// The answering node's clock, which leases can be compared with; the claim itself is decided by the leader's.
    pub time: ClusterTime,
    /// The value.
    pub value: T,
}

/// A record with its id and the version that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// Which.
    pub id: RecordId,
    /// The event that made this version.
    pub version: EventId,
    /// The record.
    pub record: T,
}

/// A change with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The change; `None` = it is deleted.
    pub change: Row<Option<Change>>,
    /// In order; they concatenate to the canonical text.
    pub blocks: Vec<Row<Block>>,
}

/// A task with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The task's block.
    pub block: Row<Block>,
    /// The project's id.
    pub project: RecordId,
    /// The project's name.
    pub project_name: String,
    /// The change's path.
    pub change_path: String,
}

/// Tasks, and whether there are more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// In order of project, path and place.
    pub tasks: Vec<Task>,
    /// There are more than the limit.
    pub is_truncated: bool,
}

/// A conflict with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedConflict {
    /// The conflict.
    pub row: Row<Conflict>,
    /// The project's name; empty where the change is deleted.
    pub project_name: String,
    /// The change's path; empty where it is deleted.
    pub change_path: String,
}

/// One version of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its event.
    pub version: EventId,
    /// Who and when.
    pub provenance: Provenance,
    /// What happened.
    pub fact: Fact,
    /// Of a block: what it was from then on.
    pub block: Option<Block>,
}

/// Which tasks; `None` doesn't restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Of this project.
    pub project: Option<RecordId>,
    /// Of this change.
    pub change: Option<RecordId>,
    /// With this status.
    pub status: Option<Status>,
    /// Assigned to them.
    pub assignee: Option<String>,
    /// With this in their text.
    pub text: Option<String>,
    /// With this in their text, note, labels, requirements or comments.
    pub search: Option<String>,
    /// That somebody can begin now, the most urgent first.
    pub is_ready: bool,
    /// Most tasks to answer with; 0 = the server's own limit.
    pub limit: u32,
}

impl Client {
    /// All projects, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn projects(&self, read: Read) -> Result<Answer<Vec<Row<Project>>>, ClientError> {
        self.read(read, Query::Projects(ask::Projects {}), |answer| {
            if let Got::Projects(list) = answer { Some(list.projects.into_iter().map(project).collect()) } else { None }
        })
        .await
    }

    /// All changes of a project, by path.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where the project doesn't exist.
    pub async fn changes(
        &self,
        read: Read,
        project: RecordId,
    ) -> Result<Answer<Vec<Row<Option<Change>>>>, ClientError> {
        self.read(read, Query::Changes(ask::Changes { project: project.to_u64() }), |answer| {
            if let Got::Changes(list) = answer { Some(list.changes.into_iter().map(change).collect()) } else { None }
        })
        .await
    }

    /// A change with its text.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where it doesn't exist.
    pub async fn document(&self, read: Read, id: RecordId) -> Result<Answer<Document>, ClientError> {
        self.read(read, Query::Document(ask::Document { change: id.to_u64() }), |answer| {
            if let Got::Document(found) = answer { Some(document(found)) } else { None }
        })
        .await
    }

    /// The tasks that the filter lets through.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tasks(&self, read: Read, filter: TaskFilter) -> Result<Answer<Tasks>, ClientError> {
        let filter = v1::TaskFilter {
            project: filter.project.map(RecordId::to_u64),
            change: filter.change.map(RecordId::to_u64),
            status: filter.status.map(|status| v1::TaskStatus::from(status).into()),
            assignee: filter.assignee,
            text: filter.text,
            limit: filter.limit,
            search: filter.search,
            ready: filter.is_ready,
        };
        self.read(read, Query::Tasks(ask::Tasks { filter: Some(filter) }), |answer| {
            if let Got::Tasks(list) = answer { Some(tasks(list)) } else { None }
        })
        .await
    }

    /// One task.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where it doesn't exist.
    pub async fn task(&self, read: Read, id: RecordId) -> Result<Answer<Task>, ClientError> {
        self.read(read, Query::Task(ask::Task { id: id.to_u64() }), |answer| {
            if let Got::Task(found) = answer { Some(task(*found)) } else { None }
        })
        .await
    }

    /// All versions of a task (of any record), oldest first.
    ///
    /// # Errors
    /// As [`Client::newest_history`].
    pub async fn history(&self, read: Read, id: RecordId) -> Result<Answer<Vec<Version>>, ClientError> {
        self.newest_history(read, id, 0).await
    }

    /// The newest versions of a task (of any record), oldest first, `limit` at most; 0 = all. A long history comes in parts, each of which
    /// may take as long as `read` says.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where there never was one.
    pub async fn newest_history(
        &self,
        read: Read,
        id: RecordId,
        limit: u32,
    ) -> Result<Answer<Vec<Version>>, ClientError> {
        let mut parts = Parts::new(limit);
        loop {
            let query = ask::TaskHistory { id: id.to_u64(), limit: parts.left(), before: parts.before() };
            let part = self.history_part(parts.read(read), Query::TaskHistory(query)).await?;
            if let Some(mut all) = parts.take(part) {
                all.value.reverse();
                return Ok(all);
            }
        }
    }

    /// The newest versions of a change and of everything in it, newest first, `limit` at most; 0 = all. As for
    /// [`Client::newest_history`], they come in parts.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where there never was such a change.
    pub async fn change_history(
        &self,
        read: Read,
        change: RecordId,
        limit: u32,
    ) -> Result<Answer<Vec<Version>>, ClientError> {
        let mut parts = Parts::new(limit);
        loop {
            let query = ask::ChangeHistory { change: change.to_u64(), limit: parts.left(), before: parts.before() };
            let part = self.history_part(parts.read(read), Query::ChangeHistory(query)).await?;
            if let Some(all) = parts.take(part) {
                return Ok(all);
            }
        }
    }

    async fn history_part(&self, read: Read, query: Query) -> Result<Answer<Part>, ClientError> {
        self.read(read, query, |answer| if let Got::History(list) = answer { Some(part(list)) } else { None }).await
    }

    /// Conflicts, oldest first; with `resolved` the closed ones too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn conflicts(
        &self,
        read: Read,
        project: Option<RecordId>,
        change: Option<RecordId>,
        resolved: bool,
    ) -> Result<Answer<Vec<PlacedConflict>>, ClientError> {
        let query =
            ask::Conflicts { project: project.map(RecordId::to_u64), change: change.map(RecordId::to_u64), resolved };
        self.read(read, Query::Conflicts(query), |answer| {
            if let Got::Conflicts(list) = answer {
                Some(list.conflicts.into_iter().map(conflict).collect())
            } else {
                None
            }
        })
        .await
    }

    /// One conflict.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where it doesn't exist.
    pub async fn conflict(&self, read: Read, id: RecordId) -> Result<Answer<PlacedConflict>, ClientError> {
        self.read(read, Query::Conflict(ask::Conflict { id: id.to_u64() }), |answer| {
            if let Got::Conflict(found) = answer { Some(conflict(*found)) } else { None }
        })
        .await
    }

    /// The comments on a task, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `NOT_FOUND` where the task doesn't exist.
    pub async fn comments(&self, read: Read, task: RecordId) -> Result<Answer<Vec<Comment>>, ClientError> {
        self.read(read, Query::Comments(ask::Comments { task: task.to_u64() }), |answer| {
            let Got::Comments(list) = answer else { return None };
            Some(list.comments.into_iter().map(|found| must("comment.record", found.record)?.try_into()).collect())
        })
        .await
    }

    /// All rollback points, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn points(&self, read: Read) -> Result<Answer<Vec<(RecordId, Point)>>, ClientError> {
        self.read(read, Query::Points(ask::Points {}), |answer| {
            let Got::Points(list) = answer else { return None };
            let point =
                |found: v1::Point| Ok((record_id("point.id", found.id)?, must("point.record", found.record)?.into()));
            Some(list.points.into_iter().map(point).collect())
        })
        .await
    }

    /// How much of the history is kept, and where it begins.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retention(&self, read: Read) -> Result<Answer<Retention>, ClientError> {
        self.read(read, Query::Retention(ask::Retention {}), |answer| {
            if let Got::Retention(retention) = answer { Some(retention.try_into()) } else { None }
        })
        .await
    }

    /// The revision that a query with this consistency is true at.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revision(&self, read: Read) -> Result<Revision, ClientError> {
        let got = self.read(read, Query::Digest(ask::Digest {}), |answer| {
            if let Got::Digest(_) = answer { Some(Ok(())) } else { None }
        });
        got.await.map(|answer| answer.revision)
    }

    async fn read<T>(
        &self,
        read: Read,
        query: Query,
        convert: impl FnOnce(Got) -> Option<Result<T, ConvertError>>,
    ) -> Result<Answer<T>, ClientError> {
        let request = v1::QueryRequest {
            consistency: Some(read.consistency.into()),
            at: read.at.map(|revision| revision.0),
            moment: None,
            query: Some(query),
        };
        let response = self.query(request, read.within).await?;
        let converted = response.answer.and_then(convert).unwrap_or(Err(ConvertError::Missing { field: "answer" }));
        let value = converted.map_err(|error| ClientError::convert("the cluster", &error))?;
        Ok(Answer { revision: Revision(response.revision), time: ClusterTime(response.time_ms), value })
    }
}

impl From<Consistency> for v1::Consistency {
    fn from(consistency: Consistency) -> Self {
        use v1::consistency::Kind;
        let kind = match consistency {
            Consistency::Local => Kind::Local(v1::Nothing {}),
            Consistency::AtLeast(revision) => Kind::AtLeast(revision.0),
            Consistency::Linearizable => Kind::Linearizable(v1::Nothing {}),
            Consistency::Lease => Kind::Lease(v1::Nothing {}),
        };
        Self { kind: Some(kind) }
    }
}

fn row<T>(id: u64, version: u64, record: T) -> Result<Row<T>, ConvertError> {
    Ok(Row { id: record_id("id", id)?, version: event_id("version", version)?, record })
}

fn must<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing { field })
}

fn project(found: v1::Project) -> Result<Row<Project>, ConvertError> {
    row(found.id, found.version, must("project.record", found.record)?.try_into()?)
}

fn change(found: v1::Change) -> Result<Row<Option<Change>>, ConvertError> {
    row(found.id, found.version, found.record.map(TryInto::try_into).transpose()?)
}

fn block(found: v1::Block) -> Result<Row<Block>, ConvertError> {
    row(found.id, found.version, must("block.record", found.record)?.try_into()?)
}

fn conflict(found: v1::Conflict) -> Result<PlacedConflict, ConvertError> {
    let row = row(found.id, found.version, must("conflict.record", found.record)?.try_into()?)?;
    Ok(PlacedConflict { row, project_name: found.project_name, change_path: found.change_path })
}

fn document(found: v1::Document) -> Result<Document, ConvertError> {
    let blocks = found.blocks.into_iter().map(block).collect::<Result<_, _>>()?;
    Ok(Document { change: change(must("document.change", found.change)?)?, blocks })
}

fn tasks(list: v1::TaskList) -> Result<Tasks, ConvertError> {
    let tasks = list.tasks.into_iter().map(task).collect::<Result<_, _>>()?;
    Ok(Tasks { tasks, is_truncated: list.truncated })
}

fn task(found: v1::Task) -> Result<Task, ConvertError> {
    Ok(Task {
        block: block(must("task.block", found.block)?)?,
        project: record_id("task.project", found.project)?,
        project_name: found.project_name,
        change_path: found.change_path,
    })
}

fn part(list: v1::History) -> Result<Part, ConvertError> {
    let versions = list.versions.into_iter().map(version).collect::<Result<_, _>>()?;
    Ok(Part { versions, is_more: list.more })
}

fn version(found: v1::Version) -> Result<Version, ConvertError> {
    Ok(Version {
        version: event_id("version", found.version)?,
        provenance: must("provenance", found.provenance)?.try_into()?,
        fact: must("fact", found.fact)?.try_into()?,
        block: found.block.map(TryInto::try_into).transpose()?,
    })
}
