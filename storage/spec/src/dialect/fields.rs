//! The ways in which files write what they say about a task, as data: a field is a syntax and what is read by it.
//!
//! Rows of the table of dialects are put together from the groups below. How a syntax is recognised in a text is in `facts`.

use crate::state::{State, Urgency};

/// What a field says about its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The state of a task whose mark leaves it open.
    State(State),
    /// This urgency.
    Urgency(Urgency),
    /// An urgency that the value names.
    Priority,
    /// A date.
    Due,
    /// An id that others refer to.
    Id,
    /// Who does it.
    Assignee,
    /// Labels.
    Label,
    /// Ids of the tasks that come first.
    BlockedBy,
    /// Requirements that it serves.
    Requirement,
    /// It may be left out.
    Optional,
    /// It can be done beside others.
    Parallel,
    /// Something for people; no field holds it.
    Note,
}

/// How a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// A key in lower case with a value up to the end of the line or the closing underscore: `_Depends: 1.2_`, `**Priority**: high`,
    /// `- Due: 2026-01-02`; also the header of a table's column.
    Key(&'static str),
    /// A word of its own in the task's line: `[P]`, `#blocked`.
    Flag(&'static str),
    /// A picture anywhere in the task's line: `⏫`.
    Picture(&'static str),
    /// A value that follows in the task's line: `📅 2026-01-02`, `#priority:high`, `depends on T003`.
    After(&'static str),
    /// A word of its own that begins so: `#label`, `@name`.
    Prefix(&'static str),
    /// A number between these two: `[US1]`.
    Numbered(&'static str, &'static str),
    /// `[key:: value]` or `(key:: value)` in the task's line.
    Inline(&'static str),
    /// A key of the front matter of a file that is one task.
    Front(&'static str),
    /// A star behind the brackets: `- [ ]* text`.
    Star,
    /// A date that stands by itself in the task's line.
    Date,
}

/// A syntax and what it says.
pub(crate) type Field = (Syntax, Fact);

use Syntax::{After, Flag, Front, Inline, Key, Numbered, Picture, Prefix};

/// What is read in every dialect.
pub(crate) const COMMON: &[Field] = &[
    (Key("priority"), Fact::Priority),
    (Key("优先级"), Fact::Priority),
    (Key("優先度"), Fact::Priority),
    (Key("우선순위"), Fact::Priority),
    (Key("prioridad"), Fact::Priority),
    (Key("due"), Fact::Due),
    (Key("due date"), Fact::Due),
    (Key("deadline"), Fact::Due),
    (Key("期限"), Fact::Due),
    (Key("截止日期"), Fact::Due),
    (Key("마감"), Fact::Due),
    (Key("assignee"), Fact::Assignee),
    (Key("assigned to"), Fact::Assignee),
    (Key("owner"), Fact::Assignee),
    (Key("担当"), Fact::Assignee),
    (Key("担当者"), Fact::Assignee),
    (Key("负责人"), Fact::Assignee),
    (Key("담당자"), Fact::Assignee),
    (Key("labels"), Fact::Label),
    (Key("tags"), Fact::Label),
    (Key("标签"), Fact::Label),
    (Key("태그"), Fact::Label),
    (Key("depends"), Fact::BlockedBy),
    (Key("depends on"), Fact::BlockedBy),
    (Key("dependencies"), Fact::BlockedBy),
    (Key("dependency"), Fact::BlockedBy),
    (Key("deps"), Fact::BlockedBy),
    (Key("blocked by"), Fact::BlockedBy),
    (Key("依存"), Fact::BlockedBy),
    (Key("依存関係"), Fact::BlockedBy),
    (Key("依赖"), Fact::BlockedBy),
    (Key("의존성"), Fact::BlockedBy),
    (Key("dependencias"), Fact::BlockedBy),
    (Key("requirements"), Fact::Requirement),
    (Key("requirement"), Fact::Requirement),
    (Key("validates"), Fact::Requirement),
    (Key("要件"), Fact::Requirement),
    (Key("需求"), Fact::Requirement),
    (Key("요구사항"), Fact::Requirement),
    (Key("requisitos"), Fact::Requirement),
    (Key("exigences"), Fact::Requirement),
    (Key("anforderungen"), Fact::Requirement),
    (Key("требования"), Fact::Requirement),
    (After("depends on "), Fact::BlockedBy),
    (After("blocked by "), Fact::BlockedBy),
    (Flag("[P]"), Fact::Parallel),
];

/// Kiro and those who took its form.
pub(crate) const KIRO: &[Field] = &[
    (Syntax::Star, Fact::Optional),
    (Flag("(P)"), Fact::Parallel),
    (Key("boundary"), Fact::Label),
    (Key("leverage"), Fact::Note),
    (Key("prompt"), Fact::Note),
    (Key("file"), Fact::Note),
    (Key("files"), Fact::Note),
];

/// spec-workflow says why a task waits.
pub(crate) const SPEC_WORKFLOW: &[Field] = &[(Key("blocked"), Fact::State(State::Blocked))];

/// spec-kit's stories.
pub(crate) const SPEC_KIT: &[Field] = &[(Numbered("[US", "]"), Fact::Label)];

/// Agent OS marks a task that can't go on.
pub(crate) const AGENT_OS: &[Field] =
    &[(Flag("⚠️ Blocking issue:"), Fact::State(State::Blocked)), (Flag("⚠️ Blocked:"), Fact::State(State::Blocked))];

/// Priorities in brackets.
pub(crate) const LEE_SPEC_KIT: &[Field] = &[
    (Flag("[P0]"), Fact::Urgency(Urgency::High)),
    (Flag("[P1]"), Fact::Urgency(Urgency::High)),
    (Flag("[P2]"), Fact::Urgency(Urgency::Medium)),
    (Flag("[P3]"), Fact::Urgency(Urgency::Low)),
];

/// ctx's tags.
pub(crate) const CTX: &[Field] = &[
    (Flag("#in-progress"), Fact::State(State::InProgress)),
    (Flag("#blocked"), Fact::State(State::Blocked)),
    (After("#priority:"), Fact::Priority),
    (After("#added:"), Fact::Note),
    (Prefix("#"), Fact::Label),
];

/// The pictures of Obsidian Tasks and the inline fields of Dataview.
pub(crate) const OBSIDIAN: &[Field] = &[
    (Picture("🔺"), Fact::Urgency(Urgency::High)),
    (Picture("⏫"), Fact::Urgency(Urgency::High)),
    (Picture("🔼"), Fact::Urgency(Urgency::Medium)),
    (Picture("🔽"), Fact::Urgency(Urgency::Low)),
    (Picture("⏬"), Fact::Urgency(Urgency::Low)),
    (After("📅"), Fact::Due),
    (After("🆔"), Fact::Id),
    (After("⛔"), Fact::BlockedBy),
    (Inline("due"), Fact::Due),
    (Inline("priority"), Fact::Priority),
    (Inline("id"), Fact::Id),
    (Inline("dependsOn"), Fact::BlockedBy),
    (Inline("assignee"), Fact::Assignee),
    (Prefix("#"), Fact::Label),
];

/// The short forms of TODO.md.
pub(crate) const TODO_MD: &[Field] =
    &[(Prefix("#"), Fact::Label), (Prefix("@"), Fact::Assignee), (Prefix("~"), Fact::Note), (Syntax::Date, Fact::Due)];

/// The front matter of Backlog.md and of ZyFlow's own backlog.
pub(crate) const BACKLOG: &[Field] = &[
    (Front("id"), Fact::Id),
    (Front("assignee"), Fact::Assignee),
    (Front("labels"), Fact::Label),
    (Front("tags"), Fact::Label),
    (Front("priority"), Fact::Priority),
    (Front("dependencies"), Fact::BlockedBy),
    (Front("blocked_by"), Fact::BlockedBy),
    (Front("due"), Fact::Due),
    (Front("due_date"), Fact::Due),
];
