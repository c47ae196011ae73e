//! Whether somebody has a file open for writing: then what it holds may be half of what it is going to hold.
//!
//! Linux shows the files that each process has open beneath `/proc`, and which of them for writing. A lease would tell the same with
//! one call, but stops a writer while it lasts. What can't be seen counts as not open: a process of another user where this one isn't root, a
//! process outside of this one's namespace or on another machine, a file that is only mapped. So a quiet time is needed all the same
//! ([`crate::Timing`]). It never blocks on a file system: only links are read until one has the right name.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::scan::Stamp;

/// Where Linux shows its processes.
const PROCESSES: &str = "/proc";

/// The bits of the flags of an open file that say how it is accessed; all zero = for reading only.
const ACCESS_MODE: u32 = 0o3;

/// Whether a process that can be seen has the file of this name and stamp open for writing. A file that isn't on this machine, or a
/// system without `/proc`: no.
#[must_use]
pub fn is_open_for_writing(name: &str, stamp: Stamp) -> bool {
    let Ok(processes) = fs::read_dir(PROCESSES) else { return false };
    let is_process = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    processes.flatten().filter(is_process).any(|process| has_open(&process.path(), name, stamp))
}

/// A process that ends meanwhile has nothing open, and neither has one that may not be looked at.
fn has_open(process: &Path, name: &str, stamp: Stamp) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        let path = file.path();
        let is_named = fs::read_link(&path).is_ok_and(|target| target.file_name().is_some_and(|last| last == name));
        let is_it = is_named && fs::metadata(&path).is_ok_and(|found| stamp.is_of(found.dev(), found.ino()));
        is_it && is_for_writing(&process.join("fdinfo").join(file.file_name()))
    })
}

fn is_for_writing(info: &Path) -> bool {
    let Ok(info) = fs::read_to_string(info) else { return false };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & ACCESS_MODE != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;
    use crate::beneath::Folder;
    use crate::scan::{Found, read};

    /// How long a test waits for what must happen.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Waits until nobody writes to it any more: a process that another test starts has all that this one has open, until it runs its program.
    fn until_closed(name: &str, stamp: Stamp) {
        let since = Instant::now();
        while is_open_for_writing(name, stamp) {
            assert!(since.elapsed() < PATIENCE, "{name} is still open for writing");
            std::thread::yield_now();
        }
    }

    fn stamp(dir: &TempDir, name: &str) -> Stamp {
        match read(&Folder::open(dir.path()).unwrap(), name) {
            Found::Text(text) => text.stamp,
            other => panic!("not a text: {other:?}"),
        }
    }

    #[test]
    fn a_file_is_seen_to_be_open_for_writing_under_any_name_that_it_has_now() {
        let dir = TempDir::new().unwrap();
        let (old, new) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&old, "text").unwrap();
        let file = stamp(&dir, "a");
        until_closed("a", file);
        let reader = fs::File::open(&old).unwrap();
        assert!(!is_open_for_writing("a", file), "a reader is no writer");
        let writer = OpenOptions::new().append(true).open(&old).unwrap();
        assert!(is_open_for_writing("a", file));
        fs::rename(&old, &new).unwrap();
        assert!(is_open_for_writing("b", file));
        fs::write(&old, "another file of that name").unwrap();
        until_closed("a", stamp(&dir, "a"));
        drop(writer);
        until_closed("b", file);
        drop(reader);
    }

    #[test]
    fn another_process_is_seen_too() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "text").unwrap();
        let file = stamp(&dir, "a");
        let held = OpenOptions::new().append(true).open(&path).unwrap();
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(held).spawn().unwrap();
        assert!(is_open_for_writing("a", file));
        drop(other.stdin.take());
        other.wait().unwrap();
        until_closed("a", file);
    }
}
