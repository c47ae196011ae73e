//! How `RocksDB` is set up for a log, and the two ways of reading it.
//!
//! A log is written once, read while it is hot, and dropped from the front. So: a write buffer large enough that most
//! entries are purged before they would reach a table file, no compression (payloads are ciphertext), recycled WAL files
//! (a sync then changes no metadata), one column family, no write stalls by compaction debt.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use rocksdb::{
    DB, DBCompressionType, DBRawIterator, DBRecoveryMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{error::LogError, stored, view::cost};
use crate::types::Entry;

/// Memory of one memtable, and with it the size of one WAL file. 64 MiB hold about 150,000 entries of 350 bytes: more
/// than are kept between two snapshots, so that most entries are purged before they are flushed.
pub const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// WAL files kept for reuse: the one that the next memtable needs, and two while flushes lag behind.
const WAL_FILES_RECYCLED: usize = 3;
/// Memtables in memory before writes wait for a flush.
const MEMTABLES_MAX: i32 = 4;
/// Tables in level 0 before they are compacted: purged entries should be gone by then.
const LEVEL_0_FILES: i32 = 8;
/// Tables in level 0 before `RocksDB` would slow writes down or stop them: never, a log is not to stall.
const LEVEL_0_FILES_STALL: i32 = 1 << 20;
/// One thread flushes, one compacts.
const BACKGROUND_JOBS: i32 = 2;
/// `RocksDB`'s own text log, per file, and how many files: enough to see the last few starts.
const TEXT_LOG_BYTES: usize = 1 << 20;
const TEXT_LOG_FILES: usize = 4;
/// The manifest is rewritten when it gets longer than this.
const MANIFEST_BYTES_MAX: usize = 8 << 20;
/// Read ahead of a scan.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// One value written while warming WAL files up.
const WARM_VALUE_BYTES: usize = 1 << 20;

fn options(write_buffer_bytes: usize, recovery: DBRecoveryMode) -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(recovery);
    options.set_recycle_log_file_num(WAL_FILES_RECYCLED);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.set_level_zero_file_num_compaction_trigger(LEVEL_0_FILES);
    options.set_level_zero_slowdown_writes_trigger(LEVEL_0_FILES_STALL);
    options.set_level_zero_stop_writes_trigger(LEVEL_0_FILES_STALL);
    options.set_soft_pending_compaction_bytes_limit(0);
    options.set_hard_pending_compaction_bytes_limit(0);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_avoid_unnecessary_blocking_io(true);
    // There is one writer: these two only cost it.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_log_level(LogLevel::Info);
    options.set_max_log_file_size(TEXT_LOG_BYTES);
    options.set_keep_log_file_num(TEXT_LOG_FILES);
    options.set_stats_dump_period_sec(0);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options
}

/// The database has a folder of its own within the log's: it keeps a file called IDENTITY too.
pub(crate) fn dir(log: &Path) -> PathBuf {
    log.join("rocks")
}

/// Creates an empty database.
pub(crate) fn create(dir: &Path, write_buffer_bytes: usize) -> Result<DB, LogError> {
    let mut options = options(write_buffer_bytes, DBRecoveryMode::PointInTime);
    options.create_if_missing(true);
    options.set_error_if_exists(true);
    DB::open(&options, dir).map_err(LogError::database("create the database of the log"))
}

/// Opens the database for writing. What follows the first damaged WAL record is dropped for good.
pub(crate) fn open(dir: &Path, write_buffer_bytes: usize) -> Result<DB, LogError> {
    DB::open(&options(write_buffer_bytes, DBRecoveryMode::PointInTime), dir)
        .map_err(LogError::database("open the database of the log"))
}

/// Opens the database without changing anything, as `open` would find it.
pub(crate) fn open_to_look(dir: &Path, write_buffer_bytes: usize) -> Result<DB, LogError> {
    DB::open_for_read_only(&options(write_buffer_bytes, DBRecoveryMode::PointInTime), dir, false)
        .map_err(LogError::database("look at the database of the log"))
}

