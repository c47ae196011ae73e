//! Faults on real processes, and the checks of what they did.
//!
//! [`kill`] ends nodes of a real cluster under load and checks the history that its writers saw. `src/bin/powercut.rs` is the tool that
//! cuts the power of a loop-mounted file system ([`disk`]) under one process; `tests/power_loss.rs` uses it on the log, and
//! `tests/full_disk.rs` fills the disk of one node. Partitions, pauses and
//! clocks come as nemeses of their own, with the same writers and checks.

pub mod disk;
pub mod kill;
pub mod watch;
