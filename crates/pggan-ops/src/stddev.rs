//! Minibatch standard deviation (paper §3): one more channel that tells how much a group of samples varies.
//!
//! A batch may hold several minibatches one after the other (`parts`); each is divided into groups of `group`
//! samples by strides: of M groups, sample n belongs to group n mod M, as in the official code. For a group,
//! `s = mean_chw( sqrt( mean_g (x − mean_g x)² + 1e-8 ) )`, and s fills a channel of all its samples.
//!
//! This is the one layer of the discriminator that is not piecewise linear, so besides gradient and tangent it
//! has a [`curvature`]: how its tangent depends on where it is taken.

use candle_core::{Result, Tensor, bail};

/// Keeps the square root differentiable where all samples of a group agree.
const EPSILON: f64 = 1e-8;

/// How a batch falls into groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Samples that are compared with each other, at most (the official code's `mbstd_group_size`: 4).
    pub size: usize,
    /// Minibatches in the batch, of equal size; no group crosses their borders.
    pub parts: usize,
}

/// A batch seen as groups: the deviations from each group's mean, and their root mean square.
struct Moments {
    deviation: Tensor, // [p, g, m, h*w*c]
    sigma: Tensor,     // [p, 1, m, h*w*c]
}

impl Groups {
    fn split(self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let each = n / self.parts.max(1);
        let size = self.size.min(each);
        if size == 0 || !n.is_multiple_of(self.parts) || !each.is_multiple_of(size) {
            bail!("{n} samples do not fall into {} parts of groups of {size}", self.parts);
        }
        x.contiguous()?.reshape((self.parts, size, each / size, h * w * c))
    }

    fn moments(self, x: &Tensor) -> Result<Moments> {
        let x = self.split(x)?;
        let deviation = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let sigma = (deviation.sqr()?.mean_keepdim(1)? + EPSILON)?.sqrt()?;
        Ok(Moments { deviation, sigma })
    }

    /// One number for each group, `[p, 1, m, 1]`, into a channel of its samples, behind those of `x`.
    fn append(x: &Tensor, statistic: &Tensor) -> Result<Tensor> {
        let (n, h, w, _) = x.dims4()?;
        let (p, _, m, _) = statistic.dims4()?;
        let channel = statistic.broadcast_as((p, n / p / m, m, h * w))?;
        Tensor::cat(&[x, &channel.contiguous()?.reshape((n, h, w, 1))?], 3)
    }

    /// The gradient that reaches each group's number, `[p, 1, m, 1]`.
    fn collect(self, dy: &Tensor) -> Result<Tensor> {
        let c = dy.dim(3)?;
        self.split(&dy.narrow(3, c - 1, 1)?)?.sum_keepdim(3)?.sum_keepdim(1)
    }
}

/// # Shapes
/// `x`: `[N, H, W, C]`; returns `[N, H, W, C + 1]`.
///
/// # Errors
/// If N does not fall into `groups`.
pub fn forward(x: &Tensor, groups: Groups) -> Result<Tensor> {
    let statistic = groups.moments(x)?.sigma.mean_keepdim(3)?;
    Groups::append(x, &statistic)
}

/// The gradient with respect to `x`.
///
/// # Shapes
/// `x`: `[N, H, W, C]`, `dy`: `[N, H, W, C + 1]`; returns `[N, H, W, C]`.
pub fn backward(x: &Tensor, dy: &Tensor, groups: Groups) -> Result<Tensor> {
    let Moments { deviation, sigma } = groups.moments(x)?;
    let (_, g, _, len) = deviation.dims4()?;
    let weight = (groups.collect(dy)? / (g * len) as f64)?; // ds/dx = (x − mean) / (g σ len)
    let through = deviation.broadcast_div(&sigma)?.broadcast_mul(&weight)?;
    dy.narrow(3, 0, x.dim(3)?)? + through.reshape(x.dims())?
}

/// The tangent: how the output changes as `x` moves along `dx`.
///
/// # Shapes
/// `x` and `dx`: `[N, H, W, C]`; returns `[N, H, W, C + 1]`.
pub fn tangent(x: &Tensor, dx: &Tensor, groups: Groups) -> Result<Tensor> {
    let Moments { deviation, sigma } = groups.moments(x)?;
    let along = (&deviation * groups.split(dx)?)?.mean_keepdim(1)?;
    Groups::append(dx, &(along / sigma)?.mean_keepdim(3)?)
}

