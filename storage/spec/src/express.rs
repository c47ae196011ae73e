//! How a state is written into a file with the fewest bytes.
//!
//! It says what to change and changes nothing itself. Whatever it says has been tried: the changed line is read again, as a task, with the
//! state that was asked for; what can't be shown so is `None`.
//!
//! In a dialect of columns a finished task carries a tick as well as a place, so leaving "done" there takes two steps: the first gives it
//! an open mark, the second another column. The law is: carrying out what [`express`] says, at most twice, shows the state.

#[cfg(test)]
mod tests;

use crate::block::{Block, BlockKind, Content, MarkPlace};
use crate::convention::Convention;
use crate::dialect::rules::{Place, Rules, rules_of};
use crate::facts::{self, Reader, column_state};
use crate::line::{MARK_BYTES_MAX, shape, task};
use crate::state::State;
use crate::{status, table};

/// Blocks below a task that are looked at for lines that say more about its state; an item with more of them is not looked through.
const ITEM_BLOCKS_MAX: usize = 256;

/// Rows of the same table that are looked at for the way in which a status is written there.
const ROWS_LOOKED_AT_MAX: usize = 256;

/// A change that shows a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// The task's mark becomes this; when it is the mark that it has, the state is shown already.
    Mark(String),
    /// The task moves to the end of the column with this heading, and keeps its text.
    Under {
        /// Position of the heading among the blocks.
        heading: usize,
    },
    /// The whole text of a block becomes this: of the task itself (a tag), or of the front matter.
    Line {
        /// Position of the block.
        block: usize,
        /// Its text from now on.
        text: String,
    },
}

/// How the task at position `task` shows `state`. In a file that is one task, the task is its front matter. `None` when the dialect, or the
/// way in which this task is written, can't show the state, or there is no task.
#[must_use]
pub fn express(blocks: &[&Block], task: usize, state: State, convention: &Convention) -> Option<Expression> {
    let block = *blocks.get(task)?;
    let rules = rules_of(convention.dialect);
    let scene = Scene { blocks, task, block, rules, convention };
    match (block.kind, rules.place) {
        (BlockKind::FrontMatter, Place::Front(key, words)) => scene.front(key, words, state),
        (BlockKind::Task, _) => scene.of_task(state),
        _ => None,
    }
}

struct Scene<'a> {
    blocks: &'a [&'a Block],
    task: usize,
    block: &'a Block,
    rules: &'static Rules,
    convention: &'a Convention,
}

