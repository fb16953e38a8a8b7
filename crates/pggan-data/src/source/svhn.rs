//! Street View House Numbers: `train_32x32.mat`, a MATLAB file of version 5.
//!
//! Two arrays: `X`, `[32, 32, 3, images]` bytes, and `y`, the digits, of which 10 stands for 0.

use std::io::{BufReader, Read};

use flate2::read::ZlibDecoder;

use super::blob::{Blob, most_unpacked};
use super::pixels::{Order, Pixels};
use super::{Entry, Listing};
use crate::labels::Label;

/// Bytes before the first element.
const HEADER: u64 = 128;
/// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// The class of arrays of bytes.
const BYTES: u32 = 9;

/// Whether a file begins like one of MATLAB.
pub(super) fn is_mat(beginning: &[u8]) -> bool {
    beginning.starts_with(b"MATLAB 5.0 MAT-file")
}

/// Lists the images of a file.
pub(super) fn list(blob: &Blob) -> Result<Listing, String> {
    let (mut images, mut digits) = (None, None);
    let mut next = HEADER;
    while next + 8 <= blob.len() {
        let mut tag = Vec::new();
        blob.read(next, 8, &mut tag).map_err(|error| error.to_string())?;
        let (kind, size) = (u32_at(&tag, 0), u64::from(u32_at(&tag, 4)));
        next += 8;
        if next + size > blob.len() {
            return Err("the last array is cut off".into());
        }
        let part = blob.part(next, size);
        let array = match kind {
            COMPRESSED => {
                let from = &mut BufReader::new(ZlibDecoder::new(part));
                element_tag(from).and_then(|(kind, ..)| match kind {
                    MATRIX => Array::read(from, most_unpacked(size)),
                    _ => Err("no array in a compressed element".into()),
                })
            }
            MATRIX => Array::read(&mut part.take(size), size),
            kind => Err(format!("an element of type {kind}")),
        };
        let array = array.map_err(|reason| format!("not SVHN's arrays: {reason}"))?;
        match &*array.name {
            "X" => images = Some(array),
            "y" => digits = Some(array),
            _ => {}
        }
        // Compressed elements are not padded, others are.
        next += if kind == COMPRESSED { size } else { size.next_multiple_of(8) };
    }
    let (Some(images), Some(digits)) = (images, digits) else {
        return Err("not SVHN's arrays: there are no `X` and `y` of bytes".into());
    };
    let &[32, 32, 3, count] = &images.sizes[..] else {
        return Err(format!("images of shape {:?}, and not [32, 32, 3, …]", images.sizes));
    };
    if digits.data.len() != count {
        return Err(format!("{} digits for {count} images", digits.data.len()));
    }
    let mut classes = Vec::new();
    digits.data.read(0, count, &mut classes).map_err(|error| error.to_string())?;
    let entry = |(number, digit): (usize, u8)| {
        let mut entry = Entry::new(format!("{number:06}"), 3072);
        entry.label = Some(Label::Class(u32::from(digit % 10)));
        entry
    };
    let entries = classes.into_iter().enumerate().map(entry).collect();
    let pixels = Pixels {
        blobs: vec![images.data],
        places: (0..count).map(|number| (0, number * 3072)).collect(),
        width: 32,
        height: 32,
        channels: 3,
        order: Order::ColumnsOfPlanes,
        margin: 0,
    };
    Ok(Listing { classes: 10, ..Listing::of(entries, Box::new(pixels)) })
}

/// An array of bytes.
struct Array {
    name: String,
    sizes: Vec<u64>,
    data: Blob,
}

impl Array {
    /// Reads an element of at most so many bytes, whose tag has been read.
    fn read(from: &mut impl Read, most: u64) -> Result<Self, String> {
        let flags = small(from, UINT32)?;
        let sizes = small(from, INT32)?;
        let name = String::from_utf8_lossy(&small(from, INT8)?).into_owned();
        let sizes =
            sizes.as_chunks::<4>().0.iter().map(|size| u64::from(u32::from_le_bytes(*size)));
        let sizes: Vec<u64> = sizes.collect();
        let (kind, length, inline) = element_tag(from)?;
        let expected = sizes.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
        if flags.first().map(|&class| u32::from(class)) != Some(BYTES)
            || kind != UINT8
            || expected != Some(length)
        {
            return Err(format!("`{name}` of shape {sizes:?} is no array of bytes"));
        }
        if length > most {
            return Err(format!("`{name}` of {length} bytes is too large for its element: a bomb"));
        }
        let data = match inline {
            Some(bytes) => Blob::unpacked(&mut &bytes[..length as usize], length),
            None => Blob::unpacked(from, length),
        };
        Ok(Self { name, sizes, data: data.map_err(|error| error.to_string())? })
    }
}

/// The content of an element of at most a few bytes, which is of type `kind`, and its padding.
fn small(from: &mut impl Read, kind: u32) -> Result<Vec<u8>, String> {
    let (found, length, inline) = element_tag(from)?;
    if found != kind || length > 256 {
        return Err(format!("an element of type {found} and {length} bytes"));
    }
    if let Some(bytes) = inline {
        return Ok(bytes[..length as usize].to_vec());
    }
    let mut bytes = vec![0; length.next_multiple_of(8) as usize];
    from.read_exact(&mut bytes).map_err(|error| error.to_string())?;
    bytes.truncate(length as usize);
    Ok(bytes)
}

/// Type, length, and, of those of at most four bytes, the content, which is in the tag.
fn element_tag(from: &mut impl Read) -> Result<(u32, u64, Option<[u8; 4]>), String> {
    let mut tag = [0; 8];
    from.read_exact(&mut tag).map_err(|error| error.to_string())?;
    let kind = u32_at(&tag, 0);
    if kind >> 16 == 0 {
        return Ok((kind, u64::from(u32_at(&tag, 4)), None));
    }
    let length = u64::from(kind >> 16);
    if length > 4 {
        return Err(format!("{length} bytes in a tag"));
    }
    Ok((kind & 0xFFFF, length, Some([tag[4], tag[5], tag[6], tag[7]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