/// Opens the database without changing anything, with every WAL record that is readable, also behind damaged ones.
pub(crate) fn open_to_look_behind_damage(dir: &Path, write_buffer_bytes: usize) -> Result<DB, LogError> {
    DB::open_for_read_only(&options(write_buffer_bytes, DBRecoveryMode::SkipAnyCorruptedRecord), dir, false)
        .map_err(LogError::database("look behind the damage in the database of the log"))
}

/// A write that reaches the WAL in the page cache; `flush_wal(true)` takes it to the disk.
pub(crate) fn unsynced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(false);
    options
}

/// Fills WAL files once and drops their content, so that the first real writes already find files to reuse.
pub(crate) fn warm(db: &DB, write_buffer_bytes: usize, files: usize) -> Result<(), LogError> {
    let value = vec![0u8; WARM_VALUE_BYTES.min(write_buffer_bytes / 4)];
    let sync = || db.flush_wal(true).map_err(LogError::database("sync a WAL file that is warmed up"));
    for _ in 0..files {
        for _ in 0..write_buffer_bytes / value.len().max(1) {
            let mut batch = WriteBatch::new();
            batch.put(stored::SCRATCH, &value);
            db.write_opt(batch, &unsynced()).map_err(LogError::database("warm a WAL file up"))?;
        }
        sync()?;
        db.flush().map_err(LogError::database("flush what warmed a WAL file up"))?;
    }
    let mut batch = WriteBatch::new();
    batch.delete(stored::SCRATCH);
    db.write_opt(batch, &unsynced()).map_err(LogError::database("remove what warmed a WAL file up"))?;
    sync()
}

/// Reads one record.
pub(crate) fn get<T>(
    db: &DB,
    key: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, LogError>,
) -> Result<Option<T>, LogError> {
    let value = db.get_pinned(key).map_err(LogError::database("read a record of the log"))?;
    value.map(|value| decode(&value)).transpose()
}

/// Walks over the entries present in `range` in order, until `visit` returns false.
pub(crate) fn walk(
    db: &DB,
    range: Range<u64>,
    mut visit: impl FnMut(u64, Entry) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    if range.is_empty() {
        return Ok(());
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(stored::entry_key(range.start));
    if range.end == u64::MAX {
        options.set_iterate_upper_bound(stored::entries_end());
    } else {
        options.set_iterate_upper_bound(stored::entry_key(range.end));
    }
    options.fill_cache(false);
    options.set_readahead_size(READ_AHEAD_BYTES);
    let mut iterator: DBRawIterator<'_> = db.raw_iterator_opt(options);
    iterator.seek_to_first();
    while let Some((key, value)) = iterator.item() {
        let index =
            stored::entry_index(key).ok_or_else(|| LogError::Checksum { what: "key of an entry".to_owned() })?;
        if !visit(index, stored::decode_entry(index, value)?)? {
            return Ok(());
        }
        iterator.next();
    }
    iterator.status().map_err(LogError::database("read entries of the log"))
}

/// Reads the entries of `range`, which must all be there; with a limit, at least one and then no more than that many
/// bytes.
pub(crate) fn read(db: &DB, range: Range<u64>, bytes_max: Option<usize>) -> Result<Vec<Entry>, LogError> {
    let (mut next, mut bytes, mut entries) = (range.start, 0, Vec::new());
    let mut full = false;
    walk(db, range.clone(), |index, entry| {
        if index != next {
            return Err(LogError::Hole { expected: next, found: Some(index) });
        }
        bytes += cost(&entry);
        full = !entries.is_empty() && bytes_max.is_some_and(|max| bytes > max);
        if !full {
            entries.push(entry);
            next += 1;
        }
        Ok(!full)
    })?;
    if full || next == range.end { Ok(entries) } else { Err(LogError::Hole { expected: next, found: None }) }
}
