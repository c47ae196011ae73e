//! The Query service: reads of the local tables, after as much waiting as the asked consistency needs.

mod history;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use zyflow_api::ApiError;
use zyflow_api::convert::{event_id, record_id};
use zyflow_api::v1::query_server::Query;
use zyflow_api::v1::{self, ErrorCode, consistency, query_request, query_response};
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::record::{Kind, Record, Status as MachineStatus};
use zyflow_machine::view::{Stored, View};
use zyflow_raft::{Consensus, Consistency};
use zyflow_storage::tables::{Tables, TablesView, TaskFilter};

use crate::cache::{Answers, Asked, Levels, Scope, depends_on_clock};
use crate::services::export::ExportStream;
use crate::services::wire::Encoded;
use crate::services::{export, read_error, sql, tables_error};
use history::Part;
use reads::Reads;

/// How long a read waits for its consistency: a few elections.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// Most tasks in one answer.
const TASKS_MAX: usize = 20_000;

/// The service.
#[derive(Clone)]
pub struct QueryService {
    consensus: Consensus,
    reads: Reads,
    answers: Answers,
}

impl QueryService {
    /// Reads `tables`, once `consensus` says that they are fresh enough, or finds what was read in `answers`.
    #[must_use]
    pub fn new(consensus: Consensus, tables: Tables, answers: Answers) -> Self {
        Self { consensus, reads: Reads::new(tables), answers }
    }

    /// The state at that moment, once it is as fresh as asked.
    pub(super) async fn fresh_view(
        &self,
        consistency: Option<&v1::Consistency>,
        at: Option<u64>,
        moment: Option<v1::Moment>,
    ) -> Result<TablesView, ApiError> {
        let kind = consistency.and_then(|consistency| consistency.kind.as_ref());
        let consistency = match kind {
            Some(consistency::Kind::Local(_)) => Consistency::Local,
            Some(consistency::Kind::AtLeast(revision)) => Consistency::AtLeast(Revision(*revision)),
            Some(consistency::Kind::Linearizable(_) | consistency::Kind::Lease(_)) | None => Consistency::Linearizable,
        };
        let deadline = Instant::now() + BARRIER_TIMEOUT;
        self.consensus.read_barrier(consistency, deadline).await.map_err(|error| read_error(&error))?;
        self.reads.view_at(at, moment).await
    }
}

impl QueryService {
    /// Answers a question, encoded.
    ///
    /// # Errors
    /// The question is none, its revision isn't kept, what it asks for isn't there, or the tables can't be read.
    #[expect(clippy::missing_panics_doc, reason = "the query is put into the question just above")]
    pub async fn respond(&self, request: v1::QueryRequest) -> Result<Encoded, ApiError> {
        let is_past = request.at.is_some() || request.moment.is_some();
        let view = self.fresh_view(request.consistency.as_ref(), request.at, request.moment).await?;
        let query =
            request.query.ok_or_else(|| ApiError::new(ErrorCode::Invalid, "the query is empty: say what to read"))?;
        if let query_request::Query::Digest(_) = query {
            return self.reads.digest().await;
        }
        let time = self.reads.clock_at(&view, is_past).await?;
        let revision = view.revision();
        let levels = Levels::of(&query, is_past);
        let question = v1::QueryRequest { query: Some(query), ..v1::QueryRequest::default() };
        let encoded = if levels == Levels::NONE { Vec::new() } else { question.encode_to_vec() };
        let query = question.query.expect("invariant: it was put there just above");
        // What callers may see is the same for all of them, so far. Once it isn't, the scope says which part of it this one may.
        let scope = Scope::All;
        let clock = depends_on_clock(&query).then_some(time);
        let horizon = self.reads.tables.horizon().map_err(|error| tables_error(&error))?;
        let asked = Asked { scope, revision, horizon, clock, query: &encoded, levels };
        let answer = self.answers.find_or(asked, self.reads.answer(view, time, query, is_past)).await?;
        if is_past {
            // The horizon may have passed it meanwhile: then there is no answer, wherever one was found.
            self.reads.tables.view(Some(revision)).map_err(|error| tables_error(&error))?;
        }
        Ok(Encoded { revision, time, answer })
    }
}

