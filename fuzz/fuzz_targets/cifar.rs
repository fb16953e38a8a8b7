//! CIFAR's files: the pickles, and the records.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pggan_fuzz::folder("cifar", "data_batch_1", bytes);
    pggan_fuzz::source("x.bin", bytes);
});
