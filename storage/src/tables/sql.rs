//! SQL over the state at one revision, and writes by SQL as one command.
//!
//! ```text
//!   script ─▶ would SQLite make much more of a statement than was written? Preparing can't be ended.   (growth)
//!          ─▶ prepare every statement, without running one: what does it read, is it allowed?      (guard)
//!          ─▶ fill the tables that it reads, in memory, from a view pinned at the revision            (fill)
//!          ─▶ run the statements; what is written is caught by triggers                            (schema)
//!          ─▶ what was caught becomes one command, for the caller to propose                       (pending)
//! ```
//!
//! The node's own database is sealed and a moment behind, so a script never sees it: each gets a database in memory, which is gone
//! with the answer. Bounded are time, memory, rows, bytes read and bytes answered (`bounds`). Nothing is written anywhere here.

mod bounds;
mod export;
mod fill;
mod growth;
mod guard;
mod pending;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, Connection, Statement, params_from_iter};
use zyflow_machine::command::Body;

use super::error::TablesError;
use super::view::TablesView;
use bounds::Bounds;
use fill::Filler;

pub use export::ExportTable;
use guard::{Guard, Touched};
use schema::Source;

/// Bytes of a row that is filled in. The largest is a version of a conflict: 4 MiB of texts ([`zyflow_machine::limits`]), each byte of which
/// can be six in JSON.
const FILLED_BYTES_MAX: i32 = 32 << 20;

/// Bytes of a value or a row that a script makes: a whole file. Functions such as `instr` take the product of two values' sizes, and SQLite looks
/// at nothing before they are done. Where a larger row was filled in, values may be as large as that one, so that it can be read.
const MADE_BYTES_MAX: i32 = 1 << 20;

/// Bytes of a row besides its texts: ids, numbers, and lengths of all of them.
const ROW_BYTES_SPARE: usize = 4 << 10;

/// Bytes of a pattern of LIKE and GLOB, which take the product of its size and the text's.
const PATTERN_BYTES_MAX: i32 = 1_000;

/// Bytes of a script, as many as `zyflow sql` sends: its words are held in memory while they are counted.
const SCRIPT_BYTES_MAX: usize = 1 << 20;

/// Statements of one script.
const STATEMENTS_MAX: usize = 1_000;

/// What a script may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlLimits {
    /// How long it may take, filling included.
    pub time: Duration,
    /// Rows of each answer; more are cut off and that is said.
    pub rows: usize,
    /// Bytes of all tables that are read.
    pub read_bytes: usize,
    /// Bytes of all answers.
    pub answer_bytes: usize,
    /// Bytes that it may take besides the tables that it reads: what it sorts, joins and answers. Measured by the whole process.
    pub memory_bytes: usize,
}

/// A value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    /// None.
    Null,
    /// A whole number.
    Integer(i64),
    /// Any number.
    Real(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// What one statement answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlRows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<SqlValue>>,
    /// There were more.
    pub is_cut: bool,
}

/// What a script answered.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlAnswer {
    /// One for each statement that has columns.
    pub results: Vec<SqlRows>,
    /// What it wrote, as one command that is yet to be proposed; `None` = nothing.
    pub command: Option<Body>,
}

