//! Colours of other profiles to sRGB.

use std::fmt;
use std::sync::Arc;

use image::ColorType;
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformExecutor, TransformOptions};

/// A profile that moves no colour by more than this is taken for sRGB: those that cameras and editors embed
/// differ from it, and from each other, by rounding.
const SAME: u8 = 2;
/// Profiles above this many bytes are not read.
const MAX_BYTES: usize = 16 << 20;

/// Bytes turned at once: whole pixels of three and of four.
const CHUNK: usize = 12 << 12;

type Executor = Arc<dyn TransformExecutor<u8> + Send + Sync>;

/// Turns 8 bit RGB and RGBA into sRGB. Remembers the last profile, which most images of a set share.
#[derive(Default)]
pub(crate) struct ToSrgb {
    profile: Vec<u8>,
    layout: Option<Layout>,
    transform: Option<Executor>,
    row: Vec<u8>,
}

impl fmt::Debug for ToSrgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToSrgb").field("profile_bytes", &self.profile.len()).finish_non_exhaustive()
    }
}

impl ToSrgb {
    /// Turns `pixels` into sRGB. A profile that cannot be read, is for something else than RGB, or is sRGB,
    /// leaves them as they are.
    pub(crate) fn apply(&mut self, profile: &[u8], color: ColorType, pixels: &mut [u8]) {
        let layout = match color {
            ColorType::Rgb8 => Layout::Rgb,
            ColorType::Rgba8 => Layout::Rgba,
            _ => return,
        };
        if self.layout != Some(layout) || self.profile != profile {
            self.transform = transform(profile, layout);
            self.profile = profile.to_vec();
            self.layout = Some(layout);
        }
        let Some(transform) = &self.transform else { return };
        for chunk in pixels.chunks_mut(CHUNK) {
            self.row.clear();
            self.row.extend_from_slice(chunk);
            // The lengths match, so it cannot fail; if it did, the colours stay.
            transform.transform(&self.row, chunk).ok();
        }
    }
}

fn transform(profile: &[u8], layout: Layout) -> Option<Executor> {
    if profile.len() > MAX_BYTES {
        return None;
    }
    let profile = ColorProfile::new_from_slice(profile).ok()?;
    if profile.color_space != DataColorSpace::Rgb {
        return None;
    }
    let srgb = ColorProfile::new_srgb();
    let make = |layout| {
        profile.create_transform_8bit(layout, &srgb, layout, TransformOptions::default()).ok()
    };
    let steps = [0, 32, 96, 160, 224, 255];
    let probe: Vec<u8> =
        (0..216).flat_map(|i| [steps[i / 36], steps[i / 6 % 6], steps[i % 6]]).collect();
    let mut moved = vec![0; probe.len()];
    make(Layout::Rgb)?.transform(&probe, &mut moved).ok()?;
    let same = probe.iter().zip(&moved).all(|(a, b)| a.abs_diff(*b) <= SAME);
    if same { None } else { make(layout) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(profile: &[u8], color: ColorType, pixels: &[u8]) -> Vec<u8> {
        let mut pixels = pixels.to_vec();
        ToSrgb::default().apply(profile, color, &mut pixels);
        pixels
    }

    #[test]
    fn other_profiles_are_converted_and_srgb_is_left_alone() {
        let p3 = ColorProfile::new_display_p3().encode().unwrap();
        // Display P3 (200, 100, 50) is sRGB (215, 93, 31); greys are the same in both.
        let found = applied(&p3, ColorType::Rgb8, &[200, 100, 50, 128, 128, 128]);
        let expected = [215, 93, 31, 128, 128, 128];
        assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1), "{found:?}");
        let found = applied(&p3, ColorType::Rgba8, &[200, 100, 50, 77]);
        assert!(found[0] > 207 && found[3] == 77, "{found:?}");

        let srgb = ColorProfile::new_srgb().encode().unwrap();
        let pixels: Vec<u8> = (0..=255).collect();
        for profile in [&srgb[..], b"", b"not a profile", &p3[..200], &p3[..p3.len() - 1]] {
            let kept = applied(profile, ColorType::Rgb8, &pixels[..255]);
            assert!(kept == pixels[..255] || profile.len() > 200);
        }
        assert_eq!(applied(&p3, ColorType::L8, &pixels), pixels);
    }

    /// Images larger than what is turned at once, of both layouts.
    #[test]
    fn every_pixel_is_converted() {
        let p3 = ColorProfile::new_display_p3().encode().unwrap();
        for (color, channels) in [(ColorType::Rgb8, 3), (ColorType::Rgba8, 4)] {
            let pixel: Vec<u8> = [200, 100, 50, 255][..channels].to_vec();
            let one = applied(&p3, color, &pixel);
            let many = applied(&p3, color, &pixel.repeat(50_000));
            assert!(many.chunks(channels).all(|found| found == one));
        }
    }
}
