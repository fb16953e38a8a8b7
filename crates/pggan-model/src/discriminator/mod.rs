mod bend;
mod passes;
mod similarity;
mod steps;

use std::f64::consts::SQRT_2;

use candle_core::{DType, Device, Tensor, bail};
use pggan_ops::conv::Resample;

pub use self::passes::{Deltas, Tape};
use self::similarity::Similarity;
pub use self::steps::Noise;
use self::steps::{Block, Hidden};
use crate::error::{Error, Result};
use crate::layers::{Layer, Nonlinearity, Shape};
use crate::params::{Builder, Params};
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
    conv: Hidden,
    dense0: Hidden,
    similarity: Option<Similarity>,
    dense1: Layer,
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
        let mut params = Builder::new(dtype, device, normal, config.equalized);
        let maps = |level| config.fmaps(level);
        let from_rgb = |params: &mut Builder<'_>, level: u32| {
            let relu = Nonlinearity::Relu(config.d_activation.slope());
            let shape = Shape::conv(config.channels, maps(level), 1);
            let name = format!("level{level:02}.from_rgb");
            Layer::new(params, &name, &shape, SQRT_2, Resample::Same, relu)
        };
        let conv = |params: &mut Builder<'_>, name: &str, (inputs, outputs), resample| {
            let shape = Shape::conv(inputs, outputs, 3);
            Hidden::new(params, name, (&shape, inputs), SQRT_2, resample, config)
        };

        // From 4x4 up, like the generator, so that the two files of weights read alike.
        let p = &mut params;
        let mut from_rgbs = vec![from_rgb(p, 2)?];
        let extra = usize::from(config.mbstd_group > 1);
        let conv4 = conv(p, "level02.conv", (maps(2) + extra, maps(2)), Resample::Same)?;
        let (dense, name) = (Shape::dense(16 * maps(2), config.nf(0)), "level02.dense0");
        let dense0 = Hidden::new(p, name, (&dense, maps(2)), SQRT_2, Resample::Same, config)?;
        let kernels = config.mbdisc_kernels;
        let similarity = (kernels > 0)
            .then(|| Similarity::new(p, "level02.similarity", config.nf(0), kernels))
            .transpose()?;
        let (dense, name) =
            (Shape::dense(config.nf(0) + kernels, 1 + config.label_size), "level02.dense1");
        let dense1 = Layer::new(p, name, &dense, 1.0, Resample::Same, Nonlinearity::None)?;
        let mut blocks = Vec::new();
        let down = if config.fused_scale { Resample::Down } else { Resample::Same };
        for level in 3..=config.max_level() {
            from_rgbs.push(from_rgb(p, level)?);
            let name = |layer| format!("level{level:02}.{layer}");
            let conv0 = conv(p, &name("conv0"), (maps(level), maps(level)), Resample::Same)?;
            let conv1 = conv(p, &name("conv1"), (maps(level), maps(level - 1)), down)?;
            blocks.push(Block { conv0, conv1 });
        }
        Ok(Self {
            config: config.clone(),
            params: params.finish(),
            blocks,
            from_rgb: from_rgbs,
            conv: conv4,
            dense0,
            similarity,
            dense1,
        })
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

    /// Gives minibatch discrimination scales and biases that suit these images, as the official code does with 500 real ones
    /// before training. A network without it stays as it is.
    ///
    /// # Shapes
    /// `images`: `[N, R, R, C]`; they are passed in minibatches of `minibatch`, and what does not fill one is left out.
    ///
    /// # Errors
    /// If the images do not fit the network, are fewer than a minibatch, or all alike.
    pub fn calibrate(&mut self, images: &Tensor, growth: Growth, minibatch: usize) -> Result<()> {
        let Some(similarity) = &self.similarity else { return Ok(()) };
        let mut entered = Vec::new();
        for i in 0..images.dim(0)? / minibatch.max(1) {
            let (_, tape) =
                self.forward(&images.narrow(0, i * minibatch, minibatch)?, growth, 1)?;
            entered.push(tape.entered(2).clone()); // behind it there is the last dense layer
        }
        if entered.is_empty() {
            bail!("{} images do not fill a minibatch of {minibatch}", images.dim(0)?);
        }
        let entered = Tensor::cat(&entered, 0)?;
        for (id, value) in similarity.calibrated(&self.params, &entered)? {
            self.params.set(id, value)?;
        }
        Ok(())
    }
}
