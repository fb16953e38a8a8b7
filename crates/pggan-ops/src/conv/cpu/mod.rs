//! The convolution engine of the CPU: slices in, slices out, `f32`, channels last.
//!
//! [`Packed`] holds a layer's weights in one direction, as the kernels read them. 1x1 kernels are plain
//! products (`dense`), 3x3 kernels of very few channels nearly so (`direct`), and the others take
//! Winograd's way (`winograd`), in tiles that `plan` chooses by shape; all on one register-blocked
//! product (`simd`). The gradient with respect to the input is the same with the adjoint weights.
//!
//! Work is cut into tasks by shape alone, and every sum has a fixed order: results don't depend on
//! the threads.

#![expect(
    clippy::inline_always,
    clippy::needless_range_loop,
    reason = "vector code must end up in the function that was compiled for the vectors, without closures between"
)]

mod dense;
mod direct;
mod few;
mod filters;
mod finish;
mod plan;
mod scratch;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;

use super::Resample;
use filters::{Filters, Panels};
pub(crate) use finish::Finish;
use plan::Way;

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
pub(crate) struct Size {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
}

impl Size {
    pub(crate) fn pixels(self) -> usize {
        self.n * self.h * self.w
    }

    pub(crate) fn after(self, resample: Resample) -> Self {
        let Self { n, h, w } = self;
        match resample {
            Resample::Same => self,
            Resample::Up => Self { n, h: 2 * h, w: 2 * w },
            Resample::Down => Self { n, h: h / 2, w: w / 2 },
        }
    }
}

/// Which way weights are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    /// From the gradient of the output to that of the input, by the adjoint weights.
    Back,
}

/// A layer's weights in one direction, as the kernels read them.
#[derive(Debug)]
pub(crate) struct Packed {
    /// From what comes in to what goes out in this direction.
    resample: Resample,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Plain(Filters),
    Mapped(winograd::Mapped),
}

impl Packed {
    /// `weight`: `[co, ci, k, k]`, multiplied by `scale` on the way, for images of `size` that come in
    /// from this direction.
    pub(crate) fn new(
        weight: &[f32],
        scale: f32,
        spec: Spec,
        direction: Direction,
        size: Size,
    ) -> Self {
        let Spec { ci, co, k, resample } = spec;
        let (filters, resample) = match direction {
            Direction::Forward => (Filters::pack(weight, co, ci, k * k, scale), resample),
            Direction::Back => {
                // The adjoint of repeating a pixel four times sums four, four times their mean; that
                // of the mean repeats a quarter.
                let (turned, factor) = match resample {
                    Resample::Same => (Resample::Same, 1.0),
                    Resample::Up => (Resample::Down, 4.0),
                    Resample::Down => (Resample::Up, 0.25),
                };
                (Filters::pack_adjoint(weight, ci, co, k * k, scale * factor), turned)
            }
        };
        let weights = match plan::way(resample, size, ci, co) {
            Way::Winograd(tile) if k == 3 && winograd::is_narrow(ci, co) => {
                Weights::Mapped(winograd::Mapped::new(&filters, tile, resample))
            }
            _ => Weights::Plain(filters),
        };
        Self { resample, weights }
    }

    /// Whether they are what images of this size want.
    pub(crate) fn serves(&self, size: Size) -> bool {
        match &self.weights {
            Weights::Plain(_) => true,
            Weights::Mapped(mapped) => {
                let Panels { inputs, outputs, .. } = mapped.panels();
                let way = plan::way(self.resample, size, inputs, outputs);
                matches!(way, Way::Winograd(tile) if mapped.are_for(tile))
            }
        }
    }

    /// Whether they are worth the memory until the weights change. What is mapped serves several
    /// passes of a training step and is small, since it is of few channels. Otherwise packing costs
    /// about as much as multiplying with a few pixels, and turning the weights round somewhat more.
    pub(crate) fn are_worth_keeping(&self, direction: Direction, size: Size) -> bool {
        match &self.weights {
            Weights::Mapped(_) => true,
            Weights::Plain(_) => direction == Direction::Forward && size.pixels() < 1024,
        }
    }

    /// Whether others may want the memory more: what is mapped is of few channels.
    pub(crate) fn is_large(&self) -> bool {
        matches!(self.weights, Weights::Plain(_))
    }

