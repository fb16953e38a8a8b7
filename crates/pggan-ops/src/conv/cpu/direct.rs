//! Convolution as it is defined: for each tap a product of pixels with weights, read where they lie. It serves
//! 1x1 convolutions, dense layers, and 3x3 ones too small for a transform to pay.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::cells::{Cell, Matrix};
use super::filters::Filters;
use super::scratch::Scratch;
use super::simd::{self, Panel, Target, Widths};

/// Pixels of one task; a multiple of the register block's rows.
const PIXELS: usize = 96;
/// Channels that one product sums over, so that a panel's part stays in the cache for all rows.
const DEPTH: usize = 512;
/// Least number of columns of one task.
const COLUMNS: usize = 64;

/// `[n, h, w, c]` without the channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) n: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

impl Size {
    pub(super) fn pixels(self) -> usize {
        self.n * self.h * self.w
    }

    /// The pixel that a tap of a centred 3x3 kernel (or the only tap of a 1x1 kernel) meets, if it is one.
    fn neighbour(self, pixel: usize, taps: usize, tap: usize) -> Option<usize> {
        if taps == 1 {
            return Some(pixel);
        }
        let (x, y) = (pixel % self.w, pixel / self.w % self.h);
        let (tx, ty) = (tap % 3, tap / 3);
        let inside = (1..=self.w).contains(&(x + tx)) && (1..=self.h).contains(&(y + ty));
        inside.then(|| pixel + ty * self.w + tx - self.w - 1)
    }
}

/// `[n, h, w, inputs]` to `[n, h, w, outputs]`.
pub(super) fn forward(filters: &Filters, x: &[f32], size: Size) -> Vec<f32> {
    let pixels = size.pixels();
    let zeros = vec![0.0; filters.inputs];
    let bounds: Vec<usize> = (0..pixels).step_by(PIXELS).chain([pixels]).collect();
    let mut y = Matrix::new(pixels, filters.outputs);
    y.append(&bounds, COLUMNS.next_multiple_of(filters.widths.panel), |block, columns, cell| {
        let first = bounds[block];
        let count = bounds[block + 1] - first;
        Arch::new().dispatch(Forward { filters, x, size, zeros: &zeros, first, count, columns, cell });
    });
    y.into_vec()
}

struct Forward<'a> {
    filters: &'a Filters,
    x: &'a [f32],
    size: Size,
    zeros: &'a [f32],
    first: usize,
    count: usize,
    columns: std::ops::Range<usize>,
    cell: Cell<'a>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Filters { inputs, taps, widths, .. } = *self.filters;
        let mut sums = Scratch::new(self.count * widths.panel);
        let mut rows = [None; PIXELS];
        for panel in self.columns.start / widths.panel..self.columns.end.div_ceil(widths.panel) {
            let width = self.filters.width(panel);
            let mut add = false;
            for tap in 0..taps {
                for (r, row) in rows[..self.count].iter_mut().enumerate() {
                    *row = self.size.neighbour(self.first + r, taps, tap);
                }
                let weights = self.filters.tap(panel, tap);
                for depth in (0..inputs).step_by(DEPTH) {
                    let row = |r: usize| {
                        let row = rows[r].map_or(self.zeros, |pixel| &self.x[pixel * inputs..][..inputs]);
                        &row[depth..]
                    };
                    let panel = Panel {
                        data: &weights[depth * width..],
                        stride: width,
                        width,
                        depth: DEPTH.min(inputs - depth),
                    };
                    simd::product(simd, self.count, row, 1, panel, Target { data: &mut sums, stride: width, add });
                    add = true;
                }
            }
            let columns = self.filters.columns(panel);
            let at = columns.start - self.columns.start;
            for (r, sums) in sums.chunks_exact(width).take(self.count).enumerate() {
                self.cell.row(r)[at..][..columns.len()].copy_from_slice(&sums[..columns.len()]);
            }
        }
    }
}

