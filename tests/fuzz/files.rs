//! Fuzz target: any bytes as a request for a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hade_fuzz::check_files(input));
