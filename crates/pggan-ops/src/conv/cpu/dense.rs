//! 1x1 convolutions and dense layers: one product of pixels with weights, both read where they lie.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::cells::{self, Cell, Matrix};
use super::filters::Filters;
use super::scratch::Scratch;
use super::simd::{self, Panel, Target, Widths};

/// Pixels of one task; a multiple of the register block's rows.
const PIXELS: usize = 96;
/// Channels that one product sums over: a panel's weights then stay in the cache for all pixels of
/// a task.
const DEPTH: usize = 512;
/// Tasks that are wanted before pixels are preferred to stay in one piece.
const TASKS: usize = 16;

/// `[pixels, inputs]` to `[pixels, outputs]`.
pub(super) fn forward(filters: &Filters, x: &[f32]) -> Vec<f32> {
    let pixels = x.len() / filters.inputs;
    let bounds: Vec<usize> = (0..pixels).step_by(PIXELS).chain([pixels]).collect();
    let width = if bounds.len() > TASKS { filters.outputs } else { 64 };
    let mut y = Matrix::new(pixels, filters.outputs);
    y.append(&bounds, width.next_multiple_of(filters.widths.panel), |block, columns, cell| {
        let x = &x[bounds[block] * filters.inputs..bounds[block + 1] * filters.inputs];
        Arch::new().dispatch(Forward { filters, x, columns, cell });
    });
    y.into_vec()
}

struct Forward<'a> {
    filters: &'a Filters,
    /// The pixels of this task.
    x: &'a [f32],
    columns: Range<usize>,
    cell: Cell<'a>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Filters { inputs, widths, .. } = *self.filters;
        let count = self.x.len() / inputs;
        let mut sums = Scratch::new(count * widths.panel);
        for panel in self.columns.start / widths.panel..self.columns.end.div_ceil(widths.panel) {
            let width = self.filters.width(panel);
            for first in (0..inputs).step_by(DEPTH) {
                let depth = DEPTH.min(inputs - first);
                let weights =
                    Panel { data: self.filters.taps(panel, first), stride: width, width, depth };
                let row = |r: usize| &self.x[r * inputs + first..][..depth];
                let target = Target { data: &mut sums, stride: width, add: first > 0 };
                simd::product(simd, count, row, 1, weights, target);
            }
            let columns = self.filters.columns(panel);
            let at = columns.start - self.columns.start;
            for (r, sums) in sums.chunks_exact(width).take(count).enumerate() {
                self.cell.row(r)[at..][..columns.len()].copy_from_slice(&sums[..columns.len()]);
            }
        }
    }
}

/// Pixels that one product of the weight gradient sums over.
const RUN: usize = 256;
/// Output and input channels of one task of the weight gradient.
const OUTPUTS: usize = 48;
const INPUTS: usize = 512;
/// Columns below which a product wastes most of its vectors.
const LANES: usize = 16;

/// The gradient `[outputs, inputs]` of the weights, times `scale`.
pub(super) fn weight_grad(
    x: &[f32],
    dy: &[f32],
    inputs: usize,
    outputs: usize,
    scale: f32,
) -> Vec<f32> {
    if inputs < outputs.min(LANES) {
        // The columns should be the many.
        let transposed = weight_grad(dy, x, outputs, inputs, scale);
        return (0..outputs * inputs)
            .map(|i| transposed[i % inputs * outputs + i / inputs])
            .collect();
    }
    let pixels = x.len() / inputs;
    // A small layer on large images has too few weights to keep all threads busy: then the pixels
    // are cut as well.
    let tasks = inputs.div_ceil(INPUTS) * outputs.div_ceil(OUTPUTS);
    let parts = TASKS.div_ceil(tasks).min(pixels / (4 * RUN));
    let bounds: Vec<usize> = (0..outputs).step_by(OUTPUTS).chain([outputs]).collect();
    cells::sum_of_parts(pixels, parts, RUN, |pixels| {
        let mut dw = Matrix::new(outputs, inputs);
        dw.append(&bounds, INPUTS, |block, columns, cell| {
            Arch::new().dispatch(WeightGrad {
                x: (&x[pixels.start * inputs..pixels.end * inputs], inputs, columns),
                dy: (
                    &dy[pixels.start * outputs..pixels.end * outputs],
                    outputs,
                    bounds[block]..bounds[block + 1],
                ),
                scale,
                cell,
            });
        });
        dw.into_vec()
    })
}

struct WeightGrad<'a> {
    /// Pixels, their channels, and those of this task.
    x: (&'a [f32], usize, Range<usize>),
    dy: (&'a [f32], usize, Range<usize>),
    scale: f32,
    cell: Cell<'a>,
}

impl WithSimd for WeightGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (x, inputs, columns) = self.x;
        let (dy, outputs, rows) = self.dy;
        let pixels = x.len() / inputs;
        let panel = Widths::of_this_processor().panel;
        let mut sums = Scratch::new(OUTPUTS * panel);
        let mut run = Scratch::new(RUN * panel);
        for left in columns.clone().step_by(panel) {
            let columns_here = left..(left + panel).min(columns.end);
            let width = columns_here.len().next_multiple_of(S::F32_LANES);
            for first in (0..pixels).step_by(RUN) {
                let depth = RUN.min(pixels - first);
                for (k, run) in run.chunks_exact_mut(width).take(depth).enumerate() {
                    let (values, padding) = run.split_at_mut(columns_here.len());
                    values.copy_from_slice(&x[(first + k) * inputs..][columns_here.clone()]);
                    padding.fill(0.0);
                }
                let gradients = &dy[first * outputs + rows.start..];
                let panel = Panel { data: &run, stride: width, width, depth };
                let target = Target { data: &mut sums, stride: width, add: first > 0 };
                simd::product(simd, rows.len(), |r| &gradients[r..], outputs, panel, target);
            }
            let at = left - columns.start;
            for (r, sums) in sums.chunks_exact(width).take(rows.len()).enumerate() {
                let row = &mut self.cell.row(r)[at..][..columns_here.len()];
                for (out, sum) in row.iter_mut().zip(sums) {
                    *out = sum * self.scale;
                }
            }
        }
    }
}
