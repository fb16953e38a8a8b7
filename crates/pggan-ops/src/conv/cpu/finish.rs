//! What follows a convolution, done to each task's outputs while they are still in its cache: a pass
//! over memory of its own would take longer than the arithmetic.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::cells::{Cell, rows_per_task};
use crate::pool;

/// [`super::super::Finish`] on slices.
#[derive(Clone, Copy)]
pub(crate) enum Finish<'a> {
    Nothing,
    /// `lrelu(x + bias)`, for `bias` `[c]`.
    Activate {
        bias: &'a [f32],
        slope: f32,
    },
    /// `x` times leaky ReLU's slope where it gave `y`, which is of the output's size.
    Slopes {
        y: &'a [f32],
        slope: f32,
    },
}

/// Floats of repeated biases that narrow pixels are taken in.
const PATTERN: usize = 256;

impl Finish<'_> {
    /// Whether it fits an output of so many pixels and channels.
    pub(super) fn fits(self, pixels: usize, channels: usize) -> bool {
        match self {
            Self::Nothing => true,
            Self::Activate { bias, .. } => bias.len() == channels,
            Self::Slopes { y, .. } => y.len() == pixels * channels,
        }
    }

    /// Finishes the cell that starts at pixel `first` of the output and holds these channels of it.
    pub(super) fn cell(self, first: usize, channels: Range<usize>, mut cell: Cell<'_>) {
        match self {
            Self::Nothing => {}
            Self::Activate { bias, slope } if cell.is_whole() => {
                let bias = bias.repeat(PATTERN.div_ceil(bias.len().max(1)));
                Arch::new().dispatch(Activate { x: cell.whole(), bias: &bias, slope });
            }
            Self::Activate { bias, slope } => {
                for r in 0..cell.rows() {
                    let bias = &bias[channels.clone()];
                    Arch::new().dispatch(Activate { x: cell.row(r), bias, slope });
                }
            }
            Self::Slopes { y, slope } if cell.is_whole() => {
                let x = cell.whole();
                let y = &y[first * channels.len()..][..x.len()];
                Arch::new().dispatch(Slopes { x, y, slope });
            }
            Self::Slopes { y, slope } => {
                for r in 0..cell.rows() {
                    let y = &y[(first + r) * cell.stride()..][channels.clone()];
                    Arch::new().dispatch(Slopes { x: cell.row(r), y, slope });
                }
            }
        }
    }

    /// Finishes an output that was made without.
    pub(super) fn all(self, mut output: Vec<f32>, channels: usize) -> Vec<f32> {
        let run = rows_per_task(channels) * channels.max(1);
        pool::for_each_of(output.chunks_mut(run).enumerate(), |(i, x)| match self {
            Self::Nothing => {}
            Self::Activate { bias, slope } => Arch::new().dispatch(Activate { x, bias, slope }),
            Self::Slopes { y, slope } => {
                Arch::new().dispatch(Slopes { y: &y[i * run..][..x.len()], x, slope });
            }
        });
        output
    }
}

struct Activate<'a> {
    x: &'a mut [f32],
    /// Of `x`'s first floats, and again of those that follow.
    bias: &'a [f32],
    slope: f32,
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.x.chunks_mut(self.bias.len()) {
            for (x, bias) in x.iter_mut().zip(self.bias) {
                let a = *x + bias;
                *x = a.max(a * self.slope);
            }
        }
    }
}

struct Slopes<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
    slope: f32,
}

impl WithSimd for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x *= if *y > 0.0 { 1.0 } else { self.slope };
        }
    }
}
