//! Bias and leaky ReLU in one pass over memory each way.
//!
//! `slope` is leaky ReLU's below zero: [`SLOPE`], or 0, which makes it ReLU. The gradients need only what the forward pass
//! returned: leaky ReLU keeps signs, so the sign of the output is the sign of what went into it.

use candle_core::{D, Result, Tensor};
use pulp::Arch;

use crate::cells::{fill, rows_per_task};
use crate::{pool, slices};

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

/// The gradient of [`bias_lrelu`] with respect to `x`, and its tangent: `dy` times the slope at each element. Where the
/// activation enters a blend with the weight `share`, `dy` is the blend's; else `share` is 1.
///
/// # Shapes
/// `dy` and the output `y`: `[.., C]`; returns `[.., C]`.
pub fn lrelu_grad(dy: &Tensor, y: &Tensor, slope: f64, share: f64) -> Result<Tensor> {
    if !slices::is_fast(dy) {
        return dy * slopes(y, (share, slope * share))?;
    }
    let (above, below) = (share as f32, (slope * share) as f32);
    let dx = slices::read(dy, |dy| {
        slices::read(y, |y| {
            fill(dy.len(), 1, |first, dx| {
                let (dy, y) = (&dy[first..][..dx.len()], &y[first..][..dx.len()]);
                for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
                    *dx = dy * if *y > 0.0 { above } else { below };
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
pub fn lrelu_grad_in_place(dy: Tensor, y: &Tensor, slope: f64, share: f64) -> Result<Tensor> {
    if !slices::is_fast(&dy) || dy.dims() != y.dims() {
        return lrelu_grad(&dy, y, slope, share);
    }
    let (dy, above, below) = (slices::owned(dy)?, share as f32, (slope * share) as f32);
    slices::read(y, |y| {
        slices::write(&dy, |dy| {
            let run = rows_per_task(1);
            pool::sweep(dy.chunks_mut(run).zip(y.chunks(run)), |(dy, y)| {
                for (dy, y) in dy.iter_mut().zip(y) {
                    *dy *= if *y > 0.0 { above } else { below };
                }
            });
        })
    })??;
    Ok(dy)
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
        let parts: Vec<&[f32]> = dx.chunks(rows_per_task(c) * c).collect();
        let partial = pool::map(parts.len(), |i| {
            let mut sum = vec![0f32; c];
            Arch::new().dispatch(|| {
                for row in parts[i].chunks_exact(c) {
                    for (s, x) in sum.iter_mut().zip(row) {
                        *s += x;
                    }
                }
            });
            sum
        });
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

pub(crate) fn lrelu(x: &Tensor, slope: f64) -> Result<Tensor> {
    x.maximum(&(x * slope)?)
}

/// The first slope where `y` is above zero, the second elsewhere.
pub(crate) fn slopes(y: &Tensor, (above, below): (f64, f64)) -> Result<Tensor> {
    y.gt(0.0)?.to_dtype(y.dtype())?.affine(above - below, below)
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
            pool::sweep(x.chunks_mut(rows_per_task(c) * c), |rows| {
                rows.chunks_exact_mut(c).for_each(|row| f(row, bias));
            });
        })
    })??;
    Ok(x)
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::{DType, Device};

    use super::*;

    pub(crate) fn wave(shape: &[usize], seed: f64) -> Result<Tensor> {
        let count: usize = shape.iter().product();
        Tensor::from_iter((0..count).map(|i| (i as f64 * 0.7311 + seed).sin()), &Device::Cpu)?
            .reshape(shape)
    }

    pub(crate) fn close(a: &Tensor, b: &Tensor) -> Result<()> {
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
                for share in [1.0, 0.3] {
                    let slow = lrelu_grad(&dy, &y, s, share)?;
                    close(&slow, &lrelu_grad(&f(&dy)?, &f(&y)?, s, share)?)?;
                    close(&slow, &lrelu_grad_in_place(f(&dy)?, &f(&y)?, s, share)?)?;
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
}