#[tonic::async_trait]
impl Query for QueryService {
    /// Only where the service is asked within the process: on the wire see [`super::wire`].
    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        Ok(Response::new(self.respond(request.into_inner()).await?.decode()?))
    }

    type ExportStream = ExportStream;

    async fn export(&self, request: Request<v1::ExportRequest>) -> Result<Response<ExportStream>, Status> {
        Ok(Response::new(export::stream(self, &self.reads.tables, request.into_inner()).await?))
    }

    async fn sql(&self, request: Request<v1::SqlRequest>) -> Result<Response<v1::SqlResponse>, Status> {
        Ok(Response::new(sql::answer(self, request.into_inner()).await?))
    }
}

/// Reads one view and shapes what it finds.
struct Reader<'a> {
    view: &'a TablesView,
    /// What leases are compared with.
    now: ClusterTime,
}

type Found = (RecordId, Arc<Stored>);

impl Reader<'_> {
    fn answer(&self, query: query_request::Query) -> Result<query_response::Answer, ApiError> {
        use query_request::Query as Q;
        use query_response::Answer as A;
        Ok(match query {
            Q::Projects(_) => {
                let found = self.view.projects().map_err(|error| tables_error(&error))?;
                A::Projects(v1::ProjectList { projects: found.iter().filter_map(project).collect() })
            }
            Q::Changes(query) => {
                let parent = record_id("project", query.project)?;
                self.live(parent, Kind::Project, "project")?;
                let found = self.view.changes(parent).map_err(|error| tables_error(&error))?;
                A::Changes(v1::ChangeList { changes: found.iter().map(change).collect() })
            }
            Q::Change(query) => {
                let parent = record_id("project", query.project)?;
                let found = self.view.change_at_path(parent, &query.path).map_err(|error| tables_error(&error))?;
                A::Change(change(&found.ok_or_else(|| not_found("change", &query.path))?))
            }
            Q::Document(query) => A::Document(self.document(record_id("change", query.change)?)?),
            Q::Tasks(query) => A::Tasks(self.tasks(query.filter.unwrap_or_default())?),
            Q::Task(query) => A::Task(Box::new(self.task(record_id("id", query.id)?)?)),
            Q::TaskHistory(query) => A::History(self.history(&query)?),
            Q::ChangeHistory(query) => A::History(self.change_history(&query)?),
            Q::Conflicts(query) => A::Conflicts(self.conflicts(&query)?),
            Q::Conflict(query) => A::Conflict(Box::new(self.conflict(record_id("id", query.id)?)?)),
            Q::Comments(query) => {
                let task = self.live(record_id("task", query.task)?, Kind::Block, "task")?.0;
                let found = self.view.comments(task).map_err(|error| tables_error(&error))?;
                A::Comments(v1::CommentList { comments: found.iter().filter_map(comment).collect() })
            }
            Q::Points(_) => {
                let found = self.view.points().map_err(|error| tables_error(&error))?;
                A::Points(v1::PointList { points: found.iter().filter_map(point).collect() })
            }
            Q::Retention(_) => A::Retention(self.view.retention().map_err(|error| tables_error(&error))?.into()),
            Q::Digest(_) => {
                return Err(ApiError::new(ErrorCode::Invalid, "a digest is of the newest state, without --at"));
            }
        })
    }

    fn live(&self, id: RecordId, kind: Kind, what: &str) -> Result<Found, ApiError> {
        let stored = self.view.get(id).map_err(|error| tables_error(&error))?;
        let stored = stored.filter(|stored| stored.kind == kind && stored.record.is_some());
        Ok((id, stored.ok_or_else(|| not_found(what, &id.to_string()))?))
    }

    fn document(&self, id: RecordId) -> Result<v1::Document, ApiError> {
        let found = self.live(id, Kind::Change, "change")?;
        let blocks = self.view.blocks(id).map_err(|error| tables_error(&error))?;
        Ok(v1::Document { change: Some(change(&found)), blocks: blocks.iter().filter_map(block).collect() })
    }

    fn tasks(&self, filter: v1::TaskFilter) -> Result<v1::TaskList, ApiError> {
        let asked = usize::try_from(filter.limit).unwrap_or(TASKS_MAX);
        let limit = if asked == 0 { TASKS_MAX } else { asked.min(TASKS_MAX) };
        let status = filter.status.map(|_| filter.status().try_into());
        let status: Option<MachineStatus> =
            status.transpose().map_err(|_| ApiError::new(ErrorCode::Invalid, "the filter's status is unknown"))?;
        let filter = TaskFilter {
            project: filter.project.map(|id| record_id("project", id)).transpose()?,
            change: filter.change.map(|id| record_id("change", id)).transpose()?,
            status,
            assignee: filter.assignee,
            text: filter.text,
            search: filter.search,
            ready_at: filter.ready.then_some(self.now),
            limit: Some(limit + 1),
        };
        let mut found = self.view.tasks(&filter).map_err(|error| tables_error(&error))?;
        let is_truncated = found.len() > limit;
        found.truncate(limit);
        let mut names = BTreeMap::new();
        let tasks = found.iter().map(|found| self.with_names(found, &mut names)).collect::<Result<Vec<_>, _>>()?;
        Ok(v1::TaskList { tasks: tasks.into_iter().flatten().collect(), truncated: is_truncated })
    }

    fn task(&self, id: RecordId) -> Result<v1::Task, ApiError> {
        let found = self.live(id, Kind::Block, "task")?;
        let task = self.with_names(&found, &mut BTreeMap::new())?;
        task.filter(|task| {
            task.block.as_ref().and_then(|block| block.record.as_ref()).is_some_and(|block| block.task.is_some())
        })
        .ok_or_else(|| not_found("task", &id.to_string()))
    }

    /// A task with the path of its change and the name of its project; `None` if any of them is gone.
    fn with_names(
        &self,
        found: &Found,
        names: &mut BTreeMap<RecordId, Option<Names>>,
    ) -> Result<Option<v1::Task>, ApiError> {
        let parent = found.1.parent;
        if let std::collections::btree_map::Entry::Vacant(slot) = names.entry(parent) {
            slot.insert(self.names(parent)?);
        }
        let Some(Some(names)) = names.get(&parent) else { return Ok(None) };
        Ok(block(found).map(|block| v1::Task {
            block: Some(block),
            project: names.project.to_u64(),
            project_name: names.project_name.clone(),
            change_path: names.change_path.clone(),
        }))
    }

    fn names(&self, change: RecordId) -> Result<Option<Names>, ApiError> {
        let stored = self.view.get(change).map_err(|error| tables_error(&error))?;
        let Some(Record::Change(change)) = stored.and_then(|stored| stored.record.clone()) else { return Ok(None) };
        let stored = self.view.get(change.project).map_err(|error| tables_error(&error))?;
        let Some(Record::Project(project)) = stored.and_then(|stored| stored.record.clone()) else { return Ok(None) };
        Ok(Some(Names { project: change.project, project_name: project.name, change_path: change.path }))
    }

    fn history(&self, query: &query_request::TaskHistory) -> Result<v1::History, ApiError> {
        let id = record_id("id", query.id)?;
        let before = query.before.map(|before| event_id("before", before)).transpose()?;
        let mut part = Part::new(query.limit);
        self.view.walk_history(id, before, |version| part.take(version)).map_err(|error| tables_error(&error))?;
        if part.is_empty() && before.is_none() {
            return Err(not_found("task", &id.to_string()));
        }
        Ok(part.oldest_first())
    }

    fn change_history(&self, query: &query_request::ChangeHistory) -> Result<v1::History, ApiError> {
        let change = record_id("change", query.change)?;
        let before = query.before.map(|before| event_id("before", before)).transpose()?;
        let stored = self.view.get(change).map_err(|error| tables_error(&error))?;
        if stored.is_none_or(|stored| stored.kind != Kind::Change) {
            return Err(not_found("change", &change.to_string()));
        }
        let mut part = Part::new(query.limit);
        let walked = self.view.walk_change_history(change, before, |version| part.take(version));
        walked.map_err(|error| tables_error(&error))?;
        Ok(part.newest_first())
    }

    fn conflicts(&self, query: &query_request::Conflicts) -> Result<v1::ConflictList, ApiError> {
        let changes = match (query.change, query.project) {
            (Some(change), _) => vec![record_id("change", change)?],
            (None, Some(project)) => self.change_ids(record_id("project", project)?)?,
            (None, None) => {
                let projects = self.view.projects().map_err(|error| tables_error(&error))?;
                let ids: Result<Vec<_>, _> = projects.iter().map(|(id, _)| self.change_ids(*id)).collect();
                ids?.concat()
            }
        };
        let mut conflicts = Vec::new();
        for change in changes {
            let found = self.view.conflicts(change).map_err(|error| tables_error(&error))?;
            let mut wanted = found.iter().filter(|(_, stored)| match &stored.record {
                Some(Record::Conflict(conflict)) => query.resolved || conflict.settled.is_none(),
                _ => false,
            });
            if let Some(first) = wanted.next() {
                let names = self.names(change)?;
                let all = std::iter::once(first).chain(wanted);
                conflicts.extend(all.filter_map(|found| shown_conflict(found, names.as_ref())));
            }
        }
        conflicts.sort_unstable_by_key(|conflict| conflict.id);
        Ok(v1::ConflictList { conflicts })
    }

    fn conflict(&self, id: RecordId) -> Result<v1::Conflict, ApiError> {
        let found = self.live(id, Kind::Conflict, "conflict")?;
        let names = self.names(found.1.parent)?;
        shown_conflict(&found, names.as_ref()).ok_or_else(|| not_found("conflict", &id.to_string()))
    }

    fn change_ids(&self, project: RecordId) -> Result<Vec<RecordId>, ApiError> {
        let changes = self.view.changes(project).map_err(|error| tables_error(&error))?;
        Ok(changes.into_iter().map(|(id, _)| id).collect())
    }
}

