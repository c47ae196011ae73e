//! How one checkout writes a text: between the bytes of a file and the canonical text that the cluster agrees on.
//!
//! Canonical text is UTF-8 without a byte order mark, with LF line ends, and ends with LF unless it is empty. What a file does
//! differently is remembered in its [`Encoding`], so that two checkouts with other habits hold the same document.
//!
//! Invariants, held by property tests:
//! - `encode(decode(bytes)) == bytes` for every byte string that is UTF-8 and within the limit;
//! - `decode(encode(text, any encoding)).text == text` for every canonical text without carriage returns.
//!
//! It doesn't guess other character sets and doesn't repair anything.

use serde::{Deserialize, Serialize};

/// Largest file that is synced, in bytes: 1 MiB, more than twice the largest task file seen in 3,837 real ones (406 KB), and small
/// enough that a whole document travels in one message.
pub const FILE_BYTES_MAX: usize = 1 << 20;

const BOM: char = '\u{feff}';

/// How one file writes the canonical text. The default is LF, no byte order mark, a final newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// The file starts with a UTF-8 byte order mark.
    pub bom: bool,
    /// Every line of the file ends with CR LF. A file with mixed line ends has `false` here and keeps its CRs as content.
    pub crlf: bool,
    /// The file ends with a line end.
    pub final_newline: bool,
}

impl Default for Encoding {
    fn default() -> Self {
        Self { bom: false, crlf: false, final_newline: true }
    }
}

/// Why bytes are not a document. Such a file is left untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8: the first invalid byte is at offset {offset}; save the file as UTF-8")]
    NotUtf8 {
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// The file is over [`FILE_BYTES_MAX`].
    #[error("{bytes} bytes, and a synced file may have {limit}; split it or leave it out of the project's globs")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
        /// The limit, [`FILE_BYTES_MAX`].
        limit: usize,
    },
}

/// The canonical text of a file, and how the file writes it.
///
/// # Errors
/// [`DecodeError`] when the bytes are over [`FILE_BYTES_MAX`] or not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<(String, Encoding), DecodeError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), limit: FILE_BYTES_MAX });
    }
    let whole = std::str::from_utf8(bytes).map_err(|error| DecodeError::NotUtf8 { offset: error.valid_up_to() })?;
    let (bom, body) = whole.strip_prefix(BOM).map_or((false, whole), |body| (true, body));
    let crlf = is_uniform_crlf(body);
    let final_newline = body.is_empty() || body.ends_with('\n');
    let mut text = if crlf { body.replace("\r\n", "\n") } else { body.to_owned() };
    if !final_newline {
        text.push('\n');
    }
    Ok((text, Encoding { bom, crlf, final_newline }))
}

/// The bytes of a canonical text as this checkout writes it.
///
/// A text that could not be told apart afterwards (it ends with a blank line but the file has no final newline; it starts with U+FEFF
/// itself) is written so that decoding gives the same text, which then differs from `encoding` in that one habit.
#[must_use]
pub fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    let body = match text.strip_suffix('\n') {
        Some(body) if !encoding.final_newline && !body.is_empty() && !body.ends_with('\n') => body,
        Some(_) | None => text,
    };
    let mut out = String::with_capacity(body.len() + BOM.len_utf8());
    if encoding.bom || body.starts_with(BOM) {
        out.push(BOM);
    }
    if encoding.crlf {
        for line in body.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    out.push_str(line);
                    out.push_str("\r\n");
                }
                None => out.push_str(line),
            }
        }
    } else {
        out.push_str(body);
    }
    out.into_bytes()
}

/// Whether the text holds the markers that a line merge leaves behind: `<<<<<<<` at the start of a line, or `>>>>>>>` after a
/// `=======` (a half-resolved hunk). While they stand somebody is resolving the file by hand.
#[must_use]
pub fn has_conflict_markers(text: &str) -> bool {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    conflict_marker_offset(text, starts).is_some()
}

/// Byte offset of the first line that makes [`has_conflict_markers`] true, when the lines start at `starts`.
pub(crate) fn conflict_marker_offset(text: &str, starts: impl Iterator<Item = usize>) -> Option<usize> {
    let (mut opens, mut middle) = (None, None);
    for start in starts {
        match text.as_bytes().get(start) {
            Some(b'<') if opens.is_none() && is_marker(text, start, "<<<<<<<") => opens = Some(start),
            Some(b'=') if middle.is_none() && is_marker(text, start, "=======") => middle = Some(start),
            Some(b'>') if middle.is_some() && is_marker(text, start, ">>>>>>>") => {
                return opens.into_iter().chain(middle).min();
            }
            Some(_) | None => {}
        }
        if opens.is_some() && middle.is_none() {
            return opens;
        }
    }
    opens
}

