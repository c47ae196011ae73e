//! What git is doing in the checkout, so that we keep out of its way: never committing, stashing or rebasing, only looking.
//!
//! The folder is read directly (no process per look). `git` itself runs with fixed arguments only: to hash a file through the
//! filters that git would use (the write policy `clean`), and to read the text that a commit has at a path.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use zyflow_spec::{FILE_BYTES_MAX, decode};

use crate::path::FilePath;

/// Files and folders in the git folder that stand while an operation is under way.
const OPERATIONS: [(&str, &str); 8] = [
    ("index.lock", "a git command is running"),
    ("HEAD.lock", "a git command is running"),
    ("MERGE_HEAD", "a merge is under way"),
    ("CHERRY_PICK_HEAD", "a cherry-pick is under way"),
    ("REVERT_HEAD", "a revert is under way"),
    ("rebase-merge", "a rebase is under way"),
    ("rebase-apply", "a rebase is under way"),
    ("BISECT_LOG", "a bisect is under way"),
];

/// Longest chain of symbolic refs that is followed; git's own limit.
const SYMREFS_MAX: u32 = 5;

/// The repository that holds a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// Where `HEAD` and `index` of this work tree are.
    dir: PathBuf,
    /// Where refs and objects are: `dir` itself but for worktrees.
    common: PathBuf,
}

/// Where HEAD stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The branch; `None` = detached.
    pub branch: Option<String>,
    /// The commit, where there is one and it can be read.
    pub commit: Option<String>,
}

/// What git leaves behind when it does something: another one of these means that it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// The commit that HEAD names.
    pub commit: Option<String>,
    /// The index: every checkout, stash, reset and merge replaces it; so do an `add` and a refresh.
    pub index: Option<Trace>,
    /// The newest stash.
    pub stash: Option<Trace>,
}

/// Enough of a file of git's to see that it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Trace {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.symlink_metadata().ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { inode: metadata.ino(), bytes: metadata.len(), changed })
    }
}

/// Why git couldn't say.
#[derive(Debug, thiserror::Error)]
#[error("git {command}: {reason}")]
pub struct GitError {
    command: &'static str,
    reason: String,
}

impl Git {
    /// The repository whose work tree holds `root`, if any.
    #[must_use]
    pub fn discover(root: &Path) -> Option<Self> {
        root.ancestors().find_map(|folder| Self::at(&folder.join(".git")))
    }

    fn at(dot_git: &Path) -> Option<Self> {
        let dir = if dot_git.is_dir() {
            dot_git.to_owned()
        } else {
            let text = fs::read_to_string(dot_git).ok()?;
            dot_git.parent()?.join(text.strip_prefix("gitdir:")?.trim())
        };
        dir.join("HEAD").is_file().then_some(())?;
        let common = match fs::read_to_string(dir.join("commondir")) {
            Ok(text) => dir.join(text.trim()),
            Err(_) => dir.clone(),
        };
        Some(Self { dir, common })
    }

    /// The git folder of this work tree.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What git did last, as far as its files tell.
    #[must_use]
    pub fn traces(&self) -> Traces {
        let stash = Trace::of(&self.common.join("logs/refs/stash"));
        Traces { commit: self.head().commit, index: Trace::of(&self.dir.join("index")), stash }
    }

    /// What git is in the middle of, if anything.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        OPERATIONS.iter().find(|(file, _)| self.dir.join(file).symlink_metadata().is_ok()).map(|(_, what)| *what)
    }

    /// Where HEAD stands.
    #[must_use]
    pub fn head(&self) -> Head {
        let Ok(text) = fs::read_to_string(self.dir.join("HEAD")) else { return Head::default() };
        match text.trim().strip_prefix("ref:") {
            Some(name) => {
                let name = name.trim();
                let branch = Some(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned());
                Head { branch, commit: self.resolve(name, SYMREFS_MAX) }
            }
            None => Head { branch: None, commit: Some(text.trim().to_owned()) },
        }
    }

    fn resolve(&self, name: &str, depth: u32) -> Option<String> {
        for folder in [&self.dir, &self.common] {
            if let Ok(text) = fs::read_to_string(folder.join(name)) {
                return match text.trim().strip_prefix("ref:") {
                    Some(next) => self.resolve(next.trim(), depth.checked_sub(1)?),
                    None => Some(text.trim().to_owned()),
                };
            }
        }
        let packed = fs::read_to_string(self.common.join("packed-refs")).ok()?;
        let line = packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, found)| found == name))?;
        line.split_once(' ').map(|(commit, _)| commit.to_owned())
    }
}

/// Answers whether a file equals HEAD's, asking git as seldom as possible.
#[derive(Debug, Default)]
pub struct HeadBlobs {
    commit: Option<String>,
    blobs: BTreeMap<FilePath, Option<String>>,
}

impl HeadBlobs {
    /// Whether `bytes` at `path` equal the blob that HEAD has there, after git's filters; `None` = HEAD has none.
    ///
    /// # Errors
    /// [`GitError`] when git can't be run or fails.
    pub fn is_clean(
        &mut self,
        root: &Path,
        head: &Head,
        path: &FilePath,
        bytes: &[u8],
    ) -> Result<Option<bool>, GitError> {
        if head.commit.is_none() || self.commit != head.commit {
            self.blobs.clear();
            self.commit.clone_from(&head.commit);
        }
        let blob = if let Some(blob) = self.blobs.get(path) {
            blob.clone()
        } else {
            let blob = head_blob(root, path)?;
            self.blobs.insert(path.clone(), blob.clone());
            blob
        };
        let Some(blob) = blob else { return Ok(None) };
        Ok(Some(hash_object(root, path, bytes)? == blob))
    }
}

/// The canonical text that a commit (or with an empty name the index) has at `path`; `None` = nothing there, or no text.
///
/// # Errors
/// [`GitError`] when git can't be run.
pub fn text_at(root: &Path, commit: &str, path: &FilePath) -> Result<Option<String>, GitError> {
    let failed = |error: std::io::Error| GitError { command: "cat-file", reason: error.to_string() };
    let mut child = git(root)
        .args(["cat-file", "blob"])
        .arg(format!("{commit}:./{path}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte over the limit shows that it is too large; git is told to stop by the closed pipe.
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = child.stdout.take().map_or(Ok(0), |stdout| stdout.take(limit).read_to_end(&mut bytes));
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if !status.success() {
        return Ok(None);
    }
    Ok(decode(&bytes).ok().map(|(text, _)| text))
}

fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(variable);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn head_blob(root: &Path, path: &FilePath) -> Result<Option<String>, GitError> {
    let command = "rev-parse";
    let failed = |reason: String| GitError { command, reason };
    let output = git(root)
        .args(["rev-parse", "--verify", "--quiet"])
        .arg(format!("HEAD:./{path}"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
        // With --quiet: no HEAD yet, or nothing there in HEAD.
        Some(1) => Ok(None),
        // Without a word about the path git says "exists on disk, but not in HEAD" as a fatal error of its own.
        Some(128) if String::from_utf8_lossy(&output.stderr).contains("not in 'HEAD'") => Ok(None),
        _ => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn hash_object(root: &Path, path: &FilePath, bytes: &[u8]) -> Result<String, GitError> {
    let command = "hash-object";
    let failed = |reason: String| GitError { command, reason };
    let mut child = git(root)
        .args(["hash-object", "--stdin", "--path"])
        .arg(path.as_str())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("invariant: asked for above");
    let written = stdin.write_all(bytes);
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    written.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
