//! How near the samples of a minibatch are to each other: the heart of minibatch discrimination (Salimans et al. 2016).
//!
//! Each of several kernels sees a sample as a short vector m. Of sample i it says `Σ_{j ≠ i} exp(−‖m_i − m_j‖₁)`: many
//! when there are many like it. A batch may hold several minibatches one after the other (`parts`), which do not see
//! each other.
//!
//! These tensors are small (a few hundred numbers a sample), so all of it runs on the host, in `f64` and in a fixed order,
//! whatever device and precision they come in.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::pool;

/// How a batch falls into minibatches, and a sample's numbers into kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// Kernels.
    pub count: usize,
    /// Numbers that each sees of a sample.
    pub size: usize,
    /// Minibatches in the batch, of equal size.
    pub parts: usize,
}

/// # Shapes
/// `m`: `[N, count * size]`; returns `[N, count]`.
///
/// # Errors
/// If N does not fall into parts, or a sample not into kernels.
pub fn forward(m: &Tensor, kernels: Kernels) -> Result<Tensor> {
    let x = Samples::read(m, kernels)?;
    x.each_kernel(1, |pair, out| {
        let near = pair.near();
        out[pair.i] += near;
        out[pair.j] += near;
    })
}

/// The gradient with respect to `m`.
///
/// # Shapes
/// `m`: `[N, count * size]`, `dy`: `[N, count]`; returns `[N, count * size]`.
///
/// # Errors
/// If they do not belong together.
pub fn backward(m: &Tensor, dy: &Tensor, kernels: Kernels) -> Result<Tensor> {
    let (x, dy) = (Samples::read(m, kernels)?, values(dy)?);
    x.check(&dy, 1)?;
    x.each_kernel(kernels.size, |pair, out| {
        let reaches =
            dy[pair.i * kernels.count + pair.kernel] + dy[pair.j * kernels.count + pair.kernel];
        pair.push(-reaches * pair.near(), out);
    })
}

/// The tangent: how the output changes as `m` moves along `dm`.
///
/// # Shapes
/// `m` and `dm`: `[N, count * size]`; returns `[N, count]`.
///
/// # Errors
/// If they do not belong together.
pub fn tangent(m: &Tensor, dm: &Tensor, kernels: Kernels) -> Result<Tensor> {
    let (x, dm) = (Samples::read(m, kernels)?, values(dm)?);
    x.check(&dm, kernels.size)?;
    x.each_kernel(1, |pair, out| {
        let change = -pair.near() * pair.parting(&dm);
        out[pair.i] += change;
        out[pair.j] += change;
    })
}

/// The gradient of `Σ dy · tangent(m, dm)` with respect to `m`. (That with respect to `dm` is [`backward`].)
///
/// # Shapes
/// `m` and `dm`: `[N, count * size]`, `dy`: `[N, count]`; returns `[N, count * size]`.
///
/// # Errors
/// If they do not belong together.
pub fn curvature(m: &Tensor, dm: &Tensor, dy: &Tensor, kernels: Kernels) -> Result<Tensor> {
    let (x, dm, dy) = (Samples::read(m, kernels)?, values(dm)?, values(dy)?);
    x.check(&dm, kernels.size)?;
    x.check(&dy, 1)?;
    x.each_kernel(kernels.size, |pair, out| {
        let reaches =
            dy[pair.i * kernels.count + pair.kernel] + dy[pair.j * kernels.count + pair.kernel];
        pair.push(reaches * pair.near() * pair.parting(&dm), out);
    })
}

/// Each kernel's mean over samples of the distance to the nearest other one.
///
/// # Shapes
/// `m`: `[N, count * size]`; returns `count` numbers.
///
/// # Errors
/// As [`forward`]; and if a minibatch has one sample only.
pub fn nearest(m: &Tensor, kernels: Kernels) -> Result<Vec<f64>> {
    let x = Samples::read(m, kernels)?;
    if x.n / kernels.parts < 2 {
        bail!("a minibatch of one sample has no distances");
    }
    Ok(pool::map(kernels.count, |kernel| {
        let mut nearest = vec![f64::INFINITY; x.n];
        x.each_pair(kernel, |pair| {
            let distance = pair.distance();
            nearest[pair.i] = nearest[pair.i].min(distance);
            nearest[pair.j] = nearest[pair.j].min(distance);
        });
        nearest.iter().sum::<f64>() / x.n as f64
    }))
}

/// A batch on the host.
struct Samples {
    values: Vec<f64>,
    n: usize,
    kernels: Kernels,
    device: Device,
    dtype: DType,
}

/// Two samples of a minibatch as one kernel sees them.
struct Pair<'a> {
    samples: &'a Samples,
    kernel: usize,
    i: usize,
    j: usize,
}

impl Samples {
    fn read(m: &Tensor, kernels: Kernels) -> Result<Self> {
        let (n, width) = m.dims2()?;
        if width != kernels.count * kernels.size || !n.is_multiple_of(kernels.parts.max(1)) {
            bail!("a batch of {:?} for {kernels:?}", m.dims());
        }
        let (device, dtype) = (m.device().clone(), m.dtype());
        Ok(Self { values: values(m)?, n, kernels, device, dtype })
    }

    /// Whether there are so many numbers for each kernel and sample.
    fn check(&self, other: &[f64], each: usize) -> Result<()> {
        if other.len() != self.n * self.kernels.count * each {
            bail!(
                "{} numbers do not belong to {} samples ({:?})",
                other.len(),
                self.n,
                self.kernels
            );
        }
        Ok(())
    }

    fn each_pair<'a>(&'a self, kernel: usize, mut visit: impl FnMut(Pair<'a>)) {
        let minibatch = self.n / self.kernels.parts.max(1);
        for i in 0..self.n {
            let end = i - i % minibatch + minibatch;
            (i + 1..end).for_each(|j| visit(Pair { samples: self, kernel, i, j }));
        }
    }

