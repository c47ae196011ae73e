//! A folder is bound once, and never inside another bound folder: two engines would take each other's writes for edits.
//!
//! ```text
//!   /  /srv  /srv/a        shared locks: something below is bound
//!   /srv/a/project         an exclusive lock: this is bound
//! ```
//! The locks are `flock`s on the folders themselves, so they hold between processes, see through links, and end with the process,
//! however it ends. A folder that can't be read, or a file system that can't lock, is passed over: it is a guard against
//! mistakes, not against people who want to.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Error;

/// How often a lock is tried for: half a second in all, far longer than a process takes to start.
const TRIES: u32 = 50;

/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Holds the locks of one bound folder.
#[derive(Debug)]
pub(super) struct Claim {
    _locks: Vec<File>,
}

impl Claim {
    /// Claims `root`, which exists.
    pub(super) fn new(root: &Path) -> Result<Self, Error> {
        let real = root.canonicalize().map_err(|source| Error::Root { root: root.to_owned(), source })?;
        let mut locks = Vec::new();
        for folder in real.ancestors() {
            let is_root = folder == real;
            let kind =
                if is_root { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
            let Ok(file) = File::open(folder) else { continue };
            match lock(&file, kind) {
                Ok(()) => locks.push(file),
                Err(Errno::WOULDBLOCK) => {
                    let other = (!is_root).then(|| folder.to_owned());
                    return Err(Error::Bound { root: root.to_owned(), other });
                }
                Err(error) => tracing::debug!(%error, folder = %folder.display(), "a folder can't be locked"),
            }
        }
        Ok(Self { _locks: locks })
    }
}

/// A process that any thread starts holds every lock of this one until it has become another program: that is waited for.
fn lock(file: &File, kind: FlockOperation) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match flock(file, kind) {
            Err(Errno::WOULDBLOCK) => thread::park_timeout(PAUSE),
            other => return other,
        }
    }
    flock(file, kind)
}
