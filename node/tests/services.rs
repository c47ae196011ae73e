//! Services of one real node in one process: real log, real tables, real TLS on loopback. Nothing sleeps; everything waits for a condition,
//! with a deadline.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

#[path = "services/support.rs"]
mod support;

#[path = "services/join_port.rs"]
mod join_port;
#[path = "services/out_of_service.rs"]
mod out_of_service;
