//! MNIST's images, and their labels.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// Two images of 2x2.
const SOUND: &[u8] = b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02ABCDEFGH";

fuzz_target!(|bytes: &[u8]| {
    // Without the magic, that of gzip too, it would be another format.
    if bytes.starts_with(b"\0\0") || bytes.starts_with(b"\x1F\x8B") {
        pggan_fuzz::source("x", bytes);
    }
    pggan_fuzz::write("labels-idx1-ubyte", bytes);
    pggan_fuzz::source("images-idx3-ubyte", SOUND);
});