struct Names {
    project: RecordId,
    project_name: String,
    change_path: String,
}

fn not_found(what: &str, which: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("{what} `{which}` doesn't exist at this revision; list what there is"))
}

fn project((id, stored): &Found) -> Option<v1::Project> {
    match &stored.record {
        Some(Record::Project(project)) => Some(v1::Project {
            id: id.to_u64(),
            version: stored.version.to_u64(),
            record: Some(project.clone().into()),
        }),
        _ => None,
    }
}

fn change((id, stored): &Found) -> v1::Change {
    let record = match &stored.record {
        Some(Record::Change(change)) => Some(change.clone().into()),
        _ => None,
    };
    v1::Change { id: id.to_u64(), version: stored.version.to_u64(), record }
}

fn block((id, stored): &Found) -> Option<v1::Block> {
    match &stored.record {
        Some(Record::Block(block)) => {
            Some(v1::Block { id: id.to_u64(), version: stored.version.to_u64(), record: Some(block.clone().into()) })
        }
        _ => None,
    }
}

fn shown_conflict((id, stored): &Found, names: Option<&Names>) -> Option<v1::Conflict> {
    match &stored.record {
        Some(Record::Conflict(conflict)) => Some(v1::Conflict {
            id: id.to_u64(),
            version: stored.version.to_u64(),
            record: Some(conflict.clone().into()),
            project_name: names.map(|names| names.project_name.clone()).unwrap_or_default(),
            change_path: names.map(|names| names.change_path.clone()).unwrap_or_default(),
        }),
        _ => None,
    }
}

fn comment((id, stored): &Found) -> Option<v1::Comment> {
    match &stored.record {
        Some(Record::Comment(comment)) => Some(v1::Comment { id: id.to_u64(), record: Some(comment.clone().into()) }),
        _ => None,
    }
}

fn point((id, stored): &Found) -> Option<v1::Point> {
    match &stored.record {
        Some(Record::Point(point)) => Some(v1::Point { id: id.to_u64(), record: Some(point.clone().into()) }),
        _ => None,
    }
}
