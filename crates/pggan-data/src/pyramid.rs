//! The levels of an image: each half the side of the one above, down to 4x4.
//!
//! The rule of the paper's data sets: level *k* is the mean of 2x2 boxes of level *k + 1*, taken in `f32`
//! and **carried unrounded** from level to level; each level is rounded, half to even, only to be stored.
//! Up to 1024x1024 every mean is exact in `f32` (8 bits of value and 2 for each of 8 levels make 24), so
//! the order of summation is of no account.

#![expect(
    clippy::inline_always,
    reason = "loops are compiled anew for each instruction set, see `pulp`"
)]

use pulp::{Arch, Simd, WithSimd};

use crate::MIN_LEVEL;

/// Bytes of one image of `channels` planes at `level`.
pub const fn level_bytes(channels: usize, level: u32) -> usize {
    channels << (2 * level)
}

/// Bytes of all levels of one image from `max_level` down to 4x4.
pub fn pyramid_bytes(channels: usize, max_level: u32) -> usize {
    (MIN_LEVEL..=max_level).map(|level| level_bytes(channels, level)).sum()
}

/// The levels in a buffer of [`pyramid_bytes`], from the top down: `(level, [channels, side, side])`.
pub fn levels(channels: usize, max_level: u32, image: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = image;
    (MIN_LEVEL..=max_level).rev().map(move |level| {
        let (this, below) = rest.split_at(level_bytes(channels, level));
        rest = below;
        (level, this)
    })
}

/// Computes pyramids; keeps its scratch memory from one to the next.
#[derive(Debug)]
pub struct Pyramid {
    channels: usize,
    above: Vec<f32>,
    below: Vec<f32>,
}

impl Pyramid {
    /// For images of `channels` planes.
    pub fn new(channels: usize) -> Self {
        Self { channels, above: Vec::new(), below: Vec::new() }
    }

    /// Fills the lower levels of `image`, a buffer of [`pyramid_bytes`] that begins with the top level,
    /// `[channels, side, side]`.
    pub fn fill(&mut self, max_level: u32, image: &mut [u8]) {
        let pixels = 1 << (2 * max_level);
        // They change places at every level, so either may be the one that the second takes.
        self.above.resize(pixels / 4, 0.0);
        self.below.resize(pixels / 4, 0.0);
        let arch = Arch::new();
        for channel in 0..self.channels {
            arch.dispatch(Plane { scratch: self, channel, max_level, image });
        }
    }
}

/// Fills the lower levels of one channel. (One at a time, for its means to stay in the cache.)
struct Plane<'a> {
    scratch: &'a mut Pyramid,
    channel: usize,
    max_level: u32,
    image: &'a mut [u8],
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { scratch: Pyramid { channels, above, below }, channel, max_level, image } = self;
        let of_channel = |level| {
            let bytes = level_bytes(1, level);
            channel * bytes..(channel + 1) * bytes
        };
        let (top, mut rest) = image.split_at_mut(level_bytes(*channels, max_level));
        for level in (MIN_LEVEL..max_level).rev() {
            let (stored, lower) = rest.split_at_mut(level_bytes(*channels, level));
            rest = lower;
            let stored = &mut stored[of_channel(level)];
            if level + 1 == max_level {
                halve_bytes(&top[of_channel(max_level)], 2 << level, above, stored);
            } else {
                halve(above, 2 << level, below, stored);
                std::mem::swap(above, below);
            }
        }
    }
}

/// 2x2 means of `from`, `[side, side]`, as they are and rounded.
#[inline(always)]
fn halve(from: &[f32], side: usize, to: &mut [f32], rounded: &mut [u8]) {
    let outs = to.chunks_exact_mut(side / 2).zip(rounded.chunks_exact_mut(side / 2));
    for (rows, (out, bytes)) in from.chunks_exact(2 * side).zip(outs) {
        let (upper, lower) = rows.split_at(side);
        let boxes = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
        for ((mean, byte), (&[a, b], &[c, d])) in out.iter_mut().zip(bytes).zip(boxes) {
            *mean = (a + b + c + d) * 0.25;
            *byte = round(*mean);
        }
    }
}

