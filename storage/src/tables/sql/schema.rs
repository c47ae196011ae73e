//! What SQL sees: one table of rows for each kind of record, a view over each that is documented, and what catches writes.
//!
//! ```text
//!   task_rows    filled from the view of one revision; nobody's to change
//!   tasks        what people ask: a view over it, and for writing a temporary one with INSTEAD OF triggers
//!   pending      what the triggers caught, in order
//! ```

/// One table that can be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Projects,
    Changes,
    Blocks,
    Tasks,
    Conflicts,
    Comments,
    Points,
    Versions,
}

impl Source {
    pub(super) const ALL: [Self; 8] = [
        Self::Projects,
        Self::Changes,
        Self::Blocks,
        Self::Tasks,
        Self::Conflicts,
        Self::Comments,
        Self::Points,
        Self::Versions,
    ];

    /// The documented name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Projects => "projects",
            Self::Changes => "changes",
            Self::Blocks => "blocks",
            Self::Tasks => "tasks",
            Self::Conflicts => "conflicts",
            Self::Comments => "comments",
            Self::Points => "points",
            Self::Versions => "versions",
        }
    }

    /// The table below the documented name.
    pub(super) fn table(self) -> String {
        format!("{}_rows", self.name())
    }

    /// Columns with their types, in the order in which they are filled.
    pub(super) fn columns(self) -> &'static str {
        match self {
            Self::Projects => "id TEXT, name TEXT, files TEXT, revision INTEGER",
            Self::Changes => "id TEXT, project TEXT, project_name TEXT, path TEXT, revision INTEGER",
            Self::Blocks => {
                "id TEXT, change TEXT, path TEXT, position INTEGER, kind INTEGER, lead TEXT, mark TEXT, \
                 text TEXT, revision INTEGER"
            }
            Self::Tasks => {
                "id TEXT, project TEXT, change TEXT, path TEXT, position INTEGER, title TEXT, mark TEXT, \
                 status TEXT, assignee TEXT, priority TEXT, due TEXT, labels TEXT, blocked_by TEXT, \
                 requirements TEXT, note TEXT, holder TEXT, held_until_ms INTEGER, revision INTEGER"
            }
            Self::Conflicts => {
                "id TEXT, change TEXT, path TEXT, block TEXT, class TEXT, field TEXT, base TEXT, spec TEXT, \
                 runtime TEXT, author TEXT, settled_at INTEGER, settled_by TEXT, value TEXT, revision INTEGER"
            }
            Self::Comments => "id TEXT, task TEXT, author TEXT, time_ms INTEGER, text TEXT",
            Self::Points => {
                "id TEXT, name TEXT, at INTEGER, note TEXT, author TEXT, time_ms INTEGER, automatic INTEGER"
            }
            Self::Versions => {
                "id TEXT, kind TEXT, parent TEXT, valid_from INTEGER, valid_to INTEGER, deleted INTEGER, \
                 data TEXT, created_by TEXT, created_at_ms INTEGER"
            }
        }
    }
}

/// The tables and the views over them.
pub(super) fn tables() -> String {
    let each = |source: Source| {
        let (table, columns, name) = (source.table(), source.columns(), source.name());
        format!("CREATE TABLE {table} ({columns}) STRICT; CREATE VIEW {name} AS SELECT * FROM {table};")
    };
    Source::ALL.into_iter().map(each).collect()
}

/// Views that can be written to; each hides the one of the same name.
pub(super) const WRITABLE: [&str; 2] = ["tasks", "comments"];

/// The triggers, which alone may write.
pub(super) const TRIGGERS: [&str; 4] = ["task_updated", "task_inserted", "task_deleted", "comment_inserted"];

/// Where the triggers put what they caught.
pub(super) const PENDING: &str = "pending_writes";

/// What the triggers find their row by: without it each row that is written costs a walk over all of them.
pub(super) const WRITES_INDEX: &str = "CREATE UNIQUE INDEX tasks_by_id ON tasks_rows (id);";

/// What makes the views writable. A value that can't be set is refused where it is, with the reason. Lists are texts: what a JSON function made
/// would else stand in the object as an array.
pub(super) const WRITES: &str = "
    CREATE TEMP TABLE pending_writes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, id TEXT, before TEXT, after TEXT NOT NULL
    ) STRICT;
    CREATE TEMP VIEW tasks AS SELECT * FROM tasks_rows;
    CREATE TEMP VIEW comments AS SELECT * FROM comments_rows;
    CREATE TEMP TRIGGER task_updated INSTEAD OF UPDATE ON tasks BEGIN
        SELECT RAISE(ABORT, 'of a task only title, status, assignee, priority, due, labels, blocked_by and note can be set')
        WHERE (NEW.id, NEW.project, NEW.change, NEW.path, NEW.position, NEW.mark, NEW.requirements, NEW.holder,
               NEW.held_until_ms, NEW.revision)
           IS NOT (OLD.id, OLD.project, OLD.change, OLD.path, OLD.position, OLD.mark, OLD.requirements, OLD.holder,
               OLD.held_until_ms, OLD.revision);
        INSERT INTO pending_writes (verb, id, before, after) VALUES ('update', OLD.id,
            json_object('title', OLD.title, 'status', OLD.status, 'assignee', OLD.assignee, 'priority', OLD.priority,
                'due', OLD.due, 'labels', OLD.labels || '', 'blocked_by', OLD.blocked_by || '', 'note', OLD.note),
            json_object('title', NEW.title, 'status', NEW.status, 'assignee', NEW.assignee, 'priority', NEW.priority,
                'due', NEW.due, 'labels', NEW.labels || '', 'blocked_by', NEW.blocked_by || '', 'note', NEW.note));
        UPDATE tasks_rows SET title = NEW.title, status = NEW.status, assignee = NEW.assignee, priority = NEW.priority,
            due = NEW.due, labels = NEW.labels, blocked_by = NEW.blocked_by, note = NEW.note WHERE id = OLD.id;
    END;
    CREATE TEMP TRIGGER task_inserted INSTEAD OF INSERT ON tasks BEGIN
        SELECT RAISE(ABORT, 'a new task has change and title, and may have status, assignee, priority, due, labels and note')
        WHERE NEW.change IS NULL OR NEW.title IS NULL
           OR COALESCE(NEW.id, NEW.project, NEW.path, NEW.position, NEW.mark, NEW.blocked_by, NEW.requirements, NEW.holder,
               NEW.held_until_ms, NEW.revision) IS NOT NULL;
        INSERT INTO pending_writes (verb, id, after) VALUES ('insert', NEW.change,
            json_object('title', NEW.title, 'status', NEW.status, 'assignee', NEW.assignee, 'priority', NEW.priority,
                'due', NEW.due, 'labels', NEW.labels || '', 'note', NEW.note));
    END;
    CREATE TEMP TRIGGER task_deleted INSTEAD OF DELETE ON tasks BEGIN
        INSERT INTO pending_writes (verb, id, after) VALUES ('delete', OLD.id, '{}');
        DELETE FROM tasks_rows WHERE id = OLD.id;
    END;
    CREATE TEMP TRIGGER comment_inserted INSTEAD OF INSERT ON comments BEGIN
        SELECT RAISE(ABORT, 'a new comment has task and text, and nothing else')
        WHERE NEW.task IS NULL OR NEW.text IS NULL OR COALESCE(NEW.id, NEW.author, NEW.time_ms) IS NOT NULL;
        INSERT INTO pending_writes (verb, id, after) VALUES ('comment', NEW.task, json_object('text', NEW.text));
    END;
";
