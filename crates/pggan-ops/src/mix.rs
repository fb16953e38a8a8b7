//! Tensors scaled, blended and turned: what lies between the layers, each in one pass over memory.

use candle_core::{Result, Tensor, bail};

use crate::cells::{self, fill};
use crate::{pool, slices};

/// `a + (b - a) * t`: the blend of two paths while a layer is being faded in (paper, Figure 2).
///
/// # Errors
/// If the shapes differ.
pub fn lerp(a: &Tensor, b: &Tensor, t: f64) -> Result<Tensor> {
    same_shape(a, b)?;
    if !slices::is_fast(a) {
        return a + ((b - a)? * t)?;
    }
    let t = t as f32;
    zip(a, b, |a, b| a + (b - a) * t)
}

/// Each sample of two batches blended by its own factor, `a + (b - a) * t`: the places between real and generated
/// images where WGAN-GP looks at the gradient.
///
/// # Shapes
/// `a` and `b`: `[N, ..]`, `t`: `[N, 1, 1, 1]`.
///
/// # Errors
/// If they do not belong together.
pub fn lerp_samples(a: &Tensor, b: &Tensor, t: &Tensor) -> Result<Tensor> {
    same_shape(a, b)?;
    if !slices::is_fast(a) {
        return a + (b - a)?.broadcast_mul(t)?;
    }
    let (n, len) = samples(a)?;
    if t.elem_count() != n {
        bail!("{} factors for {n} samples", t.elem_count());
    }
    let y = slices::read(a, |a| {
        slices::read(b, |b| {
            slices::read(t, |t| {
                fill(n, len, |first, y| {
                    let pairs =
                        a[first * len..].chunks_exact(len).zip(b[first * len..].chunks_exact(len));
                    for ((y, (a, b)), t) in y.chunks_exact_mut(len).zip(pairs).zip(&t[first..]) {
                        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                            *y = a + (b - a) * t;
                        }
                    }
                })
            })
        })
    })???;
    slices::tensor(y, a.dims())
}

/// `x * factor`.
///
/// # Errors
/// If the device is out of memory.
pub fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
    if !slices::is_fast(x) {
        return x * factor;
    }
    let factor = factor as f32;
    zip(x, x, |x, _| x * factor)
}

/// Each sample times its own factor.
///
/// # Shapes
/// `x`: `[N, ..]`, `factors`: `[N, 1]`.
///
/// # Errors
/// If they do not belong together.
pub fn scale_samples(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (n, len) = samples(x)?;
    if factors.elem_count() != n {
        bail!("{} factors for {n} samples", factors.elem_count());
    }
    if !slices::is_fast(x) {
        return x.flatten_from(1)?.broadcast_mul(&factors.reshape((n, 1))?)?.reshape(x.dims());
    }
    let y = slices::read(x, |x| {
        slices::read(factors, |factors| {
            fill(n, len, |first, y| {
                let rows = y.chunks_exact_mut(len).zip(x[first * len..].chunks_exact(len));
                for ((y, x), factor) in rows.zip(&factors[first..]) {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = x * factor;
                    }
                }
            })
        })
    })??;
    slices::tensor(y, x.dims())
}

/// The Euclidean norm of each sample.
///
/// # Shapes
/// `[N, ..]` to `[N, 1]`.
///
/// # Errors
/// If the device is out of memory.
pub fn norms(x: &Tensor) -> Result<Tensor> {
    let (n, len) = samples(x)?;
    if !slices::is_fast(x) {
        return x.sqr()?.flatten_from(1)?.sum_keepdim(1)?.sqrt();
    }
    let norms = slices::read(x, |x| {
        let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        let samples: Vec<&[f32]> = x.chunks(len.max(1)).collect();
        pool::map(samples.len(), |i| norm(samples[i]) as f32)
    })?;
    slices::tensor(norms, &[n, 1])
}

/// `sum + x`; the memory of `sum` is used again.
///
/// # Errors
/// If the shapes differ.
pub fn add(sum: Tensor, x: &Tensor) -> Result<Tensor> {
    same_shape(&sum, x)?;
    if !slices::is_fast(x) {
        return sum + x;
    }
    let sum = slices::owned(sum)?;
    slices::read(x, |x| slices::write(&sum, |sum| cells::add(sum, x)))??;
    Ok(sum)
}

