//! A picture of any shape to a square of `resolution` pixels a side.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::{Picture, luma};
use crate::planes;
use crate::store::manifest::{Crop, Filter};

/// Makes squares of pictures as [`Crop`] and [`Filter`] say, in 8 bit between the two passes of the filter,
/// as Pillow does (within 2 grey levels).
///
/// An odd margin leaves the extra pixel at the right or the bottom. What has the size already is copied
/// unchanged. Transparent pixels do not bleed their colour into others: RGBA is resized with its colours
/// multiplied by alpha.
#[derive(Debug)]
pub struct Transform {
    resolution: u32,
    crop: Crop,
    filter: Filter,
    window: Option<[u32; 3]>,
    background: [u8; 3],
    resizer: Resizer,
    /// What the picture becomes, `[height, width, channels]`.
    resized: Vec<u8>,
    /// That on its background, `[resolution, resolution, channels]`.
    square: Vec<u8>,
}

impl Transform {
    /// A transform to `resolution` pixels a side. `background` (RGB) is beside pictures that do not fill the
    /// square; in RGBA it is transparent.
    pub fn new(resolution: u32, crop: Crop, filter: Filter, background: [u8; 3]) -> Self {
        let (resized, square) = (Vec::new(), Vec::new());
        let (window, resizer) = (None, Resizer::new());
        Self { resolution, crop, filter, window, background, resizer, resized, square }
    }

    /// Takes a square of each picture before all else: its middle, x and y, and its side. (That of the
    /// paper's 128x128 faces of CelebA, aligned, is 89, 121, 128.)
    #[must_use]
    pub fn of_window(self, window: Option<[u32; 3]>) -> Self {
        Self { window, ..self }
    }

    /// Writes the square as planes, `[channels, resolution, resolution]`, to `planes`.
    ///
    /// The error is the reason for which the picture cannot be used.
    pub fn apply(&mut self, picture: Picture<'_>, planes: &mut [u8]) -> Result<(), String> {
        let (left, top, width, height) = match self.window {
            None => (0, 0, picture.width, picture.height),
            Some(window) => {
                let (left, top) = inside(window, picture.width, picture.height)?;
                (left, top, window[2], window[2])
            }
        };
        if self.crop == Crop::None && (width, height) != (self.resolution, self.resolution) {
            let side = self.resolution;
            return Err(format!(
                "{width}x{height} pixels, and not {side}x{side} as --transform none asks"
            ));
        }
        let (x, y, w, h) = self.crop.region(width, height);
        let region = (left + x, top + y, w, h);
        let to = self.crop.target(self.resolution, width, height);
        let square = (0, 0, self.resolution, self.resolution);
        if region == square && (picture.width, picture.height) == to {
            planes::split(picture.pixels, picture.channels, planes);
            return Ok(());
        }
        self.resized.resize(picture.channels * to.0 as usize * to.1 as usize, 0);
        match picture.channels {
            1 => self.resize::<U8>(picture, region, to)?,
            3 => self.resize::<U8x3>(picture, region, to)?,
            _ => self.resize::<U8x4>(picture, region, to)?,
        }
        if to == (self.resolution, self.resolution) {
            std::mem::swap(&mut self.resized, &mut self.square);
        } else {
            self.paste(picture.channels, to);
        }
        planes::split(&self.square, picture.channels, planes);
        Ok(())
    }

    /// (`Resizer::resize` would do, and compile its filters for eleven more pixel types.)
    fn resize<P: PixelTrait>(
        &mut self,
        picture: Picture<'_>,
        (left, top, width, height): (u32, u32, u32, u32),
        to: (u32, u32),
    ) -> Result<(), String> {
        let filter = match self.filter {
            Filter::Lanczos3 => FilterType::Lanczos3,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Hamming => FilterType::Hamming,
            Filter::Box => FilterType::Box,
        };
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .crop(left as f64, top as f64, width as f64, height as f64)
            .use_alpha(picture.channels == 4);
        let from = TypedImageRef::<P>::from_buffer(picture.width, picture.height, picture.pixels)
            .map_err(|error| error.to_string())?;
        let mut to = TypedImage::<P>::from_buffer(to.0, to.1, &mut self.resized)
            .map_err(|error| error.to_string())?;
        self.resizer.resize_typed(&from, &mut to, &options).map_err(|error| error.to_string())
    }

