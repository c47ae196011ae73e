//! The table of dialects: everything that tells them apart, one row each. A new dialect is a row here and a name in [`Dialect`].

use crate::block::BlockKind;
use crate::dialect::Dialect;
use crate::dialect::fields::{self, Field};
use crate::state::State;

use BlockKind::{Comment, FrontMatter, Heading, Prose, Task};
use State::{Blocked, Cancelled, Done, InProgress, Review, Todo};

/// What tells a dialect by the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// This text in a block of this kind.
    Text(BlockKind, &'static str),
    /// This text at the start of a heading of the first level.
    Title(&'static str),
    /// Most tasks have words in their brackets.
    WordMarks,
    /// Most tasks are rows of tables.
    StatusCells,
    /// Headings and tasks are numbered alike: `## 1. Group`, `- [ ] 1.1 text`.
    NumberedGroups,
    /// There is a task.
    AnyTask,
}

/// Where a file shows the state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the task's line: the brackets, a word, a cell, a tag.
    Line,
    /// The heading that the task stands under.
    Column,
    /// This key of the front matter; the file is one task. With the words that the dialect writes.
    Front(&'static str, &'static [(&'static str, State)]),
}

/// What one dialect is.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Whose rules.
    pub dialect: Dialect,
    /// The name, as printed and parsed.
    pub name: &'static str,
    /// Parts of a path in lower case, with `/` in front. Of those that fit, a hidden folder goes first, then the longest.
    pub paths: &'static [&'static str],
    /// Parts of a path below which finished files are put away.
    pub archives: &'static [&'static str],
    /// Signs in the content; one is enough.
    pub signs: &'static [Sign],
    /// A dialect whose signs occur here too, so that they are no reason for doubt.
    pub extends: Option<Dialect>,
    /// What marks mean; of each state the first is the one that is written. Marks that are nowhere here and in no table of status words are
    /// unknown: open, and kept.
    pub marks: &'static [(&'static str, State)],
    /// Where the state is shown.
    pub place: Place,
    /// What else is read.
    pub fields: &'static [&'static [Field]],
    /// Whether the ids that a task refers to are all in its own file.
    pub is_closed: bool,
}

const BOX: &[(&str, State)] = &[(" ", Todo), ("x", Done), ("X", Done)];

const DEFAULT: Rules = Rules {
    dialect: Dialect::Prose,
    name: "prose",
    paths: &[],
    archives: &[],
    signs: &[],
    extends: None,
    marks: BOX,
    place: Place::Line,
    fields: &[fields::COMMON],
    is_closed: true,
};

