//! Calls that don't fit their caller are refused, one by one.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use zyflow_crypto::{Connector, Role};
use zyflow_machine::command::Batch;
use zyflow_machine::format;
use zyflow_machine::id::ClusterTime;
use zyflow_storage::codec;
use zyflow_storage::types::{Entry, EntryPayload, LogId, Membership, NodeInfo, Payload, Vote};

use super::support::certs::Authority;
use super::support::{CLUSTER, Cluster, lineage, project, ring, until};

/// The protocol again, from outside.
#[expect(clippy::pedantic, unused_qualifications, clippy::as_conversions, reason = "generated")]
mod proto {
    tonic::include_proto!("zyflow.raft.v1");
}
use proto::peer_client::PeerClient;

pub struct Caller {
    client: PeerClient<Channel>,
}

impl Caller {
    /// A client that shows this certificate.
    pub fn new(authority: &Authority, cluster: &str, role: Role, node: u64, address: &str) -> Self {
        let connector = Arc::new(Connector::new(authority.issue(cluster, role, node)));
        let address = address.to_owned();
        let channel = Endpoint::from_static("http://node.zyflow.internal").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let (connector, address) = (Arc::clone(&connector), address.clone());
                async move { connector.connect(&address, None).await.map(TokioIo::new) }
            }),
        );
        Self { client: PeerClient::new(channel) }
    }

    async fn vote(&mut self, from: u64, to: u64, vote: Vote) -> Result<proto::VoteReply, Status> {
        let request = proto::VoteRequest { from, to, vote: vote_bytes(&vote), last: none(), transfer: false };
        self.client.vote(request).await.map(tonic::Response::into_inner)
    }

    async fn append(&mut self, request: proto::AppendRequest) -> Result<proto::AppendReply, Status> {
        let mut replies = self.client.append(futures::stream::iter([request])).await?.into_inner();
        Ok(replies.message().await?.expect("one answer"))
    }

    /// Every kind of call, as if from `from`; gives the codes.
    pub async fn every_call(&mut self, from: u64, to: u64, vote: Vote) -> Vec<(&'static str, Code)> {
        let elected = vote_bytes(&Vote::new_committed(vote.leader_id.term, vote.leader_id.voted_for));
        let candidate = proto::VoteRequest { from, to, vote: vote_bytes(&vote), last: none(), transfer: true };
        let head = proto::SnapshotHead {
            from,
            to,
            vote: elected.clone(),
            last: none(),
            membership: bytes::Bytes::new(),
            total_bytes: 1,
            name: "one".to_owned(),
            offset: 0,
        };
        let asked = head.clone();
        let head = proto::SnapshotRequest { part: Some(proto::snapshot_request::Part::Head(head)) };
        let transfer = proto::TransferRequest { from, to, vote: elected.clone(), heir: 1, last: none() };
        let forward = proto::ForwardRequest { from, to, commands: Vec::new() };
        let barrier = proto::BarrierRequest { from, to, lease: false, timeout_ms: 1000 };
        let digest = proto::DigestRequest { from, to, revision: 1, timeout_ms: 1 };
        let forwarded = match self.client.forward(futures::stream::iter([forward])).await {
            Ok(replies) => replies.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        vec![
            ("Append", code(self.append(append(from, to, &elected, &[])).await)),
            ("Vote", code(self.client.vote(candidate.clone()).await)),
            ("PreVote", code(self.client.pre_vote(candidate).await)),
            ("Snapshot", code(self.client.snapshot(futures::stream::iter([head])).await)),
            ("SnapshotArrived", code(self.client.snapshot_arrived(asked).await)),
            ("TransferLeader", code(self.client.transfer_leader(transfer).await)),
            ("Forward", code(forwarded)),
            ("Barrier", code(self.client.barrier(barrier).await)),
            ("Digest", code(self.client.digest(digest).await)),
        ]
    }
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn vote_bytes(vote: &Vote) -> bytes::Bytes {
    let mut bytes = Vec::new();
    codec::encode_vote(vote, &mut bytes);
    bytes.into()
}

fn none() -> bytes::Bytes {
    some(None)
}

fn some(id: Option<LogId>) -> bytes::Bytes {
    let mut bytes = Vec::new();
    codec::encode_optional_log_id(id.as_ref(), &mut bytes);
    bytes.into()
}

fn append(from: u64, to: u64, vote: &bytes::Bytes, entries: &[Entry]) -> proto::AppendRequest {
    let encoded = entries.iter().map(|entry| {
        let mut bytes = Vec::new();
        codec::encode_entry(entry, &mut bytes);
        bytes.into()
    });
    proto::AppendRequest {
        from,
        to,
        vote: vote.clone(),
        previous: none(),
        committed: some(entries.last().map(|entry| entry.log_id)),
        entries: encoded.collect(),
        clock_ms: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_and_other_clusters_get_nowhere() {
    let cluster = Cluster::of(&[1], |_| {}).await;
    let address = cluster.node(1).address.clone();
    for role in [Role::Agent, Role::Client, Role::Admin] {
        let mut caller = Caller::new(&cluster.authority, CLUSTER, role, 2, &address);
        for (call, code) in caller.every_call(2, 1, Vote::new(7, 2)).await {
            assert_eq!(code, Code::PermissionDenied, "{call} by {role}");
        }
    }
    let mut learner = Caller::new(&cluster.authority, CLUSTER, Role::Learner, 2, &address);
    for (call, code) in learner.every_call(2, 1, Vote::new(7, 2)).await {
        let may = matches!(call, "Forward" | "Barrier" | "Digest");
        assert_eq!(code != Code::PermissionDenied, may, "{call} by a learner: {code:?}");
    }
    // These don't get past the handshake: the connection is closed on them.
    let mut other_cluster = Caller::new(&cluster.authority, "other", Role::Voter, 2, &address);
    let mut other_authority = Caller::new(&Authority::new(), CLUSTER, Role::Voter, 2, &address);
    for caller in [&mut other_cluster, &mut other_authority] {
        for (call, code) in caller.every_call(2, 1, Vote::new(7, 2)).await {
            assert!(matches!(code, Code::Unavailable | Code::Unknown), "{call} by a stranger: {code:?}");
        }
    }
    let status = cluster.node(1).status();
    assert_eq!((status.term, status.leader), (0, None), "none of it reached consensus");
    assert!(cluster.node(1).consensus().counts().calls_refused >= 3 * 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_speaks_for_itself_only() {
    let cluster = Cluster::of(&[1], |_| {}).await;
    let address = cluster.node(1).address.clone();
    let mut two = Caller::new(&cluster.authority, CLUSTER, Role::Voter, 2, &address);
    for (call, code) in two.every_call(3, 1, Vote::new(7, 3)).await {
        assert_eq!(code, Code::PermissionDenied, "{call} in the name of node 3");
    }
    let status = two.vote(2, 1, Vote::new(7, 3)).await.unwrap_err();
    assert!(status.message().contains("node 3's"), "{status}");
    let status = two.vote(2, 9, Vote::new(7, 2)).await.unwrap_err();
    assert!(status.message().contains("this is node 1"), "{status}");
    let unelected = append(2, 1, &vote_bytes(&Vote::new(7, 2)), &[]);
    assert_eq!(two.append(unelected).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(cluster.node(1).status().term, 0, "none of it reached consensus");
    // Its own words are heard.
    two.vote(2, 1, Vote::new(7, 2)).await.unwrap();
}

/// What node 2, as leader, could send to node 1: a membership, then one entry of these bytes.
async fn feed(cluster: &Cluster, sealed: Vec<u8>) {
    let address = cluster.node(1).address.clone();
    let members = [1, 2].map(|id| (id, NodeInfo::at("localhost:1".to_owned())));
    let membership = Membership::new(vec![[1, 2].into()], std::collections::BTreeMap::from(members)).unwrap();
    let entries = vec![
        Entry { log_id: LogId::new_term_index(0, 0), payload: EntryPayload::Membership(membership) },
        Entry { log_id: LogId::new_term_index(7, 1), payload: EntryPayload::Normal(Payload(sealed.into())) },
    ];
    let mut leader = Caller::new(&cluster.authority, CLUSTER, Role::Voter, 2, &address);
    // It may stop before it can answer.
    drop(leader.append(append(2, 1, &vote_bytes(&Vote::new_committed(7, 2)), &entries)).await);
}

async fn reason_of_death(cluster: &Cluster) -> String {
    until("the node to stop", || cluster.node(1).consensus().fatal().borrow().as_ref().map(ToString::to_string)).await
}

fn seal(bytes: &[u8]) -> Vec<u8> {
    zyflow_crypto::seal(&ring(), zyflow_crypto::Purpose::Entry, &lineage(), &[1; 16], bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_newer_format_stops_the_node_and_is_not_skipped() {
    let cluster = Cluster::of(&[1], |_| {}).await;
    let mut bytes = format::encode_batch(&Batch { stamped: ClusterTime(1), commands: vec![project("new")] });
    bytes[..2].copy_from_slice(&(format::BATCH_FORMAT + 1).to_be_bytes());
    feed(&cluster, seal(&bytes)).await;
    let reason = reason_of_death(&cluster).await;
    assert!(reason.contains("decoding entry 1") && reason.contains("version 2"), "{reason}");
    assert!(cluster.node(1).digest().0.0 < 1, "it was not applied");
    let error = cluster.propose(1, project("more")).await.unwrap_err();
    assert!(matches!(error, zyflow_raft::ProposeError::Fatal(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_does_not_open_stops_the_node() {
    let cluster = Cluster::of(&[1], |_| {}).await;
    let mut sealed = seal(&format::encode_batch(&Batch { stamped: ClusterTime(1), commands: Vec::new() }));
    *sealed.last_mut().unwrap() ^= 1;
    feed(&cluster, sealed).await;
    let reason = reason_of_death(&cluster).await;
    assert!(reason.contains("opening entry 1"), "{reason}");
}
