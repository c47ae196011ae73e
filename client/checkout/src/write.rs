//! Replacing, making and removing a file so that no byte of a user is ever lost.
//!
//! ```text
//!   tmp (ours) ──fsync──┐                     ┌── file = ours
//!                       ├─ renameat2 EXCHANGE ┤
//!   file (scanned?) ────┘                     └── tmp  = whatever stood there: look at it
//!                                                   as scanned      -> keep it linked, watch it 30 s
//!                                                   another text    -> keep it; the engine merges it
//!                                                   not mergeable   -> swap it back
//! ```
//!
//! The temporary lies in the keep, outside of the work tree, so that no `git add .` trips over it; only a file that is new is made beside
//! its place, to inherit what the folder gives. A reader sees the old or the new file, never a part or a gap. A writer may still hold the old inode open, so it stays linked
//! outside the work tree ([`Keep`]) until nobody has written to it for a while.
//!
//! Where the file system can't exchange, [`Way::LinkThenRename`] links the old inode first and renames over it: then a program that
//! *renames* its save into place within the microseconds between check and rename loses it; nothing else differs. Where it can't
//! link either, nothing is written.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cap_std::fs::{File, Metadata, MetadataExt as _};
use rustix::fs::{AtFlags, Gid, Mode, RenameFlags, Uid, XattrFlags, fchmod, fchown, linkat, renameat, renameat_with};
use rustix::io::Errno;

use crate::beneath::{Folder, Root};
use crate::path::{FilePath, TEMPORARY_PREFIX};
use crate::scan::{Found, Scanned, Stamp, read};

/// Most names tried for a temporary or a kept file before giving up.
const NAMES_MAX: u32 = 1000;

/// Why nothing was written. The file is as it was; the engine tries again later.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file has no write permission: somebody wants it left alone.
    #[error("the file is read-only: chmod u+w lets it be synced")]
    ReadOnly,
    /// The new file couldn't be given the owner of the old one.
    #[error("the file belongs to user {uid}, group {gid}, which this process can't give to a new file")]
    Owner {
        /// The old file's user.
        uid: u32,
        /// The old file's group.
        gid: u32,
    },
    /// Neither exchange nor link.
    #[error("the file system can neither swap nor link files, so a write could lose an edit")]
    NoSwap,
    /// Any other failure: no space, read-only folder.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> WriteError {
    move |error| WriteError::Io { action, source: error.into() }
}

/// How a file can be replaced here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `renameat2` with `RENAME_EXCHANGE`.
    Exchange,
    /// The fallback: hard link of the old inode, then rename over it.
    LinkThenRename,
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// The file holds the new bytes, and what it held before is what was scanned; that lies in the keep under this name.
    Done {
        /// Name in the keep; `None` where there was no file.
        kept: Option<String>,
    },
    /// The file holds the new bytes, and what it held before was *not* what was scanned: it must be merged.
    Displaced {
        /// Name in the keep.
        kept: String,
    },
    /// The file isn't what was scanned: nothing was written, look again.
    Changed,
}

/// The folder outside the work tree that holds replaced files, on the same file system.
#[derive(Debug)]
pub struct Keep {
    folder: Folder,
    path: PathBuf,
}

