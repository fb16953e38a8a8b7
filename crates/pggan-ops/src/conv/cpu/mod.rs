//! The convolution engine of the CPU: slices in, slices out, `f32`, channels last.
//!
//! [`Packed`] holds a layer's weights as the kernels read them. 1x1 kernels are plain products
//! (`dense`), 3x3 kernels of few channels nearly so (`direct`), and the others take Winograd's way
//! (`winograd`), in tiles that `plan` chooses by shape; all on one register-blocked product
//! (`simd`). The gradient with respect to the input is the same with the adjoint weights.
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
mod filters;
mod finish;
mod plan;
mod scratch;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;

use super::Resample;
use filters::Filters;
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
}

impl Packed {
    /// `weight`: `[co, ci, k, k]`, multiplied by `scale` on the way.
    pub(crate) fn new(weight: &[f32], scale: f32, spec: Spec) -> Self {
        let filters = Filters::pack(weight, spec.co, spec.ci, spec.k * spec.k, scale);
        Self { spec, filters }
    }

    /// `x` `[n, h, w, ci]` to `[n, h', w', co]`.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        n: usize,
        h: usize,
        w: usize,
        finish: Finish<'_>,
    ) -> Vec<f32> {
        apply(&self.filters, self.spec.resample, x, Size { n, h, w }, finish)
    }
}

/// `dy` `[n, h', w', co]` to the gradient `[n, h, w, ci]` of an input of `h` x `w` pixels, by the
/// weights `[co, ci, k, k]` as they are stored, times `scale`.
///
/// What the kernels make of them is not kept: it costs little beside the products, and would double
/// the memory that a layer takes.
#[expect(clippy::too_many_arguments, reason = "the operands of a product, and what follows it")]
pub(crate) fn input_grad(
    weight: &[f32],
    dy: &[f32],
    n: usize,
    h: usize,
    w: usize,
    spec: Spec,
    scale: f32,
    finish: Finish<'_>,
) -> Vec<f32> {
    let Spec { ci, co, k, resample } = spec;
    assert_eq!(weight.len(), co * ci * k * k, "weights of another size");
    assert!(finish.fits(n * h * w, ci), "finished by another size");
    if dy.is_empty() || ci == 0 {
        return finish.all(vec![0.0; n * h * w * ci], ci);
    }
    if k == 1 {
        return dense::input_grad(weight, dy, ci, co, scale, finish);
    }
    // The adjoint of repeating a pixel four times sums four, four times their mean; that of the mean
    // repeats a quarter.
    let (turned, factor) = match resample {
        Resample::Same => (Resample::Same, 1.0),
        Resample::Up => (Resample::Down, 4.0),
        Resample::Down => (Resample::Up, 0.25),
    };
    let adjoint = Filters::pack_adjoint(weight, ci, co, k * k, scale * factor);
    apply(&adjoint, turned, dy, Size { n, h, w }.after(resample), finish)
}

/// Whether the forward pass reads the weights as they are stored.
pub(crate) fn reads_stored(spec: Spec, pixels: usize) -> bool {
    spec.k == 1 && pixels <= dense::FEW
}

/// The forward pass where [`reads_stored`].
pub(crate) fn forward_stored(
    weight: &[f32],
    x: &[f32],
    pixels: usize,
    spec: Spec,
    scale: f32,
    finish: Finish<'_>,
) -> Vec<f32> {
    let Spec { ci, co, .. } = spec;
    assert_eq!(weight.len(), co * ci, "weights of another size");
    assert!(finish.fits(pixels, co), "finished by another size");
    if x.is_empty() || co == 0 {
        return finish.all(vec![0.0; pixels * co], co);
    }
    dense::forward_few(weight, x, ci, co, scale, finish)
}

/// Whether packed weights are worth keeping for another forward pass on so many pixels, given the
/// memory that they take: packing costs about as much as multiplying with a few pixels.
pub(crate) fn worth_keeping(pixels: usize) -> bool {
    pixels < 1024
}

fn apply(
    filters: &Filters,
    resample: Resample,
    x: &[f32],
    size: Size,
    finish: Finish<'_>,
) -> Vec<f32> {
    assert_eq!(x.len(), size.pixels() * filters.inputs, "input of another size");
    let pixels = size.after(resample).pixels();
    assert!(finish.fits(pixels, filters.outputs), "finished by another size");
    if x.is_empty() || filters.outputs == 0 {
        return finish.all(vec![0.0; pixels * filters.outputs], filters.outputs);
    }
    if filters.taps == 1 {
        return dense::forward(filters, x, finish);
    }
    match plan::way(resample, size, filters.inputs, filters.outputs) {
        Way::Direct => direct::apply(filters, resample, x, size, finish),
        Way::Winograd(tile) => winograd::apply(filters, tile, resample, x, size, finish),
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
    gradient(x, dy, Size { n, h, w }, spec, scale, None).expect("a sum of its own is returned")
}

/// [`weight_grad`], added to a sum of earlier ones.
#[expect(clippy::too_many_arguments, reason = "the operands of a product")]
pub(crate) fn add_weight_grad(
    x: &[f32],
    dy: &[f32],
    n: usize,
    h: usize,
    w: usize,
    spec: Spec,
    scale: f32,
    sum: &mut [f32],
) {
    gradient(x, dy, Size { n, h, w }, spec, scale, Some(sum));
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
