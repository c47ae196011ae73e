//! What can be said about one file: the report behind `zyflow spec check`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockKind};
use crate::convention::Convention;
use crate::dialect::rules::rules_of;
use crate::dialect::{Dialect, detect, others};
use crate::encoding::{decode, encode};
use crate::facts::{facts, id_key, waves_in};
use crate::parse::{Document, parse};
use crate::problem::Problem;

/// At most this many broken references and as many unknown marks are reported for one file; the rest would only bury the first.
const PROBLEMS_REPORTED_MAX: usize = 100;

/// The report on one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Size of the file.
    pub bytes: usize,
    /// Whether parsing and printing gave the same bytes. False also for a file that can't be read as text.
    pub lossless: bool,
    /// The convention that the file follows.
    pub dialect: Dialect,
    /// How many tasks there are.
    pub tasks: usize,
    /// How many of them are ticked.
    pub done: usize,
    /// What is odd about the file.
    pub problems: Vec<Problem>,
}

/// Checks one file: decodes, parses, prints, encodes and compares; the dialect is told from path and content.
#[must_use]
pub fn check(bytes: &[u8], path: Option<&str>) -> CheckReport {
    report(bytes, |document| Convention::of(detect(document, path)))
}

/// Checks one file as [`check`] does, in a convention that somebody chose.
#[must_use]
pub fn check_as(bytes: &[u8], convention: &Convention) -> CheckReport {
    report(bytes, |_| convention.clone())
}

fn report(bytes: &[u8], convention_of: impl Fn(&Document) -> Convention) -> CheckReport {
    let (text, encoding) = match decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => {
            let problems = vec![Problem::from(error)];
            let (dialect, lossless) = (Dialect::Prose, false);
            return CheckReport { bytes: bytes.len(), lossless, dialect, tasks: 0, done: 0, problems };
        }
    };
    let document = parse(&text);
    let convention = convention_of(&document);
    let tasks = || document.blocks.iter().filter(|block| block.kind == BlockKind::Task);
    let mut report = CheckReport {
        bytes: bytes.len(),
        lossless: encode(&document.print(), encoding) == bytes,
        dialect: convention.dialect,
        tasks: tasks().count(),
        done: tasks().filter(|task| task.is_done()).count(),
        problems: found(&document.blocks, &convention),
    };
    report.problems.extend(document.problems);
    report.problems.sort_by_key(|problem| problem.line().unwrap_or(usize::MAX));
    report
}

/// What is odd about the tasks as they are read in a convention.
fn found(blocks: &[Block], convention: &Convention) -> Vec<Problem> {
    let read = facts(blocks, convention);
    let ids: BTreeSet<&str> = blocks.iter().filter_map(Block::explicit_id).map(id_key).collect();
    let mut marks: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut line = 1;
    for (block, facts) in blocks.iter().zip(&read) {
        if let Some(facts) = facts {
            if convention.state_of(&block.content.mark).is_none() {
                let (_, count) = marks.entry(block.content.mark.as_str()).or_insert((line, 0));
                *count += 1;
            }
            if rules_of(convention.dialect).is_closed {
                let missing = facts.blocked_by.iter().filter(|id| !ids.contains(id_key(id)));
                problems.extend(missing.map(|id| Problem::BrokenDependency { line, id: id.clone() }));
            }
        } else if block.kind == BlockKind::Fence {
            let missing = waves_in(&block.content.text).into_iter().filter(|(id, _)| !ids.contains(id_key(id)));
            problems.extend(missing.map(|(id, wave)| Problem::UnknownWaveTask { line, id, wave }));
        }
        line += block.content.text.bytes().filter(|byte| *byte == b'\n').count();
    }
    problems.truncate(PROBLEMS_REPORTED_MAX);
    let unknown = marks.into_iter().take(PROBLEMS_REPORTED_MAX);
    problems.extend(unknown.map(|(mark, (line, count))| Problem::UnknownMark { line, mark: mark.to_owned(), count }));
    let others = others(blocks, convention.dialect);
    if !others.is_empty() {
        problems.push(Problem::DialectUnsure { dialect: convention.dialect, others });
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::FILE_BYTES_MAX;
    use expect_test::{Expect, expect};

    fn check_report(bytes: &[u8], expected: &Expect) {
        let CheckReport { bytes, lossless, dialect, tasks, done, problems } = check(bytes, Some("tasks.md"));
        let problems: Vec<String> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        let head = format!("{bytes} bytes, lossless {lossless}, {dialect} {done}/{tasks}\n");
        expected.assert_eq(&(head + &problems.concat()));
    }

    #[test]
    fn reports_count_and_name_the_lines() {
        check_report(
            b"- [x] 1.1 a\r\n- [ ] 1.1 b\r\n```\r\n- [ ] c\r\n",
            &expect![[r#"
                40 bytes, lossless true, checklist 1/3
                line 2: id 1.1 is already used in line 1
                line 3: code fence is never closed
            "#]],
        );
        check_report(
            b"<<<<<<< HEAD\na\n=======\nb\n>>>>>>> other\n",
            &expect![[r#"
            39 bytes, lossless true, prose 0/0
            line 1: conflict markers; finish the merge
        "#]],
        );
        check_report(
            b"\xff",
            &expect![[r#"
            1 bytes, lossless false, prose 0/0
            not UTF-8: the first invalid byte is at offset 0; save the file as UTF-8
        "#]],
        );
    }

    #[test]
    fn a_file_at_the_limit_is_checked() {
        let line = "- [ ] 1.1 something to do that is neither short nor long\n";
        let report = check(line.repeat(FILE_BYTES_MAX / line.len()).as_bytes(), None);
        assert!(report.lossless);
        assert_eq!(report.tasks, FILE_BYTES_MAX / line.len());
    }
}