    /// Puts what was resized to `size` in the middle of the square.
    fn paste(&mut self, channels: usize, (width, height): (u32, u32)) {
        let side = self.resolution as usize;
        let (width, height) = (width as usize, height as usize);
        let [r, g, b] = self.background;
        let around: &[u8] = match channels {
            1 => &[luma(self.background)],
            3 => &[r, g, b],
            _ => &[r, g, b, 0],
        };
        self.square.clear();
        self.square.extend(around.iter().cycle().take(channels * side * side));
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        for (y, row) in self.resized.chunks_exact(channels * width).enumerate() {
            let start = ((top + y) * side + left) * channels;
            self.square[start..start + row.len()].copy_from_slice(row);
        }
    }
}

/// Left and top of a window, if it lies inside the picture; else why not.
pub(crate) fn inside(
    [x, y, side]: [u32; 3],
    width: u32,
    height: u32,
) -> Result<(u32, u32), String> {
    let corner = |middle: u32, length: u32| {
        middle.checked_sub(side / 2).filter(|&corner| side <= length.saturating_sub(corner))
    };
    corner(x, width)
        .zip(corner(y, height))
        .ok_or_else(|| format!("{width}x{height} pixels do not have {side}x{side} around {x}, {y}"))
}

impl Crop {
    /// The part of a picture that is kept: left, top, width, height.
    fn region(self, width: u32, height: u32) -> (u32, u32, u32, u32) {
        let (w, h) = match self {
            Self::Center => (width.min(height), width.min(height)),
            Self::CenterWide => {
                // As wide as four thirds of the height, or as high as three quarters of the width.
                let wide = (height as u64 * 4 / 3).max(1) as u32;
                let high = (width as u64 * 3 / 4).max(1) as u32;
                (width.min(wide), height.min(high))
            }
            Self::Pad | Self::Stretch | Self::None => (width, height),
        };
        ((width - w) / 2, (height - h) / 2, w, h)
    }

    /// Width and height that a picture gets within a square of `side`.
    fn target(self, side: u32, width: u32, height: u32) -> (u32, u32) {
        let part = |short: u32, long: u32| {
            let rounded = (2 * side as u64 * short as u64 + long as u64) / (2 * long as u64);
            (rounded as u32).clamp(1, side)
        };
        match self {
            Self::CenterWide => (side, side * 3 / 4),
            Self::Pad if width >= height => (side, part(height, width)),
            Self::Pad => (part(width, height), side),
            Self::Center | Self::Stretch | Self::None => (side, side),
        }
    }

