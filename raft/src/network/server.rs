//! The called side: each call passes the [`Gate`], then goes to openraft, the proposer or the reader.
//!
//! Nothing here decides anything about consensus. A call that doesn't fit its caller, or that no honest peer makes, is
//! refused and counted, and openraft never hears of it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver as _;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info};
use zyflow_machine::command::{Batch, Command};
use zyflow_machine::format;
use zyflow_machine::id::Revision;
use zyflow_storage::types::TypeConfig;

use super::gate::{Asks, Caller, Gate};
use super::peers::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES};
use super::proto;
use super::proto::peer_server::{Peer, PeerServer};
use super::snapshot;
use super::wire::{self, MESSAGE_BYTES_MAX};
use crate::error::ProposeError;
use crate::net::{Closing, Inbound};
use crate::proposer::answer;
use crate::proposer::forward::FORWARDED_MAX;
use crate::proposer::{Answer, Phase, Proposal, Reply, Ticket};
use crate::reader::{self, Ask, Index};
use crate::shared::{Shared, stopped};

/// Calls under way on one connection. A peer has a handful: its streams and a few single calls.
const CALLS_PER_CONNECTION_MAX: u32 = 256;
/// Answers to forwarded commands in one message.
const ANSWERS_PER_MESSAGE_MAX: usize = 512;
/// Bytes of answers after which a message is full.
const ANSWERS_BYTES_TARGET: usize = 1 << 20;
/// Longest time that a forwarded command or barrier may ask for.
const TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// The service of one node. Clones share everything.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) gate: Gate,
    pub(crate) proposals: mpsc::Sender<Proposal>,
    pub(crate) reads: mpsc::Sender<Ask>,
    pub(crate) snapshots: Arc<Semaphore>,
}

/// Serves the peer port until the node stops.
pub(crate) async fn serve(
    service: PeerService,
    incoming: BoxStream<'static, Inbound>,
    mut stop: watch::Receiver<bool>,
) {
    let service = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(service)
        .serve_with_incoming(incoming.map({
            let stop = stop.clone();
            move |inbound| Ok::<_, std::io::Error>(Closing::new(inbound, stop.clone()))
        }));
    // Not a graceful end, which would wait for streams that peers hold for ever: they know how to find another leader.
    tokio::select! {
        ended = server => match ended {
            Ok(()) => info!("the peer port closed"),
            Err(error) => error!(%error, "serving the peer port failed"),
        },
        () = stopped(&mut stop) => {}
    }
}

impl PeerService {
    /// Counts refusals, whatever they are for.
    fn count<T>(&self, result: Result<T, Status>) -> Result<T, Status> {
        if result.is_err() {
            self.shared.counters.calls_refused.add(1);
        }
        result
    }

    fn admit<T>(&self, request: &Request<T>, call: &'static str, asks: Asks) -> Result<Caller, Status> {
        self.count(self.gate.admit(request, call, asks))
    }

    /// What the leader says in an append, once it has passed.
    fn check_append(
        &self,
        caller: &Caller,
        message: &proto::AppendRequest,
    ) -> Result<openraft::raft::AppendEntriesRequest<TypeConfig>, Status> {
        caller.check_ends(message.from, message.to)?;
        let request = wire::append_of(message)?;
        caller.check_vote(&request.vote, true)?;
        self.shared.peers.hear_clock(caller.node(), message.clock_ms);
        Ok(request)
    }

    fn check_candidate(
        &self,
        request: Request<proto::VoteRequest>,
        call: &'static str,
    ) -> Result<openraft::raft::VoteRequest<TypeConfig>, Status> {
        let caller = self.admit(&request, call, Asks::Voter)?;
        let message = request.into_inner();
        let checked = || {
            caller.check_ends(message.from, message.to)?;
            let request = wire::vote_request(&message)?;
            caller.check_vote(&request.vote, false)?;
            let candidates = request.last_log_id.as_ref().map(|last| last.index);
            let own = self.shared.raft.metrics().borrow_watched().last_log_index;
            if own.is_none() && candidates > Some(self.shared.config.empty_votes_max) {
                return Err(caller.refuse("this node has no log, so it may have forgotten its votes: it votes once a leader has sent it the log"));
            }
            Ok(request)
        };
        let request = self.count(checked())?;
        self.shared.peers.hear(caller.node());
        Ok(request)
    }
}

