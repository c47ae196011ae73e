//! All rows of all documented views, one after the other: what a plain SQLite file is made of, elsewhere.
//!
//! Only one change is in memory at a time. Nothing is written here: a node has no text in clear on its disk.

use std::collections::BTreeSet;

use rusqlite::types::Value;

use super::fill::Filler;
use super::schema::Source;
use super::{SqlError, SqlValue};
use crate::tables::view::TablesView;

/// A table of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportTable {
    /// The view's documented name.
    pub name: &'static str,
    /// Names and SQLite types of the columns, in order.
    pub columns: Vec<(&'static str, &'static str)>,
}

impl ExportTable {
    /// All of them, in the order in which [`TablesView::export`] counts them.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "what it asserts holds for every table that there is")]
    pub fn all() -> Vec<Self> {
        let column = |column: &'static str| column.trim().split_once(' ').expect("invariant: a name and a type");
        let table =
            |source: Source| Self { name: source.name(), columns: source.columns().split(',').map(column).collect() };
        Source::ALL.into_iter().map(table).collect()
    }
}

impl TablesView {
    /// Hands each row to `then`, with the number of its table among [`ExportTable::all`]; tables come mixed. `false` ends it.
    ///
    /// # Errors
    /// The state can't be read, or `then` ended it ([`SqlError::Ended`]).
    #[expect(clippy::missing_panics_doc, reason = "what it asserts holds for every table that there is")]
    pub fn export(&self, mut then: impl FnMut(usize, Vec<SqlValue>) -> bool) -> Result<(), SqlError> {
        let wanted: BTreeSet<Source> = Source::ALL.into();
        let mut hand_over = |source: Source, values: Vec<Value>| {
            let table = Source::ALL.iter().position(|other| *other == source);
            let table = table.expect("invariant: all of them are there");
            let go_on = then(table, values.into_iter().map(value).collect());
            if go_on { Ok(()) } else { Err(SqlError::Ended) }
        };
        Filler::new(self, &wanted, &mut hand_over).fill()
    }
}

fn value(value: Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Integer(number) => SqlValue::Integer(number),
        Value::Real(number) => SqlValue::Real(number),
        Value::Text(text) => SqlValue::Text(text),
        Value::Blob(bytes) => SqlValue::Blob(bytes),
    }
}