/// Why a script fails. Nothing was done then.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// It isn't allowed, or makes no sense.
    #[error("{0}")]
    Refused(String),
    /// SQLite says that it is wrong.
    #[error("{0}")]
    Wrong(String),
    /// It took too long.
    #[error("the script took longer than it may: ask for less, or allow more time")]
    OverTime,
    /// It took too much memory.
    #[error(
        "the node's memory grew by more than a script may take: sort, join or select less, or wait until nothing else runs"
    )]
    TooMuchMemory,
    /// Its tables are too large.
    #[error("the tables that the script reads are larger than may be read at once: read fewer of them")]
    TooMuchToRead,
    /// Its answer is too large.
    #[error("the answer is larger than may be sent: select fewer columns or rows")]
    TooMuchToAnswer,
    /// Whoever asked wants no more rows.
    #[error("nobody takes the rows any more")]
    Ended,
    /// The database in memory failed.
    #[error("the database in memory failed")]
    Internal(#[source] rusqlite::Error),
    /// The state can't be read.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

impl TablesView {
    /// Runs a script of one or more statements. The views are `projects`, `changes`, `blocks`, `tasks`, `conflicts`, `comments`, `points` and
    /// `versions`; `tasks` and `comments` can be written to. `is_unwanted` ends it, with [`SqlError::Ended`].
    ///
    /// # Errors
    /// See [`SqlError`].
    pub fn sql(&self, script: &str, limits: &SqlLimits, is_unwanted: &Arc<AtomicBool>) -> Result<SqlAnswer, SqlError> {
        if script.len() > SCRIPT_BYTES_MAX {
            return Err(SqlError::Refused(format!("a script has at most {SCRIPT_BYTES_MAX} bytes: divide it")));
        }
        let bounds = Bounds::new(limits, is_unwanted);
        growth::check(script)?;
        let connection = open()?;
        let guard = Guard::new(&bounds);
        watch(&connection, &guard, &bounds)?;
        each_statement(&connection, script, (&guard, &bounds), |_| Ok(()))?;
        let touched = guard.take();
        let largest = self.fill(&connection, &touched, limits, &bounds)?;
        limit(&connection, largest).map_err(SqlError::Internal)?;
        bounds.measure();
        watch(&connection, &guard, &bounds)?;
        let mut results = Vec::new();
        let mut bytes_left = limits.answer_bytes;
        each_statement(&connection, script, (&guard, &bounds), |statement| {
            let rows = run(statement, (&guard, &bounds), limits.rows, &mut bytes_left)?;
            results.extend(rows);
            Ok(())
        })?;
        unwatch(&connection)?;
        if !connection.is_autocommit() {
            return Err(SqlError::Refused(
                "the script ends within a transaction: end it with COMMIT or ROLLBACK".to_owned(),
            ));
        }
        let command = if touched.is_writing { pending::command(self, &connection, &bounds)? } else { None };
        Ok(SqlAnswer { results, command })
    }

    /// Fills what is read, and gives the bytes of the largest row.
    fn fill(
        &self,
        connection: &Connection,
        touched: &Touched,
        limits: &SqlLimits,
        bounds: &Bounds,
    ) -> Result<usize, SqlError> {
        unwatch(connection)?;
        connection.execute_batch("BEGIN").map_err(SqlError::Internal)?;
        let mut bytes_left = limits.read_bytes;
        let mut largest = 0_usize;
        let mut insert = |source: Source, values: Vec<Value>| {
            let bytes = fill::bytes_of(&values);
            bytes_left = bytes_left.checked_sub(bytes).ok_or(SqlError::TooMuchToRead)?;
            largest = largest.max(bytes);
            bounds.check_time()?;
            let marks = vec!["?"; values.len()].join(", ");
            let insert = format!("INSERT INTO {} VALUES ({marks})", source.table());
            let run = || connection.prepare_cached(&insert)?.execute(params_from_iter(values));
            run().map(|_| ()).map_err(SqlError::Internal)
        };
        Filler::new(self, &touched.sources, &mut insert).fill()?;
        if touched.is_writing {
            connection.execute_batch(schema::WRITES_INDEX).map_err(SqlError::Internal)?;
        }
        connection.execute_batch("COMMIT").map_err(SqlError::Internal)?;
        Ok(largest)
    }
}

/// An empty database with all tables.
fn open() -> Result<Connection, SqlError> {
    let make = || {
        let connection = Connection::open_in_memory()?;
        connection
            .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA journal_mode = MEMORY;")?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, FILLED_BYTES_MAX)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        connection.execute_batch(&schema::tables())?;
        connection.execute_batch(schema::WRITES)?;
        Ok(connection)
    };
    make().map_err(SqlError::Internal)
}

/// What the script's own values may be, once everything is filled in.
fn limit(connection: &Connection, largest: usize) -> rusqlite::Result<()> {
    let filled = i32::try_from(largest.saturating_add(ROW_BYTES_SPARE)).unwrap_or(FILLED_BYTES_MAX);
    let made = filled.clamp(MADE_BYTES_MAX, FILLED_BYTES_MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, made)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX)?;
    Ok(())
}

