//! One step of the discriminator, one of the generator: the mathematics, nothing else.

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::ops::log_softmax;
use pggan_model::{Discriminator, Generator, Grads, Growth, Noise, Tape};
use pggan_ops::{mix, pool};

use crate::loss::{LossConfig, Moments};

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
    /// In the discriminator's layers: draws for real images, then generated, then mixed ones.
    pub noise: Option<&'a Noise>,
}

/// The gradients of the discriminator's loss. WGAN-GP (paper, Appendix A.1):
///
/// `mean( D(fake) − D(real) + λ/γ² (‖∇D(mixed)‖ − γ)² + ε D(real)² )`, `mixed = real + (fake − real) · mixing`;
///
/// LSGAN: `mean( (D(real) − 1)² + D(fake)² ) / 2`, or with the labels the other way round ([`LossConfig::of_real`]).
/// With classes, to each: the mean cross-entropy between them and the logits of real and of generated images.
///
/// # Errors
/// If the batch does not fit the network.
pub fn discriminator_step(
    d: &Discriminator,
    batch: Batch<'_>,
    growth: Growth,
    loss: &LossConfig,
) -> Result<(Grads, DiscriminatorReport)> {
    let mut grads = Grads::new(d.params());
    if !loss.penalized() {
        let report = scoring(d, batch, growth, loss, &mut grads)?;
        return Ok((grads, report));
    }
    let (mut report, penalty) = if d.params().are_short_on(batch.real) {
        let mut more = Grads::new(d.params());
        let (report, penalty) = pool::join(
            || scoring(d, batch, growth, loss, &mut grads),
            || penalty(d, batch, growth, loss, &mut more),
        );
        let both = (report?, penalty?);
        grads.merge(more)?;
        both
    } else {
        let report = scoring(d, batch, growth, loss, &mut grads)?;
        (report, penalty(d, batch, growth, loss, &mut grads)?)
    };
    (report.mixed, report.norm) = (penalty.score, penalty.norm);
    report.loss += penalty.loss;
    Ok((grads, report))
}

/// All of the step but the penalty; gradients are added to `grads`.
fn scoring(
    d: &Discriminator,
    Batch { real, fake, labels, noise, .. }: Batch<'_>,
    growth: Growth,
    loss: &LossConfig,
    grads: &mut Grads,
) -> Result<DiscriminatorReport> {
    let n = real.dim(0)?;
    let per_sample = 1.0 / n as f64;

    // Real and generated images share one pass; minibatch stddev keeps them apart.
    let (outputs, tape) = forward(d, &Tensor::cat(&[real, fake], 0)?, growth, 2, noise, 0)?;
    let scores = outputs.narrow(1, 0, 1)?;
    let (real_scores, fake_scores) = (scores.narrow(0, 0, n)?, scores.narrow(0, n, n)?);
    let (of_real, of_fake) = (loss.of_real(), loss.of_fake());
    let mut toward =
        Tensor::cat(&[of_real.gradient(&real_scores)?, of_fake.gradient(&fake_scores)?], 0)?;
    let mut label_loss = 0.0;
    if let Some(labels) = labels {
        let twice = Tensor::cat(&[labels, labels], 0)?;
        let (entropy, gradient) = cross_entropy(&outputs, &twice, loss.label_weight * per_sample)?;
        label_loss = entropy;
        toward = Tensor::cat(&[toward, gradient], 1)?;
    }
    d.backward(tape, &toward, grads)?;

    let (real_scores, fake_scores) = (Moments::of(&real_scores)?, Moments::of(&fake_scores)?);
    Ok(DiscriminatorReport {
        loss: of_real.value(real_scores) + of_fake.value(fake_scores) + label_loss,
        real: real_scores.mean,
        fake: fake_scores.mean,
        mixed: 0.0,
        norm: 0.0,
    })
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
    Batch { real, fake, mixing, noise, .. }: Batch<'_>,
    growth: Growth,
    loss: &LossConfig,
    grads: &mut Grads,
) -> Result<Penalty> {
    let n = real.dim(0)?;
    let mixed = mix::lerp_samples(real, fake, mixing)?;
    let (outputs, tape) = forward(d, &mixed, growth, 1, noise, 2 * n)?;
    let scores = outputs.narrow(1, 0, 1)?;
    // Of the scores alone: labels have no penalty.
    let classes = outputs.dim(1)? - 1;
    let toward = scores.ones_like()?.pad_with_zeros(1, 0, classes)?;
    let (gradient, deltas) = d.image_grad_and_deltas(&tape, &toward)?;
    let norm = mix::norms(&gradient)?; // [n, 1]
    let mut off = (&norm - loss.gradient_target)?;
    if loss.one_sided {
        off = off.relu()?;
    }
    // v = dP/dg; where a gradient is exactly 0 its direction is undefined and v is taken as 0.
    let weight = loss.gradient_weight / loss.gradient_target.powi(2);
    let slope =
        ((&off / &norm.maximum(f64::from(f32::MIN_POSITIVE))?)? * (2.0 * weight / n as f64))?;
    let direction = mix::scale_samples(&gradient, &slope)?;
    d.penalty_grads(tape, deltas, &direction, grads)?;
    Ok(Penalty {
        loss: weight * Moments::of(&off)?.square,
        score: Moments::of(&scores)?.mean,
        norm: Moments::of(&norm)?.mean,
    })
}

