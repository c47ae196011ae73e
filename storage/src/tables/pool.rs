//! A bounded number of connections that read one database.
//!
//! Connections are opened when first needed. Waiting for one has no time limit: each is held for one read, never across
//! an `.await`. Deliberately not here: which database; a replaced one gets a pool of its own.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::error::TablesError;
use super::schema;

/// Read-only connections to one database.
pub(crate) struct Pool {
    path: PathBuf,
    open_max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
}

/// A connection for one read; goes back to the pool when dropped.
pub(crate) struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    pub(crate) fn new(path: &Path, open_max: usize) -> Self {
        let state = Mutex::new(State::default());
        Self { path: path.to_owned(), open_max: open_max.max(1), state, freed: Condvar::new() }
    }

    /// A connection, as soon as one is free.
    pub(crate) fn lease(&self) -> Result<Lease<'_>, TablesError> {
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(Lease { pool: self, connection: Some(connection) });
            }
            if state.open < self.open_max {
                state.open += 1;
                break;
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Counted before it is open, so that a failure must be counted back: the lease's drop does.
        let mut lease = Lease { pool: self, connection: None };
        lease.connection = Some(schema::open_reader(&self.path)?);
        Ok(lease)
    }

    /// Nothing under this lock can panic half-way, so a poisoned one holds a good state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("invariant: there from lease() to drop")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.connection.take() {
            // A read that was left in the middle of a transaction would pin the WAL for ever.
            Some(connection) if connection.is_autocommit() => state.idle.push(connection),
            Some(_) | None => state.open -= 1,
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}
