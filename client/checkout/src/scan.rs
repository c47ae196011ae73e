//! Looking at the disk: which synced files there are, and what one of them holds right now.
//!
//! Never follows a link, never writes, never decides. A file that changes while it is read is [`Found::Unstable`]: look again.

use std::io::{self, Read};

use cap_std::fs::{File, Metadata, MetadataExt};
use zyflow_spec::{DecodeError, Encoding, FILE_BYTES_MAX, decode, has_conflict_markers};

use crate::beneath::{Entry, Folder, Root};
use crate::globs::Globs;
use crate::path::{FilePath, TEMPORARY_PREFIX};

/// Most folders that one checkout walks through and watches: 8,192, a small part of Linux's default of inotify watches per user.
pub const FOLDERS_MAX: usize = 8192;

/// Most names that aren't UTF-8 that are told, a bound on the status: 32.
pub const UNNAMEABLE_MAX: usize = 32;

/// Most files that one checkout syncs, a bound on memory: 16,384.
pub const FILES_MAX: usize = 16_384;

/// Enough of a file's metadata to see that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Size in bytes.
    pub bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether it is of the file with this device and inode.
    #[must_use]
    pub fn is_of(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A file that can't be synced as it is. It is left alone.
    Parked(Parked),
    /// It changed while it was read.
    Unstable,
    /// A text.
    Text(Scanned),
}

/// A file's text as it stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their BLAKE3.
    pub digest: [u8; 32],
    /// The canonical text.
    pub text: String,
    /// How the file writes it.
    pub encoding: Encoding,
    /// The file's metadata then.
    pub stamp: Stamp,
}

/// Why a file isn't synced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Parked {
    /// Not text, or too much of it.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// A link, a folder, a pipe, a device.
    #[error("not a regular file: a link is never followed nor replaced, a pipe or a device never read")]
    NotAFile,
    /// Somebody is resolving a merge by hand.
    #[error("has conflict markers: resolve them, and it is synced again")]
    ConflictMarkers,
    /// It can't be opened.
    #[error("can't be read: {0}")]
    Unreadable(String),
    /// What is remembered of it is damaged.
    #[error("{0}")]
    DamagedState(String),
}

/// What stands at `path`.
#[must_use]
pub fn look(root: &Root, path: &FilePath) -> Found {
    let folder = match root.folder_of(path) {
        Ok(folder) => folder,
        Err(error) => return failed(&error),
    };
    read(&folder, path.split().1)
}

/// What stands in `folder` under `name`.
#[must_use]
pub fn read(folder: &Folder, name: &str) -> Found {
    match folder.metadata(name) {
        Ok(None) => return Found::Absent,
        Ok(Some(metadata)) if !metadata.is_file() => return Found::Parked(Parked::NotAFile),
        Ok(Some(metadata)) if metadata.len() > limit() => return too_large(metadata.len()),
        Ok(Some(_)) => {}
        Err(error) => return failed(&error),
    }
    match folder.read(name).and_then(read_stable) {
        Ok(Content::Whole(bytes, stamp)) => decoded(bytes, stamp),
        Ok(Content::Changing) => Found::Unstable,
        Ok(Content::NotAFile) => Found::Parked(Parked::NotAFile),
        Err(error) => failed(&error),
    }
}

fn limit() -> u64 {
    u64::try_from(FILE_BYTES_MAX).expect("invariant: the limit is 1 MiB")
}

fn too_large(bytes: u64) -> Found {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Found::Parked(DecodeError::TooLarge { bytes, limit: FILE_BYTES_MAX }.into())
}

/// What an open file gave.
enum Content {
    /// All of it, its metadata being the same before and after.
    Whole(Vec<u8>, Stamp),
    /// It changed while it was read.
    Changing,
    /// Since it was looked at, something else than a file was put there: a pipe would have to be waited for.
    NotAFile,
}

fn read_stable(mut file: File) -> io::Result<Content> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Content::NotAFile);
    }
    let before = Stamp::from(&metadata);
    let mut bytes = Vec::with_capacity(usize::try_from(before.bytes.min(limit())).unwrap_or(0));
    // One byte over the limit shows that it grew past it; nothing unbounded is read.
    (&mut file).take(limit() + 1).read_to_end(&mut bytes)?;
    let after = Stamp::from(&file.metadata()?);
    Ok(if before == after { Content::Whole(bytes, after) } else { Content::Changing })
}

fn decoded(bytes: Vec<u8>, stamp: Stamp) -> Found {
    match decode(&bytes) {
        Ok((text, _)) if has_conflict_markers(&text) => Found::Parked(Parked::ConflictMarkers),
        Ok((text, encoding)) => {
            let digest = *blake3::hash(&bytes).as_bytes();
            Found::Text(Scanned { bytes, digest, text, encoding, stamp })
        }
        Err(error) => Found::Parked(error.into()),
    }
}

fn failed(error: &io::Error) -> Found {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT) => Found::Absent,
        Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => Found::Parked(Parked::NotAFile),
        _ => Found::Parked(Parked::Unreadable(error.to_string())),
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walk {
    /// Folders that may hold synced files, the root (`""`) first.
    pub folders: Vec<String>,
    /// Entries whose path is synced, files or not.
    pub files: Vec<FilePath>,
    /// Our own temporaries that lie about: folder and name.
    pub temporaries: Vec<(String, String)>,
    /// There was more than [`FOLDERS_MAX`] or [`FILES_MAX`].
    pub is_cut: bool,
    /// Folders that couldn't be read, each with the reason.
    pub unreadable: Vec<(String, String)>,
    /// Entries that would be synced if their name were UTF-8, as well as they can be shown; at most [`UNNAMEABLE_MAX`].
    pub unnameable: Vec<String>,
}

/// All folders and files that the globs are about.
///
/// # Errors
/// When the root itself can't be read.
pub fn walk(root: &Root, globs: &Globs) -> io::Result<Walk> {
    let mut walk = Walk::default();
    let mut pending = vec![String::new()];
    while let Some(folder) = pending.pop() {
        if walk.folders.len() >= FOLDERS_MAX || walk.files.len() >= FILES_MAX {
            walk.is_cut = true;
            break;
        }
        match root.folder(&folder).and_then(|open| open.entries()) {
            Ok(entries) => sort_entries(&folder, entries, globs, &mut pending, &mut walk),
            Err(error) if folder.is_empty() => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => walk.unreadable.push((folder.clone(), error.to_string())),
        }
        walk.folders.push(folder);
    }
    Ok(walk)
}

fn sort_entries(folder: &str, entries: Vec<Entry>, globs: &Globs, pending: &mut Vec<String>, walk: &mut Walk) {
    for Entry { name, is_utf8, is_folder } in entries.into_iter().rev() {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !is_utf8 {
            let is_meant = if is_folder {
                globs.is_folder(&path)
            } else {
                FilePath::parse(&path).is_ok_and(|path| globs.is_file(&path))
            };
            if is_meant && walk.unnameable.len() < UNNAMEABLE_MAX {
                walk.unnameable.push(path);
            }
        } else if name.starts_with(TEMPORARY_PREFIX) {
            walk.temporaries.push((folder.to_owned(), name));
        } else if is_folder && globs.is_folder(&path) {
            pending.push(path);
        } else if let Ok(path) = FilePath::parse(&path)
            && globs.is_file(&path)
        {
            walk.files.push(path);
        }
    }
}
