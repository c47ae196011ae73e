//! From text to blocks. Total: every string parses, and the blocks concatenate to it.
//!
//! Two passes, both linear: the first gives every line its shape by itself, the second groups lines into blocks. What can hide tasks is
//! advisory: a fence, comment or front matter counts only when it is properly closed, and else its first line is plain text.
//! An opening fence that is followed by another opening fence of its kind before any closing one is taken for a stray, since it would turn the
//! document inside out from there on. A `---` at the top is front matter only when a `key:` comes next and no task stands before the closing one.
//!
//! One block each: heading, task, table row, blank line (the granularity at which people insert and delete, so diffs and merges stay
//! small), closed fence, closed comment, front matter, paragraph, and bullet with its continuation lines. A block of several lines is cut at
//! [`BLOCK_BYTES_MAX`].

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::block::{Block, BlockKind, Content, MarkPlace};
use crate::encoding::conflict_marker_offset;
use crate::line::{Fence, Shape, shape};
use crate::problem::Problem;
use crate::table;
use crate::words::hash;

/// A paragraph, fence or comment is cut into blocks of at most this many bytes, at line ends. A block is the unit of an edit, so this
/// bounds what one edit carries; a single longer line stays whole.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Most blocks in a file that is synced: ten times the longest of 3,146 real task files (5,671 lines), and it bounds the rows that one
/// file can make.
pub const BLOCKS_MAX: usize = 1 << 16;

/// Bytes of a usual line, by which room for lines is made beforehand.
const LINE_BYTES_USUAL: usize = 40;

/// At most this many repeated ids are reported for one file; the rest would only bury the first.
const DUPLICATE_IDS_REPORTED_MAX: usize = 100;

/// A parsed text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// The blocks, in order; their texts concatenate to the parsed text.
    pub blocks: Vec<Block>,
    /// What is odd about the text, by line.
    pub problems: Vec<Problem>,
}

impl Document {
    /// The exact text.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::with_capacity(self.blocks.iter().map(Block::bytes).sum());
        for block in &self.blocks {
            block.print_into(&mut out);
        }
        out
    }
}

/// Parses any text.
#[must_use]
pub fn parse(text: &str) -> Document {
    let lines = lines_of(text);
    let mut parser = Parser {
        text,
        fences: fences_of(&lines),
        blocks: Vec::with_capacity(lines.len().min(BLOCKS_MAX)),
        lines,
        task_lines: Vec::new(),
        problems: Vec::new(),
        is_comment_possible: true,
    };
    parser.run();
    parser.report();
    Document { blocks: parser.blocks, problems: parser.problems }
}

/// A line: where it starts, and its shape. It ends where the next one starts.
struct Line {
    start: usize,
    shape: Shape,
}

fn lines_of(text: &str) -> Vec<Line> {
    let mut lines = Vec::with_capacity((text.len() / LINE_BYTES_USUAL).min(BLOCKS_MAX));
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        lines.push(Line { start, shape: shape(line.strip_suffix('\n').unwrap_or(line)) });
        start += line.len();
    }
    lines
}

/// Indexes of the lines that could open or close a fence.
fn fences_of(lines: &[Line]) -> Vec<(usize, Fence)> {
    let with_index = lines.iter().enumerate();
    with_index
        .filter_map(|(at, line)| if let Shape::Fence(fence) = line.shape { Some((at, fence)) } else { None })
        .collect()
}

struct Parser<'a> {
    text: &'a str,
    lines: Vec<Line>,
    fences: Vec<(usize, Fence)>,
    blocks: Vec<Block>,
    /// Block index and line index of every task.
    task_lines: Vec<(usize, usize)>,
    problems: Vec<Problem>,
    /// False once a search for `-->` has come to the end of the text in vain.
    is_comment_possible: bool,
}

