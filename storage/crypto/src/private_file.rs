//! Files that hold a secret: read only when nobody else can, written so that they are whole or absent.
//!
//! A written file appears under its name complete and synced, and never replaces one that is there. Deliberately not here:
//! what the bytes mean.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::hex;
use crate::random::{self, RandomError};

/// The longest secret file that is read: 64 KiB. A private key in PEM with a chain before it is a few KiB.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// What a secret file's mode may be: for its owner alone.
const MODES_ALLOWED: [u32; 2] = [0o600, 0o400];

/// Why a secret file could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// Missing, or not for this user.
    #[error("cannot open {}: {source}; check the path in the configuration and the file's owner", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{} is not a regular file: give the path of the file itself", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others on this machine can read or write the secret.
    #[error(
        "{} has mode {mode:04o}, so others than its owner may use it: run `chmod 600 {}`; if others could read it until \
         now, replace the secret too",
        path.display(), path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No secret is this long.
    #[error("{} is over {SECRET_BYTES_MAX} bytes, which no key file is: check the path", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Reading failed half-way.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Secrets are never overwritten.
    #[error("{} exists and is not overwritten: move it away first, if nothing needs it any more", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Writing failed; nothing is left under the name.
    #[error("cannot write {}: {source}; check that its folder exists, is writable and has space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No randomness for the file's temporary name.
    #[error("writing {}: {source}", path.display())]
    Random {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: RandomError,
    },
}

/// The contents of a secret file that only its owner may use.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let at = || path.to_owned();
    // Asked before opening, since opening a pipe would wait for its writer.
    let found = fs::metadata(path).map_err(|source| PrivateFileError::Open { path: at(), source })?;
    if !found.is_file() {
        return Err(PrivateFileError::NotAFile { path: at() });
    }
    let file = File::open(path).map_err(|source| PrivateFileError::Open { path: at(), source })?;
    // Asked of the open file: the mode is that of the bytes that are read.
    let metadata = file.metadata().map_err(|source| PrivateFileError::Read { path: at(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !MODES_ALLOWED.contains(&mode) {
        return Err(PrivateFileError::Mode { path: at(), mode });
    }
    // Reserved at once: a buffer that grows leaves copies of the secret behind.
    let mut contents = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    let limit = u64::try_from(SECRET_BYTES_MAX + 1).expect("invariant: 64 KiB and a byte fit in 64 bits");
    let read = file.take(limit).read_to_end(&mut contents);
    read.map_err(|source| PrivateFileError::Read { path: at(), source })?;
    if contents.len() > SECRET_BYTES_MAX {
        return Err(PrivateFileError::TooLarge { path: at() });
    }
    Ok(contents)
}

/// Makes a secret file with mode 0600: whole and synced, or not at all; never in place of another.
pub(crate) fn create(path: &Path, contents: &[u8]) -> Result<(), PrivateFileError> {
    let write = |source| PrivateFileError::Write { path: path.to_owned(), source };
    let Some(name) = path.file_name() else {
        return Err(write(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")));
    };
    let suffix = random::bytes::<4>().map_err(|source| PrivateFileError::Random { path: path.to_owned(), source })?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", hex::encode(&suffix)));
    let temporary = path.with_file_name(temporary);

    let written = write_synced(&temporary, contents).and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
    match written {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PrivateFileError::Exists { path: path.to_owned() });
        }
        Err(source) => return Err(write(source)),
        Ok(()) => removed.map_err(write)?,
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(write)
}

fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}
