//! The Wasserstein-1 distance of two equally large samples on a line.
//!
//! It is the mean of `|sort(a) - sort(b)|`, which equals `1/n ∫ |D(x)| dx` with `D(x)` the number of a's less the
//! number of b's up to x. The integral needs no order where D keeps its sign: cut the line into bins; over a bin
//! from e0 to e1 that D enters as d0 and leaves as d1,
//!
//! ```text
//! ∫ D(x) dx = d1 e1 - d0 e0 - Σa + Σb        (sums over the bin)
//! ```
//!
//! and D cannot change its sign when `|d0|` is at least the number of points that could pull it through zero. So one
//! pass counts and sums, and only the points of the few bins where the two distributions cross are sorted.
//!
//! Bins and places within them are bits of one number: with u the distance from the centre in mean deviations, `1 + |u|`
//! is an `f32` whose highest bits count bins (equally many from 1 to 2, from 2 to 4, from 4 to 8: about equally full of
//! normal as of Laplacian samples, and patch projections lie between these) and whose lowest ones are the place, as an
//! integer that sums without rounding. Points are so rounded to an ulp of `1 + |u|`, to nearest, and nothing else is.

use pulp::{Arch, Simd, WithSimd};

/// Octaves of `1 + |u|` that are cut into bins. What lies beyond is in two open bins, and sorted.
const OCTAVES: i32 = 3;
/// Points of each sample, at most, by which the bins are laid.
const PROBES: usize = 1 << 10;
/// A `u16` numbers the bins.
const BINS: usize = 1 << 16;
/// What a point adds to the tally of its bin, its place aside.
const ONE: u64 = 1 << 40;

/// Points on a line, at `point + offset`; finite, and fewer than 2^24.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) points: &'a [f32],
    pub(crate) offset: f32,
}

/// Memory used from call to call.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// For each bin the number of points, in units of [`ONE`], plus the sum of their places.
    a: Vec<u64>,
    b: Vec<u64>,
    /// The bins in which D may change its sign, and their points as keys.
    crossing: Vec<bool>,
    keys_a: Vec<i32>,
    keys_b: Vec<i32>,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self {
            a: vec![0; BINS],
            b: vec![0; BINS],
            crossing: vec![false; BINS],
            keys_a: Vec::new(),
            keys_b: Vec::new(),
        }
    }

    /// The distance of two samples of the same size, at least one point.
    pub(crate) fn distance(&mut self, a: Sample<'_>, b: Sample<'_>) -> f64 {
        debug_assert_eq!(a.points.len(), b.points.len());
        let grid = Grid::over(a, b);
        tally(a, grid, &mut self.a);
        tally(b, grid, &mut self.b);
        let one_sided = self.integrate_one_sided(grid);
        let kept_a = select(a, grid, &self.crossing, &mut self.keys_a);
        let kept_b = select(b, grid, &self.crossing, &mut self.keys_b);
        let crossing =
            self.integrate_crossing(grid, &self.keys_a[..kept_a], &self.keys_b[..kept_b]);
        (one_sided + crossing) * grid.scale / a.points.len() as f64
    }

    /// Integrates over the bins where D keeps its sign and marks the others.
    fn integrate_one_sided(&mut self, grid: Grid) -> f64 {
        let (mut integral, mut d0) = (0.0, 0);
        let tallies = self.a.iter().zip(&self.b).zip(&mut self.crossing);
        for (k, ((&a, &b), crossing)) in tallies.enumerate().take(grid.bins()) {
            let (count_a, count_b) = ((a / ONE) as i64, (b / ONE) as i64);
            let d1 = d0 + count_a - count_b;
            let one_sided = d0 >= count_b || d0 <= -count_a;
            *crossing = !one_sided || grid.is_open(k);
            if !*crossing {
                let Bin { e0, e1, base, unit } = grid.bin(k);
                let places = (a % ONE) as i64 - (b % ONE) as i64;
                let sum = (d1 - d0) as f64 * base + places as f64 * unit;
                integral += (d1 as f64 * e1 - d0 as f64 * e0 - sum).abs();
            }
            d0 = d1;
        }
        integral
    }

    /// Integrates over the marked bins, whose points are given in order.
    fn integrate_crossing(&self, grid: Grid, mut keys_a: &[i32], mut keys_b: &[i32]) -> f64 {
        let (mut integral, mut d0) = (0.0, 0);
        let tallies = self.a.iter().zip(&self.b).zip(&self.crossing);
        for (k, ((&a, &b), &crossing)) in tallies.enumerate().take(grid.bins()) {
            let (count_a, count_b) = (a / ONE, b / ONE);
            if crossing {
                // Bins keep the order of their points, so each bin's points lie together, bin after bin.
                let (here_a, here_b);
                (here_a, keys_a) = keys_a.split_at(count_a as usize);
                (here_b, keys_b) = keys_b.split_at(count_b as usize);
                let Bin { e0, e1, .. } = grid.bin(k);
                integral += integrate_sorted(here_a, here_b, d0, e0, e1);
            }
            d0 += count_a as i64 - count_b as i64;
        }
        integral
    }
}