fn stopping(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this node is stopping: {error}"))
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = BoxStream<'static, Result<proto::AppendReply, Status>>;
    type ForwardStream = BoxStream<'static, Result<proto::ForwardReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let caller = self.admit(&request, "Append", Asks::Voter)?;
        let (refused_tx, refused_rx) = oneshot::channel();
        let service = self.clone();
        let requests = futures::stream::unfold(Some((request.into_inner(), refused_tx)), move |state| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let (mut messages, refused) = state?;
                let checked = match messages.message().await {
                    Ok(Some(message)) => service.count(service.check_append(&caller, &message)),
                    Ok(None) => return None,
                    Err(status) => Err(status),
                };
                match checked {
                    Ok(request) => Some((request, Some((messages, refused)))),
                    Err(status) => {
                        // The caller may be gone.
                        drop(refused.send(status));
                        None
                    }
                }
            }
        });
        let peers = Arc::clone(&self.shared.peers);
        let replies = self.shared.raft.stream_append(requests).map(move |result| match result {
            Ok(result) => Ok(wire::append_reply(&result, peers.now_ms())),
            Err(fatal) => Err(stopping(fatal)),
        });
        // A refusal ends the stream of requests, and with it that of replies: it is said last.
        let refusal = futures::stream::once(refused_rx).filter_map(|refused| async { refused.ok().map(Err) });
        Ok(Response::new(replies.chain(refusal).boxed()))
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteReply>, Status> {
        let request = self.check_candidate(request, "Vote")?;
        let response = self.shared.raft.vote(request).await.map_err(stopping)?;
        Ok(Response::new(wire::vote_reply(&response)))
    }

    async fn pre_vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteReply>, Status> {
        let request = self.check_candidate(request, "PreVote")?;
        let response = self.shared.raft.pre_vote(request).await.map_err(stopping)?;
        Ok(Response::new(wire::vote_reply(&response)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotRequest>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        let caller = self.admit(&request, "Snapshot", Asks::Voter)?;
        let Ok(_permit) = self.snapshots.try_acquire() else {
            return Err(Status::resource_exhausted("a snapshot is being received already"));
        };
        let received = snapshot::receive(request.into_inner(), &caller, &self.shared).await;
        let received = self.count(received)?;
        let installing = self.shared.raft.install_full_snapshot(received.vote, received.snapshot);
        let response = installing.await.map_err(stopping)?;
        Ok(Response::new(proto::SnapshotReply { vote: wire::vote_bytes(&response.vote) }))
    }

    async fn snapshot_arrived(
        &self,
        request: Request<proto::SnapshotHead>,
    ) -> Result<Response<proto::SnapshotArrivedReply>, Status> {
        let caller = self.admit(&request, "SnapshotArrived", Asks::Voter)?;
        let arrived = snapshot::arrived(request.into_inner(), &caller, &self.shared).await;
        Ok(Response::new(self.count(arrived)?))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferReply>, Status> {
        let caller = self.admit(&request, "TransferLeader", Asks::Voter)?;
        let message = request.into_inner();
        let checked = || {
            caller.check_ends(message.from, message.to)?;
            let request = wire::transfer_request(&message)?;
            caller.check_vote(request.from_leader(), true)?;
            Ok(request)
        };
        let request = self.count(checked())?;
        let response = self.shared.raft.handle_transfer_leader(request).await.map_err(stopping)?;
        Ok(Response::new(wire::transfer_reply(&response)))
    }

    async fn forward(
        &self,
        request: Request<Streaming<proto::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let caller = self.admit(&request, "Forward", Asks::Replica)?;
        let (answers, rx) = mpsc::unbounded_channel();
        let (refused_tx, refused_rx) = oneshot::channel();
        let intake = Intake { service: self.clone(), caller, answers };
        let messages = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = intake.run(messages).await {
                // The caller may be gone.
                drop(refused_tx.send(status));
            }
        });
        let refusal = futures::stream::once(refused_rx).filter_map(|refused| async { refused.ok().map(Err) });
        Ok(Response::new(answer_stream(rx).map(Ok).chain(refusal).boxed()))
    }

    async fn barrier(&self, request: Request<proto::BarrierRequest>) -> Result<Response<proto::BarrierReply>, Status> {
        let caller = self.admit(&request, "Barrier", Asks::Replica)?;
        let message = request.into_inner();
        self.count(caller.check_ends(message.from, message.to))?;
        self.shared.peers.hear(caller.node());
        let deadline = Instant::now() + Duration::from_millis(message.timeout_ms).min(TIMEOUT_MAX);
        let (reply, answered) = oneshot::channel();
        let ask = Ask { lease: message.lease, deadline, is_forwarded: true, reply };
        self.reads.send(ask).await.map_err(stopping)?;
        let index = match timeout_at(deadline, answered).await {
            Ok(answered) => answered.map_err(stopping)?,
            Err(_elapsed) => Index::Failed(self.shared.read_verdict()),
        };
        Ok(Response::new(reader::reply(index, || self.shared.reach())))
    }

    async fn digest(&self, request: Request<proto::DigestRequest>) -> Result<Response<proto::DigestReply>, Status> {
        let caller = self.admit(&request, "Digest", Asks::Replica)?;
        let message = request.into_inner();
        self.count(caller.check_ends(message.from, message.to))?;
        let patience = Duration::from_millis(message.timeout_ms).min(TIMEOUT_MAX);
        let digest = self.shared.digest_for_peer(Revision(message.revision), patience).await;
        let digest = digest.map(|digest| digest.to_bytes().to_vec().into());
        Ok(Response::new(proto::DigestReply { digest }))
    }
}

