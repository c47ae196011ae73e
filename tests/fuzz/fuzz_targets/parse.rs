//! The body `parse` over what libFuzzer finds: any bytes as a file.

#![no_main]

#[expect(dead_code, reason = "each target uses one body")]
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::parse(data));
