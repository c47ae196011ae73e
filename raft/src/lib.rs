//! The order in which the state of ZyFlow changes: one replicated log, agreed on by a quorum.
//!
//! This crate hides openraft from everybody else: besides it only `storage::log` knows that there is one. Read it in this
//! order.
//!
//! ```text
//!   propose                         read_barrier                    peers
//!      |                                |                             |  mutual TLS: [`net`]
//!      v                                v                             v
//!   proposer: gathers, seals       reader: ReadIndex,           network::server: gate, then ...
//!      |       or forwards              one round for many           |
//!      v                                v                             v
//!   +--------------------------------- openraft ---------------------------------+
//!   |   log (storage::log)          network::client            applier           |
//!   +-----------------------------------------------------------------------------+
//!                                                                   |  opens, decodes
//!                                                                   v
//!                                                            storage::tables --> outcomes --> whoever proposed
//! ```
//!
//! - [`Consensus`] is the handle; [`ConsensusConfig`] how it takes part.
//! - `proposer` makes few, large entries of many commands, on the leader; elsewhere it forwards them to the leader.
//! - `reader` lets any node serve linearizable reads.
//! - `network` is the protocol between nodes and the gate that holds every call against its caller's certificate.
//! - `applier` feeds committed entries to the tables.
//! - `audit` compares digests with the other nodes at one revision.
//!
//! Made for a runtime of one thread: nothing here blocks it but [`Tables::apply`](zyflow_storage::tables::Tables::apply),
//! which works in memory; snapshots are handled on threads of their own. Several threads work too, and make smaller batches.
//!
//! Deliberately not here: what a command means (machine), who may propose it, and what is durable when (storage).

mod applier;
mod audit;
mod clock;
mod config;
mod consensus;
mod error;
mod fatal;
pub mod log;
mod membership;
mod metrics;
pub mod net;
mod network;
mod proposer;
mod reader;
mod shared;
mod status;

pub use audit::{Verdict, judge};
pub use clock::{CLOCK_AHEAD_MAX, Clock, SystemClock};
pub use config::{
    APPEND_ENTRIES_MAX, BACKLOG_OPS_MAX, ConsensusConfig, ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, EMPTY_VOTES_MAX,
    ENTRIES_KEPT, HEARTBEAT, SNAPSHOT_ENTRIES, SNAPSHOT_TIMEOUT,
};
pub use consensus::{Consensus, Consistency};
pub use error::{Fate, MembershipError, ProposeError, Reach, ReadError, StartError};
pub use membership::PROMOTE_LAG_MAX;
pub use metrics::Counts;
pub use proposer::{COMMANDS_PER_ENTRY_MAX, WRITES_IN_FLIGHT};
pub use status::{Role, Status};
pub use zyflow_storage::types::{NodeId, NodeInfo};
