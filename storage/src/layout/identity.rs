//! The identity file: whose data a folder holds.
//!
//! ```text
//!   zyflow data folder
//!   format 1
//!   lineage 0f3c...-....
//!   node 1
//!   check 64 hexadecimal digits: BLAKE3 of all bytes before this line
//! ```
//!
//! The format stands before anything that a later format may change, so that a newer folder is told from a damaged one.

use fs_err as fs;
use std::path::Path;

use zyflow_crypto::Lineage;

use super::{LayoutError, replace_file};

const TITLE: &str = "zyflow data folder";

/// The format that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// More than any identity file has: 1 KiB.
const BYTES_MAX: u64 = 1024;

/// Whose data it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub lineage: Lineage,
    pub node_id: u64,
}

/// Writes the file, all of it or nothing.
pub(super) fn write(path: &Path, identity: &Identity) -> Result<(), LayoutError> {
    let text = format!("{TITLE}\nformat {FORMAT}\nlineage {}\nnode {}\n", identity.lineage, identity.node_id);
    let check = blake3::hash(text.as_bytes()).to_hex();
    Ok(replace_file(path, format!("{text}check {check}\n").as_bytes())?)
}

/// Reads the file; `None` = there is none.
pub(super) fn read(path: &Path) -> Result<Option<Identity>, LayoutError> {
    let damaged = |reason| LayoutError::Damaged { path: path.to_owned(), reason };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > BYTES_MAX => return Err(damaged("it is too long")),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let text = String::from_utf8(fs::read(path)?).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged("it doesn't begin with its title"));
    }
    let format = field(lines.next(), "format ").and_then(|value| value.parse().ok());
    let format: u32 = format.ok_or_else(|| damaged("it has no format"))?;
    if format > FORMAT {
        let dir = path.parent().unwrap_or(path).to_owned();
        return Err(LayoutError::NewerFormat { dir, found: format, known: FORMAT });
    }
    let checked = text.rfind("check ").filter(|&at| text[..at].ends_with('\n'));
    let (before, check) = text.split_at(checked.ok_or_else(|| damaged("it has no checksum"))?);
    if check != format!("check {}\n", blake3::hash(before.as_bytes()).to_hex()) {
        return Err(damaged("its checksum is wrong"));
    }
    let lineage = field(lines.next(), "lineage ").and_then(|value| value.parse().ok());
    let node_id = field(lines.next(), "node ").and_then(|value| value.parse().ok());
    Ok(Some(Identity {
        lineage: lineage.ok_or_else(|| damaged("it has no lineage"))?,
        node_id: node_id.ok_or_else(|| damaged("it has no node"))?,
    }))
}

fn field<'a>(line: Option<&'a str>, name: &str) -> Option<&'a str> {
    line?.strip_prefix(name)
}
