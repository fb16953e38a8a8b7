//! Bias, leaky ReLU and pixel norm in one pass over memory each way.
//!
//! `slope` is leaky ReLU's below zero: [`SLOPE`], or 0, which makes it ReLU. The gradients need only what the forward pass returned: pixel norm divides by a positive number and leaky
//! ReLU keeps signs, so the sign of the output is the sign of what went into the activation.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use crate::cells::{fill, rows_per_task};
use crate::slices;

/// The slope of leaky ReLU below zero (paper, Appendix A.1).
pub const SLOPE: f64 = 0.2;

/// `x + bias`; the memory of `x` is used again where nobody else holds it.
///
/// # Shapes
/// `x`: `[.., C]`, `bias`: `[C]`; returns `[.., C]`.
pub fn add_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if !slices::is_fast(&x) {
        return x.broadcast_add(bias);
    }
    rows_in_place(x, bias, |row, bias| {
        for (x, b) in row.iter_mut().zip(bias) {
            *x += b;
        }
    })
}

/// `lrelu(x + bias)`.
///
/// # Shapes
/// `x`: `[.., C]`, `bias`: `[C]`; returns `[.., C]`.
pub fn bias_lrelu(x: Tensor, bias: &Tensor, slope: f64) -> Result<Tensor> {
    if !slices::is_fast(&x) {
        return lrelu(&x.broadcast_add(bias)?, slope);
    }
    let slope = slope as f32;
    rows_in_place(x, bias, |row, bias| {
        for (x, b) in row.iter_mut().zip(bias) {
            let a = *x + b;
            *x = a.max(a * slope);
        }
    })
}

/// `pixel_norm(lrelu(x + bias))`, and the factor by which each pixel was multiplied.
///
/// Pixel norm (paper §4.2) divides each pixel's vector of channels by its root mean square:
/// `b = a / sqrt(mean_c(a²) + ε)`.
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
    let (rows, slope) = (rows_per_task(c), slope as f32);
    let x = slices::owned(x)?;
    slices::read(bias, |bias| {
        slices::write(&x, |x| {
            x.par_chunks_mut(rows * c).zip(factors.par_chunks_mut(rows)).for_each(
                |(x, factors)| {
                    for (row, factor) in x.chunks_exact_mut(c).zip(factors) {
                        for (x, b) in row.iter_mut().zip(bias) {
                            let a = *x + b;
                            *x = a.max(a * slope);
                        }
                        *factor = 1.0 / (dot(row, row) / c as f32 + epsilon as f32).sqrt();
                        for x in row.iter_mut() {
                            *x *= *factor;
                        }
                    }
                },
            );
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

/// The gradient of [`bias_lrelu`] with respect to `x`, and its tangent: `dy` times the slope at each element.
///
/// # Shapes
/// `dy` and the output `y`: `[.., C]`; returns `[.., C]`.
pub fn lrelu_grad(dy: &Tensor, y: &Tensor, slope: f64) -> Result<Tensor> {
    if !slices::is_fast(dy) {
        return dy * slopes(y, slope)?;
    }
    let slope = slope as f32;
    let dx = slices::read(dy, |dy| {
        slices::read(y, |y| {
            fill(dy.len(), 1, |first, dx| {
                let (dy, y) = (&dy[first..][..dx.len()], &y[first..][..dx.len()]);
                for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
                    *dx = if *y > 0.0 { *dy } else { *dy * slope };
                }
            })
        })
    })??;
    slices::tensor(dx, dy.dims())
}

/// [`lrelu_grad`] in the memory of `dy`, which nobody else may hold.
///
/// # Shapes
/// `dy` and the output `y`: `[.., C]`; returns `[.., C]`.
pub fn lrelu_grad_in_place(dy: Tensor, y: &Tensor, slope: f64) -> Result<Tensor> {
    if !slices::is_fast(&dy) || dy.dims() != y.dims() {
        return lrelu_grad(&dy, y, slope);
    }
    let (dy, slope) = (slices::owned(dy)?, slope as f32);
    slices::read(y, |y| {
        slices::write(&dy, |dy| {
            let run = rows_per_task(1);
            dy.par_chunks_mut(run).zip(y.par_chunks(run)).for_each(|(dy, y)| {
                for (dy, y) in dy.iter_mut().zip(y) {
                    *dy = if *y > 0.0 { *dy } else { *dy * slope };
                }
            });
        })
    })??;
    Ok(dy)
}

/// The gradient of [`bias_lrelu_pixel_norm`] with respect to `x`.
///
/// With `y = r a` and `r = (mean_c(a²) + ε)^-½`: `da = r (dy − y mean_c(dy y))`.
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
        return da * slopes(y, slope)?;
    }
    let (c, slope) = (dy.dim(D::Minus1)?, slope as f32);
    let dx = slices::read(dy, |dy| {
        slices::read(y, |y| {
            slices::read(factor, |factor| {
                fill(dy.len() / c, c, |first, dx| {
                    let (dy, y) = (&dy[first * c..], &y[first * c..]);
                    let rows = dy.chunks_exact(c).zip(y.chunks_exact(c)).zip(&factor[first..]);
                    for (dx, ((dy, y), r)) in dx.chunks_exact_mut(c).zip(rows) {
                        let along = dot(dy, y) / c as f32;
                        for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
                            let da = r * (dy - y * along);
                            *dx = if *y > 0.0 { da } else { da * slope };
                        }
                    }
                })
            })
        })
    })???;
    slices::tensor(dx, dy.dims())
}