fn watch(connection: &Connection, guard: &Guard, bounds: &Bounds) -> Result<(), SqlError> {
    guard.set(connection).and_then(|()| bounds.set(connection)).map_err(SqlError::Internal)
}

fn unwatch(connection: &Connection) -> Result<(), SqlError> {
    let none = None::<fn(rusqlite::hooks::AuthContext<'_>) -> rusqlite::hooks::Authorization>;
    connection.authorizer(none).map_err(SqlError::Internal)?;
    connection.progress_handler(0, None::<fn() -> bool>).map_err(SqlError::Internal)
}

/// Prepares each statement of a script after the one before was done with.
fn each_statement(
    connection: &Connection,
    script: &str,
    watched: (&Guard, &Bounds),
    mut then: impl FnMut(&mut Statement<'_>) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let mut batch = Batch::new(connection, script);
    let mut count = 0;
    loop {
        watched.0.begin();
        let next = fallible_next(&mut batch);
        let Some(mut statement) = next.map_err(|error| refused(watched, &error))? else { break };
        watched.1.check()?;
        count += 1;
        if count > STATEMENTS_MAX {
            return Err(SqlError::Refused(format!("a script has at most {STATEMENTS_MAX} statements")));
        }
        if statement.parameter_count() > 0 {
            return Err(SqlError::Refused("a script has no parameters: write the values into it".to_owned()));
        }
        then(&mut statement)?;
    }
    if count == 0 {
        return Err(SqlError::Refused("the script is empty: say what to read".to_owned()));
    }
    Ok(())
}

fn fallible_next<'c>(batch: &mut Batch<'c, '_>) -> rusqlite::Result<Option<Statement<'c>>> {
    use rusqlite::fallible_iterator::FallibleIterator as _;
    batch.next()
}

/// What was passed, else what the guard says where it refused, else what SQLite says.
fn refused((guard, bounds): (&Guard, &Bounds), error: &rusqlite::Error) -> SqlError {
    let passed = bounds.check().err();
    passed.unwrap_or_else(|| guard.take().refused.map_or_else(|| wrong(error), SqlError::Refused))
}

fn wrong(error: &rusqlite::Error) -> SqlError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => SqlError::OverTime,
        Some(rusqlite::ErrorCode::TooBig) => SqlError::TooMuchToAnswer,
        _ => SqlError::Wrong(error.to_string()),
    }
}

/// Runs one statement; `None` = it has no columns.
fn run(
    statement: &mut Statement<'_>,
    watched: (&Guard, &Bounds),
    rows_max: usize,
    bytes_left: &mut usize,
) -> Result<Option<SqlRows>, SqlError> {
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let count = columns.len();
    let mut found = SqlRows { columns, rows: Vec::new(), is_cut: false };
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(|error| refused(watched, &error))? {
        if found.rows.len() == rows_max {
            found.is_cut = true;
            break;
        }
        let mut values = Vec::with_capacity(count);
        for at in 0..count {
            let value = value_of(row.get_ref(at).map_err(SqlError::Internal)?);
            *bytes_left = bytes_left.checked_sub(bytes_of(&value)).ok_or(SqlError::TooMuchToAnswer)?;
            values.push(value);
        }
        found.rows.push(values);
    }
    Ok((count > 0).then_some(found))
}

fn value_of(value: ValueRef<'_>) -> SqlValue {
    match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(number) => SqlValue::Integer(number),
        ValueRef::Real(number) => SqlValue::Real(number),
        ValueRef::Text(bytes) => SqlValue::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_owned()),
    }
}

fn bytes_of(value: &SqlValue) -> usize {
    size_of::<SqlValue>()
        + match value {
            SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => 0,
            SqlValue::Text(text) => text.len(),
            SqlValue::Blob(bytes) => bytes.len(),
        }
}
