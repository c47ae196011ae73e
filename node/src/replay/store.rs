//! What came of replays, kept in the node's data folder: one JSON object a line, newest last. It holds ids, counts and
//! hashes, never contents.

use std::io;
use std::path::{Path, PathBuf};

use super::Verdict;

/// The file.
const FILE: &str = "replays.jsonl";

/// Replays that are kept: enough to compare, little to read.
const KEPT_MAX: usize = 100;

/// A store in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

/// Why a verdict can't be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be {doing}: {source}; check the data folder, or remove the file", path.display())]
pub(crate) struct StoreError {
    path: PathBuf,
    doing: &'static str,
    #[source]
    source: io::Error,
}

impl Store {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// All that are kept, newest first.
    pub(crate) fn all(&self) -> Result<Vec<Verdict>, StoreError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let parsed = text.lines().rev().map(serde_json::from_str).collect::<Result<_, _>>();
        parsed.map_err(|error| self.failed("read", error.into()))
    }

    /// Keeps one more; the oldest goes where there are too many. The file is replaced as a whole, so a crash leaves the old one.
    pub(crate) fn keep(&self, verdict: &Verdict) -> Result<(), StoreError> {
        let mut all = self.all()?;
        all.insert(0, verdict.clone());
        all.truncate(KEPT_MAX);
        let mut text = String::new();
        for verdict in all.iter().rev() {
            let line = serde_json::to_string(verdict).map_err(|error| self.failed("written", error.into()))?;
            text.push_str(&line);
            text.push('\n');
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| self.failed("written", error))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> StoreError {
        StoreError { path: self.path.clone(), doing, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Mode, Strategy};
    use std::collections::BTreeMap;

    fn verdict(from: u64) -> Verdict {
        Verdict {
            from,
            to: from + 1,
            mode: Mode::Safe,
            strategy: Strategy::Parallel,
            events: 3,
            records: 2,
            types: BTreeMap::from([("task-set".to_owned(), 3)]),
            digests: Some((vec![1; 32], vec![2; 32])),
            differences: vec![super::super::Difference { record: 7, event: None, what: "another".to_owned() }],
            difference_count: 1,
            took_ms: 5,
            at_ms: 6,
        }
    }

    #[test]
    fn the_newest_are_kept_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert_eq!(store.all().unwrap(), []);
        for from in 0..=100 {
            store.keep(&verdict(from)).unwrap();
        }
        let all = store.all().unwrap();
        assert_eq!((all.len(), all[0].from, all[99].from), (100, 100, 1));
        assert_eq!(all[0], verdict(100));
    }

    #[test]
    fn a_damaged_file_is_told_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        std::fs::write(folder.path().join(FILE), "not json\n").unwrap();
        let error = store.keep(&verdict(1)).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("remove the file"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "not json\n");
    }
}
