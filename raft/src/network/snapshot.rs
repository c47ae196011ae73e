//! Snapshots on the wire: one head, then the file in chunks.
//!
//! ```text
//!   sender    file --reader thread--> chunk, chunk, ... ==stream==> writer thread --> file: synced, verified   receiver
//! ```
//!
//! Each chunk says where it belongs and what all bytes up to its end hash to, so that a gap, a repetition or a flipped bit
//! ends the transfer at that chunk. What is inside is sealed, and storage verifies it to its last byte before it gets its
//! final name. A transfer that breaks begins anew: resuming would have to trust half a file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use zyflow_crypto::{KeyRing, Lineage};
use zyflow_storage::snapshot::{SnapshotError, SnapshotStore};
use zyflow_storage::types::Vote;

use super::gate::Caller;
use super::proto;
use super::proto::peer_client::PeerClient;
use super::proto::snapshot_request::Part;
use super::wire::{self, Ends, WireError};
use crate::applier::snapshots::described;
use crate::applier::{Snapshot, SnapshotFile};
use crate::fatal::chain;
use crate::shared::Shared;

/// Bytes of a chunk: 256 KiB, enough to keep a link busy, little enough to hold a few in memory.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks between the disk and the network.
const CHUNKS_WAITING_MAX: usize = 4;
/// The largest snapshot that is taken: 64 GiB. A head that claims more is wrong or hostile.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;

/// Why a snapshot did not get across.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("reading the snapshot {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the receiver refused or was lost")]
    Call(#[from] Status),
    #[error("the receiver answered nonsense")]
    Reply(#[from] WireError),
}

/// Sends the whole file and gives the receiver's vote.
pub(crate) async fn send(
    mut client: PeerClient<Channel>,
    ends: Ends,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<Vote, SendError> {
    let Snapshot { meta, snapshot: SnapshotFile { path, bytes } } = snapshot;
    let head = Part::Head(wire::snapshot_head(ends, &vote, &meta, bytes));
    let (tx, rx) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (failed_tx, failed_rx) = oneshot::channel();
    let source_path = path.clone();
    tokio::task::spawn_blocking(move || {
        // The stream just ends: the receiver sees that it is too short, and this side knows why.
        if let Err(source) = read_chunks(&path, head, &tx) {
            // Nobody waits for the reason once the call itself has failed.
            drop(failed_tx.send(source));
        }
    });
    let answer = client.snapshot(ReceiverStream::new(rx)).await;
    if let Ok(source) = failed_rx.await {
        return Err(SendError::Read { path: source_path, source });
    }
    Ok(wire::vote_of(&answer?.into_inner().vote)?)
}

/// On a thread of its own. Ends early, without an error, when the receiver is gone.
fn read_chunks(path: &Path, head: Part, tx: &mpsc::Sender<proto::SnapshotRequest>) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    let mut part = head;
    loop {
        if tx.blocking_send(proto::SnapshotRequest { part: Some(part) }).is_err() {
            return Ok(());
        }
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let taken = (&mut file).take(wire::len_u64(CHUNK_BYTES)).read_to_end(&mut data)?;
        if taken == 0 {
            return Ok(());
        }
        hasher.update(&data);
        let checksum = Bytes::copy_from_slice(hasher.finalize().as_bytes());
        part = Part::Chunk(proto::SnapshotChunk { offset, data: data.into(), checksum });
        offset += wire::len_u64(taken);
    }
}

/// A snapshot that arrived whole, is durable and verified, and not yet installed.
pub(crate) struct Received {
    pub(crate) vote: Vote,
    pub(crate) snapshot: Snapshot,
}

/// Keeps what comes among this node's snapshots, after holding its head against the caller.
pub(crate) async fn receive(
    mut stream: Streaming<proto::SnapshotRequest>,
    caller: &Caller,
    shared: &Shared,
) -> Result<Received, Status> {
    let Some(proto::SnapshotRequest { part: Some(Part::Head(head)) }) = stream.message().await? else {
        return Err(Status::invalid_argument("a snapshot begins with its head"));
    };
    caller.check_ends(head.from, head.to)?;
    let vote = wire::vote_of(&head.vote)?;
    caller.check_vote(&vote, true)?;
    let meta = wire::snapshot_meta(&head)?;
    if head.total_bytes > SNAPSHOT_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a snapshot of {} bytes is over the limit", head.total_bytes)));
    }
    let (tx, rx) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (store, ring, lineage) = (shared.snapshots.clone(), Arc::clone(&shared.ring), shared.config.lineage);
    let writing = tokio::task::spawn_blocking(move || keep(&store, &ring, &lineage, head.total_bytes, rx));
    let forwarded = forward_chunks(&mut stream, tx).await;
    let kept = writing.await.map_err(|_panic| Status::internal("the writer of the snapshot panicked"))?;
    // The writer's reason is the better one: a closed channel says nothing.
    let snapshot = kept.and_then(|kept| forwarded.map(|()| kept))?;
    if snapshot.meta != meta {
        return Err(Status::data_loss("the snapshot is not the one that its head describes"));
    }
    Ok(Received { vote, snapshot })
}

