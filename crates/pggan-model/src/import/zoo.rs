//! Checkpoints of `pytorch_GAN_zoo`.
//!
//! There a layer computes `(conv(x, w) + b) * c` with `c = sqrt(2 / fan_in)` everywhere; here `conv(x, w) * c + b`, with other
//! constants where the official code has them. The first dense layer has a bias for each pixel, `alpha` counts the
//! other way round, and the discriminator's minibatch stddev compares consecutive samples by the unbiased variance.

use std::f64::consts::SQRT_2;

use super::state::State;
use super::{Foreign, ImportError, Result, Summary, Weights, Which};
use crate::layout::{DLayer, GLayer};
use crate::{Growth, ModelConfig};

pub(super) struct Checkpoint(pub(super) State);

/// Whether a file has the parts that this project's checkpoints have.
pub(super) fn recognize(state: &State) -> bool {
    state.has("netG.formatLayer.weight")
}

impl Foreign for Checkpoint {
    fn summary(&self) -> Result<Summary> {
        let Self(state) = self;
        let setting = |key: &str| state.number(&format!("config.{key}"));
        for (key, needed) in
            [("equalizedlR", 1.0), ("perChannelNormalization", 1.0), ("categoryVectorDim", 0.0)]
        {
            if let Some(value) = setting(key).filter(|value| *value != needed) {
                return Err(ImportError::Unsupported(format!("networks with {key} = {value}")));
            }
        }
        // The shape of the networks is the shape of their weights.
        let [first, _, _, _] = state.shape("netG.groupScale0.0.weight")?;
        let mut widths = vec![first];
        while let Ok([width, ..]) =
            state.shape::<4>(&format!("netG.scaleLayers.{}.0.weight", widths.len() - 1))
        {
            widths.push(width);
        }
        let level = widths.len() as u32 + 1;
        let [_, latent] = state.shape("netG.formatLayer.weight")?;
        let [channels, ..] = state.shape::<4>(&format!("netG.toRGBLayers.{}.weight", level - 2))?;
        let (average, discriminator) =
            (state.has("avgG.formatLayer.weight"), state.has("netD.decisionLayer.weight"));
        let stddev =
            !discriminator || state.shape::<4>("netD.groupScaleZero.0.weight")?[1] == first + 1;
        let even = |network: &str| self.bias_is_even(network, first);
        let config = ModelConfig {
            resolution: 1usize.checked_shl(level).filter(|r| *r <= 1024).unwrap_or(0),
            channels,
            latent_size: latent,
            mbstd_group: if stddev { 4 } else { 0 },
            fused_scale: false,
            widths,
            position_bias: !even("netG")? || (average && !even("avgG")?),
            ..ModelConfig::default()
        };
        let mut notes = Vec::new();
        if stddev && discriminator {
            notes.push(
                "the discriminator's minibatch stddev compared consecutive samples by the unbiased variance; ours \
                 compares strided groups by the population's: it is a start for training on, not the same function"
                    .to_owned(),
            );
        }
        let alpha = 1.0 - setting("alpha").unwrap_or(0.0).clamp(0.0, 1.0);
        let growth = Growth { level, alpha };
        Ok(Summary { config, growth, average, discriminator, notes })
    }

    fn g(&self, which: Which, layer: GLayer) -> Result<Weights> {
        let network = if which == Which::Average { "avgG" } else { "netG" };
        let (weight, bias) = self.layer(network, &g_name(layer), g_gain(layer))?;
        // One bias for each of 4x4 positions, unless they are all the same.
        let maps = weight.dim(0)? / 16;
        if layer == GLayer::Dense
            && self.bias_is_even("netG", maps)?
            && (!self.0.has("avgG.formatLayer.weight") || self.bias_is_even("avgG", maps)?)
        {
            return Ok((weight, bias.reshape((maps, 16))?.narrow(1, 0, 1)?.flatten_all()?));
        }
        Ok((weight, bias))
    }

    fn d(&self, layer: DLayer) -> Result<Weights> {
        self.layer("netD", &d_name(layer), d_gain(layer))
    }
}

impl Checkpoint {
    /// A layer of theirs as one of ours, of which the weights have `gain` times their constant.
    fn layer(&self, network: &str, name: &str, gain: f64) -> Result<Weights> {
        let weight = self.0.tensor(&format!("{network}.{name}.weight"))?;
        let bias = self.0.tensor(&format!("{network}.{name}.bias"))?;
        let constant = constant(weight.dims());
        Ok(((weight * gain)?, (bias.flatten_all()? * constant)?))
    }

    /// Whether the first layer's bias is the same at all of a map's 4x4 positions.
    fn bias_is_even(&self, network: &str, maps: usize) -> Result<bool> {
        let bias = self.0.tensor(&format!("{network}.formatLayer.bias"))?;
        let bias = bias.flatten_all()?.to_vec1::<f32>()?;
        if bias.len() != 16 * maps {
            let reason = format!("{} biases for 16 x {maps} outputs", bias.len());
            return Err(ImportError::Format(reason));
        }
        Ok(bias.chunks_exact(16).all(|four| four.iter().all(|b| b == &four[0])))
    }
}

/// What a layer there multiplies by: `sqrt(2 / fan_in)`.
pub(crate) fn constant(weight: &[usize]) -> f64 {
    let fan_in: usize = weight.iter().skip(1).product();
    (2.0 / fan_in.max(1) as f64).sqrt()
}

/// What their constant is multiplied by to become ours, inverted: our weights are so many times theirs.
pub(crate) fn g_gain(layer: GLayer) -> f64 {
    SQRT_2 / layer.gain()
}

/// As [`g_gain`].
pub(crate) fn d_gain(layer: DLayer) -> f64 {
    SQRT_2 / layer.gain()
}

/// Their name of a layer of the generator.
pub(crate) fn g_name(layer: GLayer) -> String {
    match layer {
        GLayer::Dense => "formatLayer".to_owned(),
        GLayer::Conv1(2) => "groupScale0.0".to_owned(),
        GLayer::Conv0(level) => format!("scaleLayers.{}.0", level - 3),
        GLayer::Conv1(level) => format!("scaleLayers.{}.1", level - 3),
        GLayer::ToRgb(level) => format!("toRGBLayers.{}", level - 2),
    }
}

/// Their name of a layer of the discriminator.
pub(crate) fn d_name(layer: DLayer) -> String {
    match layer {
        DLayer::FromRgb(level) => format!("fromRGBLayers.{}", level - 2),
        DLayer::Conv0(level) => format!("scaleLayers.{}.0", level - 3),
        DLayer::Conv1(level) => format!("scaleLayers.{}.1", level - 3),
        DLayer::Conv => "groupScaleZero.0".to_owned(),
        DLayer::Dense0 => "groupScaleZero.1".to_owned(),
        DLayer::Dense1 => "decisionLayer".to_owned(),
    }
}
