//! One step of the discriminator, one of the generator: the mathematics, nothing else.

use candle_core::{D, Result, Tensor};
use pggan_model::{Discriminator, Generator, Grads, Growth};
use pggan_ops::mix;
use serde::{Deserialize, Serialize};

/// The losses' constants. The defaults are the paper's (Appendix A.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Weight λ of the gradient penalty.
    pub gradient_weight: f64,
    /// Norm γ that the penalty asks of the gradient; 750 for CIFAR-10.
    pub gradient_target: f64,
    /// Weight of the real images' squared scores, which keeps scores from drifting away from 0.
    pub drift: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { gradient_weight: 10.0, gradient_target: 1.0, drift: 0.001 }
    }
}

impl LossConfig {
    /// What is wrong with these settings.
    pub fn problems(&self) -> Vec<String> {
        let Self { gradient_weight, gradient_target, drift } = *self;
        let mut problems = Vec::new();
        for (key, value) in [("gradient_weight", gradient_weight), ("drift", drift)] {
            if !(value.is_finite() && value >= 0.0) {
                problems.push(format!("loss.{key} = {value}: must be at least 0"));
            }
        }
        if !(gradient_target.is_finite() && gradient_target > 0.0) {
            problems.push(format!("loss.gradient_target = {gradient_target}: must be above 0"));
        }
        problems
    }
}

/// What a step of the discriminator saw, as means over the minibatch.
#[derive(Clone, Copy, Debug)]
pub struct DiscriminatorReport {
    /// The whole loss.
    pub loss: f64,
    /// Scores of real images.
    pub real: f64,
    /// Scores of generated images.
    pub fake: f64,
    /// Scores of their mixtures.
    pub mixed: f64,
    /// Norms of the gradients with respect to the mixtures; training holds them near the target.
    pub norm: f64,
}

/// The gradients of the discriminator's WGAN-GP loss (paper, Appendix A.1):
///
/// `mean( D(fake) − D(real) + λ/γ² (‖∇D(mixed)‖ − γ)² + ε D(real)² )`, `mixed = real + (fake − real) · mixing`.
///
/// # Shapes
/// `real` and `fake`: `[N, R, R, C]`; `mixing`: `[N, 1, 1, 1]`.
///
/// # Errors
/// If they do not fit the network.
pub fn discriminator_step(
    d: &Discriminator,
    real: &Tensor,
    fake: &Tensor,
    mixing: &Tensor,
    growth: Growth,
    loss: &LossConfig,
) -> Result<(Grads, DiscriminatorReport)> {
    let n = real.dim(0)?;
    let per_sample = 1.0 / n as f64;
    let mut grads = Grads::new(d.params());

    // Real and generated images share one pass; minibatch stddev keeps them apart.
    let (scores, tape) = d.forward(&Tensor::cat(&[real, fake], 0)?, growth, 2)?;
    let (real_scores, fake_scores) = (scores.narrow(0, 0, n)?, scores.narrow(0, n, n)?);
    let toward_real = real_scores.affine(2.0 * loss.drift * per_sample, -per_sample)?;
    let toward_fake = fake_scores.affine(0.0, per_sample)?;
    d.backward(tape, &Tensor::cat(&[toward_real, toward_fake], 0)?, &mut grads)?;

    let mixed = mix::lerp_samples(real, fake, mixing)?;
    let (mixed_scores, tape) = d.forward(&mixed, growth, 1)?;
    let (gradient, deltas) = d.image_grad_and_deltas(&tape, &mixed_scores.ones_like()?)?;
    let norm = mix::norms(&gradient)?; // [n, 1]
    let off = (&norm - loss.gradient_target)?;
    // v = dP/dg; where a gradient is exactly 0 its direction is undefined and v is taken as 0.
    let weight = loss.gradient_weight / loss.gradient_target.powi(2);
    let slope =
        ((&off / &norm.maximum(f64::from(f32::MIN_POSITIVE))?)? * (2.0 * weight * per_sample))?;
    let direction = mix::scale_samples(&gradient, &slope)?;
    d.penalty_grads(tape, deltas, &direction, &mut grads)?;

    let (real, fake) = (mean(&real_scores)?, mean(&fake_scores)?);
    let penalty = weight * mean(&off.sqr()?)?;
    let drift = loss.drift * mean(&real_scores.sqr()?)?;
    let report = DiscriminatorReport {
        loss: fake - real + penalty + drift,
        real,
        fake,
        mixed: mean(&mixed_scores)?,
        norm: mean(&norm)?,
    };
    Ok((grads, report))
}

/// The gradients of the generator's loss, `mean(−D(G(z)))`, and its value.
///
/// # Shapes
/// `latents`: `[N, latent]`.
///
/// # Errors
/// If they do not fit the network.
pub fn generator_step(
    g: &Generator,
    d: &Discriminator,
    latents: &Tensor,
    growth: Growth,
) -> Result<(Grads, f64)> {
    let (fake, tape) = g.forward(latents, None, growth)?;
    let (scores, d_tape) = d.forward(&fake, growth, 1)?;
    let toward = scores.affine(0.0, -1.0 / latents.dim(0)? as f64)?;
    let images_grad = d.image_grad(d_tape, &toward)?;
    Ok((g.backward(tape, &images_grad)?, -mean(&scores)?))
}

fn mean(x: &Tensor) -> Result<f64> {
    x.flatten_all()?.mean(D::Minus1)?.to_dtype(candle_core::DType::F64)?.to_scalar()
}
