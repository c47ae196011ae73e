//! Reading entries: from memory while they are new, from `RocksDB` else.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

use futures::{Stream, StreamExt, stream};
use openraft::RaftLogReader;

use super::{
    error::{LogError, to_io},
    rocks,
    shared::Shared,
    view::Plan,
};
use crate::types::{Entry, TypeConfig, Vote};

/// Entries read at once for replication, in bytes: well under the 4 MiB that a gRPC message may have.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Readings that a purge or truncation may spoil before it is an error: both are rare, two in a row are rarer.
const SPOILT_READS_MAX: usize = 8;

/// Reads the log. Cheap to clone; sees what was appended as soon as the append returned.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

impl LogReader {
    /// The entries of a range, all of them; with a limit, at least one and then no more than that many bytes.
    pub(crate) async fn read(&self, range: Range<u64>, bytes_max: Option<usize>) -> Result<Vec<Entry>, Arc<LogError>> {
        let mut outcome = Err(LogError::Hole { expected: range.start, found: None });
        for _ in 0..SPOILT_READS_MAX {
            self.shared.check()?;
            let (Plan { on_disk, in_memory }, before) = {
                let view = self.shared.view();
                (view.plan(range.clone(), bytes_max), (view.truncations(), view.purged()))
            };
            if on_disk.is_empty() {
                return Ok(in_memory);
            }
            outcome = self.read_disk(on_disk, bytes_max).await.map(|mut entries| {
                entries.extend(in_memory);
                entries
            });
            let after = {
                let view = self.shared.view();
                (view.truncations(), view.purged())
            };
            if before == after {
                break;
            }
        }
        outcome.map_err(|error| self.shared.fail(error))
    }

    async fn read_disk(&self, range: Range<u64>, bytes_max: Option<usize>) -> Result<Vec<Entry>, LogError> {
        let db = Arc::clone(&self.shared.db);
        let read = tokio::task::spawn_blocking(move || rocks::read(&db, range, bytes_max));
        read.await.map_err(|source| LogError::ReadTask { source })?
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(half_open(&range), None).await.map_err(|error| to_io(&error))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, Some(READ_BYTES_MAX)).await.map_err(|error| to_io(&error))
    }

    /// In pieces of [`READ_BYTES_MAX`], so that applying a long backlog needs no memory for all of it.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send {
        let pieces = stream::unfold((self.clone(), half_open(&range)), |(reader, range)| async move {
            if range.is_empty() {
                return None;
            }
            match reader.read(range.clone(), Some(READ_BYTES_MAX)).await {
                Ok(entries) => {
                    let next = entries.last()?.log_id.index + 1;
                    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((stream::iter(entries), (reader, next..range.end.max(next))))
                }
                Err(error) => Some((stream::iter(vec![Err(to_io(&error))]), (reader, range.end..range.end))),
            }
        });
        Box::pin(pieces.flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.shared.check().map_err(|error| to_io(&error))?;
        Ok(self.shared.view().vote)
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
