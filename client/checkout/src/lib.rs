//! A working copy on disk: keeps the synced files of one folder in agreement with the cluster, and never loses a byte that a user
//! wrote. Used by the node and by the light agent alike.
//!
//! Read it in this order. [`plan`] is the heart, a pure function: which text did the writer start from, what did they change, what
//! follows. [`fields`] adds what the change of a text means for runtime fields. [`base`] is what it builds on and what survives a restart. [`scan`] looks, [`mod@write`] replaces, [`git`] says when to keep
//! still, [`watch`] hints when to look. [`engine`] runs them: one thread per checkout, one small state machine per file. Outside
//! stand [`Cluster`], what is needed of the cluster, and [`Handle`], what others may ask.
//!
//! ```text
//!   save ──▶ watch: a hint ──▶ scan ──▶ plan ──▶ propose ──▶ (cluster) ──▶ applied here ──▶ plan ──▶ write ──▶ base moves
//!                                 ▲                                                            │
//!                                 └────────────── what came out of the swap ◀──────────────────┘
//! ```
//!
//! This crate knows no text algorithm (`zyflow-spec`) and no rule of the state machine (`zyflow-machine`); it doesn't parse, merge
//! or decide who wins. It never commits, stashes or rebases, never writes outside its checkout but into its own folders, and never
//! trusts a clock or an event: digests decide.

#![cfg_attr(
    test,
    expect(
        unused_qualifications,
        clippy::duration_suboptimal_units,
        clippy::format_collect,
        clippy::format_push_string,
        clippy::needless_pass_by_value,
        clippy::type_complexity,
        clippy::wildcard_enum_match_arm,
        reason = "tests say what they mean in the shortest way"
    )
)]

pub mod base;
pub mod beneath;
mod cluster;
mod config;
pub mod engine;
pub mod fields;
pub mod git;
pub mod globs;
mod path;
pub mod plan;
pub mod scan;
mod status;
#[cfg(test)]
mod testing;
mod text;
pub mod watch;
pub mod write;
mod writers;

pub use base::{SealError, StateSeal};
pub use cluster::{Cluster, ClusterDocument, ClusterError, Touched, Undone};
pub use config::{Config, Timing, WritePolicy};
pub use engine::{Checkout, Error, Handle};
pub use path::{FilePath, PATH_BYTES_MAX, PathError};
pub use plan::Take;
pub use status::{CheckoutStatus, FileState, FileStatus, Offline};
pub use text::KnownText;
