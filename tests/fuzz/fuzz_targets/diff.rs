//! The body `diff` over what libFuzzer finds: two texts.

#![no_main]

#[expect(dead_code, reason = "each target uses one body")]
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::diff(data));
