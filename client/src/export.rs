//! The documented views at one revision as a plain SQLite file, written here from the rows that a node sends.
//!
//! ```text
//!   node: rows ─▶ FILE's folder/.zyflow-*.sqlite ─▶ counted, synced ─▶ renamed to FILE, if nothing is there
//! ```
//! Rows are written as they come, so memory stays small on both sides. A file is whole or isn't there: what ends early is removed.
//! This is the one place of the client that names SQLite.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tonic::Streaming;
use v1::export_response::{Begin, End, Item, Rows};
use v1::sql_value;
use zyflow_api::v1::query_client::QueryClient;
use zyflow_api::{ConvertError, MESSAGE_BYTES_MAX, v1};
use zyflow_machine::id::Revision;

use crate::channel::status_error;
use crate::client::Client;
use crate::error::ClientError;
use crate::read::Consistency;

/// The form of the file, in its table `meta`. Raised when a table or a column changes its meaning.
const FORMAT: u32 = 1;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// All rows are true at this revision.
    pub revision: Revision,
    /// How many rows each table has.
    pub rows: BTreeMap<String, u64>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something is there already.
    #[error("{} is there already, and nothing was written: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// The folder or the file.
    #[error("{} can't be written: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite.
    #[error("{} can't be written: {source}", path.display())]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// What came isn't what was sent, or not all of it.
    #[error("what the node sent isn't whole ({0}), and nothing was written: ask again")]
    NotWhole(&'static str),
}

/// Writes the views as of `moment` (else now) to `file`. Each message may take `within`.
///
/// # Errors
/// See [`ExportError`]; there is no file then.
pub async fn export(
    client: &Client,
    (consistency, moment): (Consistency, Option<v1::Moment>),
    file: &Path,
    within: Duration,
) -> Result<Exported, ExportError> {
    // Before anything is asked for; and once more when it is renamed.
    if file.symlink_metadata().is_ok() {
        return Err(ExportError::Exists(file.to_owned()));
    }
    let failed = |source| ExportError::File { path: file.to_owned(), source };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".zyflow-").suffix(".sqlite").tempfile_in(folder).map_err(failed)?;
    let node = client.preferred();
    let address = client.address(node).to_owned();
    let request = v1::ExportRequest { consistency: Some(consistency.into()), moment };
    let mut asking = QueryClient::new(client.channel(node, 0)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let late = || ClientError::Deadline { waited: within, last: None, may_apply: false };
    let answered = timeout(within, asking.export(request)).await.map_err(|_elapsed| late())?;
    let mut stream = answered.map_err(|status| status_error(&address, &status))?.into_inner();
    let mut writer = None;
    loop {
        match next(&mut stream, &address, within).await? {
            Item::Begin(begin) => writer = Some(Writer::new(beside.path(), file, begin)?),
            Item::Rows(rows) => writer.as_mut().ok_or(ExportError::NotWhole("rows before their tables"))?.rows(rows)?,
            Item::End(end) => {
                let writer = writer.ok_or(ExportError::NotWhole("an end without a beginning"))?;
                let exported = writer.finish(&end, client)?;
                beside.as_file().sync_all().map_err(failed)?;
                beside.persist_noclobber(file).map_err(|error| {
                    let is_there = error.error.kind() == std::io::ErrorKind::AlreadyExists;
                    if is_there { ExportError::Exists(file.to_owned()) } else { failed(error.error) }
                })?;
                return Ok(exported);
            }
        }
    }
}

async fn next(
    stream: &mut Streaming<v1::ExportResponse>,
    address: &str,
    within: Duration,
) -> Result<Item, ExportError> {
    let late = || ClientError::Deadline { waited: within, last: None, may_apply: false };
    let message = timeout(within, stream.message()).await.map_err(|_elapsed| late())?;
    let message = message.map_err(|status| status_error(address, &status))?;
    let message = message.ok_or(ExportError::NotWhole("it ended early"))?;
    let missing = || ClientError::convert(address, &ConvertError::Missing { field: "item" });
    Ok(message.item.ok_or_else(missing)?)
}