    /// `[N, count * width]`, of which `visit` fills one kernel's `[N, width]` from all its pairs.
    fn each_kernel(
        &self,
        width: usize,
        visit: impl Fn(Pair<'_>, &mut [f64]) + Sync,
    ) -> Result<Tensor> {
        let count = self.kernels.count;
        let kernels = pool::map(count, |kernel| {
            let mut out = vec![0.0; self.n * width];
            self.each_pair(kernel, |pair| visit(pair, &mut out));
            out
        });
        let samples = (0..self.n).flat_map(|i| {
            kernels.iter().flat_map(move |kernel| kernel[i * width..][..width].iter().copied())
        });
        Tensor::from_iter(samples, &Device::Cpu)?
            .reshape((self.n, count * width))?
            .to_dtype(self.dtype)?
            .to_device(&self.device)
    }
}

impl Pair<'_> {
    /// The two samples' vectors among `values`, which are laid out like the samples.
    fn both<'v>(&self, values: &'v [f64]) -> impl Iterator<Item = (&'v f64, &'v f64)> + use<'v> {
        let Kernels { count, size, .. } = self.samples.kernels;
        let of = |sample: usize| values[(sample * count + self.kernel) * size..][..size].iter();
        of(self.i).zip(of(self.j))
    }

    fn distance(&self) -> f64 {
        self.both(&self.samples.values).map(|(a, b)| (a - b).abs()).sum()
    }

    fn near(&self) -> f64 {
        (-self.distance()).exp()
    }

    /// The derivative of the distance with respect to each number of sample i; that for j is its negative.
    fn signs(&self) -> impl Iterator<Item = f64> {
        self.both(&self.samples.values).map(|(a, b)| if a == b { 0.0 } else { (a - b).signum() })
    }

    /// How fast the distance grows as the samples move along `dm`.
    fn parting(&self, dm: &[f64]) -> f64 {
        self.signs().zip(self.both(dm)).map(|(sign, (a, b))| sign * (a - b)).sum()
    }

    /// Adds `weight` times the gradient of the distance.
    fn push(&self, weight: f64, out: &mut [f64]) {
        let size = self.samples.kernels.size;
        for (b, sign) in self.signs().enumerate() {
            out[self.i * size + b] += weight * sign;
            out[self.j * size + b] -= weight * sign;
        }
    }
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: Kernels = Kernels { count: 3, size: 2, parts: 2 };

    fn wave(shape: &[usize], seed: f64) -> Result<Tensor> {
        let count = shape.iter().product::<usize>();
        let wave = (0..count).map(|i| (i as f64 * 1.37 + seed).sin());
        Tensor::from_iter(wave, &Device::Cpu)?.reshape(shape)
    }

    fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
        (a * b)?.sum_all()?.to_scalar()
    }

    #[test]
    fn alike_samples_of_a_minibatch_are_counted() -> Result<()> {
        // Two minibatches of two samples; one kernel of two numbers.
        let m = Tensor::new(&[[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, -2.0]], &Device::Cpu)?;
        let kernels = Kernels { count: 1, size: 2, parts: 2 };
        let y = forward(&m, kernels)?.flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(y, [1.0, 1.0, (-3f64).exp(), (-3f64).exp()]);
        assert_eq!(nearest(&m, kernels)?, [1.5]);
        let y32 = forward(&m.to_dtype(DType::F32)?, kernels)?;
        assert_eq!((y32.dtype(), y32.dims()), (DType::F32, &[4, 1][..]));
        Ok(())
    }

    #[test]
    fn what_does_not_belong_together_is_refused() -> Result<()> {
        let m = wave(&[4, 6], 0.0)?;
        assert!(forward(&m, Kernels { parts: 3, ..KERNELS }).is_err());
        assert!(forward(&m, Kernels { count: 2, ..KERNELS }).is_err());
        assert!(backward(&m, &wave(&[4, 2], 0.0)?, KERNELS).is_err());
        assert!(nearest(&m, Kernels { parts: 4, ..KERNELS }).is_err());
        Ok(())
    }

    #[test]
    fn derivatives_by_finite_differences() -> Result<()> {
        let shape = [6, 6];
        let (m, dm, dy) = (wave(&shape, 0.2)?, wave(&shape, 0.7)?, wave(&[6, 3], 0.4)?);
        let h = 1e-5;
        let ahead = forward(&(&m + (&dm * h)?)?, KERNELS)?;
        let behind = forward(&(&m - (&dm * h)?)?, KERNELS)?;
        let measured = ((ahead - behind)? / (2.0 * h))?;
        let along = tangent(&m, &dm, KERNELS)?;
        let slip = (measured - &along)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        assert!(slip < 1e-8, "{slip}");
        let adjoint = dot(&dy, &along)? - dot(&backward(&m, &dy, KERNELS)?, &dm)?;
        assert!(adjoint.abs() < 1e-12);

        let bend = curvature(&m, &dm, &dy, KERNELS)?.flatten_all()?.to_vec1::<f64>()?;
        let values = m.flatten_all()?.to_vec1::<f64>()?;
        for (i, expected) in bend.iter().enumerate() {
            let at = |h: f64| -> Result<f64> {
                let mut v = values.clone();
                v[i] += h;
                dot(&dy, &tangent(&Tensor::from_vec(v, &shape, &Device::Cpu)?, &dm, KERNELS)?)
            };
            let measured = (at(h)? - at(-h)?) / (2.0 * h);
            assert!((measured - expected).abs() < 1e-8, "{measured} {expected}");
        }
        Ok(())
    }
}
