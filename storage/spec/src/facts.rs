//! Reads what a file says about its tasks into fields. Never changes a text.
//!
//! One pass over the blocks. What belongs to a task: its own line, and the lines below that are indented deeper (or follow without a bullet
//! and without a blank line); in a table, the cells whose header names a field; in a dialect of columns, the heading above. A mark that
//! says more than "open" goes before all of these.
//!
//! Invariants: exactly one entry for each block, `Some` for tasks alone; any text can be read, in time near linear, and what is kept of
//! one task is bounded by named limits.

mod front;
mod keys;
mod tags;
#[cfg(test)]
mod tests;
mod value;
mod waves;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockKind, MarkPlace};
use crate::convention::Convention;
use crate::dialect::fields::Fact;
use crate::dialect::rules::{Place, Rules, rules_of};
use crate::line::indent_columns;
use crate::state::{State, Urgency};
use crate::{status, table};

pub(crate) use front::with_value as front_with_value;
pub(crate) use tags::{with_state as tags_with_state, without_states};
pub(crate) use waves::waves_in;

/// Most labels, requirements or blockers that are kept of one task; people write a handful.
pub const FACT_VALUES_MAX: usize = 64;

/// Longest value that is kept, in bytes; a longer one is no id, name or label.
pub const FACT_BYTES_MAX: usize = 128;

/// What a file says about one task, besides its words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Where the work stands; `None` when the mark is unknown, and then the task counts as open.
    pub state: Option<State>,
    /// The number or code that people gave it.
    pub id: Option<String>,
    /// How pressing it is.
    pub urgency: Option<Urgency>,
    /// When it is due: `YYYY-MM-DD`, a day that there is.
    pub due: Option<String>,
    /// Who does it.
    pub assignee: Option<String>,
    /// Labels, without their `#`.
    pub labels: BTreeSet<String>,
    /// The ids of the tasks that come first, as written.
    pub blocked_by: BTreeSet<String>,
    /// The requirements that it serves, as written.
    pub requirements: BTreeSet<String>,
    /// It may be left out.
    pub is_optional: bool,
    /// It can be done beside others.
    pub is_parallel: bool,
    /// Its wave in Kiro's graph of dependencies.
    pub wave: Option<u32>,
}

/// What the blocks of a document say about its tasks: one entry for each block, `Some` for tasks.
pub fn facts<'a>(blocks: impl IntoIterator<Item = &'a Block>, convention: &Convention) -> Vec<Option<TaskFacts>> {
    let mut reader = Reader::new(convention);
    for block in blocks {
        reader.read(block);
    }
    reader.finish()
}

/// What a file that is one task says about it, in a dialect of such files (`backlog-md`); `None` elsewhere and without front matter.
pub fn file_facts<'a>(blocks: impl IntoIterator<Item = &'a Block>, convention: &Convention) -> Option<TaskFacts> {
    let rules = rules_of(convention.dialect);
    let Place::Front(key, words) = rules.place else { return None };
    let front = front_of(blocks)?;
    let mut facts = TaskFacts::default();
    for (name, values) in front::entries(&front.content.text) {
        if name == key {
            facts.state = values.first().and_then(|word| front_state(word, words, convention));
        }
        for (_, fact) in rules.fields.iter().copied().flatten().filter(|(syntax, _)| front::is_key(*syntax, name)) {
            for value in &values {
                value::read(*fact, value, &mut facts);
            }
        }
    }
    Some(facts)
}

/// The title of a file that is one task: its `title` in the front matter, or its first heading of the first level.
pub fn file_title<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Option<String> {
    let mut heading = None;
    for block in blocks {
        if block.kind == BlockKind::FrontMatter {
            let title = front::entries(&block.content.text).into_iter().find(|(name, _)| *name == "title");
            if let Some(title) = title.and_then(|(_, values)| values.into_iter().next()) {
                return Some(title.to_owned());
            }
        }
        if heading.is_none() && block.heading_level() == 1 {
            heading = Some(block.title().to_owned());
        }
    }
    heading
}

fn front_of<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Option<&'a Block> {
    blocks.into_iter().next().filter(|block| block.kind == BlockKind::FrontMatter)
}

/// What a word in the front matter means as a status.
pub(crate) fn front_state(word: &str, words: &[(&str, State)], convention: &Convention) -> Option<State> {
    let given = || words.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, state)| *state);
    convention.marks.get(word).copied().or_else(given).or_else(|| status::word_state(word))
}

/// The state that a heading stands for in a dialect of columns: its words without ticks name a status.
pub(crate) fn column_state(heading: &Block) -> Option<State> {
    let is_tick = |symbol: char| matches!(symbol, '✓' | '✔' | '✅' | '\u{fe0f}' | '*' | '_' | '#' | ' ');
    let title = heading.content.text.trim_matches(|symbol: char| is_tick(symbol) || symbol.is_whitespace());
    let words = title.strip_suffix("[x]").unwrap_or(title).trim_end();
    let is_ticked = words.len() < title.len() || heading.content.text.contains(['✓', '✔', '✅']);
    status::word_state(words)
        .or_else(|| status::leading(words).map(|(_, state)| state))
        .or(is_ticked.then_some(State::Done))
}