/// Counts the points of each bin and sums their places.
fn tally(sample: Sample<'_>, grid: Grid, tallies: &mut [u64]) {
    tallies[..grid.bins()].fill(0);
    let tallies: &mut [u64; BINS] = tallies.try_into().expect("made with this length");
    let place = (1 << grid.shift) - 1;
    for_each_point(sample, grid, |key, bin| {
        tallies[usize::from(bin)] += ONE + (key & place) as u64;
    });
}

/// Collects the points of marked bins at the beginning of `memory` and sorts them, as keys.
fn select(sample: Sample<'_>, grid: Grid, marked: &[bool], memory: &mut Vec<i32>) -> usize {
    let marked: &[bool; BINS] = marked.try_into().expect("made with this length");
    if memory.len() <= sample.points.len() {
        memory.resize(sample.points.len() + 1, 0);
    }
    let mut kept = 0;
    // Without a branch, which could not be foreseen.
    for_each_point(sample, grid, |key, bin| {
        memory[kept] = key;
        kept += usize::from(marked[usize::from(bin)]);
    });
    memory[..kept].sort_unstable();
    kept
}

/// `∫ |D(x)| dx` from `e0`, where D is `d`, to `e1`, with the keys of the points between in order.
fn integrate_sorted(mut a: &[i32], mut b: &[i32], mut d: i64, e0: f64, e1: f64) -> f64 {
    let (mut integral, mut at) = (0.0, e0);
    loop {
        let (next, step) = match (a.split_first(), b.split_first()) {
            (Some((&x, rest)), other) if other.is_none_or(|(&y, _)| x <= y) => {
                a = rest;
                (x, 1)
            }
            (_, Some((&y, rest))) => {
                b = rest;
                (y, -1)
            }
            _ => return integral + d.abs() as f64 * (e1 - at),
        };
        let next = from_key(next);
        integral += d.abs() as f64 * (next - at);
        (at, d) = (next, d + step);
    }
}

/// What a key stands for, u: an integer in the order of the points. Keys are the bits of `1 + |u|` from those of 1 on,
/// inverted for negative u.
fn from_key(key: i32) -> f64 {
    let magnitude = if key < 0 { !key } else { key };
    let u = f64::from(f32::from_bits(1f32.to_bits() + magnitude as u32)) - 1.0;
    if key < 0 { -u } else { u }
}

/// Where the bins lie: `u = (x - centre) / scale`.
#[derive(Debug, Clone, Copy)]
struct Grid {
    centre: f32,
    per_scale: f32,
    scale: f64,
    /// Bits of a key that tell the place within a bin.
    shift: u32,
}

/// A bin in u: from `e0` to `e1`, with points at `base` plus their places times `unit`.
struct Bin {
    e0: f64,
    e1: f64,
    base: f64,
    unit: f64,
}