/// Writes one file.
struct Writer {
    connection: Connection,
    /// The file as it will be called.
    file: PathBuf,
    begin: Begin,
    inserts: Vec<String>,
    counts: Vec<u64>,
    hasher: Sha256,
}

impl Writer {
    fn new(path: &Path, file: &Path, begin: Begin) -> Result<Self, ExportError> {
        let open = || {
            let connection = Connection::open(path)?;
            // A crash leaves a file that nobody looks at: what counts is synced when it is whole.
            connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")?;
            for table in &begin.tables {
                let columns: Vec<String> = table
                    .columns
                    .iter()
                    .map(|column| format!("{} {}", quoted(&column.name), kind(&column.r#type)))
                    .collect();
                connection.execute_batch(&format!("CREATE TABLE {} ({})", quoted(&table.name), columns.join(", ")))?;
            }
            Ok(connection)
        };
        let connection = open().map_err(|source| ExportError::Sqlite { path: file.to_owned(), source })?;
        let insert = |table: &v1::export_response::Table| {
            let marks = vec!["?"; table.columns.len()].join(", ");
            format!("INSERT INTO {} VALUES ({marks})", quoted(&table.name))
        };
        let inserts = begin.tables.iter().map(insert).collect();
        let counts = vec![0; begin.tables.len()];
        Ok(Self { connection, file: file.to_owned(), begin, inserts, counts, hasher: Sha256::new() })
    }

    fn rows(&mut self, rows: Rows) -> Result<(), ExportError> {
        self.hasher.update(rows.encode_to_vec());
        let table = usize::try_from(rows.table).unwrap_or(usize::MAX);
        let insert = self.inserts.get(table).ok_or(ExportError::NotWhole("rows of a table that there isn't"))?;
        self.counts[table] += u64::try_from(rows.rows.len()).unwrap_or(u64::MAX);
        let put = || {
            let mut statement = self.connection.prepare_cached(insert)?;
            for row in rows.rows {
                statement.execute(params_from_iter(row.values.into_iter().map(value)))?;
            }
            Ok(())
        };
        put().map_err(|source| ExportError::Sqlite { path: self.file.clone(), source })
    }

    fn finish(self, end: &End, client: &Client) -> Result<Exported, ExportError> {
        if end.rows != self.counts {
            return Err(ExportError::NotWhole("rows are missing"));
        }
        if end.sha256 != self.hasher.finalize().to_vec() {
            return Err(ExportError::NotWhole("its checksum differs"));
        }
        let meta = [
            ("format", FORMAT.to_string()),
            ("revision", self.begin.revision.to_string()),
            ("time_ms", self.begin.time_ms.to_string()),
            ("cluster", client.cluster().to_owned()),
            ("release", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let close = |connection: Connection| {
            connection.execute_batch("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")?;
            for (key, value) in meta {
                connection.execute("INSERT INTO meta VALUES (?1, ?2)", [key, &value])?;
            }
            connection.execute_batch("COMMIT")?;
            connection.close().map_err(|(_, error)| error)
        };
        close(self.connection).map_err(|source| ExportError::Sqlite { path: self.file, source })?;
        let names = self.begin.tables.into_iter().map(|table| table.name);
        Ok(Exported { revision: Revision(self.begin.revision), rows: names.zip(self.counts).collect() })
    }
}

/// A name as SQLite takes it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Only the types that are documented.
fn kind(kind: &str) -> &'static str {
    if kind == "INTEGER" { "INTEGER" } else { "TEXT" }
}

fn value(value: v1::SqlValue) -> Value {
    match value.value {
        None | Some(sql_value::Value::Null(_)) => Value::Null,
        Some(sql_value::Value::Integer(number)) => Value::Integer(number),
        Some(sql_value::Value::Real(number)) => Value::Real(number),
        Some(sql_value::Value::Text(text)) => Value::Text(text),
        Some(sql_value::Value::Blob(bytes)) => Value::Blob(bytes),
    }
}
