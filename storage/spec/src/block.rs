//! The pieces of a document: each block holds its exact text, so that concatenating blocks gives the document back.
//!
//! A block is the unit that gets an identity and is inserted, changed, moved and deleted. Ids, titles and indents are read out of the
//! text on demand; nothing is stored beside the text that could disagree with it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::State;
use crate::{line, naming, status};

/// What a block is. The numbers are part of stored formats and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BlockKind {
    /// An ATX heading line.
    Heading,
    /// A list item with a mark, or a row of a table with a status cell; one line.
    Task,
    /// A paragraph, or a list item that is no task with its continuation lines.
    Prose,
    /// One line without visible characters.
    Blank,
    /// A closed code fence with everything inside.
    Fence,
    /// The YAML header at the top of a file, with both `---`.
    FrontMatter,
    /// An HTML comment that starts a line, up to the end of the line that closes it.
    Comment,
    /// One row of a pipe table.
    Table,
}

impl From<BlockKind> for u8 {
    fn from(kind: BlockKind) -> Self {
        match kind {
            BlockKind::Heading => 1,
            BlockKind::Task => 2,
            BlockKind::Prose => 3,
            BlockKind::Blank => 4,
            BlockKind::Fence => 5,
            BlockKind::FrontMatter => 6,
            BlockKind::Comment => 7,
            BlockKind::Table => 8,
        }
    }
}

/// A stored number that names no [`BlockKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no kind of block; the data was written by a newer version or is damaged")]
pub struct UnknownBlockKind(pub u8);

impl TryFrom<u8> for BlockKind {
    type Error = UnknownBlockKind;

    fn try_from(code: u8) -> Result<Self, UnknownBlockKind> {
        match code {
            1 => Ok(Self::Heading),
            2 => Ok(Self::Task),
            3 => Ok(Self::Prose),
            4 => Ok(Self::Blank),
            5 => Ok(Self::Fence),
            6 => Ok(Self::FrontMatter),
            7 => Ok(Self::Comment),
            8 => Ok(Self::Table),
            other => Err(UnknownBlockKind(other)),
        }
    }
}

/// The exact text of a block, in the three parts that change independently.
///
/// ```text
///   - [x] 1.2 Write the log\n      - ✅ 1.2 Write the log\n      | 1.2 | Write the log | Done | ada |\n
///  \___/|\_________________/      \/|\_________________/      \___________________/\__/\_______/
///  lead mark     text          lead mark   text                      lead           mark  text
/// ```
/// For every kind but [`BlockKind::Task`], `lead` and `mark` are empty and `text` is all of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Content {
    /// Everything before the mark, with the opening bracket.
    pub lead: String,
    /// What shows the status: what stands between the brackets, usually one character; or a status word or emoji.
    pub mark: String,
    /// The rest, from the closing bracket on, with the end of the line.
    pub text: String,
}

impl fmt::Display for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}{}", self.lead, self.mark, self.text)
    }
}

/// One block of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Its exact text.
    pub content: Content,
}

impl Block {
    /// A block of one piece, with empty lead and mark.
    pub(crate) fn whole(kind: BlockKind, text: &str) -> Self {
        Self { kind, content: Content { lead: String::new(), mark: String::new(), text: text.to_owned() } }
    }

    /// Appends the exact text.
    pub fn print_into(&self, out: &mut String) {
        out.push_str(&self.content.lead);
        out.push_str(&self.content.mark);
        out.push_str(&self.content.text);
    }

    /// The exact text.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::with_capacity(self.bytes());
        self.print_into(&mut out);
        out
    }

    /// Length of the exact text in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.content.lead.len() + self.content.mark.len() + self.content.text.len()
    }

    /// Whether this is a task whose mark says done in every dialect: `x` or `X`, blanks aside, or a word or emoji such as `DONE` and `✅`.
    /// Every other mark is open.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.kind == BlockKind::Task && is_done_mark(&self.content.mark)
    }

    /// The number or code that people gave a task or heading (`1.2`, `T012`, `Phase 3`), without its closing dot. A hint, not a
    /// key: it changes when tasks are renumbered and may repeat.
    #[must_use]
    pub fn explicit_id(&self) -> Option<&str> {
        naming::split(self).id
    }

    /// The words of a block without list marker, mark, explicit id and line end.
    #[must_use]
    pub fn title(&self) -> &str {
        naming::split(self).title
    }

    /// Columns of blanks in front; a tab goes to the next multiple of four.
    #[must_use]
    pub fn indent(&self) -> usize {
        line::indent_columns(if self.content.lead.is_empty() { &self.content.text } else { &self.content.lead })
    }

    /// 1 to 6 for a heading, 0 for everything else.
    #[must_use]
    pub fn heading_level(&self) -> usize {
        if self.kind == BlockKind::Heading {
            line::heading_level(self.content.text.trim_start_matches([' ', '>', '\t']))
        } else {
            0
        }
    }

    /// How the mark of a task stands in its line; `None` for what is no task.
    pub(crate) fn mark_place(&self) -> Option<MarkPlace> {
        if self.kind != BlockKind::Task {
            None
        } else if line::is_row(&self.content.lead) {
            Some(MarkPlace::Cell)
        } else if self.content.lead.ends_with('[') {
            Some(MarkPlace::Brackets)
        } else {
            Some(MarkPlace::Bare)
        }
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.kind == BlockKind::Blank
    }
}

/// How the mark of a task stands in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkPlace {
    /// `- [x] text`
    Brackets,
    /// `- ✅ text`, `- TODO: text`
    Bare,
    /// `| text | Done |`
    Cell,
}

/// Whether a task's mark says done.
pub(crate) fn is_done_mark(mark: &str) -> bool {
    status::state_of(mark) == Some(State::Done)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test should panic")]
mod tests {
    use super::*;

    #[test]
    fn codes_of_kinds_are_frozen() {
        let kinds = [
            (BlockKind::Heading, 1),
            (BlockKind::Task, 2),
            (BlockKind::Prose, 3),
            (BlockKind::Blank, 4),
            (BlockKind::Fence, 5),
            (BlockKind::FrontMatter, 6),
            (BlockKind::Comment, 7),
            (BlockKind::Table, 8),
        ];
        for (kind, code) in kinds {
            assert_eq!(u8::from(kind), code);
            assert_eq!(BlockKind::try_from(code).unwrap(), kind);
        }
        assert_eq!(BlockKind::try_from(0), Err(UnknownBlockKind(0)));
        assert_eq!(BlockKind::try_from(9), Err(UnknownBlockKind(9)));
    }
}
