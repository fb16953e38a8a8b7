//! Pixel norm (paper §4.2), alone or behind bias and leaky ReLU, in one pass over memory each way.
//!
//! It divides each pixel's vector of channels by its root mean square: `b = r a` with `r = (mean_c(a²) + ε)^-½`.

#![expect(
    clippy::inline_always,
    reason = "vector code must end up in the function that was compiled for the vectors"
)]

use candle_core::{D, Result, Tensor};
use pulp::{Arch, Simd, WithSimd};

use crate::activation::{lrelu, slopes};
use crate::cells::{fill, rows_per_task};
use crate::{pool, slices};

/// `pixel_norm(lrelu(x + bias))`, and the factor by which each pixel was multiplied; the memory of `x` is used again where
/// nobody else holds it.
///
/// # Shapes
/// `x`: `[.., C]`, `bias`: `[C]`; returns `[.., C]` and `[.., 1]`.
pub fn bias_lrelu_pixel_norm(
    x: Tensor,
    bias: &Tensor,
    slope: f64,
    epsilon: f64,
) -> Result<(Tensor, Tensor)> {
    let mut shape = x.dims().to_vec();
    let c = shape.pop().unwrap_or(1);
    shape.push(1);
    if !slices::is_fast(&x) {
        let a = lrelu(&x.broadcast_add(bias)?, slope)?;
        let factor = norm_factor(&a, epsilon)?;
        return Ok((a.broadcast_mul(&factor)?, factor));
    }
    let mut factors = vec![0f32; x.elem_count() / c];
    let (rows, slope, epsilon) = (rows_per_task(c), slope as f32, epsilon as f32);
    let x = slices::owned(x)?;
    slices::read(bias, |bias| {
        slices::write(&x, |x| {
            let parts = x.chunks_mut(rows * c).zip(factors.chunks_mut(rows));
            pool::for_each_of(parts, |(x, factors)| forward(x, bias, slope, epsilon, factors));
        })
    })??;
    Ok((x, slices::tensor(factors, &shape)?))
}

/// `x / sqrt(mean_c(x²) + ε)`, as applied to latent vectors (paper, Appendix A.1).
///
/// # Shapes
/// `[.., C]` to `[.., C]`.
pub fn pixel_norm(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.broadcast_mul(&norm_factor(x, epsilon)?)
}

/// The gradient of [`bias_lrelu_pixel_norm`] with respect to `x`.
///
/// With `y = r a`: `da = r (dy − y mean_c(dy y))`. The sign of `y` is that of what went into leaky ReLU.
///
/// # Shapes
/// `dy` and the output `y`: `[.., C]`, `factor`: `[.., 1]`; returns `[.., C]`.
pub fn lrelu_pixel_norm_grad(
    dy: &Tensor,
    y: &Tensor,
    factor: &Tensor,
    slope: f64,
) -> Result<Tensor> {
    if !slices::is_fast(dy) {
        let along = (dy * y)?.mean_keepdim(D::Minus1)?;
        let da = (dy - y.broadcast_mul(&along)?)?.broadcast_mul(factor)?;
        return da * slopes(y, (1.0, slope))?;
    }
    let (c, slope) = (dy.dim(D::Minus1)?, slope as f32);
    let dx = slices::read(dy, |dy| {
        slices::read(y, |y| {
            slices::read(factor, |factor| {
                fill(dy.len() / c, c, |first, dx| {
                    let (dy, y) = (&dy[first * c..][..dx.len()], &y[first * c..][..dx.len()]);
                    let factors = &factor[first..][..dx.len() / c];
                    Arch::new().dispatch(Backward { dx, dy, y, factors, slope });
                })
            })
        })
    })???;
    slices::tensor(dx, dy.dims())
}

fn norm_factor(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    (x.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?.recip()
}

/// [`bias_lrelu_pixel_norm`] of some pixels where they lie; their factors go to `factors`.
pub(crate) fn forward(x: &mut [f32], bias: &[f32], slope: f32, epsilon: f32, factors: &mut [f32]) {
    Arch::new().dispatch(Forward { x, bias, slope, epsilon, factors });
}

struct Forward<'a> {
    x: &'a mut [f32],
    bias: &'a [f32],
    slope: f32,
    epsilon: f32,
    factors: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, bias, slope, epsilon, factors } = self;
        let c = bias.len();
        let slope = simd.splat_f32s(slope);
        let (biases, last_bias) = S::as_simd_f32s(bias);
        let last_bias = simd.partial_load_f32s(last_bias);
        for (row, factor) in x.chunks_exact_mut(c).zip(factors) {
            let (vectors, last) = S::as_mut_simd_f32s(row);
            let mut sum = simd.splat_f32s(0.0);
            for (x, bias) in vectors.iter_mut().zip(biases) {
                let a = simd.add_f32s(*x, *bias);
                let a = simd.max_f32s(a, simd.mul_f32s(a, slope));
                sum = simd.mul_add_e_f32s(a, a, sum);
                *x = a;
            }
            // Behind a row's end stand zeros, which stay zeros.
            let a = simd.add_f32s(simd.partial_load_f32s(last), last_bias);
            let a = simd.max_f32s(a, simd.mul_f32s(a, slope));
            sum = simd.mul_add_e_f32s(a, a, sum);

            *factor = 1.0 / (simd.reduce_sum_f32s(sum) / c as f32 + epsilon).sqrt();
            let r = simd.splat_f32s(*factor);
            for x in vectors {
                *x = simd.mul_f32s(*x, r);
            }
            simd.partial_store_f32s(last, simd.mul_f32s(a, r));
        }
    }
}