impl Keep {
    /// Opens or makes the first of `folders` that is on the file system of `root`.
    ///
    /// # Errors
    /// When none is, or none can be made: swapped-out files couldn't be kept then.
    pub fn open(root: &Root, folders: &[PathBuf]) -> io::Result<Self> {
        let device = root.path().metadata()?.dev();
        let mut last = io::Error::new(
            io::ErrorKind::CrossesDevices,
            "no folder on the checkout's file system to keep replaced files in",
        );
        for path in folders {
            match fs_err::create_dir_all(path).and_then(|()| path.metadata()) {
                Ok(metadata) if metadata.dev() == device => {
                    return Ok(Self { folder: Folder::open(path)?, path: path.clone() });
                }
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let files = self.folder.entries()?.into_iter().filter(|entry| entry.is_utf8 && !entry.is_folder);
        Ok(files.map(|entry| entry.name).collect())
    }

    /// What a kept file holds now.
    #[must_use]
    pub fn read(&self, name: &str) -> Found {
        read(&self.folder, name)
    }

    /// What a kept file is like now; `None` = it isn't there or can't be looked at.
    #[must_use]
    pub fn stamp(&self, name: &str) -> Option<Stamp> {
        self.folder.metadata(name).ok().flatten().as_ref().map(Stamp::from)
    }

    /// Removes a kept file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.unlink(name)
    }

    /// Moves an entry of `folder` here.
    ///
    /// # Errors
    /// Whatever the file system says; the entry is where it was then.
    pub fn take(&self, folder: &Folder, name: &str, path: &FilePath) -> io::Result<String> {
        for nth in 0..NAMES_MAX {
            let kept = format!("{}-{nth}", path.hash());
            match rename_new(folder, name, &self.folder, &kept) {
                Ok(()) => return Ok(kept),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many replaced files are kept"))
    }
}

impl Keep {
    /// Notes in the name of a kept file that its content, of this digest, is accounted for; a restart then knows it too. Gives the
    /// new name.
    ///
    /// # Errors
    /// Whatever the file system says; the file has its old name then.
    pub fn account(&self, name: &str, path: &FilePath, digest: &[u8; 32]) -> io::Result<String> {
        for nth in 0..NAMES_MAX {
            let accounted = format!("{}-{nth}-{}", path.hash(), short(digest));
            match rename_new(&self.folder, name, &self.folder, &accounted) {
                Ok(()) => return Ok(accounted),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many replaced files are kept"))
    }

    /// Whether the name of a kept file says that content of this digest is accounted for.
    #[must_use]
    pub fn is_accounted(name: &str, digest: &[u8; 32]) -> bool {
        name.splitn(3, '-').nth(2).is_some_and(|noted| noted == short(digest))
    }
}

/// Enough of a digest to know a text again among those of one file.
fn short(digest: &[u8; 32]) -> String {
    let mut hex = blake3::Hash::from_bytes(*digest).to_hex().to_string();
    hex.truncate(16);
    hex
}

/// Renames to a name that must be free.
fn rename_new(from: &Folder, name: &str, to: &Folder, new: &str) -> Result<(), Errno> {
    match renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            linkat(from, name, to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(from, name, AtFlags::empty())
        }
        other => other,
    }
}

/// Writes files of one checkout.
pub struct Writer<'a> {
    /// The checkout's root.
    pub root: &'a Root,
    /// Where replaced files go.
    pub keep: &'a Keep,
    /// How to replace.
    pub way: Way,
    /// Called right before a swap: where tests let another writer in.
    pub before_swap: &'a dyn Fn(&FilePath),
}

impl Writer<'_> {
    /// Replaces the file at `path`, which held `scanned`, by `bytes`.
    ///
    /// # Errors
    /// [`WriteError`]; the file is as it was.
    pub fn replace(&self, path: &FilePath, scanned: &Scanned, bytes: &[u8]) -> Result<Written, WriteError> {
        let (folder_path, name) = path.split();
        let folder = self.root.folder(folder_path).map_err(failed("open the folder"))?;
        let Some(metadata) = folder.metadata(name).map_err(failed("look at the file"))? else {
            return Ok(Written::Changed);
        };
        if Stamp::from(&metadata) != scanned.stamp {
            return Ok(Written::Changed);
        }
        if metadata.mode() & 0o222 == 0 {
            return Err(WriteError::ReadOnly);
        }
        let temporary = temporary(&self.keep.folder, path, bytes, Some((&folder, &metadata, name)))?;
        (self.before_swap)(path);
        let swapped = match self.way {
            Way::Exchange => self.exchange(path, &folder, &temporary, scanned, bytes),
            Way::LinkThenRename => self.link_then_rename(path, &folder, &temporary, scanned),
        };
        if swapped.is_err() || matches!(swapped, Ok(Written::Changed)) {
            discard(&self.keep.folder, &temporary, bytes);
        }
        swapped
    }

    fn exchange(
        &self,
        path: &FilePath,
        folder: &Folder,
        temporary: &str,
        scanned: &Scanned,
        bytes: &[u8],
    ) -> Result<Written, WriteError> {
        match renameat_with(&self.keep.folder, temporary, folder, path.split().1, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Written::Changed),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return self.link_then_rename(path, folder, temporary, scanned);
            }
            Err(error) => return Err(failed("swap the file")(error)),
        }
        let came_out = read(&self.keep.folder, temporary);
        if let Found::Parked(_) = came_out {
            return self.swap_back(path, folder, temporary, bytes);
        }
        let kept = self.put_away(path, folder, temporary)?;
        let is_as_scanned = matches!(&came_out, Found::Text(text) if text.digest == scanned.digest);
        Ok(if is_as_scanned { Written::Done { kept: Some(kept) } } else { Written::Displaced { kept } })
    }