impl Parser<'_> {
    fn run(&mut self) {
        let mut at = match self.front_matter_end() {
            Some(end) => {
                self.push_lines(BlockKind::FrontMatter, 0..end);
                end
            }
            None => 0,
        };
        while let Some(line) = self.lines.get(at) {
            at = match line.shape {
                Shape::Blank => self.push_line(BlockKind::Blank, at),
                Shape::Heading => self.push_line(BlockKind::Heading, at),
                Shape::Table => self.push_table(at),
                Shape::Task { start, length } => self.push_task(at, start, start + usize::from(length)),
                Shape::Fence(fence) => self.push_fence(at, fence),
                Shape::Comment => self.push_comment(at),
                Shape::Item | Shape::Text => self.push_prose(at),
            };
        }
    }

    /// Where a line starts; past the last one, where the text ends.
    fn start_of(&self, at: usize) -> usize {
        self.lines.get(at).map_or(self.text.len(), |line| line.start)
    }

    fn line_text(&self, at: usize) -> &str {
        self.text.get(self.start_of(at)..self.start_of(at + 1)).unwrap_or_default()
    }

    fn push_line(&mut self, kind: BlockKind, at: usize) -> usize {
        let block = Block::whole(kind, self.line_text(at));
        self.blocks.push(block);
        at + 1
    }

    fn push_task(&mut self, at: usize, start: usize, end: usize) -> usize {
        let line = self.line_text(at);
        let part = |range: Range<usize>| line.get(range).unwrap_or_default().to_owned();
        let content = Content { lead: part(0..start), mark: part(start..end), text: part(end..line.len()) };
        self.task_lines.push((self.blocks.len(), at));
        self.blocks.push(Block { kind: BlockKind::Task, content });
        at + 1
    }

    /// All rows of a table. Those under a header with a status column are tasks where that column holds a status.
    fn push_table(&mut self, at: usize) -> usize {
        let is_row = |at: usize| self.lines.get(at).is_some_and(|line| line.shape == Shape::Table);
        let end = (at..self.lines.len()).find(|at| !is_row(*at)).unwrap_or(self.lines.len());
        let has_header = end - at > 2 && table::is_separator(self.line_text(at + 1));
        let column = if has_header { table::status_column(self.line_text(at)) } else { None };
        for row in at..end {
            let status =
                column.filter(|_| row > at + 1).and_then(|column| table::status_in(self.line_text(row), column));
            match status {
                Some((start, end)) => self.push_task(row, start, end),
                None => self.push_line(BlockKind::Table, row),
            };
        }
        end
    }

    fn push_fence(&mut self, at: usize, open: Fence) -> usize {
        if let Some(end) = self.fence_end(at, open) {
            return self.push_lines(BlockKind::Fence, at..end);
        }
        self.problems.push(Problem::UnclosedFence { line: at + 1 });
        self.push_prose(at)
    }

    fn push_comment(&mut self, at: usize) -> usize {
        let start = self.lines.get(at).map_or(0, |line| line.start);
        let close =
            if self.is_comment_possible { self.text.get(start..).and_then(|rest| rest.find("-->")) } else { None };
        if let Some(close) = close {
            let end = self.lines.partition_point(|line| line.start <= start + close);
            return self.push_lines(BlockKind::Comment, at..end);
        }
        if self.is_comment_possible {
            self.problems.push(Problem::UnclosedComment { line: at + 1 });
        }
        self.is_comment_possible = false;
        self.push_prose(at)
    }

    /// A paragraph, or a bullet with its continuation lines: the line at `at`, whatever it is, and all plain text after it.
    fn push_prose(&mut self, at: usize) -> usize {
        let after = self.lines.get(at + 1..).unwrap_or_default();
        let end = at + 1 + after.iter().take_while(|line| line.shape == Shape::Text).count();
        self.push_lines(BlockKind::Prose, at..end)
    }

    /// One block of the lines in `range`, or several when they are over [`BLOCK_BYTES_MAX`].
    fn push_lines(&mut self, kind: BlockKind, range: Range<usize>) -> usize {
        let end = range.end;
        let mut start = self.start_of(range.start);
        let mut stop = start;
        for next in range.map(|at| at + 1) {
            let line_end = self.start_of(next);
            if stop > start && line_end - start > BLOCK_BYTES_MAX {
                self.blocks.push(Block::whole(kind, self.text.get(start..stop).unwrap_or_default()));
                start = stop;
            }
            stop = line_end;
        }
        self.blocks.push(Block::whole(kind, self.text.get(start..stop).unwrap_or_default()));
        end
    }

    /// The line after the one that closes the front matter, when the text starts with one.
    fn front_matter_end(&self) -> Option<usize> {
        let first = (1..self.lines.len()).find(|at| !self.line_text(*at).trim().is_empty());
        if self.line_text(0).trim_end() != "---" || !first.is_some_and(|at| self.line_text(at).contains(':')) {
            return None;
        }
        for (at, line) in self.lines.iter().enumerate().skip(1) {
            let is_box = |start: usize| self.line_text(at).get(..start).is_some_and(|lead| lead.ends_with('['));
            if matches!(line.shape, Shape::Task { start, .. } if is_box(start)) {
                return None;
            }
            if matches!(self.line_text(at).trim_end(), "---" | "...") {
                return Some(at + 1);
            }
        }
        None
    }

    /// The line after the one that closes the fence opened at `at`.
    fn fence_end(&self, at: usize, open: Fence) -> Option<usize> {
        let from = self.fences.partition_point(|(line, _)| *line <= at);
        for (line, fence) in self.fences.get(from..).unwrap_or_default() {
            if fence.symbol != open.symbol || fence.length < open.length {
                continue;
            }
            if fence.is_bare {
                return Some(line + 1);
            }
            if fence.length == open.length {
                return None;
            }
        }
        None
    }

    fn report(&mut self) {
        let starts = self.lines.iter().map(|line| line.start);
        if let Some(offset) = conflict_marker_offset(self.text, starts) {
            let line = self.lines.partition_point(|line| line.start <= offset);
            self.problems.push(Problem::ConflictMarkers { line });
        }
        let repeats = self.repeated_ids();
        self.problems.extend(repeats);
        self.problems.sort_by_key(Problem::line);
        if self.blocks.len() > BLOCKS_MAX {
            self.problems.push(Problem::TooManyBlocks { blocks: self.blocks.len(), limit: BLOCKS_MAX });
        }
    }

    /// Ids that a task above has already. A row and a bullet may share one: tables often list the tasks that follow.
    fn repeated_ids(&self) -> Vec<Problem> {
        let task =
            |at: usize| self.task_lines.get(at).and_then(|(block, line)| Some((self.blocks.get(*block)?, line + 1)));
        let sort_of = |block: &Block| if block.mark_place() == Some(MarkPlace::Cell) { "row" } else { "bullet" };
        // Numbers are sorted much faster than texts; what has the same number is compared.
        let number =
            |at: usize| task(at).and_then(|(block, _)| Some((hash([block.explicit_id()?, sort_of(block)]), at)));
        let mut numbers: Vec<(u64, usize)> = (0..self.task_lines.len()).filter_map(number).collect();
        numbers.sort_unstable();
        let repeats = numbers.windows(2).filter_map(|pair| match pair {
            [(key, first), (again, at)] if key == again => {
                let ((first, first_line), (block, line)) = (task(*first)?, task(*at)?);
                let id = block.explicit_id().filter(|id| first.explicit_id() == Some(id))?;
                Some(Problem::DuplicateId { line, first_line, id: id.to_owned() })
            }
            _ => None,
        });
        repeats.take(DUPLICATE_IDS_REPORTED_MAX).collect()
    }
}
