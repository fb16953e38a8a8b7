use std::f64::consts::SQRT_2;

use candle_core::{DType, Device, Tensor, bail};
use pggan_ops::conv::Resample;
use pggan_ops::mix::{add, lerp, scale, turn};
use pggan_ops::resample::{mean2x2, mean2x2_grad};
use pggan_ops::stddev::{self, Groups};

use crate::error::{Error, Result};
use crate::layers::{Activation, Layer, Shape};
use crate::params::{Builder, Grads, Params};
use crate::{Growth, ModelConfig};

/// Images to scores (paper, Table 2).
///
/// All passes walk the same list of steps, which depends on the growth. Besides forward and
/// backward there is what the gradient penalty needs: see [`Discriminator::penalty_grads`].
#[derive(Debug)]
pub struct Discriminator {
    config: ModelConfig,
    params: Params,
    blocks: Vec<Block>,   // of levels 3, 4, …
    from_rgb: Vec<Layer>, // of levels 2, 3, …
    conv: Layer,
    dense0: Layer,
    dense1: Layer,
}

/// The layers of one resolution above 4x4.
#[derive(Debug)]
struct Block {
    conv0: Layer,
    conv1: Layer, // halves the resolution if fused
}

/// One step from images to scores.
#[derive(Clone, Copy)]
enum Step<'a> {
    Layer(&'a Layer),
    /// Halves the resolution, where `conv1` does not.
    Halve,
    /// Blends with the image at half the resolution, as `from_rgb` of the level below sees it.
    FadeIn(&'a Layer, f64),
    Stddev(Groups),
    /// `[N, 4, 4, C]` to `[N, 1, 1, C * 16]`.
    Flatten,
}

/// A forward pass, as far as the passes after it need it.
#[derive(Clone, Debug)]
pub struct Tape {
    growth: Growth,
    parts: usize,
    /// The input of each step; the first is the image, the last the output of all.
    values: Vec<Tensor>,
    /// While fading: the image at half the resolution, and `from_rgb` of it.
    older: Option<(Tensor, Tensor)>,
}

/// The gradients that a backward pass met on its way.
#[derive(Debug)]
pub struct Deltas {
    /// For a layer: the gradient of its sum of convolution and bias. For [`Step::Stddev`]: of its output.
    values: Vec<Option<Tensor>>,
    older: Option<Tensor>,
}

/// What a backward pass leaves out or adds.
struct Request<'a> {
    grads: Option<&'a mut Grads>,
    image: bool,
    deltas: Option<&'a mut Deltas>,
}

impl Discriminator {
    /// A discriminator with biases of zero and weights from `normal`, which is called with the name of each
    /// weight and must fill it with draws from N(0, 1).
    ///
    /// # Errors
    /// If `config` is impossible or the device out of memory.
    pub fn new(
        config: &ModelConfig,
        dtype: DType,
        device: &Device,
        normal: &mut dyn FnMut(&str, &mut [f32]),
    ) -> Result<Self, Error> {
        config.validate()?;
        let mut params = Builder::new(dtype, device, normal);
        let mut layer = |name: &str, shape: &Shape, gain, resample, activation| {
            Layer::new(&mut params, name, shape, gain, resample, activation)
        };
        let (same, lrelu) = (Resample::Same, Activation::LeakyRelu);
        let maps = |level| config.fmaps(level);
        let down = if config.fused_scale { Resample::Down } else { same };

        // From 4x4 up, like the generator, so that the two files of weights read alike.
        let mut from_rgb = Vec::new();
        let mut blocks = Vec::new();
        let extra = usize::from(config.mbstd_group > 1);
        let rgb = |level| Shape::conv(config.channels, maps(level), 1);
        from_rgb.push(layer("level02.from_rgb", &rgb(2), SQRT_2, same, lrelu)?);
        let shape = Shape::conv(maps(2) + extra, maps(2), 3);
        let conv = layer("level02.conv", &shape, SQRT_2, same, lrelu)?;
        let shape = Shape::dense(16 * maps(2), config.nf(0));
        let dense0 = layer("level02.dense0", &shape, SQRT_2, same, lrelu)?;
        let shape = Shape::dense(config.nf(0), 1 + config.label_size);
        let dense1 = layer("level02.dense1", &shape, 1.0, same, Activation::Linear)?;
        for level in 3..=config.max_level() {
            let name = |layer| format!("level{level:02}.{layer}");
            from_rgb.push(layer(&name("from_rgb"), &rgb(level), SQRT_2, same, lrelu)?);
            let shape = Shape::conv(maps(level), maps(level), 3);
            let conv0 = layer(&name("conv0"), &shape, SQRT_2, same, lrelu)?;
            let shape = Shape::conv(maps(level), maps(level - 1), 3);
            let conv1 = layer(&name("conv1"), &shape, SQRT_2, down, lrelu)?;
            blocks.push(Block { conv0, conv1 });
        }
        let (config, params) = (config.clone(), params.finish());
        Ok(Self { config, params, blocks, from_rgb, conv, dense0, dense1 })
    }

