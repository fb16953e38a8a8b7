//! 1x1 convolutions to or from very few channels: neighbouring pixels share a vector, as in `direct`.
//!
//! In memory, channels last, neighbouring pixels are one stretch. So `group` of them are a row of a
//! product with weights that stand side by side, and zeros elsewhere; no vector is left half empty, and
//! the outputs are written where they belong.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::finish::Finish;
use super::simd::{self, Panel, Target, Walk, Widths};
use crate::cells::{self, Matrix};

/// Rows of one task: a pass over memory.
const ROWS: usize = 64 * simd::ROWS;
/// Floats that the weights of a group may reach over, from the first pixel to the last.
const DEPTH: usize = 256;
/// Parts of the weight gradient's sum, for machines of many cores.
const PARTS: usize = 32;

/// Pixels that share a vector of `columns` each and have `depth` floats in the product's other
/// operand, if they can.
pub(super) fn group(pixels: usize, depth: usize, columns: usize) -> Option<usize> {
    let lanes = Widths::of_this_processor().lanes;
    let group = lanes.checked_div(columns)?;
    let fits = group * columns == lanes && pixels.is_multiple_of(group) && group * depth <= DEPTH;
    fits.then_some(group)
}

/// `[pixels, depth]` times `weights` `[depth][columns]`, for a [`group`] of pixels.
pub(super) fn apply(
    group: usize,
    x: &[f32],
    depth: usize,
    columns: usize,
    weights: &[f32],
    finish: Finish<'_>,
) -> Vec<f32> {
    let (lanes, wide) = (group * columns, group * depth);
    let mut panel = vec![0.0; wide * lanes];
    for pixel in 0..group {
        for (k, weights) in weights.chunks_exact(columns).enumerate() {
            let row = &mut panel[(pixel * depth + k) * lanes..][..lanes];
            row[pixel * columns..][..columns].copy_from_slice(weights);
        }
    }
    let rows = x.len() / wide;
    let bounds: Vec<usize> = (0..rows).step_by(ROWS).chain([rows]).collect();
    let mut y = Matrix::new(rows, lanes);
    y.append(&bounds, lanes, |task, _, mut cell| {
        let x = &x[bounds[task] * wide..bounds[task + 1] * wide];
        Arch::new().dispatch(Apply { x, wide, panel: &panel, y: cell.whole() });
        finish.cell(bounds[task] * group, 0..columns, cell);
    });
    y.into_vec()
}

struct Apply<'a> {
    x: &'a [f32],
    /// Floats of a group in `x`.
    wide: usize,
    panel: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, wide, panel, y } = self;
        let lanes = S::F32_LANES;
        let panel = Panel { data: panel, stride: lanes, width: lanes, depth: wide };
        let target = Target { data: y, stride: lanes, add: false };
        let row = |r: usize| &x[r * wide..][..wide];
        simd::product(simd, x.len() / wide, row, Walk::straight(1), panel, target);
    }
}

/// The sum over all pixels of `a` `[pixels, depth]` times `b` `[pixels, columns]`: `[depth][columns]`,
/// for a [`group`] of pixels.
pub(super) fn products(
    group: usize,
    a: &[f32],
    b: &[f32],
    depth: usize,
    columns: usize,
) -> Vec<f32> {
    let (lanes, wide) = (group * columns, group * depth);
    let sums = cells::sum_of_parts(b.len() / lanes, PARTS, ROWS, |rows| {
        let mut sums = vec![0.0; wide * lanes];
        Arch::new().dispatch(Products { a, b, wide, rows, sums: &mut sums });
        sums
    });
    // Pixels meet themselves in the blocks of the diagonal.
    let mut all = vec![0.0; depth * columns];
    for pixel in 0..group {
        for (k, all) in all.chunks_exact_mut(columns).enumerate() {
            let sums = &sums[(pixel * depth + k) * lanes + pixel * columns..];
            all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        }
    }
    all
}

struct Products<'a> {
    a: &'a [f32],
    b: &'a [f32],
    wide: usize,
    rows: Range<usize>,
    sums: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, wide, rows, sums } = self;
        let lanes = S::F32_LANES;
        let a = &a[rows.start * wide..rows.end * wide];
        let data = &b[rows.start * lanes..rows.end * lanes];
        let panel = Panel { data, stride: lanes, width: lanes, depth: rows.len() };
        let target = Target { data: sums, stride: lanes, add: false };
        simd::product(simd, wide, |r| &a[r..], Walk::straight(wide), panel, target);
    }
}
