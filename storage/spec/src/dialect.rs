//! Which convention a file follows, told from its path and its content, and how far its tasks are.
//!
//! All dialects are read and written by the same lossless parser; the dialect is a label for people, and the key under which a checkout
//! maps marks to states. It is data: a new dialect is a row in a table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockKind};
use crate::parse::Document;

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
}

/// Names of the dialects, as printed and parsed.
const NAMES: &[(Dialect, &str)] = &[
    (Dialect::Openspec, "openspec"),
    (Dialect::SpecKit, "spec-kit"),
    (Dialect::Kiro, "kiro"),
    (Dialect::SpecWorkflow, "spec-workflow"),
    (Dialect::SpecKitty, "spec-kitty"),
    (Dialect::AgentOs, "agent-os"),
    (Dialect::Moai, "moai"),
    (Dialect::LeeSpecKit, "lee-spec-kit"),
    (Dialect::Ctx, "ctx"),
    (Dialect::ObsidianTasks, "obsidian-tasks"),
    (Dialect::ObsidianKanban, "obsidian-kanban"),
    (Dialect::TodoMd, "todo-md"),
    (Dialect::BacklogMd, "backlog-md"),
    (Dialect::Table, "table"),
    (Dialect::Checklist, "checklist"),
    (Dialect::Prose, "prose"),
];

/// Parts of a path that settle the dialect, the more specific first. Compared in lower case with `/` in front.
const PATHS: &[(&str, Dialect)] = &[
    ("/.kiro/", Dialect::Kiro),
    ("/.spec-workflow/", Dialect::SpecWorkflow),
    ("/kitty-specs/", Dialect::SpecKitty),
    ("/.agent-os/", Dialect::AgentOs),
    ("/.moai/", Dialect::Moai),
    ("/openspec/", Dialect::Openspec),
    ("/.specify/", Dialect::SpecKit),
    ("/.context/tasks.md", Dialect::Ctx),
    ("/backlog/tasks/", Dialect::BacklogMd),
    ("/specs/", Dialect::SpecKit),
];

/// Strings in the text of one kind of block that tell the dialect, the more telling first.
const SIGNS: &[(BlockKind, &str, Dialect)] = &[
    (BlockKind::FrontMatter, "kanban-plugin:", Dialect::ObsidianKanban),
    (BlockKind::Comment, "<!-- AC:BEGIN", Dialect::BacklogMd),
    (BlockKind::Prose, "_Leverage:", Dialect::SpecWorkflow),
    (BlockKind::Prose, "_Prompt:", Dialect::SpecWorkflow),
    (BlockKind::Heading, "Work Package WP", Dialect::SpecKitty),
    (BlockKind::Heading, " WP01", Dialect::SpecKitty),
    (BlockKind::Prose, "_Requirements:", Dialect::Kiro),
    (BlockKind::Prose, "_Boundary:", Dialect::Kiro),
    (BlockKind::Heading, "Implementation Plan", Dialect::Kiro),
    (BlockKind::Task, "[US1]", Dialect::SpecKit),
    (BlockKind::Task, " T001 ", Dialect::SpecKit),
    (BlockKind::Task, "📅", Dialect::ObsidianTasks),
    (BlockKind::Task, "⏫", Dialect::ObsidianTasks),
    (BlockKind::Task, "🔁", Dialect::ObsidianTasks),
    (BlockKind::Task, "#priority:", Dialect::Ctx),
    (BlockKind::Task, "#in-progress", Dialect::Ctx),
];

impl Dialect {
    /// The dialect's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(dialect, _)| *dialect == self).map_or("prose", |(_, name)| name)
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
        let found = NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(dialect, _)| *dialect).ok_or_else(|| UnknownDialect { name: name.to_owned() })
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
    let by_path = path.and_then(dialect_of_path);
    Summary {
        dialect: by_path.unwrap_or_else(|| dialect_of_content(&document.blocks)),
        tasks: tasks().count(),
        done: tasks().filter(|task| task.is_done()).count(),
    }
}

fn dialect_of_path(path: &str) -> Option<Dialect> {
    let path = format!("/{}", path.replace('\\', "/").to_lowercase());
    PATHS.iter().find(|(part, _)| path.contains(part)).map(|(_, dialect)| *dialect)
}

fn dialect_of_content(blocks: &[Block]) -> Dialect {
    let has = |kind: BlockKind, sign: &str| {
        blocks.iter().any(|block| block.kind == kind && block.content.text.contains(sign))
    };
    if let Some((_, _, dialect)) = SIGNS.iter().find(|(kind, sign, _)| has(*kind, sign)) {
        return *dialect;
    }
    let count = |test: &dyn Fn(&Block) -> bool| blocks.iter().filter(|block| test(block)).count();
    let tasks = count(&|block| block.kind == BlockKind::Task);
    if tasks == 0 {
        return if count(&|block| block.kind == BlockKind::Table) > 2 { Dialect::Table } else { Dialect::Prose };
    }
    let worded =
        count(&|block| block.kind == BlockKind::Task && block.content.mark.len() > 2 && block.content.mark.is_ascii());
    if worded * 2 > tasks {
        return Dialect::LeeSpecKit;
    }
    let numbered =
        |block: &Block| block.explicit_id().is_some_and(|id| id.starts_with(|first: char| first.is_ascii_digit()));
    let groups = count(&|block| block.kind == BlockKind::Heading && block.heading_level() == 2 && numbered(block));
    let items = count(&|block| {
        block.kind == BlockKind::Task && numbered(block) && block.explicit_id().is_some_and(|id| id.contains('.'))
    });
    if groups > 0 && items * 2 > tasks { Dialect::Openspec } else { Dialect::Checklist }
}

fn known_names() -> String {
    NAMES.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test should panic")]
mod tests {
    use super::*;
    use crate::parse;
    use expect_test::{Expect, expect};

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
        check(None, "- [TODO][P1] T-F001-01 one\n- [DONE] T-F001-02 two\n", &expect!["lee-spec-kit 0/2"]);
        check(None, "---\nkanban-plugin: board\n---\n## Doing\n- [ ] one\n", &expect!["obsidian-kanban 0/1"]);
        check(None, "- [ ] one 📅 2026-01-02\n", &expect!["obsidian-tasks 0/1"]);
        check(None, "- [x] one\n* [ ] two\n", &expect!["checklist 1/2"]);
        check(None, "| a | b |\n|---|---|\n| c | ✅ |\n", &expect!["table 0/0"]);
        check(None, "Hello.\n", &expect!["prose 0/0"]);
    }

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for (dialect, name) in NAMES {
            assert_eq!(name.parse::<Dialect>().unwrap(), *dialect);
            assert_eq!(dialect.to_string(), *name);
        }
        assert!("opnspec".parse::<Dialect>().unwrap_err().to_string().contains("there are openspec, spec-kit"));
    }
}
