//! Snapshots on the wire: one head, then the file in chunks.
//!
//! ```text
//!   sender    file --reader thread--> chunk, chunk, ... ==stream==> writer thread --> file: synced, verified   receiver
//! ```
//!
//! Each chunk says where it belongs and what all bytes up to its end hash to, so that a gap, a repetition or a flipped bit
//! ends the transfer at that chunk. What is inside is sealed, and storage verifies it to its last byte before it gets its
//! final name. A transfer that breaks goes on where it was: the receiver says how many bytes have arrived and what they hash to, and
//! the sender goes on from there if its own file begins with them, else anew.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::info;
use zyflow_crypto::{KeyRing, Lineage};
use zyflow_storage::snapshot::{IncomingSnapshot, SnapshotError, SnapshotStore};
use zyflow_storage::types::{SnapshotMeta, Vote};

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

/// Sends the file, or what the receiver lacks of it, and gives the receiver's vote.
pub(crate) async fn send(
    mut client: PeerClient<Channel>,
    ends: Ends,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<Vote, SendError> {
    let Snapshot { meta, snapshot: SnapshotFile { path, bytes } } = snapshot;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let head = wire::snapshot_head(ends, &vote, &meta, bytes, name);
    let arrived = client.snapshot_arrived(head.clone()).await?.into_inner();
    let (tx, rx) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (failed_tx, failed_rx) = oneshot::channel();
    let source_path = path.clone();
    tokio::task::spawn_blocking(move || {
        // The stream just ends: the receiver sees that it is too short, and this side knows why.
        if let Err(source) = read_chunks(&path, head, &arrived, &tx) {
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
fn read_chunks(
    path: &Path,
    mut head: proto::SnapshotHead,
    arrived: &proto::SnapshotArrivedReply,
    tx: &mpsc::Sender<proto::SnapshotRequest>,
) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let begun = hash_begin(&mut file, arrived.bytes, &mut hasher)?;
    let mut offset = if begun == arrived.bytes && hasher.finalize().as_bytes()[..] == arrived.hash[..] {
        arrived.bytes
    } else {
        file.rewind()?;
        hasher.reset();
        0
    };
    head.offset = offset;
    let mut part = Part::Head(head);
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

/// Reads so many bytes, or as many as there are; gives how many.
fn hash_begin(file: &mut std::fs::File, bytes: u64, hasher: &mut blake3::Hasher) -> std::io::Result<u64> {
    let (mut begin, mut block, mut done) = (file.take(bytes), vec![0; CHUNK_BYTES], 0);
    loop {
        match begin.read(&mut block)? {
            0 => return Ok(done),
            read => {
                hasher.update(&block[..read]);
                done += wire::len_u64(read);
            }
        }
    }
}

/// A snapshot that arrived whole, is durable and verified, and not yet installed.
pub(crate) struct Received {
    pub(crate) vote: Vote,
    pub(crate) snapshot: Snapshot,
}

/// What is here of the snapshot that the caller wants to send.
pub(crate) async fn arrived(
    head: proto::SnapshotHead,
    caller: &Caller,
    shared: &Shared,
) -> Result<proto::SnapshotArrivedReply, Status> {
    check_head(&head, caller)?;
    let store = shared.snapshots.clone();
    let looking = tokio::task::spawn_blocking(move || store.arrived(&head.name));
    let arrived = looking.await.map_err(|_panic| Status::internal("looking for the snapshot panicked"))?;
    let arrived = arrived.map_err(|error| disk(&error))?;
    Ok(proto::SnapshotArrivedReply { bytes: arrived.bytes, hash: Bytes::copy_from_slice(&arrived.hash) })
}

fn check_head(head: &proto::SnapshotHead, caller: &Caller) -> Result<(Vote, SnapshotMeta), Status> {
    caller.check_ends(head.from, head.to)?;
    let vote = wire::vote_of(&head.vote)?;
    caller.check_vote(&vote, true)?;
    let meta = wire::snapshot_meta(head)?;
    if head.total_bytes > SNAPSHOT_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a snapshot of {} bytes is over the limit", head.total_bytes)));
    }
    Ok((vote, meta))
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
    let (vote, meta) = check_head(&head, caller)?;
    if head.offset > 0 {
        shared.counters.snapshots_resumed.add(1);
        info!(name = head.name, from = head.offset, of = head.total_bytes, "a snapshot goes on where it was");
    }
    let (tx, rx) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (store, ring, lineage) = (shared.snapshots.clone(), Arc::clone(&shared.ring), shared.config.lineage);
    let writing = tokio::task::spawn_blocking(move || keep(&store, &ring, &lineage, &head, rx));
    let forwarded = forward_chunks(&mut stream, tx).await;
    let kept = writing.await.map_err(|_panic| Status::internal("the writer of the snapshot panicked"))?;
    // The writer's reason is the better one: a closed channel says nothing.
    let snapshot = kept.and_then(|kept| forwarded.map(|()| kept))?;
    if snapshot.meta != meta {
        return Err(Status::data_loss("the snapshot is not the one that its head describes"));
    }
    Ok(Received { vote, snapshot })
}

/// On a thread of its own.
fn keep(
    store: &SnapshotStore,
    ring: &KeyRing,
    lineage: &Lineage,
    head: &proto::SnapshotHead,
    chunks: mpsc::Receiver<proto::SnapshotChunk>,
) -> Result<Snapshot, Status> {
    let mut incoming = store.receive(&head.name, head.offset).map_err(|error| disk(&error))?;
    take_chunks(head.total_bytes, chunks, &mut incoming)?;
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

/// Checks each chunk and writes it.
fn take_chunks(
    total_bytes: u64,
    mut chunks: mpsc::Receiver<proto::SnapshotChunk>,
    incoming: &mut IncomingSnapshot,
) -> Result<(), Status> {
    while let Some(chunk) = chunks.blocking_recv() {
        let written = incoming.written();
        let end = written + wire::len_u64(chunk.data.len());
        if chunk.offset != written || end > total_bytes || incoming.hash_with(&chunk.data)[..] != chunk.checksum[..] {
            return Err(Status::data_loss(format!("the chunk at {written} of the snapshot is not what was sent")));
        }
        incoming.write(&chunk.data).map_err(|error| disk(&error))?;
    }
    let written = incoming.written();
    if written != total_bytes {
        return Err(Status::data_loss(format!("the snapshot ended at {written} of {total_bytes} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_storage::snapshot::Arrived;

    /// Two nodes' folders, and a file on its way.
    struct Transfer {
        folder: tempfile::TempDir,
        store: SnapshotStore,
        bytes: Vec<u8>,
    }

    const NAME: &str = "one.snapshot";

    impl Transfer {
        fn of(bytes: Vec<u8>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(NAME), &bytes).unwrap();
            let store = SnapshotStore::open(&folder.path().join("received"), 1).unwrap();
            Self { folder, store, bytes }
        }

        fn arrived(&self) -> Arrived {
            self.store.arrived(NAME).unwrap()
        }

        /// Sends the file after `spoil` had its way with its chunks; gives where that began.
        fn go_on(&self, claimed: u64, spoil: impl Fn(usize, &mut proto::SnapshotChunk) -> bool) -> Result<u64, Status> {
            let arrived = self.arrived();
            let reply =
                proto::SnapshotArrivedReply { bytes: arrived.bytes, hash: Bytes::copy_from_slice(&arrived.hash) };
            let (tx, mut rx) = mpsc::channel(1024);
            read_chunks(&self.folder.path().join(NAME), proto::SnapshotHead::default(), &reply, &tx).unwrap();
            drop(tx);
            let Some(Part::Head(head)) = rx.blocking_recv().unwrap().part else { panic!("no head") };
            let (tx, chunks) = mpsc::channel(1024);
            for at in 0.. {
                let Some(request) = rx.blocking_recv() else { break };
                let Some(Part::Chunk(mut chunk)) = request.part else { panic!("a second head") };
                if spoil(at, &mut chunk) {
                    tx.blocking_send(chunk).unwrap();
                }
            }
            drop(tx);
            let mut incoming = self.store.receive(NAME, head.offset).unwrap();
            take_chunks(claimed, chunks, &mut incoming)?;
            Ok(head.offset)
        }

        fn assert_whole(&self) {
            let hash = *blake3::hash(&self.bytes).as_bytes();
            assert_eq!(self.arrived(), Arrived { bytes: wire::len_u64(self.bytes.len()), hash });
        }
    }

    fn content() -> Vec<u8> {
        (0..3 * CHUNK_BYTES + 7).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn a_file_arrives_as_it_was() {
        for bytes in [content(), Vec::new(), vec![1; CHUNK_BYTES]] {
            let total = wire::len_u64(bytes.len());
            let transfer = Transfer::of(bytes);
            assert_eq!(transfer.go_on(total, |_, _| true).unwrap(), 0);
            transfer.assert_whole();
        }
    }

    #[test]
    fn loss_and_change_are_noticed() {
        let total = wire::len_u64(content().len());
        let refused = |claimed: u64, spoil: &dyn Fn(usize, &mut proto::SnapshotChunk) -> bool| {
            let result = Transfer::of(content()).go_on(claimed, spoil);
            assert_eq!(result.unwrap_err().code(), tonic::Code::DataLoss);
        };
        refused(total, &|at, _| at != 1);
        refused(total, &|at, _| at != 3);
        refused(total + 1, &|_, _| true);
        refused(total - 1, &|_, _| true);
        refused(total, &|at, chunk| {
            if at == 2 {
                let mut data = chunk.data.to_vec();
                data[5] ^= 1;
                chunk.data = data.into();
            }
            true
        });
    }

    #[test]
    fn a_transfer_that_breaks_goes_on_where_it_was() {
        let total = wire::len_u64(content().len());
        let transfer = Transfer::of(content());
        assert!(transfer.go_on(total, |at, _| at < 2).is_err());
        assert_eq!(transfer.go_on(total, |_, _| true).unwrap(), wire::len_u64(2 * CHUNK_BYTES));
        transfer.assert_whole();
    }

    #[test]
    fn what_arrived_of_other_bytes_is_sent_anew() {
        let total = wire::len_u64(content().len());
        let transfer = Transfer::of(content());
        let wrong = content().iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
        for half in [&wrong[..CHUNK_BYTES], &[content(), wrong.clone()].concat()[..]] {
            transfer.store.receive(NAME, 0).unwrap().write(half).unwrap();
            assert_eq!(transfer.go_on(total, |_, _| true).unwrap(), 0);
            transfer.assert_whole();
        }
    }
}