    /// Makes a swap durable and gives what came out of it its name in the keep.
    fn put_away(&self, path: &FilePath, folder: &Folder, name: &str) -> Result<String, WriteError> {
        let keep = &self.keep.folder;
        folder.sync().and_then(|()| keep.sync()).map_err(failed("sync the folder"))?;
        self.keep.take(keep, name, path).map_err(failed("keep the replaced file"))
    }

    /// What came out can't be merged (not UTF-8, too large, conflict markers): it goes back, and what *then* comes out is ours
    /// unless somebody saved yet again.
    fn swap_back(
        &self,
        path: &FilePath,
        folder: &Folder,
        temporary: &str,
        bytes: &[u8],
    ) -> Result<Written, WriteError> {
        let keep = &self.keep.folder;
        renameat_with(keep, temporary, folder, path.split().1, RenameFlags::EXCHANGE)
            .map_err(failed("swap the file back"))?;
        match read(keep, temporary) {
            Found::Text(text) if text.bytes == bytes => Ok(Written::Changed),
            Found::Text(_) | Found::Unstable | Found::Parked(_) => {
                Ok(Written::Displaced { kept: self.put_away(path, folder, temporary)? })
            }
            Found::Absent => Ok(Written::Changed),
        }
    }

    fn link_then_rename(
        &self,
        path: &FilePath,
        folder: &Folder,
        temporary: &str,
        scanned: &Scanned,
    ) -> Result<Written, WriteError> {
        let (keep, name) = (&self.keep.folder, path.split().1);
        let link = format!("{temporary}-old");
        match linkat(folder, name, keep, link.as_str(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Written::Changed),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Err(WriteError::NoSwap),
            Err(error) => return Err(failed("link the old file")(error)),
        }
        let is_as_scanned = matches!(read(keep, &link), Found::Text(text) if text.digest == scanned.digest);
        let linked = keep.metadata(&link).map_err(failed("look at the old file"))?;
        let current = folder.metadata(name).map_err(failed("look at the file"))?;
        let is_same_inode = matches!((&linked, &current), (Some(a), Some(b)) if a.ino() == b.ino());
        if !is_as_scanned || !is_same_inode {
            keep.unlink(&link).map_err(failed("drop a link"))?;
            return Ok(Written::Changed);
        }
        renameat(keep, temporary, folder, name).map_err(failed("rename over the file"))?;
        Ok(Written::Done { kept: Some(self.put_away(path, folder, &link)?) })
    }

    /// Makes the file at `path`, which must not exist; folders too.
    ///
    /// # Errors
    /// [`WriteError`]; there is no file then.
    pub fn create(&self, path: &FilePath, bytes: &[u8]) -> Result<Written, WriteError> {
        let (folder_path, name) = path.split();
        let folder = self.root.make_folder(folder_path).map_err(failed("make the folder"))?;
        let temporary = temporary(&folder, path, bytes, None)?;
        (self.before_swap)(path);
        match rename_new(&folder, &temporary, &folder, name) {
            Ok(()) => {
                folder.sync().map_err(failed("sync the folder"))?;
                Ok(Written::Done { kept: None })
            }
            Err(error) => {
                discard(&folder, &temporary, bytes);
                if error == Errno::EXIST { Ok(Written::Changed) } else { Err(failed("name the new file")(error)) }
            }
        }
    }

