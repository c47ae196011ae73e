//! Which revision a moment is: a number, a time of the cluster's clock, or the name of a rollback point.
//!
//! A point is looked up in the newest state: what it names doesn't depend on when it is asked. A time is answered from the
//! events; one that is still to come is refused, since what it means could change until then.

use zyflow_api::ApiError;
use zyflow_api::v1::{self, ErrorCode, moment};
use zyflow_machine::id::{ClusterTime, RecordId, Revision};
use zyflow_machine::record::{Kind, Record};
use zyflow_machine::view::View;
use zyflow_storage::tables::{Tables, TablesView};

use crate::cluster::wall_clock_ms;
use crate::services::tables_error;

/// Names that are suggested for one that isn't there.
const SUGGESTIONS_MAX: usize = 3;

/// How alike a name must be to be suggested, by Jaro and Winkler: two letters swapped in six are, another word isn't.
const LIKENESS_MIN: f64 = 0.8;

/// The state that a query asks for; the newest where it names no moment.
pub(crate) fn view_at(tables: &Tables, at: Option<u64>, moment: Option<v1::Moment>) -> Result<TablesView, ApiError> {
    let at = match (at, moment) {
        (Some(_), Some(_)) => {
            return Err(ApiError::new(ErrorCode::Invalid, "`at` and `moment` both say when: give one of them"));
        }
        (at, None) => at.map(Revision),
        (None, Some(moment)) => Some(revision_of(tables, moment)?),
    };
    tables.view(at).map_err(|error| tables_error(&error))
}

/// The revision that a moment is. A number is taken as it is, also one that is still to come.
pub(crate) fn revision_of(tables: &Tables, moment: v1::Moment) -> Result<Revision, ApiError> {
    match moment.moment {
        Some(moment::Moment::Revision(revision)) => Ok(Revision(revision)),
        Some(moment::Moment::TimeMs(time)) => at_time(tables, ClusterTime(time)),
        Some(moment::Moment::Point(name)) => named(tables, &name),
        None => {
            Err(ApiError::new(ErrorCode::Invalid, "`moment` is empty, or of a kind that this version doesn't know"))
        }
    }
}

fn at_time(tables: &Tables, time: ClusterTime) -> Result<Revision, ApiError> {
    let applied = *tables.applied().borrow();
    let newest = tables.time_at(applied).map_err(|error| tables_error(&error))?;
    let now = ClusterTime(wall_clock_ms()).max(newest.unwrap_or_default());
    if time > now {
        let message = format!(
            "{} lies in the future: the cluster's clock is at {}, the newest revision is {applied}; ask for an earlier time",
            shown(time),
            shown(now)
        );
        return Err(ApiError::new(ErrorCode::Revision, message));
    }
    tables.revision_at(time).map_err(|error| tables_error(&error))
}

fn named(tables: &Tables, name: &str) -> Result<Revision, ApiError> {
    let view = tables.view(None).map_err(|error| tables_error(&error))?;
    let found = view.find(Kind::Point, RecordId::ROOT, name.as_bytes()).map_err(|error| tables_error(&error))?;
    let stored = found.map(|id| view.get(id)).transpose().map_err(|error| tables_error(&error))?.flatten();
    if let Some(Record::Point(point)) = stored.as_ref().and_then(|stored| stored.record.as_ref()) {
        return Ok(point.revision);
    }
    let points = view.points().map_err(|error| tables_error(&error))?;
    let names = points.iter().filter_map(|(_, stored)| match &stored.record {
        Some(Record::Point(point)) => Some(point.name.as_str()),
        _ => None,
    });
    let next = match alike(name, names).as_slice() {
        [] => "`zyflow point list` shows all".to_owned(),
        names => format!("did you mean {}? `zyflow point list` shows all", names.join(", ")),
    };
    Err(ApiError::new(ErrorCode::NotFound, format!("there is no rollback point `{name}`: {next}")))
}

/// Of all names those that may have been meant, the likest first.
fn alike<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> = names
        .map(|known| {
            let other = known.to_lowercase();
            let is_part = !lower.is_empty() && (other.contains(&lower) || lower.contains(&other));
            (if is_part { 1.0 } else { strsim::jaro_winkler(&lower, &other) }, known)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    scored.sort_by(|one, other| other.0.total_cmp(&one.0));
    scored.into_iter().take(SUGGESTIONS_MAX).map(|(_, known)| format!("`{known}`")).collect()
}

/// A time as RFC 3339; the bare number where it is no time that a calendar has.
pub(crate) fn shown(time: ClusterTime) -> String {
    let timestamp = i64::try_from(time.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    timestamp.map_or_else(|| format!("{} ms", time.0), |timestamp| timestamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_have_been_meant_are_suggested() {
        let names = ["before-release", "before-import", "nightly", "v1"];
        let meant = |name| alike(name, names.into_iter());
        assert_eq!(meant("before-relaese"), ["`before-release`", "`before-import`"]);
        assert_eq!(meant("Nightly"), ["`nightly`"]);
        assert_eq!(meant("release"), ["`before-release`"]);
        assert!(meant("something else").is_empty());
        assert!(meant("").is_empty());
    }
}