/// Takes the commands that one peer forwards. Ends with the peer's stream.
struct Intake {
    service: PeerService,
    caller: Caller,
    answers: mpsc::UnboundedSender<(u64, Answer)>,
}

impl Intake {
    async fn run(self, mut messages: Streaming<proto::ForwardRequest>) -> Result<(), Status> {
        let room = Arc::new(Semaphore::new(FORWARDED_MAX));
        while let Some(message) = messages.message().await? {
            self.service.count(self.caller.check_ends(message.from, message.to))?;
            self.service.shared.peers.hear(self.caller.node());
            self.service.shared.counters.forwarded_in.add(message.commands.len());
            for forwarded in message.commands {
                let permit = Arc::clone(&room).acquire_owned().await.map_err(stopping)?;
                let remaining = Duration::from_millis(forwarded.timeout_ms).min(TIMEOUT_MAX);
                let reply = Reply::Peer { number: forwarded.ticket, answers: self.answers.clone(), _permit: permit };
                let since = Instant::now();
                let phase = Arc::new(Phase::default());
                let ticket = Ticket { since, deadline: since + remaining, phase, reply };
                match one_command(&forwarded.command) {
                    Ok(command) => {
                        let proposal = Proposal { command, ticket };
                        self.service.proposals.send(proposal).await.map_err(stopping)?;
                    }
                    Err(reason) => ticket.answer(Answer::Error(ProposeError::Malformed { reason })),
                }
            }
        }
        Ok(())
    }
}

fn one_command(bytes: &[u8]) -> Result<Command, String> {
    let Batch { commands, .. } = format::decode_batch(bytes).map_err(|error| crate::fatal::chain(&error))?;
    let [command] = <[Command; 1]>::try_from(commands)
        .map_err(|commands| format!("{} commands under one ticket", commands.len()))?;
    Ok(command)
}

/// Whatever is known goes into one message, as far as it fits. Ends when the intake has ended and every command was answered.
fn answer_stream(rx: mpsc::UnboundedReceiver<(u64, Answer)>) -> impl Stream<Item = proto::ForwardReply> {
    let messages = futures::stream::unfold(rx, |mut rx| async move {
        let mut ready = Vec::new();
        if rx.recv_many(&mut ready, ANSWERS_PER_MESSAGE_MAX).await == 0 {
            return None;
        }
        let answers = ready.into_iter().map(|(ticket, answer)| answer::message(ticket, answer));
        Some((futures::stream::iter(pack(answers)), rx))
    });
    messages.flatten()
}

/// An outcome may list a hundred thousand ids; most are a few bytes.
fn pack(answers: impl Iterator<Item = proto::ForwardedAnswer>) -> Vec<proto::ForwardReply> {
    let (mut messages, mut filled) = (vec![proto::ForwardReply::default()], 0);
    for answer in answers {
        let bytes = answer.encoded_len();
        if filled > 0 && filled + bytes > ANSWERS_BYTES_TARGET {
            messages.push(proto::ForwardReply::default());
            filled = 0;
        }
        filled += bytes;
        messages.last_mut().expect("invariant: begins with one message and only grows").answers.push(answer);
    }
    messages
}
