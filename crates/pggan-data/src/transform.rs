//! A picture of any shape to a square of `resolution` pixels a side.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::Picture;

/// Crops the centre to the shorter side and resizes with a Lanczos filter of three lobes, with the support
/// scaled to the reduction and 8 bit between the two passes, as Pillow does (within 2 grey levels).
///
/// An odd margin leaves the extra pixel at the right or the bottom. A square that has the resolution
/// already is copied unchanged.
#[derive(Debug)]
pub struct Transform {
    resolution: u32,
    resizer: Resizer,
    square: TypedImage<'static, U8x3>,
}

impl Transform {
    /// A transform to `resolution` pixels a side.
    pub fn new(resolution: u32) -> Self {
        let square = TypedImage::new(resolution, resolution);
        Self { resolution, resizer: Resizer::new(), square }
    }

    /// Writes the square as planes, `[3, resolution, resolution]`, to `planes`.
    ///
    /// The error is the reason for which the picture cannot be used.
    pub fn apply(&mut self, picture: Picture<'_>, planes: &mut [u8]) -> Result<(), String> {
        let Picture { width, height, rgb } = picture;
        let side = width.min(height);
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .crop(left as f64, top as f64, side as f64, side as f64)
            .use_alpha(false);
        let from =
            TypedImageRef::from_buffer(width, height, rgb).map_err(|error| error.to_string())?;
        // (`resize` would do, and compile its filters for twelve more pixel types.)
        self.resizer
            .resize_typed::<U8x3>(&from, &mut self.square, &options)
            .map_err(|error| error.to_string())?;

        let plane = self.resolution as usize * self.resolution as usize;
        let (red, rest) = planes.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        for (((pixel, r), g), b) in self.square.pixels().iter().zip(red).zip(green).zip(blue) {
            [*r, *g, *b] = pixel.0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(width: u32, height: u32, rgb: &[u8], resolution: u32) -> Vec<u8> {
        let mut planes = vec![0; 3 * (resolution * resolution) as usize];
        Transform::new(resolution).apply(Picture { width, height, rgb }, &mut planes).unwrap();
        planes
    }

    /// A picture whose red is x, green is y, blue is constant.
    fn ramps(width: u32, height: u32) -> Vec<u8> {
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 77])).collect()
    }

    #[test]
    fn crops_the_centre_exactly() {
        for (width, height, left, top) in [(4, 4, 0, 0), (9, 4, 2, 0), (4, 7, 0, 1), (10, 4, 3, 0)]
        {
            let planes = apply(width, height, &ramps(width, height), 4);
            let expected: Vec<u8> = (0..48)
                .map(|i| match i / 16 {
                    0 => left + i as u8 % 4,
                    1 => top + i as u8 % 16 / 4,
                    _ => 77,
                })
                .collect();
            assert_eq!(planes, expected, "{width}x{height}");
        }
    }

    /// A linear ramp stays one under a symmetric filter, away from the border.
    #[test]
    fn reduces_a_ramp_to_a_ramp() {
        let planes = apply(128, 128, &ramps(128, 128), 16);
        for x in 2..14 {
            let expected = 8.0 * x as f32 + 3.5;
            assert!((planes[16 * 8 + x] as f32 - expected).abs() <= 1.0, "column {x}");
            assert!((planes[256 + 16 * x + 8] as f32 - expected).abs() <= 1.0, "row {x}");
        }
        assert!(planes[512..].iter().all(|&blue| blue == 77), "a constant stays constant");
    }
}
