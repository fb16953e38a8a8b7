use std::f64::consts::SQRT_2;

use candle_core::{DType, Device, Tensor, bail};
use pggan_ops::conv::Resample;
use pggan_ops::mix::{add, lerp, scale, turn};
use pggan_ops::pixel_norm::pixel_norm;
use pggan_ops::pool::{both, join};
use pggan_ops::resample::{up2, up2_grad};

use crate::config::GeneratorNorm;
use crate::error::{Error, Result};
use crate::hidden::{Hidden, HiddenOutput, Moments};
use crate::layers::{Layer, Nonlinearity, Shape};
use crate::params::{Builder, Grads, Params};
use crate::{Growth, ModelConfig, OutputActivation};

/// Latent vectors to images (paper, Table 2).
///
/// Activations run channels last inside; [`Generator::generate`] returns images as everyone expects them.
#[derive(Debug)]
pub struct Generator {
    config: ModelConfig,
    params: Params,
    dense: Hidden,
    blocks: Vec<Block>, // of levels 2, 3, …
}

/// The layers of one resolution.
#[derive(Debug)]
struct Block {
    /// Doubles the resolution; at level 2 the dense layer stands in its place.
    conv0: Option<Hidden>,
    conv1: Hidden,
    to_rgb: Layer,
}

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub struct GeneratorTape {
    growth: Growth,
    latents: Tensor,          // normalized, [n, 1, 1, latent + labels]
    convs: Vec<HiddenOutput>, // of the dense layer and every 3x3 layer, in order
    images: Option<Tensor>,   // where they are a hyperbolic tangent
}

/// What a forward pass is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// To be gone back over.
    Kept,
    /// To train the discriminator.
    Once,
    /// To be looked at.
    Evaluation,
}

impl Generator {
    /// A generator with biases of zero and weights from `normal`, which is called with the name of each
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
        let mut params = Builder::new(dtype, device, normal, config.equalized);
        let inputs = config.latent_size() + config.label_size;
        let dense = Hidden::new(
            &mut params,
            "level02.dense",
            &Shape {
                outputs_per_bias: if config.position_bias { 1 } else { 16 },
                ..Shape::dense(inputs, 16 * config.fmaps(2))
            },
            SQRT_2 / 4.0, // as the official code: its first version was a full 4x4 convolution
            Resample::Same,
            config,
        )?;
        let mut blocks = Vec::new();
        for level in 2..=config.max_level() {
            let maps = config.fmaps(level);
            let name = |layer| format!("level{level:02}.{layer}");
            let mut conv = |layer, inputs, resample| {
                let shape = Shape::conv(inputs, maps, 3);
                Hidden::new(&mut params, &name(layer), &shape, SQRT_2, resample, config)
            };
            let conv0 = (level > 2)
                .then(|| conv("conv0", config.fmaps(level - 1), Resample::Up))
                .transpose()?;
            let conv1 = conv("conv1", maps, Resample::Same)?;
            let rgb = Shape::conv(maps, config.channels, 1);
            let none = Nonlinearity::None;
            let to_rgb = Layer::new(&mut params, &name("to_rgb"), &rgb, 1.0, Resample::Same, none)?;
            blocks.push(Block { conv0, conv1, to_rgb });
        }
        Ok(Self { config: config.clone(), params: params.finish(), dense, blocks })
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

