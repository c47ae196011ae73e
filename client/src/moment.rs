//! Moments: a revision, a time of the cluster's clock, or a rollback point; how they are written, and which revision they are.
//!
//! ```text
//!   128                          a revision
//!   2026-11-26T14:00:00Z         a time (without an offset: by this machine's time zone)
//!   10m   2h30m   3d             so long ago
//!   before-release   point:10m   a rollback point; `point:` where its name could be something else
//! ```

use crate::client::Client;
use crate::error::ClientError;
use crate::read::Read;
use jiff::civil::DateTime;
use jiff::{Span, Timestamp, Zoned};
use v1::query_request::{self as ask, Query};
use zyflow_api::v1;
use zyflow_machine::id::{ClusterTime, Revision};

/// A place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This revision.
    Revision(Revision),
    /// The newest revision none of whose events is later.
    Time(ClusterTime),
    /// The revision that the rollback point of this name names.
    Point(String),
}

/// A text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no moment: write a revision (128), a time (2026-11-26T14:00:00Z), so long ago (10m, 2h, 3d) or a rollback point"
)]
pub struct ParseMomentError(pub String);

impl Moment {
    /// What `text` means at the time `now`.
    ///
    /// # Errors
    /// Where it is empty, a point without a name, or a time that no calendar has.
    pub fn parse(text: &str, now: &Zoned) -> Result<Self, ParseMomentError> {
        let wrong = || ParseMomentError(text.to_owned());
        if let Some(name) = text.strip_prefix("point:") {
            return if name.is_empty() { Err(wrong()) } else { Ok(Self::Point(name.to_owned())) };
        }
        let begins_with_digit = text.starts_with(|first: char| first.is_ascii_digit());
        if !begins_with_digit {
            return if text.trim().is_empty() { Err(wrong()) } else { Ok(Self::Point(text.to_owned())) };
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(|revision| Self::Revision(Revision(revision))).map_err(|_| wrong());
        }
        if let Ok(span) = text.parse::<Span>() {
            let then = now.checked_sub(span.abs()).map_err(|_| wrong())?;
            return time(then.timestamp()).ok_or_else(wrong);
        }
        if let Ok(then) = text.parse::<Timestamp>() {
            return time(then).ok_or_else(wrong);
        }
        match text.parse::<DateTime>() {
            Ok(then) => {
                let zoned = then.to_zoned(now.time_zone().clone()).map_err(|_| wrong())?;
                time(zoned.timestamp()).ok_or_else(wrong)
            }
            Err(_) => Ok(Self::Point(text.to_owned())),
        }
    }
}

fn time(then: Timestamp) -> Option<Moment> {
    u64::try_from(then.as_millisecond()).ok().map(|millis| Moment::Time(ClusterTime(millis)))
}

impl From<Moment> for v1::Moment {
    fn from(moment: Moment) -> Self {
        use v1::moment::Moment as Kind;
        let moment = match moment {
            Moment::Revision(revision) => Kind::Revision(revision.0),
            Moment::Time(time) => Kind::TimeMs(time.0),
            Moment::Point(name) => Kind::Point(name),
        };
        Self { moment: Some(moment) }
    }
}

impl Client {
    /// The revision that a moment is, as a node answers it: several reads pinned to it see one state. A revision that is still to come
    /// is an error, as is one that isn't kept any more.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `REVISION` where nothing is kept of it or it lies in the future, `NOT_FOUND` where there is no
    /// such point.
    pub async fn pin(&self, read: Read, moment: Moment) -> Result<Revision, ClientError> {
        let request = v1::QueryRequest {
            consistency: Some(read.consistency.into()),
            at: None,
            moment: Some(moment.into()),
            query: Some(Query::Points(ask::Points {})),
        };
        self.query(request, read.within).await.map(|answer| Revision(answer.revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Moment, ParseMomentError> {
        let now: Zoned = "2026-11-26T14:00:00+01:00[Europe/Berlin]".parse().unwrap();
        Moment::parse(text, &now)
    }

    fn at(text: &str) -> Moment {
        time(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn moments_are_revisions_times_spans_and_points() {
        let written = [
            ("128", Moment::Revision(Revision(128))),
            ("2026-11-26T10:00:00Z", at("2026-11-26T10:00:00Z")),
            ("2026-11-26T10:00:00.25+02:00", at("2026-11-26T08:00:00.25Z")),
            ("2026-11-26T10:00", at("2026-11-26T09:00:00Z")),
            ("2026-11-26", at("2026-11-25T23:00:00Z")),
            ("10m", at("2026-11-26T12:50:00Z")),
            ("2h30m", at("2026-11-26T10:30:00Z")),
            ("3d", at("2026-11-23T13:00:00Z")),
            ("10m ago", at("2026-11-26T12:50:00Z")),
            ("before-release", Moment::Point("before-release".to_owned())),
            ("1.0-beta", Moment::Point("1.0-beta".to_owned())),
            ("point:10m", Moment::Point("10m".to_owned())),
        ];
        for (text, moment) in written {
            assert_eq!(parsed(text), Ok(moment), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_with_the_ways_to_write_one() {
        for bad in ["", " ", "point:", "99999999999999999999", "1900-01-01T00:00:00Z", "9000y"] {
            let refused = parsed(bad).unwrap_err().to_string();
            assert!(refused.contains("rollback point"), "{bad}: {refused}");
        }
    }
}
