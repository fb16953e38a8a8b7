//! Drawn shapes, the same everywhere and always: for tests, demonstrations and first runs without any data.
//!
//! `synthetic:COUNTxSIDE` (`synthetic` is `synthetic:1000x64`): one shape on a shaded ground each, of three
//! classes: disc, square, triangle. Image *i* is a function of *i* and SIDE, in whole numbers.

use super::{Container, Entry, Listing, ReadEntry};
use crate::Result;
use crate::decode::Form;
use crate::labels::Label;

/// Points a pixel is sampled at, along each side.
const SAMPLES: i64 = 4;
const CLASSES: [&str; 3] = ["disc", "square", "triangle"];

#[derive(Debug)]
struct Synthetic {
    side: u32,
}

/// COUNT and SIDE of a source that is called so, or why it is no such source.
pub(super) fn parse(source: &str) -> Option<Result<(usize, u32), String>> {
    let rest = source.strip_prefix("synthetic")?;
    if rest.is_empty() {
        return Some(Ok((1000, 64)));
    }
    let rest = rest.strip_prefix(':')?;
    let (count, side) = rest.split_once('x').unwrap_or((rest, "64"));
    let parsed = count.parse().ok().zip(side.parse().ok());
    let valid = parsed
        .filter(|&(count, side)| (2..=1 << 24).contains(&count) && (4..=4096).contains(&side));
    Some(valid.ok_or_else(|| {
        "pass synthetic:COUNTxSIDE, such as synthetic:1000x64 (at most 16777216 of 4096)".into()
    }))
}

/// Lists `count` images of `side` pixels a side.
pub(super) fn list(count: usize, side: u32) -> Listing {
    let entry = |number: usize| {
        let mut entry = Entry::new(format!("{number:08}"), 3 * u64::from(side) * u64::from(side));
        entry.label = Some(Label::Class(class(number as u64)));
        entry
    };
    let mut listing = Listing::of((0..count).map(entry).collect(), Box::new(Synthetic { side }));
    listing.class_names = CLASSES.map(str::to_owned).to_vec();
    listing
}

impl Container for Synthetic {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(self))
    }
}

impl ReadEntry for &Synthetic {
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let (width, height, channels) = (self.side, self.side, 3);
        // The first look asks for a beginning only; the form says all that it wants.
        if limit >= 3 * u64::from(width) * u64::from(height) {
            draw(index as u64, i64::from(self.side), bytes);
        }
        Ok(Form::Pixels { width, height, channels })
    }
}

/// A draw of image `number`: below `below`, the `which`-th of its kind.
fn random(number: u64, which: u64, below: i64) -> i64 {
    let mut x =
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ which.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for multiplier in [0xBF58_476D_1CE4_E5B9_u64, 0x94D0_49BB_1331_11EB] {
        x = (x ^ x >> 30).wrapping_mul(multiplier);
    }
    ((x >> 33) % below as u64) as i64
}

fn class(number: u64) -> u32 {
    random(number, 0, 3) as u32
}

/// Coordinates are in 1/1024 of the side, so that all sizes show the same scene.
fn draw(number: u64, side: i64, pixels: &mut Vec<u8>) {
    let (x0, y0) = (512 + random(number, 1, 301) - 150, 512 + random(number, 2, 301) - 150);
    let radius = 180 + random(number, 3, 161);
    let ground: [i64; 3] = std::array::from_fn(|c| 40 + random(number, 4 + c as u64, 90));
    let slope: [i64; 3] = std::array::from_fn(|c| random(number, 7 + c as u64, 100) - 50);
    let colour: [i64; 3] = std::array::from_fn(|c| 60 + random(number, 10 + c as u64, 190));
    let inside = |x: i64, y: i64| {
        let (dx, dy) = (x - x0, y - y0);
        match class(number) {
            0 => dx * dx + dy * dy <= radius * radius,
            1 => dx.abs().max(dy.abs()) * 8 <= radius * 7,
            // An isosceles triangle, point up.
            _ => dy <= radius * 7 / 10 && 2 * dx.abs() <= dy + radius,
        }
    };
    let at = |pixel: i64, sample: i64| {
        ((2 * SAMPLES * pixel + 2 * sample + 1) * 1024) / (2 * SAMPLES * side)
    };
    for y in 0..side {
        for x in 0..side {
            let points = (0..SAMPLES * SAMPLES).map(|s| (at(x, s % SAMPLES), at(y, s / SAMPLES)));
            let covered = points.filter(|&(x, y)| inside(x, y)).count() as i64;
            let all = SAMPLES * SAMPLES;
            pixels.extend((0..3).map(|c| {
                let behind = ground[c] + slope[c] * (at(x, 0) + at(y, 0)) / 2048;
                ((colour[c] * covered + behind * (all - covered)) / all).clamp(0, 255) as u8
            }));
        }
    }
}
