//! What needs more than one crate: harness, end-to-end tests, simulation. The tests stand beside this file and in `e2e/`.
