//! `zyflow sql`: ask the state in SQL; what a script writes is one command.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};
use zyflow_api::convert::body_of;
use zyflow_api::v1::{self, sql_value};
use zyflow_machine::id::Revision;

use super::args::Format;
use super::context::Context;
use super::render;
use super::report::{Failure, Output, Report};
use crate::ClientError;
use crate::code::Code;
use crate::export::{ExportError, export};

/// Most bytes of a script: nobody writes more by hand. A longer one is refused whole, as the first part alone could mean something else.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// One or more statements [default: read from --file, or from stdin].
    query: Option<String>,
    /// Read the statements from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,
    /// Most rows of each answer.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    rows: u32,
    /// Write all views to this new SQLite file instead, as plain tables.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["query", "file", "rows"])]
    export: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: SqlArgs) -> Result<Report, Failure> {
    if let Some(file) = &args.export {
        return Box::pin(write_file(context, file)).await;
    }
    let script = script(&args)?;
    let client = context.client()?;
    let request = v1::SqlRequest {
        consistency: Some(context.global.consistency.into()),
        at: context.at.map(|revision| revision.0),
        script,
        rows_max: args.rows,
        millis_max: u32::try_from(context.within().as_millis()).unwrap_or(u32::MAX),
        moment: None,
    };
    let response = client.sql(request, context.within()).await?;
    let revision = Revision(response.revision);
    let results: Vec<Table> = response.results.into_iter().map(Table::new).collect();
    let written = match response.command {
        None => None,
        Some(command) => {
            let body = body_of(command).map_err(|error| ClientError::convert("the node", &error))?;
            Some(context.propose(&client, body, "what the script writes").await?)
        }
    };
    Ok(shown(context.global.output, &results, revision, written.as_ref()).into())
}

async fn write_file(context: &Context, file: &Path) -> Result<Report, Failure> {
    let client = context.client()?;
    let at = |revision: Revision| v1::Moment { moment: Some(v1::moment::Moment::Revision(revision.0)) };
    let asked = (context.global.consistency, context.at.map(at));
    let exported = export(&client, asked, file, context.within()).await?;
    let item = json!({
        "file": file.display().to_string(),
        "revision": exported.revision.0,
        "rows": exported.rows,
    });
    Ok(Output::One { item, revision: Some(exported.revision) }.into())
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let message = error.to_string();
        let code = match error {
            ExportError::Client(error) => return error.into(),
            ExportError::Exists(_) => Code::Exists,
            ExportError::File { .. } | ExportError::Sqlite { .. } => Code::File,
            ExportError::NotWhole(_) => Code::Protocol,
        };
        Self::new(code, message)
    }
}

fn script(args: &SqlArgs) -> Result<String, Failure> {
    let failed =
        |what: &str, error: &std::io::Error| Failure::new(Code::File, format!("{what} can't be read: {error}"));
    match (&args.query, &args.file) {
        (Some(query), _) => Ok(query.clone()),
        (None, Some(file)) => {
            whole(std::fs::read_to_string(file).map_err(|error| failed(&file.display().to_string(), &error))?)
        }
        (None, None) if std::io::stdin().is_terminal() => {
            Err(Failure::new(Code::Usage, "there is no query: give one, or --file FILE, or write it to stdin"))
        }
        (None, None) => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text);
            read.map_err(|error| failed("stdin", &error))?;
            whole(text)
        }
    }
}

fn whole(script: String) -> Result<String, Failure> {
    let is_whole = u64::try_from(script.len()).is_ok_and(|bytes| bytes <= SCRIPT_BYTES_MAX);
    let message =
        || format!("the script is longer than {SCRIPT_BYTES_MAX} bytes, and nothing of it was run: divide it");
    if is_whole { Ok(script) } else { Err(Failure::new(Code::Usage, message())) }
}

/// What one statement answered, with a name for each column that no other has.
struct Table {
    columns: Vec<String>,
    items: Vec<Value>,
    is_cut: bool,
}

impl Table {
    fn new(rows: v1::SqlRows) -> Self {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let unique = |name: String| {
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            if *times == 1 { name } else { format!("{name}:{times}") }
        };
        let columns: Vec<String> = rows.columns.into_iter().map(unique).collect();
        let item = |row: v1::SqlRow| {
            let values = row.values.into_iter().map(value);
            Value::Object(columns.iter().cloned().zip(values).collect::<Map<_, _>>())
        };
        let items = rows.rows.into_iter().map(item).collect();
        Self { columns, items, is_cut: rows.cut }
    }
}

fn value(value: v1::SqlValue) -> Value {
    match value.value {
        None | Some(sql_value::Value::Null(_)) => Value::Null,
        Some(sql_value::Value::Integer(number)) => number.into(),
        Some(sql_value::Value::Real(number)) => number.into(),
        Some(sql_value::Value::Text(text)) => text.into(),
        Some(sql_value::Value::Blob(bytes)) => render::hex(&bytes).into(),
    }
}

type Written = (Revision, Vec<zyflow_machine::id::RecordId>);

fn shown(format: Format, results: &[Table], revision: Revision, written: Option<&Written>) -> Output {
    if format == Format::Jsonl {
        let items = results.iter().flat_map(|table| table.items.iter().cloned()).collect();
        return Output::List { columns: &[], items, revision: Some(revision) };
    }
    let mut text = String::new();
    for table in results {
        let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
        text.push_str(&render::table(&columns, &table.items, Some(revision)));
        if table.is_cut {
            text.push_str("(there are more: --rows N shows them)\n");
        }
    }
    if let Some((revision, created)) = written {
        let ids: Vec<String> = created.iter().map(ToString::to_string).collect();
        let new = if ids.is_empty() { String::new() } else { format!(": new {}", ids.join(", ")) };
        text.extend(["written at revision ", &revision.to_string(), &new, "\n"]);
    }
    let tables: Vec<Value> = results
        .iter()
        .map(|table| json!({ "columns": table.columns, "items": table.items, "cut": table.is_cut }))
        .collect();
    let written = written.map(|(revision, created)| {
        let created: Vec<String> = created.iter().map(ToString::to_string).collect();
        json!({ "revision": revision.0, "created": created })
    });
    let value = json!({ "revision": revision.0, "results": tables, "written": written });
    Output::Text { text: text.into_bytes(), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_too_long_is_refused_whole() {
        let most = usize::try_from(SCRIPT_BYTES_MAX).unwrap_or(usize::MAX);
        assert!(whole("x".repeat(most)).is_ok());
        let refused = whole("x".repeat(most + 1)).expect_err("one byte too many");
        assert_eq!(refused.code, Code::Usage);
    }

    #[test]
    fn columns_of_one_name_are_told_apart() {
        let number = |number| v1::SqlValue { value: Some(sql_value::Value::Integer(number)) };
        let rows = vec![v1::SqlRow { values: vec![number(1), number(2)] }];
        let table = Table::new(v1::SqlRows { columns: vec!["n".to_owned(), "n".to_owned()], rows, cut: false });
        assert_eq!(table.columns, ["n", "n:2"]);
        assert_eq!(table.items, [json!({ "n": 1, "n:2": 2 })]);
    }
}