/// The gradient with respect to a bias: the sum over everything but the channels.
///
/// # Shapes
/// `[.., C]` to `[C]`.
pub fn bias_grad(dx: &Tensor) -> Result<Tensor> {
    let c = dx.dim(D::Minus1)?;
    if !slices::is_fast(dx) {
        return dx.contiguous()?.reshape(((), c))?.sum(0);
    }
    let sum = slices::read(dx, |dx| {
        let partial: Vec<Vec<f32>> = dx
            .par_chunks(rows_per_task(c) * c)
            .map(|rows| {
                let mut sum = vec![0f32; c];
                for row in rows.chunks_exact(c) {
                    for (s, x) in sum.iter_mut().zip(row) {
                        *s += x;
                    }
                }
                sum
            })
            .collect();
        // The second sum runs in f64 and in the order of the rows.
        let mut sum = vec![0f64; c];
        for part in partial {
            for (s, x) in sum.iter_mut().zip(part) {
                *s += f64::from(x);
            }
        }
        sum.into_iter().map(|s| s as f32).collect::<Vec<f32>>()
    })?;
    slices::tensor(sum, &[c])
}

fn lrelu(x: &Tensor, slope: f64) -> Result<Tensor> {
    x.maximum(&(x * slope)?)
}

/// 1 where `y` is above zero, `slope` elsewhere.
fn slopes(y: &Tensor, slope: f64) -> Result<Tensor> {
    y.gt(0.0)?.to_dtype(y.dtype())?.affine(1.0 - slope, slope)
}

fn norm_factor(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    (x.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?.recip()
}

fn rows_in_place(
    x: Tensor,
    bias: &Tensor,
    f: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Result<Tensor> {
    let c = bias.dims1()?;
    let x = slices::owned(x)?;
    slices::read(bias, |bias| {
        slices::write(&x, |x| {
            x.par_chunks_mut(rows_per_task(c) * c).for_each(|rows| {
                rows.chunks_exact_mut(c).for_each(|row| f(row, bias));
            });
        })
    })??;
    Ok(x)
}

/// The dot product, summed in 16 lanes so that it runs at the speed of memory.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn wave(shape: &[usize], seed: f64) -> Result<Tensor> {
        let count: usize = shape.iter().product();
        Tensor::from_iter((0..count).map(|i| (i as f64 * 0.7311 + seed).sin()), &Device::Cpu)?
            .reshape(shape)
    }

    fn close(a: &Tensor, b: &Tensor) -> Result<()> {
        assert_eq!(a.dims(), b.dims());
        let largest = |t: Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
        let worst = largest((a - b.to_dtype(DType::F64)?)?)? / largest(a.clone())?;
        assert!(worst < 2e-5, "differ by {worst}");
        Ok(())
    }

    #[test]
    fn both_paths_agree() -> Result<()> {
        for shape in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 8, 8, 33], [1, 4, 4, 512]] {
            let c = shape[3];
            let (x, b, dy) = (wave(&shape, 0.1)?, wave(&[c], 0.5)?, wave(&shape, 0.9)?);
            let f = |t: &Tensor| t.to_dtype(DType::F32);
            close(&add_bias(x.copy()?, &b)?, &add_bias(f(&x)?, &f(&b)?)?)?;
            for s in [SLOPE, 0.0] {
                let y = bias_lrelu(x.copy()?, &b, s)?;
                close(&y, &bias_lrelu(f(&x)?, &f(&b)?, s)?)?;
                close(&lrelu_grad(&dy, &y, s)?, &lrelu_grad(&f(&dy)?, &f(&y)?, s)?)?;
                close(&lrelu_grad(&dy, &y, s)?, &lrelu_grad_in_place(f(&dy)?, &f(&y)?, s)?)?;
                let (y, r) = bias_lrelu_pixel_norm(x.copy()?, &b, s, 1e-8)?;
                let (y32, r32) = bias_lrelu_pixel_norm(f(&x)?, &f(&b)?, s, 1e-8)?;
                close(&y, &y32)?;
                let dx = lrelu_pixel_norm_grad(&dy, &y, &r, s)?;
                // Where all channels are nearly equal, the two terms of the gradient cancel.
                if c > 1 {
                    close(&dx, &lrelu_pixel_norm_grad(&f(&dy)?, &y32, &r32, s)?)?;
                }
            }
            close(&bias_grad(&dy)?, &bias_grad(&f(&dy)?)?)?;
        }
        Ok(())
    }

    #[test]
    fn a_view_is_not_overwritten() -> Result<()> {
        let x = wave(&[2, 1, 1, 4], 0.0)?.to_dtype(DType::F32)?;
        let before = x.flatten_all()?.to_vec1::<f32>()?;
        let bias = Tensor::ones(4, DType::F32, &Device::Cpu)?;
        add_bias(x.narrow(0, 1, 1)?, &bias)?;
        assert_eq!(x.flatten_all()?.to_vec1::<f32>()?, before);
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
