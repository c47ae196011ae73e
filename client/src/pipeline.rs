//! One bidirectional Propose stream that many callers share.
//!
//! ```text
//!   callers --send--> [outgoing] --HTTP/2 stream--> node
//!      ^                                              |
//!      +-- oneshot by `call` <-- reader task <--------+
//! ```
//! A call writes its request into the stream and waits on a oneshot; the reader hands out answers in whatever order they
//! come. A hundred callers on one stream cost one wake-up for many requests, which is where the time of unary calls goes.
//!
//! Invariants: a call's entry is gone when its future is (answered, or dropped by a deadline). Once the stream has broken,
//! every call fails, those outstanding included; whoever owns the pipeline opens another. The reader ends with the stream,
//! or is aborted with the pipeline.

use crate::channel::status_error;
use crate::error::ClientError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use zyflow_api::MESSAGE_BYTES_MAX;
use zyflow_api::v1::propose_client::ProposeClient;
use zyflow_api::v1::{ProposeRequest, ProposeResponse};

/// Most outstanding calls on one stream; more callers wait. Well above what keeps a leader's batches full.
const OUTSTANDING_CALLS_MAX: usize = 4096;

/// Requests that may wait for the stream to take them.
const OUTGOING_MAX: usize = 1024;

/// A stream to one node.
pub(crate) struct Pipeline {
    address: String,
    outgoing: mpsc::Sender<ProposeRequest>,
    waiting: Arc<Mutex<Waiting>>,
    next_call: AtomicU64,
    outstanding: Semaphore,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    calls: BTreeMap<u64, oneshot::Sender<ProposeResponse>>,
    /// Why the stream has ended, once it has.
    ended: Option<Status>,
}

impl Pipeline {
    /// Opens a stream; a failure to do so is told to the first callers.
    pub(crate) fn open(address: &str, channel: Channel) -> Self {
        let (outgoing, requests) = mpsc::channel(OUTGOING_MAX);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = tokio::spawn(read(channel, requests, Arc::clone(&waiting)));
        Self {
            address: address.to_owned(),
            outgoing,
            waiting,
            next_call: AtomicU64::new(1),
            outstanding: Semaphore::new(OUTSTANDING_CALLS_MAX),
            reader,
        }
    }

    /// Whether every further call would fail.
    pub(crate) fn has_ended(&self) -> bool {
        locked(&self.waiting).ended.is_some()
    }

    /// Sends one request (its `call` is set here) and waits for the answer.
    pub(crate) async fn call(&self, mut request: ProposeRequest) -> Result<ProposeResponse, ClientError> {
        let _permit = self.outstanding.acquire().await.expect("invariant: this semaphore is never closed");
        request.call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let _entry = {
            let mut waiting = locked(&self.waiting);
            if let Some(status) = &waiting.ended {
                return Err(status_error(&self.address, status));
            }
            waiting.calls.insert(request.call, answer);
            Entry { waiting: &self.waiting, call: request.call }
        };
        // A stream that has ended drops its receiver, then says why; the oneshot tells when.
        let is_sent = self.outgoing.send(request).await.is_ok();
        if is_sent && let Ok(response) = answered.await {
            return Ok(response);
        }
        let ended = locked(&self.waiting).ended.clone();
        let status = ended.unwrap_or_else(|| Status::unavailable("the stream is closing"));
        Err(status_error(&self.address, &status))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Takes a call out of the table when its caller is gone.
struct Entry<'a> {
    waiting: &'a Mutex<Waiting>,
    call: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        locked(self.waiting).calls.remove(&self.call);
    }
}

/// The table is a map whose every step leaves it whole, so a panic elsewhere doesn't spoil it.
fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(channel: Channel, requests: mpsc::Receiver<ProposeRequest>, waiting: Arc<Mutex<Waiting>>) {
    let status = answers(channel, requests, &waiting).await;
    let mut waiting = locked(&waiting);
    waiting.ended = Some(status);
    waiting.calls.clear();
}

/// Hands out answers until the stream ends, and says why it did.
async fn answers(channel: Channel, requests: mpsc::Receiver<ProposeRequest>, waiting: &Mutex<Waiting>) -> Status {
    let mut client = ProposeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = match client.propose(ReceiverStream::new(requests)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(response)) => {
                let caller = locked(waiting).calls.remove(&response.call);
                // A caller that has given up is no longer in the table, or has dropped its end: nobody to tell.
                if let Some(caller) = caller {
                    drop(caller.send(response));
                }
            }
            Ok(None) => return Status::unavailable("the node ended the stream"),
            Err(status) => return status,
        }
    }
}
