//! The data folder of a node: who it belongs to, where its parts live, and that one process uses it at a time.
//!
//! ```text
//!   D/IDENTITY     lineage and node id: whose data this is         (text, versioned, checksummed; made last)
//!   D/lock, pid    held while a process uses the folder             (flock; the pid is for people)
//!   D/node.key     the key of what this node derives                (zyflow-crypto)
//!   D/log/         the replicated log: the source of truth
//!   D/tables/      what was derived from it: deletable at any time
//!   D/snapshots/   what the log may be purged up to
//!   D/checkouts/   what bound checkouts last agreed on
//!   D/join/        tokens of nodes that join, on the node that has the CA's key
//! ```
//!
//! Invariants: a folder with an `IDENTITY` is complete; a folder without one that holds anything else is never touched;
//! the lock is held as long as a [`Layout`] lives, and dies with the process.
//!
//! Deliberately not here: the contents of the parts; each checks its own.

mod identity;

use fs_err as fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use zyflow_crypto::Lineage;

const IDENTITY_FILE: &str = "IDENTITY";
const LOCK_FILE: &str = "lock";
const PID_FILE: &str = "pid";
const NODE_KEY_FILE: &str = "node.key";
/// There until a node's log has been made: no other folder may begin with an empty log, which would forget votes.
const NEW_FILE: &str = "NEW";
/// There from the beginning of a restore until its end.
const RESTORING_FILE: &str = "RESTORING";
const FOLDERS: [&str; 4] = ["log", "tables", "snapshots", CHECKOUTS_FOLDER];
/// What bound checkouts last agreed on may outlive the rest, with the key that it is sealed under: a machine that joins a restored
/// cluster goes on with its checkouts.
const CHECKOUTS_FOLDER: &str = "checkouts";

/// Files that may lie in a folder before it is made a data folder: what is left of an interrupted creation, and what a
/// supervisor may have put there.
const HARMLESS_FILES: [&str; 9] = [
    LOCK_FILE,
    PID_FILE,
    NODE_KEY_FILE,
    NEW_FILE,
    "NEW.tmp",
    "IDENTITY.tmp",
    "zyflowd.toml",
    "zyflowd.log",
    "lost+found",
];

/// Only the owner: nothing in here is for others, sealed or not.
const FOLDER_MODE: u32 = 0o700;

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is nothing at that path.
    #[error(
        "{} doesn't exist: correct `data` in the configuration, or make it with `zyflowd new` if this node has never run; a node that has lost \
         its data must not come back under its id, as it has forgotten its votes: remove it from the cluster, and join under a new one",
        dir.display()
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// There is something, but not of `ZyFlow`.
    #[error("{} is not a data folder of ZyFlow and not empty: choose an empty folder", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
    },
    /// A restore into it didn't get to its end.
    #[error("a restore into {} was broken off: empty the folder, then restore again", dir.display())]
    Unfinished {
        /// The folder.
        dir: PathBuf,
    },
    /// A data folder is there already.
    #[error(
        "{} is the data folder of node {node_id} of lineage {lineage} already: start that node, or choose an empty folder",
        dir.display()
    )]
    Exists {
        /// The folder.
        dir: PathBuf,
        /// Its lineage.
        lineage: Lineage,
        /// Its node.
        node_id: u64,
    },
    /// The folder belongs to another history.
    #[error(
        "{} belongs to lineage {found}, not {expected}: point `data` to the folder of this cluster, or join with an empty one",
        dir.display()
    )]
    OtherLineage {
        /// The folder.
        dir: PathBuf,
        /// Its lineage.
        found: Lineage,
        /// The lineage that was asked for.
        expected: Lineage,
    },
    /// The folder belongs to another node.
    #[error("{} belongs to node {found}, not {expected}: point `data` to the folder of this node", dir.display())]
    OtherNode {
        /// The folder.
        dir: PathBuf,
        /// Its node.
        found: u64,
        /// The node that was asked for.
        expected: u64,
    },
    /// A newer release wrote it.
    #[error("{} has format {found}, this release knows {known}: start the release that wrote it, or a newer one", dir.display())]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// The identity file can't be believed.
    #[error("{} is damaged ({reason}): restore it from a backup of this folder, or let the node join again", path.display())]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process has it.
    #[error("{} is in use by {holder}: stop that process first", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// `process N`, as far as that is known.
        holder: String,
    },
    /// The file system.
    #[error("data folder: {0}")]
    Io(#[from] std::io::Error),
}

