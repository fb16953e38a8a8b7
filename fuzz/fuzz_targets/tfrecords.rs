//! The paper's records, whose sums are put right, and their labels.

#![no_main]

use libfuzzer_sys::fuzz_target;

const SOUND: &[u8] =
    include_bytes!("../../crates/pggan-data/tests/data/tfrecord/tfrecord-r02.tfrecords");
/// Bytes before the data of a record, of which four are a sum, as many as the one behind them.
const HEAD: usize = 12;
const SUM: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut records = bytes.to_vec();
    put_right(&mut records);
    pggan_fuzz::source("x.tfrecords", &records);
    pggan_fuzz::write("x-rxx.labels", bytes);
    pggan_fuzz::source("x-r02.tfrecords", SOUND);
});

/// Puts the sums of records right, as far as they go.
fn put_right(records: &mut [u8]) {
    let mut rest = records;
    while let Some((head, behind)) = rest.split_first_chunk_mut::<HEAD>() {
        let (length, sum) = head.split_first_chunk_mut::<8>().expect("it is longer");
        sum.copy_from_slice(&masked_sum(&*length));
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((data, behind)) = behind.split_at_mut_checked(length) else { return };
        let Some((sum, behind)) = behind.split_first_chunk_mut::<SUM>() else { return };
        *sum = masked_sum(data);
        rest = behind;
    }
}

fn masked_sum(data: &[u8]) -> [u8; SUM] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}
