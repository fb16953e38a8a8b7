//! The records of the paper's data sets: framing, the `Example` in it, and labels as `.npy`.
//!
//! A file holds the images of one level, `name-r05.tfrecords` those of 32x32. A record is
//!
//! ```text
//! length u64 | masked CRC-32C of these 8 bytes | data [length] | masked CRC-32C of the data     (little endian)
//! ```
//!
//! and its data are a protocol buffer, `tf.train.Example`, with two features: `shape`, three integers
//! `[channels, height, width]`, and `data`, one string of bytes. Labels are `name-rxx.labels`, an `.npy`
//! file of `f32` `[images, labels]`, one-hot where they are classes.

/// Bytes of framing before and behind a record's data.
pub(crate) const HEAD: u64 = 12;
pub(crate) const FOOT: u64 = 4;

/// The checksum of records.
pub(crate) fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// A record of one image, `[channels, side, side]`, appended.
pub(crate) fn write_record(channels: usize, side: u32, pixels: &[u8], to: &mut Vec<u8>) {
    let mut sizes = Vec::new();
    for size in [channels as u64, side.into(), side.into()] {
        varint(size, &mut sizes);
    }
    // Feature { int64_list = 3 { value = 1, packed } } and Feature { bytes_list = 1 { value = 1 } }
    let shape = field(3, &field(1, &sizes));
    let data = field(1, &field(1, pixels));
    let entry = |name: &[u8], feature| field(1, &[field(1, name), field(2, feature)].concat());
    let features = [entry(b"shape", &shape), entry(b"data", &data)].concat();
    let example = field(1, &features);
    let length = (example.len() as u64).to_le_bytes();
    to.extend_from_slice(&length);
    to.extend_from_slice(&masked_crc(&length).to_le_bytes());
    to.extend_from_slice(&example);
    to.extend_from_slice(&masked_crc(&example).to_le_bytes());
}

/// A field of bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(content.len() + 6);
    field.push(number << 3 | 2);
    varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value > 0x7F {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// The length that the head of a record states, if its checksum is right.
pub(crate) fn record_length(head: [u8; HEAD as usize]) -> Result<u64, String> {
    let (length, crc) = head.split_at(8);
    if masked_crc(length).to_le_bytes() != crc {
        return Err("the checksum of a record's length is wrong".into());
    }
    Ok(u64::from_le_bytes(length.try_into().expect("split at 8")))
}

/// The shape and the place of the pixels in the data of a record, which are behind the head and before the
/// checksum.
pub(crate) fn example(data: &[u8]) -> Result<([usize; 3], &[u8]), String> {
    let (mut shape, mut pixels) = (None, None);
    for features in fields(data).filter(only(1)) {
        for entry in fields(features?.1).filter(only(1)) {
            let entry = entry?.1;
            let (mut name, mut feature) = (&[][..], &[][..]);
            for part in fields(entry) {
                match part? {
                    (1, bytes) => name = bytes,
                    (2, bytes) => feature = bytes,
                    _ => {}
                }
            }
            for list in fields(feature) {
                match (name, list?) {
                    (b"shape", (3, list)) => shape = Some(integers(list)?),
                    (b"data", (1, list)) => {
                        pixels = fields(list).next().transpose()?.map(|(_, bytes)| bytes);
                    }
                    _ => {}
                }
            }
        }
    }
    let shape = shape.and_then(|shape| <[usize; 3]>::try_from(shape).ok());
    match (shape, pixels) {
        (Some(shape), Some(pixels)) => {
            let length = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
            if length == Some(pixels.len()) && length != Some(0) {
                Ok((shape, pixels))
            } else {
                Err(format!("{} bytes of data do not have the shape {shape:?}", pixels.len()))
            }
        }
        _ => Err("a record without `shape` of three numbers or without `data`".into()),
    }
}

type Field<'a> = Result<(u64, &'a [u8]), String>;

fn only(number: u64) -> impl Fn(&Field<'_>) -> bool {
    move |field| field.as_ref().map_or(true, |&(n, _)| n == number)
}

