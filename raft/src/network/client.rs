//! The calling side: what openraft asks of a peer, over the protocol.
//!
//! openraft's own defaults for three of these calls compile and do nothing (pre-vote grants always, appends go one by one,
//! leadership can't be handed over); all three are implemented here. A transport error is never an answer: in particular it
//! is no granted pre-vote, or a node that is cut off would elect itself term after term.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use openraft::RaftNetworkFactory;
use openraft::RaftNetworkV2;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use zyflow_storage::types::{NodeId, NodeInfo, TypeConfig, Vote};

use super::peers::{Lane, Peers};
use super::proto;
use super::proto::peer_client::PeerClient;
use super::snapshot;
use super::wire::{self, Ends, WireError};
use crate::applier::{Snapshot, SnapshotFile};

/// How long an append may go unanswered before its stream is given up: many times the slowest sync of a healthy disk, and
/// less than anybody wants to wait for a half-dead peer.
const APPEND_ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// How long news of a commit alone waits for entries to go with. openraft sends it as soon as a majority has an entry; beside a lone
/// client that is a wake-up and an answer more on every follower, just before the next entry comes. Followers apply so much later.
const COMMIT_HELD: Duration = Duration::from_millis(1);

/// Makes a [`Link`] for each thing that openraft wants from a peer.
pub(crate) struct Links {
    pub(crate) peers: Arc<Peers>,
}

impl Links {
    fn link(&self, target: NodeId, node: &NodeInfo, lane: Lane) -> Link {
        Link { peers: Arc::clone(&self.peers), target, address: node.address.clone(), lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, node: &NodeInfo) -> Link {
        self.link(target, node, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &NodeInfo) -> Link {
        self.link(target, node, Lane::Pulse)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &NodeInfo) -> Link {
        self.link(target, node, Lane::Snapshot)
    }
}

/// One peer, as openraft calls it.
pub(crate) struct Link {
    peers: Arc<Peers>,
    target: NodeId,
    address: String,
    lane: Lane,
}

impl Link {
    fn ends(&self) -> Ends {
        Ends { from: self.peers.own, to: self.target }
    }

    fn client(&self, lane: Lane) -> PeerClient<Channel> {
        self.peers.client(self.target, &self.address, lane)
    }

    /// One call with one answer, within `limit`.
    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match timeout(limit, call).await {
            Ok(Ok(response)) => {
                self.peers.hear(self.target);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                self.peers.note_refusal(self.target, &status);
                Err(unreachable(self.target, &status))
            }
            Err(_elapsed) => Err(RPCError::Network(NetworkError::from_string(format!(
                "node {} did not answer in {limit:?}",
                self.target
            )))),
        }
    }

    fn read<T>(&self, read: Result<T, WireError>) -> Result<T, RPCError<TypeConfig>> {
        read.map_err(|error| malformed(self.target, &error))
    }
}

/// openraft pauses before it tries again.
fn unreachable(target: NodeId, status: &Status) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(format!("node {target}: {status}{}", causes(status))))
}

fn malformed(target: NodeId, error: &WireError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(format!("node {target} answered {error}")))
}

