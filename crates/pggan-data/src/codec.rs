//! Images of a store as image files: PNG and lossless WebP, to the bit, or JPEG.
//!
//! The encoders are deterministic: the same pixels give the same bytes.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use crate::decode::{Decoder, Form, dimensions};
use crate::planes;
use crate::store::manifest::Layout;

/// Encodes and decodes planes; keeps its scratch memory from one image to the next.
#[derive(Debug)]
pub(crate) struct Codec {
    channels: usize,
    pixels: Vec<u8>,
    decoder: Decoder,
}

impl Codec {
    /// For images of `channels` planes.
    pub(crate) fn new(channels: usize) -> Self {
        // Nothing here is transparent that is not to stay so: the colour is never seen.
        Self { channels, pixels: Vec::new(), decoder: Decoder::new(channels, [0; 3]) }
    }

    /// Encodes `[channels, side, side]` into `file`, which is cleared before. `quality`, 1 to 100, is
    /// JPEG's. [`Layout::Raw`] is the planes themselves.
    pub(crate) fn encode(
        &mut self,
        layout: Layout,
        quality: u8,
        side: u32,
        planes: &[u8],
        file: &mut Vec<u8>,
    ) -> ImageResult<()> {
        file.clear();
        if layout == Layout::Raw {
            file.extend_from_slice(planes);
            return Ok(());
        }
        self.pixels.clear();
        planes::interleave(planes, self.channels, &mut self.pixels);
        let colour = match self.channels {
            1 => ExtendedColorType::L8,
            3 => ExtendedColorType::Rgb8,
            _ => ExtendedColorType::Rgba8,
        };
        match layout {
            Layout::Raw | Layout::Png => {
                PngEncoder::new_with_quality(file, CompressionType::Fast, FilterType::Adaptive)
                    .write_image(&self.pixels, side, side, colour)
            }
            Layout::Webp => {
                WebPEncoder::new_lossless(file).write_image(&self.pixels, side, side, colour)
            }
            Layout::Jpeg => JpegEncoder::new_with_quality(file, quality).write_image(
                &self.pixels,
                side,
                side,
                colour,
            ),
        }
    }

    /// Decodes a file into `planes`, `[channels, side, side]`.
    ///
    /// The error is what is wrong with the file.
    pub(crate) fn decode(
        &mut self,
        file: &[u8],
        side: u32,
        planes: &mut [u8],
    ) -> Result<(), String> {
        let (width, height) = dimensions(Form::Encoded, file)?;
        if (width, height) != (side, side) {
            return Err(format!("{width}x{height} pixels, and not {side}x{side}"));
        }
        self.decoder.decode(Form::Encoded, file, |picture| {
            planes::split(picture.pixels, picture.channels, planes);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(channels: usize, side: usize) -> Vec<u8> {
        let value = |i: usize| {
            let (x, y) = ((i % side) as f64, (i / side) as f64);
            (127.0 + 60.0 * (x / 3.0).sin() + 60.0 * (y / 5.0).cos()) as u8
        };
        (0..channels * side * side).map(value).collect()
    }

    #[test]
    fn lossless_to_the_bit_and_jpeg_near() {
        for channels in [1, 3, 4] {
            let mut codec = Codec::new(channels);
            let planes = waves(channels, 32);
            let mut back = vec![0; planes.len()];
            let mut file = Vec::new();
            for layout in [Layout::Png, Layout::Webp] {
                codec.encode(layout, 0, 32, &planes, &mut file).unwrap();
                codec.decode(&file, 32, &mut back).unwrap();
                assert_eq!(back, planes, "{layout:?} of {channels}");
                let again = file.clone();
                codec.encode(layout, 0, 32, &planes, &mut file).unwrap();
                assert_eq!(file, again);
            }
            if channels < 4 {
                codec.encode(Layout::Jpeg, 95, 32, &planes, &mut file).unwrap();
                codec.decode(&file, 32, &mut back).unwrap();
                let worst = back.iter().zip(&planes).map(|(a, b)| a.abs_diff(*b)).max();
                assert!((1..12).contains(&worst.unwrap()), "{worst:?}");
            }
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        let (mut codec, mut file) = (Codec::new(3), Vec::new());
        codec.encode(Layout::Png, 0, 8, &waves(3, 8), &mut file).unwrap();
        let error = codec.decode(&file, 16, &mut vec![0; 768]).unwrap_err();
        assert_eq!(error, "8x8 pixels, and not 16x16");
        file.truncate(file.len() / 2);
        codec.decode(&file, 8, &mut [0; 192]).unwrap_err();
        codec.decode(b"", 8, &mut []).unwrap_err();
    }
}
