//! Minibatch standard deviation (paper §3): one more channel that tells how much a group of samples varies.
//!
//! A batch may hold several minibatches one after the other (`parts`); each is divided into groups of `group`
//! samples by strides: of M groups, sample n belongs to group n mod M, as in the official code. For a group,
//! `s = mean_chw( sqrt( mean_g (x − mean_g x)² + 1e-8 ) )`, and s fills a channel of all its samples.
//!
//! The layer is not piecewise linear, so besides gradient and tangent it has a [`curvature`]: how its tangent depends on
//! where it is taken.

use candle_core::{Result, Tensor, bail};

use crate::cells::fill;
use crate::slices;

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
    if slices::is_fast(x) {
        let batch = Batch::new(x, groups)?;
        let y = slices::read(x, |x| batch.append(x, &batch.statistics(&batch.moments(x))))?;
        return batch.tensor(y, 1);
    }
    let statistic = groups.moments(x)?.sigma.mean_keepdim(3)?;
    Groups::append(x, &statistic)
}

/// The gradient with respect to `x`.
///
/// # Shapes
/// `x`: `[N, H, W, C]`, `dy`: `[N, H, W, C + 1]`; returns `[N, H, W, C]`.
pub fn backward(x: &Tensor, dy: &Tensor, groups: Groups) -> Result<Tensor> {
    if slices::is_fast(x) {
        let batch = Batch::new(x, groups)?;
        batch.check(dy, 1)?;
        let dx = slices::read(x, |x| slices::read(dy, |dy| batch.backward(x, dy)))??;
        return batch.tensor(dx, 0);
    }
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
    if slices::is_fast(x) {
        let batch = Batch::new(x, groups)?;
        batch.check(dx, 0)?;
        let y = slices::read(x, |x| slices::read(dx, |dx| batch.tangent(x, dx)))??;
        return batch.tensor(y, 1);
    }
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
    if slices::is_fast(x) {
        let batch = Batch::new(x, groups)?;
        batch.check(dx, 0)?;
        batch.check(dy, 1)?;
        let bend = slices::read(x, |x| {
            slices::read(dx, |dx| slices::read(dy, |dy| batch.curvature(x, dx, dy)))
        })???;
        return batch.tensor(bend, 0);
    }
    let Moments { deviation, sigma } = groups.moments(x)?;
    let (_, g, _, len) = deviation.dims4()?;
    let dx = groups.split(dx)?;
    let moved = dx.broadcast_sub(&dx.mean_keepdim(1)?)?;
    let along = (&deviation * &dx)?.mean_keepdim(1)?;
    let bent = deviation.broadcast_mul(&(along / sigma.sqr()?)?)?;
    let weight = (groups.collect(dy)? / (g * len) as f64)?;
    (moved - bent)?.broadcast_div(&sigma)?.broadcast_mul(&weight)?.reshape(x.dims())
}

/// A batch as the fast path sees it: sample `(p * size + k) * strides + m` is the k-th of group m of part p.
struct Batch {
    dims: (usize, usize, usize, usize),
    size: usize,
    strides: usize,
    /// Numbers in a sample.
    len: usize,
}

/// Of each group and place in a sample: two numbers, first all of the one kind, then all of the other.
struct Pairs {
    data: Vec<f32>,
    len: usize,
}

impl Pairs {
    fn of(&self, group: usize) -> (&[f32], &[f32]) {
        self.data[2 * group * self.len..][..2 * self.len].split_at(self.len)
    }
}

impl Batch {
    fn new(x: &Tensor, groups: Groups) -> Result<Self> {
        let (_, size, strides, len) = groups.split(x)?.dims4()?;
        Ok(Self { dims: x.dims4()?, size, strides, len })
    }

    /// Whether `other` has the batch's shape, with so many more channels.
    fn check(&self, other: &Tensor, more: usize) -> Result<()> {
        let (n, h, w, c) = self.dims;
        if other.dims() != [n, h, w, c + more] {
            bail!("{:?} does not belong to {:?}", other.dims(), self.dims);
        }
        Ok(())
    }

    fn tensor(&self, data: Vec<f32>, more: usize) -> Result<Tensor> {
        let (n, h, w, c) = self.dims;
        slices::tensor(data, &[n, h, w, c + more])
    }

    fn groups(&self) -> usize {
        self.dims.0 / self.size
    }

    fn group_of(&self, sample: usize) -> usize {
        sample / (self.size * self.strides) * self.strides + sample % self.strides
    }