/// The gradients of the generator's loss, and its value: `mean(−D(G(z)))` of WGAN-GP, for LSGAN what the discriminator
/// wants of real images; with labels, the cross-entropy between them and the logits in addition.
///
/// # Shapes
/// `latents`: `[N, latent]`; `labels`: `[N, classes]`, one-hot; `noise`: draws for N images.
///
/// # Errors
/// If they do not fit the network.
pub fn generator_step(
    g: &Generator,
    d: &Discriminator,
    latents: &Tensor,
    labels: Option<&Tensor>,
    noise: Option<&Noise>,
    growth: Growth,
    loss: &LossConfig,
) -> Result<(Grads, f64)> {
    let n = latents.dim(0)?;
    if let Some(labels) = labels
        && labels.dim(0)? != n
    {
        bail!("{} labels for {n} latent vectors", labels.dim(0)?);
    }
    let step = GeneratorStep { g, d, growth, loss, samples: n };
    // Who sees whom is a matter of both networks.
    let tiny = g.params().are_tiny_on(n, growth) && g.config() == d.config();
    let Some([a, b]) = g.config().halves(n).filter(|_| tiny) else {
        return step.share(latents, labels, noise);
    };
    let half = |rows: Vec<u32>| step.share_of(&rows, latents, labels, noise);
    let (a, b) = pool::join(|| half(a), || half(b));
    let ((mut grads, a), (more, b)) = (a?, b?);
    grads.merge(more)?;
    Ok((grads, a + b))
}

/// A step of the generator on so many samples in all.
struct GeneratorStep<'a> {
    g: &'a Generator,
    d: &'a Discriminator,
    growth: Growth,
    loss: &'a LossConfig,
    samples: usize,
}

impl GeneratorStep<'_> {
    /// What these samples, which the others do not see, add to the gradients and to the loss.
    fn share(
        &self,
        latents: &Tensor,
        labels: Option<&Tensor>,
        noise: Option<&Noise>,
    ) -> Result<(Grads, f64)> {
        let Self { g, d, growth, loss, samples } = *self;
        let share = latents.dim(0)? as f64 / samples as f64;
        let (fake, tape) = g.forward(latents, labels, growth)?;
        let (outputs, d_tape) = forward(d, &fake, growth, 1, noise, 0)?;
        drop(fake);
        let scores = outputs.narrow(1, 0, 1)?;
        let wanted = loss.of_generated();
        let mut value = wanted.value(Moments::of(&scores)?) * share;
        let mut toward = (wanted.gradient(&scores)? * share)?;
        if let Some(labels) = labels {
            let weight = loss.label_weight / samples as f64;
            let (entropy, gradient) = cross_entropy(&outputs, labels, weight)?;
            value += entropy;
            toward = Tensor::cat(&[toward, gradient], 1)?;
        }
        let images_grad = d.image_grad(d_tape, &toward)?;
        Ok((g.backward(tape, &images_grad)?, value))
    }

    /// [`Self::share`] of some rows.
    fn share_of(
        &self,
        rows: &[u32],
        latents: &Tensor,
        labels: Option<&Tensor>,
        noise: Option<&Noise>,
    ) -> Result<(Grads, f64)> {
        let rows = Tensor::new(rows, latents.device())?;
        let select = |x: &Tensor| x.index_select(&rows, 0);
        let labels = labels.map(select).transpose()?;
        let draws = noise.map(|noise| select(&noise.draws)).transpose()?;
        let noise = noise
            .zip(draws)
            .map(|(Noise { strength, .. }, draws)| Noise { strength: *strength, draws });
        self.share(&select(latents)?, labels.as_ref(), noise.as_ref())
    }
}

/// A pass of the discriminator, with the noise's draws from row `first` on.
fn forward(
    d: &Discriminator,
    images: &Tensor,
    growth: Growth,
    parts: usize,
    noise: Option<&Noise>,
    first: usize,
) -> Result<(Tensor, Tape)> {
    let Some(Noise { strength, draws }) = noise else { return d.forward(images, growth, parts) };
    let draws = draws.narrow(0, first, images.dim(0)?)?;
    d.forward_with_noise(images, growth, parts, &Noise { strength: *strength, draws })
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
        bail!("{classes} classes, but the network has {}", outputs.dim(1)? - 1);
    }
    let log = log_softmax(&outputs.narrow(1, 1, classes)?, 1)?;
    let labelled = labels.sum_keepdim(1)?;
    let gradient = ((log.exp()?.broadcast_mul(&labelled)? - labels)? * weight)?;
    let sum = (log * labels)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    Ok((-weight * sum, gradient))
}
