//! Clusters of real nodes in one process: real log, real tables, real TLS on loopback. Nothing sleeps; everything waits for
//! a condition, with a deadline.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a failing test should panic, and names only what it wants"
)]

#[path = "cluster/support/mod.rs"]
mod support;

#[path = "cluster/audit.rs"]
mod audit;
#[path = "cluster/failover.rs"]
mod failover;
#[path = "cluster/gate.rs"]
mod gate;
#[path = "cluster/membership.rs"]
mod membership;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/obstacles.rs"]
mod obstacles;
#[path = "cluster/propose.rs"]
mod propose;
#[path = "cluster/read.rs"]
mod read;
#[path = "cluster/snapshot.rs"]
mod snapshot;
