//! The optimizer's and the running average's passes over a parameter.

use candle_core::{Result, Tensor};
use pulp::Arch;

use crate::{pool, slices};

/// Elements that one task takes.
const CHUNK: usize = 1 << 12;

/// Where Adam adds its epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epsilon {
    /// `p −= lr √(1−β₂ᵗ)/(1−β₁ᵗ) · m / (√v + ε)`: TensorFlow's form, which the official code ran.
    Official,
    /// `p −= lr/(1−β₁ᵗ) · m / (√(v/(1−β₂ᵗ)) + ε)`: the form of Adam's paper, and PyTorch's.
    Paper,
}

/// One step of Adam: its constants, and how many steps have been taken since the last reset.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment; 0 in the paper, and then no first moment is kept.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Where it is added.
    pub form: Epsilon,
    /// This step's number, from 1.
    pub step: u64,
}

impl Adam {
    /// The size of the step, and the factor of `√v` in the denominator.
    fn factors(&self) -> (f64, f64) {
        let step = self.step.min(i32::MAX as u64) as i32;
        let first = 1.0 - self.beta1.powi(step);
        let second = (1.0 - self.beta2.powi(step)).sqrt();
        match self.form {
            Epsilon::Official => (self.lr * second / first, 1.0),
            Epsilon::Paper => (self.lr / first, 1.0 / second),
        }
    }

    /// Moves `p` against its gradient `g` and updates the moments: `m` (used only if β₁ > 0) and `v`. Before that,
    /// `running` moves towards the `p` that was, as [`average`] does.
    ///
    /// On the CPU in `f32`, without `m`, all of this is one pass, in place; elsewhere the tensors are replaced.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn update(
        &self,
        p: &mut Tensor,
        g: &Tensor,
        m: Option<&mut Tensor>,
        v: &mut Tensor,
        running: Option<Running<'_>>,
    ) -> Result<()> {
        if p.dims() != g.dims() || p.dims() != v.dims() {
            candle_core::bail!("gradient {:?} for parameter {:?}", g.dims(), p.dims());
        }
        if slices::is_fast(p) && m.is_none() {
            return self.update_in_place(p, g, v, running);
        }
        if let Some(Running { value, beta }) = running {
            average(value, p, beta)?;
        }
        let (size, root) = self.factors();
        *v = ((&*v * self.beta2)? + (g.sqr()? * (1.0 - self.beta2))?)?;
        let first = match m {
            Some(m) => {
                *m = ((&*m * self.beta1)? + (g * (1.0 - self.beta1))?)?;
                m.clone()
            }
            None => g.clone(),
        };
        let denominator = ((v.sqrt()? * root)? + self.epsilon)?;
        *p = (&*p - ((first / denominator)? * size)?)?;
        Ok(())
    }

    fn update_in_place(
        &self,
        p: &Tensor,
        g: &Tensor,
        v: &Tensor,
        running: Option<Running<'_>>,
    ) -> Result<()> {
        let (size, root) = self.factors();
        let (size, root) = (size as f32, root as f32);
        let (beta2, epsilon) = (self.beta2 as f32, self.epsilon as f32);
        let step = |p: &mut [f32], v: &mut [f32], g: &[f32]| {
            for ((p, v), g) in p.iter_mut().zip(v).zip(g) {
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *p -= size * g / (v.sqrt() * root + epsilon);
            }
        };
        slices::read(g, |g| {
            slices::write(v, |v| {
                slices::write(p, |p| {
                    let parts = p.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)).zip(g.chunks(CHUNK));
                    let Some(Running { value, beta }) = running else {
                        pool::sweep(parts, |((p, v), g)| step(p, v, g));
                        return Ok(());
                    };
                    let beta = beta as f32;
                    slices::write(value, |running| {
                        let parts = parts.zip(running.chunks_mut(CHUNK));
                        pool::sweep(parts, |(((p, v), g), running)| {
                            toward(running, p, beta);
                            step(p, v, g);
                        });
                    })
                })
            })
        })???
    }
}

/// The running average of a parameter, and what it keeps of itself at each step.
#[derive(Debug)]
pub struct Running<'a> {
    /// The average, of the parameter's shape.
    pub value: &'a mut Tensor,
    /// The share of itself that it keeps.
    pub beta: f64,
}

