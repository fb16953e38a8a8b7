//! Images in a tar archive: beside their labels, or CIFAR's. The sums of its headers are put right.

#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;

/// Bytes of a header.
const BLOCK: usize = 512;
/// Where the magic of a header and its sum are.
const MAGIC: Range<usize> = 257..262;
const SUM: Range<usize> = 148..156;

fuzz_target!(|bytes: &[u8]| {
    // Without its magic it would be another format.
    if bytes.get(MAGIC) != Some(b"ustar") {
        return;
    }
    let mut bytes = bytes.to_vec();
    for header in
        bytes.as_chunks_mut::<BLOCK>().0.iter_mut().filter(|block| &block[MAGIC] == b"ustar")
    {
        header[SUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[SUM][..7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    pggan_fuzz::source("x.tar", &bytes);
});
