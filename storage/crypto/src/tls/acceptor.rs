//! The accepting side: a TCP connection in, a stream and the caller's identity out.
//!
//! Own, since a server library's acceptor can't be reloaded. Each accept takes one snapshot of the material: a reload holds for
//! the next accept and leaves established connections alone. The caller spawns accepts, so that one slow handshake never
//! holds up another; the deadline ends those that never finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::TlsMaterial;
use crate::identity::{Identity, IdentityError, identity_of};

/// How long a caller may take for its handshake: 5 s. Two round trips and two signatures take milliseconds; a loaded machine
/// over a bad link takes a second; whoever takes longer holds a socket for nothing.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Why a caller was turned away. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The connection was gone before the handshake.
    #[error("a connection ended before its handshake: {source}")]
    Socket {
        /// What the system said.
        source: io::Error,
    },
    /// Silent or too slow; also what a port scan looks like.
    #[error(
        "{peer} did not finish its TLS handshake within {deadline:?}: if it is a ZyFlow process, look at its log and the network"
    )]
    Deadline {
        /// The caller's address.
        peer: SocketAddr,
        /// How long it had.
        deadline: Duration,
    },
    /// No certificate, one of another CA, an expired one, an old TLS version, or no TLS at all.
    #[error(
        "the TLS handshake with {peer} failed: {source}; the caller needs TLS 1.3 and an unexpired certificate of this cluster's CA"
    )]
    Handshake {
        /// The caller's address.
        peer: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// Of our CA, but speaks for nobody.
    #[error("the certificate that {peer} showed: {source}")]
    Identity {
        /// The caller's address.
        peer: SocketAddr,
        /// Why it speaks for nobody.
        source: IdentityError,
    },
    /// Of our CA, but of another cluster.
    #[error(
        "{peer} belongs to another cluster: it is {identity}, this is {cluster:?}; correct the address in its configuration"
    )]
    WrongCluster {
        /// The caller's address.
        peer: SocketAddr,
        /// Who it is.
        identity: Identity,
        /// This cluster.
        cluster: String,
    },
}

/// New material that a running acceptor doesn't take.
#[derive(Debug, thiserror::Error)]
#[error(
    "the new certificate is for {found}, but this process runs as {running}: cluster and id never change while it runs; put \
     the right files in place and reload, the old certificate stays in use until then"
)]
pub struct ReloadError {
    /// Whom the new files speak for.
    pub found: Identity,
    /// Whom the running process speaks for.
    pub running: Identity,
}

/// An established connection and who is at its other end.
#[derive(Debug)]
pub struct Accepted {
    /// The stream, past its handshake.
    pub stream: TlsStream<TcpStream>,
    /// The holder of the certificate that the caller proved to have; of this cluster.
    pub peer: Identity,
}

/// Accepts TLS connections of this cluster's members and clients. Clones share the material, reloads included.
#[derive(Debug, Clone)]
pub struct Acceptor {
    material: Arc<ArcSwap<TlsMaterial>>,
}

impl Acceptor {
    /// An acceptor that shows this material's certificate.
    #[must_use]
    pub fn new(material: TlsMaterial) -> Acceptor {
        Acceptor { material: Arc::new(ArcSwap::from_pointee(material)) }
    }

    /// Uses new material from the next accept on. The role may change (a learner that became a voter), nothing else.
    ///
    /// # Errors
    /// The new material speaks for another cluster or id; the old one stays.
    pub fn reload(&self, material: TlsMaterial) -> Result<(), ReloadError> {
        check_same_holder(self.material.load().identity(), material.identity())?;
        self.material.store(Arc::new(material));
        Ok(())
    }

    /// What it shows now.
    pub(super) fn material(&self) -> Arc<TlsMaterial> {
        self.material.load_full()
    }

    /// Performs the handshake and tells who called. Dropping the future closes the connection.
    ///
    /// # Errors
    /// See [`AcceptError`]; none concerns any other connection.
    pub async fn accept(&self, connection: TcpStream) -> Result<Accepted, AcceptError> {
        self.accept_within(connection, HANDSHAKE_DEADLINE).await
    }

    pub(super) async fn accept_within(
        &self,
        connection: TcpStream,
        deadline: Duration,
    ) -> Result<Accepted, AcceptError> {
        let material = self.material.load_full();
        let peer = connection.peer_addr().map_err(|source| AcceptError::Socket { source })?;
        connection.set_nodelay(true).map_err(|source| AcceptError::Socket { source })?;
        let handshake = TlsAcceptor::from(material.server_config()).accept(connection);
        let stream = timeout(deadline, handshake)
            .await
            .map_err(|_elapsed| AcceptError::Deadline { peer, deadline })?
            .map_err(|source| AcceptError::Handshake { peer, source })?;
        let chain = stream.get_ref().1.peer_certificates();
        let leaf =
            chain.and_then(<[_]>::first).expect("invariant: the verifier requires a certificate of every client");
        let identity = identity_of(leaf).map_err(|source| AcceptError::Identity { peer, source })?;
        if identity.cluster != material.identity().cluster {
            let cluster = material.identity().cluster.clone();
            return Err(AcceptError::WrongCluster { peer, identity, cluster });
        }
        Ok(Accepted { stream, peer: identity })
    }
}

pub(super) fn check_same_holder(running: &Identity, found: &Identity) -> Result<(), ReloadError> {
    if (&running.cluster, running.node_id) == (&found.cluster, found.node_id) {
        Ok(())
    } else {
        Err(ReloadError { found: found.clone(), running: running.clone() })
    }
}
