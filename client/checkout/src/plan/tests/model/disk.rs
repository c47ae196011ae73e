//! One checkout's file system and the programs that write to it: the file under its name, replaced files that are still linked,
//! a writer with a buffer, another one that holds a file open. Times are noise: nothing here reads them but a planted fault.

use zyflow_spec::{Encoding, decode, encode};

use crate::text::KnownText;

/// A file, whatever its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    /// When it was last written, by a clock that jumps.
    pub(super) mtime: u64,
}

/// A replaced file that is still linked.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) inode: usize,
    /// The newest text that whoever writes into it can have seen; forgotten by a crash.
    pub(super) start: Option<KnownText>,
    /// The content that is accounted for. Its name says so, so it survives a crash.
    pub(super) known: Option<Vec<u8>>,
    pub(super) is_pending: bool,
    /// It can't be merged without a person, who is told.
    pub(super) is_stuck: bool,
}

/// A writer that holds a file open.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) inode: usize,
    pub(super) buffer: String,
    /// It emptied the file and hasn't written it yet.
    pub(super) is_truncated: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) inodes: Vec<Inode>,
    /// What has the file's name.
    pub(super) path: Option<usize>,
    pub(super) keep: Vec<Kept>,
    /// Files that lost their name by a writer's act, not by ours.
    pub(super) unlinked: Vec<usize>,
    /// Bytes that have stood under the name, oldest first: what a person, git or a backup may put back.
    pub(super) past: Vec<Vec<u8>>,
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) bytes: Vec<u8>,
    pub(super) text: String,
    pub(super) encoding: Encoding,
}

impl Disk {
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        self.path.map(|inode| &self.inodes[inode].bytes[..])
    }

    pub(super) fn scan(&self) -> Option<Scanned> {
        let bytes = self.bytes()?;
        let (text, encoding) = decode(bytes).unwrap();
        Some(Scanned { bytes: bytes.to_owned(), text, encoding })
    }

    /// A new file.
    pub(super) fn make(&mut self, bytes: Vec<u8>, mtime: u64) -> usize {
        self.inodes.push(Inode { bytes, mtime });
        self.inodes.len() - 1
    }

    /// Puts a file under the name: a rename. Returns what had the name before.
    pub(super) fn put(&mut self, inode: usize) -> Option<usize> {
        let bytes = &self.inodes[inode].bytes;
        if self.past.last() != Some(bytes) {
            self.past.push(bytes.clone());
        }
        self.path.replace(inode)
    }

    /// Writes into a file, whatever its name.
    pub(super) fn write(&mut self, inode: usize, bytes: Vec<u8>, mtime: u64) {
        if self.path == Some(inode) && !bytes.is_empty() && self.past.last() != Some(&bytes) {
            self.past.push(bytes.clone());
        }
        self.inodes[inode] = Inode { bytes, mtime };
    }

    pub(super) fn text_of(&self, inode: usize) -> String {
        decode(&self.inodes[inode].bytes).unwrap().0
    }

    /// `text` as the file under the name is written, or as `otherwise` where there is none.
    pub(super) fn encoded(&self, text: &str, otherwise: Encoding) -> Vec<u8> {
        let encoding = self.bytes().filter(|bytes| !bytes.is_empty()).map(|bytes| decode(bytes).unwrap().1);
        encode(text, encoding.unwrap_or(otherwise))
    }
}
