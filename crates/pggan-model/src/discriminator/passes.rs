//! The discriminator's passes: forward, backward, and what the gradient penalty needs. All walk the same steps.

use candle_core::{Tensor, bail};
use pggan_ops::gain::scale_maps;
use pggan_ops::mix::{add, lerp, scale, turn};
use pggan_ops::pool::both;
use pggan_ops::resample::{mean2x2, mean2x2_grad};

use super::Discriminator;
use super::steps::{Noise, Step};
use crate::Growth;
use crate::error::Result;
use crate::params::Grads;

/// A forward pass, as far as the passes after it need it.
#[derive(Clone, Debug)]
pub struct Tape {
    growth: Growth,
    parts: usize,
    noise: Option<Noise>,
    /// The input of each step; the first is the image, the last the output of all.
    values: Vec<Tensor>,
    /// While fading: the image at half the resolution, and `from_rgb` of it.
    older: Option<(Tensor, Tensor)>,
}

impl Tape {
    /// What entered the `count`-th last step.
    pub(super) fn entered(&self, count: usize) -> &Tensor {
        &self.values[self.values.len() - 1 - count]
    }
}

/// The gradients that a backward pass met on its way.
#[derive(Debug)]
pub struct Deltas {
    /// For a layer: the gradient of its sum of linear map and bias. For a step that bends: of its output.
    values: Vec<Option<Tensor>>,
    older: Option<Tensor>,
}

/// What a backward pass leaves out or adds.
#[derive(Default)]
struct Request<'a> {
    grads: Option<&'a mut Grads>,
    image: bool,
    deltas: Option<&'a mut Deltas>,
    /// What joins the gradient of a step's input: the curvatures of the steps that bend.
    bends: Vec<Option<Tensor>>,
}

impl Discriminator {
    /// Scores, and what the other passes need.
    ///
    /// A batch may be made of several minibatches (`parts`), which minibatch stddev and minibatch discrimination keep apart.
    ///
    /// # Shapes
    /// `images`: `[N, R, R, C]`, channels last; returns `[N, 1 + classes]`: the score, then the logits of the labels.
    ///
    /// # Errors
    /// If shapes or growth do not fit the network, or N is not divisible into groups.
    pub fn forward(&self, images: &Tensor, growth: Growth, parts: usize) -> Result<(Tensor, Tape)> {
        self.run(images, growth, parts, None)
    }

    /// [`Discriminator::forward`] with noise in the layers; the passes that follow have the same.
    ///
    /// # Errors
    /// As [`Discriminator::forward`]; and if there are not as many draws as the pass takes.
    pub fn forward_with_noise(
        &self,
        images: &Tensor,
        growth: Growth,
        parts: usize,
        noise: &Noise,
    ) -> Result<(Tensor, Tape)> {
        let needed = [images.dim(0)?, self.noise_channels(growth)];
        if noise.draws.dims() != needed {
            bail!("noise of {:?} draws, but {needed:?} are needed", noise.draws.dims());
        }
        self.run(images, growth, parts, Some(noise.clone()))
    }

    fn run(
        &self,
        images: &Tensor,
        growth: Growth,
        parts: usize,
        noise: Option<Noise>,
    ) -> Result<(Tensor, Tape)> {
        let (n, h, w, _) = images.dims4()?;
        if h != growth.resolution() || w != growth.resolution() {
            bail!("images of {h}x{w} pixels at level {}", growth.level);
        }
        let p = &self.params;
        let mut older = None;
        let mut values = vec![images.clone()];
        for step in self.steps(growth, parts, noise.as_ref())? {
            let x = values.last().expect("the image is there");
            let y = match step {
                Step::Layer(layer) => layer.forward(p, x)?.y,
                Step::Halve => mean2x2(x)?,
                Step::FadeIn(from_rgb, alpha) => {
                    let small = mean2x2(images)?;
                    let old = from_rgb.forward(p, &small)?.y;
                    let y = lerp(&old, x, alpha)?;
                    older = Some((small, old));
                    y
                }
                Step::Noise(factors) => scale_maps(x, &factors)?,
                Step::Bend(bend) => bend.forward(p, x)?,
                Step::Flatten => flatten(x)?,
            };
            values.push(y);
        }
        let scores = values.last().expect("the image is there").reshape((n, ()))?;
        Ok((scores, Tape { growth, parts, noise, values, older }))
    }