/// On a thread of its own. Nothing stays of what doesn't arrive whole.
fn keep(
    store: &SnapshotStore,
    ring: &KeyRing,
    lineage: &Lineage,
    total_bytes: u64,
    chunks: mpsc::Receiver<proto::SnapshotChunk>,
) -> Result<Snapshot, Status> {
    let mut incoming = store.receive().map_err(|error| disk(&error))?;
    take_chunks(total_bytes, chunks, |bytes| incoming.write(bytes).map_err(|error| disk(&error)))?;
    let meta = incoming.finish(ring, lineage).map_err(|error| Status::data_loss(chain(&error)))?;
    described(meta).map_err(|error| Status::data_loss(chain(&error)))
}

fn disk(error: &SnapshotError) -> Status {
    Status::resource_exhausted(chain(error))
}

async fn forward_chunks(
    stream: &mut Streaming<proto::SnapshotRequest>,
    tx: mpsc::Sender<proto::SnapshotChunk>,
) -> Result<(), Status> {
    while let Some(request) = stream.message().await? {
        let Some(Part::Chunk(chunk)) = request.part else {
            return Err(Status::invalid_argument("a snapshot has one head"));
        };
        if tx.send(chunk).await.is_err() {
            return Err(Status::aborted("the snapshot could not be written"));
        }
    }
    Ok(())
}

/// Checks each chunk and hands it to `write`.
fn take_chunks(
    total_bytes: u64,
    mut chunks: mpsc::Receiver<proto::SnapshotChunk>,
    mut write: impl FnMut(&[u8]) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut hasher = blake3::Hasher::new();
    let mut written = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        let end = written + wire::len_u64(chunk.data.len());
        hasher.update(&chunk.data);
        if chunk.offset != written || end > total_bytes || hasher.finalize().as_bytes()[..] != chunk.checksum[..] {
            return Err(Status::data_loss(format!("the chunk at {written} of the snapshot is not what was sent")));
        }
        write(&chunk.data)?;
        written = end;
    }
    if written != total_bytes {
        return Err(Status::data_loss(format!("the snapshot ended at {written} of {total_bytes} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the writer says to the parts that the reader makes, after `spoil` had its way with them.
    fn copy(
        bytes: &[u8],
        claimed: u64,
        spoil: impl Fn(usize, &mut proto::SnapshotChunk) -> bool,
    ) -> Result<Vec<u8>, Status> {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        std::fs::write(&from, bytes).unwrap();
        let (tx, mut rx) = mpsc::channel(1024);
        read_chunks(&from, Part::Head(proto::SnapshotHead::default()), &tx).unwrap();
        drop(tx);
        let (tx, chunks) = mpsc::channel(1024);
        assert!(matches!(rx.blocking_recv().unwrap().part, Some(Part::Head(_))));
        for at in 0.. {
            let Some(request) = rx.blocking_recv() else { break };
            let Some(Part::Chunk(mut chunk)) = request.part else { panic!("a second head") };
            if spoil(at, &mut chunk) {
                tx.blocking_send(chunk).unwrap();
            }
        }
        drop(tx);
        let mut copied = Vec::new();
        take_chunks(claimed, chunks, |bytes| {
            copied.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(copied)
    }

    fn content() -> Vec<u8> {
        (0..3 * CHUNK_BYTES + 7).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn a_file_arrives_as_it_was() {
        for bytes in [content(), Vec::new(), vec![1; CHUNK_BYTES]] {
            assert_eq!(copy(&bytes, wire::len_u64(bytes.len()), |_, _| true).unwrap(), bytes);
        }
    }

    #[test]
    fn loss_and_change_are_noticed() {
        let bytes = content();
        let total = wire::len_u64(bytes.len());
        let refused = |result: Result<Vec<u8>, Status>| assert_eq!(result.unwrap_err().code(), tonic::Code::DataLoss);
        refused(copy(&bytes, total, |at, _| at != 1));
        refused(copy(&bytes, total, |at, _| at != 3));
        refused(copy(&bytes, total + 1, |_, _| true));
        refused(copy(&bytes, total - 1, |_, _| true));
        refused(copy(&bytes, total, |at, chunk| {
            if at == 2 {
                let mut data = chunk.data.to_vec();
                data[5] ^= 1;
                chunk.data = data.into();
            }
            true
        }));
    }
}
