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
//! A shard is an ordinary safetensors file of at most 256 MiB of pixels (or one image) with one tensor; levels are
//! numbered as in the paper's data sets. Its header has a fixed length of 128 bytes, padded with blanks
//! as the format allows, so that pixels can be written before their number is known. From Python:
//!
//! ```python
//! from safetensors import safe_open
//! with safe_open("r05-00000.safetensors", "numpy") as shard:
//!     batch = shard.get_slice("images")[0:16]
//! ```
//!
//! Large levels may be image files instead, as their `layout` in the manifest says (`png`, `jpeg`, `webp`): then a
//! shard of as many images has "bytes" U8 \[total\], the files one behind the other and zeros up to a multiple
//! of eight, and "offsets" I64 \[count + 1\], where each begins and the last one ends. Its header has 256 bytes.
//!
//! ```python
//! offsets = shard.get_tensor("offsets")
//! image = PIL.Image.open(io.BytesIO(shard.get_slice("bytes")[offsets[i]:offsets[i + 1]]))
//! ```
//!
//! A JPEG loses something, so the levels below a JPEG level are made of what it decodes to.
//!
//! The bytes depend on the images, their names and the settings, on nothing else: not on the number of
//! threads, the time, or the paths. The manifest appears last: a folder without one is unfinished, never
//! wrong.

mod behind;
pub mod manifest;
mod map;
mod reader;
mod shard;
mod staging;
mod verify;
mod writer;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

pub(crate) use behind::WriteBehind;
pub use reader::Store;
pub(crate) use shard::{Kind, MappedShard};
pub(crate) use staging::{Journal, Staging, is_foreign, tidy};
pub use verify::Verified;
pub(crate) use writer::LevelWriter;

use crate::Result;
use crate::error::Context;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const NAMES: &str = "names.txt";
pub(crate) const LABELS: &str = "labels.safetensors";

/// The file name of a shard.
pub(crate) fn shard_name(level: u32, number: usize) -> String {
    format!("r{level:02}-{number:05}.safetensors")
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
