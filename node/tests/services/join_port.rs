//! The port for nodes that join: whoever says nothing is gone after a while, and a token is good for no id that a member has.

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Endpoint, Uri};
use zyflow_api::ApiError;
use zyflow_api::v1::join_client::JoinClient;
use zyflow_api::v1::{self, ErrorCode};
use zyflow_crypto::join::{JoinToken, NodeKey};
use zyflow_crypto::{Role, connect_unknown};
use zyflow_node::config::Join;
use zyflow_node::joining::Joining;
use zyflow_node::services::join::{JoinService, Patience, serve};
use zyflow_raft::{MembershipError, NodeInfo};

use super::support::{CLUSTER, LINEAGE, Node, soon};

const HOUR: Duration = Duration::from_hours(1);

/// Connections that the port has at one time.
const TURNS: usize = 16;

/// How HTTP/2 begins: the preface, and settings that say nothing.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A served port; it ends when this is dropped.
struct Port {
    address: String,
    joining: Arc<Joining>,
    _stop: watch::Sender<bool>,
}

async fn port(node: &Node, patience: Patience) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let config = Join { listen, advertise: listen.to_string(), ca_key: node.file("ca.key") };
    let joining = Joining::open(&config, CLUSTER, &node.config.tls.ca, node.file("join")).unwrap();
    let joining = Arc::new(joining);
    let (consensus, files) = (node.consensus.clone(), Handle::current());
    let service = JoinService::new(Arc::clone(&joining), consensus, &node.config, LINEAGE, files);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, node.acceptor.clone(), service.with_patience(patience), stopped));
    Port { address: listen.to_string(), joining, _stop: stop }
}

fn request() -> Vec<u8> {
    NodeKey::generate().unwrap().request().unwrap()
}

/// Connects once, with a stream that is there already.
struct Once(Option<TokioIo<TlsStream<TcpStream>>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    }
}

async fn redeem(token: &JoinToken, request: &[u8]) -> Result<v1::RedeemResponse, ApiError> {
    let broken = |reason: String| ApiError::new(ErrorCode::Stopping, reason);
    let connected = connect_unknown(&token.address, token.ca).await;
    let (stream, _node) = connected.map_err(|error| broken(error.to_string()))?;
    let endpoint = Endpoint::from_static("http://node");
    let channel = endpoint.connect_with_connector(Once(Some(TokioIo::new(stream)))).await;
    let channel = channel.map_err(|error| broken(error.to_string()))?;
    let (secret, request) = (token.secret().to_vec(), request.to_vec());
    let asked = v1::RedeemRequest { node_id: token.node_id, secret, request };
    let answer = JoinClient::new(channel).redeem(asked).await;
    answer.map(tonic::Response::into_inner).map_err(|status| ApiError::from_status(&status))
}

/// Asks until there is an answer.
async fn redeem_soon(token: &JoinToken) -> v1::RedeemResponse {
    let (request, end) = (request(), soon());
    loop {
        match redeem(token, &request).await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < end, "nobody gets in: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_hold_up_others_for_a_bounded_time() {
    let node = Node::start().await;
    let a_second = Duration::from_secs(1);
    let port = port(&node, Patience { handshake: a_second, call: a_second, connection: a_second }).await;
    let (token, _) = port.joining.make(Role::Learner, &BTreeSet::from([1]), HOUR).unwrap();
    let mut silent = Vec::new();
    for _ in 0..TURNS {
        let (mut stream, _node) = connect_unknown(&port.address, token.ca).await.unwrap();
        stream.write_all(GREETING).await.unwrap();
        stream.flush().await.unwrap();
        silent.push(stream);
    }
    // They wait behind these, and then never begin their handshakes.
    let mut mute = Vec::new();
    for _ in 0..=TURNS {
        mute.push(TcpStream::connect(&port.address).await.unwrap());
    }
    let answer = redeem_soon(&token).await;
    assert!(answer.certificate.contains("BEGIN CERTIFICATE"));
    drop((silent, mute));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_refused_where_its_id_was_added_in_another_way() {
    let node = Node::start().await;
    let port = port(&node, Patience::default()).await;
    let (token, _) = port.joining.make(Role::Learner, &BTreeSet::from([1]), HOUR).unwrap();
    let (next, _) = port.joining.make(Role::Learner, &BTreeSet::from([1]), HOUR).unwrap();
    assert_eq!((token.node_id, next.node_id), (2, 3));
    // Nobody answers there, so it is added and never catches up.
    let briefly = Instant::now() + Duration::from_secs(2);
    let added = node.consensus.add_learner(2, NodeInfo::at("127.0.0.1:1"), briefly).await;
    assert!(matches!(added, Err(MembershipError::Lagging { node: 2, .. })), "{added:?}");
    let asked = request();
    let refused = redeem(&token, &asked).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Exists, "{refused}");
    node.consensus.remove(2, soon()).await.unwrap();
    let refused = redeem(&token, &asked).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Exists, "who was removed comes back under no token: {refused}");
    // Another token is good, also once its node is a member, for the key that took it.
    let asked = request();
    redeem(&next, &asked).await.unwrap();
    let briefly = Instant::now() + Duration::from_secs(2);
    let added = node.consensus.add_learner(3, NodeInfo::at("127.0.0.1:2"), briefly).await;
    assert!(matches!(added, Err(MembershipError::Lagging { node: 3, .. })), "{added:?}");
    redeem(&next, &asked).await.unwrap();
}
