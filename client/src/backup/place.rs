//! Where the objects of a backup are: a folder, or a prefix in an S3-compatible store. A name is given once and never to something else.
//!
//! ```text
//!   DIR                    temporary ─fsync─> rename to the name, if that is free ─> fsync folder
//!   s3://BUCKET/PREFIX     one PUT with If-None-Match: *, which the store does whole or not at all
//! ```
//!
//! The PUT is one, and not of several parts, since stores share no condition for those; so an object for a store is held in memory.
//!
//! Where to reach a store, and as whom, is said by the usual variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
//! `AWS_ENDPOINT_URL` and so on. Plain http is spoken with this machine alone.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;
use zyflow_crypto::backup::{Checked, HEADER_BYTES, Header, ObjectError, check, number_in, object_name};

/// What a place begins with that is no folder.
const S3_SCHEME: &str = "s3://";

/// What a file is called until it is whole: it ends as no object does.
const TEMPORARY_ENDING: &str = ".tmp";

/// Who may read and write a file, as far as the umask allows: an object is sealed, and whoever copies it away may be another.
const FILE_MODE: u32 = 0o666;

/// Bytes that are read of a file at once: 1 MiB.
const READ_BYTES: usize = 1 << 20;

/// How long one request to a store may take: an hour, as it carries a whole object, which a slow line may take long for. The library's own
/// 30 seconds are 32 MiB at nine megabits a second.
const REQUEST_TIMEOUT: &str = "3600s";

/// What sets another one.
const REQUEST_TIMEOUT_VARIABLE: &str = "AWS_TIMEOUT";

/// Why a place can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It is no place.
    #[error("`{0}` is no place for a backup: write a folder, or s3://BUCKET/PREFIX")]
    Malformed(String),
    /// A folder.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A store.
    #[error("{place}: {source}")]
    Store {
        /// Where.
        place: String,
        /// Why it failed.
        source: object_store::Error,
    },
    /// An object, which was read.
    #[error("object {} in {place}: {source}", object_name(*.number))]
    Object {
        /// Its number.
        number: u32,
        /// Where.
        place: String,
        /// What is wrong.
        source: ObjectError,
    },
}

/// What became of an object that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is there, and stays.
    Here,
    /// Another one has its name.
    Taken,
}

/// A folder or a store.
#[derive(Clone, Debug)]
pub enum Place {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A prefix in a store.
    Bucket {
        /// The store, of one bucket.
        store: Arc<dyn ObjectStore>,
        /// Under which the objects are.
        prefix: Key,
        /// As it was written.
        shown: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket { shown, .. } => shown.fmt(f),
        }
    }
}

