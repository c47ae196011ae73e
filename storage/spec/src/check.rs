//! What can be said about one file: the report behind `zyflow spec check`.

use serde::{Deserialize, Serialize};

use crate::dialect::{Dialect, summarize};
use crate::encoding::{decode, encode};
use crate::parse::parse;
use crate::problem::Problem;

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

/// Checks one file: decodes, parses, prints, encodes and compares.
#[must_use]
pub fn check(bytes: &[u8], path: Option<&str>) -> CheckReport {
    let (text, encoding) = match decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => {
            let problems = vec![Problem::from(error)];
            return CheckReport {
                bytes: bytes.len(),
                lossless: false,
                dialect: Dialect::Prose,
                tasks: 0,
                done: 0,
                problems,
            };
        }
    };
    let document = parse(&text);
    let summary = summarize(&document, path);
    CheckReport {
        bytes: bytes.len(),
        lossless: encode(&document.print(), encoding) == bytes,
        dialect: summary.dialect,
        tasks: summary.tasks,
        done: summary.done,
        problems: document.problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