/// A data folder that this process holds.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    lineage: Lineage,
    node_id: u64,
    /// Locked while it is open.
    _lock: fs::File,
}

impl Layout {
    /// Makes a data folder at `dir`, which doesn't exist or is empty, and takes its lock.
    ///
    /// # Errors
    /// The folder is another's, in use, holds something else, or the file system fails. Then nothing of what was there is
    /// changed, and creating it again is possible.
    pub fn create(dir: &Path, lineage: Lineage, node_id: u64) -> Result<Self, LayoutError> {
        std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir)?;
        if let Some(found) = identity::read(&dir.join(IDENTITY_FILE))? {
            return Err(LayoutError::Exists { dir: dir.to_owned(), lineage: found.lineage, node_id: found.node_id });
        }
        refuse_foreign(dir)?;
        let lock = lock(dir)?;
        // Another process may have made it between the look and the lock.
        if let Some(found) = identity::read(&dir.join(IDENTITY_FILE))? {
            return Err(LayoutError::Exists { dir: dir.to_owned(), lineage: found.lineage, node_id: found.node_id });
        }
        make_folders(dir)?;
        mark_new(dir)?;
        identity::write(&dir.join(IDENTITY_FILE), &identity::Identity { lineage, node_id })?;
        sync_folder(dir)?;
        Ok(Self { dir: dir.to_owned(), lineage, node_id, _lock: lock })
    }

    /// Makes a data folder at `dir`, which doesn't exist or is quite empty, with what `fill` brings. Until that is complete no node starts
    /// from the folder.
    ///
    /// # Errors
    /// There is anything in the folder, or what `fill` fails with. Then the folder is as empty as before, as far as it can be emptied.
    pub fn create_filled<E: From<LayoutError>>(
        dir: &Path,
        (lineage, node_id): (Lineage, u64),
        fill: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<Self, E> {
        let made = || -> Result<Self, LayoutError> {
            std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir)?;
            refuse_filled(dir)?;
            let lock = lock(dir)?;
            replace_file(&dir.join(RESTORING_FILE), b"a restore from a backup is under way\n")?;
            make_folders(dir)?;
            sync_folder(dir)?;
            Ok(Self { dir: dir.to_owned(), lineage, node_id, _lock: lock })
        };
        let layout = made()?;
        let identity = identity::Identity { lineage, node_id };
        let begin = || mark_new(dir).and_then(|()| identity::write(&dir.join(IDENTITY_FILE), &identity));
        let filled = fill(&layout).and_then(|()| Ok(begin()?));
        if let Err(error) = filled {
            empty(dir);
            return Err(error);
        }
        fs::remove_file(dir.join(RESTORING_FILE)).map_err(LayoutError::Io)?;
        sync_folder(dir).map_err(LayoutError::Io)?;
        Ok(layout)
    }

    /// Opens the data folder at `dir` and takes its lock.
    ///
    /// # Errors
    /// There is no data folder of a format that this release knows, it is damaged, or another process has it.
    pub fn open(dir: &Path) -> Result<Self, LayoutError> {
        if !dir.is_dir() {
            return Err(LayoutError::Missing { dir: dir.to_owned() });
        }
        let Some(found) = identity::read(&dir.join(IDENTITY_FILE))? else {
            refuse_foreign(dir)?;
            return Err(LayoutError::Missing { dir: dir.join(IDENTITY_FILE) });
        };
        let lock = lock(dir)?;
        make_folders(dir)?;
        Ok(Self { dir: dir.to_owned(), lineage: found.lineage, node_id: found.node_id, _lock: lock })
    }

    /// Refuses a folder of another history or node than the configuration names.
    ///
    /// # Errors
    /// It is of another lineage or node.
    pub fn expect(&self, lineage: Lineage, node_id: u64) -> Result<(), LayoutError> {
        if self.lineage != lineage {
            return Err(LayoutError::OtherLineage { dir: self.dir.clone(), found: self.lineage, expected: lineage });
        }
        if self.node_id != node_id {
            return Err(LayoutError::OtherNode { dir: self.dir.clone(), found: self.node_id, expected: node_id });
        }
        Ok(())
    }

    /// Whether no node has begun in it yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.dir.join(NEW_FILE).exists()
    }

    /// From now on it belongs to a node that has a log.
    ///
    /// # Errors
    /// The file system.
    pub fn begin(&self) -> Result<(), LayoutError> {
        fs::remove_file(self.dir.join(NEW_FILE))?;
        Ok(sync_folder(&self.dir)?)
    }

    /// The data folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The history that the data belongs to.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The node that the data belongs to.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Where the replicated log is.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where the derived tables are.
    #[must_use]
    pub fn tables_dir(&self) -> PathBuf {
        self.dir.join("tables")
    }

    /// Where snapshots are.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// Where bound checkouts keep their bases.
    #[must_use]
    pub fn checkouts_dir(&self) -> PathBuf {
        self.dir.join(CHECKOUTS_FOLDER)
    }

    /// Where tokens of nodes that join are kept; made when there is one.
    #[must_use]
    pub fn join_dir(&self) -> PathBuf {
        self.dir.join("join")
    }

    /// The file of the node's own key.
    #[must_use]
    pub fn node_key_file(&self) -> PathBuf {
        self.dir.join(NODE_KEY_FILE)
    }

    /// The file with the id of the process that holds the folder.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join(PID_FILE)
    }
}

