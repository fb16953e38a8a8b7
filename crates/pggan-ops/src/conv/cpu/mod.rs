//! The convolution engine of the CPU: slices in, slices out, `f32`, channels last.
//!
//! [`Packed`] holds a layer's weights as the kernels read them. 1x1 kernels are plain products
//! (`dense`), 3x3 kernels take Winograd's way (`winograd`) in tiles that `plan` chooses by shape;
//! both on one register-blocked product (`simd`). The gradient with respect to the input is the
//! same with the adjoint weights.
//!
//! Work is cut into tasks by shape alone, and every sum has a fixed order: results don't depend on
//! the threads.

#![expect(
    clippy::inline_always,
    clippy::needless_range_loop,
    reason = "vector code must end up in the function that was compiled for the vectors, without closures between"
)]

mod cells;
mod dense;
mod filters;
mod plan;
mod scratch;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;

use std::sync::OnceLock;

use super::Resample;
use filters::Filters;

/// A convolution's channels, kernel edge (3, or 1 with `Resample::Same`) and change of resolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) ci: usize,
    pub(crate) co: usize,
    pub(crate) k: usize,
    pub(crate) resample: Resample,
}

/// `[n, h, w, c]` without the channels.
#[derive(Clone, Copy, Debug)]
struct Size {
    n: usize,
    h: usize,
    w: usize,
}

impl Size {
    fn pixels(self) -> usize {
        self.n * self.h * self.w
    }

    fn after(self, resample: Resample) -> Self {
        let Self { n, h, w } = self;
        match resample {
            Resample::Same => self,
            Resample::Up => Self { n, h: 2 * h, w: 2 * w },
            Resample::Down => Self { n, h: h / 2, w: w / 2 },
        }
    }
}

/// Weights ready for the kernels.
#[derive(Debug)]
pub(crate) struct Packed {
    spec: Spec,
    filters: Filters,
    /// Made when first wanted.
    adjoint: OnceLock<Filters>,
}

impl Packed {
    /// `weight`: `[co, ci, k, k]`, multiplied by `scale` on the way.
    pub(crate) fn new(weight: &[f32], scale: f32, spec: Spec) -> Self {
        let filters = Filters::pack(weight, spec.co, spec.ci, spec.k * spec.k, scale);
        Self { spec, filters, adjoint: OnceLock::new() }
    }

    /// `x` `[n, h, w, ci]` to `[n, h', w', co]`.
    pub(crate) fn forward(&self, x: &[f32], n: usize, h: usize, w: usize) -> Vec<f32> {
        apply(&self.filters, self.spec.resample, x, Size { n, h, w })
    }

    /// `dy` `[n, h', w', co]` to the gradient `[n, h, w, ci]` of an input of `h` x `w` pixels.
    pub(crate) fn input_grad(&self, dy: &[f32], n: usize, h: usize, w: usize) -> Vec<f32> {
        // The adjoint of repeating a pixel four times sums four, four times their mean; that of the
        // mean repeats a quarter.
        let (resample, factor) = match self.spec.resample {
            Resample::Same => (Resample::Same, 1.0),
            Resample::Up => (Resample::Down, 4.0),
            Resample::Down => (Resample::Up, 0.25),
        };
        let size = Size { n, h, w }.after(self.spec.resample);
        let adjoint = self.adjoint.get().unwrap_or_else(|| {
            // Made outside the lock: its tasks may pick up others that want the same.
            let adjoint = self.filters.adjoint(factor);
            self.adjoint.get_or_init(|| adjoint)
        });
        apply(adjoint, resample, dy, size)
    }
}

fn apply(filters: &Filters, resample: Resample, x: &[f32], size: Size) -> Vec<f32> {
    assert_eq!(x.len(), size.pixels() * filters.inputs, "input of another size");
    if x.is_empty() || filters.outputs == 0 {
        return vec![0.0; size.after(resample).pixels() * filters.outputs];
    }
    match filters.taps {
        1 => dense::forward(filters, x),
        _ => winograd::apply(filters, plan::tile(resample, size), resample, x, size),
    }
}

/// The gradient `[co, ci, k, k]` of the weights, times `scale`, for `x` `[n, h, w, ci]` and `dy`
/// `[n, h', w', co]`.
pub(crate) fn weight_grad(
    x: &[f32],
    dy: &[f32],
    n: usize,
    h: usize,
    w: usize,
    spec: Spec,
    scale: f32,
) -> Vec<f32> {
    let Spec { ci, co, k, resample } = spec;
    let size = Size { n, h, w };
    assert_eq!(x.len(), size.pixels() * ci, "input of another size");
    assert_eq!(dy.len(), size.after(resample).pixels() * co, "gradient of another size");
    if x.is_empty() || dy.is_empty() {
        return vec![0.0; co * ci * k * k];
    }
    match k {
        1 => dense::weight_grad(x, dy, ci, co, scale),
        _ => winograd::weight_grad(plan::tile(resample, size), spec, x, dy, size, scale),
    }
}
