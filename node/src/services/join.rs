//! The Join service, on a port of its own: certificates for nodes that have a token and nothing else.
//!
//! Whoever calls may be anybody. So: one small call, few connections at a time, none for long, and no word about which part of a token is
//! wrong.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::{error, info, warn};
use zyflow_api::ApiError;
use zyflow_api::v1::join_server::{Join, JoinServer};
use zyflow_api::v1::{self, ErrorCode};
use zyflow_crypto::join::AuthorityError;
use zyflow_crypto::{Acceptor, Lineage, key_file_text};
use zyflow_raft::Consensus;

use crate::checkouts::error_chain;
use crate::config::Config;
use crate::joining::{Joining, JoiningError};
use crate::services::members::Members;
use crate::stream::{ApiStream, next_connection};

/// Handshakes and calls at one time: a person lets in one machine after the other.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may stay.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(15);

/// How long a call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Largest request: a certificate request has half a KiB.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// A connection holds its turn until it is gone.
type JoinStream = ApiStream<Arc<OwnedSemaphorePermit>>;

/// The service.
pub struct JoinService {
    joining: Arc<Joining>,
    members: Members,
    config: Config,
    lineage: Lineage,
    files: Handle,
}

impl JoinService {
    /// Answers for this node; works on files where `files` says.
    #[must_use]
    pub fn new(joining: Arc<Joining>, consensus: Consensus, config: &Config, lineage: Lineage, files: Handle) -> Self {
        Self { joining, members: Members::new(config, consensus), config: config.clone(), lineage, files }
    }
}

/// What somebody without a certificate is told: what concerns this node's files and keys stays in its log.
fn told(error: &JoiningError) -> ApiError {
    match error {
        JoiningError::Unknown
        | JoiningError::Expired(_)
        | JoiningError::Used(_)
        | JoiningError::TooMany
        | JoiningError::Authority(AuthorityError::Request(_)) => joining_error(error),
        JoiningError::Authority(_) | JoiningError::Random(_) | JoiningError::File { .. } => {
            warn!(error = %error_chain(error), "a node that joins gets no answer");
            ApiError::new(ErrorCode::Precondition, "this node can't take the token now: see its log")
        }
    }
}

/// What an administrator is told.
pub(crate) fn joining_error(error: &JoiningError) -> ApiError {
    let code = match error {
        JoiningError::Unknown | JoiningError::Expired(_) | JoiningError::Used(_) => ErrorCode::Denied,
        JoiningError::TooMany => ErrorCode::Overloaded,
        JoiningError::Authority(_) | JoiningError::Random(_) | JoiningError::File { .. } => ErrorCode::Precondition,
    };
    ApiError::new(code, error.to_string())
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn redeem(&self, request: Request<v1::RedeemRequest>) -> Result<Response<v1::RedeemResponse>, Status> {
        let v1::RedeemRequest { node_id, secret, request } = request.into_inner();
        let (joining, ca, key_file) =
            (Arc::clone(&self.joining), self.config.tls.ca.clone(), self.config.node.key_file.clone());
        let redeemed = self.files.spawn_blocking(move || {
            let certificate = joining.redeem(node_id, &secret, &request).map_err(|error| told(&error))?;
            let unreadable = |what: &str, error: &dyn std::error::Error| {
                warn!(error = %error_chain(error), what, "a node that joins gets no answer");
                ApiError::new(ErrorCode::Precondition, format!("this node can't read its {what}: see its log"))
            };
            let authorities = std::fs::read_to_string(ca).map_err(|error| unreadable("CA certificates", &error))?;
            let data_key = key_file_text(&key_file).map_err(|error| unreadable("data key", &error))?;
            Ok::<_, ApiError>((certificate, authorities, data_key.to_string()))
        });
        let redeemed = redeemed.await.map_err(|error| ApiError::new(ErrorCode::NodeFailed, error.to_string()))?;
        let (certificate, authorities, data_key) = redeemed.inspect_err(|error| {
            warn!(node = node_id, %error, "a join token was refused");
        })?;
        info!(node = node_id, "a join token was used: a certificate was issued");
        Ok(Response::new(v1::RedeemResponse {
            certificate,
            authorities,
            data_key,
            cluster: self.config.node.cluster.clone(),
            lineage: self.lineage.to_string(),
            members: self.members.all(),
        }))
    }
}

async fn accept(listener: TcpListener, acceptor: Acceptor, tx: mpsc::Sender<std::io::Result<JoinStream>>) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Whoever comes when there are many waits in the kernel's queue.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let Some((connection, address)) = next_connection(&listener, &tx).await else { return };
        let (acceptor, tx) = (acceptor.clone(), tx.clone());
        tokio::spawn(async move {
            match acceptor.accept_unknown(connection).await {
                // A closed channel means that the server is stopping.
                Ok(stream) => drop(tx.send(Ok(JoinStream::new(stream, Arc::new(turn)))).await),
                Err(error) => warn!(%address, error = %error_chain(&error), "a node that joins was refused"),
            }
        });
    }
}

/// Serves the port until the node stops.
pub async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    service: JoinService,
    mut stopped: watch::Receiver<bool>,
) {
    let (tx, rx) = mpsc::channel(CONNECTIONS_MAX);
    tokio::spawn(accept(listener, acceptor, tx));
    let served = Server::builder()
        .timeout(CALL_DEADLINE)
        .max_connection_age(CONNECTION_AGE_MAX)
        .concurrency_limit_per_connection(1)
        .max_concurrent_streams(1)
        .add_service(JoinServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(ReceiverStream::new(rx).boxed(), async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await;
    if let Err(error) = served {
        error!(error = %error_chain(&error), "the join port ended badly");
    }
}
