//! SVHN's MATLAB file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Without its magic it would be another format.
    if bytes.starts_with(b"MATLAB") {
        pggan_fuzz::source("x.mat", bytes);
    }
});
