//! Weights in the order in which the kernels read them.

use std::fmt;

use rayon::prelude::*;

use super::simd::Widths;

/// Weights cut into panels of output channels: `[panel][tap][input channel][column]`. Every panel is as wide as a
/// register block but the last, which is as wide as it must be, in whole vectors filled up with zeros.
pub(super) struct Filters {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// 1 or 9, row by row.
    pub(super) taps: usize,
    pub(super) widths: Widths,
    data: Vec<f32>,
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, outputs, taps, .. } = self;
        write!(f, "Filters({taps} taps, {inputs} -> {outputs})")
    }
}

/// Input channels packed by one task.
const BLOCK: usize = 16;

impl Filters {
    /// From `[outputs][inputs][taps]`, times `scale`.
    pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize, taps: usize, scale: f32) -> Self {
        assert_eq!(weight.len(), outputs * inputs * taps);
        Self::build(outputs, inputs, taps, |columns, rows, tap, out| {
            let width = out.len() / rows.len();
            for (j, o) in columns.enumerate() {
                let weight = &weight[(o * inputs + rows.start) * taps..][..rows.len() * taps];
                for (i, value) in weight.iter().skip(tap).step_by(taps).enumerate() {
                    out[i * width + j] = value * scale;
                }
            }
        })
    }

    /// The filters of the adjoint: inputs and outputs exchanged, taps turned by half a circle; times `scale`.
    pub(super) fn adjoint(&self, scale: f32) -> Self {
        Self::build(self.inputs, self.outputs, self.taps, |columns, rows, tap, out| {
            let width = out.len() / rows.len();
            let tap = self.taps - 1 - tap;
            for (i, o) in rows.enumerate() {
                let (panel, column) = (o / self.widths.panel, o % self.widths.panel);
                let (from, stride) = (self.tap(panel, tap), self.width(panel));
                for (j, input) in columns.clone().enumerate() {
                    out[i * width + j] = from[input * stride + column] * scale;
                }
            }
        })
    }

    /// `fill(columns, rows, tap, block)` writes the block `[row][width]` of one panel and tap.
    fn build(
        outputs: usize,
        inputs: usize,
        taps: usize,
        fill: impl Fn(std::ops::Range<usize>, std::ops::Range<usize>, usize, &mut [f32]) + Sync,
    ) -> Self {
        let widths = Widths::of_this_processor();
        let mut filters = Self { inputs, outputs, taps, widths, data: Vec::new() };
        let mut data = vec![0.0; widths.padded(outputs) * taps * inputs];
        data.par_chunks_mut(widths.panel * taps * inputs).enumerate().for_each(|(panel, data)| {
            let columns = filters.columns(panel);
            let width = filters.width(panel);
            data.par_chunks_mut(inputs * width).enumerate().for_each(|(tap, data)| {
                data.par_chunks_mut(BLOCK * width).enumerate().for_each(|(block, data)| {
                    let first = block * BLOCK;
                    fill(columns.clone(), first..first + data.len() / width, tap, data);
                });
            });
        });
        filters.data = data;
        filters
    }

    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(self.widths.panel)
    }

    /// The output channels of a panel.
    pub(super) fn columns(&self, panel: usize) -> std::ops::Range<usize> {
        let first = panel * self.widths.panel;
        first..(first + self.widths.panel).min(self.outputs)
    }

    /// Columns of a panel, padding included.
    pub(super) fn width(&self, panel: usize) -> usize {
        self.widths.padded(self.columns(panel).len())
    }

    /// `[input channel][column]` of one panel and tap.
    pub(super) fn tap(&self, panel: usize, tap: usize) -> &[f32] {
        let (width, taps) = (self.width(panel), self.taps);
        &self.data[(panel * self.widths.panel * taps + tap * width) * self.inputs..][..self.inputs * width]
    }
}
