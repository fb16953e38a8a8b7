//! A shard: what its header says, and where in it an image is.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::Mmap;

use super::manifest::{Layout, Shard};
use super::map;
use crate::codec::Codec;
use crate::error::Context;
use crate::pyramid::level_bytes;
use crate::{Error, Result};

/// Bytes of a number in "offsets".
const OFFSET_BYTES: u64 = 8;

/// What all shards of a level have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) channels: usize,
    pub(crate) level: u32,
    pub(crate) layout: Layout,
}

impl Kind {
    /// Bytes before the first image: a multiple of the processor's cache line.
    pub(super) fn header_bytes(self) -> usize {
        if self.layout == Layout::Raw { 128 } else { 256 }
    }

    /// The safetensors header of a shard with `count` images in `bytes` bytes: length, then JSON padded with
    /// blanks.
    pub(super) fn header(self, count: u64, bytes: u64) -> Vec<u8> {
        let Self { channels, level, layout } = self;
        let json = if layout == Layout::Raw {
            let side = 1_u32 << level;
            format!(
                r#"{{"images":{{"dtype":"U8","shape":[{count},{channels},{side},{side}],"data_offsets":[0,{bytes}]}}}}"#
            )
        } else {
            let (offsets, end) = (count + 1, bytes + OFFSET_BYTES * (count + 1));
            format!(
                r#"{{"bytes":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}},"offsets":{{"dtype":"I64","shape":[{offsets}],"data_offsets":[{bytes},{end}]}}}}"#
            )
        };
        let mut header = vec![b' '; self.header_bytes()];
        let (length, text) = header.split_at_mut(8);
        length.copy_from_slice(&(text.len() as u64).to_le_bytes());
        // The numbers have at most 20 digits, which makes 119 characters, or 207.
        text[..json.len()].copy_from_slice(json.as_bytes());
        header
    }

    /// Bytes of pixels of an image.
    pub(super) fn image_bytes(self) -> usize {
        level_bytes(self.channels, self.level)
    }

    /// The bytes of images in a shard of `count` of them whose file has `length` bytes; none if that cannot be.
    fn payload(self, count: u64, length: u64) -> Option<u64> {
        let payload = length.checked_sub(self.header_bytes() as u64)?;
        if self.layout == Layout::Raw {
            let expected = count.checked_mul(self.image_bytes() as u64)?;
            return (payload == expected).then_some(payload);
        }
        let offsets = count.checked_add(1)?.checked_mul(OFFSET_BYTES)?;
        payload.checked_sub(offsets).filter(|bytes| bytes % OFFSET_BYTES == 0)
    }

    /// Opens the file if it has the header and the length of a shard with `count` images.
    pub(super) fn open(self, path: &Path, count: u64) -> Result<File> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("it is missing".into()));
            }
            Err(error) => return Err(error).context("read", path),
        };
        let length = file.metadata().context("read", path)?.len();
        let Some(bytes) = self.payload(count, length) else {
            return Err(damaged(format!(
                "its length of {length} bytes does not fit {count} images"
            )));
        };
        let mut header = vec![0; self.header_bytes()];
        file.read_exact(&mut header).context("read", path)?;
        if header != self.header(count, bytes) {
            return Err(damaged("its header is not the one this program wrote".into()));
        }
        Ok(file)
    }
}

/// A shard in memory, whose bytes are those of the manifest.
#[derive(Debug)]
pub(crate) struct MappedShard {
    kind: Kind,
    count: u64,
    map: Mmap,
}