/// The matrix of each sample, turned: pixels of channels to channels of pixels, and back.
///
/// # Shapes
/// `x`: N * rows * columns elements, `[N, rows, columns]`; returns `[N, columns, rows]`.
///
/// # Errors
/// If `x` has another size.
pub fn turn(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let n = x.elem_count() / (rows * columns).max(1);
    if !slices::is_fast(x) {
        return x.contiguous()?.reshape((n, rows, columns))?.transpose(1, 2)?.contiguous();
    }
    if x.elem_count() != n * rows * columns {
        bail!("{:?} is not made of matrices of {rows}x{columns}", x.dims());
    }
    let y = slices::read(x, |x| {
        fill(n * columns, rows, |first, y| {
            for (i, y) in y.chunks_exact_mut(rows).enumerate() {
                let (sample, column) = ((first + i) / columns, (first + i) % columns);
                let x = &x[sample * rows * columns..][..rows * columns];
                for (y, x) in y.iter_mut().zip(x[column..].iter().step_by(columns)) {
                    *y = *x;
                }
            }
        })
    })?;
    slices::tensor(y, &[n, columns, rows])
}

/// `f` of each pair of elements.
fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let y = slices::read(a, |a| {
        slices::read(b, |b| {
            fill(a.len(), 1, |first, y| {
                let (a, b) = (&a[first..][..y.len()], &b[first..][..y.len()]);
                for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(*a, *b);
                }
            })
        })
    })??;
    slices::tensor(y, a.dims())
}

fn same_shape(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() != b.dims() {
        bail!("shapes differ: {:?} and {:?}", a.dims(), b.dims());
    }
    Ok(())
}

/// Samples of a batch, and numbers in each.
fn samples(x: &Tensor) -> Result<(usize, usize)> {
    let n = x.dim(0)?;
    Ok((n, x.elem_count() / n.max(1)))
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

    /// Small and large enough to be cut into tasks.
    const SHAPES: [[usize; 4]; 3] = [[1, 1, 1, 1], [3, 2, 4, 5], [6, 32, 32, 7]];

    #[test]
    fn both_paths_agree() -> Result<()> {
        for shape in SHAPES {
            let n = shape[0];
            let (a, b, t) = (wave(&shape, 0.1)?, wave(&shape, 0.7)?, wave(&[n, 1, 1, 1], 0.4)?);
            let f = |x: &Tensor| x.to_dtype(DType::F32);
            let close = |slow: Tensor, fast: Tensor| -> Result<()> {
                assert_eq!(slow.dims(), fast.dims());
                let off = (slow - fast.to_dtype(DType::F64)?)?.abs()?.flatten_all()?.max(0)?;
                assert!(off.to_scalar::<f64>()? < 1e-4, "{shape:?}");
                Ok(())
            };
            close(lerp(&a, &b, 0.3)?, lerp(&f(&a)?, &f(&b)?, 0.3)?)?;
            close(lerp_samples(&a, &b, &t)?, lerp_samples(&f(&a)?, &f(&b)?, &f(&t)?)?)?;
            close(scale(&a, -1.5)?, scale(&f(&a)?, -1.5)?)?;
            let t = t.reshape((n, 1))?;
            close(scale_samples(&a, &t)?, scale_samples(&f(&a)?, &f(&t)?)?)?;
            close(norms(&a)?, norms(&f(&a)?)?)?;
            close(add(a.clone(), &b)?, add(f(&a)?, &f(&b)?)?)?;
            let (rows, columns) = (shape[1] * shape[2], shape[3]);
            let turned = turn(&a, rows, columns)?;
            close(turned.clone(), turn(&f(&a)?, rows, columns)?)?;
            close(turn(&turned, columns, rows)?.reshape(&shape)?, f(&a)?)?;
        }
        Ok(())
    }

    #[test]
    fn what_does_not_belong_together_is_refused() -> Result<()> {
        let (a, b) = (wave(&[2, 3], 0.0)?, wave(&[2, 4], 0.0)?);
        assert!(lerp(&a, &b, 0.5).is_err() && add(a.clone(), &b).is_err());
        let (a, t) = (a.to_dtype(DType::F32)?, wave(&[3, 1], 0.0)?.to_dtype(DType::F32)?);
        assert!(lerp_samples(&a, &a, &t).is_err() && scale_samples(&a, &t).is_err());
        assert!(turn(&a, 4, 1).is_err());
        Ok(())
    }
}
