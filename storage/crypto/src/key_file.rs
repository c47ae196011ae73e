//! The data key in a file: made once per cluster, given to every voter and learner, kept apart from the data.
//!
//! ```text
//!   zyflow-data-key v1 id=2864434397
//!   6f1c...                              64 hexadecimal digits: the key
//! ```
//!
//! The id is random, so that two keys made apart don't claim the same id. Whoever has this file and a disk, a backup or a
//! snapshot can read everything: the file belongs outside the data folder (a copy of the folder must not carry its key),
//! readable by the service's user alone, and in a backup of its own. A systemd credential (mode 0400) works as it is.
//!
//! Deliberately not here: other key providers, which will stand beside this one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use crate::hex;
use crate::key::{DataKey, KEY_BYTES, KeyId};
use crate::private_file::{self, PrivateFileError};
use crate::random::{self, RandomError};

const HEADER: &str = "zyflow-data-key v1 id=";

/// Why a data key file could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file itself: missing, readable by others, or already there.
    #[error("data key file: {0}")]
    File(#[from] PrivateFileError),
    /// The key would be copied, backed up and stolen along with what it protects.
    #[error(
        "the data key file {} lies inside the data folder {}: keep it elsewhere (for instance /etc/zyflow/data.key), so that \
         a copy of the data doesn't carry its key, and change the configuration to its new place",
        path.display(), data_dir.display()
    )]
    InsideDataFolder {
        /// The key file, resolved.
        path: PathBuf,
        /// The data folder, resolved.
        data_dir: PathBuf,
    },
    /// Where a path really is could not be told.
    #[error("cannot resolve {}: {source}; check that the folders on the way exist and can be entered", path.display())]
    Resolve {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not what [`create_key_file`] writes.
    #[error(
        "{} is no data key file ({problem}): expected the line `{HEADER}NUMBER` and a line of 64 hexadecimal digits; copy the \
         file again from another node, or, for a new cluster only, make one with `certificates.sh key FILE`",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never shows its contents.
        problem: &'static str,
    },
    /// No randomness, no key.
    #[error("making the data key file {}: {source}", path.display())]
    Random {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: RandomError,
    },
}

/// Makes a new random data key with a new random id, in a file of mode 0600, and returns the id.
///
/// # Errors
/// The file exists (it is never overwritten), or it can't be written.
pub fn create_key_file(path: &Path) -> Result<KeyId, KeyFileError> {
    let random_error = |source| KeyFileError::Random { path: path.to_owned(), source };
    let secret = Zeroizing::new(random::bytes::<KEY_BYTES>().map_err(random_error)?);
    let id = KeyId(u32::from_be_bytes(random::bytes().map_err(random_error)?));
    let digits = Zeroizing::new(hex::encode(secret.as_slice()));
    let contents = Zeroizing::new(format!("{HEADER}{id}\n{}\n", *digits));
    private_file::create(path, contents.as_bytes())?;
    Ok(id)
}

/// Reads the data key for a node whose data is in `data_dir` (which need not exist yet).
///
/// # Errors
/// The file can be used by others than its owner, lies inside the data folder (links resolved), is missing, or is not a
/// data key file. Each error says what to do.
pub fn load_key_file(path: &Path, data_dir: &Path) -> Result<DataKey, KeyFileError> {
    let contents = private_file::read(path)?;
    let (file, folder) = (resolve(path)?, resolve(data_dir)?);
    if file.starts_with(&folder) {
        return Err(KeyFileError::InsideDataFolder { path: file, data_dir: folder });
    }
    parse(&contents).map_err(|problem| KeyFileError::Malformed { path: path.to_owned(), problem })
}