    /// Gradients with respect to the parameters, from the one with respect to the scores. They are added to
    /// `grads`.
    ///
    /// # Shapes
    /// `scores_grad`: `[N, 1 + classes]`.
    ///
    /// # Errors
    /// If the tape is of another network or batch.
    pub fn backward(&self, tape: Tape, scores_grad: &Tensor, grads: &mut Grads) -> Result<()> {
        self.walk_back(tape, scores_grad, Request { grads: Some(grads), ..Request::default() })?;
        Ok(())
    }

    /// The gradient with respect to the images alone.
    ///
    /// # Shapes
    /// `scores_grad`: `[N, 1 + classes]`; returns `[N, R, R, C]`.
    ///
    /// # Errors
    /// If the tape is of another network or batch.
    pub fn image_grad(&self, tape: Tape, scores_grad: &Tensor) -> Result<Tensor> {
        let request = Request { image: true, ..Request::default() };
        Ok(self.walk_back(tape, scores_grad, request)?.expect("asked for"))
    }

    /// [`Discriminator::image_grad`], together with what [`Discriminator::penalty_grads`] needs of the way.
    ///
    /// # Errors
    /// As [`Discriminator::image_grad`].
    pub fn image_grad_and_deltas(
        &self,
        tape: &Tape,
        scores_grad: &Tensor,
    ) -> Result<(Tensor, Deltas)> {
        let mut deltas = Deltas { values: vec![None; tape.values.len() - 1], older: None };
        let request = Request { image: true, deltas: Some(&mut deltas), ..Request::default() };
        let image = self.walk_back(tape.clone(), scores_grad, request)?;
        Ok((image.expect("asked for"), deltas))
    }

