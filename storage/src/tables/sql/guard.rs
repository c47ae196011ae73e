//! What a statement may do: read what is documented, write through the triggers, nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::bounds::Bounds;
use super::schema::{PENDING, Source, TRIGGERS, WRITABLE};

/// Why everything else is refused.
const ONLY: &str = "only queries, and INSERT, UPDATE and DELETE on the documented views, can be run here";

/// SELECTs that SQLite makes of one statement, at most: one for each that is written, and one for each that it unites with another. A query
/// by hand has some ten.
const SELECTS_MAX: usize = 10_000;

/// What the statements that were prepared so far touch.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) sources: BTreeSet<Source>,
    pub(super) is_writing: bool,
    /// SELECTs of the statement that is being prepared.
    selects: usize,
    /// What was refused first, in words.
    pub(super) refused: Option<String>,
}

impl Touched {
    /// Why an action isn't allowed; `None` = it is, and is noted.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what SQLite may learn to do is refused too")]
    fn refusal(&mut self, context: &AuthContext<'_>, by_trigger: bool) -> Option<String> {
        match context.action {
            AuthAction::Read { table_name, .. } if table_name == PENDING && !by_trigger => {
                Some(format!("`{PENDING}` is not to be read"))
            }
            AuthAction::Read { table_name, .. } => {
                self.sources.extend(Source::ALL.into_iter().find(|source| source.table() == table_name));
                None
            }
            AuthAction::Function { function_name } if is_dangerous(function_name) => {
                Some(format!("the function {function_name}() can't be called here"))
            }
            // The schema itself: CREATE and DROP.
            AuthAction::Insert { table_name } | AuthAction::Delete { table_name }
                if table_name.starts_with("sqlite_") =>
            {
                Some(ONLY.to_owned())
            }
            AuthAction::Insert { table_name }
            | AuthAction::Delete { table_name }
            | AuthAction::Update { table_name, .. } => {
                self.is_writing |= WRITABLE.contains(&table_name);
                let is_view = WRITABLE.contains(&table_name) && context.database_name == Some("temp");
                (!is_view && !by_trigger)
                    .then(|| format!("`{table_name}` can't be changed: writes go to {}", WRITABLE.join(" and ")))
            }
            AuthAction::Select => {
                self.selects += 1;
                (self.selects > SELECTS_MAX)
                    .then(|| format!("a statement has at most {SELECTS_MAX} subqueries: divide it"))
            }
            AuthAction::Recursive
            | AuthAction::Transaction { .. }
            | AuthAction::Savepoint { .. }
            | AuthAction::Function { .. } => None,
            AuthAction::Pragma { pragma_name, .. } => Some(format!("PRAGMA {pragma_name} can't be used here")),
            AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
                Some("no other database can be attached".to_owned())
            }
            _ => Some(ONLY.to_owned()),
        }
    }
}

/// The watch over one connection.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    touched: Arc<Mutex<Touched>>,
    bounds: Bounds,
}

impl Guard {
    /// Nothing is prepared any more once one of `bounds` is passed: preparing takes time and memory too.
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { touched: Arc::default(), bounds: bounds.clone() }
    }

    /// Asks for every action of every statement that is prepared from now on.
    pub(super) fn set(&self, connection: &Connection) -> rusqlite::Result<()> {
        let guard = self.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| guard.judge(&context)))
    }

    pub(super) fn take(&self) -> Touched {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another statement begins.
    pub(super) fn begin(&self) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).selects = 0;
    }

    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        if self.bounds.check().is_err() {
            return Authorization::Deny;
        }
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let by_trigger = context.accessor.is_some_and(|accessor| TRIGGERS.contains(&accessor));
        let refusal = touched.refusal(context, by_trigger);
        match refusal {
            None => Authorization::Allow,
            Some(why) => {
                touched.refused.get_or_insert(why);
                Authorization::Deny
            }
        }
    }
}

fn is_dangerous(function: &str) -> bool {
    ["load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"]
        .contains(&function.to_ascii_lowercase().as_str())
}
