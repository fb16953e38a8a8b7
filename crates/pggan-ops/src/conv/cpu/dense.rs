//! 1x1 convolutions and dense layers: one product of pixels with weights, both read where they lie.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::few;
use super::filters::{Filters, Panels};
use super::finish::Finish;
use super::scratch::Scratch;
use super::simd::{self, Panel, Target, Walk, Widths};
use crate::cells::{self, Cell, Matrix};
use crate::pool;

/// Pixels of one task; a multiple of the register block's rows.
const PIXELS: usize = 96;
/// Channels that one product sums over: a panel's weights then stay in the cache for all pixels of
/// a task.
const DEPTH: usize = 512;
/// Tasks that are wanted before pixels are preferred to stay in one piece.
const TASKS: usize = 16;

/// `[pixels, inputs]` to `[pixels, outputs]`.
pub(super) fn forward(filters: &Filters, x: &[f32], finish: Finish<'_>) -> Vec<f32> {
    let Panels { inputs, outputs, widths } = filters.panels;
    let pixels = x.len() / inputs;
    if let Some(group) = few::group(pixels, inputs, outputs) {
        let rows = filters.taps(0, 0).chunks_exact(filters.panels.width(0));
        let weights: Vec<f32> = rows.flat_map(|row| &row[..outputs]).copied().collect();
        return few::apply(group, x, inputs, outputs, &weights, finish);
    }
    let bounds: Vec<usize> = (0..pixels).step_by(PIXELS).chain([pixels]).collect();
    let width = if bounds.len() > TASKS { outputs } else { 64 };
    let mut y = Matrix::new(pixels, outputs);
    y.append(&bounds, width.next_multiple_of(widths.panel), |block, columns, mut cell| {
        let x = &x[bounds[block] * inputs..bounds[block + 1] * inputs];
        let (out, range) = (cell.reborrow(), columns.clone());
        Arch::new().dispatch(Forward { filters, x, columns: range, cell: out });
        finish.cell(bounds[block], columns, cell);
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
        let panels = self.filters.panels;
        let Panels { inputs, widths, .. } = panels;
        let count = self.x.len() / inputs;
        let mut sums = Scratch::new(count * widths.panel);
        for panel in self.columns.start / widths.panel..self.columns.end.div_ceil(widths.panel) {
            let width = panels.width(panel);
            for first in (0..inputs).step_by(DEPTH) {
                let depth = DEPTH.min(inputs - first);
                let weights =
                    Panel { data: self.filters.taps(panel, first), stride: width, width, depth };
                let row = |r: usize| &self.x[r * inputs + first..][..depth];
                let target = Target { data: &mut sums, stride: width, add: first > 0 };
                simd::product(simd, count, row, Walk::straight(1), weights, target);
            }
            let columns = panels.columns(panel);
            let at = columns.start - self.columns.start;
            for (r, sums) in sums.chunks_exact(width).take(count).enumerate() {
                self.cell.row(r)[at..][..columns.len()].copy_from_slice(&sums[..columns.len()]);
            }
        }
    }
}

/// Pixels up to which the stored weights are read as they are: packing them would cost more than the
/// product.
pub(super) const FEW: usize = 64;

/// `[pixels, inputs]` to `[pixels, outputs]` for a few pixels, by the stored weights
/// `[outputs][inputs]` times `scale`: the pixels are turned instead of the weights.
pub(super) fn forward_few(
    weight: &[f32],
    x: &[f32],
    inputs: usize,
    outputs: usize,
    scale: f32,
    finish: Finish<'_>,
) -> Vec<f32> {
    let pixels = x.len() / inputs;
    let widths = Widths::of_this_processor();
    let panel = widths.panel.min(widths.padded(pixels));
    let mut turned = Scratch::new(pixels.div_ceil(panel) * inputs * panel);
    let len = inputs * panel;
    pool::for_each_of(turned.chunks_mut(len).zip(x.chunks(len)), |(turned, x)| {
        for (k, row) in turned.chunks_exact_mut(panel).enumerate() {
            row.fill(0.0);
            row.iter_mut().zip(x[k..].iter().step_by(inputs)).for_each(|(y, x)| *y = *x);
        }
    });
    let mut y = Matrix::new(pixels, outputs);
    y.append(&[0, pixels], OUTPUTS, |_, columns, mut cell| {
        let weight = &weight[columns.start * inputs..columns.end * inputs];
        let (turned, out) = ((&*turned, panel), cell.reborrow());
        Arch::new().dispatch(Few { weight, inputs, turned, scale, cell: out });
        finish.cell(0, columns, cell);
    });
    y.into_vec()
}

struct Few<'a> {
    /// The rows of this task.
    weight: &'a [f32],
    inputs: usize,
    /// `[panel][input][pixel]`, and pixels of a panel.
    turned: (&'a [f32], usize),
    scale: f32,
    cell: Cell<'a>,
}

impl WithSimd for Few<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Self { weight, inputs, turned: (turned, width), scale, .. } = self;
        let outputs = weight.len() / inputs;
        let mut sums = Scratch::new(outputs * width);
        for (block, turned) in turned.chunks_exact(inputs * width).enumerate() {
            for first in (0..inputs).step_by(DEPTH) {
                let depth = DEPTH.min(inputs - first);
                let panel = Panel { data: &turned[first * width..], stride: width, width, depth };
                let row = |o: usize| &weight[o * inputs + first..][..depth];
                let target = Target { data: &mut sums, stride: width, add: first > 0 };
                simd::product(simd, outputs, row, Walk::straight(1), panel, target);
            }
            for pixel in 0..width.min(self.cell.rows() - block * width) {
                let row = self.cell.row(block * width + pixel);
                for (out, sum) in row.iter_mut().zip(sums[pixel..].iter().step_by(width)) {
                    *out = sum * scale;
                }
            }
        }
    }
}

