//! Images in an LMDB database.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pggan_fuzz::folder("lmdb", "data.mdb", bytes));
