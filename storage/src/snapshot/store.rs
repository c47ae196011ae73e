//! The folder of a node's snapshots.
//!
//! A name says what a snapshot covers, so that they sort; what gets a final name is complete and adds up to its digest. Files that are being
//! written carry another ending, and are deleted at the next start; what was received in part stays for the transfer to go on with.
//! A file that turns out to be bad when it is needed is set aside: it gets an ending under which only people look at it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use zyflow_crypto::{KeyRing, Lineage};
use zyflow_machine::Digest;

use super::SnapshotError;
use super::format::{self, Header, Item, Parts, Reader};
use super::tally::Tally;
use crate::layout::sync_folder;
use crate::tables::{Position, SnapshotSource, TravellingVersion};

const ENDING: &str = ".snapshot";
const TEMPORARY_ENDING: &str = ".tmp";
const PARTIAL_ENDING: &str = ".partial";
/// Behind the whole name of a file that was set aside.
const REFUSED_ENDING: &str = ".refused";

/// What a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The newest entry that it covers.
    pub position: Position,
    /// The membership at that entry, and the entry that brought it.
    pub membership: Option<(Position, Vec<u8>)>,
    /// The file.
    pub file: PathBuf,
    /// How long the file is.
    pub bytes: u64,
    /// The digest of the state.
    pub digest: Digest,
    /// A name that no other snapshot has.
    pub id: String,
}

/// The folder; clones share it.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    dir: Arc<Path>,
    kept: usize,
}

impl SnapshotStore {
    /// Opens the folder, makes it if it isn't there, and deletes what was not finished. The newest `kept` snapshots stay, at
    /// least one.
    ///
    /// # Errors
    /// The file system fails.
    pub fn open(dir: &Path, kept: usize) -> Result<Self, SnapshotError> {
        fs::create_dir_all(dir).map_err(SnapshotError::file("create", dir))?;
        for path in files(dir, TEMPORARY_ENDING)? {
            fs::remove_file(&path).map_err(SnapshotError::file("remove", &path))?;
        }
        Ok(Self { dir: dir.into(), kept: kept.max(1) })
    }

    /// The files, newest first.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut found = files(&self.dir, ENDING)?;
        found.sort_unstable();
        found.reverse();
        Ok(found)
    }

    /// The newest snapshot, by its header. One whose header is damaged is set aside, see [`Self::set_aside_if_bad`].
    ///
    /// # Errors
    /// It can't be read or opened.
    pub fn newest(&self, ring: &KeyRing, lineage: &Lineage) -> Result<Option<SnapshotMeta>, SnapshotError> {
        for path in self.list()? {
            match meta(&path, ring, lineage) {
                Ok(meta) => return Ok(Some(meta)),
                Err(error) => {
                    if !self.set_aside_if_bad(&path, ring, lineage)? {
                        return Err(error);
                    }
                    tracing::error!(path = %path.display(), %error, "set a damaged snapshot aside");
                }
            }
        }
        Ok(None)
    }

    /// How many bytes the newest snapshot has; 0 = there is none.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn newest_bytes(&self) -> Result<u64, SnapshotError> {
        let Some(newest) = self.list()?.into_iter().next() else { return Ok(0) };
        Ok(fs::metadata(&newest).map_err(SnapshotError::file("stat", &newest))?.len())
    }

    /// Reads a snapshot to its last byte, and adds it up.
    ///
    /// # Errors
    /// Any byte of it is wrong, missing or too many, or it contradicts itself.
    pub fn verify(&self, file: &Path, ring: &KeyRing, lineage: &Lineage) -> Result<SnapshotMeta, SnapshotError> {
        let (header, id) = verify(file, ring, lineage)?;
        meta_of(file, &header, id)
    }

    /// Sets a snapshot aside that could not be installed, if that is the file's fault and not that of a key, a release or this disk. The
    /// next start then looks at an older one. The newest file that was set aside stays, for people. Says whether this one was.
    ///
    /// # Errors
    /// The file system fails.
    pub fn set_aside_if_bad(&self, file: &Path, ring: &KeyRing, lineage: &Lineage) -> Result<bool, SnapshotError> {
        let Err(error) = verify(file, ring, lineage) else { return Ok(false) };
        if !is_files_fault(file, &error)? {
            return Ok(false);
        }
        for earlier in files(&self.dir, REFUSED_ENDING)? {
            fs::remove_file(&earlier).map_err(SnapshotError::file("remove", &earlier))?;
        }
        let mut refused = file.as_os_str().to_owned();
        refused.push(REFUSED_ENDING);
        fs::rename(file, PathBuf::from(refused)).map_err(SnapshotError::file("rename", file))?;
        sync_folder(&self.dir).map_err(SnapshotError::file("sync", &self.dir))?;
        Ok(true)
    }

    /// Writes a snapshot and reads it back to its last byte: only one that adds up to its digest gets a final name, and only then those
    /// that are too many are deleted.
    pub(super) fn add(
        &self,
        source: &SnapshotSource,
        ring: &KeyRing,
        lineage: &Lineage,
    ) -> Result<SnapshotMeta, SnapshotError> {
        let id = format::mint_id()?;
        let temporary = Temporary(self.temporary(id));
        format::write(&temporary.0, id, source, ring, lineage)?;
        let (header, id) = verify(&temporary.0, ring, lineage)?;
        let path = self.adopt(&temporary.0, source.state.position, id)?;
        meta_of(&path, &header, id)
    }

    /// Writes a snapshot of what isn't in a database: `versions` gives all versions in version order. It has no sessions.
    pub(crate) fn add_parts<E: From<SnapshotError>>(
        &self,
        parts: &Parts<'_>,
        ring: &KeyRing,
        lineage: &Lineage,
        versions: impl FnOnce(&mut dyn FnMut(&TravellingVersion) -> Result<(), SnapshotError>) -> Result<(), E>,
    ) -> Result<SnapshotMeta, E> {
        let id = format::mint_id()?;
        let temporary = Temporary(self.temporary(id));
        format::write_parts(&temporary.0, id, parts, &[], ring, lineage, versions)?;
        let path = self.adopt(&temporary.0, parts.state.position, id)?;
        Ok(meta(&path, ring, lineage)?)
    }

    /// Gives a complete and synced file its final name.
    pub(super) fn adopt(&self, temporary: &Path, position: Position, id: [u8; 16]) -> Result<PathBuf, SnapshotError> {
        let path = self.dir.join(format!("{}{ENDING}", name_of(position, id)));
        fs::rename(temporary, &path).map_err(SnapshotError::file("rename", temporary))?;
        sync_folder(&self.dir).map_err(SnapshotError::file("sync", &self.dir))?;
        // Not this one: another of the same entry may sort before it.
        for surplus in self.list()?.iter().filter(|other| **other != path).skip(self.kept - 1) {
            fs::remove_file(surplus).map_err(SnapshotError::file("remove", surplus))?;
        }
        // What is half here of another one is older than this, or will be sent anew.
        self.forget_partial(None)?;
        Ok(path)
    }

    /// Deletes what is half here, but for this file.
    pub(super) fn forget_partial(&self, kept: Option<&Path>) -> Result<(), SnapshotError> {
        for path in files(&self.dir, PARTIAL_ENDING)? {
            if Some(path.as_path()) != kept {
                fs::remove_file(&path).map_err(SnapshotError::file("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Where the snapshot of that name is kept while it is half here. Names come from other nodes, so only their hash is used.
    pub(super) fn partial(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}{PARTIAL_ENDING}", hex(&blake3::hash(name.as_bytes()).as_bytes()[..16])))
    }

    fn temporary(&self, id: [u8; 16]) -> PathBuf {
        self.dir.join(format!("{}{TEMPORARY_ENDING}", hex(&id)))
    }
}

/// A file that goes when this does, unless it has another name by then.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        remove_if_there(&self.0);
    }
}

pub(super) fn remove_if_there(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // It is deleted at the next start.
        Err(error) => tracing::warn!(%error, "a temporary snapshot can't be removed"),
    }
}