fn is_marker(text: &str, start: usize, marker: &str) -> bool {
    let after = text.get(start..).and_then(|line| line.strip_prefix(marker));
    after.is_some_and(|after| matches!(after.as_bytes().first(), None | Some(b' ' | b'\n' | b'\r')))
}

fn is_uniform_crlf(body: &str) -> bool {
    let bytes = body.as_bytes();
    body.contains("\r\n")
        && bytes.iter().enumerate().all(|(at, byte)| *byte != b'\n' || (at > 0 && bytes.get(at - 1) == Some(&b'\r')))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test should panic")]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: &Expect) {
        expected.assert_eq(&match decode(bytes) {
            Ok((text, encoding)) => {
                assert_eq!(encode(&text, encoding), bytes, "decode and encode is the identity");
                let flags =
                    [(encoding.bom, " bom"), (encoding.crlf, " crlf"), (!encoding.final_newline, " no-final-newline")];
                flags.iter().filter(|(is_set, _)| *is_set).fold(format!("{text:?}"), |line, (_, flag)| line + flag)
            }
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn habits_of_files_are_remembered_and_restored() {
        check(b"", &expect![[r#""""#]]);
        check(b"a\nb\n", &expect![[r#""a\nb\n""#]]);
        check(b"a\nb", &expect![[r#""a\nb\n" no-final-newline"#]]);
        check(b"a\r\nb\r\n", &expect![[r#""a\nb\n" crlf"#]]);
        check(b"a\r\nb", &expect![[r#""a\nb\n" crlf no-final-newline"#]]);
        check(b"a\r\nb\n", &expect![[r#""a\r\nb\n""#]]);
        check(b"a\r", &expect![[r#""a\r\n" no-final-newline"#]]);
        check(b"a\r\r\n", &expect![[r#""a\r\n" crlf"#]]);
        check("\u{feff}a\n".as_bytes(), &expect![[r#""a\n" bom"#]]);
        check("\u{feff}".as_bytes(), &expect![[r#""" bom"#]]);
        check("\u{feff}\u{feff}a\n".as_bytes(), &expect![[r#""\u{feff}a\n" bom"#]]);
        check(b"a\0b\n", &expect![[r#""a\0b\n""#]]);
    }

    #[test]
    fn what_is_no_document_is_refused_with_the_place() {
        check(b"ok \xff", &expect!["not UTF-8: the first invalid byte is at offset 3; save the file as UTF-8"]);
        let large = vec![b'a'; FILE_BYTES_MAX + 1];
        assert_eq!(decode(&large), Err(DecodeError::TooLarge { bytes: FILE_BYTES_MAX + 1, limit: FILE_BYTES_MAX }));
        let (text, encoding) = decode(large.get(1..).unwrap()).unwrap();
        assert_eq!(encode(&text, encoding).len(), FILE_BYTES_MAX);
    }

    #[test]
    fn conflict_markers_are_seen_only_at_line_starts() {
        assert!(has_conflict_markers("a\n<<<<<<< HEAD\nb\n"));
        assert!(has_conflict_markers("a\n=======\nb\n>>>>>>> other\n"));
        assert!(!has_conflict_markers("Title\n=======\n"));
        assert!(!has_conflict_markers("a <<<<<<< b\n<<<<<<<<<< c\n"));
        assert!(!has_conflict_markers(">>>>>>> deep quote\n"));
    }

    fn files() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[a-z ]{0,3}",
            Just("\r".to_owned()),
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("\u{feff}".to_owned()),
            any::<char>().prop_map(String::from)
        ];
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn decode_and_encode_is_the_identity(bytes in files()) {
            if let Ok((text, encoding)) = decode(&bytes) {
                prop_assert!(text.is_empty() || text.ends_with('\n'));
                prop_assert_eq!(encode(&text, encoding), bytes);
            }
        }

        #[test]
        fn every_encoding_carries_every_canonical_text(lines in prop::collection::vec("[a-c\u{feff} ]{0,3}\n", 0..6), bom: bool, crlf: bool, final_newline: bool) {
            let text = lines.concat();
            let bytes = encode(&text, Encoding { bom, crlf, final_newline });
            prop_assert_eq!(decode(&bytes).unwrap().0, text);
        }
    }
}
