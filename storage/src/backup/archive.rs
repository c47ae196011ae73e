//! A folder with the objects of a backup, read to their last byte and put in order.
//!
//! Needs no key: the trailers and the chain are looked at here, what is sealed in [`super::replay`].

use std::io::BufReader;
use std::path::{Path, PathBuf};

use fs_err as fs;
use zyflow_crypto::backup::{self, Checked, number_in, object_name};
use zyflow_machine::id::Revision;

use super::BackupError;

/// An object that was read to its last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself, its hash and its length.
    pub checked: Checked,
}

impl Object {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        object_name(self.checked.header.number)
    }

    pub(super) fn open(&self) -> Result<BufReader<fs::File>, BackupError> {
        let file = fs::File::open(&self.path).map_err(BackupError::file("open", &self.path))?;
        Ok(BufReader::with_capacity(1 << 20, file))
    }
}

/// The objects of a backup, in order, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    objects: Vec<Object>,
}

impl Archive {
    /// Reads every object in a folder, and checks that each follows the one before.
    ///
    /// # Errors
    /// There is none, one is damaged, missing or in another's place, or can't be read.
    pub fn open(dir: &Path) -> Result<Self, BackupError> {
        let failed = || BackupError::file("read", dir);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            numbers.extend(name.to_str().and_then(number_in));
        }
        numbers.sort_unstable();
        let mut objects: Vec<Object> = Vec::with_capacity(numbers.len());
        for number in numbers {
            let name = object_name(number);
            let path = dir.join(&name);
            let file = fs::File::open(&path).map_err(BackupError::file("open", &path))?;
            let checked = backup::check(BufReader::with_capacity(1 << 20, file)).map_err(BackupError::object(&name))?;
            if checked.header.number != number {
                return Err(BackupError::damaged(&name, "it has the number of another one"));
            }
            match objects.last() {
                Some(last) => last.checked.precedes(&checked.header),
                None => backup::may_begin(&checked.header),
            }
            .map_err(BackupError::object(&name))?;
            objects.push(Object { path, checked });
        }
        if objects.is_empty() {
            return Err(BackupError::Empty { dir: dir.to_owned() });
        }
        Ok(Self { objects })
    }

    /// All objects, in order.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The last revision that any object holds.
    #[must_use]
    pub fn last(&self) -> Revision {
        Revision(self.objects.iter().map(|object| object.checked.header.last).max().unwrap_or_default())
    }

    /// The chains, each from its base on, oldest first.
    #[must_use]
    pub fn chains(&self) -> Vec<&[Object]> {
        self.objects.chunk_by(|_, next| next.checked.header.previous.is_some()).collect()
    }
}
