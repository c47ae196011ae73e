//! The folder that holds the records of one checkout.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::codec::{self, FormatError};
use super::{Record, StateSeal};
use crate::path::FilePath;

/// What a checkout is bound to: written at the first binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The history that the bases belong to.
    pub lineage: String,
    /// The project's name.
    pub project: String,
    /// The branch that was checked out; `None` = no git, or a detached HEAD.
    pub branch: Option<String>,
    /// The commit that HEAD named when everything was last looked at.
    pub head: Option<String>,
    /// The first scan is over: from now on a file that is new on both sides is merged without asking.
    pub is_bound: bool,
    /// Paths that differed at the first binding and still wait to be told which text to take.
    pub asked: BTreeSet<String>,
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store couldn't be read or written.
    #[error("state of the checkout: {0}")]
    Io(#[from] io::Error),
    /// A file of the store isn't what it should be.
    #[error("state of the checkout, {file}: remove the file to bind its path anew (with --take)")]
    Format {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The folder belongs to another checkout or another history.
    #[error("the state in {dir} belongs to project `{found_project}` of lineage {found_lineage}")]
    OtherBinding {
        /// The folder.
        dir: PathBuf,
        /// The project it was made for.
        found_project: String,
        /// The lineage it was made for.
        found_lineage: String,
    },
}

/// The folder that holds the records of one checkout. One owner: the checkout's thread.
pub struct Store {
    dir: PathBuf,
    seal: Arc<dyn StateSeal>,
    lineage: String,
}

/// What [`Store::load`] found.
#[derive(Default)]
pub struct Loaded {
    /// Records by path.
    pub records: BTreeMap<FilePath, Record>,
    /// Files that are no records, by their name, which is the hash of a path. That path must not be synced.
    pub damaged: BTreeMap<String, StoreError>,
}

const BINDING_FILE: &str = "checkout";
const RECORDS_DIR: &str = "files";
const NEW_SUFFIX: &str = ".new";

impl Store {
    /// Opens or makes the folder, and removes what an interrupted write left.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it can't be made or read.
    pub fn open(dir: &Path, lineage: &str, seal: Arc<dyn StateSeal>) -> Result<Self, StoreError> {
        fs::create_dir_all(dir.join(RECORDS_DIR))?;
        for folder in [dir.to_owned(), dir.join(RECORDS_DIR)] {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(NEW_SUFFIX) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), seal, lineage: lineage.to_owned() })
    }

    /// What the folder is bound to, if it is.
    ///
    /// # Errors
    /// [`StoreError`] when that can't be read, or is bound to another lineage or project.
    pub fn binding(&self, project: &str) -> Result<Option<Binding>, StoreError> {
        let file = self.dir.join(BINDING_FILE);
        let Some(bytes) = read_if_there(&file)? else { return Ok(None) };
        let binding: Binding =
            codec::open_bytes(&bytes, &*self.seal, b"binding").map_err(|source| StoreError::Format { file, source })?;
        if binding.lineage != self.lineage || binding.project != project {
            return Err(StoreError::OtherBinding {
                dir: self.dir.clone(),
                found_project: binding.project,
                found_lineage: binding.lineage,
            });
        }
        Ok(Some(binding))
    }

    /// Stores what the folder is bound to.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be written.
    pub fn bind(&self, binding: &Binding) -> Result<(), StoreError> {
        let file = self.dir.join(BINDING_FILE);
        let bytes = codec::seal_bytes(binding, &*self.seal, b"binding")
            .map_err(|source| StoreError::Format { file: file.clone(), source })?;
        Ok(replace(&file, &bytes)?)
    }

    /// Every record, and what isn't one.
    ///
    /// # Errors
    /// [`StoreError`] when the folder can't be read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        for entry in fs::read_dir(self.dir.join(RECORDS_DIR))? {
            let file = entry?.path();
            let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
            let bytes = fs::read(&file)?;
            match self.decode(&bytes, name) {
                Ok((path, record)) => {
                    loaded.records.insert(path, record);
                }
                Err(source) => {
                    loaded.damaged.insert(name.to_owned(), StoreError::Format { file, source });
                }
            }
        }
        Ok(loaded)
    }

    fn decode(&self, bytes: &[u8], name: &str) -> Result<(FilePath, Record), FormatError> {
        let record = codec::decode(bytes, &*self.seal, &self.context(name))?;
        let path = FilePath::parse(&record.path).map_err(|error| FormatError::Malformed(error.to_string()))?;
        if path.hash() != name {
            return Err(FormatError::Malformed("the record is about another path".to_owned()));
        }
        Ok((path, record))
    }

    /// Stores a record durably.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be sealed or written.
    pub fn save(&self, path: &FilePath, record: &Record) -> Result<(), StoreError> {
        let name = path.hash();
        let file = self.dir.join(RECORDS_DIR).join(&name);
        let bytes = codec::encode(record, &*self.seal, &self.context(&name))
            .map_err(|source| StoreError::Format { file: file.clone(), source })?;
        Ok(replace(&file, &bytes)?)
    }

    /// Forgets a record.
    ///
    /// # Errors
    /// [`StoreError`] when its file can't be removed.
    pub fn remove(&self, path: &FilePath) -> Result<(), StoreError> {
        match fs::remove_file(self.dir.join(RECORDS_DIR).join(path.hash())) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn context(&self, name: &str) -> Vec<u8> {
        format!("zyflow checkout record\0{}\0{name}", self.lineage).into_bytes()
    }
}

fn read_if_there(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file so that after a power cut it is the old or the new one.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(NEW_SUFFIX);
    let new = PathBuf::from(name);
    let mut handle = fs::File::create(&new)?;
    handle.write_all(bytes)?;
    handle.sync_all()?;
    fs::rename(&new, file)?;
    let folder = file.parent().expect("invariant: files of the store lie in its folder");
    fs::File::open(folder)?.sync_all()
}
