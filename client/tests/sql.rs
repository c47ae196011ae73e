//! Scripts of SQL against scripted nodes over real mutual TLS: which node runs one, and which doesn't run it again.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

mod support;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use tempfile::TempDir;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use zyflow_api::ApiError;
use zyflow_api::v1::query_server::{Query, QueryServer};
use zyflow_api::v1::{self, ErrorCode};
use zyflow_client::{Client, ClientError, Code};

const WITHIN: Duration = Duration::from_secs(6);

/// What a node does with a script.
#[derive(Clone, Copy)]
enum Next {
    Answer,
    Error(ErrorCode),
    /// The connection breaks while the script runs, as where the node is killed.
    Break,
}

#[derive(Clone)]
struct Node {
    next: Next,
    /// How long each script that came may take.
    seen: Arc<Mutex<Vec<u32>>>,
}

#[tonic::async_trait]
impl Query for Node {
    type ExportStream = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

    async fn query(&self, _request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        Err(Status::unimplemented("only SQL is asked here"))
    }

    async fn sql(&self, request: Request<v1::SqlRequest>) -> Result<Response<v1::SqlResponse>, Status> {
        self.seen.lock().unwrap().push(request.into_inner().millis_max);
        match self.next {
            Next::Answer => {}
            Next::Error(code) => return Err(ApiError::new(code, "scripted").into()),
            Next::Break => return Err(Status::unavailable("scripted break")),
        }
        Ok(Response::new(v1::SqlResponse { revision: 7, ..v1::SqlResponse::default() }))
    }

    async fn export(&self, _request: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("only SQL is asked here"))
    }
}

struct Cluster {
    nodes: Vec<Node>,
    client: Client,
    _certificates: TempDir,
}

impl Cluster {
    /// Two nodes that do this; the first, where it does nothing, isn't there.
    async fn new(first: Option<Next>, second: Next) -> Self {
        let certificates = support::certificates();
        let (mut nodes, mut endpoints) = (Vec::new(), Vec::new());
        for next in [first, Some(second)] {
            let node = Node { next: next.unwrap_or(Next::Answer), seen: Arc::default() };
            let router = Server::builder().add_service(QueryServer::new(node.clone()));
            let address = match next {
                Some(_) => support::serve(certificates.path(), router).await,
                None => "127.0.0.1:1".to_owned(),
            };
            endpoints.push(address);
            nodes.push(node);
        }
        let client = support::client(certificates.path(), endpoints);
        Self { nodes, client, _certificates: certificates }
    }

    async fn ask(&self) -> Result<u64, ClientError> {
        let request = v1::SqlRequest { script: "SELECT 1".to_owned(), ..v1::SqlRequest::default() };
        self.client.sql(request, WITHIN).await.map(|response| response.revision)
    }

    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|at: usize| self.nodes[at].seen.lock().unwrap().len())
    }
}

#[tokio::test]
async fn a_script_that_may_have_ended_its_node_is_not_sent_to_another() {
    let cluster = Cluster::new(Some(Next::Break), Next::Answer).await;
    let error = cluster.ask().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert_eq!(cluster.counts(), [1, 0]);
}

#[tokio::test]
async fn a_script_that_took_too_long_is_not_sent_to_another() {
    let cluster = Cluster::new(Some(Next::Error(ErrorCode::Deadline)), Next::Answer).await;
    let error = cluster.ask().await.unwrap_err();
    assert_eq!(error.code(), Code::Timeout, "{error:?}");
    assert_eq!(cluster.counts(), [1, 0]);
}

#[tokio::test]
async fn a_script_that_no_node_has_begun_goes_to_the_next() {
    for first in [None, Some(Next::Error(ErrorCode::Overloaded)), Some(Next::Error(ErrorCode::NoQuorum))] {
        let cluster = Cluster::new(first, Next::Answer).await;
        assert_eq!(cluster.ask().await.unwrap(), 7);
        assert_eq!(cluster.counts()[1], 1);
    }
}

#[tokio::test]
async fn a_script_has_all_the_time_that_there_is() {
    let cluster = Cluster::new(Some(Next::Answer), Next::Answer).await;
    assert_eq!(cluster.ask().await.unwrap(), 7);
    let millis = cluster.nodes[0].seen.lock().unwrap()[0];
    assert!((5_000..6_000).contains(&millis), "more than half of it, and less than all: {millis}");
}