/// The text of a data key file, for a node that joins.
///
/// # Errors
/// As [`load_key_file`], but for where it lies.
pub fn key_file_text(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let contents = private_file::read(path)?;
    let malformed = |problem| KeyFileError::Malformed { path: path.to_owned(), problem };
    parse(&contents).map_err(malformed)?;
    let text = str::from_utf8(&contents).map_err(|_| malformed("it isn't text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Stores the text of another node's data key file in a new file of mode 0600.
///
/// # Errors
/// The text is no data key, the file exists (it is never overwritten), or it can't be written.
pub fn store_key_file(path: &Path, text: &str) -> Result<(), KeyFileError> {
    parse(text.as_bytes()).map_err(|problem| KeyFileError::Malformed { path: path.to_owned(), problem })?;
    Ok(private_file::create(path, text.as_bytes())?)
}

fn parse(contents: &[u8]) -> Result<DataKey, &'static str> {
    let text = str::from_utf8(contents).map_err(|_| "it isn't text")?;
    let mut lines = text.lines();
    let header = lines.next().ok_or("it is empty")?;
    let id = header.strip_prefix(HEADER).ok_or("its first line is another one")?;
    let is_decimal = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let id = id.parse().ok().filter(|_| is_decimal).ok_or("the id is not a number below 2^32")?;
    let mut bytes = hex::decode(lines.next().ok_or("the key's line is missing")?).ok_or("the key is not 64 digits")?;
    let secret = Zeroizing::new(bytes);
    bytes.zeroize();
    if lines.any(|line| !line.trim().is_empty()) {
        return Err("more lines follow the key");
    }
    Ok(DataKey::new(KeyId(id), secret))
}

/// Where a path is, links followed; of a path that doesn't exist yet, where its nearest existing folder is.
fn resolve(path: &Path) -> Result<PathBuf, KeyFileError> {
    let failed = |source| KeyFileError::Resolve { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let mut missing = Vec::new();
    for ancestor in absolute.ancestors() {
        match fs::canonicalize(ancestor) {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path: PathBuf, name| path.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.extend(ancestor.file_name()),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::{KeyRing, Lineage, Purpose, open, seal};

    fn key_file(folder: &Path, contents: &str, mode: u32) -> PathBuf {
        let path = folder.join("data.key");
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn well_formed() -> String {
        format!("{HEADER}12\n{}\n", "5a".repeat(32))
    }

    #[test]
    fn a_made_file_loads_again_as_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        let id = create_key_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");

        let load = || KeyRing::new(load_key_file(&path, &folder.path().join("data")).unwrap());
        assert_eq!(load().active().id(), id);
        let sealed = seal(&load(), Purpose::Entry, &Lineage([1; 16]), &[2; 16], b"text").unwrap();
        assert_eq!(open(&load(), Purpose::Entry, &Lineage([1; 16]), &sealed).unwrap().plaintext, b"text");
    }

    #[test]
    fn two_made_files_hold_different_keys() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one.key", "two.key"].map(|name| folder.path().join(name));
        create_key_file(&one).unwrap();
        create_key_file(&two).unwrap();
        assert_ne!(fs::read(one).unwrap(), fs::read(two).unwrap());
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path(), "something", 0o600);
        let error = create_key_file(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::File(PrivateFileError::Exists { .. })), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "something");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn only_a_mode_for_the_owner_alone_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o400] {
            let path = key_file(folder.path(), &well_formed(), mode);
            assert_eq!(load_key_file(&path, Path::new("/nonexistent")).unwrap().id(), KeyId(12), "{mode:o}");
        }
        for mode in [0o644, 0o640, 0o604, 0o660, 0o601, 0o700, 0o4600] {
            let path = key_file(folder.path(), &well_formed(), mode);
            let error = load_key_file(&path, Path::new("/nonexistent")).unwrap_err();
            assert!(
                matches!(&error, KeyFileError::File(PrivateFileError::Mode { mode: found, .. }) if *found == mode),
                "{mode:o}: {error}"
            );
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_key_inside_the_data_folder_is_refused_however_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let inside = key_file(&data, &well_formed(), 0o600);
        symlink(&data, folder.path().join("alias")).unwrap();
        symlink(&inside, folder.path().join("link.key")).unwrap();
        let roundabout = folder.path().join("alias/../data/data.key");
        for path in [inside.clone(), folder.path().join("alias/data.key"), folder.path().join("link.key"), roundabout] {
            let error = load_key_file(&path, &data).unwrap_err();
            assert!(matches!(error, KeyFileError::InsideDataFolder { .. }), "{}: {error}", path.display());
        }
        let error = load_key_file(&inside, &folder.path().join("alias")).unwrap_err();
        assert!(matches!(error, KeyFileError::InsideDataFolder { .. }), "{error}");
        // A sibling whose name merely begins alike is elsewhere.
        assert!(load_key_file(&inside, &folder.path().join("dat")).is_ok());
    }

    #[test]
    fn a_data_folder_that_does_not_exist_yet_is_resolved_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path(), &well_formed(), 0o600);
        assert!(load_key_file(&path, &folder.path().join("not/yet")).is_ok());
        assert!(matches!(load_key_file(&path, folder.path()), Err(KeyFileError::InsideDataFolder { .. })));
    }

    #[test]
    fn malformed_contents_are_refused_with_the_reason_and_without_the_contents() {
        let key = "5a".repeat(32);
        let cases = [
            (String::new(), "it is empty"),
            (format!("{key}\n"), "its first line is another one"),
            (format!("zyflow-data-key v2 id=1\n{key}\n"), "its first line is another one"),
            (format!("{HEADER}\n{key}\n"), "the id is not a number below 2^32"),
            (format!("{HEADER}+1\n{key}\n"), "the id is not a number below 2^32"),
            (format!("{HEADER}4294967296\n{key}\n"), "the id is not a number below 2^32"),
            (format!("{HEADER}1\n"), "the key's line is missing"),
            (format!("{HEADER}1\n{}\n", &key[1..]), "the key is not 64 digits"),
            (format!("{HEADER}1\n{}zz\n", &key[2..]), "the key is not 64 digits"),
            (format!("{HEADER}1\n{key}\n{key}\n"), "more lines follow the key"),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (contents, expected) in cases {
            let path = key_file(folder.path(), &contents, 0o600);
            let error = load_key_file(&path, Path::new("/nonexistent")).unwrap_err();
            assert!(
                matches!(&error, KeyFileError::Malformed { problem, .. } if *problem == expected),
                "{contents:?}: {error}"
            );
            assert!(!error.to_string().contains("5a5a"), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = load_key_file(folder.path(), Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, KeyFileError::File(PrivateFileError::NotAFile { .. })), "{error}");
        let error = load_key_file(&folder.path().join("absent"), Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, KeyFileError::File(PrivateFileError::Open { .. })), "{error}");
        let path = key_file(folder.path(), &"x".repeat(65 << 10), 0o600);
        let error = load_key_file(&path, Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, KeyFileError::File(PrivateFileError::TooLarge { .. })), "{error}");
    }
}
