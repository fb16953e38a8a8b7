//! The manifest of a prepared data set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pggan_fuzz::{MANIFEST, prepared};

fuzz_target!(|bytes: &[u8]| prepared(MANIFEST, bytes));