    /// The same network in memory of its own: the start of a running average.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn duplicate(&self) -> Result<Self, Error> {
        let first = self.params.iter().next().expect("a generator has layers");
        let (dtype, device) = (first.value.dtype(), first.value.device().clone());
        let mut twin = Self::new(&self.config, dtype, &device, &mut |_, _| ())?;
        twin.params = self.params.copy()?;
        Ok(twin)
    }

    /// Images for people and files. None of them depends on the others: batch norm takes its running averages.
    ///
    /// # Shapes
    /// `latents`: `[N, latent]`, `labels`: `[N, classes]` (one-hot) of a conditional network; returns
    /// `[N, C, R, R]`, about [-1, 1] (only [`crate::OutputActivation::Tanh`] bounds them; clip when converting).
    ///
    /// # Errors
    /// If shapes or growth do not fit the network.
    pub fn generate(
        &self,
        latents: &Tensor,
        labels: Option<&Tensor>,
        growth: Growth,
    ) -> Result<Tensor> {
        let (images, _) = self.run(latents, labels, growth, Pass::Evaluation)?;
        images.permute((0, 3, 1, 2))?.contiguous()
    }

    /// Images for the discriminator, and what [`Generator::backward`] needs.
    ///
    /// # Shapes
    /// As [`Generator::generate`], but returns images channels last, `[N, R, R, C]`.
    ///
    /// # Errors
    /// If shapes or growth do not fit the network.
    pub fn forward(
        &self,
        latents: &Tensor,
        labels: Option<&Tensor>,
        growth: Growth,
    ) -> Result<(Tensor, GeneratorTape)> {
        self.run(latents, labels, growth, Pass::Kept)
    }

    /// [`Generator::forward`] of which nothing is kept for a backward pass.
    ///
    /// # Errors
    /// As [`Generator::forward`].
    pub fn forward_only(
        &self,
        latents: &Tensor,
        labels: Option<&Tensor>,
        growth: Growth,
    ) -> Result<Tensor> {
        let images = |latents: &Tensor, labels: Option<&Tensor>| {
            Ok::<_, candle_core::Error>(self.run(latents, labels, growth, Pass::Once)?.0)
        };
        let n = latents.dim(0)?;
        let tiny = self.params.are_tiny_on(n, growth);
        if !tiny || n < 2 || self.config.g_norm == GeneratorNorm::BatchNorm {
            return images(latents, labels);
        }
        let latents = latents.chunk(2, 0)?;
        let labels = labels.map(|labels| labels.chunk(2, 0)).transpose()?;
        let half = |i: usize| images(&latents[i], labels.as_ref().and_then(|labels| labels.get(i)));
        let (a, b) = join(|| half(0), || half(1));
        Tensor::cat(&[a?, b?], 0)
    }

    fn run(
        &self,
        latents: &Tensor,
        labels: Option<&Tensor>,
        growth: Growth,
        pass: Pass,
    ) -> Result<(Tensor, GeneratorTape)> {
        let p = &self.params;
        let keep = pass == Pass::Kept;
        let moments = if pass == Pass::Evaluation { Moments::Running } else { Moments::Batch };
        let blocks = self.blocks_at(growth)?;
        let latents = self.normalized(latents, labels)?;
        let mut tape = GeneratorTape { growth, latents, convs: Vec::new(), images: None };

        let dense = &self.dense;
        let x = dense.layer.linear(p, &tape.latents)?; // [n, 1, 1, 16 c]
        if keep {
            // A pass that is kept for its gradient precedes a change of the weights.
            dense.layer.release(p);
        }
        let mut x = if self.config.position_bias {
            dense.finish_biased(unfold(&dense.layer.add_bias(p, x)?)?)?
        } else {
            dense.finish(p, unfold(&x)?, moments)?
        };
        let mut older = None; // the image of the level below
        for (i, block) in blocks.iter().enumerate() {
            let newest = i + 1 == blocks.len();
            if newest && growth.fading() {
                older = Some(up2(&blocks[i - 1].to_rgb.forward(p, x.y())?.y)?);
            }
            for layer in block.conv0.iter().chain([&block.conv1]) {
                let y = layer.forward(p, x.y(), moments)?;
                let x = std::mem::replace(&mut x, y);
                if keep {
                    tape.convs.push(x);
                    layer.layer.release(p);
                }
            }
        }
        let block = blocks.last().expect("level 2 is always there");
        let mut image = block.to_rgb.forward(p, x.y())?.y;
        if keep {
            tape.convs.push(x);
        }
        if let Some(older) = older {
            image = lerp(&older, &image, growth.alpha)?;
        }
        if self.config.g_output == OutputActivation::Tanh {
            image = image.tanh()?;
            tape.images = keep.then(|| image.clone());
        }
        Ok((image, tape))
    }

    /// Gradients of a loss with respect to the parameters, from the one with respect to the images.
    ///
    /// # Shapes
    /// `images_grad`: `[N, R, R, C]`.
    ///
    /// # Errors
    /// If the tape is of another network or batch.
    pub fn backward(&self, mut tape: GeneratorTape, images_grad: &Tensor) -> Result<Grads> {
        let p = &self.params;
        let growth = tape.growth;
        let blocks = self.blocks_at(growth)?;
        let short = p.are_short_on(images_grad);
        let mut grads = Grads::new(p);
        let mut pop = || match tape.convs.pop() {
            Some(out) => Ok(out),
            None => bail!("this tape is of another network"),
        };

        let images_grad = &match &tape.images {
            Some(images) => (images_grad * images.sqr()?.affine(-1.0, 1.0)?)?,
            None => images_grad.clone(),
        };
        let block = blocks.last().expect("level 2 is always there");
        let mut out = pop()?;
        let alpha = if growth.fading() { growth.alpha } else { 1.0 };
        let newest = scale(images_grad, alpha)?;
        let mut dy = rgb_grads(&block.to_rgb, p, out.y(), &newest, &mut grads)?;
        for (i, block) in blocks.iter().enumerate().rev() {
            for layer in [Some(&block.conv1), block.conv0.as_ref()].into_iter().flatten() {
                let x = pop()?;
                let delta = layer.delta(p, &dy, &out, &mut grads)?;
                (dy, out) = (delta, x); // images are large: none is kept longer than it serves
                let layer = &layer.layer;
                let (own, dx) = both(
                    short,
                    || layer.weight_grad(p, out.y(), &dy, &mut grads),
                    || layer.input_grad(p, &dy),
                );
                own?;
                dy = dx?;
            }
            if i + 1 == blocks.len() && growth.fading() {
                let older = up2_grad(&scale(images_grad, 1.0 - growth.alpha)?)?;
                let older = rgb_grads(&blocks[i - 1].to_rgb, p, out.y(), &older, &mut grads)?;
                dy = add(dy, &older)?;
            }
        }
        let dense = &self.dense;
        let folded = if self.config.position_bias {
            let folded = fold(&dense.layer.unactivate(&dy, &out.out)?)?;
            dense.layer.bias_grad(&folded, &mut grads)?;
            folded
        } else {
            fold(&dense.delta(p, &dy, &out, &mut grads)?)?
        };
        dense.layer.weight_grad(p, &tape.latents, &folded, &mut grads)?;
        Ok(grads)
    }

    /// The blocks that take part.
    fn blocks_at(&self, growth: Growth) -> Result<&[Block]> {
        let count = (growth.level as usize).saturating_sub(1);
        if count == 0 || count > self.blocks.len() {
            bail!("level {} of a network with levels 2 to {}", growth.level, self.blocks.len() + 1);
        }
        Ok(&self.blocks[..count])
    }

    /// Latents and labels side by side, after pixel norm over both or over the latents alone.
    fn normalized(&self, latents: &Tensor, labels: Option<&Tensor>) -> Result<Tensor> {
        let (n, size) = latents.dims2()?;
        let classes = labels.map_or(Ok(0), |l| l.dim(1))?;
        let config = &self.config;
        if size != config.latent_size() || classes != config.label_size {
            bail!(
                "latents of {size} and labels of {classes} components, but the network takes {} and {}",
                config.latent_size(),
                config.label_size
            );
        }
        let norm = |x: Tensor| {
            if config.normalize_latents { pixel_norm(&x, config.pixelnorm_epsilon) } else { Ok(x) }
        };
        let x = match labels {
            Some(labels) if config.normalize_labels => norm(Tensor::cat(&[latents, labels], 1)?)?,
            Some(labels) => Tensor::cat(&[&norm(latents.clone())?, labels], 1)?,
            None => norm(latents.clone())?,
        };
        x.reshape((n, 1, 1, size + classes))
    }
}

/// The dense layer's outputs, `[N, 1, 1, C * 16]`, as 4x4 pixels, `[N, 4, 4, C]`.
fn unfold(x: &Tensor) -> Result<Tensor> {
    let (n, _, _, outputs) = x.dims4()?;
    let maps = outputs / 16;
    turn(x, maps, 16)?.reshape((n, 4, 4, maps))
}

/// The inverse of [`unfold`].
fn fold(x: &Tensor) -> Result<Tensor> {
    let (n, _, _, maps) = x.dims4()?;
    turn(x, 16, maps)?.reshape((n, 1, 1, 16 * maps))
}

/// A `to_rgb` layer's own gradients; returns the one with respect to its input.
fn rgb_grads(
    layer: &Layer,
    params: &Params,
    x: &Tensor,
    delta: &Tensor,
    grads: &mut Grads,
) -> Result<Tensor> {
    layer.bias_grad(delta, grads)?;
    layer.weight_grad(params, x, delta, grads)?;
    layer.input_grad(params, delta)
}
