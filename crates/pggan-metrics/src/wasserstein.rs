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
//! pass counts and sums, and only the points of the few bins where the two distributions cross are sorted. The result
//! is the sorted one to within an ulp (f32) of the points themselves, by which one may fall on the wrong side of an edge.

use pulp::{Arch, Simd, WithSimd};

/// The table of bins and the slots of crossing ones stay in the second-level cache.
const BINS: usize = 1 << 14;
/// Half of them lie below the centre.
const HALF: f32 = (BINS / 2) as f32;
/// Points of each sample, at most, by which the bins are laid.
const PROBES: usize = 1 << 10;

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    a: u32,
    b: u32,
    /// Sum of the a's less the sum of the b's.
    sum: f64,
}

impl Bin {
    /// How much D grows.
    fn difference(&self) -> i64 {
        i64::from(self.a) - i64::from(self.b)
    }

    /// Whether D keeps its sign in this bin, which it enters as `d0`.
    fn is_one_sided(&self, d0: i64) -> bool {
        d0 >= i64::from(self.b) || d0 <= -i64::from(self.a)
    }
}

/// Memory used from call to call.
#[derive(Debug)]
pub(crate) struct Workspace {
    bins: Vec<Bin>,
    /// The bins in which D may change its sign, and their points as keys.
    crossing: Vec<bool>,
    a: Vec<u32>,
    b: Vec<u32>,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self {
            bins: vec![Bin::default(); BINS],
            crossing: vec![false; BINS],
            a: Vec::new(),
            b: Vec::new(),
        }
    }

    /// The distance of two samples of the same size, at least one and finite.
    pub(crate) fn distance(&mut self, a: &[f32], b: &[f32]) -> f64 {
        debug_assert_eq!(a.len(), b.len());
        let grid = Grid::over(a, b);
        self.count(grid, a, b);
        let one_sided = self.integrate_one_sided(grid);
        let points = a.len() as f64;
        let a = select(a, grid, &self.crossing, &mut self.a);
        let b = select(b, grid, &self.crossing, &mut self.b);
        (one_sided + integrate_crossing(&self.bins, &self.crossing, grid, a, b)) / points
    }

    fn count(&mut self, grid: Grid, a: &[f32], b: &[f32]) {
        self.bins.fill(Bin::default());
        let bins: &mut [Bin; BINS] =
            self.bins.as_mut_slice().try_into().expect("made with this length");
        for_each_bin(a, grid, |x, bin| {
            let bin = &mut bins[bin % BINS];
            bin.a += 1;
            bin.sum += f64::from(x);
        });
        for_each_bin(b, grid, |x, bin| {
            let bin = &mut bins[bin % BINS];
            bin.b += 1;
            bin.sum -= f64::from(x);
        });
    }

    /// Integrates over the bins where D keeps its sign and marks the others.
    fn integrate_one_sided(&mut self, grid: Grid) -> f64 {
        let (mut integral, mut d0, mut e0) = (0.0, 0, grid.edge(0));
        for (k, (bin, crossing)) in self.bins.iter().zip(&mut self.crossing).enumerate() {
            let (d1, e1) = (d0 + bin.difference(), grid.edge(k + 1));
            *crossing = !bin.is_one_sided(d0);
            if !*crossing {
                integral += (d1 as f64 * e1 - d0 as f64 * e0 - bin.sum).abs();
            }
            (d0, e0) = (d1, e1);
        }
        integral
    }
}

/// Integrates over the marked bins, whose points are in `a` and `b` in order.
fn integrate_crossing(
    bins: &[Bin],
    marked: &[bool],
    grid: Grid,
    mut a: &[u32],
    mut b: &[u32],
) -> f64 {
    let (mut integral, mut d0) = (0.0, 0);
    for (k, (bin, &marked)) in bins.iter().zip(marked).enumerate() {
        if marked {
            // Bins keep the order of their points, so each bin's points lie together, bin after bin.
            let (here_a, here_b);
            (here_a, a) = a.split_at(bin.a as usize);
            (here_b, b) = b.split_at(bin.b as usize);
            integral += integrate_sorted(here_a, here_b, d0, grid.edge(k), grid.edge(k + 1));
        }
        d0 += bin.difference();
    }
    integral
}