    /// What comes in, `[n, h, w, c]` of `size`, to what goes out.
    pub(crate) fn apply(&self, x: &[f32], size: Size, finish: Finish<'_>) -> Vec<f32> {
        let panels = match &self.weights {
            Weights::Plain(filters) => filters.panels,
            Weights::Mapped(mapped) => mapped.panels(),
        };
        let Panels { inputs, outputs, .. } = panels;
        assert_eq!(x.len(), size.pixels() * inputs, "input of another size");
        let pixels = size.after(self.resample).pixels();
        assert!(finish.fits(pixels, outputs), "finished by another size");
        if x.is_empty() || outputs == 0 {
            return finish.all(vec![0.0; pixels * outputs], outputs);
        }
        match &self.weights {
            Weights::Mapped(mapped) => mapped.apply(x, size, finish),
            Weights::Plain(filters) if filters.taps == 1 => dense::forward(filters, x, finish),
            Weights::Plain(filters) => match plan::way(self.resample, size, inputs, outputs) {
                Way::Direct => direct::apply(filters, self.resample, x, size, finish),
                Way::Winograd(tile) => {
                    winograd::apply(filters, tile, self.resample, x, size, finish)
                }
            },
        }
    }
}

/// Whether weights are applied as they are stored, in this direction and to so many pixels.
pub(crate) fn reads_stored(spec: Spec, direction: Direction, pixels: usize) -> bool {
    spec.k == 1 && (direction == Direction::Back || pixels <= dense::FEW)
}

/// What comes in, `[pixels, c]`, to what goes out, where [`reads_stored`].
pub(crate) fn apply_stored(
    weight: &[f32],
    x: &[f32],
    pixels: usize,
    (spec, direction): (Spec, Direction),
    scale: f32,
    finish: Finish<'_>,
) -> Vec<f32> {
    let Spec { ci, co, .. } = spec;
    let outputs = if direction == Direction::Forward { co } else { ci };
    assert_eq!(weight.len(), co * ci, "weights of another size");
    assert!(finish.fits(pixels, outputs), "finished by another size");
    if x.is_empty() || outputs == 0 {
        return finish.all(vec![0.0; pixels * outputs], outputs);
    }
    match direction {
        Direction::Forward => dense::forward_few(weight, x, ci, co, scale, finish),
        Direction::Back => dense::input_grad(weight, x, ci, co, scale, finish),
    }
}

/// The gradient `[co, ci, k, k]` of the weights, times `scale`, for `x` `[n, h, w, ci]` of `size` and
/// `dy` `[n, h', w', co]`.
pub(crate) fn weight_grad(x: &[f32], dy: &[f32], size: Size, spec: Spec, scale: f32) -> Vec<f32> {
    gradient(x, dy, size, spec, scale, None).expect("a sum of its own is returned")
}

/// [`weight_grad`], added to a sum of earlier ones.
pub(crate) fn add_weight_grad(
    x: &[f32],
    dy: &[f32],
    size: Size,
    spec: Spec,
    scale: f32,
    sum: &mut [f32],
) {
    gradient(x, dy, size, spec, scale, Some(sum));
}

/// The gradient of the weights, into `sum` or by itself.
fn gradient(
    x: &[f32],
    dy: &[f32],
    size: Size,
    spec: Spec,
    scale: f32,
    sum: Option<&mut [f32]>,
) -> Option<Vec<f32>> {
    let Spec { ci, co, k, resample } = spec;
    let len = co * ci * k * k;
    assert_eq!(x.len(), size.pixels() * ci, "input of another size");
    assert_eq!(dy.len(), size.after(resample).pixels() * co, "gradient of another size");
    assert!(sum.as_ref().is_none_or(|sum| sum.len() == len), "sum of another size");
    if x.is_empty() || dy.is_empty() {
        return sum.is_none().then(|| vec![0.0; len]);
    }
    if k == 1 {
        return dense::weight_grad(x, dy, ci, co, scale, sum);
    }
    match plan::way(resample, size, ci, co) {
        Way::Direct => direct::weight_grad(spec, x, dy, size, scale, sum),
        Way::Winograd(tile) => winograd::weight_grad(tile, spec, x, dy, size, scale, sum),
    }
}