struct Backward<'a> {
    dx: &'a mut [f32],
    dy: &'a [f32],
    y: &'a [f32],
    factors: &'a [f32],
    slope: f32,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { dx, dy, y, factors, slope } = self;
        let c = dx.len() / factors.len().max(1);
        let (zero, one, slope) =
            (simd.splat_f32s(0.0), simd.splat_f32s(1.0), simd.splat_f32s(slope));
        let rows = dy.chunks_exact(c).zip(y.chunks_exact(c)).zip(factors);
        for (dx, ((dy, y), r)) in dx.chunks_exact_mut(c).zip(rows) {
            let (dxs, last_dx) = S::as_mut_simd_f32s(dx);
            let ((dys, last_dy), (ys, last_y)) = (S::as_simd_f32s(dy), S::as_simd_f32s(y));
            let (last_dy, last_y) =
                (simd.partial_load_f32s(last_dy), simd.partial_load_f32s(last_y));
            let mut sum = simd.mul_f32s(last_dy, last_y);
            for (dy, y) in dys.iter().zip(ys) {
                sum = simd.mul_add_e_f32s(*dy, *y, sum);
            }
            let along = simd.splat_f32s(simd.reduce_sum_f32s(sum) / c as f32);
            let r = simd.splat_f32s(*r);
            macro_rules! gradient {
                ($dy:expr, $y:expr) => {{
                    let da = simd.mul_f32s(r, simd.sub_f32s($dy, simd.mul_f32s($y, along)));
                    let positive = simd.greater_than_f32s($y, zero);
                    simd.mul_f32s(da, simd.select_f32s(positive, one, slope))
                }};
            }
            for (dx, (dy, y)) in dxs.iter_mut().zip(dys.iter().zip(ys)) {
                *dx = gradient!(*dy, *y);
            }
            simd.partial_store_f32s(last_dx, gradient!(last_dy, last_y));
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::activation::SLOPE;
    use crate::activation::tests::{close, wave};

    #[test]
    fn both_paths_agree() -> Result<()> {
        for shape in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 8, 8, 33], [5, 3, 3, 8], [1, 4, 4, 512]] {
            let c = shape[3];
            let (x, b, dy) = (wave(&shape, 0.1)?, wave(&[c], 0.5)?, wave(&shape, 0.9)?);
            let f = |t: &Tensor| t.to_dtype(DType::F32);
            for s in [SLOPE, 0.0] {
                let (y, r) = bias_lrelu_pixel_norm(x.copy()?, &b, s, 1e-8)?;
                let (y32, r32) = bias_lrelu_pixel_norm(f(&x)?, &f(&b)?, s, 1e-8)?;
                close(&y, &y32)?;
                let dx = lrelu_pixel_norm_grad(&dy, &y, &r, s)?;
                // Where all channels are nearly equal, the two terms of the gradient cancel.
                if c > 1 {
                    close(&dx, &lrelu_pixel_norm_grad(&f(&dy)?, &y32, &r32, s)?)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn pixel_norm_gradient_by_finite_differences() -> Result<()> {
        let shape = [1, 1, 2, 5];
        let (x, b, dy) = (wave(&shape, 0.3)?, wave(&[5], 0.8)?, wave(&shape, 0.6)?);
        let loss = |x: Tensor| -> Result<f64> {
            let (y, _) = bias_lrelu_pixel_norm(x, &b, SLOPE, 1e-8)?;
            (y * &dy)?.sum_all()?.to_scalar()
        };
        let (y, r) = bias_lrelu_pixel_norm(x.copy()?, &b, SLOPE, 1e-8)?;
        let dx = lrelu_pixel_norm_grad(&dy, &y, &r, SLOPE)?.flatten_all()?.to_vec1::<f64>()?;
        let values = x.flatten_all()?.to_vec1::<f64>()?;
        for (i, expected) in dx.iter().enumerate() {
            let shifted = |h: f64| -> Result<f64> {
                let mut v = values.clone();
                v[i] += h;
                loss(Tensor::from_vec(v, &shape, &Device::Cpu)?)
            };
            let measured = (shifted(1e-6)? - shifted(-1e-6)?) / 2e-6;
            assert!((measured - expected).abs() < 1e-7, "{measured} {expected}");
        }
        Ok(())
    }
}
