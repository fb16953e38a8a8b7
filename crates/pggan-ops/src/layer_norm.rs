//! Layer norm (Ba et al. 2016) without gain and bias: each sample made to have mean 0 and variance 1 over all its numbers.
//!
//! `y = (x − μ) / σ` with `σ² = mean (x − μ)² + ε`. Its Jacobian is symmetric, so the gradient with respect to `x` is also
//! the tangent. The layer bends everywhere, so it has a [`curvature`] besides.

use candle_core::{Result, Tensor, bail};

use crate::{pool, slices};

/// # Shapes
/// `[N, ..]` to the same.
///
/// # Errors
/// If the device is out of memory.
pub fn forward(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    if slices::is_fast(x) {
        return each_sample([x, x, x], |[x, ..], y| {
            let (mean, sigma) = moments(x, epsilon);
            y.extend(x.iter().map(|x| (x - mean) / sigma));
        });
    }
    let Moments { y, .. } = Moments::of(x, epsilon)?;
    y.reshape(x.dims())
}

/// The gradient with respect to `x`, from the one with respect to the output; and the tangent of the output, from that of
/// `x`: `J t = (t − mean t − y mean(y t)) / σ`.
///
/// # Shapes
/// `x` and `t`: `[N, ..]`; returns the same.
///
/// # Errors
/// If the shapes differ.
pub fn backward(x: &Tensor, t: &Tensor, epsilon: f64) -> Result<Tensor> {
    if slices::is_fast(x) {
        return each_sample([x, t, t], |[x, t, _], out| {
            let (mean, sigma) = moments(x, epsilon);
            let y = |x: f32| (x - mean) / sigma;
            let middle = average(t.iter().copied());
            let along = average(x.iter().zip(t).map(|(x, t)| y(*x) * t));
            out.extend(x.iter().zip(t).map(|(x, t)| (t - middle - y(*x) * along) / sigma));
        });
    }
    let Moments { y, sigma } = Moments::of(x, epsilon)?;
    let t = t.contiguous()?.reshape(y.dims())?;
    let along = (&y * &t)?.mean_keepdim(1)?;
    let rest = (t.broadcast_sub(&t.mean_keepdim(1)?)? - y.broadcast_mul(&along)?)?;
    rest.broadcast_div(&sigma)?.reshape(x.dims())
}

/// The gradient of `Σ dy · tangent(x, dx)` with respect to `x`.
///
/// With `c = ẋ − mean ẋ`, `e = δ − mean δ`, `a = mean(y c)`, `b = mean(y e)`, `m = mean(c e)`:
/// `χ = −( b c + a e + (m − 3 a b) y ) / σ²`.
///
/// # Shapes
/// `x`, `dx` and `dy`: `[N, ..]`; returns the same.
///
/// # Errors
/// If the shapes differ.
pub fn curvature(x: &Tensor, dx: &Tensor, dy: &Tensor, epsilon: f64) -> Result<Tensor> {
    if slices::is_fast(x) {
        return each_sample([x, dx, dy], |[x, dx, dy], out| {
            let (mean, sigma) = moments(x, epsilon);
            let y = |x: f32| (x - mean) / sigma;
            let c_mean = average(dx.iter().copied());
            let e_mean = average(dy.iter().copied());
            let a = average(x.iter().zip(dx).map(|(x, t)| y(*x) * (t - c_mean)));
            let b = average(x.iter().zip(dy).map(|(x, t)| y(*x) * (t - e_mean)));
            let m = average(dx.iter().zip(dy).map(|(c, e)| (c - c_mean) * (e - e_mean)));
            let rest = m - 3.0 * a * b;
            let factor = -1.0 / (sigma * sigma);
            out.extend(
                x.iter().zip(dx).zip(dy).map(|((x, c), e)| {
                    (b * (c - c_mean) + a * (e - e_mean) + rest * y(*x)) * factor
                }),
            );
        });
    }
    let Moments { y, sigma } = Moments::of(x, epsilon)?;
    let centred = |t: &Tensor| -> Result<Tensor> {
        let t = t.contiguous()?.reshape(y.dims())?;
        t.broadcast_sub(&t.mean_keepdim(1)?)
    };
    let (c, e) = (centred(dx)?, centred(dy)?);
    let a = (&y * &c)?.mean_keepdim(1)?;
    let b = (&y * &e)?.mean_keepdim(1)?;
    let m = (&c * &e)?.mean_keepdim(1)?;
    let rest = (m - ((&a * &b)? * 3.0)?)?;
    let sum = ((c.broadcast_mul(&b)? + e.broadcast_mul(&a)?)? + y.broadcast_mul(&rest)?)?;
    sum.broadcast_div(&sigma.sqr()?.neg()?)?.reshape(x.dims())
}

/// What a batch has become, `[n, len]`, and by what it was divided, `[n, 1]`.
struct Moments {
    y: Tensor,
    sigma: Tensor,
}

impl Moments {
    fn of(x: &Tensor, epsilon: f64) -> Result<Self> {
        let x = x.contiguous()?.flatten_from(1)?;
        let deviation = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let sigma = (deviation.sqr()?.mean_keepdim(1)? + epsilon)?.sqrt()?;
        Ok(Self { y: deviation.broadcast_div(&sigma)?, sigma })
    }
}

