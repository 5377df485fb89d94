//! The fuzz target `websocket`; what it does with the bytes stands in `bodies`.

#![no_main]

#[path = "../bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::websocket(bytes));
