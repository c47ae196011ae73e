//! The tables against a model in memory, against crashes, and against damage.
#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

pub(crate) mod harness;

mod concurrent;
mod crash;
mod damage;
mod limits;
mod model;
