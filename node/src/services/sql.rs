//! SQL of the Query service: limits, and a thread of its own for each script.
//!
//! A script holds its turn until its thread ends, and not only as long as somebody waits for it; whoever stops waiting ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use zyflow_api::convert::part;
use zyflow_api::v1::{self, ErrorCode, sql_value};
use zyflow_api::{ApiError, MESSAGE_BYTES_MAX};
use zyflow_storage::tables::{SqlError, SqlLimits, SqlRows, SqlValue};

use super::query::QueryService;
use super::tables_error;
use crate::cluster::wall_clock_ms;

/// Scripts at once: each takes a thread, and the memory of the tables that it reads.
const SCRIPTS_MAX: usize = 2;

/// Longest that a script may run, as whoever asks waits for it.
const TIME_MAX: Duration = Duration::from_mins(1);

/// How long it may run where nobody says.
const TIME_DEFAULT: Duration = Duration::from_secs(10);

/// Rows of an answer, where nobody says less.
const ROWS_MAX: usize = 100_000;

/// Bytes of the tables that one script may read: a million tasks.
const READ_BYTES_MAX: usize = 1 << 30;

/// Bytes that one script may take besides: what it sorts, and intermediate tables. With the tables of two scripts a node needs 3 GiB at the most,
/// as what one takes counts for the other too.
const MEMORY_BYTES_MAX: usize = 512 << 20;

static SCRIPTS: Semaphore = Semaphore::const_new(SCRIPTS_MAX);

pub(super) async fn answer(service: &QueryService, request: v1::SqlRequest) -> Result<v1::SqlResponse, ApiError> {
    let is_past = request.at.is_some() || request.moment.is_some();
    let view = service.fresh_view(request.consistency.as_ref(), request.at, request.moment).await?;
    let millis = u64::from(request.millis_max);
    let rows = usize::try_from(request.rows_max).unwrap_or(ROWS_MAX);
    let limits = SqlLimits {
        time: if millis == 0 { TIME_DEFAULT } else { Duration::from_millis(millis).min(TIME_MAX) },
        rows: if rows == 0 { ROWS_MAX } else { rows.min(ROWS_MAX) },
        read_bytes: READ_BYTES_MAX,
        // What it takes on the wire is about as much as in memory.
        answer_bytes: MESSAGE_BYTES_MAX / 2,
        memory_bytes: MEMORY_BYTES_MAX,
    };
    let revision = view.revision().0;
    let script = request.script;
    let answer = in_turn(&SCRIPTS, move |is_unwanted| view.sql(&script, &limits, is_unwanted)).await?;
    let answer = answer.map_err(|error| sql_error(&error))?;
    if is_past && answer.command.is_some() {
        return Err(ApiError::new(ErrorCode::Invalid, "the past can be read and not written: leave --at away"));
    }
    Ok(v1::SqlResponse {
        revision,
        time_ms: wall_clock_ms(),
        results: answer.results.into_iter().map(rows_of).collect(),
        command: answer.command.map(part),
    })
}

/// Runs `work` on a thread, which holds its turn for as long as it runs. What it is given turns true when nobody waits for it any more.
async fn in_turn<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce(&Arc<AtomicBool>) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let Ok(turn) = turns.try_acquire() else {
        let why = format!("{SCRIPTS_MAX} SQL scripts run on this node already: wait for one, or ask another node");
        return Err(ApiError::new(ErrorCode::Overloaded, why));
    };
    let is_unwanted = Arc::new(AtomicBool::new(false));
    let _waiting = Waiting(Arc::clone(&is_unwanted));
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work(&is_unwanted)
    });
    done.await.map_err(|error| ApiError::new(ErrorCode::NodeFailed, format!("the script's thread failed: {error}")))
}

/// Somebody waits. Dropped with the call, also where that was cancelled.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn sql_error(error: &SqlError) -> ApiError {
    let code = match error {
        SqlError::Tables(error) => return tables_error(error),
        SqlError::OverTime => ErrorCode::Deadline,
        SqlError::Ended => ErrorCode::Stopping,
        SqlError::Refused(_)
        | SqlError::Wrong(_)
        | SqlError::TooMuchMemory
        | SqlError::TooMuchToRead
        | SqlError::TooMuchToAnswer => ErrorCode::Invalid,
        SqlError::Internal(source) => {
            return ApiError::new(ErrorCode::NodeFailed, format!("{error}: {source}"));
        }
    };
    ApiError::new(code, error.to_string())
}

fn rows_of(rows: SqlRows) -> v1::SqlRows {
    let row = |values: Vec<SqlValue>| v1::SqlRow { values: values.into_iter().map(value_of).collect() };
    v1::SqlRows { columns: rows.columns, rows: rows.rows.into_iter().map(row).collect(), cut: rows.is_cut }
}

pub(super) fn value_of(value: SqlValue) -> v1::SqlValue {
    let value = match value {
        SqlValue::Null => sql_value::Value::Null(v1::Nothing {}),
        SqlValue::Integer(number) => sql_value::Value::Integer(number),
        SqlValue::Real(number) => sql_value::Value::Real(number),
        SqlValue::Text(text) => sql_value::Value::Text(text),
        SqlValue::Blob(bytes) => sql_value::Value::Blob(bytes),
    };
    v1::SqlValue { value: Some(value) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    static TURNS: Semaphore = Semaphore::const_new(1);

    #[tokio::test]
    async fn a_call_that_is_cancelled_ends_its_script_and_holds_the_turn_until_then() {
        let (begun, has_begun) = oneshot::channel();
        let (may_end, ending) = mpsc::channel::<()>();
        let work = move |is_unwanted: &Arc<AtomicBool>| {
            begun.send(()).expect("the test waits");
            while !is_unwanted.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            ending.recv().expect("the test lets it end");
        };
        let call = tokio::spawn(in_turn(&TURNS, work));
        has_begun.await.expect("the thread runs");
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
        let refused = in_turn(&TURNS, |_| ()).await.expect_err("its thread still runs");
        assert_eq!(refused.code, ErrorCode::Overloaded);
        may_end.send(()).expect("the script has seen that nobody waits");
        let next = TURNS.acquire().await;
        assert!(next.is_ok(), "with the thread the turn ends");
    }
}
