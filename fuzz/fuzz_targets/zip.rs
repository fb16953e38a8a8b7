//! Images in a zip archive.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pggan_fuzz::source("x.zip", bytes));
