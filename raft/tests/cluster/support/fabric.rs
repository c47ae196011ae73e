//! The links between nodes: each direction can be cut and slowed. TLS stays inside.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use zyflow_crypto::Role;
use zyflow_raft::NodeId;
use zyflow_raft::net::{Inbound, Io, Net, NetError, TlsNet};

/// Bytes in a link that nobody reads.
const LINK_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Default)]
struct Link {
    is_cut: bool,
    delay: Duration,
}

type Links = BTreeMap<(NodeId, NodeId), watch::Sender<Link>>;

/// All links. A link is named by who connects and whom it reaches; it carries both directions of that connection.
#[derive(Clone, Default)]
pub struct Fabric {
    links: Arc<Mutex<Links>>,
}

impl Fabric {
    pub fn net(&self, own: NodeId, inner: TlsNet) -> FabricNet {
        FabricNet { own, inner, fabric: self.clone() }
    }

    /// Cuts every link to and from a node: connections break, new ones are refused.
    pub fn isolate(&self, node: NodeId, others: &[NodeId]) {
        self.both(node, others, |link| link.is_cut = true);
    }

    pub fn heal(&self, node: NodeId, others: &[NodeId]) {
        self.both(node, others, |link| link.is_cut = false);
    }

    /// Slows what `from` and `to` say to each other on connections that `from` opened.
    pub fn slow(&self, from: NodeId, to: NodeId, delay: Duration) {
        self.link(from, to).send_modify(|link| link.delay = delay);
    }

    fn both(&self, node: NodeId, others: &[NodeId], change: impl Fn(&mut Link)) {
        for other in others.iter().filter(|other| **other != node) {
            self.link(node, *other).send_modify(&change);
            self.link(*other, node).send_modify(&change);
        }
    }

    fn link(&self, from: NodeId, to: NodeId) -> watch::Sender<Link> {
        let mut links = self.links.lock().unwrap();
        links.entry((from, to)).or_insert_with(|| watch::channel(Link::default()).0).clone()
    }
}

/// TLS through the fabric.
pub struct FabricNet {
    own: NodeId,
    inner: TlsNet,
    fabric: Fabric,
}

impl Net for FabricNet {
    fn incoming(&self) -> BoxStream<'static, Inbound> {
        self.inner.incoming()
    }

    fn role(&self, node: NodeId) -> Option<Role> {
        self.inner.role(node)
    }

    fn connect(&self, node: NodeId, address: String) -> BoxFuture<'static, Result<Box<dyn Io>, NetError>> {
        let link = self.fabric.link(self.own, node).subscribe();
        if link.borrow().is_cut {
            let source = io::Error::new(io::ErrorKind::HostUnreachable, "the link is cut");
            return Box::pin(async { Err(NetError::Io { address, source }) });
        }
        let connecting = self.inner.connect(node, address);
        Box::pin(async move {
            let remote = connecting.await?;
            let (near, far) = tokio::io::duplex(LINK_BYTES);
            let (far_read, far_write) = tokio::io::split(far);
            let (remote_read, remote_write) = tokio::io::split(remote);
            tokio::spawn(carry(far_read, remote_write, link.clone()));
            tokio::spawn(carry(remote_read, far_write, link));
            let near: Box<dyn Io> = Box::new(near);
            Ok(near)
        })
    }
}

/// One direction, in order, each piece as late as the link's delay says. Ends when either side does, or when the link is cut.
async fn carry(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    link: watch::Receiver<Link>,
) {
    let (tx, mut rx) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let mut cut = link.clone();
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut buffer).await {
            let at = Instant::now() + link.borrow().delay;
            if count == 0 || tx.send((at, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        drop(tx);
    };
    let writing = async {
        while let Some((at, bytes)) = rx.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // Nothing more will come; the other end may be gone already.
        drop(to.shutdown().await);
    };
    tokio::select! {
        _ = cut.wait_for(|link| link.is_cut) => {}
        ((), ()) = async { tokio::join!(reading, writing) } => {}
    }
}
