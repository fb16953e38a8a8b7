//! The pyramid on disk.
//!
//! ```text
//! celebahq-256/
//! ├── manifest.json           what is here: levels, shards and their BLAKE3, source, transform, bad files
//! ├── names.txt               the source's name of each image, a line each
//! ├── labels.safetensors      where images have labels: "labels" I64 [images] or F32 [images, labels]
//! ├── r02-00000.safetensors   "images" U8 [count, channels, 4, 4]
//! ├── …
//! └── r08-00021.safetensors   "images" U8 [count, channels, 256, 256]
//! ```
//!
//! A shard is an ordinary safetensors file of at most 256 MiB (or one image) with one tensor; levels are
//! numbered as in the paper's data sets. Its header has a fixed length of 128 bytes, padded with blanks
//! as the format allows, so that pixels can be written before their number is known. From Python:
//!
//! ```python
//! from safetensors import safe_open
//! with safe_open("r05-00000.safetensors", "numpy") as shard:
//!     batch = shard.get_slice("images")[0:16]
//! ```
//!
//! The bytes depend on the images, their names and the settings, on nothing else: not on the number of
//! threads, the time, or the paths. The manifest appears last: a folder without one is unfinished, never
//! wrong.

pub mod manifest;
mod map;
mod reader;
mod verify;
mod writer;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

pub use reader::Store;
pub use verify::Verified;
pub(crate) use writer::{Journal, LevelWriter, Staging, is_foreign, tidy};

use crate::Result;
use crate::error::Context;
use crate::pyramid::level_bytes;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const NAMES: &str = "names.txt";
pub(crate) const LABELS: &str = "labels.safetensors";
/// Bytes before the first pixel of a shard: a multiple of the processor's cache line.
pub(crate) const HEADER_BYTES: usize = 128;

/// The file name of a shard.
pub(crate) fn shard_name(level: u32, number: usize) -> String {
    format!("r{level:02}-{number:05}.safetensors")
}

/// The safetensors header of a shard with `count` images: length, then JSON padded with blanks.
pub(crate) fn shard_header(channels: usize, level: u32, count: u64) -> [u8; HEADER_BYTES] {
    let (side, end) = (1_u32 << level, count * level_bytes(channels, level) as u64);
    let json = format!(
        r#"{{"images":{{"dtype":"U8","shape":[{count},{channels},{side},{side}],"data_offsets":[0,{end}]}}}}"#
    );
    let mut header = [b' '; HEADER_BYTES];
    let (length, text) = header.split_at_mut(8);
    length.copy_from_slice(&(text.len() as u64).to_le_bytes());
    // The numbers have at most 20 digits, which makes 119 characters.
    text[..json.len()].copy_from_slice(json.as_bytes());
    header
}

/// Writes a small file whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).context("write", &partial)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).context("write", &partial)?;
    fs::rename(&partial, path).context("write", path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes renames in a folder survive a loss of power.
pub(crate) fn sync_folder(dir: &Path) -> Result<()> {
    // The parent of a bare file name is empty.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).context("write", dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};

    #[test]
    fn headers_are_safetensors() {
        for (channels, level, count) in [(3, 2, 0), (3, 2, 5_592_405), (1, 6, 3), (4, 10, 1)] {
            let mut file = shard_header(channels, level, count).to_vec();
            file.resize(HEADER_BYTES + count as usize * level_bytes(channels, level), 7);
            let tensors = SafeTensors::deserialize(&file).unwrap();
            let images = tensors.tensor("images").unwrap();
            assert_eq!(images.dtype(), Dtype::U8);
            assert_eq!(images.shape(), [count as usize, channels, 1 << level, 1 << level]);
        }
        assert!(
            shard_header(4, 13, u64::MAX / level_bytes(4, 13) as u64).ends_with(b" "),
            "it always fits"
        );
    }
}