/// What a snapshot covers, by its header alone.
pub(super) fn meta(file: &Path, ring: &KeyRing, lineage: &Lineage) -> Result<SnapshotMeta, SnapshotError> {
    let mut reader = Reader::open(file, ring, lineage)?;
    let header = reader.header()?;
    meta_of(file, &header, reader.id())
}

/// Reads a file to its last byte, and holds what it says against its digest.
pub(super) fn verify(file: &Path, ring: &KeyRing, lineage: &Lineage) -> Result<(Header, [u8; 16]), SnapshotError> {
    let mut reader = Reader::open(file, ring, lineage)?;
    let header = reader.header()?;
    let mut tally = Tally::new(file, &header);
    while let Some(item) = reader.next()? {
        match item {
            Item::Version(given) => tally.add_version(&given)?,
            Item::Session(id, bytes) => tally.add_session(id, bytes)?,
        }
    }
    tally.finish()?;
    Ok((header, reader.id()))
}

/// Is the file at fault that could not be verified?
fn is_files_fault(file: &Path, error: &SnapshotError) -> Result<bool, SnapshotError> {
    match error {
        SnapshotError::Damaged { .. } | SnapshotError::Inconsistent { .. } => Ok(true),
        // As written, it wants another key or a newer release.
        SnapshotError::Open { .. } | SnapshotError::NewerFormat { .. } | SnapshotError::Tables(_) => {
            Ok(!format::is_whole(file)?)
        }
        SnapshotError::Empty
        | SnapshotError::File { .. }
        | SnapshotError::Seal(_)
        | SnapshotError::Random(_)
        | SnapshotError::Older { .. } => Ok(false),
    }
}

pub(super) fn meta_of(file: &Path, header: &Header, id: [u8; 16]) -> Result<SnapshotMeta, SnapshotError> {
    let bytes = fs::metadata(file).map_err(SnapshotError::file("stat", file))?.len();
    Ok(SnapshotMeta {
        position: header.state.position,
        membership: header.state.membership.clone(),
        file: file.to_owned(),
        bytes,
        digest: Digest::from_bytes(header.digest),
        id: name_of(header.state.position, id),
    })
}

/// Sorts by index, then term.
fn name_of(position: Position, id: [u8; 16]) -> String {
    format!("{:020}-{:020}-{}-{}", position.index, position.term, position.leader, hex(&id))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("invariant: a nibble is below 16");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, SnapshotError> {
    let failed = || SnapshotError::file("read", dir);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.to_str().is_some_and(|path| path.ends_with(ending)) {
            found.push(path);
        }
    }
    Ok(found)
}