/// Mean and σ of one sample.
fn moments(x: &[f32], epsilon: f64) -> (f32, f32) {
    let mean = average(x.iter().copied());
    let variance = average(x.iter().map(|x| (x - mean) * (x - mean)));
    (mean, (f64::from(variance) + epsilon).sqrt() as f32)
}

/// Summed in f64, in order.
fn average(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len().max(1) as f64;
    (values.map(f64::from).sum::<f64>() / count) as f32
}

/// A tensor like `inputs`, made by `f` sample by sample: it gets what the inputs hold of one and appends to what is to
/// become of it.
fn each_sample(
    inputs: [&Tensor; 3],
    f: impl Fn([&[f32]; 3], &mut Vec<f32>) + Sync,
) -> Result<Tensor> {
    let [a, b, c] = inputs;
    let n = a.dim(0)?;
    let len = a.elem_count() / n.max(1);
    if b.elem_count() != n * len || c.elem_count() != n * len {
        bail!("shapes differ: {:?}, {:?} and {:?}", a.dims(), b.dims(), c.dims());
    }
    let y = slices::read(a, |a| {
        slices::read(b, |b| {
            slices::read(c, |c| {
                let samples = pool::map(n, |i| {
                    let mut y = Vec::with_capacity(len);
                    f([a, b, c].map(|x| &x[i * len..][..len]), &mut y);
                    y
                });
                samples.concat()
            })
        })
    })???;
    slices::tensor(y, a.dims())
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

    fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
        (a * b)?.sum_all()?.to_scalar()
    }

    #[test]
    fn both_paths_agree() -> Result<()> {
        for shape in [[1, 1, 1, 1], [3, 2, 4, 5], [2, 16, 16, 7]] {
            let (x, t, d) = (wave(&shape, 0.1)?, wave(&shape, 0.7)?, wave(&shape, 0.4)?);
            let f = |x: &Tensor| x.to_dtype(DType::F32);
            let (x32, t32, d32) = (f(&x)?, f(&t)?, f(&d)?);
            for (slow, fast) in [
                (forward(&x, EPSILON)?, forward(&x32, EPSILON)?),
                (backward(&x, &t, EPSILON)?, backward(&x32, &t32, EPSILON)?),
                (curvature(&x, &t, &d, EPSILON)?, curvature(&x32, &t32, &d32, EPSILON)?),
            ] {
                assert_eq!(slow.dims(), fast.dims());
                let largest = |t: Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
                let off = largest((&slow - fast.to_dtype(DType::F64)?)?)?;
                assert!(off < 1e-5 * (1.0 + largest(slow)?), "{shape:?}: {off:e}");
            }
        }
        let (x, t) = (wave(&[2, 3], 0.0)?, wave(&[2, 4], 0.0)?);
        assert!(backward(&x.to_dtype(DType::F32)?, &t.to_dtype(DType::F32)?, EPSILON).is_err());
        assert!(backward(&x, &t, EPSILON).is_err());
        Ok(())
    }

    #[test]
    fn samples_have_mean_0_and_variance_1() -> Result<()> {
        let y = forward(&wave(&[3, 4, 4, 2], 0.2)?, 1e-12)?.flatten_from(1)?;
        for (mean, square) in
            y.mean(1)?.to_vec1::<f64>()?.iter().zip(y.sqr()?.mean(1)?.to_vec1::<f64>()?)
        {
            assert!(mean.abs() < 1e-12 && (square - 1.0).abs() < 1e-9);
        }
        Ok(())
    }

    #[test]
    fn derivatives_by_finite_differences() -> Result<()> {
        let shape = [2, 2, 1, 3];
        let (x, t, d) = (wave(&shape, 0.2)?, wave(&shape, 0.7)?, wave(&shape, 0.4)?);
        let h = 1e-5;
        let ahead = forward(&(&x + (&t * h)?)?, EPSILON)?;
        let behind = forward(&(&x - (&t * h)?)?, EPSILON)?;
        let measured = ((ahead - behind)? / (2.0 * h))?;
        let tangent = backward(&x, &t, EPSILON)?;
        let slip = (measured - &tangent)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        assert!(slip < 1e-8, "{slip}");
        let adjoint = dot(&d, &tangent)? - dot(&backward(&x, &d, EPSILON)?, &t)?;
        assert!(adjoint.abs() < 1e-12);

        let bend = curvature(&x, &t, &d, EPSILON)?.flatten_all()?.to_vec1::<f64>()?;
        let values = x.flatten_all()?.to_vec1::<f64>()?;
        for (i, expected) in bend.iter().enumerate() {
            let at = |h: f64| -> Result<f64> {
                let mut v = values.clone();
                v[i] += h;
                dot(&d, &backward(&Tensor::from_vec(v, &shape, &Device::Cpu)?, &t, EPSILON)?)
            };
            let measured = (at(h)? - at(-h)?) / (2.0 * h);
            assert!((measured - expected).abs() < 1e-8, "{measured} {expected}");
        }
        Ok(())
    }
}
