//! The other files of a prepared data set: pixels, PNG files, labels, names.

#![no_main]

use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] =
    ["r02-00000.safetensors", "r03-00000.safetensors", "labels.safetensors", "names.txt"];

fuzz_target!(init: pggan_fuzz::let_panics_be_caught(), |bytes: &[u8]| {
    FILES.iter().for_each(|name| pggan_fuzz::prepared(name, bytes));
});
