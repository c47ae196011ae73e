//! Paths of synced files: relative, `/`-separated, and unable to lead out of the checkout.
//!
//! What a path is allowed to be is decided here once; opening it without following symlinks is [`crate::beneath`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest path in bytes: Linux's `PATH_MAX` less room for the root.
pub const PATH_BYTES_MAX: usize = 3072;

/// The path of a file within a checkout and within its project. Parsed once, at the boundary; can't be wrong afterwards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FilePath(String);

/// Why a text is not the path of a synced file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing, or a `/` at its start or end, or two in a row.
    #[error("has an empty component")]
    Empty,
    /// `.` or `..`.
    #[error("has a component `.` or `..`, which could lead out of the checkout")]
    Dots,
    /// A component `.git` in any case: git runs what lies there.
    #[error("has a component `.git`")]
    Git,
    /// NUL, a backslash or a line break.
    #[error("has a NUL, a backslash or a control character")]
    Character,
    /// Over [`PATH_BYTES_MAX`].
    #[error("is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Named like our own temporaries.
    #[error("has the prefix of our own temporary files")]
    Temporary,
}

/// Prefix of every file that we make beside a synced one.
pub const TEMPORARY_PREFIX: &str = ".zyflow-";

impl FilePath {
    /// The path that `text` is.
    ///
    /// # Errors
    /// [`PathError`] when it could lead out of the checkout or into git's own folder.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        for part in text.split('/') {
            match part {
                "" => return Err(PathError::Empty),
                "." | ".." => return Err(PathError::Dots),
                part if part.eq_ignore_ascii_case(".git") => return Err(PathError::Git),
                part if part.starts_with(TEMPORARY_PREFIX) => return Err(PathError::Temporary),
                part if part.chars().any(|c| c.is_control() || c == '\\') => return Err(PathError::Character),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folder (empty for the root) and its name.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// 32 hexadecimal digits that name files about this path elsewhere.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hex = blake3::hash(self.0.as_bytes()).to_hex().to_string();
        hex.truncate(32);
        hex
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_lead_out_are_refused() {
        for (text, error) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Empty),
            ("a//b", PathError::Empty),
            ("a/", PathError::Empty),
            ("../a", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("./a", PathError::Dots),
            (".git/hooks/pre-commit", PathError::Git),
            ("a/.GIT/config", PathError::Git),
            ("a\\b", PathError::Character),
            ("a\0b", PathError::Character),
            ("a/.zyflow-new-1", PathError::Temporary),
        ] {
            assert_eq!(FilePath::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(FilePath::parse(&"a".repeat(PATH_BYTES_MAX + 1)), Err(PathError::TooLong));
    }

    #[test]
    fn ordinary_paths_split_into_folder_and_name() {
        let path = FilePath::parse("openspec/changes/add-x/tasks.md").expect("invariant: plain");
        assert_eq!(path.split(), ("openspec/changes/add-x", "tasks.md"));
        assert_eq!(FilePath::parse("tasks.md").expect("invariant: plain").split(), ("", "tasks.md"));
        assert_eq!(path.hash().len(), 32);
    }
}
