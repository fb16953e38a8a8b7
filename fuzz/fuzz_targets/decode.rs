//! An image file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pggan_data::decode::{Decoder, Form, dimensions};

/// What is larger takes the fuzzer's time, not other paths.
const MAX_PIXELS: u64 = 1 << 18;

fuzz_target!(init: pggan_fuzz::let_panics_be_caught(), |bytes: &[u8]| {
    let Ok((width, height)) = dimensions(Form::Encoded, bytes) else { return };
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return;
    }
    for channels in [1, 3, 4] {
        let check = |picture: pggan_data::decode::Picture<'_>| {
            assert_eq!((picture.width, picture.height), (width, height));
            assert_eq!(picture.pixels.len() as u64, pixels * channels as u64);
        };
        Decoder::new(channels, [255; 3]).decode(Form::Encoded, bytes, check).ok();
    }
});
