//! Export of the Query service: all rows of the documented views at one revision, in messages that wait for a slow caller.
//!
//! ```text
//!   view at one revision ─▶ rows, one change in memory at a time ─▶ messages of some 256 KiB ─▶ a short queue ─▶ caller
//! ```
//! Nothing of it touches this node's disk, where there is no text in clear. Whoever asks writes the file.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zyflow_api::ApiError;
use zyflow_api::v1::export_response::{Begin, Column, End, Item, Rows, Table};
use zyflow_api::v1::{self, ErrorCode};
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_storage::tables::{ExportTable, SqlValue, Tables, TablesView};

use super::query::QueryService;
use super::sql::{sql_error, value_of};
use super::tables_error;

/// Exports at once: each takes a thread, and reads everything.
const EXPORTS_MAX: usize = 1;

/// Messages that wait for a slow caller; then reading waits too.
const WAITING_MAX: usize = 8;

/// A caller that takes nothing for so long is given up, as one of a backup is: the next one waits for its turn.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of a message, about: one row may be larger.
const MESSAGE_BYTES: usize = 256 << 10;

static EXPORTS: Semaphore = Semaphore::const_new(EXPORTS_MAX);

type Answer = Result<v1::ExportResponse, Status>;

/// What the service answers with.
pub type ExportStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

pub(super) async fn stream(
    service: &QueryService,
    tables: &Tables,
    request: v1::ExportRequest,
) -> Result<ExportStream, ApiError> {
    let view = service.fresh_view(request.consistency.as_ref(), None, request.moment).await?;
    let busy = |_| ApiError::new(ErrorCode::Overloaded, "this node exports already: wait, or ask another one");
    let turn = EXPORTS.try_acquire().map_err(busy)?;
    let (tx, rx) = mpsc::channel(WAITING_MAX);
    let tables = tables.clone();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let caller = Caller { tx, runtime: Handle::current(), within: TAKEN_WITHIN };
        if let Err(error) = send(&tables, &view, &caller) {
            // Whoever asked may have gone.
            caller.is_taking(Err(error.into()));
        }
    });
    Ok(Box::pin(ReceiverStream::new(rx)))
}

fn send(tables: &Tables, view: &TablesView, caller: &Caller) -> Result<(), ApiError> {
    let revision = view.revision();
    let all = ExportTable::all();
    let mut sender =
        Sender { caller, pending: Rows::default(), bytes: 0, counts: vec![0; all.len()], hasher: Sha256::new() };
    let time = tables.time_at(revision).map_err(|error| tables_error(&error))?.unwrap_or_default();
    sender.send(Item::Begin(begin(revision, time, &all)));
    view.export(|table, values| sender.row(table, values)).map_err(|error| sql_error(&error))?;
    // The horizon may have passed the revision meanwhile: then what was read isn't whole.
    tables.view(Some(revision)).map_err(|error| tables_error(&error))?;
    sender.flush();
    let end = End { rows: sender.counts.clone(), sha256: sender.hasher.clone().finalize().to_vec() };
    sender.send(Item::End(end));
    Ok(())
}

fn begin(revision: Revision, time: ClusterTime, all: &[ExportTable]) -> Begin {
    let column = |(name, kind): &(&str, &str)| Column { name: (*name).to_owned(), r#type: (*kind).to_owned() };
    let table = |table: &ExportTable| Table {
        name: table.name.to_owned(),
        columns: table.columns.iter().map(column).collect(),
    };
    Begin { revision: revision.0, time_ms: time.0, tables: all.iter().map(table).collect() }
}

/// Whoever asked.
struct Caller {
    tx: mpsc::Sender<Answer>,
    runtime: Handle,
    within: Duration,
}

impl Caller {
    /// Waits until there is room for a message. `false` = it has gone, or takes nothing.
    fn is_taking(&self, answer: Answer) -> bool {
        let taken = self.runtime.block_on(async { timeout(self.within, self.tx.send(answer)).await });
        matches!(taken, Ok(Ok(())))
    }
}

/// Gathers rows of one table into messages.
struct Sender<'a> {
    caller: &'a Caller,
    pending: Rows,
    bytes: usize,
    counts: Vec<u64>,
    hasher: Sha256,
}

impl Sender<'_> {
    /// `false` = nobody takes it any more.
    fn send(&self, item: Item) -> bool {
        self.caller.is_taking(Ok(v1::ExportResponse { item: Some(item) }))
    }

    fn row(&mut self, table: usize, values: Vec<SqlValue>) -> bool {
        let number = u32::try_from(table).expect("invariant: there are eight tables");
        let is_full = self.bytes >= MESSAGE_BYTES || self.pending.table != number;
        if is_full && !self.flush() {
            return false;
        }
        let row = v1::SqlRow { values: values.into_iter().map(value_of).collect() };
        self.bytes += row.encoded_len();
        self.counts[table] += 1;
        self.pending.table = number;
        self.pending.rows.push(row);
        true
    }

    fn flush(&mut self) -> bool {
        let rows = std::mem::take(&mut self.pending);
        self.bytes = 0;
        if rows.rows.is_empty() {
            return true;
        }
        self.hasher.update(rows.encode_to_vec());
        self.send(Item::Rows(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_takes_nothing_is_given_up() {
        let (tx, mut rx) = mpsc::channel(1);
        let caller = Caller { tx, runtime: Handle::current(), within: Duration::from_millis(20) };
        let message = || Ok(v1::ExportResponse { item: Some(Item::End(End::default())) });
        let sending = tokio::task::spawn_blocking(move || {
            let taken = [caller.is_taking(message()), caller.is_taking(message())];
            (caller, taken)
        });
        let (caller, taken) = sending.await.expect("it comes back");
        assert_eq!(taken, [true, false], "there is room for one");
        assert!(rx.recv().await.is_some());
        let again = tokio::task::spawn_blocking(move || caller.is_taking(message()));
        assert!(again.await.expect("it comes back"), "there is room again");
    }
}
