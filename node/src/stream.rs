//! A connection past its TLS handshake, with what is known of it: on the API port, who is at the other end.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use zyflow_crypto::Identity;

/// Pause after a connection that can't be accepted: what is missing, descriptors for one, may be there again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The next connection of a port, as long as somebody takes them.
pub(crate) async fn next_connection<T>(
    listener: &TcpListener,
    taken_by: &mpsc::Sender<T>,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = taken_by.closed() => return None,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connection, and what its requests carry along.
pub struct ApiStream<I = Caller> {
    inner: TlsStream<TcpStream>,
    info: I,
    gate: Option<Gate>,
}

/// Closes the connections of a node that was removed, also those that it opened before.
struct Gate {
    node: u64,
    removed: watch::Receiver<BTreeSet<u64>>,
}

impl Gate {
    fn check(&self) -> io::Result<()> {
        if self.removed.borrow().contains(&self.node) {
            let reason = format!("node {} was removed from the cluster", self.node);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok(())
    }
}

/// Who is at the other end of an API connection; in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct Caller(pub Identity);

impl<I> ApiStream<I> {
    /// A connection of which `info` is known.
    #[must_use]
    pub fn new(inner: TlsStream<TcpStream>, info: I) -> Self {
        Self { inner, info, gate: None }
    }
}

impl ApiStream {
    /// A connection of somebody who showed a certificate. A node's is closed once that node is removed.
    ///
    /// # Errors
    /// It was removed already.
    pub fn of(
        inner: TlsStream<TcpStream>,
        peer: Identity,
        removed: watch::Receiver<BTreeSet<u64>>,
    ) -> io::Result<Self> {
        let gate = peer.role.is_node().then_some(Gate { node: peer.node_id, removed });
        gate.iter().try_for_each(Gate::check)?;
        Ok(Self { inner, info: Caller(peer), gate })
    }
}

impl<I: Clone + Send + Sync + 'static> Connected for ApiStream<I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

impl<I: Unpin> AsyncRead for ApiStream<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Err(error) = self.gate.iter().try_for_each(Gate::check) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<I: Unpin> AsyncWrite for ApiStream<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
