//! Fuzz target: any bytes as a request head.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hade_fuzz::check_head(input));
