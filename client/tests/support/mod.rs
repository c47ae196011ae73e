//! Scripted nodes over real mutual TLS, and a client of them.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, Router};
use zyflow_client::{Client, Profile};
use zyflow_crypto::{Acceptor, TlsFiles, TlsMaterial};

/// Certificates of a cluster called `test`, of its node 1 and of a client.
pub fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../deploy/certificates.sh");
    let made =
        Command::new("sh").arg(script).arg(dir.path()).args(["test", "ca", "node", "1", "client", "ann"]).output();
    assert!(made.unwrap().status.success());
    dir
}

/// A client of these endpoints.
pub fn client(dir: &Path, endpoints: Vec<String>) -> Client {
    let (ca, cert, key) = (dir.join("ca.pem"), dir.join("client-ann.pem"), dir.join("client-ann.key"));
    Client::new(&Profile { cluster: "test".to_owned(), endpoints, ca, cert, key }).unwrap()
}

/// Serves on a free port and gives its address.
pub async fn serve(dir: &Path, router: Router) -> String {
    let files = TlsFiles { ca: dir.join("ca.pem"), cert: dir.join("node-1.pem"), key: dir.join("node-1.key") };
    let acceptor = Acceptor::new(TlsMaterial::load(&files, Some("test")).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tx, rx) = mpsc::channel::<io::Result<Connection>>(16);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // A caller of another cluster is refused here, and the next one is waited for.
            if let Ok(accepted) = acceptor.accept(connection).await {
                drop(tx.send(Ok(Connection(accepted.stream))).await);
            }
        }
    });
    tokio::spawn(router.serve_with_incoming(ReceiverStream::new(rx)));
    address
}

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
