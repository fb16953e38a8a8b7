//! Batch norm (Ioffe and Szegedy 2015) without gain and bias: each channel made to have mean 0 and variance 1 over all pixels
//! of all samples.

use candle_core::{D, Result, Tensor};

use crate::activation::bias_grad;
use crate::cells::fill;
use crate::slices;

/// What a batch's channels are like.
///
/// # Shapes
/// Both `[C]`.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Mean.
    pub mean: Tensor,
    /// `1 / sqrt(variance + ε)`, of the population's variance.
    pub inv_std: Tensor,
}

impl Statistics {
    /// # Shapes
    /// `x`: `[.., C]`.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn of(x: &Tensor, epsilon: f64) -> Result<Self> {
        let share = 1.0 / rows(x)?;
        let mean = (bias_grad(x)? * share)?;
        let deviation = affine(x, &mean, &mean.ones_like()?)?;
        let variance = (bias_grad(&deviation.sqr()?)? * share)?;
        Ok(Self { mean, inv_std: (variance + epsilon)?.sqrt()?.recip()? })
    }
}

/// `(x − mean) / std`.
///
/// # Shapes
/// `[.., C]` to the same.
///
/// # Errors
/// If the channels differ.
pub fn forward(x: &Tensor, statistics: &Statistics) -> Result<Tensor> {
    affine(x, &statistics.mean, &statistics.inv_std)
}

/// The gradient with respect to `x`, on which the statistics depend: `dx = (dy − mean(dy) − y mean(dy y)) / std`.
///
/// # Shapes
/// `dy` and the output `y`: `[.., C]`; returns the same.
///
/// # Errors
/// If they do not belong together.
pub fn backward(dy: &Tensor, y: &Tensor, statistics: &Statistics) -> Result<Tensor> {
    let share = 1.0 / rows(y)?;
    let middle = (bias_grad(dy)? * share)?;
    let along = (bias_grad(&(dy * y)?)? * share)?;
    let rest = (dy - affine(y, &along.zeros_like()?, &along)?)?;
    affine(&rest, &middle, &statistics.inv_std)
}

/// `(x − shift) * factor`, by channels.
fn affine(x: &Tensor, shift: &Tensor, factor: &Tensor) -> Result<Tensor> {
    if !slices::is_fast(x) {
        return x.broadcast_sub(shift)?.broadcast_mul(factor);
    }
    let c = x.dim(D::Minus1)?;
    if shift.elem_count() != c || factor.elem_count() != c {
        candle_core::bail!("statistics of {} channels for {c}", shift.elem_count());
    }
    let y = slices::read(x, |x| {
        slices::read(shift, |shift| {
            slices::read(factor, |factor| {
                fill(x.len() / c, c, |first, y| {
                    let rows = x[first * c..].chunks_exact(c);
                    for (y, x) in y.chunks_exact_mut(c).zip(rows) {
                        for (i, y) in y.iter_mut().enumerate() {
                            *y = (x[i] - shift[i]) * factor[i];
                        }
                    }
                })
            })
        })
    })???;
    slices::tensor(y, x.dims())
}

/// Numbers in each channel.
fn rows(x: &Tensor) -> Result<f64> {
    Ok((x.elem_count() / x.dim(D::Minus1)?.max(1)) as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    const EPSILON: f64 = 1e-4;

    fn wave(shape: &[usize], seed: f64) -> Result<Tensor> {
        let count = shape.iter().product::<usize>();
        let wave = (0..count).map(|i| (i as f64 * 1.37 + seed).sin() + 0.3);
        Tensor::from_iter(wave, &Device::Cpu)?.reshape(shape)
    }

    fn normalized(x: &Tensor) -> Result<(Tensor, Statistics)> {
        let statistics = Statistics::of(x, EPSILON)?;
        Ok((forward(x, &statistics)?, statistics))
    }

    #[test]
    fn both_paths_agree() -> Result<()> {
        for shape in [[1, 1, 1, 1], [3, 2, 4, 5], [4, 32, 32, 7]] {
            let (x, dy) = (wave(&shape, 0.1)?, wave(&shape, 0.7)?);
            let f = |x: &Tensor| x.to_dtype(DType::F32);
            let ((y, s), (y32, s32)) = (normalized(&x)?, normalized(&f(&x)?)?);
            let slow = backward(&dy, &y, &s)?;
            let fast = backward(&f(&dy)?, &y32, &s32)?;
            for (slow, fast) in [(y, y32), (slow, fast)] {
                assert_eq!(slow.dims(), fast.dims());
                let largest = |t: Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
                let off = largest((&slow - fast.to_dtype(DType::F64)?)?)?;
                assert!(off < 1e-5 * (1.0 + largest(slow)?), "{shape:?}: {off:e}");
            }
        }
        Ok(())
    }

    #[test]
    fn gradient_by_finite_differences() -> Result<()> {
        let shape = [3, 2, 1, 4];
        let (x, dy) = (wave(&shape, 0.2)?, wave(&shape, 0.7)?);
        let (y, statistics) = normalized(&x)?;
        let dx = backward(&dy, &y, &statistics)?.flatten_all()?.to_vec1::<f64>()?;
        let values = x.flatten_all()?.to_vec1::<f64>()?;
        for (i, expected) in dx.iter().enumerate() {
            let at = |h: f64| -> Result<f64> {
                let mut v = values.clone();
                v[i] += h;
                let (y, _) = normalized(&Tensor::from_vec(v, &shape, &Device::Cpu)?)?;
                (y * &dy)?.sum_all()?.to_scalar()
            };
            let measured = (at(1e-5)? - at(-1e-5)?) / 2e-5;
            assert!((measured - expected).abs() < 1e-8, "{measured} {expected}");
        }
        Ok(())
    }
}
