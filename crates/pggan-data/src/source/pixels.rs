//! Images that lie in a file as bare pixels, one behind the other.

use super::blob::Blob;
use super::{Container, ReadEntry};
use crate::Result;
use crate::decode::Form;
use crate::planes::interleave;

/// The pixels of images that all have one shape.
#[derive(Debug)]
pub(super) struct Pixels {
    pub(super) blobs: Vec<Blob>,
    /// Blob and offset of each image.
    pub(super) places: Vec<(usize, u64)>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) channels: usize,
    pub(super) order: Order,
    /// Black pixels to put around each image.
    pub(super) margin: u32,
}

/// How an image lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `[height, width, channels]`.
    Pixels,
    /// `[channels, height, width]`.
    Planes,
    /// `[channels, width, height]`.
    ColumnsOfPlanes,
}

impl Pixels {
    /// Bytes of an image in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.width as u64 * self.height as u64 * self.channels as u64
    }
}

impl Container for Pixels {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(PixelReader { pixels: self, stored: Vec::new() }))
    }
}

#[derive(Debug)]
struct PixelReader<'a> {
    pixels: &'a Pixels,
    stored: Vec<u8>,
}

impl ReadEntry for PixelReader<'_> {
    fn read(&mut self, index: usize, _: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let Pixels { width, height, channels, margin, .. } = *self.pixels;
        let (blob, offset) = self.pixels.places[index];
        self.stored.clear();
        self.pixels.blobs[blob]
            .read(offset, self.pixels.bytes(), &mut self.stored)
            .map_err(|error| error.to_string())?;
        match self.pixels.order {
            Order::Pixels => bytes.extend_from_slice(&self.stored),
            Order::Planes => interleave(&self.stored, channels, bytes),
            Order::ColumnsOfPlanes => {
                let (wide, high) = (width as usize, height as usize);
                let at = |y: usize, x: usize, c: usize| self.stored[(c * wide + x) * high + y];
                let pixels = (0..high).flat_map(|y| (0..wide).map(move |x| (y, x)));
                bytes.extend(pixels.flat_map(|(y, x)| (0..channels).map(move |c| at(y, x, c))));
            }
        }
        if margin == 0 {
            return Ok(Form::Pixels { width, height, channels });
        }
        let (wide, high) = (width + 2 * margin, height + 2 * margin);
        let inner = std::mem::take(bytes);
        bytes.resize(wide as usize * high as usize * channels, 0);
        let row = width as usize * channels;
        for (y, from) in inner.chunks_exact(row).enumerate() {
            let start = ((y + margin as usize) * wide as usize + margin as usize) * channels;
            bytes[start..start + row].copy_from_slice(from);
        }
        Ok(Form::Pixels { width: wide, height: high, channels })
    }
}