/// Refuses a folder that holds anything at all.
fn refuse_filled(dir: &Path) -> Result<(), LayoutError> {
    if let Some(found) = identity::read(&dir.join(IDENTITY_FILE))? {
        return Err(LayoutError::Exists { dir: dir.to_owned(), lineage: found.lineage, node_id: found.node_id });
    }
    refuse_unfinished(dir)?;
    for entry in fs::read_dir(dir)? {
        if entry?.file_name() != "lost+found" {
            return Err(LayoutError::Foreign { dir: dir.to_owned() });
        }
    }
    Ok(())
}

fn refuse_unfinished(dir: &Path) -> Result<(), LayoutError> {
    if dir.join(RESTORING_FILE).exists() { Err(LayoutError::Unfinished { dir: dir.to_owned() }) } else { Ok(()) }
}

/// Takes away what an attempt that failed has made. What can't be taken away keeps its mark, so that no node starts from it.
fn empty(dir: &Path) {
    let folders = FOLDERS.iter().map(|folder| fs::remove_dir_all(dir.join(folder)));
    let files = [IDENTITY_FILE, NEW_FILE, LOCK_FILE, PID_FILE].map(|file| fs::remove_file(dir.join(file)));
    let is_real = |error: &std::io::Error| error.kind() != std::io::ErrorKind::NotFound;
    let failed = folders.chain(files).find_map(|removed| removed.err().filter(is_real));
    match failed.map_or_else(|| fs::remove_file(dir.join(RESTORING_FILE)), Err) {
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "what the failed attempt left in the data folder can't be removed"),
    }
}

fn refuse_foreign(dir: &Path) -> Result<(), LayoutError> {
    refuse_unfinished(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = if entry.file_type()?.is_dir() {
            name == "lost+found"
                || (name == CHECKOUTS_FOLDER && dir.join(NODE_KEY_FILE).is_file())
                || (FOLDERS.iter().any(|ours| name == *ours) && fs::read_dir(entry.path())?.next().is_none())
        } else {
            HARMLESS_FILES.iter().any(|harmless| name == *harmless)
        };
        if !is_ours {
            return Err(LayoutError::Foreign { dir: dir.to_owned() });
        }
    }
    Ok(())
}

fn mark_new(dir: &Path) -> Result<(), LayoutError> {
    Ok(replace_file(&dir.join(NEW_FILE), b"no node has begun here yet\n")?)
}

fn make_folders(dir: &Path) -> Result<(), LayoutError> {
    for folder in FOLDERS {
        std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir.join(folder))?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<fs::File, LayoutError> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE))?;
    match rustix::fs::flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(LayoutError::InUse { dir: dir.to_owned(), holder: holder(dir) });
        }
        Err(error) => return Err(LayoutError::Io(error.into())),
    }
    fs::write(dir.join(PID_FILE), format!("{}\n", std::process::id()))?;
    Ok(file)
}

fn holder(dir: &Path) -> String {
    let pid = fs::read_to_string(dir.join(PID_FILE)).ok().and_then(|text| text.trim().parse::<u32>().ok());
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Makes the names in a folder survive a power cut.
pub(crate) fn sync_folder(dir: &Path) -> std::io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Replaces `path` by `contents` so that a crash at any point leaves the old file or the new one.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests;
