//! The tables against a model in memory, against crashes, and against damage.

pub(crate) mod harness;

mod concurrent;
mod crash;
mod damage;
mod horizon;
mod limits;
mod model;
mod past;