impl Grid {
    /// By the mean and the mean deviation of some points.
    fn over(a: Sample<'_>, b: Sample<'_>) -> Self {
        let n = a.points.len();
        let usable = |(_, scale): &(f64, f64)| ((1.0 / scale) as f32).is_normal();
        // Probes that are all the same say nothing of the others.
        let steps = [n.div_ceil(PROBES), 1].into_iter();
        let (centre, scale) =
            steps.map(|step| spread(a, b, step)).find(usable).unwrap_or((0.0, 1.0));
        let bins_of_octave = (n / 128).next_power_of_two().clamp(1 << 8, 1 << 13);
        let per_scale = (1.0 / scale) as f32;
        let shift = f32::MANTISSA_DIGITS - 1 - bins_of_octave.ilog2();
        Self { centre: centre as f32, per_scale, scale: 1.0 / f64::from(per_scale), shift }
    }

    /// Bins of either side that are not open.
    fn side(self) -> i32 {
        OCTAVES << (f32::MANTISSA_DIGITS - 1 - self.shift)
    }

    fn bins(self) -> usize {
        2 * (self.side() as usize + 1)
    }

    fn is_open(self, bin: usize) -> bool {
        bin == 0 || bin + 1 == self.bins()
    }

    /// Beyond the outer edges of the open bins, D is 0: they are put anywhere.
    fn bin(self, bin: usize) -> Bin {
        let side = self.side();
        let number = bin as i32 - side - 1;
        // Both sides count from the middle.
        let inner = if number < 0 { !number } else { number };
        let edge = |number: i32| from_key(number.min(side) << self.shift);
        let (near, far) = (edge(inner), edge(inner + 1));
        let places = f64::from(1 << self.shift);
        let unit = (far - near) / places;
        if number < 0 {
            Bin { e0: -far, e1: -near, base: -far + unit, unit }
        } else {
            Bin { e0: near, e1: far, base: near, unit }
        }
    }
}

/// Mean and mean deviation of every `step`th point of both samples.
fn spread(a: Sample<'_>, b: Sample<'_>, step: usize) -> (f64, f64) {
    let (offset_a, offset_b) = (f64::from(a.offset), f64::from(b.offset));
    let some = || {
        let a = a.points.iter().step_by(step).map(|&x| f64::from(x) + offset_a);
        a.chain(b.points.iter().step_by(step).map(|&x| f64::from(x) + offset_b))
    };
    let count = some().count() as f64;
    let mean = some().sum::<f64>() / count;
    (mean, some().map(|x| (x - mean).abs()).sum::<f64>() / count)
}

/// Points at a time whose keys and bins are found.
const CHUNK: usize = 256;

/// Finds the keys and the bins of a few points. Every step keeps order, whatever it rounds: bins hold intervals.
struct Locate<'a> {
    points: &'a [f32],
    /// The centre, for these points without their offset.
    centre: f32,
    grid: Grid,
    keys: &'a mut [i32; CHUNK],
    bins: &'a mut [u16; CHUNK],
}

impl WithSimd for Locate<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "code is vectorised only as a part of the caller")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let side = self.grid.side();
        for ((&x, key), bin) in self.points.iter().zip(self.keys).zip(self.bins) {
            let u = (x - self.centre) * self.grid.per_scale;
            let magnitude = (1.0 + u.abs()).to_bits() as i32 - 1f32.to_bits() as i32;
            // All ones where u is negative.
            let sign = u.to_bits() as i32 >> 31;
            *key = magnitude ^ sign;
            *bin = ((magnitude >> self.grid.shift).min(side) ^ sign).wrapping_add(side + 1) as u16;
        }
    }
}

