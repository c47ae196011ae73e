//! The body `merge` over what libFuzzer finds: three texts and the strategies of a project.

#![no_main]

#[expect(dead_code, reason = "each target uses one body")]
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::merge(data));
