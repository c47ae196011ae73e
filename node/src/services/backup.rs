//! The Backup service: objects of a backup, read and sealed on a thread of its own while everything else goes on.
//!
//! A node without a quorum serves it too, from what it has: that may be all that is left. It says so. One that is out of service doesn't: what
//! it has can't be believed.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use zyflow_api::ApiError;
use zyflow_api::v1::backup_server::Backup;
use zyflow_api::v1::read_backup_response::{Begun, Item};
use zyflow_api::v1::{ErrorCode, ReadBackupRequest, ReadBackupResponse};
use zyflow_crypto::{KeyRing, Lineage};
use zyflow_machine::id::Revision;
use zyflow_raft::{Consensus, Consistency, ReadError};
use zyflow_storage::backup::{After, BackupError, BegunBackup, OBJECT_BYTES, Sealing};
use zyflow_storage::tables::{Tables, TablesError};

use crate::checkouts::error_chain;
use crate::cluster::wall_clock_ms;
use crate::config::Config;
use crate::services::{read_error, tables_error};

/// How long it waits at its beginning until this node knows all that was acknowledged: an election. Then it goes on with what it has.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a node that is behind the last object has to catch up: other nodes know more.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one message.
const PART_BYTES: usize = 256 << 10;

/// Messages that wait for a slow caller: 4 MiB.
const WAITING_MAX: usize = 16;

/// A caller that takes nothing for so long is given up: the read transaction that it holds keeps SQLite's WAL from starting anew.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Objects that are read at once: each reads and seals as fast as a disk and a processor can.
const READS_MAX: usize = 1;

type Answer = Result<ReadBackupResponse, Status>;

/// The service.
#[derive(Clone)]
pub struct BackupService {
    consensus: Consensus,
    tables: Tables,
    ring: Arc<KeyRing>,
    about: Arc<About>,
    turn: Arc<Semaphore>,
}

/// Whose backup it is.
pub struct About {
    /// The history.
    pub lineage: Lineage,
    /// The cluster's name.
    pub cluster: String,
    /// This node.
    pub node: u64,
}

impl About {
    /// That of the node with this configuration.
    #[must_use]
    pub fn new(config: &Config, lineage: Lineage) -> Self {
        Self { lineage, cluster: config.node.cluster.clone(), node: config.node.id }
    }
}

impl BackupService {
    /// Reads `tables`, and seals with `ring`.
    #[must_use]
    pub fn new(consensus: Consensus, tables: Tables, ring: Arc<KeyRing>, about: About) -> Self {
        Self { consensus, tables, ring, about: Arc::new(about), turn: Arc::new(Semaphore::new(READS_MAX)) }
    }

    fn after(&self, request: ReadBackupRequest) -> Result<Option<After>, ApiError> {
        let Some(after) = request.after else { return Ok(None) };
        let lineage = self.about.lineage.to_string();
        if after.lineage != lineage {
            let message = format!(
                "the backup is of lineage {}, this cluster's is {lineage}: choose another place for it",
                after.lineage
            );
            return Err(ApiError::new(ErrorCode::Precondition, message));
        }
        let malformed = || ApiError::new(ErrorCode::Invalid, "`after` names no object: its hash has 32 bytes");
        let hash = after.hash.try_into().map_err(|_| malformed())?;
        let (last, oldest) = (Revision(after.last), Revision(after.oldest));
        Ok(Some(After { last, oldest, number: after.number, hash: (!request.full).then_some(hash) }))
    }

    /// Waits until this node knows what it should; whether it knows all that was acknowledged.
    async fn settle(&self, after: Option<After>) -> Result<bool, ApiError> {
        let barrier = self.consensus.read_barrier(Consistency::Linearizable, Instant::now() + BARRIER_TIMEOUT).await;
        if let Err(error @ ReadError::Fatal(_)) = &barrier {
            return Err(read_error(error));
        }
        let is_current = barrier.is_ok();
        if let Some(last) =
            after.filter(|after| after.hash.is_some() && !is_current).map(|after| after.last.max(after.oldest))
        {
            let deadline = Instant::now() + CATCH_UP_TIMEOUT;
            let caught_up = self.consensus.read_barrier(Consistency::AtLeast(last), deadline).await;
            caught_up.map_err(|error| read_error(&error))?;
        }
        Ok(is_current)
    }
}