/// The state of a task from its own line, and in a dialect of columns from the column that it stands in.
fn state_on_line(block: &Block, column: Option<State>, rules: &Rules, convention: &Convention) -> Option<State> {
    let marked = convention.state_of(&block.content.mark);
    match marked {
        Some(State::Todo) | None => tags::state(&block.content.text, rules).or(column).or(marked),
        Some(_) => marked,
    }
}

/// The fold behind [`facts`].
pub(crate) struct Reader<'c> {
    convention: &'c Convention,
    rules: &'static Rules,
    entries: Vec<Option<TaskFacts>>,
    /// Tasks whose lines may still come, with their indents, which grow.
    open: Vec<(usize, usize)>,
    /// The last block can be continued by a line without a bullet.
    is_running: bool,
    column: Option<State>,
    /// The last rows are those of a table's header; what its columns hold.
    header: Vec<Option<Fact>>,
    was_row: bool,
    waves: BTreeMap<String, u32>,
}

impl<'c> Reader<'c> {
    pub(crate) fn new(convention: &'c Convention) -> Self {
        Self {
            convention,
            rules: rules_of(convention.dialect),
            entries: Vec::new(),
            open: Vec::new(),
            is_running: false,
            column: None,
            header: Vec::new(),
            was_row: false,
            waves: BTreeMap::new(),
        }
    }

    /// Begins under a column of this state.
    pub(crate) fn set_column(&mut self, column: Option<State>) {
        self.column = column;
    }

    /// Reads the next block.
    pub(crate) fn read(&mut self, block: &Block) {
        let is_row = block.kind == BlockKind::Table || block.mark_place() == Some(MarkPlace::Cell);
        let mut entry = None;
        match block.kind {
            BlockKind::Task => entry = Some(self.task(block)),
            BlockKind::Heading => {
                self.open.clear();
                self.column = if self.rules.place == Place::Column { column_state(block) } else { None };
            }
            BlockKind::Prose => self.prose(&block.content.text),
            BlockKind::Table => {
                if !self.was_row {
                    self.header = keys::columns(&block.content.text, self.rules);
                }
            }
            BlockKind::Fence => {
                let waves = waves_in(&block.content.text);
                self.waves.extend(waves.into_iter().map(|(task, wave)| (id_key(&task).to_owned(), wave)));
            }
            BlockKind::Blank | BlockKind::FrontMatter | BlockKind::Comment => {}
        }
        self.is_running = matches!(block.kind, BlockKind::Task | BlockKind::Prose);
        self.was_row = is_row;
        self.entries.push(entry);
    }

    /// The entries, with the waves that the file names anywhere.
    pub(crate) fn finish(mut self) -> Vec<Option<TaskFacts>> {
        for facts in self.entries.iter_mut().flatten() {
            facts.wave = facts.id.as_deref().and_then(|id| self.waves.get(id_key(id))).copied();
        }
        self.entries
    }

    fn task(&mut self, block: &Block) -> TaskFacts {
        let mut facts = TaskFacts { id: block.explicit_id().map(str::to_owned), ..TaskFacts::default() };
        tags::read(&block.content.text, self.rules, &mut facts);
        if block.mark_place() == Some(MarkPlace::Cell) {
            self.cells(block, &mut facts);
        } else {
            keys::read_inline(&block.content.text, self.rules, &mut facts);
            let indent = block.indent();
            self.open.truncate(self.open.partition_point(|(known, _)| *known < indent));
            self.open.push((indent, self.entries.len()));
        }
        facts.state = state_on_line(block, self.column, self.rules, self.convention);
        facts
    }

    fn cells(&self, block: &Block, facts: &mut TaskFacts) {
        if self.header.iter().all(Option::is_none) {
            return;
        }
        let row = block.print();
        for ((start, end), fact) in table::cells(&row).zip(&self.header) {
            if let Some((fact, cell)) = fact.zip(row.get(start..end)) {
                value::read(fact, cell, facts);
            }
        }
    }

    fn prose(&mut self, text: &str) {
        let mut is_running = self.is_running;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if !(is_running && keys::is_plain(line)) {
                let indent = indent_columns(line);
                self.open.truncate(self.open.partition_point(|(known, _)| *known < indent));
            }
            is_running = true;
            let owner = self.open.last().and_then(|(_, at)| self.entries.get_mut(*at));
            let Some(facts) = owner.and_then(Option::as_mut) else { return };
            if let Some(state) = keys::read_line(line, self.rules, facts) {
                let is_open = matches!(facts.state, None | Some(State::Todo));
                facts.state = if is_open { Some(state) } else { facts.state };
            }
        }
    }
}

/// The part of an id by which references are compared: `Task 1.2`, `#1.2` and `1.2` are one.
pub(crate) fn id_key(id: &str) -> &str {
    let last = id.rsplit([' ', '\t']).next().unwrap_or(id);
    last.trim_start_matches('#').trim_end_matches('.')
}
