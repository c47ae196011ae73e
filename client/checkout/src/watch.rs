//! Hints from the operating system that something may have changed. The only file that names `notify`.
//!
//! A hint says "look again", never what happened: the digest decides. Folders are watched, not files, since a save by rename ends a
//! watch on the file. What the kernel drops, what doesn't fit our queue and what a network file system never tells is made up for
//! by a full scan. Where watches run out, or the file system is a remote one, there are no hints, and the engine polls.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// Most hints that wait for the engine: a quarter of the kernel's default queue. More than that is a full scan anyway.
const HINTS_MAX: usize = 4096;

/// Something may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A file was closed after writing, or moved in: it is whole.
    Settled(PathBuf),
    /// A file was made, changed or removed: it may be half written.
    Touched(PathBuf),
    /// A folder came or went.
    Folder(PathBuf),
    /// Hints were lost: look at everything.
    Rescan,
}

/// Whether there are hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel tells.
    Watching,
    /// It doesn't, for this reason: look at everything every now and then.
    Polling(String),
}

/// Watches folders.
pub struct Watcher {
    inner: Option<RecommendedWatcher>,
    mode: Mode,
    watched: BTreeSet<PathBuf>,
    hints: mpsc::Receiver<Hint>,
    is_overflown: Arc<AtomicBool>,
}

impl Watcher {
    /// A watcher of nothing yet. `root` tells the file system.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let (tx, hints) = mpsc::channel(HINTS_MAX);
        let is_overflown = Arc::new(AtomicBool::new(false));
        let mut watcher = Self { inner: None, mode: Mode::Watching, watched: BTreeSet::new(), hints, is_overflown };
        if let Some(name) = remote_file_system(root) {
            watcher.poll(format!("{name} doesn't tell about changes made elsewhere"));
            return watcher;
        }
        let overflown = watcher.is_overflown.clone();
        let handler = move |event: notify::Result<Event>| {
            for hint in hints_of(event) {
                if tx.try_send(hint).is_err() {
                    overflown.store(true, Ordering::Release);
                }
            }
        };
        match notify::recommended_watcher(handler) {
            Ok(inner) => watcher.inner = Some(inner),
            Err(error) => watcher.poll(reason(&error)),
        }
        watcher
    }

    /// A watcher that hears nothing, to show that scans find everything.
    #[cfg(test)]
    pub(crate) fn deaf() -> Self {
        let (_, hints) = mpsc::channel(1);
        let is_overflown = Arc::new(AtomicBool::new(false));
        Self { inner: None, mode: Mode::Polling("deaf".to_owned()), watched: BTreeSet::new(), hints, is_overflown }
    }

    /// Whether there are hints.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Watches exactly these folders from now on. Whether one is new: what was made in it before it was watched gave no hint, so it must be
    /// looked into once more.
    pub fn watch(&mut self, folders: &BTreeSet<PathBuf>) -> bool {
        let Some(inner) = &mut self.inner else { return false };
        let mut is_any_new = false;
        for gone in self.watched.difference(folders) {
            // A folder that is gone took its watch along.
            if let Err(error) = inner.unwatch(gone) {
                tracing::trace!(%error, folder = %gone.display(), "watch had ended already");
            }
        }
        self.watched.retain(|folder| folders.contains(folder));
        for folder in folders {
            if self.watched.contains(folder) {
                continue;
            }
            match inner.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone());
                    is_any_new = true;
                }
                Err(error) if is_exhausted(&error) => {
                    self.poll(reason(&error));
                    return false;
                }
                // Gone meanwhile, or not readable: the periodic scan sees to it.
                Err(error) => tracing::debug!(%error, folder = %folder.display(), "folder is not watched"),
            }
        }
        is_any_new
    }

    /// Forgets that a folder is watched: it was replaced by another of the same name.
    pub fn forget(&mut self, folder: &Path) {
        self.watched.retain(|watched| !watched.starts_with(folder));
    }

    fn poll(&mut self, reason: String) {
        tracing::warn!(reason, "file changes are found by polling");
        self.inner = None;
        self.watched.clear();
        self.mode = Mode::Polling(reason);
    }

    /// The next hint.
    pub async fn next(&mut self) -> Hint {
        if self.is_overflown.swap(false, Ordering::AcqRel) {
            return Hint::Rescan;
        }
        match self.hints.recv().await {
            Some(hint) => hint,
            None => std::future::pending().await,
        }
    }

    /// A hint that is there already.
    pub fn try_next(&mut self) -> Option<Hint> {
        self.hints.try_recv().ok()
    }
}

fn hints_of(event: notify::Result<Event>) -> Vec<Hint> {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            tracing::warn!(%error, "watching failed; everything is looked at");
            return vec![Hint::Rescan];
        }
    };
    if event.need_rescan() {
        return vec![Hint::Rescan];
    }
    let hint: fn(PathBuf) -> Hint = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Hint::Settled,
        EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => Hint::Folder,
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
            Hint::Touched
        }
        EventKind::Access(_) => return Vec::new(),
    };
    event.paths.into_iter().map(hint).collect()
}

fn is_exhausted(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => [Errno::NOSPC, Errno::MFILE, Errno::NFILE]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())),
        ErrorKind::Generic(_) | ErrorKind::PathNotFound | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
            false
        }
    }
}

fn reason(error: &notify::Error) -> String {
    let is_instances =
        matches!(&error.kind, ErrorKind::Io(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()));
    let setting = if is_instances { "fs.inotify.max_user_instances" } else { "fs.inotify.max_user_watches" };
    format!("{error}; raise it with `sysctl {setting}=1048576` and restart")
}

/// The name of a file system that changes without telling the kernel here.
fn remote_file_system(root: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(root).ok()?.f_type;
    [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x0102_1997, "9p"),
        (0x6573_5546, "FUSE"),
    ]
    .into_iter()
    .find(|(magic, _)| i128::from(kind) == *magic)
    .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use notify::event::Flag;

    use super::*;

    /// The kernel's own overflow, as notify tells it: that needs a limit of the whole machine to be lowered to happen for real.
    #[test]
    fn an_overflow_of_the_kernels_queue_asks_for_a_look_at_everything() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(hints_of(Ok(overflow)), [Hint::Rescan]);
        assert_eq!(hints_of(Err(notify::Error::generic("broken"))), [Hint::Rescan]);
    }
}