/// The same from bytes. Pairs are summed as halves of a `u16`, which the compiler turns into vectors.
#[inline(always)]
fn halve_bytes(from: &[u8], side: usize, to: &mut [f32], rounded: &mut [u8]) {
    let sum = |&pair: &[u8; 2]| {
        let both = u16::from_ne_bytes(pair);
        (both & 0xFF) + (both >> 8)
    };
    let outs = to.chunks_exact_mut(side / 2).zip(rounded.chunks_exact_mut(side / 2));
    for (rows, (out, bytes)) in from.chunks_exact(2 * side).zip(outs) {
        let (upper, lower) = rows.split_at(side);
        let boxes = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
        for ((mean, byte), (above, below)) in out.iter_mut().zip(bytes).zip(boxes) {
            *mean = (sum(above) + sum(below)) as f32 * 0.25;
            *byte = round(*mean);
        }
    }
}

/// Rounds a mean in [0, 255] half to even.
#[inline(always)]
fn round(mean: f32) -> u8 {
    // At 1.5·2²³ the last bit of an f32 counts ones, so the addition rounds (to even, as IEEE addition
    // does), and the low byte of the bits is the result. `round_ties_even` is a call on plain x86-64.
    (mean + 12_582_912.0).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rule as a definition, in integers: the mean of a box of the *top* level, rounded half to even.
    fn by_definition(channels: usize, max_level: u32, top: &[u8], level: u32) -> Vec<u8> {
        let (from, to) = (1_usize << max_level, 1_usize << level);
        let side = from / to;
        let pixel = |c: usize, y: usize, x: usize| {
            let rows = (0..side).map(|row| (c * from + y * side + row) * from + x * side);
            let sum: u64 =
                rows.flat_map(|start| &top[start..start + side]).map(|&p| p as u64).sum();
            let (n, twice) = ((side * side) as u64, 2 * sum);
            let floor = sum / n;
            match (twice - 2 * floor * n).cmp(&n) {
                std::cmp::Ordering::Less => floor as u8,
                std::cmp::Ordering::Greater => floor as u8 + 1,
                std::cmp::Ordering::Equal => (floor + floor % 2) as u8,
            }
        };
        (0..channels * to * to).map(|i| pixel(i / (to * to), i / to % to, i % to)).collect()
    }

    fn check(channels: usize, max_level: u32, top: &[u8]) {
        let mut image = top.to_vec();
        image.resize(pyramid_bytes(channels, max_level), 0xAA);
        Pyramid::new(channels).fill(max_level, &mut image);
        for (level, pixels) in levels(channels, max_level, &image) {
            let expected = by_definition(channels, max_level, top, level);
            assert!(pixels == expected, "level {level} of {max_level}");
        }
    }

    fn noise(channels: usize, max_level: u32, seed: u64, values: u64) -> Vec<u8> {
        let mut state = seed;
        let draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % values
        };
        let bytes = level_bytes(channels, max_level);
        std::iter::repeat_with(draw).map(|v| v as u8).take(bytes).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Few distinct values make many ties.
        #[test]
        fn equals_the_definition(
            channels in 1..5_usize, max_level in 2..8_u32, seed: u64, values in 2..257_u64,
        ) {
            check(channels, max_level, &noise(channels, max_level, seed, values));
        }
    }

    #[test]
    fn exact_at_1024() {
        check(3, 10, &noise(3, 10, 1, 256));
        check(3, 10, &noise(3, 10, 2, 2));
    }

    #[test]
    fn scratch_of_a_larger_image_does_not_leak_into_a_smaller() {
        let mut pyramid = Pyramid::new(3);
        let mut large = vec![255; pyramid_bytes(3, 7)];
        pyramid.fill(7, &mut large);
        let mut small = noise(3, 4, 3, 256);
        small.resize(pyramid_bytes(3, 4), 0);
        pyramid.fill(4, &mut small);
        for (level, pixels) in levels(3, 4, &small) {
            assert_eq!(pixels, by_definition(3, 4, &small[..level_bytes(3, 4)], level));
        }
    }

    #[test]
    fn ties_go_to_even() {
        for (mean, expected) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (253.5, 254), (254.5, 254), (254.75, 255)]
        {
            assert_eq!(round(mean), expected, "{mean}");
        }
    }
}