/// The fields of a message: their numbers and contents; that of a number is its encoding.
fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field.ok_or_else(|| "a damaged protocol buffer".to_owned()))
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = next_varint(rest)?;
    let content = match tag & 7 {
        0 => {
            let before = *rest;
            next_varint(rest)?;
            return Some((tag >> 3, &before[..before.len() - rest.len()]));
        }
        1 => 8,
        2 => usize::try_from(next_varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(content)?;
    *rest = behind;
    Some((tag >> 3, content))
}

pub(crate) fn next_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The numbers of an `Int64List`, packed or one by one.
fn integers(list: &[u8]) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    for field in fields(list) {
        let mut packed = field?.1;
        while !packed.is_empty() {
            let number = next_varint(&mut packed).ok_or("a damaged list of numbers")?;
            numbers.push(usize::try_from(number).map_err(|_| "a number out of range")?);
        }
    }
    Ok(numbers)
}

/// The head of an `.npy` file of `f32` `[rows, width]`, as numpy wrote them when the paper's data sets were
/// made: padded to a multiple of 16 bytes.
pub(crate) fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    while !(10 + text.len() + 1).is_multiple_of(16) {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(text.len() as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}

/// Rows and width of an `.npy` file of `f32`, and where its numbers begin.
pub(crate) fn read_npy(bytes: &[u8]) -> Result<(usize, usize, &[u8]), String> {
    let not = || "not an .npy file of f32 in rows".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(not)?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(not()),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(not)?;
    let header = std::str::from_utf8(header).map_err(|_| not())?.replace(' ', "");
    if !header.contains("'descr':'<f4'") || !header.contains("'fortran_order':False") {
        return Err(not());
    }
    let shape = header.split_once("'shape':(").and_then(|(_, rest)| rest.split_once(')'));
    let sizes: Option<Vec<usize>> = shape.and_then(|(shape, _)| {
        shape.split(',').filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect()
    });
    let Some(&[rows, width]) = sizes.as_deref() else { return Err(not()) };
    let expected = rows.checked_mul(width).and_then(|numbers| numbers.checked_mul(4));
    if expected != Some(data.len()) {
        return Err(format!("{} bytes are not {rows} rows of {width} f32", data.len()));
    }
    Ok((rows, width, data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the paper's data sets have them.
    #[test]
    fn records_have_the_official_sizes() {
        for (level, bytes) in [
            (2, 98),
            (3, 247),
            (4, 823),
            (5, 3127),
            (6, 12_343),
            (7, 49_214),
            (8, 196_670),
            (9, 786_494),
            (10, 3_145_795),
        ] {
            let mut record = Vec::new();
            write_record(3, 1 << level, &vec![0; 3 << (2 * level)], &mut record);
            assert_eq!(record.len(), bytes, "level {level}");
        }
        // CIFAR-10: 50,000 of 4x4 … 32x32, and labels of 10 classes.
        assert_eq!(
            [98, 247, 823, 3127].map(|n| n * 50_000),
            [4_900_000, 12_350_000, 41_150_000, 156_350_000]
        );
        assert_eq!(npy_header(50_000, 10).len() + 50_000 * 10 * 4, 2_000_080);
    }

    proptest! {
        #[test]
        fn records_are_read_back(channels in 1..5_usize, side in 1..9_u32, seed: u8) {
            let pixels: Vec<u8> =
                (0..channels * (side * side) as usize).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let mut record = Vec::new();
            write_record(channels, side, &pixels, &mut record);
            let (head, rest) = record.split_at(HEAD as usize);
            prop_assert_eq!(record_length(head.try_into().unwrap()), Ok(rest.len() as u64 - FOOT));
            let (data, crc) = rest.split_at(rest.len() - FOOT as usize);
            prop_assert_eq!(masked_crc(data).to_le_bytes(), crc);
            let side = side as usize;
            prop_assert_eq!(example(data), Ok(([channels, side, side], &pixels[..])));
        }

        #[test]
        fn damage_never_panics(
            at: prop::sample::Index, byte: u8, cut: prop::sample::Index, noise: Vec<u8>,
        ) {
            let mut record = Vec::new();
            write_record(3, 4, &[9; 48], &mut record);
            *at.get_mut(&mut record) = byte;
            let data = &record[HEAD as usize..];
            for bytes in [&data[..cut.index(data.len())], &noise] {
                if let Ok((shape, pixels)) = example(bytes) {
                    prop_assert_eq!(shape.iter().product::<usize>(), pixels.len());
                }
            }
            let mut npy = npy_header(2, 3);
            npy.extend([0; 24]);
            *at.get_mut(&mut npy) = byte;
            if let Ok((rows, width, data)) = read_npy(&npy) {
                prop_assert_eq!(rows * width * 4, data.len());
            }
            let _ = read_npy(&noise);
        }
    }
}
