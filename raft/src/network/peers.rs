//! Connections to the other nodes, when each was last heard, and what its clock showed.
//!
//! A connection is made when it is first used, kept, and made again after it broke; between attempts openraft and the
//! forwarder wait. HTTP/2 keep-alive finds out within seconds when a peer is gone without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tracing::error;
use zyflow_storage::types::NodeId;

use super::gate;
use super::proto::peer_client::PeerClient;
use super::wire::MESSAGE_BYTES_MAX;
use crate::clock::{Clock, PeerClocks};
use crate::error::Reach;
use crate::metrics::Counters;
use crate::net::Net;

/// How often a silent connection is asked whether it lives.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long it may take to say so.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Flow control of one stream: several full append messages, so that the pipeline is never the window's.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow control of one connection: several such streams.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A voter counts as reachable while it was heard this lately: longer than the longest election timeout, in which every
/// campaigning node calls every other.
const REACHABLE_AGE_MAX: Duration = Duration::from_secs(2);

/// Connections that don't wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Entries and forwarded commands.
    Bulk,
    /// Heartbeats, votes, barriers: small, and late is as bad as lost.
    Pulse,
    /// Snapshots.
    Snapshot,
}

/// One per node.
pub(crate) struct Peers {
    pub(crate) own: NodeId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) clocks: PeerClocks,
    pub(crate) counters: Arc<Counters>,
    net: Arc<dyn Net>,
    channels: Mutex<BTreeMap<(NodeId, Lane), (String, Channel)>>,
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    /// Where the members are, by the newest membership: openraft keeps calling a member of long standing where it used to be.
    addresses: Mutex<BTreeMap<NodeId, String>>,
    /// Why this node serves nothing any more though its process stays, see [`crate::shared::Shared::failure`].
    out_of_service: watch::Sender<Option<Arc<str>>>,
}

impl Peers {
    pub(crate) fn new(
        own: NodeId,
        net: Arc<dyn Net>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        out_of_service: watch::Sender<Option<Arc<str>>>,
    ) -> Self {
        Self {
            own,
            clock,
            clocks: PeerClocks::default(),
            counters,
            net,
            channels: Mutex::new(BTreeMap::new()),
            heard: Mutex::new(BTreeMap::new()),
            addresses: Mutex::new(BTreeMap::new()),
            out_of_service,
        }
    }

    /// Notes where the members are now.
    pub(crate) fn learn_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// A client of that node, at its newest address, else at this one; cheap. An address that changed makes a new connection.
    pub(crate) fn client(&self, node: NodeId, address: &str, lane: Lane) -> PeerClient<Channel> {
        let newest = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned();
        let address = newest.as_deref().unwrap_or(address);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = channels.get(&(node, lane)).filter(|(at, _)| at == address).map(|(_, channel)| channel.clone());
        let channel = known.unwrap_or_else(|| {
            let channel = connect_lazily(Arc::clone(&self.net), node, address.to_owned());
            channels.insert((node, lane), (address.to_owned(), channel.clone()));
            channel
        });
        PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Notes that a node said something.
    pub(crate) fn hear(&self, node: NodeId) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Instant::now());
    }

    /// Notes that a node said something and what its clock showed.
    pub(crate) fn hear_clock(&self, node: NodeId, clock_ms: u64) {
        self.hear(node);
        self.clocks.hear(node, clock_ms, Instant::now());
    }

    /// How long ago a node was heard.
    pub(crate) fn silence(&self, node: NodeId) -> Option<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&node).map(Instant::elapsed)
    }

    /// Which of the voters were heard lately. This node hears itself.
    pub(crate) fn reach(&self, voters: BTreeSet<NodeId>) -> Reach {
        let recent = |voter: &NodeId| {
            *voter == self.own || self.silence(*voter).is_some_and(|silence| silence <= REACHABLE_AGE_MAX)
        };
        Reach { reachable: voters.iter().copied().filter(recent).collect(), voters }
    }

    /// Looks at what a peer refused a call with: it may say that this node was removed. Nobody else tells it, since its leader stops
    /// calling it.
    pub(crate) fn note_refusal(&self, peer: NodeId, status: &Status) {
        if !gate::says_removed(status) {
            return;
        }
        let is_news = self.out_of_service.send_if_modified(|reason| {
            let is_news = reason.is_none();
            if is_news {
                let said =
                    format!("it was removed from the cluster, says node {peer}; stop it, its id is never used again");
                *reason = Some(said.into());
            }
            is_news
        });
        if is_news {
            error!(peer, "this node was removed from the cluster and serves nothing any more: stop it");
        }
    }

    /// The role that this node's certificate had when it was last connected to.
    pub(crate) fn role(&self, node: NodeId) -> Option<zyflow_crypto::Role> {
        self.net.role(node)
    }

    /// Milliseconds since 1970 on this node's wall clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

/// The URI is never resolved: the connector knows the address. It only becomes the `:authority` of requests.
fn connect_lazily(net: Arc<dyn Net>, node: NodeId, address: String) -> Channel {
    Endpoint::from_static("http://node.zyflow.internal")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connecting = net.connect(node, address.clone());
            async move { connecting.await.map(TokioIo::new) }
        }))
}
