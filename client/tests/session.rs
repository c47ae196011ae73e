//! A client against scripted nodes over real mutual TLS: routing to the leader, retries with one request id, lost
//! connections, expired sessions, no answer at all.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

mod support;

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use zyflow_api::convert::Call;
use zyflow_api::v1::propose_response::Result as Decided;
use zyflow_api::v1::propose_server::{Propose, ProposeServer};
use zyflow_api::v1::{self, ErrorCode};
use zyflow_client::{Client, ClientError, Code, Profile, Session};
use zyflow_machine::command::{Body, TaskField};
use zyflow_machine::id::{EventId, RecordId, RequestId, Revision};
use zyflow_machine::outcome::{Outcome, Reject};

const WITHIN: Duration = Duration::from_secs(20);

/// What a node does with the next proposal that isn't the opening of a session.
enum Next {
    Answer(Outcome),
    /// Accepts it at the revision that is the number of the task.
    Echo,
    Error(ErrorCode, Option<u64>),
    /// Ends the stream without an answer.
    Break,
    /// Says nothing, ever.
    Silence,
}

#[derive(Clone)]
struct Node {
    script: Arc<Mutex<VecDeque<Next>>>,
    seen: Arc<Mutex<Vec<Option<RequestId>>>>,
    sessions: Arc<Mutex<u64>>,
}

impl Node {
    fn opened(&self) -> u64 {
        *self.sessions.lock().unwrap()
    }

    fn seen(&self) -> Vec<Option<RequestId>> {
        self.seen.lock().unwrap().clone()
    }

