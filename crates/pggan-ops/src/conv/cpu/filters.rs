//! Weights in the order in which the kernels read them.

use std::fmt;
use std::ops::Range;

use super::simd::Widths;
use crate::cells::Matrix;

/// Output channels cut into panels. Every panel is as wide as a register block but the last, which is
/// as wide as it must be, in whole vectors filled up with zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) widths: Widths,
}

impl Panels {
    fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, widths: Widths::of_this_processor() }
    }

    pub(super) fn count(self) -> usize {
        self.outputs.div_ceil(self.widths.panel)
    }

    /// The output channels of a panel.
    pub(super) fn columns(self, panel: usize) -> Range<usize> {
        let first = panel * self.widths.panel;
        first..(first + self.widths.panel).min(self.outputs)
    }

    /// Columns of a panel, padding included.
    pub(super) fn width(self, panel: usize) -> usize {
        self.widths.padded(self.columns(panel).len())
    }
}

/// Weights in panels of output channels: `[panel][input channel][tap][column]`.
pub(super) struct Filters {
    pub(super) panels: Panels,
    /// 1 or 9, row by row.
    pub(super) taps: usize,
    data: Vec<f32>,
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { panels: Panels { inputs, outputs, .. }, taps, .. } = self;
        write!(f, "Filters({taps} taps, {inputs} -> {outputs})")
    }
}

/// Columns turned at a time: a line of the cache.
const LINE: usize = 16;

/// `0..count` in runs of [`LINE`]: where each starts, and its length.
fn runs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(LINE).map(move |first| (first, LINE.min(count - first)))
}

/// `out[r * stride + j] = row(j)[r] * scale` for `columns` rows, at most [`LINE`]: by way of a small
/// buffer, so that source and target meet the memory in whole lines.
fn turn<'a>(
    columns: usize,
    row: impl Fn(usize) -> &'a [f32],
    scale: f32,
    out: &mut [f32],
    stride: usize,
) {
    const RUN: usize = 64;
    let mut buffer = [[0f32; LINE]; RUN];
    let len = row(0).len();
    for first in (0..len).step_by(RUN) {
        let some = RUN.min(len - first);
        for j in 0..columns {
            for (buffer, value) in buffer.iter_mut().zip(&row(j)[first..][..some]) {
                buffer[j] = value * scale;
            }
        }
        for (r, buffer) in buffer[..some].iter().enumerate() {
            let out = &mut out[(first + r) * stride..];
            if columns == LINE {
                out[..LINE].copy_from_slice(buffer);
            } else {
                out[..columns].copy_from_slice(&buffer[..columns]);
            }
        }
    }
}

impl Filters {
    /// From `[outputs][inputs][taps]`, times `scale`.
    pub(super) fn pack(
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        taps: usize,
        scale: f32,
    ) -> Self {
        assert_eq!(weight.len(), outputs * inputs * taps);
        Self::build(outputs, inputs, taps, |columns, rows, block, width| {
            let at = |column: usize, row: usize| (column * inputs + row) * taps;
            for (first, some) in runs(columns.len()) {
                let row = |j: usize| {
                    let o = columns.start + first + j;
                    &weight[at(o, rows.start)..at(o, rows.end)]
                };
                turn(some, row, scale, &mut block[first..], width);
            }
        })
    }

    /// The filters of the adjoint, from the same weights `[inputs][outputs][taps]` (in terms of the
    /// adjoint's own inputs and outputs): taps turned by half a circle; times `scale`.
    pub(super) fn pack_adjoint(
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        taps: usize,
        scale: f32,
    ) -> Self {
        assert_eq!(weight.len(), outputs * inputs * taps);
        Self::build(outputs, inputs, taps, |columns, rows, block, width| {
            for (row, block) in rows.zip(block.chunks_exact_mut(taps * width)) {
                let weight = &weight[(row * outputs + columns.start) * taps..];
                let weight = &weight[..columns.len() * taps];
                for (tap, out) in block.chunks_exact_mut(width).enumerate() {
                    let weight = weight[taps - 1 - tap..].iter().step_by(taps);
                    out.iter_mut().zip(weight).for_each(|(out, value)| *out = value * scale);
                }
            }
        })
    }

    /// `fill(columns, rows, block, width)` writes the block `[row][tap][width]` of zeros, for
    /// output channels `columns` and input channels `rows`.
    fn build(
        outputs: usize,
        inputs: usize,
        taps: usize,
        fill: impl Fn(Range<usize>, Range<usize>, &mut [f32], usize) + Sync,
    ) -> Self {
        let panels = Panels::new(inputs, outputs);
        let (widths, count) = (panels.widths, panels.count());
        // Long runs of the weights, but two tasks at least.
        let block = inputs.div_ceil(2).clamp(1, widths.panel);
        let blocks = inputs.div_ceil(block);
        let start = |panel: usize, row: usize| {
            (panel * widths.panel * inputs + row * panels.width(panel)) * taps
        };
        let end = widths.padded(outputs) * inputs * taps;
        let starts = (0..count * blocks).map(|i| start(i / blocks, i % blocks * block));
        let bounds: Vec<usize> = starts.chain([end]).collect();
        let mut data = Matrix::new(end, 1);
        data.append(&bounds, 1, |i, _, mut cell| {
            let (panel, row) = (i / blocks, i % blocks * block);
            fill(
                panels.columns(panel),
                row..(row + block).min(inputs),
                cell.whole(),
                panels.width(panel),
            );
        });
        Self { panels, taps, data: data.into_vec() }
    }

    /// `[input channel][tap][column]` of a panel, from one input channel on.
    pub(super) fn taps(&self, panel: usize, input: usize) -> &[f32] {
        let Panels { inputs, widths, .. } = self.panels;
        let start = panel * widths.panel * inputs * self.taps;
        let stride = self.taps * self.panels.width(panel);
        &self.data[start + input * stride..start + inputs * stride]
    }
}
