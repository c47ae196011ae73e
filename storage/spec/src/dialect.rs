//! Which convention a file follows, and how far its tasks are.
//!
//! All dialects are read and written by the same lossless parser, so what is a task never depends on the dialect. It decides what marks
//! mean and which words about a task are read as fields. All that is data: `rules` has one row for each dialect, put together from the groups
//! of `fields`; `detect` tells the dialect of a file.

mod detect;
pub(crate) mod fields;
pub(crate) mod rules;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::block::BlockKind;
use crate::parse::Document;

pub(crate) use detect::others;
pub use detect::{detect, is_archived};
use rules::{DIALECTS, rules_of};

/// A convention for task files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `openspec/changes/<id>/tasks.md`: `## 1. Group`, `- [ ] 1.1 text`.
    Openspec,
    /// `specs/<n>/tasks.md`: `## Phase 1: ...`, `- [ ] T012 [P] [US1] text`.
    SpecKit,
    /// `.kiro/specs/<n>/tasks.md`: `- [ ] 1. text`, `_Requirements: 1.1_`; also cc-sdd.
    Kiro,
    /// `.spec-workflow/specs/<n>/tasks.md`: as Kiro with `_Leverage:_` and `_Prompt:_`.
    SpecWorkflow,
    /// `kitty-specs/<n>/tasks.md`: `## Work Package WP01`, `- [ ] T001 text`.
    SpecKitty,
    /// `.agent-os/specs/<d>/tasks.md`.
    AgentOs,
    /// `.moai/specs/SPEC-X/*.md`.
    Moai,
    /// Status words in the first bracket: `- [TODO][P1] T-F001-01 text`.
    LeeSpecKit,
    /// `.context/TASKS.md`: `#in-progress`, `#priority:high`.
    Ctx,
    /// Emoji fields: `- [ ] text 📅 2026-01-02`.
    ObsidianTasks,
    /// Front matter `kanban-plugin`, columns as headings.
    ObsidianKanban,
    /// `TODO.md` with columns as `###`.
    TodoMd,
    /// `backlog/tasks/*.md`: one task per file, front matter.
    BacklogMd,
    /// Tasks in the rows of pipe tables.
    Table,
    /// Any other file with checkboxes.
    Checklist,
    /// No tasks that we can tell.
    Prose,
    /// The to-do lists of Continue.dev: `- [*] text` is in progress, `- [~] text` is cancelled.
    Continue,
}

impl Dialect {
    /// The dialect's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        rules_of(self).name
    }

    /// All dialects.
    pub fn all() -> impl Iterator<Item = Self> {
        DIALECTS.iter().map(|rules| rules.dialect)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A name that no dialect has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no dialect is called {name:?}; there are {}", known_names())]
pub struct UnknownDialect {
    /// The name asked for.
    pub name: String,
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        let found = Self::all().find(|dialect| dialect.as_str() == name);
        found.ok_or_else(|| UnknownDialect { name: name.to_owned() })
    }
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The convention that the file follows.
    pub dialect: Dialect,
    /// How many tasks there are.
    pub tasks: usize,
    /// How many of them are ticked.
    pub done: usize,
}

/// Counts the tasks and tells the dialect; the path within the project helps when it is known.
#[must_use]
pub fn summarize(document: &Document, path: Option<&str>) -> Summary {
    let tasks = || document.blocks.iter().filter(|block| block.kind == BlockKind::Task);
    Summary {
        dialect: detect(document, path),
        tasks: tasks().count(),
        done: tasks().filter(|task| task.is_done()).count(),
    }
}

fn known_names() -> String {
    Dialect::all().map(Dialect::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test should panic")]
mod tests {
    use super::*;
    use crate::parse;
    use expect_test::{Expect, expect};
    use std::collections::BTreeSet;

    fn check(path: Option<&str>, text: &str, expected: &Expect) {
        let summary = summarize(&parse(text), path);
        expected.assert_eq(&format!("{} {}/{}", summary.dialect, summary.done, summary.tasks));
    }

    #[test]
    fn paths_settle_the_dialect() {
        for (path, name) in [
            ("openspec/changes/add-log/tasks.md", "openspec"),
            ("packages/a/openspec/changes/archive/2026-01-02-b/tasks.md", "openspec"),
            ("specs/001-login/tasks.md", "spec-kit"),
            (".kiro/specs/login/tasks.md", "kiro"),
            (".spec-workflow/specs/login/tasks.md", "spec-workflow"),
            ("kitty-specs/001/tasks.md", "spec-kitty"),
            (".agent-os\\specs\\d\\tasks.md", "agent-os"),
            (".context/TASKS.md", "ctx"),
            ("backlog/completed/task-1 - a.md", "backlog-md"),
            (".continue/todos.md", "continue"),
        ] {
            assert_eq!(summarize(&parse(""), Some(path)).dialect.as_str(), name, "{path}");
        }
    }

    #[test]
    fn content_tells_the_dialect() {
        check(None, "## 1. Base\n- [x] 1.1 one\n- [ ] 1.2 two\n", &expect!["openspec 1/2"]);
        check(None, "## Phase 1: Setup\n- [X] T001 [P] one in src/a.rs\n", &expect!["spec-kit 1/1"]);
        check(None, "# Implementation Plan\n- [-] 1. one\n  - _Requirements: 1.1_\n", &expect!["kiro 0/1"]);
        check(None, "- [ ] 1. one\n  - _Leverage: a_\n  - _Requirements: 1.1_\n", &expect!["spec-workflow 0/1"]);
        check(None, "- [TODO][P1] T-F001-01 one\n- [DONE] T-F001-02 two\n", &expect!["lee-spec-kit 1/2"]);
        check(None, "---\nkanban-plugin: board\n---\n## Doing\n- [ ] one\n", &expect!["obsidian-kanban 0/1"]);
        check(None, "- [ ] one 📅 2026-01-02\n", &expect!["obsidian-tasks 0/1"]);
        check(None, "- [x] one\n* [ ] two\n", &expect!["checklist 1/2"]);
        check(None, "| Work | Status |\n|---|---|\n| c | ✅ |\n", &expect!["table 1/1"]);
        check(None, "| a | b |\n|---|---|\n| c | ✅ |\n", &expect!["prose 0/0"]);
        check(None, "### Done ✓\n- [x] one\n", &expect!["todo-md 1/1"]);
        check(None, "- [ ] one #priority:high\n", &expect!["ctx 0/1"]);
        check(None, "Hello.\n", &expect!["prose 0/0"]);
    }

    #[test]
    fn archives_are_known_by_their_paths() {
        assert!(is_archived("openspec/changes/archive/2026-01-02-add-log/tasks.md"));
        assert!(is_archived("a/OpenSpec\\changes\\archive\\b\\tasks.md"));
        assert!(!is_archived("openspec/changes/add-archive/tasks.md"));
    }

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        let names: BTreeSet<&str> = Dialect::all().map(Dialect::as_str).collect();
        assert_eq!(names.len(), Dialect::all().count());
        for dialect in Dialect::all() {
            assert_eq!(dialect.to_string().parse::<Dialect>().unwrap(), dialect);
        }
        let error = "opnspec".parse::<Dialect>().unwrap_err().to_string();
        assert!(error.contains(r#"no dialect is called "opnspec"; there are obsidian-kanban, backlog-md"#), "{error}");
    }
}