/// Collects the points of marked bins and sorts them, as keys.
fn select<'a>(points: &[f32], grid: Grid, marked: &[bool], memory: &'a mut Vec<u32>) -> &'a [u32] {
    let marked: &[bool; BINS] = marked.try_into().expect("made with this length");
    if memory.len() <= points.len() {
        memory.resize(points.len() + 1, 0);
    }
    let mut kept = 0;
    // Without a branch, which could not be foreseen.
    for_each_bin(points, grid, |x, bin| {
        memory[kept] = to_key(x);
        kept += usize::from(marked[bin % BINS]);
    });
    memory[..kept].sort_unstable();
    &memory[..kept]
}

/// An integer in the same order as the number: such are sorted twice as fast.
fn to_key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn from_key(key: u32) -> f64 {
    f64::from(f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key }))
}

/// `∫ |D(x)| dx` from `e0`, where D is `d`, to `e1`, with the keys of the points between in order.
fn integrate_sorted(mut a: &[u32], mut b: &[u32], mut d: i64, e0: f64, e1: f64) -> f64 {
    let (mut integral, mut at) = (0.0, e0);
    loop {
        let (next, step) = match (a.split_first(), b.split_first()) {
            (Some((&x, rest)), other) if other.is_none_or(|(&y, _)| x <= y) => {
                a = rest;
                (from_key(x), 1)
            }
            (_, Some((&y, rest))) => {
                b = rest;
                (from_key(y), -1)
            }
            _ => return integral + d.abs() as f64 * (e1 - at),
        };
        integral += d.abs() as f64 * (next - at);
        (at, d) = (next, d + step);
    }
}

/// Bins of about the same number of points, by the distribution function `(1 + u / (1 + |u|)) / 2` of
/// `u = (x - centre) / scale`: flat within a factor of two for normal and for Laplacian samples, and patch projections
/// lie between these. It reaches from -∞ to ∞, as do the bins.
#[derive(Debug, Clone, Copy)]
struct Grid {
    centre: f32,
    per_scale: f32,
}

impl Grid {
    fn over(a: &[f32], b: &[f32]) -> Self {
        let probes =
            || [a, b].into_iter().flat_map(|s| s.iter().step_by(s.len().div_ceil(PROBES).max(1)));
        let count = probes().count() as f32;
        let centre = probes().sum::<f32>() / count;
        let scale = probes().map(|x| (x - centre).abs()).sum::<f32>() / count;
        let per_scale = 1.0 / scale;
        if per_scale.is_normal() {
            Self { centre, per_scale }
        } else {
            Self { centre: 0.0, per_scale: 1.0 }
        }
    }

    /// Where bin `k` begins; the first and the last edge, at infinity, are cut off: D is 0 there.
    fn edge(self, k: usize) -> f64 {
        let from_middle = (k.clamp(1, BINS - 1) as f64 - 0.5) / f64::from(HALF) - 1.0;
        let u = (1.0 / (1.0 - from_middle.abs()) - 1.0).copysign(from_middle);
        f64::from(self.centre) + u / f64::from(self.per_scale)
    }
}

/// Finds the bins of a few points. Every step keeps order, whatever it rounds: bins hold intervals.
struct FindBins<'a> {
    grid: Grid,
    points: &'a [f32],
    bins: &'a mut [u16],
}

impl WithSimd for FindBins<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // Added to a small number, 2^23 leaves it rounded in the lowest bits; casts of f32 are not vectorised.
        const MIDDLE: f32 = (1_u32 << 23) as f32 + HALF;
        for (bin, &x) in self.bins.iter_mut().zip(self.points) {
            let u = (x - self.grid.centre) * self.grid.per_scale;
            let from_middle = (1.0 - 1.0 / (1.0 + u.abs())).copysign(u);
            *bin = (MIDDLE + (HALF * from_middle).min(HALF - 1.0)).to_bits() as u16;
        }
    }
}

/// Calls `each` with every point and its bin.
fn for_each_bin(points: &[f32], grid: Grid, mut each: impl FnMut(f32, usize)) {
    let arch = Arch::new();
    let mut bins = [0; 256];
    for points in points.chunks(bins.len()) {
        arch.dispatch(FindBins { grid, points, bins: &mut bins });
        for (&x, &bin) in points.iter().zip(&bins) {
            each(x, usize::from(bin));
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
        let mut workspace = Workspace::new();
        for _ in 0..2 {
            let found = workspace.distance(a, b);
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
