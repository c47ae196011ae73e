//! Opening files beneath a root and never outside of it, by `cap-std`: the root is a capability, and the kernel itself
//! (`openat2`, `RESOLVE_BENEATH`) refuses whatever would lead out, also where a link is put in the way between a check and a use.
//!
//! On top of that no link is followed at all, not even to a place beneath the root: each component is opened by itself with
//! `O_NOFOLLOW`. Two paths never name one file then, and a link of the user is never written through. (Where there is no
//! `openat2`, cap-std walks by hand; then a link that leads to a place beneath may be followed, and never one that leads out.)

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, File, FileType, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{OFlags, fsync};

use crate::path::FilePath;

/// The root of a checkout.
#[derive(Debug)]
pub struct Root {
    dir: Dir,
    path: PathBuf,
}

impl Root {
    /// Opens the root itself; its own path may lead over links.
    ///
    /// # Errors
    /// When it isn't a folder that can be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Not by cap-std: it opens folders for looking up only, and ours are synced as well.
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed()).open(path)?;
        Ok(Self { dir: Dir::from_std_file(file), path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the folder that was opened.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match (self.dir.dir_metadata(), self.path.metadata()) {
            (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Opens a folder beneath the root (empty = the root).
    ///
    /// # Errors
    /// `NotFound`, `ELOOP` or `ENOTDIR` where a component is a link, and whatever the file system says.
    pub fn folder(&self, folder: &str) -> io::Result<Folder> {
        self.walk(folder, false)
    }

    /// Opens a folder beneath the root and makes what is missing of it.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn make_folder(&self, folder: &str) -> io::Result<Folder> {
        self.walk(folder, true)
    }

    fn walk(&self, folder: &str, is_made: bool) -> io::Result<Folder> {
        let mut dir = self.dir.try_clone()?;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            if is_made {
                match dir.create_dir(part) {
                    Ok(()) => fsync(&dir)?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
            let opened = dir.open_with(part, &reading(OFlags::DIRECTORY))?;
            dir = Dir::from_std_file(opened.into_std());
        }
        Ok(Folder { dir })
    }

    /// Opens the folder of a synced file.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn folder_of(&self, path: &FilePath) -> io::Result<Folder> {
        self.folder(path.split().0)
    }
}

/// Opening for reading without following a link, and with these flags.
fn reading(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((flags | OFlags::NOFOLLOW).bits().cast_signed());
    options
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    dir: Dir,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Folder {
    /// Opens a folder by a path that may lead over links: for folders of our own.
    ///
    /// # Errors
    /// When it isn't a folder that can be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Root::open(path).map(|root| Self { dir: root.dir })
    }

    /// Opens a file of this folder for reading. A pipe that was put there is opened without waiting for its writer.
    ///
    /// # Errors
    /// `ELOOP` for a link, and whatever the file system says.
    pub fn read(&self, name: &str) -> io::Result<File> {
        self.dir.open_with(name, &reading(OFlags::NONBLOCK))
    }

    /// Makes a new file of this folder for reading and writing; an existing one is an error.
    ///
    /// # Errors
    /// `AlreadyExists`, and whatever the file system says.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        self.dir.open_with(name, &options)
    }

    /// Looks at an entry of this folder without opening what it is; `None` = there is none.
    ///
    /// # Errors
    /// Whatever the file system says, but for `NotFound`.
    pub fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        match self.dir.symlink_metadata(name) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry; one that is gone already is no error.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        match self.dir.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Makes the folder's entries durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.dir)?)
    }

    /// What lies in this folder, by name.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        for entry in self.dir.entries()? {
            let entry = entry?;
            let kind = entry.file_type()?;
            // Some file systems don't say it with the name.
            let is_folder = kind.is_dir() || (kind == FileType::unknown() && entry.metadata()?.is_dir());
            let name = entry.file_name();
            let is_utf8 = name.to_str().is_some();
            out.push(Entry { name: name.to_string_lossy().into_owned(), is_utf8, is_folder });
        }
        out.sort();
        Ok(out)
    }
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name; where it isn't UTF-8, as well as it can be shown.
    pub name: String,
    /// Whether `name` is the name itself.
    pub is_utf8: bool,
    /// Whether it is itself a folder (a link to one isn't).
    pub is_folder: bool,
}

#[cfg(test)]
mod tests;