    /// The samples of a group, among `x`.
    fn members<'a>(&self, x: &'a [f32], group: usize) -> impl Iterator<Item = &'a [f32]> {
        let first = group / self.strides * self.size * self.strides + group % self.strides;
        let (len, strides) = (self.len, self.strides);
        (0..self.size).map(move |k| &x[(first + k * strides) * len..][..len])
    }

    /// Mean and standard deviation over each group.
    fn moments(&self, x: &[f32]) -> Pairs {
        let share = 1.0 / self.size as f32;
        let data = fill(self.groups(), 2 * self.len, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(2 * self.len).enumerate() {
                let (mean, sigma) = row.split_at_mut(self.len);
                for x in self.members(x, first + i) {
                    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += x * share);
                }
                for x in self.members(x, first + i) {
                    for ((sigma, mean), x) in sigma.iter_mut().zip(&*mean).zip(x) {
                        *sigma += (x - mean) * (x - mean) * share;
                    }
                }
                for sigma in sigma.iter_mut() {
                    *sigma = (*sigma + EPSILON as f32).sqrt();
                }
            }
        });
        Pairs { data, len: self.len }
    }

    /// The mean standard deviation of each group.
    fn statistics(&self, moments: &Pairs) -> Vec<f32> {
        (0..self.groups()).map(|group| mean(moments.of(group).1.iter().copied())).collect()
    }

    /// `x` with the number of each sample's group as one more channel.
    fn append(&self, x: &[f32], statistics: &[f32]) -> Vec<f32> {
        let (n, h, w, c) = self.dims;
        fill(n * h * w, c + 1, |first, y| {
            for (i, y) in y.chunks_exact_mut(c + 1).enumerate() {
                y[..c].copy_from_slice(&x[(first + i) * c..][..c]);
                y[c] = statistics[self.group_of((first + i) / (h * w))];
            }
        })
    }

    /// What reaches each group's number, divided by the group's numbers in all.
    fn weights(&self, dy: &[f32]) -> Vec<f32> {
        let (_, h, w, c) = self.dims;
        let mut sums = vec![0f64; self.groups()];
        for (i, dy) in dy.chunks_exact(c + 1).enumerate() {
            sums[self.group_of(i / (h * w))] += f64::from(dy[c]);
        }
        sums.iter().map(|sum| (sum / (self.size * self.len) as f64) as f32).collect()
    }

    fn backward(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (n, h, w, c) = self.dims;
        let (moments, weights) = (self.moments(x), self.weights(dy));
        fill(n * h * w, c, |first, dx| {
            for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
                let (sample, at) = ((first + i) / (h * w), (first + i) % (h * w) * c);
                let group = self.group_of(sample);
                let ((mean, sigma), weight) = (moments.of(group), weights[group]);
                let (mean, sigma) = (&mean[at..][..c], &sigma[at..][..c]);
                let (x, dy) = (&x[(first + i) * c..][..c], &dy[(first + i) * (c + 1)..][..c]);
                for (j, dx) in dx.iter_mut().enumerate() {
                    *dx = dy[j] + (x[j] - mean[j]) / sigma[j] * weight;
                }
            }
        })
    }

    /// Of each group and place: the mean of `t`, and that of `(x - mean) t`.
    fn along(&self, x: &[f32], t: &[f32], moments: &Pairs) -> Pairs {
        let share = 1.0 / self.size as f32;
        let data = fill(self.groups(), 2 * self.len, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(2 * self.len).enumerate() {
                let (mean, _) = moments.of(first + i);
                let (middle, along) = row.split_at_mut(self.len);
                for (x, t) in self.members(x, first + i).zip(self.members(t, first + i)) {
                    for (j, along) in along.iter_mut().enumerate() {
                        middle[j] += t[j] * share;
                        *along += (x[j] - mean[j]) * t[j] * share;
                    }
                }
            }
        });
        Pairs { data, len: self.len }
    }

    fn tangent(&self, x: &[f32], t: &[f32]) -> Vec<f32> {
        let moments = self.moments(x);
        let along = self.along(x, t, &moments);
        let statistics: Vec<f32> = (0..self.groups())
            .map(|group| {
                let pairs = along.of(group).1.iter().zip(moments.of(group).1);
                mean(pairs.map(|(along, sigma)| along / sigma))
            })
            .collect();
        self.append(t, &statistics)
    }

    fn curvature(&self, x: &[f32], t: &[f32], dy: &[f32]) -> Vec<f32> {
        let (moments, weights) = (self.moments(x), self.weights(dy));
        let along = self.along(x, t, &moments);
        fill(self.dims.0, self.len, |first, bend| {
            for (i, bend) in bend.chunks_exact_mut(self.len).enumerate() {
                let group = self.group_of(first + i);
                let ((mean, sigma), (middle, along)) = (moments.of(group), along.of(group));
                let sample = (first + i) * self.len;
                let (x, t) = (&x[sample..][..self.len], &t[sample..][..self.len]);
                for (j, bend) in bend.iter_mut().enumerate() {
                    let bent = (x[j] - mean[j]) * along[j] / (sigma[j] * sigma[j]);
                    *bend = ((t[j] - middle[j]) - bent) / sigma[j] * weights[group];
                }
            }
        })
    }
}

/// Summed in f64, in order.
fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len() as f64;
    (values.map(f64::from).sum::<f64>() / count) as f32
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
    fn both_paths_agree() -> Result<()> {
        for (n, size, parts) in [(4, 4, 1), (8, 4, 1), (16, 4, 2), (3, 4, 1), (6, 3, 1), (1, 4, 1)]
        {
            let groups = Groups { size, parts };
            let (shape, out) = ([n, 4, 4, 5], [n, 4, 4, 6]);
            let x = tensor(&wave(&shape, 0.2), &shape)?;
            let t = tensor(&wave(&shape, 0.7), &shape)?;
            let dy = tensor(&wave(&out, 0.4), &out)?;
            let f = |x: &Tensor| x.to_dtype(candle_core::DType::F32);
            let (x32, t32, dy32) = (f(&x)?, f(&t)?, f(&dy)?);
            for (slow, fast) in [
                (forward(&x, groups)?, forward(&x32, groups)?),
                (backward(&x, &dy, groups)?, backward(&x32, &dy32, groups)?),
                (tangent(&x, &t, groups)?, tangent(&x32, &t32, groups)?),
                (curvature(&x, &t, &dy, groups)?, curvature(&x32, &t32, &dy32, groups)?),
            ] {
                assert_eq!(slow.dims(), fast.dims());
                let off = (&slow - fast.to_dtype(candle_core::DType::F64)?)?;
                let largest = |t: Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
                assert!(largest(off)? < 1e-5 * (1.0 + largest(slow)?), "{n} {size} {parts}");
            }
        }
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