impl MappedShard {
    /// Maps a shard if its length, header and BLAKE3 are as `about` says.
    pub(crate) fn open(path: &Path, kind: Kind, about: &Shard) -> Result<Self> {
        let damaged =
            |reason: &str| Err(Error::Damaged { path: path.to_owned(), reason: reason.to_owned() });
        let file = kind.open(path, about.count)?;
        let map = map::map(&file).context("map", path)?;
        if blake3::hash(&map).to_hex().as_str() != about.blake3 {
            return damaged("its content does not have the BLAKE3 of the manifest");
        }
        let shard = Self { kind, count: about.count, map };
        if kind.layout != Layout::Raw && !shard.offsets_are_sound() {
            return damaged("its offsets are not those of files one behind the other");
        }
        Ok(shard)
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// The bytes that an image is kept as: pixels, or a file.
    pub(crate) fn stored(&self, place: usize) -> &[u8] {
        let images = &self.map[self.kind.header_bytes()..];
        if self.kind.layout == Layout::Raw {
            let bytes = self.kind.image_bytes();
            &images[place * bytes..][..bytes]
        } else {
            &images[self.offset(place)..self.offset(place + 1)]
        }
    }

    /// The pixels of an image, `[channels, side, side]`: the file itself, or what it decodes to.
    ///
    /// The error is what is wrong with it.
    pub(crate) fn image(&self, place: usize) -> Result<Cow<'_, [u8]>, String> {
        let stored = self.stored(place);
        if self.kind.layout == Layout::Raw {
            return Ok(Cow::Borrowed(stored));
        }
        let mut planes = vec![0; self.kind.image_bytes()];
        Codec::new(self.kind.channels).decode(stored, 1 << self.kind.level, &mut planes)?;
        Ok(Cow::Owned(planes))
    }

    fn offset(&self, place: usize) -> usize {
        let offsets = &self.map[self.map.len() - OFFSET_BYTES as usize * (self.len() + 1)..];
        let (offsets, _) = offsets.as_chunks::<{ OFFSET_BYTES as usize }>();
        u64::from_le_bytes(offsets[place]) as usize
    }

    fn offsets_are_sound(&self) -> bool {
        let around = self.kind.header_bytes() + OFFSET_BYTES as usize * (self.len() + 1);
        let rises = (0..self.len()).all(|place| self.offset(place) <= self.offset(place + 1));
        rises && self.offset(0) == 0 && self.offset(self.len()) <= self.map.len() - around
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};

    #[test]
    fn headers_are_safetensors() {
        for (channels, level, count) in [(3, 2, 0), (3, 2, 5_592_405), (1, 6, 3), (4, 10, 1)] {
            let kind = Kind { channels, level, layout: Layout::Raw };
            let bytes = count * kind.image_bytes();
            let mut file = kind.header(count as u64, bytes as u64);
            file.resize(file.len() + bytes, 7);
            let tensors = SafeTensors::deserialize(&file).unwrap();
            let images = tensors.tensor("images").unwrap();
            assert_eq!(images.dtype(), Dtype::U8);
            assert_eq!(images.shape(), [count, channels, 1 << level, 1 << level]);
        }
        let kind = Kind { channels: 3, level: 9, layout: Layout::Webp };
        let mut file = kind.header(3, 40);
        file.resize(file.len() + 40 + 32, 7);
        let tensors = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.tensor("bytes").unwrap().shape(), [40]);
        let offsets = tensors.tensor("offsets").unwrap();
        assert_eq!((offsets.dtype(), offsets.shape()), (Dtype::I64, &[4][..]));
    }

    #[test]
    fn headers_always_fit() {
        let raw = Kind { channels: 4, level: 13, layout: Layout::Raw };
        assert!(raw.header(u64::MAX, u64::MAX).ends_with(b" "));
        let png = Kind { layout: Layout::Png, ..raw };
        assert!(png.header(u64::MAX / 64, u64::MAX / 2).ends_with(b" "));
    }

    #[test]
    fn lengths_that_lie() {
        let png = Kind { channels: 3, level: 9, layout: Layout::Png };
        assert_eq!(png.payload(3, 256 + 32 + 40), Some(40));
        for (count, length) in [(3, 255), (3, 287), (3, 256 + 32 + 41), (u64::MAX, 1 << 40)] {
            assert_eq!(png.payload(count, length), None);
        }
    }
}
