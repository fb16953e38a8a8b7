//! MNIST's format: `train-images-idx3-ubyte` with `train-labels-idx1-ubyte` beside it, both also `.gz`.
//!
//! Images of 28x28 get two black pixels on each side, as the paper's data sets have it, to make 32x32.

use std::path::{Path, PathBuf};

use super::blob::Blob;
use super::pixels::{Order, Pixels};
use super::{Entry, Listing};
use crate::labels::Label;

/// Unsigned bytes in three dimensions, or in one.
const IMAGES: [u8; 4] = [0, 0, 8, 3];
const LABELS: [u8; 4] = [0, 0, 8, 1];

/// Whether a file begins like one of images.
pub(super) fn is_idx(beginning: &[u8]) -> bool {
    beginning.starts_with(&IMAGES)
}

/// Lists the images of a file, whose content is `blob`.
pub(super) fn list(path: &Path, blob: Blob) -> Result<Listing, String> {
    let [count, height, width] = header::<3>(&blob, IMAGES)?;
    let size = u64::from(height) * u64::from(width);
    if !(1..=1 << 14).contains(&height) || !(1..=1 << 14).contains(&width) {
        return Err(format!("images of {width}x{height} pixels"));
    }
    let expected = 16 + u64::from(count) * size;
    if blob.len() != expected {
        let length = blob.len();
        return Err(format!(
            "{count} images of {width}x{height} need {expected} bytes, not {length}"
        ));
    }
    let classes = match labels_beside(path) {
        None => None,
        Some(beside) => {
            let of = |reason: String| format!("{}: {reason}", beside.display());
            let blob = Blob::open(&beside).map_err(|error| of(error.to_string()))?;
            let [labels] = header::<1>(&blob, LABELS).map_err(of)?;
            if labels != count || blob.len() != 8 + u64::from(count) {
                return Err(of(format!("not the labels of {count} images")));
            }
            let mut classes = Vec::new();
            blob.read(8, u64::from(count), &mut classes).map_err(|error| of(error.to_string()))?;
            Some(classes)
        }
    };
    let mut entries = Vec::new();
    for number in 0..count as usize {
        let mut entry = Entry::new(format!("{number:06}"), size);
        entry.label = classes.as_ref().map(|classes| Label::Class(classes[number].into()));
        entries.push(entry);
    }
    let margin = if (width, height) == (28, 28) { 2 } else { 0 };
    let places = (0..u64::from(count)).map(|number| (0, 16 + number * size)).collect();
    let blobs = vec![blob];
    let order = Order::Pixels;
    let pixels = Pixels { blobs, places, width, height, channels: 1, order, margin };
    Ok(Listing::of(entries, Box::new(pixels)))
}

/// The sizes that a header states.
fn header<const N: usize>(blob: &Blob, magic: [u8; 4]) -> Result<[u32; N], String> {
    let bytes = blob.beginning(4 + 4 * N as u64).map_err(|error| error.to_string())?;
    match bytes.strip_prefix(&magic).map(<[u8]>::as_chunks::<4>) {
        Some((sizes, [])) if sizes.len() == N => {
            Ok(std::array::from_fn(|i| u32::from_be_bytes(sizes[i])))
        }
        _ => Err("not an IDX file of unsigned bytes".into()),
    }
}

fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let other = labels.strip_suffix(".gz").map_or_else(|| format!("{labels}.gz"), str::to_owned);
    let mut names = [labels, other].into_iter().filter(|labels| labels != name);
    names.find_map(|name| Some(path.with_file_name(name)).filter(|path| path.is_file()))
}