fn toward(average: &mut [f32], p: &[f32], beta: f32) {
    for (average, p) in average.iter_mut().zip(p) {
        *average = p + (*average - p) * beta;
    }
}

/// Moves `average` towards `p`: `average = p + (average − p) beta`.
///
/// # Errors
/// If the shapes differ.
pub fn average(average: &mut Tensor, p: &Tensor, beta: f64) -> Result<()> {
    if average.dims() != p.dims() {
        candle_core::bail!("average {:?} of parameter {:?}", average.dims(), p.dims());
    }
    if !slices::is_fast(p) {
        *average = (p + ((&*average - p)? * beta)?)?;
        return Ok(());
    }
    let beta = beta as f32;
    slices::read(p, |p| {
        slices::write(average, |average| {
            let parts = average.chunks_mut(CHUNK).zip(p.chunks(CHUNK));
            pool::sweep(parts, |(average, p)| toward(average, p, beta));
        })
    })?
}

/// The sum of the squares of all elements; not finite if one of them is not.
///
/// # Errors
/// If the device fails.
pub fn sum_of_squares(x: &Tensor) -> Result<f64> {
    if !slices::is_fast(x) {
        return x.sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?.to_scalar();
    }
    slices::read(x, |x| {
        // By chunks of fixed size and in their order, so that the threads don't matter.
        let chunks: Vec<&[f32]> = x.chunks(CHUNK).collect();
        pool::map(chunks.len(), |i| Arch::new().dispatch(|| sum_of_chunk(chunks[i]))).iter().sum()
    })
}

/// In f64, by sums that don't wait for one another.
fn sum_of_chunk(x: &[f32]) -> f64 {
    let mut sums = [0f64; 16];
    let (rows, rest) = x.as_chunks::<16>();
    for row in rows {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x) * f64::from(x);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn both_paths_and_both_forms() -> Result<()> {
        for form in [Epsilon::Official, Epsilon::Paper] {
            let values = |seed: f64| (0..70_000).map(move |i| (f64::from(i) * 0.37 + seed).sin());
            let tensor = |seed| Tensor::from_iter(values(seed), &Device::Cpu);
            let (mut p, mut v) = (tensor(0.1)?, tensor(0.0)?.zeros_like()?);
            let (mut p32, mut v32) = (p.to_dtype(DType::F32)?, v.to_dtype(DType::F32)?);
            let (mut a, mut a32) = (p.copy()?, p32.copy()?);
            for step in 1..=3 {
                let adam = Adam { lr: 1e-2, beta1: 0.0, beta2: 0.99, epsilon: 1e-8, form, step };
                let g = tensor(step as f64)?;
                let mut apart = a32.copy()?;
                average(&mut apart, &p32, 0.9)?;
                let running = Some(Running { value: &mut a, beta: 0.9 });
                adam.update(&mut p, &g, None, &mut v, running)?;
                let running = Some(Running { value: &mut a32, beta: 0.9 });
                adam.update(&mut p32, &g.to_dtype(DType::F32)?, None, &mut v32, running)?;
                assert_eq!(apart.to_vec1::<f32>()?, a32.to_vec1::<f32>()?);
            }
            for (a, b) in [(&p, &p32), (&a, &a32), (&v, &v32)] {
                let worst = (a - b.to_dtype(DType::F64)?)?.abs()?.max(0)?.to_scalar::<f64>()?;
                assert!(worst < 1e-6, "{worst}");
            }
        }
        Ok(())
    }

    #[test]
    fn first_step_is_the_learning_rate_whatever_the_gradient() -> Result<()> {
        for (beta1, form) in [(0.0, Epsilon::Official), (0.5, Epsilon::Paper)] {
            let mut p = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
            let (mut m, mut v) = (p.zeros_like()?, p.zeros_like()?);
            let g = Tensor::new(&[1e-3f32, -5.0, 100.0], &Device::Cpu)?;
            let adam = Adam { lr: 0.01, beta1, beta2: 0.99, epsilon: 1e-8, form, step: 1 };
            adam.update(&mut p, &g, (beta1 > 0.0).then_some(&mut m), &mut v, None)?;
            for (p, sign) in p.to_vec1::<f32>()?.iter().zip([-1.0, 1.0, -1.0]) {
                assert!((p - sign * 0.01).abs() < 1e-5, "{p}");
            }
        }
        Ok(())
    }
}