impl Place {
    /// The place that is written so. Reaches nowhere yet.
    ///
    /// # Errors
    /// It is none, or what the environment says of the store can't be used.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let malformed = || PlaceError::Malformed(text.to_owned());
        let Some(rest) = text.strip_prefix(S3_SCHEME) else {
            let is_folder = !text.is_empty() && !text.contains("://");
            return if is_folder { Ok(Self::Folder(text.into())) } else { Err(malformed()) };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(malformed());
        }
        let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let builder = patient(builder, std::env::var_os(REQUEST_TIMEOUT_VARIABLE).is_some());
        let builder = if is_plain_loopback(&endpoint) { builder.with_allow_http(true) } else { builder };
        let store = builder.build().map_err(|source| PlaceError::Store { place: text.to_owned(), source })?;
        let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|_| malformed())?;
        Ok(Self::Bucket { store: Arc::new(store), prefix, shown: text.to_owned() })
    }

    /// The numbers of the objects that are there, in order; none where the folder isn't there.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn list(&self) -> Result<Vec<u32>, PlaceError> {
        let mut numbers = match self {
            Self::Folder(folder) => numbers_in(folder)?,
            Self::Bucket { store, prefix, .. } => {
                let listed = store.list(Some(prefix)).try_collect::<Vec<_>>().await.map_err(self.store_error())?;
                let is_beneath = |key: &Key| key.prefix_match(prefix).is_some_and(|rest| rest.count() == 1);
                let keys = listed.into_iter().map(|found| found.location).filter(is_beneath);
                keys.filter_map(|key| number_in(key.filename()?)).collect()
            }
        };
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// An object.
    ///
    /// # Errors
    /// It isn't there, or can't be read.
    pub async fn read(&self, number: u32) -> Result<Bytes, PlaceError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(object_name(number));
                std::fs::read(&path).map(Bytes::from).map_err(file_error("read", &path))
            }
            Self::Bucket { store, prefix, .. } => {
                let found = store.get(&key(prefix, number)).await.map_err(self.store_error())?;
                found.bytes().await.map_err(self.store_error())
            }
        }
    }

    /// An object, read to its last byte and checked by itself.
    ///
    /// # Errors
    /// It isn't there, can't be read, or is damaged.
    pub async fn check(&self, number: u32) -> Result<Checked, PlaceError> {
        let checked = match self {
            Self::Folder(folder) => {
                let path = folder.join(object_name(number));
                let file = File::open(&path).map_err(file_error("read", &path))?;
                check(BufReader::with_capacity(READ_BYTES, file))
            }
            Self::Bucket { .. } => check(self.read(number).await?.as_ref()),
        };
        checked.map_err(|source| PlaceError::Object { number, place: self.to_string(), source })
    }

    /// What an object says of itself, and how long it is. Believes it.
    ///
    /// # Errors
    /// It isn't there, can't be read, or has no header.
    pub async fn header(&self, number: u32) -> Result<(Header, u64), PlaceError> {
        let (bytes, length) = match self {
            Self::Folder(folder) => beginning(&folder.join(object_name(number)))?,
            Self::Bucket { store, prefix, .. } => {
                let key = key(prefix, number);
                let length = store.head(&key).await.map_err(self.store_error())?.size;
                let end = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX).min(length);
                (store.get_range(&key, 0..end).await.map_err(self.store_error())?.to_vec(), length)
            }
        };
        let header = bytes.as_slice().try_into().map_err(|_| ObjectError::Damaged("it is cut short"));
        let header = header.and_then(Header::decode);
        let header = header.map_err(|source| PlaceError::Object { number, place: self.to_string(), source })?;
        Ok((header, length))
    }

    /// Keeps an object, unless another has its name. Afterwards it is there whole, also after a power cut.
    ///
    /// # Errors
    /// It can't be written; then it isn't there.
    pub async fn keep(&self, number: u32, object: Vec<u8>) -> Result<Kept, PlaceError> {
        match self {
            Self::Folder(folder) => keep_in(folder, number, &object),
            Self::Bucket { store, prefix, .. } => {
                let (key, object) = (key(prefix, number), Bytes::from(object));
                let payload = PutPayload::from(object.clone());
                match store.put_opts(&key, payload, PutMode::Create.into()).await {
                    Ok(_) => Ok(Kept::Here),
                    // It may be ours: written, and its answer lost, so that the client sent it again.
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                        let found = self.read(number).await?;
                        Ok(if found == object { Kept::Here } else { Kept::Taken })
                    }
                    Err(error) => Err(self.store_error()(error)),
                }
            }
        }
    }

    fn store_error(&self) -> impl FnOnce(object_store::Error) -> PlaceError {
        let place = self.to_string();
        move |source| PlaceError::Store { place, source }
    }
}

fn key(prefix: &Key, number: u32) -> Key {
    prefix.clone().join(object_name(number))
}

/// Waits long for a store, unless somebody has told how long.
fn patient(builder: AmazonS3Builder, is_told: bool) -> AmazonS3Builder {
    if is_told {
        return builder;
    }
    builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
}

/// Whether an address is `http://` on this machine.
fn is_plain_loopback(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _port)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    move |source| PlaceError::File { doing, path: path.to_owned(), source }
}

fn numbers_in(folder: &Path) -> Result<Vec<u32>, PlaceError> {
    let failed = || file_error("read", folder);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed())?.file_name();
        numbers.extend(name.to_str().and_then(number_in));
    }
    Ok(numbers)
}

fn beginning(path: &Path) -> Result<(Vec<u8>, u64), PlaceError> {
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        file.take(u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok((bytes, length))
    };
    read().map_err(file_error("read", path))
}

fn keep_in(folder: &Path, number: u32, object: &[u8]) -> Result<Kept, PlaceError> {
    std::fs::create_dir_all(folder).map_err(file_error("make", folder))?;
    let keep = || named(written(folder, number, object)?, folder, number);
    keep().map_err(file_error("write", &folder.join(object_name(number))))
}

