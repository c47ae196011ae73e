//! Simulated TCP under the peer protocol. In place of a certificate, whoever connects says first who it is and whom it means.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};
use zyflow_crypto::{Identity, Role};
use zyflow_raft::NodeId;
use zyflow_raft::net::{Inbound, Io, Net, NetError};

use crate::facts::Facts;

/// The cluster of the simulation.
pub const CLUSTER: &str = "sim";
const PORT: u16 = 7000;
/// How long connecting may take, and saying who one is: a lost segment never comes again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that wait to be taken.
const ACCEPTED_WAITING_MAX: usize = 16;

/// The name of a node's host.
pub fn host_of(node: NodeId) -> String {
    format!("node-{node}")
}

/// One node's end of the network.
pub struct SimNet {
    own: NodeId,
    facts: Arc<Facts>,
    listener: Mutex<Option<TcpListener>>,
}

impl SimNet {
    /// Listens already.
    pub async fn bind(own: NodeId, facts: Arc<Facts>) -> io::Result<Self> {
        let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
        Ok(Self { own, facts, listener: Mutex::new(Some(listener)) })
    }
}

impl Net for SimNet {
    fn incoming(&self) -> BoxStream<'static, Inbound> {
        let listener = self.listener.lock().expect("invariant: one thread").take();
        let (tx, rx) = mpsc::channel(ACCEPTED_WAITING_MAX);
        if let Some(listener) = listener {
            tokio::spawn(accept_all(self.own, listener, tx));
        }
        futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|inbound| (inbound, rx)) }).boxed()
    }

    fn connect(&self, node: NodeId, address: String) -> BoxFuture<'static, Result<Box<dyn Io>, NetError>> {
        let (own, facts) = (self.own, Arc::clone(&self.facts));
        Box::pin(async move {
            if facts.connects(own) {
                // The run is over with this step, and the step shall end.
                std::future::pending::<()>().await;
            }
            let connecting = async {
                let mut stream = TcpStream::connect((host_of(node), PORT)).await?;
                stream.write_u64(own).await?;
                stream.write_u64(node).await?;
                Ok(stream)
            };
            let connected = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|late| Err(late.into()));
            let io: Box<dyn Io> = Box::new(connected.map_err(|source| NetError::Io { address, source })?);
            Ok(io)
        })
    }
}

async fn accept_all(own: NodeId, listener: TcpListener, tx: mpsc::Sender<Inbound>) {
    loop {
        let (mut stream, _address) = tokio::select! {
            biased;
            () = tx.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // The host stops.
                Err(_) => return,
            },
        };
        let tx = tx.clone();
        tokio::spawn(async move {
            let greeting = async { io::Result::Ok((stream.read_u64().await?, stream.read_u64().await?)) };
            if let Ok(Ok((node_id, meant))) = timeout(CONNECT_TIMEOUT, greeting).await {
                assert_eq!(meant, own, "names of hosts lead to the right hosts");
                let peer = Identity { cluster: CLUSTER.to_owned(), role: Role::Voter, node_id };
                // A node that stops takes no more connections.
                drop(tx.send(Inbound { io: Box::new(stream), peer }).await);
            }
        });
    }
}