#[tonic::async_trait]
impl Backup for BackupService {
    type ReadBackupStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn read_backup(
        &self,
        request: Request<ReadBackupRequest>,
    ) -> Result<Response<Self::ReadBackupStream>, Status> {
        let busy =
            |_| ApiError::new(ErrorCode::Overloaded, "this node makes a backup already: wait, or ask another one");
        let turn = Arc::clone(&self.turn).try_acquire_owned().map_err(busy)?;
        let after = self.after(request.into_inner())?;
        let is_current = self.settle(after).await?;
        let (tx, rx) = mpsc::channel(WAITING_MAX);
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut sink = Sink { tx, runtime: Handle::current(), part: Vec::with_capacity(PART_BYTES) };
            if let Err(error) = this.read(after, is_current, &mut sink) {
                warn!(error = %error_chain(&error), "an object of a backup wasn't read to its end");
                // Whoever asked may be gone.
                drop(sink.answer(Err(backup_error(&error).into())));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

impl BackupService {
    fn read(&self, after: Option<After>, is_current: bool, sink: &mut Sink) -> Result<(), BackupError> {
        let begun = self.tables.begin_backup(after, OBJECT_BYTES)?;
        let newest = self.tables.applied().borrow().0;
        let (last, newest) = begun.as_ref().map_or((newest, newest), |begun| (begun.last().0, begun.newest().0));
        let told = Begun { node_id: self.about.node, last, newest, current: is_current, nothing_new: begun.is_none() };
        sink.send(Item::Begun(told)).map_err(BackupError::Write)?;
        begun.map_or(Ok(()), |begun| self.write(begun, sink))
    }

    fn write(&self, begun: BegunBackup, sink: &mut Sink) -> Result<(), BackupError> {
        let About { lineage, cluster, .. } = &*self.about;
        let sealing = Sealing { ring: &self.ring, lineage, cluster, made_ms: wall_clock_ms() };
        let (header, _hash) = begun.write(sink, &sealing)?;
        info!(number = header.number, first = header.first, last = header.last, "an object of a backup was read");
        Ok(())
    }
}

/// Sends what is written to whoever asked.
struct Sink {
    tx: mpsc::Sender<Answer>,
    runtime: Handle,
    part: Vec<u8>,
}

impl Sink {
    fn send(&self, item: Item) -> io::Result<()> {
        self.answer(Ok(ReadBackupResponse { item: Some(item) }))
    }

    fn answer(&self, answer: Answer) -> io::Result<()> {
        match self.runtime.block_on(timeout(TAKEN_WITHIN, self.tx.send(answer))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "whoever asked is gone")),
            Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was taken for too long")),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == PART_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART_BYTES));
        self.send(Item::Part(part))
    }
}

/// Why there is no next object, as clients are told.
fn backup_error(error: &BackupError) -> ApiError {
    let full = "make a new base with `zyflow backup create --full`";
    let BackupError::Tables(error) = error else { return ApiError::new(ErrorCode::NodeFailed, error_chain(error)) };
    let message = if let TablesError::Compacted { revision, horizon } = error {
        format!("what follows revision {revision} is kept only from {horizon} on: {full}")
    } else if let TablesError::Undone { revision, at, .. } = error {
        format!(
            "the backup ends at revision {revision}, which was undone when the cluster was restored and went on at {at}: {full}"
        )
    } else if let TablesError::Future { revision, applied } = error {
        format!(
            "the backup knows of revision {revision}, this node is at {applied}: is it a backup of another cluster? {full}"
        )
    } else {
        return tables_error(error);
    };
    ApiError::new(ErrorCode::Revision, message)
}
