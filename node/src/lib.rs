//! `zyflowd`: one node of a ZyFlow cluster, where it touches the world.
//!
//! [`config`] is read once, [`run`] wires everything and stops it again. [`services`] translate between the wire and the
//! handles of consensus and tables; [`checkouts`] keeps the working copies on this machine, each of which sees the cluster
//! through a [`cluster::NodeCluster`]. [`cache`] keeps answers. [`webhook`] tells a webhook of conflicts, [`audit`] compares
//! digests with the other nodes. [`backup`] verifies and restores backups while no node runs. [`http`], [`metrics`] and [`telemetry`] show how it is doing.
//!
//! Nothing is decided here: not the order of changes (raft), not what a command does (machine), not what an edit means (spec).

pub mod audit;
pub mod backup;
pub mod cache;
pub mod checkouts;
pub mod cluster;
pub mod config;
pub mod http;
pub mod joining;
pub mod metrics;
mod replay;
mod retention;
pub mod run;
pub mod services;
pub mod stream;
pub mod telemetry;
mod touched;
pub mod webhook;