/// A temporary file with these bytes, synced. Nobody else has it: its name is random, since processes on other machines or in containers
/// that write to the same folder may well have the same id.
fn written(folder: &Path, number: u32, object: &[u8]) -> io::Result<NamedTempFile> {
    let mut temporary = tempfile::Builder::new()
        .prefix(&format!("{}.", object_name(number)))
        .suffix(TEMPORARY_ENDING)
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(folder)?;
    temporary.write_all(object)?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

/// Gives it the object's name, if that is free; else removes it.
fn named(temporary: NamedTempFile, folder: &Path, number: u32) -> io::Result<Kept> {
    let kept = match temporary.persist_noclobber(folder.join(object_name(number))) {
        Ok(_file) => Kept::Here,
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Kept::Taken,
        Err(failed) => return Err(failed.error),
    };
    File::open(folder)?.sync_all()?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn bucket() -> Place {
        let prefix = Key::parse("team/zyflow").unwrap();
        Place::Bucket { store: Arc::new(InMemory::new()), prefix, shown: "s3://b/team/zyflow".to_owned() }
    }

    /// Both kinds keep, list and read alike.
    #[tokio::test]
    async fn an_object_is_kept_once_and_read_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        for place in [Place::Folder(dir.path().join("deep/down")), bucket()] {
            assert_eq!(place.list().await.unwrap(), [0; 0]);
            assert_eq!(place.keep(2, b"two".to_vec()).await.unwrap(), Kept::Here);
            assert_eq!(place.keep(1, b"one".to_vec()).await.unwrap(), Kept::Here);
            assert_eq!(place.keep(2, b"other".to_vec()).await.unwrap(), Kept::Taken, "{place}");
            assert_eq!(place.list().await.unwrap(), [1, 2]);
            assert_eq!(place.read(2).await.unwrap().as_ref(), b"two");
            assert!(place.read(3).await.is_err());
            assert!(place.header(1).await.unwrap_err().to_string().contains("cut short"));
        }
    }

    /// A store whose answer got lost is asked again by its client, and finds our own object.
    #[tokio::test]
    async fn an_object_that_is_there_already_and_ours_is_kept() {
        let place = bucket();
        for _ in 0..2 {
            assert_eq!(place.keep(1, b"one".to_vec()).await.unwrap(), Kept::Here);
        }
    }

    /// Two processes of one id, as in two containers: each has a file of its own, and what one was told is kept stays as it is.
    #[test]
    fn two_that_write_one_object_at_once_do_not_write_into_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = written(dir.path(), 1, b"the first").unwrap();
        let second = written(dir.path(), 1, b"and another one").unwrap();
        assert_eq!(named(first, dir.path(), 1).unwrap(), Kept::Here);
        assert_eq!(named(second, dir.path(), 1).unwrap(), Kept::Taken);
        let path = dir.path().join(object_name(1));
        assert_eq!(std::fs::read(&path).unwrap(), b"the first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        // As any file that is made here, not only for whoever made it.
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        let [object, plain] = [path, plain].map(|path| std::fs::metadata(path).unwrap().permissions().mode());
        assert_eq!(object, plain);
    }

    /// That the library takes the value is seen where a place in a store is parsed: it makes a client of it.
    #[test]
    fn a_store_is_waited_for_unless_somebody_has_told_how_long() {
        let key = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        let timeout = |is_told| patient(AmazonS3Builder::new(), is_told).get_config_value(&key);
        assert_eq!(timeout(false).as_deref(), Some(REQUEST_TIMEOUT));
        assert_eq!(timeout(true), AmazonS3Builder::new().get_config_value(&key));
        assert!(Place::parse("s3://b/a").is_ok());
    }

    #[tokio::test]
    async fn what_is_no_object_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["000001.zybackup.7.tmp", "readme.md", "1.zybackup"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(Place::Folder(dir.path().to_owned()).list().await.unwrap(), [0; 0]);
        let place = bucket();
        let Place::Bucket { store, .. } = &place else { unreachable!() };
        for key in ["team/zyflow/deeper/000001.zybackup", "team/zyflow2/000001.zybackup", "000001.zybackup"] {
            store.put(&Key::from(key), PutPayload::from_static(b"x")).await.unwrap();
        }
        assert_eq!(place.list().await.unwrap(), [0; 0]);
    }

    #[test]
    fn places_are_folders_and_buckets() {
        assert!(matches!(Place::parse("backups/daily"), Ok(Place::Folder(_))));
        for bad in ["", "s3://", "s3:///x", "ftp://host/x", "s3://b/a//b"] {
            assert!(matches!(Place::parse(bad), Err(PlaceError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for yes in ["http://127.0.0.1:9000", "http://localhost:9000/", "http://[::1]:9000", "http://127.1.2.3"] {
            assert!(is_plain_loopback(yes), "{yes}");
        }
        for no in
            ["", "https://127.0.0.1", "http://10.0.0.1:9000", "http://127.0.0.1.example.org", "http://localhost.x"]
        {
            assert!(!is_plain_loopback(no), "{no}");
        }
    }
}
