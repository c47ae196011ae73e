//! The specification side of the cluster: `tasks.md` files as documents that are read, compared, merged and written without losing a byte.
//!
//! ```text
//! bytes --decode--> canonical text --parse--> Document --print--> the same text --encode--> the same bytes
//!                                                |
//!                          align / diff against blocks with ids  ->  operations  --apply-->  new blocks
//!                          merge3(base, local, current)          ->  operations + conflicts
//! ```
//!
//! - [`decode`], [`encode`]: what one checkout does differently (line ends, byte order mark, final newline), kept apart from the text.
//! - [`parse`]: a document is a sequence of [`Block`]s that concatenate to the text. Never fails, on any text.
//! - [`align`]: which block of a new text is which known one; a task keeps its identity through renumbering, rewording and moving.
//! - [`diff`], [`apply`]: the fewest operations between two states, and what operations mean.
//! - [`merge3`], [`merge_words`], [`merge_text`]: three-way merge by fields and words; what can't be united becomes a [`Conflict`].
//! - [`settle`]: what a project's [`Strategies`] make of the conflicts; [`severity`]: how much one matters.
//! - [`detect`], [`Convention`]: which dialect a file follows, and what marks mean in it.
//! - [`facts`], [`express`]: what a file says about its tasks as fields, and how a state is written into it.
//! - [`summarize`], [`check`]: counts, dialect and oddities of one file.
//!
//! Everything is a pure function of its arguments: no files, no clock, no randomness, no hash order; equal inputs give equal outputs on
//! every machine. Running time is near linear for any input, by named limits rather than deadlines.

#![cfg_attr(test, expect(clippy::needless_raw_string_hashes, reason = "expect-test writes its data so"))]

mod align;
mod block;
mod chain;
mod check;
mod convention;
mod dialect;
mod diff;
mod encoding;
mod express;
mod facts;
mod line;
mod merge;
mod naming;
mod ops;
mod order;
mod parse;
mod problem;
mod state;
mod status;
mod table;
#[cfg(test)]
mod testing;
mod words;

pub use align::{Known, align};
pub use block::{Block, BlockKind, Content, UnknownBlockKind};
pub use check::{CheckReport, check, check_as};
pub use convention::{Convention, ConventionError, TEAM_MARKS_MAX};
pub use dialect::{Dialect, Summary, UnknownDialect, detect, is_archived, summarize};
pub use diff::diff;
pub use encoding::{DecodeError, Encoding, FILE_BYTES_MAX, decode, encode, has_conflict_markers};
pub use express::{Expression, express};
pub use facts::{FACT_BYTES_MAX, FACT_VALUES_MAX, TaskFacts, facts, file_facts, file_title};
pub use merge::{
    Conflict, ConflictClass, ConflictField, Merge, Settled, SettledConflict, Severity, Strategies, Strategy, TextMerge,
    UnknownField, UnknownStrategy, merge_text, merge3, settle, severity,
};
pub use ops::{Anchor, ApplyError, Op, Placed, apply};
pub use parse::{BLOCK_BYTES_MAX, BLOCKS_MAX, Document, parse};
pub use problem::Problem;
pub use state::{State, UnknownState, Urgency};
pub use words::merge_words;
