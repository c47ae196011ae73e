//! The replicated state machine of ZyFlow: what the state is and how a command changes it.
//!
//! Read it in this order. [`id`] names positions in the log and the records born there. [`record`] is what the state
//! consists of: projects, changes (one `tasks.md` each), blocks, conflicts. [`command`] is what can be asked, [`event`] is
//! what a command did as a fact, [`outcome`] is what the proposer is told. [`view`] is all that the machine may see of the
//! state; a node answers it from memory and SQLite, a test from a `BTreeMap`. [`machine`] applies batches: decide over a
//! view, [`evolve`] into row changes, sessions for exactly-once, cluster time, digest.
//!
//! Beside them: [`order_key`] places blocks between blocks, [`digest`] sums up the state, [`mod@format`] gives everything that is
//! stored its bytes, [`limits`] names what is refused as too much, and [`map_view`] is the state of tests.
//!
//! This crate does no IO, reads no clock, draws no randomness and knows no text algorithm: the proposer merges, the machine
//! compares revisions. The same batches over the same view give the same rows on every node, whatever its speed, platform
//! or history of restarts; `clippy.toml` beside this crate bans what would break that.

pub mod command;
mod decide;
pub mod digest;
pub mod event;
pub mod evolve;
pub mod format;
pub mod id;
pub mod limits;
pub mod machine;
pub mod map_view;
pub mod order_key;
pub mod outcome;
pub mod record;
mod scratch;
pub mod session;
pub mod view;

pub use digest::Digest;
pub use machine::{Effects, Machine, Saved};
pub use map_view::MapView;
