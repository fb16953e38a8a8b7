//! Activations multiplied: by learned gains, or by noise.

use candle_core::{D, Result, Tensor, bail};

use crate::activation::bias_grad;
use crate::cells::fill;
use crate::slices;

/// Each channel times its gain, or all of them times the same one. Linear, so it is its own tangent and, with `dy` in the
/// place of `x`, its own gradient with respect to `x`.
///
/// # Shapes
/// `x`: `[.., C]`, `gain`: `[C]` or `[1]`; returns `[.., C]`.
///
/// # Errors
/// If they do not belong together.
pub fn forward(x: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let c = x.dim(D::Minus1)?;
    let gain = if gain.elem_count() == 1 { gain.broadcast_as(c)? } else { gain.clone() };
    if gain.dims() != [c] {
        bail!("gains {:?} for {c} channels", gain.dims());
    }
    if !slices::is_fast(x) {
        return x.broadcast_mul(&gain);
    }
    by_rows(x, &gain.contiguous()?, c, usize::MAX)
}

/// The gradient with respect to the gain.
///
/// # Shapes
/// `x` and `dy`: `[.., C]`; returns `[count]`, with `count` C or 1.
///
/// # Errors
/// If they do not belong together.
pub fn gradient(x: &Tensor, dy: &Tensor, count: usize) -> Result<Tensor> {
    let sums = bias_grad(&(x * dy)?)?;
    if count == 1 { sums.sum_keepdim(0) } else { Ok(sums) }
}

/// Each channel of each sample times its own factor.
///
/// # Shapes
/// `x`: `[N, .., C]`, `factors`: `[N, C]`; returns the shape of `x`.
///
/// # Errors
/// If they do not belong together.
pub fn scale_maps(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (n, c) = (x.dim(0)?, x.dim(D::Minus1)?);
    if factors.dims() != [n, c] {
        bail!("factors {:?} for {n} samples of {c} channels", factors.dims());
    }
    let pixels = x.elem_count() / (n * c).max(1);
    if !slices::is_fast(x) {
        let rows = x.contiguous()?.reshape((n, pixels, c))?;
        return rows.broadcast_mul(&factors.reshape((n, 1, c))?)?.reshape(x.dims());
    }
    by_rows(x, factors, c, pixels)
}

/// Rows of `c` numbers times rows of factors, of which each serves for `pixels` rows.
fn by_rows(x: &Tensor, factors: &Tensor, c: usize, pixels: usize) -> Result<Tensor> {
    let y = slices::read(x, |x| {
        slices::read(factors, |factors| {
            fill(x.len() / c.max(1), c, |first, y| {
                let rows = x[first * c..].chunks_exact(c.max(1));
                for (i, (y, x)) in y.chunks_exact_mut(c.max(1)).zip(rows).enumerate() {
                    let factors = &factors[(first + i) / pixels * c..][..c];
                    for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
                        *y = x * factor;
                    }
                }
            })
        })
    })??;
    slices::tensor(y, x.dims())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn wave(shape: &[usize], seed: f64) -> Result<Tensor> {
        let count = shape.iter().product::<usize>();
        let wave = (0..count).map(|i| (i as f64 * 0.37 + seed).sin());
        Tensor::from_iter(wave, &Device::Cpu)?.reshape(shape)
    }

    #[test]
    fn both_paths_agree() -> Result<()> {
        for shape in [[1, 1, 1, 1], [3, 2, 4, 5], [6, 32, 32, 7]] {
            let (n, c) = (shape[0], shape[3]);
            let (x, dy) = (wave(&shape, 0.1)?, wave(&shape, 0.7)?);
            let (each, one, maps) = (wave(&[c], 0.4)?, wave(&[1], 0.4)?, wave(&[n, c], 0.2)?);
            let f = |x: &Tensor| x.to_dtype(DType::F32);
            for (slow, fast) in [
                (forward(&x, &each)?, forward(&f(&x)?, &f(&each)?)?),
                (forward(&x, &one)?, forward(&f(&x)?, &f(&one)?)?),
                (gradient(&x, &dy, c)?, gradient(&f(&x)?, &f(&dy)?, c)?),
                (gradient(&x, &dy, 1)?, gradient(&f(&x)?, &f(&dy)?, 1)?),
                (scale_maps(&x, &maps)?, scale_maps(&f(&x)?, &f(&maps)?)?),
            ] {
                assert_eq!(slow.dims(), fast.dims());
                let largest = |t: Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
                let off = largest((&slow - fast.to_dtype(DType::F64)?)?)?;
                assert!(off < 1e-5 * (1.0 + largest(slow)?), "{shape:?}: {off:e}");
            }
        }
        Ok(())
    }

    #[test]
    fn gains_are_of_channels_and_factors_of_maps() -> Result<()> {
        let x = Tensor::ones((2, 1, 2, 2), DType::F32, &Device::Cpu)?;
        let flat = |x: Tensor| x.flatten_all()?.to_vec1::<f32>();
        let gain = Tensor::new(&[2f32, 3.0], &Device::Cpu)?;
        assert_eq!(flat(forward(&x, &gain)?)?, [2.0, 3.0, 2.0, 3.0, 2.0, 3.0, 2.0, 3.0]);
        let factors = Tensor::new(&[[2f32, 3.0], [4.0, 5.0]], &Device::Cpu)?;
        assert_eq!(flat(scale_maps(&x, &factors)?)?, [2.0, 3.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0]);
        assert_eq!(flat(gradient(&x, &x, 2)?)?, [4.0, 4.0]);
        assert_eq!(flat(gradient(&x, &x, 1)?)?, [8.0]);
        assert!(forward(&x, &factors).is_err() && scale_maps(&x, &gain).is_err());
        Ok(())
    }
}
