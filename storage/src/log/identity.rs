//! The identity of a log: which format, which history, which node. And the lock that keeps a second process out.
//!
//! The file is written once, when the node is initialised, and is readable by people:
//!
//! ```text
//! zyflow log
//! format 1
//! lineage 000102030405060708090a0b0c0d0e0f
//! node 3
//! ```

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use super::error::LogError;
use crate::types::NodeId;

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const FILE: &str = "IDENTITY";
const TITLE: &str = "zyflow log";
/// A longer file isn't ours.
const FILE_BYTES_MAX: u64 = 4096;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id of the history: one per cluster, kept by a restore into a new cluster.
    pub lineage: [u8; 16],
    /// The node.
    pub node: NodeId,
}

/// Held as long as the log is open.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Writes the identity into the folder of a new log and syncs it.
pub(crate) fn create(dir: &Path, identity: &Identity) -> Result<(), LogError> {
    let path = dir.join(FILE);
    let text = format!("{TITLE}\nformat {FORMAT}\nlineage {}\nnode {}\n", hex(&identity.lineage), identity.node);
    std::fs::write(&path, text).map_err(LogError::file("write", &path))?;
    let file = File::open(&path).map_err(LogError::file("open", &path))?;
    file.sync_all().map_err(LogError::file("sync", &path))
}

/// Locks the log and checks that it is the expected one, of a format that this program reads.
pub(crate) fn check(dir: &Path, expected: &Identity) -> Result<Lock, LogError> {
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(LogError::NotInitialised { dir: dir.to_owned() });
        }
        opened => opened.map_err(LogError::file("open", &path))?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LogError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(LogError::file("lock", &path)(error)),
    }
    let (format, found) = read(&path)?;
    if format > FORMAT {
        return Err(LogError::NewerFormat { dir: dir.to_owned(), found: format, known: FORMAT });
    }
    let found = found.map_err(|reason| LogError::IdentityDamaged { path, reason })?;
    if found.lineage != expected.lineage {
        let (found, expected) = (hex(&found.lineage), hex(&expected.lineage));
        return Err(LogError::OtherLineage { dir: dir.to_owned(), found, expected });
    }
    if found.node != expected.node {
        return Err(LogError::OtherNode { dir: dir.to_owned(), found: found.node, expected: expected.node });
    }
    Ok(Lock { _file: file })
}

/// The format, and the rest as far as this format tells how to read it.
fn read(path: &PathBuf) -> Result<(u32, Result<Identity, &'static str>), LogError> {
    let damaged = |reason| LogError::IdentityDamaged { path: path.clone(), reason };
    if std::fs::metadata(path).map_err(LogError::file("stat", path))?.len() > FILE_BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let bytes = std::fs::read(path).map_err(LogError::file("read", path))?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged("it doesn't begin with its title"));
    }
    let format = field(lines.next(), "format ").and_then(|value| value.parse().ok());
    let format = format.ok_or_else(|| damaged("it has no format"))?;
    Ok((format, identity(lines)))
}

fn identity<'a>(mut lines: impl Iterator<Item = &'a str>) -> Result<Identity, &'static str> {
    let lineage = field(lines.next(), "lineage ").and_then(unhex).ok_or("it has no lineage")?;
    let node = field(lines.next(), "node ").and_then(|value| value.parse().ok()).ok_or("it has no node")?;
    if lines.next().is_some() { Err("it goes on after the node") } else { Ok(Identity { lineage, node }) }
}

fn field<'a>(line: Option<&'a str>, name: &str) -> Option<&'a str> {
    line?.strip_prefix(name)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("invariant: writing to a String doesn't fail");
        out
    })
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 32 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Identity = Identity { lineage: *b"0123456789abcdef", node: 3 };

    fn checked(change: impl FnOnce(String) -> String, expected: &Identity) -> String {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &OURS).unwrap();
        let path = dir.path().join(FILE);
        let text = change(std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, text).unwrap();
        let outcome = check(dir.path(), expected).map_or_else(|error| error.to_string(), |_| "ours".to_owned());
        outcome.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn only_the_own_log_is_accepted() {
        let same = |text: String| text;
        assert_eq!(checked(same, &OURS), "ours");
        assert_eq!(
            checked(same, &Identity { node: 4, ..OURS }),
            "the log in DIR belongs to node 3, this is node 4: wrong data folder"
        );
        assert_eq!(
            checked(same, &Identity { lineage: [0; 16], ..OURS }),
            "the log in DIR belongs to lineage 30313233343536373839616263646566, this node is of lineage \
             00000000000000000000000000000000: wrong data folder"
        );
        assert_eq!(
            checked(|text| text.replace("format 1", "format 2") + "more\n", &OURS),
            "the log in DIR has format 2, this program knows formats up to 1: start the newer program"
        );
        assert_eq!(checked(|text| text.replace("node 3", "node x"), &OURS), "DIR/IDENTITY is damaged: it has no node");
        assert_eq!(checked(|_| String::new(), &OURS), "DIR/IDENTITY is damaged: it doesn't begin with its title");
    }

    #[test]
    fn a_second_opener_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &OURS).unwrap();
        let first = check(dir.path(), &OURS).unwrap();
        assert!(matches!(check(dir.path(), &OURS), Err(LogError::Locked { .. })));
        drop(first);
        check(dir.path(), &OURS).unwrap();
    }

    #[test]
    fn a_folder_without_a_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check(dir.path(), &OURS), Err(LogError::NotInitialised { .. })));
    }
}