/// Calls `each` with the key and the bin of every point.
fn for_each_point(sample: Sample<'_>, grid: Grid, mut each: impl FnMut(i32, u16)) {
    let arch = Arch::new();
    let (mut keys, mut bins) = ([0; CHUNK], [0; CHUNK]);
    let centre = grid.centre - sample.offset;
    for points in sample.points.chunks(CHUNK) {
        arch.dispatch(Locate { points, centre, grid, keys: &mut keys, bins: &mut bins });
        for (&key, &bin) in keys.iter().zip(&bins).take(points.len()) {
            each(key, bin);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition.
    fn sorted_distance(a: &[f32], b: &[f32]) -> f64 {
        let sorted = |sample: &[f32]| {
            let mut sample = sample.to_vec();
            sample.sort_by(f32::total_cmp);
            sample
        };
        let total: f64 = sorted(a)
            .iter()
            .zip(sorted(b))
            .map(|(&a, b)| (f64::from(a) - f64::from(b)).abs())
            .sum();
        total / a.len() as f64
    }

    fn check(a: &[f32], b: &[f32]) {
        let expected = sorted_distance(a, b);
        let scale = a.iter().chain(b).fold(0.0, |m: f64, &x| m.max(f64::from(x).abs()));
        let sample = |points| Sample { points, offset: 0.0 };
        let mut workspace = Workspace::new();
        for _ in 0..2 {
            let found = workspace.distance(sample(a), sample(b));
            assert!(
                (found - expected).abs() <= f64::from(f32::EPSILON) * scale,
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn equals_sorting() {
        check(&[1.0], &[3.5]);
        check(&[0.0; 9], &[0.0; 9]);
        check(&[0.0; 9], &[1e-30; 9]);
        check(&[-1e30, 0.0, 1.0], &[1e30, 0.0, -1.0]);
        check(&[2.0, 1.0, 3.0], &[3.0, 2.0, 1.0]);
    }

    #[test]
    fn offsets_are_added() {
        let (a, b) = ([0.5f32, -2.0, 7.25], [1.0f32, 8.0, -3.0]);
        let with_offsets = Workspace::new()
            .distance(Sample { points: &a, offset: 10.0 }, Sample { points: &b, offset: -0.5 });
        let expected = sorted_distance(&a.map(|x| x + 10.0), &b.map(|x| x - 0.5));
        assert!((with_offsets - expected).abs() < 1e-6, "{with_offsets} {expected}");
    }

    #[test]
    fn probes_that_are_all_the_same_do_not_hide_the_others() {
        let n = 3 * PROBES;
        let at = |value: f32, every: usize| -> Vec<f32> {
            (0..n)
                .map(|i| if i % 3 == 1 && i % every == 1 { value * i as f32 } else { 2.0 })
                .collect()
        };
        check(&at(1e-3, 3), &at(7.0, 9));
    }

    #[test]
    fn equals_sorting_where_distributions_overlap() {
        // Halton-like points, one set shifted, widened and with a far tail that the probes miss.
        for (shift, width, tail) in
            [(0.0, 1.0, 0.0), (0.01, 1.0, 50.0), (0.0, 1.2, -700.0), (3.0, 0.1, 0.0)]
        {
            let n = 40_000;
            let point = |i: usize, step: f64| (i as f64 * step).fract();
            let a: Vec<f32> = (0..n)
                .map(|i| (point(i, 0.618_033_988) + point(i, 0.754_877_666)) as f32)
                .collect();
            let b: Vec<f32> = (0..n)
                .map(|i| {
                    ((point(i, 0.569_840_29) + point(i, 0.819_172_513) - 1.0) * width + 1.0 + shift)
                        as f32
                })
                .enumerate()
                .map(|(i, x)| if i % 1001 == 500 { x + tail } else { x })
                .collect();
            check(&a, &b);
        }
    }

    proptest! {
        #[test]
        fn equals_sorting_of_anything(pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..400)) {
            let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            check(&a, &b);
        }

        #[test]
        fn equals_sorting_with_ties(pairs in prop::collection::vec((0i8..5, 0i8..5), 1..400)) {
            let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().map(|(a, b)| (f32::from(a), f32::from(b))).unzip();
            check(&a, &b);
        }
    }
}
