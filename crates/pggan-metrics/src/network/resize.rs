//! From images of any size to the size that a network takes.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::{Error, ImageShape, Result};

/// How images are brought to a network's size. Results of one way do not compare with those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resize {
    /// Bilinear as the graph of 2015 does it itself: pixel 0 lies on pixel 0, and nothing is averaged where images
    /// shrink. What the official code and torch-fidelity compute.
    Tf,
    /// Bicubic, with a wider window where images shrink, as Pillow and clean-fid (Parmar et al. 2022) do it.
    Clean,
}

impl Resize {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tf => "tf",
            Self::Clean => "clean",
        }
    }
}

/// Appends an image `[C, H, W]` of pixels in [0, 255], u8 or f32, to `out` as `[3, side, side]`. A grey one gives three
/// equal planes.
pub fn resize<P: Copy + Into<f32>>(
    image: &[P],
    shape: ImageShape,
    side: usize,
    how: Resize,
    out: &mut Vec<f32>,
) -> Result<()> {
    if image.len() != shape.bytes() {
        let (expected, found) = (shape.bytes(), image.len());
        return Err(Error::Mismatch { what: "pixels of an image", expected, found });
    }
    let size = shape.resolution();
    let start = out.len();
    for plane in image.chunks_exact(size * size) {
        match how {
            Resize::Tf => tf(plane, size, side, out),
            Resize::Clean => clean(plane, size, side, out),
        }
    }
    for _ in shape.channels()..3 {
        out.extend_from_within(start..start + side * side);
    }
    Ok(())
}

fn tf<P: Copy + Into<f32>>(plane: &[P], size: usize, side: usize, out: &mut Vec<f32>) {
    let scale = size as f32 / side as f32;
    let place = |i: usize| {
        let at = i as f32 * scale;
        let lower = at as usize;
        (lower, (lower + 1).min(size - 1), at - lower as f32)
    };
    let columns: Vec<_> = (0..side).map(place).collect();
    for (upper, lower, down) in (0..side).map(place) {
        let (upper, lower) = (&plane[upper * size..][..size], &plane[lower * size..][..size]);
        out.extend(columns.iter().map(|&(left, right, along)| {
            let row = |row: &[P]| {
                let (left, right): (f32, f32) = (row[left].into(), row[right].into());
                left + (right - left) * along
            };
            let (upper, lower) = (row(upper), row(lower));
            upper + (lower - upper) * down
        }));
    }
}

fn clean<P: Copy + Into<f32>>(plane: &[P], size: usize, side: usize, out: &mut Vec<f32>) {
    let bytes: Vec<u8> = plane.iter().flat_map(|&pixel| pixel.into().to_ne_bytes()).collect();
    let (from, to) = (size as u32, side as u32);
    let source = ImageRef::new(from, from, &bytes, PixelType::F32)
        .expect("the buffer was made for this size");
    let mut resized = Image::new(to, to, PixelType::F32);
    // Catmull and Rom's is the cubic of Pillow.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&source, &mut resized, &options).expect("both are of one pixel type");
    let values = resized.buffer().as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b));
    out.extend(values.map(|value| value.clamp(0.0, 255.0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sizes_change_nothing_and_grey_is_rgb() {
        let shape = ImageShape::new(1, 16).unwrap();
        let image: Vec<u8> = (0..=255).collect();
        for how in [Resize::Tf, Resize::Clean] {
            let mut out = Vec::new();
            resize(&image, shape, 16, how, &mut out).unwrap();
            let expected: Vec<f32> = image.iter().map(|&b| f32::from(b)).collect();
            assert_eq!(out, [&expected[..]; 3].concat(), "{how:?}");
        }
        assert!(resize(&image[1..], shape, 16, Resize::Tf, &mut Vec::new()).is_err());
    }

    #[test]
    fn tf_keeps_the_first_pixel_and_repeats_the_last() {
        let mut out = Vec::new();
        tf(&[0u8, 100, 200, 50], 2, 4, &mut out);
        assert_eq!(out[..4], [0.0, 50.0, 100.0, 100.0]);
        assert_eq!(out[4..8], [100.0, 87.5, 75.0, 75.0]);
        assert_eq!(out[8..12], out[12..]);
    }
}
