//! Weights in the order in which the kernels read them.

use std::fmt;
use std::ops::Range;

use crate::cells::Matrix;
use super::simd::Widths;

/// Weights cut into panels of output channels: `[panel][input channel][tap][column]`. Every panel
/// is as wide as a register block but the last, which is as wide as it must be, in whole vectors
/// filled up with zeros.
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

/// Input channels packed by one task, at most.
const BLOCK: usize = 16;

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
            for (j, o) in columns.enumerate() {
                let weight = &weight[at(o, rows.start)..at(o, rows.end)];
                for (out, value) in block.iter_mut().skip(j).step_by(width).zip(weight) {
                    *out = value * scale;
                }
            }
        })
    }

    /// The filters of the adjoint: inputs and outputs exchanged, taps turned by half a circle;
    /// times `scale`.
    pub(super) fn adjoint(&self, scale: f32) -> Self {
        let taps = self.taps;
        Self::build(self.inputs, self.outputs, taps, |columns, rows, block, width| {
            for (j, input) in columns.enumerate() {
                for tap in 0..taps {
                    let out =
                        block.iter_mut().skip((taps - 1 - tap) * width + j).step_by(taps * width);
                    // A block of rows never reaches across panels: its length divides theirs.
                    let panel = rows.start / self.widths.panel;
                    let weight = &self.taps(panel, input)[tap * self.width(panel)..]
                        [rows.start % self.widths.panel..];
                    for (out, value) in out.zip(weight) {
                        *out = value * scale;
                    }
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
        let widths = Widths::of_this_processor();
        let filters = Self { inputs, outputs, taps, widths, data: Vec::new() };
        let block = BLOCK.min(widths.panel);
        let blocks = inputs.div_ceil(block);
        let panels = outputs.div_ceil(widths.panel);
        let start = |panel: usize, row: usize| {
            (panel * widths.panel * inputs + row * filters.width(panel)) * taps
        };
        let end = widths.padded(outputs) * inputs * taps;
        let starts = (0..panels * blocks).map(|i| start(i / blocks, i % blocks * block));
        let bounds: Vec<usize> = starts.chain([end]).collect();
        let mut data = Matrix::new(end, 1);
        data.append(&bounds, 1, |i, _, mut cell| {
            let (panel, row) = (i / blocks, i % blocks * block);
            fill(
                filters.columns(panel),
                row..(row + block).min(inputs),
                cell.whole(),
                filters.width(panel),
            );
        });
        Self { data: data.into_vec(), ..filters }
    }

    /// The output channels of a panel.
    pub(super) fn columns(&self, panel: usize) -> Range<usize> {
        let first = panel * self.widths.panel;
        first..(first + self.widths.panel).min(self.outputs)
    }

    /// Columns of a panel, padding included.
    pub(super) fn width(&self, panel: usize) -> usize {
        self.widths.padded(self.columns(panel).len())
    }

    /// `[input channel][tap][column]` of a panel, from one input channel on.
    pub(super) fn taps(&self, panel: usize, input: usize) -> &[f32] {
        let start = panel * self.widths.panel * self.inputs * self.taps;
        let stride = self.taps * self.width(panel);
        &self.data[start + input * stride..start + self.inputs * stride]
    }
}