    /// The highest resolution at which nothing of a picture is enlarged.
    pub(crate) fn reach(self, width: u32, height: u32) -> u32 {
        match self {
            Self::Center | Self::Stretch | Self::None => width.min(height),
            Self::CenterWide => self.region(width, height).2,
            Self::Pad => width.max(height),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(width: u32, height: u32, pixels: &[u8], resolution: u32) -> Vec<u8> {
        apply_as(Crop::Center, Filter::Lanczos3, (width, height), pixels, resolution).unwrap()
    }

    fn apply_as(
        crop: Crop,
        filter: Filter,
        (width, height): (u32, u32),
        pixels: &[u8],
        resolution: u32,
    ) -> Result<Vec<u8>, String> {
        let channels = pixels.len() / (width * height) as usize;
        let mut planes = vec![0; channels * (resolution * resolution) as usize];
        let picture = Picture { width, height, channels, pixels };
        let mut transform = Transform::new(resolution, crop, filter, [9, 8, 7]);
        // A larger picture before must leave no trace.
        let large =
            Picture { width: 64, height: 48, channels, pixels: &vec![1; 64 * 48 * channels] };
        transform.apply(large, &mut planes).ok();
        transform.apply(picture, &mut planes).map(|()| planes)
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

    /// Each channel of grey and of opaque RGBA is what it is in RGB.
    #[test]
    fn channels_are_resized_alike() {
        let rgb = ramps(60, 50);
        let reference = apply(60, 50, &rgb, 16);
        let red: Vec<u8> = rgb.iter().copied().step_by(3).collect();
        assert_eq!(apply(60, 50, &red, 16), reference[..256]);
        let rgba: Vec<u8> =
            rgb.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
        let planes = apply(60, 50, &rgba, 16);
        let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
        assert!(planes[..768].iter().zip(&reference).all(near));
        assert!(planes[768..].iter().all(|&alpha| alpha == 255));
    }

    /// Green that cannot be seen does not tint the red beside it.
    #[test]
    fn what_is_transparent_does_not_bleed() {
        let rgba: Vec<u8> = (0..64 * 64)
            .flat_map(|i| if i / 2 % 2 == 0 { [255, 0, 0, 255] } else { [0, 255, 0, 0] })
            .collect();
        let planes = apply(64, 64, &rgba, 8);
        assert!(planes[..64].iter().all(|&red| red >= 254));
        assert!(planes[64..128].iter().all(|&green| green <= 1));
        assert!(planes[192 + 9..192 + 14].iter().all(|&a| a.abs_diff(127) <= 2));
    }

    /// Where a white picture lies in the square, and what is around it.
    #[test]
    fn each_crop_fills_what_it_should() {
        for (crop, (width, height), left, top, right, bottom) in [
            (Crop::Center, (40, 20), 0, 0, 16, 16),
            (Crop::Stretch, (40, 20), 0, 0, 16, 16),
            (Crop::Pad, (40, 20), 0, 4, 16, 12),
            (Crop::Pad, (7, 21), 5, 0, 10, 16),
            (Crop::Pad, (21, 1), 0, 7, 16, 8),
            (Crop::Pad, (9, 9), 0, 0, 16, 16),
            (Crop::CenterWide, (100, 20), 0, 2, 16, 14),
            (Crop::CenterWide, (20, 100), 0, 2, 16, 14),
            (Crop::None, (16, 16), 0, 0, 16, 16),
        ] {
            let white = vec![255; 3 * (width * height) as usize];
            let planes = apply_as(crop, Filter::Lanczos3, (width, height), &white, 16).unwrap();
            for (i, &found) in planes.iter().enumerate() {
                let (c, y, x) = (i / 256, i / 16 % 16, i % 16);
                let inside = (left..right).contains(&x) && (top..bottom).contains(&y);
                let expected = if inside { 255 } else { [9, 8, 7][c] };
                assert_eq!(found, expected, "{crop:?} {width}x{height} at {x}, {y}");
            }
        }
        let white = vec![255; 4 * 40 * 20];
        let planes = apply_as(Crop::Pad, Filter::Box, (40, 20), &white, 16).unwrap();
        assert_eq!(
            (planes[768], planes[768 + 8 * 16]),
            (0, 255),
            "around it is nothing to be seen"
        );
        let error = apply_as(Crop::None, Filter::Box, (40, 20), &white, 16).unwrap_err();
        assert!(error.contains("40x20 pixels, and not 16x16"), "{error}");
    }

    /// Stretching shows all of the picture, cropping its middle.
    #[test]
    fn the_wide_crop_and_stretching_keep_what_they_should() {
        let picture = ramps(200, 100);
        let stretched = apply_as(Crop::Stretch, Filter::Box, (200, 100), &picture, 4).unwrap();
        // The mean of 50 whole numbers ends in a half, which 8 bit round up.
        assert_eq!(stretched[..4], [25, 75, 125, 175]);
        // 133 columns of 200, from 33 on.
        let wide = apply_as(Crop::CenterWide, Filter::Bilinear, (200, 100), &picture, 128).unwrap();
        let row = &wide[64 * 128..][..128];
        assert!(row[0].abs_diff(33) <= 1 && row[127].abs_diff(165) <= 1, "{row:?}");
    }

    #[test]
    fn a_window_is_taken_exactly() {
        let picture = ramps(178, 218);
        let take = |window| {
            let picture = Picture { width: 178, height: 218, channels: 3, pixels: &picture };
            let mut planes = vec![0; 3 * 128 * 128];
            Transform::new(128, Crop::Center, Filter::Lanczos3, [0; 3])
                .of_window(Some(window))
                .apply(picture, &mut planes)
                .map(|()| planes)
        };
        // The paper's: columns 25 to 152, rows 57 to 184.
        let planes = take([89, 121, 128]).unwrap();
        assert_eq!((planes[0], planes[127], planes[128 * 128]), (25, 152, 57));
        assert_eq!(planes[128 * 128 + 127 * 128], 184);
        for wrong in [[63, 121, 128], [89, 155, 128], [115, 121, 128], [89, 121, 4_000_000_000]] {
            assert!(take(wrong).is_err_and(|e| e.contains("178x218")), "{wrong:?}");
        }
    }

    #[test]
    fn filters_differ() {
        let spot: Vec<u8> = (0..64 * 64).map(|i| if i == 32 * 64 + 32 { 255 } else { 0 }).collect();
        let all =
            [Filter::Lanczos3, Filter::Bicubic, Filter::Bilinear, Filter::Hamming, Filter::Box];
        let results: std::collections::BTreeSet<Vec<u8>> =
            all.map(|filter| apply_as(Crop::Center, filter, (64, 64), &spot, 16).unwrap()).into();
        assert_eq!(results.len(), all.len());
        let boxed = apply_as(Crop::Center, Filter::Box, (64, 64), &spot, 16).unwrap();
        assert_eq!(boxed.iter().filter(|&&v| v > 0).count(), 1, "16 of 255 in one pixel");
    }
}
