//! What a batch costs: batches per second and microseconds per synced batch of 1, 8, 64 and 256 entries of 350 bytes.
//!
//! ```text
//! cargo run --release -p zyflow-storage --example log_cost [FOLDER [SECONDS]]
//! ```
//!
//! One append is waited for before the next is made, so each batch has exactly that many entries and a sync of its own.
//! Without a folder it measures in the system's folder for temporary files; mind that this may be memory.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use zyflow_storage::{
    log::{Identity, LogConfig, LogStore},
    types::{Entry, EntryPayload, LogId, Payload},
};

/// The usual size of a sealed command with its envelope.
const ENTRY_BYTES: usize = 350;
/// Entries kept before the front is purged, about as many as lie between two snapshots.
const RETAINED: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = Duration::from_secs(arguments.next().map_or(Ok(2), |seconds| seconds.parse())?);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let folder = folder.join(format!("zyflow-log-cost-{}", std::process::id()));
    for warm in [false, true] {
        for count in [1, 8, 64, 256] {
            let mut config = LogConfig::new(&folder, Identity { lineage: [0; 16], node: 1 });
            config.warm = warm;
            LogStore::init(&config)?;
            let opening = Instant::now();
            let mut store = LogStore::open(&config)?;
            let opened = opening.elapsed();
            let mut samples = runtime.block_on(measure(&mut store, count, seconds))?;
            drop(store);
            std::fs::remove_dir_all(&folder)?;
            report(warm, count, opened, &mut samples);
        }
    }
    Ok(())
}

async fn measure(store: &mut LogStore, count: u64, seconds: Duration) -> Result<Vec<Duration>, Box<dyn Error>> {
    let payload = EntryPayload::Normal(Payload(vec![0x5a; ENTRY_BYTES].into()));
    let (mut next, mut purged, mut samples) = (0, 0, Vec::new());
    let end = Instant::now() + seconds;
    while Instant::now() < end {
        let entry = |index| Entry { log_id: LogId::new_term_index(1, index), payload: payload.clone() };
        let entries: Vec<Entry> = (next..next + count).map(entry).collect();
        let begin = Instant::now();
        store.blocking_append(entries).await?;
        samples.push(begin.elapsed());
        next += count;
        if next - purged > 2 * RETAINED {
            purged = next - RETAINED;
            store.purge(LogId::new_term_index(1, purged)).await?;
        }
    }
    Ok(samples)
}

fn report(warm: bool, count: u64, opened: Duration, samples: &mut [Duration]) {
    samples.sort_unstable();
    let total: Duration = samples.iter().sum();
    let batches = f64::from(u32::try_from(samples.len()).unwrap_or(u32::MAX));
    let at = |percent: usize| samples.get(samples.len() * percent / 100).map_or(0, Duration::as_micros);
    println!(
        "warm={warm} entries={count} batches_per_second={:.0} mean_us={:.0} p50_us={} p99_us={} open_ms={}",
        batches / total.as_secs_f64(),
        total.as_secs_f64() * 1e6 / batches,
        at(50),
        at(99),
        opened.as_millis(),
    );
}