/// The gradient of `Σ dy · tangent(x, dx)` with respect to `x`.
///
/// With `d = x − mean_g x`, `q = mean_g(d ẋ)` and δ the gradient that reaches the statistic:
/// `χ = δ / (g len) · ( (ẋ − mean_g ẋ)/σ − q d/σ³ )`.
///
/// # Shapes
/// `x` and `dx`: `[N, H, W, C]`, `dy`: `[N, H, W, C + 1]`; returns `[N, H, W, C]`.
pub fn curvature(x: &Tensor, dx: &Tensor, dy: &Tensor, groups: Groups) -> Result<Tensor> {
    let Moments { deviation, sigma } = groups.moments(x)?;
    let (_, g, _, len) = deviation.dims4()?;
    let dx = groups.split(dx)?;
    let moved = dx.broadcast_sub(&dx.mean_keepdim(1)?)?;
    let along = (&deviation * &dx)?.mean_keepdim(1)?;
    let bent = deviation.broadcast_mul(&(along / sigma.sqr()?)?)?;
    let weight = (groups.collect(dy)? / (g * len) as f64)?;
    (moved - bent)?.broadcast_div(&sigma)?.broadcast_mul(&weight)?.reshape(x.dims())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn wave(shape: &[usize], seed: f64) -> Vec<f64> {
        (0..shape.iter().product()).map(|i: usize| (i as f64 * 1.37 + seed).sin()).collect()
    }

    fn tensor(v: &[f64], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(v, shape, &Device::Cpu)
    }

    fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
        (a * b)?.sum_all()?.to_scalar()
    }

    #[test]
    fn groups_are_strided_and_variance_is_the_populations() -> Result<()> {
        // Two groups of two: {0, 2} and {1, 3}. Deviations 1 and 2.
        let x = tensor(&[0.0, 10.0, 2.0, 14.0], &[4, 1, 1, 1])?;
        let y = forward(&x, Groups { size: 2, parts: 1 })?.flatten_all()?.to_vec1::<f64>()?;
        for (i, s) in [(0, 1.0), (1, 2.0), (2, 1.0), (3, 2.0)] {
            assert!((y[2 * i + 1] - s).abs() < 1e-7, "{y:?}");
        }
        assert!(forward(&x, Groups { size: 3, parts: 1 }).is_err());
        Ok(())
    }

    #[test]
    fn derivatives_by_finite_differences() -> Result<()> {
        for (n, size, parts) in [(4, 4, 1), (8, 4, 1), (8, 4, 2), (3, 4, 1), (1, 4, 1)] {
            let groups = Groups { size, parts };
            let (shape, out) = ([n, 2, 1, 3], [n, 2, 1, 4]);
            let (v, x_dot) = (wave(&shape, 0.2), tensor(&wave(&shape, 0.7), &shape)?);
            let dy = tensor(&wave(&out, 0.4), &out)?;
            let x = tensor(&v, &shape)?;
            let h = 1e-5;
            let ahead = forward(&(&x + (&x_dot * h)?)?, groups)?;
            let behind = forward(&(&x - (&x_dot * h)?)?, groups)?;
            let measured = ((ahead - behind)? / (2.0 * h))?;
            let slip = (measured - tangent(&x, &x_dot, groups)?)?.abs()?.flatten_all()?.max(0)?;
            assert!(n == 1 || slip.to_scalar::<f64>()? < 1e-8);

            let grad = backward(&x, &dy, groups)?;
            let adjoint = dot(&dy, &tangent(&x, &x_dot, groups)?)? - dot(&grad, &x_dot)?;
            assert!(adjoint.abs() < 1e-12);

            let bend = curvature(&x, &x_dot, &dy, groups)?.flatten_all()?.to_vec1::<f64>()?;
            for (i, expected) in bend.iter().enumerate() {
                let at = |h: f64| -> Result<f64> {
                    let mut v = v.clone();
                    v[i] += h;
                    dot(&dy, &tangent(&tensor(&v, &shape)?, &x_dot, groups)?)
                };
                let measured = (at(h)? - at(-h)?) / (2.0 * h);
                assert!(n == 1 || (measured - expected).abs() < 1e-8, "{measured} {expected}");
            }
        }
        Ok(())
    }
}
