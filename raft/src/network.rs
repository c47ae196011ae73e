//! What nodes say to each other: one tonic service over [`crate::net::Net`].
//!
//! ```text
//!            leader                                              follower
//!   openraft --> client::Link ==append, bidirectional, pipelined==> server::PeerService --> gate --> openraft
//!                     |        --vote, pre-vote, transfer, barrier->
//!                     |        ==snapshot: head, chunks===========>  --> receive --> file --> openraft
//!   proposer <-- server <======forward: commands of its clients====  proposer::forward
//! ```
//!
//! Three connections per direction and peer, so that a heartbeat never waits behind a megabyte of entries, nor entries
//! behind a snapshot ([`peers::Lane`]). openraft believes what it is told, so the [`gate`] holds every single call against
//! the caller's certificate before openraft hears of it.

pub(crate) mod client;
pub(crate) mod gate;
pub(crate) mod peers;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod wire;

/// The protocol as generated from `proto/raft.proto`.
#[expect(
    unused_qualifications,
    clippy::pedantic,
    clippy::as_conversions,
    reason = "generated; the .proto file is documented"
)]
pub(crate) mod proto {
    tonic::include_proto!("zyflow.raft.v1");
}