    /// `Err` ends the stream, `None` is silence.
    fn answer(&self, request: v1::ProposeRequest) -> Result<Option<v1::ProposeResponse>, Status> {
        let call = Call::try_from(request).unwrap();
        let outcome = |outcome: Outcome| {
            Ok(Some(v1::ProposeResponse { call: call.call, result: Some(Decided::Outcome(outcome.into())) }))
        };
        if call.command.body == Body::OpenSession {
            let mut sessions = self.sessions.lock().unwrap();
            *sessions += 1;
            let id = EventId::new(Revision(100 + *sessions), 0).unwrap();
            return outcome(Outcome::Accepted { revision: Revision(1), created: vec![RecordId(id)] });
        }
        self.seen.lock().unwrap().push(call.command.request);
        match self.script.lock().unwrap().pop_front().expect("the script is over") {
            Next::Answer(decided) => outcome(decided),
            Next::Echo => {
                let Body::SetTask { task, .. } = call.command.body else { panic!("only tasks are set here") };
                outcome(accepted(task.to_u64()))
            }
            Next::Error(code, leader) => {
                let leader = leader.map(|node_id| v1::LeaderHint { node_id, api_address: String::new() });
                let error = v1::Error { code: code.into(), message: "scripted".to_owned(), leader };
                Ok(Some(v1::ProposeResponse { call: call.call, result: Some(Decided::Error(error)) }))
            }
            Next::Break => Err(Status::unavailable("scripted break")),
            Next::Silence => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl Propose for Node {
    type ProposeStream = ReceiverStream<Result<v1::ProposeResponse, Status>>;

    async fn propose(
        &self,
        request: Request<Streaming<v1::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let (tx, rx) = mpsc::channel(16);
        let (node, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                match node.answer(request) {
                    Ok(None) => {}
                    Ok(Some(response)) => drop(tx.send(Ok(response)).await),
                    Err(status) => {
                        drop(tx.send(Err(status)).await);
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn propose_one(&self, request: Request<v1::ProposeRequest>) -> Result<Response<v1::ProposeResponse>, Status> {
        let answer = self.answer(request.into_inner())?;
        answer.map(Response::new).ok_or_else(|| Status::deadline_exceeded("scripted silence"))
    }
}

/// Nodes with scripts, and a client of them.
struct Cluster {
    nodes: Vec<Node>,
    client: Client,
    _certificates: TempDir,
}

async fn cluster(scripts: Vec<Vec<Next>>) -> Cluster {
    let certificates = support::certificates();
    let (mut nodes, mut endpoints) = (Vec::new(), Vec::new());
    for script in scripts {
        let node = Node { script: Arc::new(Mutex::new(script.into())), seen: Arc::default(), sessions: Arc::default() };
        let router = Server::builder().add_service(ProposeServer::new(node.clone()));
        endpoints.push(support::serve(certificates.path(), router).await);
        nodes.push(node);
    }
    let client = support::client(certificates.path(), endpoints);
    Cluster { nodes, client, _certificates: certificates }
}

fn set() -> Body {
    set_task(7)
}

fn set_task(task: u64) -> Body {
    Body::SetTask {
        task: RecordId::from_u64(task),
        expected: None,
        fields: vec![TaskField::Note("n".to_owned())],
        mark: None,
    }
}

fn accepted(revision: u64) -> Outcome {
    Outcome::Accepted { revision: Revision(revision), created: vec![] }
}

#[tokio::test]
async fn numbers_go_up_and_the_session_is_opened_once() {
    let cluster = cluster(vec![vec![Next::Answer(accepted(5)), Next::Answer(accepted(6))]]).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    assert_eq!(session.propose(set(), WITHIN).await.unwrap(), accepted(5));
    assert_eq!(session.propose(set(), WITHIN).await.unwrap(), accepted(6));
    let seqs: Vec<_> = cluster.nodes[0].seen().into_iter().map(|request| request.unwrap().seq).collect();
    assert_eq!((seqs, cluster.nodes[0].opened()), (vec![1, 2], 1));
}

#[tokio::test]
async fn a_request_keeps_its_id_across_a_broken_stream_and_nodes() {
    let first = Box::new(accepted(5));
    let scripts = vec![vec![Next::Break], vec![Next::Answer(Outcome::Duplicate(first))]];
    let cluster = cluster(scripts).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    assert_eq!(session.propose(set(), WITHIN).await.unwrap(), accepted(5), "the first answer, not the duplicate");
    assert_eq!(cluster.nodes[0].seen(), cluster.nodes[1].seen());
    assert!(cluster.nodes[0].seen()[0].is_some());
}

#[tokio::test]
async fn an_election_is_waited_out_and_overload_too() {
    let script = vec![
        Next::Error(ErrorCode::NoQuorum, None),
        Next::Error(ErrorCode::Overloaded, None),
        Next::Error(ErrorCode::NotLeader, Some(9)),
        Next::Answer(accepted(5)),
    ];
    let cluster = cluster(vec![script]).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    assert_eq!(session.propose(set(), WITHIN).await.unwrap(), accepted(5));
    let seen = cluster.nodes[0].seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|request| *request == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn no_quorum_until_the_deadline_is_told_as_that() {
    let errors = || (0..1000).map(|_| Next::Error(ErrorCode::NoQuorum, None)).collect();
    let cluster = cluster(vec![errors(), errors()]).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    let error = session.propose(set(), Duration::from_secs(3)).await.unwrap_err();
    assert_eq!((error.code(), error.code().exit().number()), (Code::NoQuorum, 5), "{error}");
    assert!(matches!(error, ClientError::Deadline { may_apply: true, .. }), "{error}");
}

#[tokio::test]
async fn a_silent_node_costs_the_deadline_and_no_more() {
    let cluster = cluster(vec![vec![Next::Silence]]).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    let began = std::time::Instant::now();
    let error = session.propose(set(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.code(), Code::Timeout, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_session_that_expired_before_the_request_is_replaced_unnoticed() {
    let script = vec![Next::Answer(Outcome::Rejected(Reject::SessionExpired)), Next::Answer(accepted(5))];
    let cluster = cluster(vec![script]).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    assert_eq!(session.propose(set(), WITHIN).await.unwrap(), accepted(5));
    let seen: Vec<_> = cluster.nodes[0].seen().into_iter().flatten().collect();
    assert_ne!(seen[0].session, seen[1].session);
    assert_eq!(cluster.nodes[0].opened(), 2);
}

#[tokio::test]
async fn a_session_that_expired_after_a_lost_answer_leaves_the_fate_unknown() {
    let script = vec![Next::Break, Next::Answer(Outcome::Rejected(Reject::SessionExpired))];
    let cluster = cluster(vec![script]).await;
    let session = Session::new(cluster.client.clone(), "test", 0);
    let error = session.propose(set(), WITHIN).await.unwrap_err();
    assert_eq!(error.code(), Code::FateUnknown, "{error}");
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    for code in [ErrorCode::DiskFull, ErrorCode::Denied, ErrorCode::Invalid] {
        let cluster = cluster(vec![vec![Next::Error(code, None)], vec![]]).await;
        let session = Session::new(cluster.client.clone(), "test", 0);
        let error = session.propose(set(), WITHIN).await.unwrap_err();
        assert_eq!(error.code(), Code::from(code), "{error}");
        assert_eq!(cluster.nodes[0].seen().len() + cluster.nodes[1].seen().len(), 1);
    }
}

#[tokio::test]
async fn many_callers_share_one_stream_and_each_gets_its_own_answer() {
    let script = (0..100).map(|_| Next::Echo).collect();
    let cluster = cluster(vec![script]).await;
    let session = Arc::new(Session::new(cluster.client.clone(), "test", 0));
    let mut callers = tokio::task::JoinSet::new();
    for task in 0..100 {
        let session = Arc::clone(&session);
        callers.spawn(async move { (task, session.propose(set_task(task), WITHIN).await.unwrap()) });
    }
    for (task, outcome) in callers.join_all().await {
        assert_eq!(outcome, accepted(task), "the answer of another caller");
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_is_not_spoken_to() {
    let cluster = cluster(vec![vec![]]).await;
    let other = tempfile::tempdir().unwrap();
    let script =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../deploy/certificates.sh");
    let made = Command::new("sh").arg(script).arg(other.path()).args(["test", "ca", "client", "ann"]).output();
    assert!(made.unwrap().status.success());
    let at = |name: &str| other.path().join(name);
    let endpoints = cluster.client.endpoints().map(ToOwned::to_owned).collect();
    let profile = Profile {
        cluster: "test".to_owned(),
        endpoints,
        ca: at("ca.pem"),
        cert: at("client-ann.pem"),
        key: at("client-ann.key"),
    };
    let session = Session::new(Client::new(&profile).unwrap(), "test", 0);
    let error = session.propose(set(), Duration::from_millis(500)).await.unwrap_err();
    assert_eq!(error.code(), Code::Connect, "{error}");
    assert!(error.to_string().contains("TLS handshake"), "{error}");
    assert_eq!(cluster.nodes[0].opened(), 0);
}
