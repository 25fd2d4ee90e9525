//! A CNI runtime's request: environment and standard input. What must hold is in `plugin/src/properties.rs`.

#![no_main]

#[path = "../steady.rs"]
mod steady;

libfuzzer_sys::fuzz_target!(|data: &[u8]| flatnet::properties::request(data));