    /// The shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The parameters, in order.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, to change them.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Scores, and what the other passes need.
    ///
    /// A batch may be made of several minibatches (`parts`), which minibatch stddev keeps apart.
    ///
    /// # Shapes
    /// `images`: `[N, R, R, C]`, channels last; returns `[N, 1 + classes]`: the score, then the logits of the labels.
    ///
    /// # Errors
    /// If shapes or growth do not fit the network, or N is not divisible into groups.
    pub fn forward(&self, images: &Tensor, growth: Growth, parts: usize) -> Result<(Tensor, Tape)> {
        let (n, h, w, _) = images.dims4()?;
        if h != growth.resolution() || w != growth.resolution() {
            bail!("images of {h}x{w} pixels at level {}", growth.level);
        }
        let p = &self.params;
        let mut older = None;
        let mut values = vec![images.clone()];
        for step in self.steps(growth, parts)? {
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
                Step::Stddev(groups) => stddev::forward(x, groups)?,
                Step::Flatten => flatten(x)?,
            };
            values.push(y);
        }
        let scores = values.last().expect("the image is there").reshape((n, ()))?;
        Ok((scores, Tape { growth, parts, values, older }))
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
        self.walk_back(
            tape,
            scores_grad,
            Request { grads: Some(grads), image: false, deltas: None },
        )?;
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
        let request = Request { grads: None, image: true, deltas: None };
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
        let request = Request { grads: None, image: true, deltas: Some(&mut deltas) };
        let image = self.walk_back(tape.clone(), scores_grad, request)?;
        Ok((image.expect("asked for"), deltas))
    }

    /// The exact gradient of a function of the image gradient, without second-order autograd.
    ///
    /// Let `g(θ)` be the image gradient of Σ scores · `scores_grad` at some images, and P a function of g with
    /// `v = ∂P/∂g`. Then `∇P = ∇⟨g(θ), v⟩` with v held fixed, and ⟨g, v⟩ is the tangent of the scores as the images
    /// move along v. Every layer but minibatch stddev is linear or piecewise linear, so on the way up the
    /// gradient with respect to a layer's weights is the product of the tangent that enters it and the delta
    /// that the first backward pass left there. Minibatch stddev bends: its tangent depends on its input,
    /// so from there a second backward pass goes down with the gradient that this dependence makes.
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
        let mut tangent = direction.clone();
        let mut bend = None;
        for (i, step) in self.steps(tape.growth, tape.parts)?.into_iter().enumerate() {
            let y = &tape.values[i + 1];
            tangent = match step {
                Step::Layer(layer) => {
                    let delta = take(&mut deltas.values[i])?;
                    layer.weight_grad(p, &tangent, &delta, grads)?;
                    layer.tangent(p, &tangent, y)?
                }
                Step::Halve => mean2x2(&tangent)?,
                Step::FadeIn(from_rgb, alpha) => {
                    let small = mean2x2(direction)?;
                    let (_, old) = tape.older.as_ref().expect("kept while fading");
                    from_rgb.weight_grad(p, &small, &take(&mut deltas.older)?, grads)?;
                    let old = from_rgb.tangent(p, &small, old)?;
                    lerp(&old, &tangent, alpha)?
                }
                Step::Stddev(groups) => {
                    let delta = take(&mut deltas.values[i])?;
                    let x = &tape.values[i];
                    bend = Some((i, stddev::curvature(x, &tangent, &delta, groups)?));
                    stddev::tangent(x, &tangent, groups)?
                }
                Step::Flatten => flatten(&tangent)?,
            };
        }
        if let Some((step, gradient)) = bend {
            tape.values.truncate(step + 1);
            let request = Request { grads: Some(grads), image: false, deltas: None };
            self.walk_back(tape, &gradient, request)?;
        }
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
        let steps = self.steps(tape.growth, tape.parts)?;
        let Some(last) = tape.values.last().filter(|_| tape.values.len() <= steps.len() + 1) else {
            bail!("this tape is of another network");
        };
        let mut dy = dy.reshape(last.dims())?;
        let mut older_image_grad = None;
        for (i, step) in steps.into_iter().enumerate().take(tape.values.len() - 1).rev() {
            // Taking the outputs off the tape frees each as soon as it has served.
            let y = tape.values.pop().expect("one value more than steps");
            let x = &tape.values[i];
            dy = match step {
                Step::Layer(layer) => {
                    let delta = layer.unactivate_plain(&dy, &y)?;
                    drop((dy, y)); // images are large: none is kept longer than it serves
                    if let Some(grads) = want.grads.as_deref_mut() {
                        layer.bias_grad(&delta, grads)?;
                        layer.weight_grad(p, x, &delta, grads)?;
                    }
                    if i == 0 && !want.image {
                        return Ok(None);
                    }
                    let dx = layer.input_grad(p, &delta)?;
                    if let Some(deltas) = want.deltas.as_deref_mut() {
                        deltas.values[i] = Some(delta);
                    }
                    dx
                }
                Step::Halve => mean2x2_grad(&dy)?,
                Step::FadeIn(from_rgb, alpha) => {
                    let (small, old) = tape.older.as_ref().expect("kept while fading");
                    let delta = from_rgb.unactivate_plain(&scale(&dy, 1.0 - alpha)?, old)?;
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
                    scale(&dy, alpha)?
                }
                Step::Stddev(groups) => {
                    let dx = stddev::backward(x, &dy, groups)?;
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

    /// The way from images to scores at this growth.
    fn steps(&self, growth: Growth, parts: usize) -> Result<Vec<Step<'_>>> {
        let Some(entry) =
            (growth.level as usize).checked_sub(2).filter(|&i| i < self.from_rgb.len())
        else {
            let levels = self.from_rgb.len() + 1;
            bail!("level {} of a network with levels 2 to {levels}", growth.level);
        };
        let mut steps = vec![Step::Layer(&self.from_rgb[entry])];
        for (i, block) in self.blocks[..entry].iter().enumerate().rev() {
            steps.extend([Step::Layer(&block.conv0), Step::Layer(&block.conv1)]);
            if !self.config.fused_scale {
                steps.push(Step::Halve);
            }
            if i + 1 == entry && growth.fading() {
                steps.push(Step::FadeIn(&self.from_rgb[i], growth.alpha));
            }
        }
        if self.config.mbstd_group > 1 {
            steps.push(Step::Stddev(Groups { size: self.config.mbstd_group, parts }));
        }
        steps.extend([Step::Layer(&self.conv), Step::Flatten]);
        steps.extend([Step::Layer(&self.dense0), Step::Layer(&self.dense1)]);
        Ok(steps)
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