/// The gradient `[pixels, inputs]` of the input, from `[pixels, outputs]` and the stored weights
/// `[outputs][inputs]`, times `scale`.
pub(super) fn input_grad(
    weight: &[f32],
    dy: &[f32],
    inputs: usize,
    outputs: usize,
    scale: f32,
    finish: Finish<'_>,
) -> Vec<f32> {
    let pixels = dy.len() / outputs;
    if let Some(group) = few::group(pixels, outputs, inputs) {
        let weights: Vec<f32> = weight.iter().map(|weight| weight * scale).collect();
        return few::apply(group, dy, outputs, inputs, &weights, finish);
    }
    let bounds: Vec<usize> = (0..pixels).step_by(PIXELS).chain([pixels]).collect();
    let panel = Widths::of_this_processor().panel;
    let width = if bounds.len() > TASKS { inputs } else { 64 };
    let mut dx = Matrix::new(pixels, inputs);
    dx.append(&bounds, width.next_multiple_of(panel), |block, columns, mut cell| {
        let dy = &dy[bounds[block] * outputs..bounds[block + 1] * outputs];
        Arch::new().dispatch(InputGrad {
            weight: (weight, inputs),
            dy,
            outputs,
            scale,
            columns: columns.clone(),
            cell: cell.reborrow(),
        });
        finish.cell(bounds[block], columns, cell);
    });
    dx.into_vec()
}

struct InputGrad<'a> {
    weight: (&'a [f32], usize),
    /// The pixels of this task.
    dy: &'a [f32],
    outputs: usize,
    scale: f32,
    columns: Range<usize>,
    cell: Cell<'a>,
}

impl WithSimd for InputGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (weight, inputs) = self.weight;
        let count = self.dy.len() / self.outputs;
        let panel = Widths::of_this_processor().panel;
        let mut sums = Scratch::new(count * panel);
        let mut rows = Scratch::new(DEPTH.min(self.outputs) * panel);
        for left in self.columns.clone().step_by(panel) {
            let columns = left..(left + panel).min(self.columns.end);
            let width = columns.len().next_multiple_of(S::F32_LANES);
            for first in (0..self.outputs).step_by(DEPTH) {
                let depth = DEPTH.min(self.outputs - first);
                copy_panel(weight, inputs, first, &columns, (&mut rows[..depth * width], width));
                let weights = Panel { data: &rows, stride: width, width, depth };
                let row = |r: usize| &self.dy[r * self.outputs + first..][..depth];
                let target = Target { data: &mut sums, stride: width, add: first > 0 };
                simd::product(simd, count, row, Walk::straight(1), weights, target);
            }
            let at = left - self.columns.start;
            for (r, sums) in sums.chunks_exact(width).take(count).enumerate() {
                let row = &mut self.cell.row(r)[at..][..columns.len()];
                row.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * self.scale);
            }
        }
    }
}