/// Pixels that one product of the weight gradient sums over.
const RUN: usize = 256;
/// Output channels of one task of the weight gradient.
const OUTPUTS: usize = 96;

/// The gradient `[outputs][inputs][taps]` of the weights, times `scale`.
#[expect(clippy::too_many_arguments, reason = "two tensors and their shapes")]
pub(super) fn weight_grad(
    x: &[f32],
    dy: &[f32],
    size: Size,
    inputs: usize,
    outputs: usize,
    taps: usize,
    scale: f32,
) -> Vec<f32> {
    let widths = Widths::of_this_processor();
    let pixels = size.pixels();
    // A small layer on large images has too few weights to keep all threads busy: then the pixels are cut as well,
    // by shape alone so that the sum's order never depends on the threads.
    let tasks = inputs.div_ceil(widths.panel) * outputs.div_ceil(OUTPUTS);
    let parts = (32 / tasks).min(pixels / (4 * RUN)).max(1);
    let step = pixels.div_ceil(parts).next_multiple_of(RUN);

    let bounds: Vec<usize> = (0..outputs).step_by(OUTPUTS).chain([outputs]).collect();
    let partial = |part: usize| {
        let mut dw = Matrix::new(outputs, inputs * taps);
        let range = (part * step).min(pixels)..((part + 1) * step).min(pixels);
        dw.append(&bounds, widths.panel * taps, |block, columns, cell| {
            Arch::new().dispatch(WeightGrad {
                x,
                dy,
                size,
                inputs: columns.start / taps..columns.end / taps,
                outputs: bounds[block]..bounds[block + 1],
                taps,
                channels: (inputs, outputs),
                pixels: range.clone(),
                scale,
                cell,
            });
        });
        dw.into_vec()
    };
    let partials: Vec<Vec<f32>> = (0..parts).into_par_iter().map(partial).collect();
    partials.into_iter().reduce(|mut sum, part| {
        sum.par_chunks_mut(1 << 14).zip(part.par_chunks(1 << 14)).for_each(|(sum, part)| {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        });
        sum
    }).expect("there is at least one part")
}

struct WeightGrad<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    size: Size,
    inputs: std::ops::Range<usize>,
    outputs: std::ops::Range<usize>,
    taps: usize,
    /// Of `x` and of `dy`.
    channels: (usize, usize),
    pixels: std::ops::Range<usize>,
    scale: f32,
    cell: Cell<'a>,
}

impl WithSimd for WeightGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (columns, count) = (self.inputs.len(), self.outputs.len());
        let width = columns.next_multiple_of(S::F32_LANES);
        let mut sums = Scratch::new(self.taps * count * width);
        let mut run = Scratch::new(RUN * width);
        let mut add = false;
        if self.pixels.is_empty() {
            return;
        }
        for first in self.pixels.clone().step_by(RUN) {
            let depth = RUN.min(self.pixels.end - first);
            let gradients = &self.dy[first * self.channels.1 + self.outputs.start..];
            for (tap, sums) in sums.chunks_exact_mut(count * width).enumerate() {
                for (k, run) in run.chunks_exact_mut(width).take(depth).enumerate() {
                    run.fill(0.0);
                    if let Some(pixel) = self.size.neighbour(first + k, self.taps, tap) {
                        let x = &self.x[pixel * self.channels.0..][self.inputs.clone()];
                        run[..columns].copy_from_slice(x);
                    }
                }
                let panel = Panel { data: &run, stride: width, width, depth };
                let row = |r: usize| &gradients[r..];
                simd::product(simd, count, row, self.channels.1, panel, Target { data: sums, stride: width, add });
            }
            add = true;
        }
        for r in 0..count {
            let row = self.cell.row(r);
            for (tap, sums) in sums.chunks_exact(count * width).enumerate() {
                let sums = &sums[r * width..][..columns];
                for (out, sum) in row.iter_mut().skip(tap).step_by(self.taps).zip(sums) {
                    *out = sum * self.scale;
                }
            }
        }
    }
}
