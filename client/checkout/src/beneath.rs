//! Opening files beneath a root without ever following a symbolic link: every component is opened by itself with `O_NOFOLLOW`,
//! relative to the one before, so that a link that is put in the way between a check and a use leads nowhere.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fsync, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::path::FilePath;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The root of a checkout.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the root itself; its own path may lead over links.
    ///
    /// # Errors
    /// When it isn't a folder that can be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(CWD, path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the folder that was opened.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let opened = self.fd.try_clone().map(File::from).and_then(|file| file.metadata());
        match (opened, self.path.metadata()) {
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
        let mut fd = self.fd.try_clone()?;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            if is_made {
                match mkdirat(&fd, part, Mode::from_raw_mode(0o777)) {
                    Ok(()) => fsync(&fd)?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            fd = openat(&fd, part, FOLDER, Mode::empty())?;
        }
        Ok(Folder { fd })
    }

    /// Opens the folder of a synced file.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn folder_of(&self, path: &FilePath) -> io::Result<Folder> {
        self.folder(path.split().0)
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens a folder by a path that may lead over links: for folders of our own.
    ///
    /// # Errors
    /// When it isn't a folder that can be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Root::open(path).map(|root| Self { fd: root.fd })
    }

    /// Opens a file of this folder for reading, a link or a pipe included only to be looked at.
    ///
    /// # Errors
    /// `ELOOP` for a link, and whatever the file system says.
    pub fn read(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, name, flags, Mode::empty())?))
    }

    /// Makes a new file of this folder for reading and writing; an existing one is an error.
    ///
    /// # Errors
    /// `AlreadyExists`, and whatever the file system says.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, name, flags, Mode::from_raw_mode(0o666))?))
    }

    /// Looks at an entry of this folder without opening what it is; `None` = there is none.
    ///
    /// # Errors
    /// Whatever the file system says, but for `NotFound`.
    pub fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        match openat(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => File::from(fd).metadata().map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an entry; one that is gone already is no error.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the folder's entries durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }

    /// The names in this folder, each with whether it is itself a folder (a link to one isn't).
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn entries(&self) -> io::Result<Vec<(String, bool)>> {
        let mut out = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            #[expect(clippy::wildcard_enum_match_arm, reason = "another library's list of file types")]
            let is_folder = match entry.file_type() {
                rustix::fs::FileType::Directory => true,
                rustix::fs::FileType::Unknown => self.metadata(name)?.is_some_and(|metadata| metadata.is_dir()),
                _ => false,
            };
            out.push((name.to_owned(), is_folder));
        }
        out.sort();
        Ok(out)
    }
}
