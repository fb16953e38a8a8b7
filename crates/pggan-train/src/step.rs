//! One step of the discriminator, one of the generator: the mathematics, nothing else.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::log_softmax;
use pggan_model::{Discriminator, Generator, Grads, Growth};
use pggan_ops::mix;
use serde::{Deserialize, Serialize};

/// The losses. The defaults are the paper's (Appendix A.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Which loss.
    pub kind: LossKind,
    /// Weight λ of the gradient penalty.
    pub gradient_weight: f64,
    /// Norm γ that the penalty asks of the gradient; 750 for CIFAR-10.
    pub gradient_target: f64,
    /// Weight of the real images' squared scores, which keeps scores from drifting away from 0.
    pub drift: f64,
    /// Weight of the labels' cross-entropy (AC-GAN), in networks with labels.
    pub label_weight: f64,
}

/// What the scores are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Wasserstein distance with gradient penalty and drift.
    WganGp,
    /// Least squares: real images toward 1, generated ones toward 0. Penalty and drift have no part in it.
    Lsgan,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            kind: LossKind::WganGp,
            gradient_weight: 10.0,
            gradient_target: 1.0,
            drift: 0.001,
            label_weight: 1.0,
        }
    }
}

impl LossConfig {
    /// What is wrong with these settings.
    pub fn problems(&self) -> Vec<String> {
        let Self { gradient_weight, gradient_target, drift, label_weight, .. } = *self;
        let mut problems = Vec::new();
        let weights = [
            ("gradient_weight", gradient_weight),
            ("drift", drift),
            ("label_weight", label_weight),
        ];
        for (key, value) in weights {
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
    /// Scores of their mixtures; 0 where the loss has no penalty.
    pub mixed: f64,
    /// Norms of the gradients with respect to the mixtures; training holds them near the target. 0 where the
    /// loss has no penalty.
    pub norm: f64,
}

/// What a step of the discriminator is made on.
///
/// # Shapes
/// `real` and `fake`: `[N, R, R, C]`; `mixing`: `[N, 1, 1, 1]`; `labels`: `[N, classes]`, one-hot, of the real
/// images and of the generated ones alike.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Real images, faded like the networks.
    pub real: &'a Tensor,
    /// Generated images.
    pub fake: &'a Tensor,
    /// Where between the two the penalty looks.
    pub mixing: &'a Tensor,
    /// Of networks with labels.
    pub labels: Option<&'a Tensor>,
}

/// The gradients of the discriminator's loss. WGAN-GP (paper, Appendix A.1):
///
/// `mean( D(fake) − D(real) + λ/γ² (‖∇D(mixed)‖ − γ)² + ε D(real)² )`, `mixed = real + (fake − real) · mixing`;
///
/// LSGAN: `mean( (D(real) − 1)² + D(fake)² ) / 2`. With labels, to either: the mean cross-entropy between them and
/// the logits of real and of generated images.
///
/// # Errors
/// If the batch does not fit the network.
pub fn discriminator_step(
    d: &Discriminator,
    batch: Batch<'_>,
    growth: Growth,
    loss: &LossConfig,
) -> Result<(Grads, DiscriminatorReport)> {
    let Batch { real, fake, labels, .. } = batch;
    let n = real.dim(0)?;
    let per_sample = 1.0 / n as f64;
    let mut grads = Grads::new(d.params());

    // Real and generated images share one pass; minibatch stddev keeps them apart.
    let (outputs, tape) = d.forward(&Tensor::cat(&[real, fake], 0)?, growth, 2)?;
    let scores = outputs.narrow(1, 0, 1)?;
    let (real_scores, fake_scores) = (scores.narrow(0, 0, n)?, scores.narrow(0, n, n)?);
    let (toward_real, toward_fake) = match loss.kind {
        LossKind::WganGp => (
            real_scores.affine(2.0 * loss.drift * per_sample, -per_sample)?,
            fake_scores.affine(0.0, per_sample)?,
        ),
        LossKind::Lsgan => {
            (real_scores.affine(per_sample, -per_sample)?, (&fake_scores * per_sample)?)
        }
    };
    let mut toward = Tensor::cat(&[toward_real, toward_fake], 0)?;
    let mut label_loss = 0.0;
    if let Some(labels) = labels {
        let twice = Tensor::cat(&[labels, labels], 0)?;
        let (entropy, gradient) = cross_entropy(&outputs, &twice, loss.label_weight * per_sample)?;
        label_loss = entropy;
        toward = Tensor::cat(&[toward, gradient], 1)?;
    }
    d.backward(tape, &toward, &mut grads)?;

    let (real_mean, fake_mean) = (mean(&real_scores)?, mean(&fake_scores)?);
    let mut report = DiscriminatorReport {
        loss: label_loss,
        real: real_mean,
        fake: fake_mean,
        mixed: 0.0,
        norm: 0.0,
    };
    match loss.kind {
        LossKind::WganGp => {
            let penalty = penalty(d, batch, growth, loss, &mut grads)?;
            let drift = loss.drift * mean(&real_scores.sqr()?)?;
            (report.mixed, report.norm) = (penalty.score, penalty.norm);
            report.loss += fake_mean - real_mean + penalty.loss + drift;
        }
        LossKind::Lsgan => {
            let (off, fake) = ((real_scores - 1.0)?.sqr()?, fake_scores.sqr()?);
            report.loss += 0.5 * (mean(&off)? + mean(&fake)?);
        }
    }
    Ok((grads, report))
}

/// Means over the minibatch.
struct Penalty {
    loss: f64,
    score: f64,
    norm: f64,
}

/// The gradient penalty between real and generated images; its exact gradient is added to `grads`.
fn penalty(
    d: &Discriminator,
    Batch { real, fake, mixing, .. }: Batch<'_>,
    growth: Growth,
    loss: &LossConfig,
    grads: &mut Grads,
) -> Result<Penalty> {
    let n = real.dim(0)?;
    let mixed = mix::lerp_samples(real, fake, mixing)?;
    let (outputs, tape) = d.forward(&mixed, growth, 1)?;
    let scores = outputs.narrow(1, 0, 1)?;
    // Of the scores alone: labels have no penalty.
    let classes = outputs.dim(1)? - 1;
    let toward = scores.ones_like()?.pad_with_zeros(1, 0, classes)?;
    let (gradient, deltas) = d.image_grad_and_deltas(&tape, &toward)?;
    let norm = mix::norms(&gradient)?; // [n, 1]
    let off = (&norm - loss.gradient_target)?;
    // v = dP/dg; where a gradient is exactly 0 its direction is undefined and v is taken as 0.
    let weight = loss.gradient_weight / loss.gradient_target.powi(2);
    let slope =
        ((&off / &norm.maximum(f64::from(f32::MIN_POSITIVE))?)? * (2.0 * weight / n as f64))?;
    let direction = mix::scale_samples(&gradient, &slope)?;
    d.penalty_grads(tape, deltas, &direction, grads)?;
    Ok(Penalty { loss: weight * mean(&off.sqr()?)?, score: mean(&scores)?, norm: mean(&norm)? })
}

/// The gradients of the generator's loss, and its value: `mean(−D(G(z)))` of WGAN-GP, `mean((D(G(z)) − 1)²) / 2` of
/// LSGAN; with labels, the cross-entropy between them and the logits in addition.
///
/// # Shapes
/// `latents`: `[N, latent]`; `labels`: `[N, classes]`, one-hot.
///
/// # Errors
/// If they do not fit the network.
pub fn generator_step(
    g: &Generator,
    d: &Discriminator,
    latents: &Tensor,
    labels: Option<&Tensor>,
    growth: Growth,
    loss: &LossConfig,
) -> Result<(Grads, f64)> {
    let per_sample = 1.0 / latents.dim(0)? as f64;
    let (fake, tape) = g.forward(latents, labels, growth)?;
    let (outputs, d_tape) = d.forward(&fake, growth, 1)?;
    drop(fake);
    let scores = outputs.narrow(1, 0, 1)?;
    let (mut value, mut toward) = match loss.kind {
        LossKind::WganGp => (-mean(&scores)?, scores.affine(0.0, -per_sample)?),
        LossKind::Lsgan => {
            (0.5 * mean(&(&scores - 1.0)?.sqr()?)?, scores.affine(per_sample, -per_sample)?)
        }
    };
    if let Some(labels) = labels {
        let (entropy, gradient) = cross_entropy(&outputs, labels, loss.label_weight * per_sample)?;
        value += entropy;
        toward = Tensor::cat(&[toward, gradient], 1)?;
    }
    let images_grad = d.image_grad(d_tape, &toward)?;
    Ok((g.backward(tape, &images_grad)?, value))
}

/// `weight` times the sum over samples of the cross-entropy between labels and logits, and its gradient with respect
/// to the logits.
///
/// # Shapes
/// `outputs`: `[N, 1 + classes]`, the logits behind the score; `labels`: `[N, classes]`, a row of zeros for a
/// sample without a label; returns `[N, classes]`.
fn cross_entropy(outputs: &Tensor, labels: &Tensor, weight: f64) -> Result<(f64, Tensor)> {
    let classes = labels.dim(1)?;
    if outputs.dim(1)? != 1 + classes {
        candle_core::bail!("{classes} classes, but the network has {}", outputs.dim(1)? - 1);
    }
    let log = log_softmax(&outputs.narrow(1, 1, classes)?, 1)?;
    let labelled = labels.sum_keepdim(1)?;
    let gradient = ((log.exp()?.broadcast_mul(&labelled)? - labels)? * weight)?;
    let sum = (log * labels)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    Ok((-weight * sum, gradient))
}

fn mean(x: &Tensor) -> Result<f64> {
    x.flatten_all()?.mean(D::Minus1)?.to_dtype(DType::F64)?.to_scalar()
}