impl Scene<'_> {
    fn of_task(&self, state: State) -> Option<Expression> {
        let column = self.column();
        if self.state_with(self.block, column) == Some(state) {
            return Some(Expression::Mark(self.block.content.mark.clone()));
        }
        let in_column = if self.can_move() { self.under(state) } else { None };
        in_column
            .or_else(|| self.mark(state, column))
            .or_else(|| self.tag(state, column))
            .or_else(|| self.opened(state))
    }

    /// The state that a block shows in the task's place, under a column of this state.
    fn state_with(&self, block: &Block, column: Option<State>) -> Option<State> {
        let mut reader = Reader::new(self.convention);
        reader.set_column(column);
        reader.read(block);
        let indent = block.indent();
        let is_below = |next: &&&Block| match next.kind {
            BlockKind::Heading => false,
            // A table's rows end nothing: what follows them may still be the item's.
            BlockKind::Task => next.mark_place() == Some(MarkPlace::Cell) || next.indent() > indent,
            BlockKind::Prose
            | BlockKind::Blank
            | BlockKind::Fence
            | BlockKind::FrontMatter
            | BlockKind::Comment
            | BlockKind::Table => true,
        };
        let below = self.blocks.get(self.task + 1..).unwrap_or_default().iter().take(ITEM_BLOCKS_MAX);
        below.take_while(is_below).for_each(|next| reader.read(next));
        reader.finish().into_iter().next().flatten().and_then(|facts| facts.state)
    }

    fn column(&self) -> Option<State> {
        if self.rules.place != Place::Column {
            return None;
        }
        let before = self.blocks.get(..self.task)?;
        before.iter().rev().find(|block| block.kind == BlockKind::Heading).and_then(|heading| column_state(heading))
    }

    /// Whether the task can stand under another heading. A row can't: away from its table it is no task.
    fn can_move(&self) -> bool {
        self.rules.place == Place::Column && self.block.mark_place() != Some(MarkPlace::Cell)
    }

    /// A column for the state, when moving there shows it.
    fn under(&self, state: State) -> Option<Expression> {
        let is_it = |block: &&Block| block.kind == BlockKind::Heading && column_state(block) == Some(state);
        let heading = self.blocks.iter().position(is_it)?;
        (self.state_with(self.block, Some(state)) == Some(state)).then_some(Expression::Under { heading })
    }

    /// The first mark that shows the state: one written like the present one, if there is one.
    fn mark(&self, state: State, column: Option<State>) -> Option<Expression> {
        let place = self.block.mark_place()?;
        let present = self.block.content.mark.as_str();
        let form = status::form(present);
        let mut marks: Vec<String> =
            self.neighbours(place).filter(|mark| self.convention.state_of(mark) == Some(state)).collect();
        marks.extend(status::written_like(present, state));
        marks.extend(self.convention.mark_of(state));
        marks.extend(plain_mark(state).map(str::to_owned));
        marks.sort_by_key(|mark| status::form(mark) != form);
        let mut shown = marks.into_iter().filter(|mark| is_alike(place, form, mark));
        shown
            .find(|mark| self.with_mark(mark).is_some_and(|block| self.state_with(&block, column) == Some(state)))
            .map(Expression::Mark)
    }

    /// Marks in the same column of the same table, the nearest first.
    fn neighbours(&self, place: MarkPlace) -> impl Iterator<Item = String> {
        let rows = if place == MarkPlace::Cell { ROWS_LOOKED_AT_MAX } else { 0 };
        let is_row = |block: &&&Block| block.kind == BlockKind::Table || block.mark_place() == Some(MarkPlace::Cell);
        let before = self.blocks.get(..self.task).unwrap_or_default().iter().rev().take(rows).take_while(is_row);
        let after = self.blocks.get(self.task + 1..).unwrap_or_default().iter().take(rows).take_while(is_row);
        before.chain(after).filter(|block| block.kind == BlockKind::Task).map(|block| block.content.mark.clone())
    }

    /// The task with another mark, when it is still read as a task with that mark.
    fn with_mark(&self, mark: &str) -> Option<Block> {
        let content = Content { mark: mark.to_owned(), ..self.block.content.clone() };
        let block = Block { kind: BlockKind::Task, content };
        is_read_back(&block).then_some(block)
    }

    /// A tag in the task's line. A mark that says more than open hides tags, so it must be open.
    fn tag(&self, state: State, column: Option<State>) -> Option<Expression> {
        // Behind the last cell of a row a tag would be no part of the table.
        if self.block.mark_place() == Some(MarkPlace::Cell) {
            return None;
        }
        let content = &self.block.content;
        let text = match state {
            State::Todo => Some(facts::without_states(&content.text, self.rules)),
            State::InProgress | State::Review | State::Blocked | State::Done | State::Cancelled | State::Archived => {
                facts::tags_with_state(&content.text, state, self.rules)
            }
        }?;
        let is_open = matches!(self.convention.state_of(&content.mark), None | Some(State::Todo));
        let mark = if is_open { content.mark.clone() } else { " ".to_owned() };
        let block = Block { kind: BlockKind::Task, content: Content { lead: content.lead.clone(), mark, text } };
        let is_shown = is_read_back(&block) && self.state_with(&block, column) == Some(state);
        is_shown.then(|| Expression::Line { block: self.task, text: block.print() })
    }

    /// The first of two steps: an open mark, after which a column shows the state.
    fn opened(&self, state: State) -> Option<Expression> {
        if !self.can_move() {
            return None;
        }
        let is_column = |block: &&Block| block.kind == BlockKind::Heading && column_state(block) == Some(state);
        let open = self.with_mark(" ")?;
        let is_shown = self.blocks.iter().any(is_column) && self.state_with(&open, Some(state)) == Some(state);
        is_shown.then_some(Expression::Mark(open.content.mark))
    }

    fn front(&self, key: &str, words: &[(&str, State)], state: State) -> Option<Expression> {
        let text = &self.block.content.text;
        let facts = facts::file_facts([self.block], self.convention)?;
        if facts.state == Some(state) {
            return Some(Expression::Line { block: self.task, text: text.clone() });
        }
        let own = self.convention.marks.iter().filter(|(_, known)| **known == state).map(|(word, _)| word.as_str());
        let given = words.iter().filter(|(_, known)| *known == state).map(|(word, _)| *word);
        let word = own.chain(given).next()?;
        let text = facts::front_with_value(text, key, word)?;
        let block = Block::whole(BlockKind::FrontMatter, &text);
        let is_shown = facts::file_facts([&block], self.convention)?.state == Some(state);
        is_shown.then_some(Expression::Line { block: self.task, text })
    }
}

/// The marks that everybody reads.
fn plain_mark(state: State) -> Option<&'static str> {
    match state {
        State::Todo => Some(" "),
        State::Done => Some("x"),
        State::InProgress | State::Review | State::Blocked | State::Cancelled | State::Archived => None,
    }
}

/// Whether a mark can stand where one of this form stands: a checkbox stays a checkbox, a word or emoji stays one.
fn is_alike(place: MarkPlace, form: status::Form, mark: &str) -> bool {
    let is_sign = status::form(mark) == status::Form::Sign;
    match place {
        MarkPlace::Brackets => true,
        MarkPlace::Bare => !is_sign,
        MarkPlace::Cell => is_sign == (form == status::Form::Sign),
    }
}

/// Whether the text of a task is read as that task again: the same mark at the same place.
fn is_read_back(block: &Block) -> bool {
    let content = &block.content;
    if content.mark.len() > MARK_BYTES_MAX {
        return false;
    }
    let line = block.print();
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let start = content.lead.len();
    if block.mark_place() == Some(MarkPlace::Cell) {
        let column = table::column_at(&content.lead);
        return table::status_in(line, column) == Some((start, start + content.mark.len()));
    }
    shape(line) == task(start, content.mark.len())
}
