//! Which files of a checkout are synced: a project's globs, relative to the checkout's root.
//!
//! `*` and `?` stay within one component, `**` crosses folders. A glob also says which folders are worth entering (and watching), so
//! that nothing walks through `node_modules` to find `openspec/changes/*/tasks.md`.

use globset::{GlobBuilder, GlobMatcher};

use crate::path::FilePath;

/// Folders that are never entered, whatever the globs say: git's own, and dependency trees of 10^5 files.
const SKIPPED_FOLDERS: [&str; 5] = [".git", ".hg", ".svn", ".jj", "node_modules"];

/// A project's globs, compiled.
#[derive(Debug, Default)]
pub struct Globs {
    globs: Vec<Vec<Part>>,
    refused: Vec<(String, String)>,
}

#[derive(Debug)]
enum Part {
    /// `**`: any number of folders.
    Any,
    /// One component.
    One(GlobMatcher),
}

impl Globs {
    /// Compiles globs. One that can't be compiled or could lead out is left out and told by [`Globs::refused`].
    #[must_use]
    pub fn new(globs: &[String]) -> Self {
        let mut compiled = Self::default();
        for glob in globs {
            match compile(glob) {
                Ok(parts) => compiled.globs.push(parts),
                Err(reason) => compiled.refused.push((glob.clone(), reason)),
            }
        }
        compiled
    }

    /// Globs that are not used, each with the reason.
    #[must_use]
    pub fn refused(&self) -> &[(String, String)] {
        &self.refused
    }

    /// Whether a file is synced.
    #[must_use]
    pub fn is_file(&self, path: &FilePath) -> bool {
        let parts: Vec<&str> = path.as_str().split('/').collect();
        let folders = &parts[..parts.len() - 1];
        !folders.iter().any(|part| SKIPPED_FOLDERS.contains(part))
            && self.globs.iter().any(|glob| is_match(glob, &parts))
    }

    /// Whether a folder (`/`-separated, empty for the root) may hold synced files, itself or below.
    #[must_use]
    pub fn is_folder(&self, folder: &str) -> bool {
        if folder.is_empty() {
            return true;
        }
        let parts: Vec<&str> = folder.split('/').collect();
        !parts.iter().any(|part| SKIPPED_FOLDERS.contains(part))
            && self.globs.iter().any(|glob| is_prefix(glob, &parts))
    }
}

fn compile(glob: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for part in glob.split('/') {
        match part {
            "" | "." | ".." => return Err("has an empty component, `.` or `..`".to_owned()),
            "**" => parts.push(Part::Any),
            part => {
                let glob = GlobBuilder::new(part).literal_separator(true).backslash_escape(true).build();
                parts.push(Part::One(glob.map_err(|error| error.to_string())?.compile_matcher()));
            }
        }
    }
    match parts.last() {
        Some(Part::One(_)) => Ok(parts),
        Some(Part::Any) | None => Err("doesn't end with a file name".to_owned()),
    }
}

fn is_match(glob: &[Part], path: &[&str]) -> bool {
    match (glob, path) {
        ([], []) => true,
        ([Part::Any, rest @ ..], _) => {
            is_match(rest, path) || path.split_first().is_some_and(|(_, tail)| is_match(glob, tail))
        }
        ([Part::One(part), rest @ ..], [first, tail @ ..]) => part.is_match(first) && is_match(rest, tail),
        ([], [_, ..]) | ([Part::One(_), ..], []) => false,
    }
}

/// Whether a path below `folder` could match.
fn is_prefix(glob: &[Part], folder: &[&str]) -> bool {
    match (glob, folder) {
        ([Part::Any, ..], _) | ([Part::One(_), ..], []) => true,
        ([Part::One(part), rest @ ..], [first, tail @ ..]) => part.is_match(first) && is_prefix(rest, tail),
        ([], _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(globs: &[&str]) -> Globs {
        Globs::new(&globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>())
    }

    fn is_file(globs: &Globs, path: &str) -> bool {
        globs.is_file(&FilePath::parse(path).expect("invariant: a plain path"))
    }

    #[test]
    fn a_star_stays_within_one_component() {
        let globs = globs(&["openspec/changes/*/tasks.md", "tasks.md"]);
        assert!(is_file(&globs, "openspec/changes/add-x/tasks.md"));
        assert!(is_file(&globs, "tasks.md"));
        assert!(!is_file(&globs, "openspec/changes/archive/add-x/tasks.md"));
        assert!(!is_file(&globs, "openspec/changes/tasks.md"));
        assert!(!is_file(&globs, "openspec/changes/add-x/tasks.md.swp"));
    }

    #[test]
    fn only_folders_that_may_hold_a_match_are_entered() {
        let globs = globs(&["openspec/changes/*/tasks.md"]);
        for folder in ["", "openspec", "openspec/changes", "openspec/changes/add-x"] {
            assert!(globs.is_folder(folder), "{folder}");
        }
        for folder in ["src", "openspec/specs", "openspec/changes/add-x/specs"] {
            assert!(!globs.is_folder(folder), "{folder}");
        }
    }

    #[test]
    fn two_stars_cross_folders_but_not_dependency_trees() {
        let globs = globs(&["**/tasks.md"]);
        assert!(is_file(&globs, "tasks.md"));
        assert!(is_file(&globs, "a/b/tasks.md"));
        assert!(!is_file(&globs, "a/node_modules/b/tasks.md"));
        assert!(globs.is_folder("a/b") && !globs.is_folder("a/.git"));
    }

    #[test]
    fn globs_that_could_lead_out_are_refused() {
        let globs = globs(&["../x/tasks.md", "/etc/*", "a/**", "a/[", "ok/*.md"]);
        assert_eq!(globs.refused().len(), 4);
        assert!(is_file(&globs, "ok/a.md"));
    }
}
