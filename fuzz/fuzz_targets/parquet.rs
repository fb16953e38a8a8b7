//! Images in a Parquet file.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: pggan_fuzz::let_panics_be_caught(), |bytes: &[u8]| {
    pggan_fuzz::folder("parquet", "x.parquet", bytes);
});
