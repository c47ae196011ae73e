//! The network under the peer protocol: byte streams to and from nodes whose identity is proved.
//!
//! [`Net`] is the seam for simulation. In production there is [`TlsNet`]: TCP, mutual TLS, identities from certificates. A
//! simulation brings simulated TCP and says itself who is at the other end; everything above, the tonic services included,
//! stays the same. What a peer may do with its stream is decided above, call by call (`network::gate`).

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};
use zyflow_crypto::{Acceptor, ConnectError, Connector, Identity, IdentityError, Role, identity_of};
use zyflow_storage::types::NodeId;

/// Handshakes under way at once: a burst of all nodes reconnecting fits, a flood doesn't get more than this.
const HANDSHAKES_MAX: usize = 64;
/// Connections past their handshake that the server has not taken yet.
const ACCEPTED_WAITING_MAX: usize = 16;
/// How long accepting rests after the system refused it (no file descriptors, no memory): it won't be better at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection that a peer opened, and who that peer is.
pub struct Inbound {
    /// The stream, past any handshake.
    pub io: Box<dyn Io>,
    /// Who opened it; proved, not claimed.
    pub peer: Identity,
}

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// By TLS.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Somebody else answers at that address.
    #[error("{address} is node {found}, not node {expected}: correct the address of node {expected} in the membership")]
    WrongNode {
        /// The address.
        address: String,
        /// Who was meant.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The certificate speaks for nobody.
    #[error("the certificate that {address} showed: {source}")]
    Identity {
        /// The address.
        address: String,
        /// Why it speaks for nobody.
        #[source]
        source: IdentityError,
    },
    /// By other means.
    #[error("connecting to {address}")]
    Io {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Listens and connects.
pub trait Net: Send + Sync + 'static {
    /// Connections from peers. Asked for once; dropping the stream ends the listening.
    fn incoming(&self) -> BoxStream<'static, Inbound>;
    /// A connection to exactly this node at `address`.
    fn connect(&self, node: NodeId, address: String) -> BoxFuture<'static, Result<Box<dyn Io>, NetError>>;
    /// The role that this node's certificate had when it was last connected to; `None` = not known.
    fn role(&self, _node: NodeId) -> Option<Role> {
        None
    }
}

/// TCP and mutual TLS.
pub struct TlsNet {
    listener: Mutex<Option<TcpListener>>,
    acceptor: Acceptor,
    connector: Connector,
    roles: Arc<Mutex<BTreeMap<NodeId, Role>>>,
}

impl TlsNet {
    /// Accepts on `listener`, which is bound already, and connects with `connector`.
    #[must_use]
    pub fn new(listener: TcpListener, acceptor: Acceptor, connector: Connector) -> Self {
        Self { listener: Mutex::new(Some(listener)), acceptor, connector, roles: Arc::default() }
    }
}

impl Net for TlsNet {
    fn incoming(&self) -> BoxStream<'static, Inbound> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (tx, rx) = mpsc::channel(ACCEPTED_WAITING_MAX);
        if let Some(listener) = listener {
            tokio::spawn(accept_all(listener, self.acceptor.clone(), tx));
        }
        ReceiverStream::new(rx).boxed()
    }

    fn connect(&self, node: NodeId, address: String) -> BoxFuture<'static, Result<Box<dyn Io>, NetError>> {
        let (connector, roles) = (self.connector.clone(), Arc::clone(&self.roles));
        Box::pin(async move {
            let stream = connector.connect(&address, None).await?;
            let chain = stream.get_ref().1.peer_certificates();
            let leaf =
                chain.and_then(|chain| chain.first()).expect("invariant: a TLS 1.3 server has shown a certificate");
            let found = identity_of(leaf).map_err(|source| NetError::Identity { address: address.clone(), source })?;
            if found.node_id != node {
                return Err(NetError::WrongNode { address, expected: node, found: found.node_id });
            }
            roles.lock().unwrap_or_else(PoisonError::into_inner).insert(node, found.role);
            let io: Box<dyn Io> = Box::new(stream);
            Ok(io)
        })
    }

    fn role(&self, node: NodeId) -> Option<Role> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// Owned by the stream of [`Net::incoming`]: ends with it.
async fn accept_all(listener: TcpListener, acceptor: Acceptor, tx: mpsc::Sender<Inbound>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let permit = Arc::clone(&handshakes).acquire_owned().await.expect("invariant: the semaphore is never closed");
        let connection = tokio::select! {
            () = tx.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((connection, _address)) => connection,
                Err(error) => {
                    warn!(%error, "accepting a connection on the peer port failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, tx) = (acceptor.clone(), tx.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match acceptor.accept(connection).await {
                Ok(accepted) => {
                    let inbound = Inbound { io: Box::new(accepted.stream), peer: accepted.peer };
                    if tx.send(inbound).await.is_err() {
                        debug!("a connection came while the peer port was closing");
                    }
                }
                Err(error) => warn!(%error, "refused a connection on the peer port"),
            }
        });
    }
}

/// A connection that ends when the node stops: the server's tasks outlive the server otherwise, and would answer for a node
/// that is gone.
pub(crate) struct Closing {
    inbound: Inbound,
    stopped: BoxFuture<'static, ()>,
    has_stopped: bool,
}

impl Closing {
    pub(crate) fn new(inbound: Inbound, mut stop: watch::Receiver<bool>) -> Self {
        let stopped = Box::pin(async move { crate::shared::stopped(&mut stop).await });
        Self { inbound, stopped, has_stopped: false }
    }
}

impl Connected for Closing {
    type ConnectInfo = Arc<Identity>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::new(self.inbound.peer.clone())
    }
}

impl AsyncRead for Closing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.has_stopped || self.stopped.as_mut().poll(cx).is_ready() {
            self.has_stopped = true;
            // The end of the stream.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inbound.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Closing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inbound.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inbound.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inbound.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inbound.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inbound.io.is_write_vectored()
    }
}
