//! Which events a watch is about, and how they are shown.

use std::sync::Arc;

use zyflow_api::convert::record_id;
use zyflow_api::v1::{self, ErrorCode, Event, RecordKind};
use zyflow_api::{ApiError, message_bytes};
use zyflow_machine::event::Fact;
use zyflow_machine::id::{EventId, RecordId};
use zyflow_machine::record::{Kind, Record};
use zyflow_machine::view::{Stored, View};
use zyflow_storage::tables::{Change, Row, TablesError, TablesView};

/// Bytes of the events of one message; the rest of the revision follows in others. Far below what a message may have, as one event
/// may take a mebibyte by itself.
const PART_BYTES_MAX: usize = 256 * 1024;

/// Most types that a watch may name: all there are, several times over.
const TYPES_MAX: usize = 64;

/// What a watch is about; what is absent doesn't restrict.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    project: Option<RecordId>,
    change: Option<RecordId>,
    task: Option<RecordId>,
    types: Vec<String>,
    author: Option<String>,
}

/// What an event belongs to.
#[derive(Default)]
struct Place {
    task: Option<RecordId>,
    change: Option<RecordId>,
    change_path: String,
    project: Option<RecordId>,
    project_name: String,
}

impl Filter {
    pub(crate) fn new(request: &v1::WatchRequest) -> Result<Self, ApiError> {
        let unknown = request.types.iter().find(|name| !Fact::NAMES.contains(&name.as_str()));
        if let Some(name) = unknown {
            let message = format!("no event is of type `{name}`: there are {}", Fact::NAMES.join(", "));
            return Err(ApiError::new(ErrorCode::Invalid, message));
        }
        if request.types.len() > TYPES_MAX {
            return Err(ApiError::new(ErrorCode::Invalid, format!("more than {TYPES_MAX} types: name each once")));
        }
        Ok(Self {
            project: request.project.map(|id| record_id("project", id)).transpose()?,
            change: request.change.map(|id| record_id("change", id)).transpose()?,
            task: request.task.map(|id| record_id("task", id)).transpose()?,
            types: request.types.clone(),
            author: request.author.clone(),
        })
    }

    /// The events of a revision that the watch is about, in order.
    pub(super) fn events(&self, view: &TablesView, change: &Change) -> Result<Vec<Event>, TablesError> {
        let mut events = Vec::new();
        let mut correlation = None;
        let mut before: Option<&Row> = None;
        for row in &change.rows {
            // The rows of one command share who, when and which request: so a command begins where one of them is another.
            let is_same = before.is_some_and(|before| before.provenance == row.provenance);
            let first = correlation.filter(|_| is_same).unwrap_or(row.stored.version);
            correlation = Some(first);
            before = Some(row);
            if !self.says_yes(row) {
                continue;
            }
            let place = Place::of(view, row)?;
            if self.is_here(&place) {
                events.push(event(row, place, first));
            }
        }
        Ok(events)
    }

    /// How many events of a revision the watch is about.
    pub(super) fn count(&self, view: &TablesView, change: &Change) -> Result<usize, TablesError> {
        let mut count = 0;
        for row in change.rows.iter().filter(|row| self.says_yes(row)) {
            count += usize::from(self.is_here(&Place::of(view, row)?));
        }
        Ok(count)
    }

    /// Whether a row is what the filter is about.
    pub(crate) fn wants(&self, view: &TablesView, row: &Row) -> Result<bool, TablesError> {
        let is_open = self.project.or(self.change).or(self.task).is_none();
        Ok(self.says_yes(row) && (is_open || self.is_here(&Place::of(view, row)?)))
    }

    fn says_yes(&self, row: &Row) -> bool {
        (self.types.is_empty() || self.types.iter().any(|name| name == row.fact.name()))
            && self.author.as_ref().is_none_or(|author| *author == row.provenance.author.name)
    }