/// The whole chain: the reason for a refused handshake is at its end.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let limit = option.soft_ttl();
        let input = futures::stream::iter([request]);
        let answered = timeout(limit, async {
            let mut answers = self.stream_append(input, option).await?;
            let mut newest = None;
            while let Some(answer) = answers.next().await {
                newest = Some(answer?);
            }
            newest.ok_or_else(|| RPCError::Network(NetworkError::from_string("the stream ended without an answer")))
        });
        let result = answered.await.map_err(|_elapsed| {
            RPCError::Network(NetworkError::from_string(format!("no answer to an append in {limit:?}")))
        })??;
        Ok(match result {
            Ok(matching) if matching != last => AppendEntriesResponse::PartialSuccess(matching),
            other => other.into(),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let flow = Arc::new(Flow::default());
            let (ends, peers, sent) = (self.ends(), Arc::clone(&self.peers), Arc::clone(&flow));
            // openraft's pause after an error is in its stream of requests. Opening before the first one is asked for would
            // try again without any pause for as long as the peer refuses connections.
            let (first, others) = input.into_future().await;
            let Some(first) = first else { return Ok(futures::stream::empty().boxed()) };
            let requests = held(futures::stream::iter([first]).chain(others));
            let messages = requests.flat_map(move |request| {
                let messages = wire::append_messages(ends, &request, peers.now_ms());
                sent.send(&peers, messages.len());
                futures::stream::iter(messages)
            });
            let mut client = self.client(self.lane);
            // A dead connection must not hold up a whole stream session; a live one opens a stream in microseconds.
            let limit = option.soft_ttl().max(APPEND_ANSWER_DEADLINE);
            let opened = timeout(limit, client.append(Request::new(messages))).await.map_err(|_elapsed| {
                RPCError::Network(NetworkError::from_string(format!(
                    "node {} opened no stream in {limit:?}",
                    self.target
                )))
            })?;
            let replies = opened.map_err(|status| unreachable(self.target, &status))?.into_inner();
            let answers = Answers { peers: Arc::clone(&self.peers), target: self.target, replies, flow };
            let stream: BoxStream<'s, _> = futures::stream::unfold(Some(answers), Answers::next).boxed();
            Ok(stream)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = wire::vote_message(self.ends(), &request);
        let reply = self.call(option.soft_ttl(), self.client(Lane::Pulse).vote(message)).await?;
        self.read(wire::vote_response(&reply))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = wire::vote_message(self.ends(), &request);
        let reply = self.call(option.soft_ttl(), self.client(Lane::Pulse).pre_vote(message)).await?;
        self.read(wire::vote_response(&reply))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = snapshot::send(self.client(Lane::Snapshot), self.ends(), vote, snapshot);
        let reply = tokio::select! {
            closed = cancel => return Err(closed.into()),
            sent = timeout(option.soft_ttl(), sending) => sent,
        };
        match reply {
            Ok(Ok(vote)) => {
                self.peers.hear(self.target);
                self.peers.counters.snapshots_sent.add(1);
                Ok(SnapshotResponse::new(vote))
            }
            Ok(Err(error)) => {
                Err(Unreachable::from_string(format!("snapshot to node {}: {error}{}", self.target, causes(&error)))
                    .into())
            }
            Err(_elapsed) => {
                Err(NetworkError::from_string(format!("a snapshot to node {} took too long", self.target)).into())
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = wire::transfer_message(self.ends(), &request);
        let reply = self.call(option.soft_ttl(), self.client(Lane::Pulse).transfer_leader(message)).await?;
        self.read(wire::transfer_response(&request, &reply))
    }
}

/// The same requests in the same order; one without entries comes together with the next, if that follows soon.
fn held<S>(requests: S) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin,
{
    let together = futures::stream::unfold(requests.fuse(), |mut requests| async move {
        let mut taken = vec![requests.next().await?];
        if taken[0].entries.is_empty()
            && let Ok(Some(next)) = timeout(COMMIT_HELD, requests.next()).await
        {
            taken.push(next);
        }
        Some((taken, requests))
    });
    together.flat_map(futures::stream::iter)
}

/// How much of a stream is under way.
#[derive(Debug, Default)]
struct Flow {
    sent: AtomicU64,
    answered: AtomicU64,
}

impl Flow {
    fn send(&self, peers: &Peers, count: usize) {
        let count_u64 = u64::try_from(count).unwrap_or(u64::MAX);
        let sent = self.sent.fetch_add(count_u64, Ordering::Relaxed) + count_u64;
        let in_flight = sent - self.answered.load(Ordering::Relaxed).min(sent);
        peers.counters.appends_sent.add(count);
        peers.counters.appends_in_flight_max.raise_to(in_flight);
    }
}

/// The answers of one append stream.
struct Answers {
    peers: Arc<Peers>,
    target: NodeId,
    replies: Streaming<proto::AppendReply>,
    flow: Arc<Flow>,
}

impl Answers {
    /// One step of the stream; it ends with its first error.
    async fn next(
        answers: Option<Self>,
    ) -> Option<(Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>, Option<Self>)> {
        let mut answers = answers?;
        match answers.receive().await {
            Ok(None) => None,
            Ok(Some(result)) => Some((Ok(result), Some(answers))),
            Err(error) => {
                debug!(target_node = answers.target, %error, "an append stream broke");
                Some((Err(error), None))
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<StreamAppendResult<TypeConfig>>, RPCError<TypeConfig>> {
        let reply = loop {
            let owed = self.flow.sent.load(Ordering::Relaxed);
            match timeout(APPEND_ANSWER_DEADLINE, self.replies.message()).await {
                Ok(reply) => break reply.map_err(|status| unreachable(self.target, &status))?,
                // Quiet is fine while nothing was sent before this wait began.
                Err(_elapsed) if owed == self.flow.answered.load(Ordering::Relaxed) => {}
                Err(_elapsed) => {
                    return Err(RPCError::Network(NetworkError::from_string(format!(
                        "node {} left an append unanswered for {APPEND_ANSWER_DEADLINE:?}",
                        self.target
                    ))));
                }
            }
        };
        let Some(reply) = reply else { return Ok(None) };
        self.flow.answered.fetch_add(1, Ordering::Relaxed);
        self.peers.counters.appends_answered.add(1);
        self.peers.hear_clock(self.target, reply.clock_ms);
        wire::append_result(&reply).map(Some).map_err(|error| malformed(self.target, &error))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use openraft::raft::AppendEntriesRequest;
    use zyflow_storage::types::{Entry, EntryPayload, LogId, TypeConfig, Vote};

    use super::held;

    const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

    fn request(nth: u64, is_news_alone: bool) -> AppendEntriesRequest<TypeConfig> {
        let log_id = LogId::new_term_index(1, nth);
        let entry = Entry { log_id, payload: EntryPayload::Blank };
        let entries = if is_news_alone { Vec::new() } else { vec![entry] };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            entries,
            leader_commit: Some(log_id),
        }
    }

    #[tokio::test]
    async fn what_is_held_comes_in_order_and_all_of_it() {
        for news in 0..16_u64 {
            let sent: Vec<_> = (0..4).map(|nth| request(nth, news >> nth & 1 == 1)).collect();
            let quiet = futures::stream::iter(sent).chain(futures::stream::pending());
            let commits = held(quiet).take(4).map(|request| request.leader_commit.map(|id| id.index));
            let all = tokio::time::timeout(WITHIN, commits.collect::<Vec<_>>()).await;
            assert_eq!(all, Ok(vec![Some(0), Some(1), Some(2), Some(3)]), "news alone: {news:04b}");
        }
    }
}