/// The dialects. Where content decides, the first row with a sign in it wins, so the more telling stand first.
pub(crate) const DIALECTS: &[Rules] = &[
    Rules {
        dialect: Dialect::ObsidianKanban,
        name: "obsidian-kanban",
        signs: &[Sign::Text(FrontMatter, "kanban-plugin:"), Sign::Text(Prose, "%% kanban:settings")],
        extends: Some(Dialect::ObsidianTasks),
        place: Place::Column,
        fields: &[fields::OBSIDIAN, fields::COMMON],
        is_closed: false,
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::BacklogMd,
        name: "backlog-md",
        paths: &["/backlog/tasks/", "/.backlog/tasks/", "/backlog/completed/", "/backlog/drafts/", "/backlog/archive/"],
        archives: &["/backlog/completed/", "/backlog/archive/"],
        signs: &[
            Sign::Text(Comment, "<!-- AC:BEGIN"),
            Sign::Text(Comment, "<!-- SECTION:DESCRIPTION:BEGIN"),
            Sign::Text(FrontMatter, "\nid: task-"),
        ],
        place: Place::Front(
            "status",
            &[("To Do", Todo), ("In Progress", InProgress), ("Review", Review), ("Blocked", Blocked), ("Done", Done)],
        ),
        fields: &[fields::BACKLOG, fields::COMMON],
        is_closed: false,
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::SpecWorkflow,
        name: "spec-workflow",
        paths: &["/.spec-workflow/"],
        archives: &["/.spec-workflow/archive/"],
        signs: &[Sign::Text(Prose, "_Leverage:"), Sign::Text(Prose, "_Prompt:")],
        extends: Some(Dialect::Kiro),
        marks: &[(" ", Todo), ("-", InProgress), ("~", Blocked), ("x", Done), ("X", Done)],
        fields: &[fields::SPEC_WORKFLOW, fields::KIRO, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::SpecKitty,
        name: "spec-kitty",
        paths: &["/kitty-specs/"],
        signs: &[Sign::Text(Heading, "Work Package WP"), Sign::Text(Heading, " WP01")],
        extends: Some(Dialect::SpecKit),
        fields: &[fields::SPEC_KIT, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::Kiro,
        name: "kiro",
        paths: &["/.kiro/"],
        archives: &["/.kiro/archive/", "/.kiro/specs/archive/"],
        signs: &[
            Sign::Text(Prose, "_Requirements:"),
            Sign::Text(Prose, "_Boundary:"),
            Sign::Text(Prose, "_Depends:"),
            Sign::Text(Prose, "_要件:"),
            Sign::Text(Prose, "_需求:"),
            Sign::Text(Prose, "_요구사항:"),
            Sign::Text(Prose, "_Requisitos:"),
            Sign::Title("Implementation Plan"),
            Sign::Text(Heading, "Task Dependency Graph"),
        ],
        marks: &[(" ", Todo), ("-", InProgress), ("~", Todo), ("x", Done), ("X", Done)],
        fields: &[fields::KIRO, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::SpecKit,
        name: "spec-kit",
        paths: &["/.specify/", "/specs/"],
        signs: &[Sign::Text(Task, "[US1]"), Sign::Text(Task, " T001 ")],
        marks: &[(" ", Todo), ("X", Done), ("x", Done)],
        fields: &[fields::SPEC_KIT, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::ObsidianTasks,
        name: "obsidian-tasks",
        signs: &[
            Sign::Text(Task, "📅"),
            Sign::Text(Task, "⏫"),
            Sign::Text(Task, "🔼"),
            Sign::Text(Task, "🔽"),
            Sign::Text(Task, "🔁"),
            Sign::Text(Task, "🆔"),
            Sign::Text(Task, "[due:: "),
        ],
        marks: &[(" ", Todo), ("/", InProgress), ("-", Cancelled), ("x", Done), ("X", Done)],
        fields: &[fields::OBSIDIAN, fields::COMMON],
        is_closed: false,
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::Ctx,
        name: "ctx",
        paths: &["/.context/tasks.md"],
        archives: &["/.context/archive/"],
        signs: &[Sign::Text(Task, "#priority:"), Sign::Text(Task, "#in-progress"), Sign::Text(Task, "#added:")],
        marks: &[(" ", Todo), ("-", Cancelled), ("x", Done), ("X", Done)],
        fields: &[fields::CTX, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::TodoMd,
        name: "todo-md",
        signs: &[Sign::Text(Heading, "✓"), Sign::Text(Heading, "[x]")],
        place: Place::Column,
        fields: &[fields::TODO_MD, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::Continue,
        name: "continue",
        paths: &["/.continue/"],
        signs: &[Sign::Text(Comment, "continue.dev")],
        marks: &[(" ", Todo), ("*", InProgress), ("~", Cancelled), ("x", Done), ("X", Done)],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::AgentOs,
        name: "agent-os",
        paths: &["/.agent-os/"],
        signs: &[Sign::Text(Task, "⚠️ Blocking issue:")],
        fields: &[fields::AGENT_OS, fields::COMMON],
        ..DEFAULT
    },
    Rules { dialect: Dialect::Moai, name: "moai", paths: &["/.moai/"], ..DEFAULT },
    Rules {
        dialect: Dialect::LeeSpecKit,
        name: "lee-spec-kit",
        signs: &[Sign::WordMarks],
        marks: &[("TODO", Todo), ("DOING", InProgress), ("DONE", Done), (" ", Todo), ("x", Done), ("X", Done)],
        fields: &[fields::LEE_SPEC_KIT, fields::COMMON],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::Table,
        name: "table",
        signs: &[Sign::StatusCells],
        marks: &[
            ("⬜", Todo),
            ("🚧", InProgress),
            ("🔍", Review),
            ("⛔", Blocked),
            ("✅", Done),
            ("🚫", Cancelled),
            (" ", Todo),
            ("x", Done),
            ("X", Done),
        ],
        ..DEFAULT
    },
    Rules {
        dialect: Dialect::Openspec,
        name: "openspec",
        paths: &["/openspec/"],
        archives: &["/openspec/changes/archive/"],
        signs: &[Sign::NumberedGroups],
        ..DEFAULT
    },
    Rules { dialect: Dialect::Checklist, name: "checklist", signs: &[Sign::AnyTask], ..DEFAULT },
    DEFAULT,
];

/// The rules of a dialect.
pub(crate) fn rules_of(dialect: Dialect) -> &'static Rules {
    DIALECTS.iter().find(|rules| rules.dialect == dialect).unwrap_or(&DEFAULT)
}