    fn is_here(&self, place: &Place) -> bool {
        self.project.is_none_or(|wanted| place.project == Some(wanted))
            && self.change.is_none_or(|wanted| place.change == Some(wanted))
            && self.task.is_none_or(|wanted| place.task == Some(wanted))
    }
}

impl Place {
    fn of(view: &TablesView, row: &Row) -> Result<Self, TablesError> {
        let parent = row.stored.parent;
        match row.stored.kind {
            Kind::Project => Self::in_project(view, row.id),
            Kind::Change => Self::in_change(view, row.id),
            Kind::Block => Ok(Self { task: Some(row.id), ..Self::in_change(view, parent)? }),
            Kind::Conflict => {
                let task = match &row.stored.record {
                    Some(Record::Conflict(conflict)) => conflict.block,
                    _ => None,
                };
                Ok(Self { task, ..Self::in_change(view, parent)? })
            }
            Kind::Comment => match view.get(parent)? {
                Some(task) => Ok(Self { task: Some(parent), ..Self::in_change(view, task.parent)? }),
                None => Ok(Self { task: Some(parent), ..Self::default() }),
            },
            Kind::Point | Kind::Retention | Kind::Restore => Ok(Self::default()),
        }
    }

    fn in_change(view: &TablesView, change: RecordId) -> Result<Self, TablesError> {
        let Some(stored) = view.get(change)? else { return Ok(Self { change: Some(change), ..Self::default() }) };
        let change_path = match &stored.record {
            Some(Record::Change(change)) => change.path.clone(),
            _ => String::new(),
        };
        Ok(Self { change: Some(change), change_path, ..Self::in_project(view, stored.parent)? })
    }

    fn in_project(view: &TablesView, project: RecordId) -> Result<Self, TablesError> {
        let stored: Option<Arc<Stored>> = view.get(project)?;
        let project_name = match stored.as_ref().and_then(|stored| stored.record.as_ref()) {
            Some(Record::Project(project)) => project.name.clone(),
            _ => String::new(),
        };
        Ok(Self { project: Some(project), project_name, ..Self::default() })
    }
}

/// The project that a row belongs to.
pub(crate) fn project_of(view: &TablesView, row: &Row) -> Result<Option<RecordId>, TablesError> {
    Ok(Place::of(view, row)?.project)
}

fn event(row: &Row, place: Place, correlation: EventId) -> Event {
    Event {
        id: row.stored.version.to_u64(),
        record: row.id.to_u64(),
        kind: RecordKind::from(row.stored.kind).into(),
        change: place.change.map(RecordId::to_u64),
        project: place.project.map(RecordId::to_u64),
        provenance: Some((*row.provenance).clone().into()),
        fact: Some(row.fact.clone().into()),
        task: place.task.map(RecordId::to_u64),
        r#type: row.fact.name().to_owned(),
        correlation: correlation.to_u64(),
        project_name: place.project_name,
        change_path: place.change_path,
    }
}

/// Events in portions that a message can hold; at least one portion.
pub(super) fn parts(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let more = message_bytes(&event);
        if bytes > 0 && bytes + more > PART_BYTES_MAX {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_revision_goes_in_parts_none_of_which_is_empty() {
        let event = |at: u64| Event { id: at, project_name: "x".repeat(100_000), ..Event::default() };
        let counts: Vec<usize> = parts((0..5).map(event).collect()).iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 2, 1]);
        let huge = Event { project_name: "x".repeat(PART_BYTES_MAX + 1), ..Event::default() };
        assert_eq!(parts(vec![huge.clone(), huge]).len(), 2);
        assert_eq!(parts(vec![event(1)]).len(), 1);
    }

    #[test]
    fn a_type_that_there_isnt_is_refused_with_those_that_there_are() {
        let request = v1::WatchRequest { types: vec!["task-sat".to_owned()], ..v1::WatchRequest::default() };
        let refused = Filter::new(&request).unwrap_err();
        assert!(refused.code == ErrorCode::Invalid && refused.message.contains("task-set"), "{refused}");
    }
}