    /// The exact gradient of a function of the image gradient, without second-order autograd.
    ///
    /// Let `g(θ)` be the image gradient of Σ scores · `scores_grad` at some images, and P a function of g with
    /// `v = ∂P/∂g`. Then `∇P = ∇⟨g(θ), v⟩` with v held fixed, and ⟨g, v⟩ is the tangent of the scores as the images
    /// move along v. Most steps are linear or piecewise linear, so on the way up the gradient with respect to a layer's
    /// weights is the product of the tangent that enters it and the delta that the first backward pass left there. The
    /// others bend (minibatch stddev, layer norm, minibatch discrimination): their tangent depends on their input. So a last
    /// backward pass goes down from the topmost of them, and each adds the gradient that this dependence makes: its
    /// curvature.
    ///
    /// The result is added to `grads`.
    ///
    /// # Shapes
    /// `direction` (v): `[N, R, R, C]`. `tape` and `deltas` come from [`Discriminator::forward`] and
    /// [`Discriminator::image_grad_and_deltas`] at the same images.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn penalty_grads(
        &self,
        mut tape: Tape,
        mut deltas: Deltas,
        direction: &Tensor,
        grads: &mut Grads,
    ) -> Result<()> {
        let p = &self.params;
        let noise = tape.noise.clone();
        let short = p.are_short_on(direction);
        let mut tangent = direction.clone();
        let mut bends = vec![None; deltas.values.len()];
        let steps = self.steps(tape.growth, tape.parts, noise.as_ref())?;
        for (i, step) in steps.into_iter().enumerate() {
            let y = &tape.values[i + 1];
            tangent = match step {
                Step::Layer(layer) => {
                    let delta = take(&mut deltas.values[i])?;
                    let (own, tangent) = both(
                        short,
                        || layer.weight_grad(p, &tangent, &delta, grads),
                        || layer.tangent(p, &tangent, y),
                    );
                    own?;
                    tangent?
                }
                Step::Halve => mean2x2(&tangent)?,
                Step::FadeIn(from_rgb, alpha) => {
                    let small = mean2x2(direction)?;
                    let (_, old) = tape.older.as_ref().expect("kept while fading");
                    from_rgb.weight_grad(p, &small, &take(&mut deltas.older)?, grads)?;
                    let old = from_rgb.tangent(p, &small, old)?;
                    lerp(&old, &tangent, alpha)?
                }
                Step::Noise(factors) => scale_maps(&tangent, &factors)?,
                Step::Bend(bend) => {
                    let delta = take(&mut deltas.values[i])?;
                    let x = &tape.values[i];
                    bends[i] = Some(bend.curvature(p, x, (&tangent, &delta), grads)?);
                    bend.tangent(p, x, &tangent)?
                }
                Step::Flatten => flatten(&tangent)?,
            };
        }
        let Some(top) = bends.iter().rposition(Option::is_some) else { return Ok(()) };
        tape.values.truncate(top + 1);
        let gradient = take(&mut bends[top])?;
        let request = Request { grads: Some(grads), bends, ..Request::default() };
        self.walk_back(tape, &gradient, request)?;
        Ok(())
    }

    /// Backward from the last value on the tape, `dy` being its gradient; returns the image's, if wanted.
    fn walk_back(
        &self,
        mut tape: Tape,
        dy: &Tensor,
        mut want: Request<'_>,
    ) -> Result<Option<Tensor>> {
        let p = &self.params;
        let short = p.are_short_on(&tape.values[0]);
        let noise = tape.noise.take();
        let steps = self.steps(tape.growth, tape.parts, noise.as_ref())?;
        let Some(last) = tape.values.last().filter(|_| tape.values.len() <= steps.len() + 1) else {
            bail!("this tape is of another network");
        };
        let mut dy = dy.reshape(last.dims())?;
        let mut older_image_grad = None;
        let mut through = false; // whether `dy` has come through the activation of the layer it meets
        for (i, step) in steps.iter().enumerate().take(tape.values.len() - 1).rev() {
            // Taking the outputs off the tape frees each as soon as it has served.
            let y = tape.values.pop().expect("one value more than steps");
            let x = &tape.values[i];
            let below = match steps[..i].last() {
                Some(Step::Layer(below)) => Some(*below),
                _ => None,
            };
            dy = match step {
                Step::Layer(layer) => {
                    // Images are large: none is kept longer than it serves.
                    let delta = if std::mem::take(&mut through) {
                        dy
                    } else {
                        let delta = layer.unactivate_plain(&dy, &y, 1.0)?;
                        drop(dy);
                        delta
                    };
                    drop(y);
                    let own = |grads: Option<&mut Grads>| {
                        let Some(grads) = grads else { return Ok(()) };
                        layer.bias_grad(&delta, grads)?;
                        layer.weight_grad(p, x, &delta, grads)
                    };
                    if i == 0 && !want.image {
                        own(want.grads)?;
                        return Ok(None);
                    }
                    through = below.is_some();
                    let grads = want.grads.as_deref_mut();
                    let (own, dx) = both(
                        short && grads.is_some(),
                        || own(grads),
                        || match below {
                            Some(below) => layer.input_grad_through(p, &delta, (below, x)),
                            None => layer.input_grad(p, &delta),
                        },
                    );
                    own?;
                    let dx = dx?;
                    if let Some(deltas) = want.deltas.as_deref_mut() {
                        deltas.values[i] = Some(delta);
                    }
                    dx
                }
                Step::Halve => mean2x2_grad(&dy)?,
                Step::FadeIn(from_rgb, alpha) => {
                    let (small, old) = tape.older.as_ref().expect("kept while fading");
                    let delta = from_rgb.unactivate_plain(&dy, old, 1.0 - *alpha)?;
                    if let Some(grads) = want.grads.as_deref_mut() {
                        from_rgb.bias_grad(&delta, grads)?;
                        from_rgb.weight_grad(p, small, &delta, grads)?;
                    }
                    if want.image {
                        older_image_grad = Some(mean2x2_grad(&from_rgb.input_grad(p, &delta)?)?);
                    }
                    if let Some(deltas) = want.deltas.as_deref_mut() {
                        deltas.older = Some(delta);
                    }
                    through = below.is_some();
                    match below {
                        Some(below) => below.unactivate_in_place(dy, x, *alpha)?,
                        None => scale(&dy, *alpha)?,
                    }
                }
                Step::Noise(factors) => scale_maps(&dy, factors)?,
                Step::Bend(bend) => {
                    let mut dx = bend.backward(p, x, &dy, want.grads.as_deref_mut())?;
                    if let Some(curvature) = want.bends.get_mut(i).and_then(Option::take) {
                        dx = add(dx, &curvature)?;
                    }
                    if let Some(deltas) = want.deltas.as_deref_mut() {
                        deltas.values[i] = Some(dy);
                    }
                    dx
                }
                Step::Flatten => unflatten(&dy)?,
            };
        }
        Ok(Some(match older_image_grad {
            Some(older) => add(dy, &older)?,
            None => dy,
        }))
    }
}

fn take(delta: &mut Option<Tensor>) -> Result<Tensor> {
    match delta.take() {
        Some(delta) => Ok(delta),
        None => bail!("these deltas are of another pass"),
    }
}

fn flatten(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    turn(x, h * w, c)?.reshape((n, 1, 1, c * h * w))
}

fn unflatten(x: &Tensor) -> Result<Tensor> {
    let (n, _, _, c) = x.dims4()?;
    turn(x, c / 16, 16)?.reshape((n, 4, 4, c / 16))
}
