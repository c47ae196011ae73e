//! What is odd about a file: told to people, never a reason to refuse it (but for bytes that are no text at all).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;
use crate::encoding::DecodeError;

/// Something in a file that its author will want to know. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Problem {
    /// A code fence that is never closed; its lines are read as if it weren't there.
    UnclosedFence {
        /// Line of the opening fence.
        line: usize,
    },
    /// An HTML comment that is never closed; its lines are read as if it weren't there.
    UnclosedComment {
        /// Line of the `<!--`.
        line: usize,
    },
    /// Markers of an unfinished line merge.
    ConflictMarkers {
        /// Line of the first marker.
        line: usize,
    },
    /// Two tasks carry the same explicit id.
    DuplicateId {
        /// Line of the repeated id.
        line: usize,
        /// Line where it stood first.
        first_line: usize,
        /// The id.
        id: String,
    },
    /// A mark that the file's dialect gives no meaning. Such tasks count as open, and the mark stays.
    UnknownMark {
        /// Line of the first.
        line: usize,
        /// The mark.
        mark: String,
        /// How many tasks have it.
        count: usize,
    },
    /// A task waits for an id that nothing in the file has.
    BrokenDependency {
        /// Line of the task.
        line: usize,
        /// The id that it waits for.
        id: String,
    },
    /// A graph of dependencies names a task that isn't in the file.
    UnknownWaveTask {
        /// First line of the graph.
        line: usize,
        /// The id that it names.
        id: String,
        /// The wave's number.
        wave: u32,
    },
    /// The content has signs of other dialects than the one that was taken.
    DialectUnsure {
        /// The dialect taken.
        dialect: Dialect,
        /// The others.
        others: Vec<Dialect>,
    },
    /// More blocks than [`crate::BLOCKS_MAX`]: such a file can be read but not synced.
    TooManyBlocks {
        /// How many blocks there are.
        blocks: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes are not UTF-8.
    NotUtf8 {
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// The file is over [`crate::FILE_BYTES_MAX`].
    TooLarge {
        /// Size of the file in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Problem {
    /// The line it is about, when it is about one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::UnclosedFence { line }
            | Self::UnclosedComment { line }
            | Self::ConflictMarkers { line }
            | Self::DuplicateId { line, .. }
            | Self::UnknownMark { line, .. }
            | Self::BrokenDependency { line, .. }
            | Self::UnknownWaveTask { line, .. } => Some(*line),
            Self::DialectUnsure { .. } | Self::TooManyBlocks { .. } | Self::NotUtf8 { .. } | Self::TooLarge { .. } => {
                None
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnclosedFence { line } => write!(out, "line {line}: code fence is never closed"),
            Self::UnclosedComment { line } => write!(out, "line {line}: HTML comment is never closed"),
            Self::ConflictMarkers { line } => write!(out, "line {line}: conflict markers; finish the merge"),
            Self::DuplicateId { line, first_line, id } => {
                write!(out, "line {line}: id {id} is already used in line {first_line}")
            }
            Self::UnknownMark { line, mark, count } => {
                write!(
                    out,
                    "line {line}: mark [{mark}] has no meaning in this dialect and counts as open ({count} of them)"
                )
            }
            Self::BrokenDependency { line, id } => {
                write!(out, "line {line}: waits for {id}, and nothing here has that id")
            }
            Self::UnknownWaveTask { line, id, wave } => {
                write!(out, "line {line}: wave {wave} names task {id}, and nothing here has that id")
            }
            Self::DialectUnsure { dialect, others } => {
                let others: Vec<&str> = others.iter().map(|other| other.as_str()).collect();
                write!(out, "read as {dialect}, but there are signs of {}: choose a dialect", others.join(", "))
            }
            Self::TooManyBlocks { blocks, limit } => write!(out, "{blocks} blocks, and a synced file may have {limit}"),
            Self::NotUtf8 { offset } => DecodeError::NotUtf8 { offset: *offset }.fmt(out),
            Self::TooLarge { bytes, limit } => DecodeError::TooLarge { bytes: *bytes, limit: *limit }.fmt(out),
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::NotUtf8 { offset } => Self::NotUtf8 { offset },
            DecodeError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}