/// Some columns of the rows from `first` on, one row after the other, filled up with zeros.
#[inline(always)]
fn copy_panel(
    from: &[f32],
    stride: usize,
    first: usize,
    columns: &Range<usize>,
    (panel, width): (&mut [f32], usize),
) {
    for (k, row) in panel.chunks_exact_mut(width).enumerate() {
        let (values, padding) = row.split_at_mut(columns.len());
        values.copy_from_slice(&from[(first + k) * stride..][columns.clone()]);
        padding.fill(0.0);
    }
}

/// Pixels that one product of the weight gradient sums over.
const RUN: usize = 256;
/// Output and input channels of one task of the weight gradient.
const OUTPUTS: usize = 48;
const INPUTS: usize = 512;
/// Columns below which a product wastes most of its vectors.
const LANES: usize = 16;

/// The gradient `[outputs, inputs]` of the weights, times `scale`: added to `into`, or else returned.
pub(super) fn weight_grad(
    x: &[f32],
    dy: &[f32],
    inputs: usize,
    outputs: usize,
    scale: f32,
    into: Option<&mut [f32]>,
) -> Option<Vec<f32>> {
    let add_or_return = |dw: Vec<f32>, into: Option<&mut [f32]>| match into {
        None => Some(dw),
        Some(sum) => {
            cells::add(sum, &dw);
            None
        }
    };
    // `[inputs][outputs]` to `[outputs][inputs]`.
    let turned = |dw: Vec<f32>, scale: f32| -> Vec<f32> {
        (0..outputs * inputs).map(|i| dw[i % inputs * outputs + i / inputs] * scale).collect()
    };
    let pixels = x.len() / inputs;
    if let Some(group) = few::group(pixels, inputs, outputs) {
        let dw = few::products(group, x, dy, inputs, outputs);
        return add_or_return(turned(dw, scale), into);
    }
    if inputs < outputs.min(LANES) {
        // The columns should be the many.
        let dw = weight_grad(dy, x, outputs, inputs, scale, None)?;
        return add_or_return(turned(dw, 1.0), into);
    }
    // A small layer on large images has too few weights to keep all threads busy: then the pixels
    // are cut as well.
    let tasks = inputs.div_ceil(INPUTS) * outputs.div_ceil(OUTPUTS);
    let parts = TASKS.div_ceil(tasks).min(pixels / (4 * RUN));
    let bounds: Vec<usize> = (0..outputs).step_by(OUTPUTS).chain([outputs]).collect();
    let task = |pixels: &Range<usize>, block: usize, columns, cell: Cell<'_>| {
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
    };
    match into {
        Some(sum) if parts <= 1 => {
            cells::update(sum, inputs, &bounds, INPUTS, |block, columns, cell| {
                task(&(0..pixels), block, columns, cell);
            });
            None
        }
        into => {
            let dw = cells::sum_of_parts(pixels, parts, RUN, |pixels| {
                let mut dw = Matrix::new(outputs, inputs);
                dw.append(&bounds, INPUTS, |block, columns, cell| {
                    task(&pixels, block, columns, cell);
                });
                dw.into_vec()
            });
            add_or_return(dw, into)
        }
    }
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
                copy_panel(x, inputs, first, &columns_here, (&mut run[..depth * width], width));
                let gradients = &dy[first * outputs + rows.start..];
                let panel = Panel { data: &run, stride: width, width, depth };
                let target = Target { data: &mut sums, stride: width, add: first > 0 };
                let walk = Walk::straight(outputs);
                simd::product(simd, rows.len(), |r| &gradients[r..], walk, panel, target);
            }
            let at = left - columns.start;
            for (r, sums) in sums.chunks_exact(width).take(rows.len()).enumerate() {
                let row = &mut self.cell.row(r)[at..][..columns_here.len()];
                for (out, sum) in row.iter_mut().zip(sums) {
                    *out += sum * self.scale;
                }
            }
        }
    }
}
