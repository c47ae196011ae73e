//! Tells the dialect of a file from its path and its content, by the signs in the table of dialects.

use crate::block::{Block, BlockKind, MarkPlace};
use crate::dialect::Dialect;
use crate::dialect::rules::{DIALECTS, Rules, Sign, rules_of};
use crate::parse::Document;
use crate::status::{self, Form};

/// The dialect of a document: what its path within the project says, when it is known and says something, and else what its content says.
#[must_use]
pub fn detect(document: &Document, path: Option<&str>) -> Dialect {
    path.and_then(of_path).unwrap_or_else(|| of_content(&document.blocks))
}

/// Whether a path within a project is one where finished files are put away, such as `openspec/changes/archive/2026-01-02-add-log/tasks.md`.
#[must_use]
pub fn is_archived(path: &str) -> bool {
    let path = normal(path);
    DIALECTS.iter().flat_map(|rules| rules.archives).any(|part| path.contains(part))
}

/// Dialects that the content speaks for and that the given one doesn't explain, in the order of the table.
pub(crate) fn others(blocks: &[Block], dialect: Dialect) -> Vec<Dialect> {
    let chosen = rules_of(dialect);
    let found: Vec<&Rules> = DIALECTS.iter().filter(|rules| has_text_sign(rules, blocks)).collect();
    let is_explained = |rules: &Rules| {
        rules.dialect == dialect || chosen.extends == Some(rules.dialect) || rules.extends == Some(dialect)
    };
    found.into_iter().filter(|rules| !is_explained(rules)).map(|rules| rules.dialect).collect()
}

fn normal(path: &str) -> String {
    format!("/{}", path.replace('\\', "/").to_lowercase())
}

fn of_path(path: &str) -> Option<Dialect> {
    let path = normal(path);
    let fitting = DIALECTS.iter().flat_map(|rules| rules.paths.iter().map(|part| (part.len(), rules.dialect, *part)));
    // A hidden folder belongs to one tool, while `specs` is anybody's word.
    let weight = |(length, _, part): &(usize, Dialect, &str)| (part.starts_with("/."), *length);
    fitting.filter(|(_, _, part)| path.contains(part)).max_by_key(weight).map(|(_, dialect, _)| dialect)
}

fn of_content(blocks: &[Block]) -> Dialect {
    let traits = Traits::of(blocks);
    let has = |sign: &Sign| match sign {
        Sign::Text(kind, text) => has_text(blocks, *kind, text),
        Sign::Title(text) => has_title(blocks, text),
        Sign::WordMarks => traits.words * 2 > traits.tasks,
        Sign::StatusCells => traits.cells * 2 > traits.tasks,
        Sign::NumberedGroups => traits.groups > 0 && traits.items * 2 > traits.tasks,
        Sign::AnyTask => traits.tasks > 0,
    };
    DIALECTS.iter().find(|rules| rules.signs.iter().any(has)).map_or(Dialect::Prose, |rules| rules.dialect)
}

fn has_text_sign(rules: &Rules, blocks: &[Block]) -> bool {
    rules.signs.iter().any(|sign| match sign {
        Sign::Text(kind, text) => has_text(blocks, *kind, text),
        // A title is anybody's words: enough where nothing else tells, no reason for doubt.
        Sign::Title(_) | Sign::WordMarks | Sign::StatusCells | Sign::NumberedGroups | Sign::AnyTask => false,
    })
}

fn has_text(blocks: &[Block], kind: BlockKind, text: &str) -> bool {
    blocks.iter().any(|block| block.kind == kind && block.content.text.contains(text))
}

fn has_title(blocks: &[Block], text: &str) -> bool {
    blocks.iter().any(|block| block.heading_level() == 1 && block.title().starts_with(text))
}

/// How many blocks are of the sorts that signs ask for.
struct Traits {
    tasks: usize,
    /// Tasks with a word in their brackets.
    words: usize,
    /// Tasks that are rows of tables.
    cells: usize,
    /// Numbered headings of the second level.
    groups: usize,
    /// Tasks numbered `1.1`.
    items: usize,
}

impl Traits {
    fn of(blocks: &[Block]) -> Self {
        let count = |test: &dyn Fn(&Block) -> bool| blocks.iter().filter(|block| test(block)).count();
        let is_numbered =
            |block: &Block| block.explicit_id().is_some_and(|id| id.starts_with(|first: char| first.is_ascii_digit()));
        let is_item = |block: &Block| {
            block.kind == BlockKind::Task
                && is_numbered(block)
                && block.explicit_id().is_some_and(|id| id.contains('.'))
        };
        let is_word = |block: &Block| {
            block.mark_place() == Some(MarkPlace::Brackets) && status::form(&block.content.mark) == Form::Word
        };
        Self {
            tasks: count(&|block| block.kind == BlockKind::Task),
            words: count(&is_word),
            cells: count(&|block| block.mark_place() == Some(MarkPlace::Cell)),
            groups: count(&|block| block.heading_level() == 2 && is_numbered(block)),
            items: count(&is_item),
        }
    }
}
