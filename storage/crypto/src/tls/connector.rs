//! The connecting side: an address in, a stream to the node that was meant out.
//!
//! The CA vouches for many certificates, those of agents and clients too. So a connection is refused unless the server is a
//! node (voter or learner) of this cluster, and, where the caller knows whom it calls, exactly that node.
//!
//! In TLS 1.3 the client finishes first: a server that refuses *our* certificate says so on the first read, not here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::acceptor::{ReloadError, check_same_holder};
use super::{TlsMaterial, server_name};
use crate::identity::{Identity, IdentityError, Role, identity_of};

/// How long reaching a node may take, TCP and TLS together: 5 s. A lost first packet is repeated after 1 s and 3 s; a node
/// that needs longer is as good as down, and the caller has others to try.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens, no route, or no such name. May go away: retry, or try another node.
    #[error("cannot reach {address}: {source}; check that the node runs and that the address is right")]
    Tcp {
        /// The address as given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time. May go away: retry, or try another node.
    #[error(
        "{address} did not answer within {deadline:?}: check that the node runs and that no firewall drops the packets"
    )]
    Deadline {
        /// The address as given.
        address: String,
        /// How long it had.
        deadline: Duration,
    },
    /// Not our CA, expired, no TLS 1.3, or no TLS at all.
    #[error(
        "the TLS handshake with {address} failed: {source}; check that the address is a ZyFlow node of this cluster, that both \
         sides have certificates of the same CA, and that none has expired"
    )]
    Handshake {
        /// The address as given.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Of our CA, but speaks for nobody.
    #[error("the certificate that {address} showed: {source}")]
    Identity {
        /// The address as given.
        address: String,
        /// Why it speaks for nobody.
        source: IdentityError,
    },
    /// Of our CA, but of another cluster.
    #[error(
        "{address} belongs to another cluster: it is {identity}, expected {cluster:?}; correct the address in the configuration"
    )]
    WrongCluster {
        /// The address as given.
        address: String,
        /// Who answered.
        identity: Identity,
        /// This cluster.
        cluster: String,
    },
    /// Of this cluster, but nobody who serves: somebody may be posing as a node.
    #[error(
        "{address} is no node: it showed the certificate of {identity}; find out what listens there before you use it again"
    )]
    NotANode {
        /// The address as given.
        address: String,
        /// Who answered.
        identity: Identity,
    },
    /// A node of this cluster, but not the one that was meant.
    #[error(
        "{address} is {identity}, not {role} {node_id}: correct that node's address in the membership (`zyflow cluster status` \
         shows it), or its certificate"
    )]
    WrongNode {
        /// The address as given.
        address: String,
        /// Who answered.
        identity: Identity,
        /// The role that was meant.
        role: Role,
        /// The node that was meant.
        node_id: u64,
    },
}

/// Connects to nodes of this cluster. Clones share the material, reloads included.
#[derive(Debug, Clone)]
pub struct Connector {
    material: Arc<ArcSwap<TlsMaterial>>,
}

impl Connector {
    /// A connector that shows this material's certificate.
    #[must_use]
    pub fn new(material: TlsMaterial) -> Connector {
        Connector { material: Arc::new(ArcSwap::from_pointee(material)) }
    }

    /// Uses new material from the next connect on. The role may change (a learner that became a voter), nothing else.
    ///
    /// # Errors
    /// The new material speaks for another cluster or id; the old one stays.
    pub fn reload(&self, material: TlsMaterial) -> Result<(), ReloadError> {
        check_same_holder(self.material.load().identity(), material.identity())?;
        self.material.store(Arc::new(material));
        Ok(())
    }

    /// Connects to `address` (`host:port`), without Nagle's delay, and makes sure of who answers: a node of this cluster,
    /// and with `expect` the one with exactly that role and id.
    ///
    /// # Errors
    /// See [`ConnectError`]. [`ConnectError::Tcp`] and [`ConnectError::Deadline`] may go away by themselves; the others are
    /// wrong files or addresses.
    pub async fn connect(
        &self,
        address: &str,
        expect: Option<(Role, u64)>,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        self.connect_within(address, expect, CONNECT_DEADLINE).await
    }

    pub(super) async fn connect_within(
        &self,
        address: &str,
        expect: Option<(Role, u64)>,
        deadline: Duration,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let material = self.material.load_full();
        let (stream, identity) = handshake(address, material.client_config(), deadline).await?;
        check_server(address, identity, &material.identity().cluster, expect)?;
        Ok(stream)
    }
}

/// Connects, and tells who the server's certificate speaks for.
pub(super) async fn handshake(
    address: &str,
    config: Arc<ClientConfig>,
    deadline: Duration,
) -> Result<(TlsStream<TcpStream>, Identity), ConnectError> {
    let at = || address.to_owned();
    let connecting = async {
        let tcp_error = |source| ConnectError::Tcp { address: at(), source };
        let connection = TcpStream::connect(address).await.map_err(tcp_error)?;
        connection.set_nodelay(true).map_err(tcp_error)?;
        let handshake = TlsConnector::from(config).connect(server_name(), connection);
        handshake.await.map_err(|source| ConnectError::Handshake { address: at(), source })
    };
    let stream = timeout(deadline, connecting)
        .await
        .map_err(|_elapsed| ConnectError::Deadline { address: at(), deadline })??;
    let chain = stream.get_ref().1.peer_certificates();
    let leaf = chain.and_then(<[_]>::first).expect("invariant: a TLS 1.3 server has shown a certificate");
    let identity = identity_of(leaf).map_err(|source| ConnectError::Identity { address: at(), source })?;
    Ok((stream, identity))
}

pub(super) fn check_server(
    address: &str,
    identity: Identity,
    cluster: &str,
    expect: Option<(Role, u64)>,
) -> Result<(), ConnectError> {
    let address = address.to_owned();
    if identity.cluster != cluster {
        return Err(ConnectError::WrongCluster { address, identity, cluster: cluster.to_owned() });
    }
    if !identity.role.is_node() {
        return Err(ConnectError::NotANode { address, identity });
    }
    match expect {
        Some((role, node_id)) if (role, node_id) != (identity.role, identity.node_id) => {
            Err(ConnectError::WrongNode { address, identity, role, node_id })
        }
        Some(_) | None => Ok(()),
    }
}
