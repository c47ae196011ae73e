//! Faults on real processes, and the checks of what they did.
//!
//! [`kill`] ends nodes of a real cluster under load and checks the history that its writers saw. `src/bin/powercut.rs` is the tool that
//! cuts the power of a loop-mounted file system under one process; `tests/power_loss.rs` uses it on the log. Partitions, pauses, clocks and
//! disks come as nemeses of their own, with the same writers and checks.

pub mod kill;