    /// Removes the file at `path`, which held `scanned`.
    ///
    /// # Errors
    /// [`WriteError`]; the file is as it was.
    pub fn remove(&self, path: &FilePath, scanned: &Scanned) -> Result<Written, WriteError> {
        let (folder_path, name) = path.split();
        let folder = self.root.folder(folder_path).map_err(failed("open the folder"))?;
        (self.before_swap)(path);
        let kept = match self.keep.take(&folder, name, path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::Changed),
            Err(error) => return Err(failed("take the file away")(error)),
        };
        folder.sync().map_err(failed("sync the folder"))?;
        if matches!(self.keep.read(&kept), Found::Text(text) if text.digest == scanned.digest) {
            return Ok(Written::Done { kept: Some(kept) });
        }
        // Somebody saved meanwhile: give it back, unless there is a newer one already.
        match rename_new(&self.keep.folder, &kept, &folder, name) {
            Ok(()) => Ok(Written::Changed),
            Err(_) => Ok(Written::Displaced { kept }),
        }
    }
}

/// Drops our own temporary. If it can't be dropped, or isn't ours any more, it is left for the next start, which looks into it.
fn discard(folder: &Folder, temporary: &str, bytes: &[u8]) {
    let is_ours = matches!(read(folder, temporary), Found::Text(text) if text.bytes == bytes);
    if is_ours && let Err(error) = folder.unlink(temporary) {
        tracing::warn!(%error, temporary, "a temporary file could not be removed");
    }
}

/// The file that a new one replaces.
type Like<'a> = (&'a Folder, &'a Metadata, &'a str);

/// A durable temporary with `bytes`, and with the mode, owner and attributes of the file that it is going to replace.
fn temporary(folder: &Folder, path: &FilePath, bytes: &[u8], like: Option<Like<'_>>) -> Result<String, WriteError> {
    for nth in 0..NAMES_MAX {
        let name = format!("{TEMPORARY_PREFIX}{}-{nth}", path.hash());
        let mut file = match folder.create_new(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(failed("make a temporary file")(error)),
        };
        let filled = fill(&mut file, bytes, like);
        if let Err(error) = filled {
            folder.unlink(&name).map_err(failed("drop a temporary file"))?;
            return Err(error);
        }
        return Ok(name);
    }
    Err(failed("make a temporary file")(Errno::EXIST))
}

fn fill(file: &mut File, bytes: &[u8], like: Option<Like<'_>>) -> Result<(), WriteError> {
    file.write_all(bytes).map_err(failed("write a temporary file"))?;
    if let Some((folder, metadata, name)) = like {
        let new = file.metadata().map_err(failed("look at a temporary file"))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        if (new.uid(), new.gid()) != (uid, gid) {
            fchown(&*file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|_| WriteError::Owner { uid, gid })?;
        }
        let old = folder.read(name).map_err(failed("open the file"))?;
        copy_attributes(&old, file).map_err(failed("copy extended attributes"))?;
        fchmod(&*file, Mode::from_raw_mode(metadata.mode() & 0o7777)).map_err(failed("set the mode"))?;
    }
    file.sync_all().map_err(failed("sync a temporary file"))
}

/// Copies extended attributes. Those that only the kernel or root may set are left to them.
fn copy_attributes(from: &File, to: &File) -> Result<(), Errno> {
    let size = match rustix::fs::flistxattr_query(from) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(size) => size,
        Err(error) => return Err(error),
    };
    let mut names = vec![0; size];
    let size = rustix::fs::flistxattr(from, &mut names[..])?;
    for name in names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; rustix::fs::fgetxattr_query(from, name)?];
        let size = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        let is_privileged = name.starts_with(b"security.") || name.starts_with(b"trusted.");
        match rustix::fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::OPNOTSUPP) if is_privileged => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
