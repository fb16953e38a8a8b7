//! Checkpoints of mmgeneration.
//!
//! Its upscaling convolution is fused and takes the number of its *outputs* for the fan-in, which goes into the weights
//! here. Pixel norm divides by `rms + 1e-6` there and by `sqrt(ms + epsilon)` here: with next to no epsilon a pixel comes out larger by
//! a millionth of the inverse of its rms, and the following norms level that again. Its discriminator has no 3x3 convolution at 4x4, which ours cannot be
//! without.

use super::state::State;
use super::{Foreign, ImportError, Result, Summary, Weights, Which, turned};
use crate::layout::{DLayer, GLayer};
use crate::{Growth, ModelConfig};

pub(super) struct Checkpoint(pub(super) State);

const GENERATORS: [&str; 2] = ["state_dict.generator_ema", "state_dict.generator"];

/// Whether a file has a generator of mmgeneration's.
pub(super) fn recognize(state: &State) -> bool {
    GENERATORS.iter().any(|prefix| state.has(&format!("{prefix}.noise2feat.linear.weight_orig")))
}

impl Checkpoint {
    fn prefix(&self, which: Which) -> Result<&'static str> {
        let has = |prefix: &&&str| self.0.has(&format!("{prefix}.noise2feat.linear.weight_orig"));
        let mut prefixes = GENERATORS.iter();
        let found = match which {
            Which::Average => prefixes.find(has),
            Which::Trained => prefixes.rev().find(has),
        };
        found.copied().ok_or_else(|| ImportError::Missing("generator".to_owned()))
    }

    fn max_level(&self) -> Result<u32> {
        let prefix = self.prefix(Which::Average)?;
        let name = |i: usize| format!("{prefix}.torgb_layers.{i}.conv.weight_orig");
        Ok((0..32).take_while(|&i| self.0.has(&name(i))).count() as u32 + 1)
    }

    fn width(&self, level: u32) -> Result<usize> {
        let prefix = self.prefix(Which::Average)?;
        let name = format!("{prefix}.torgb_layers.{}.conv.weight_orig", level - 2);
        Ok(self.0.shape::<4>(&name)?[1])
    }

    /// Whether upscaling is fused, which shows where the width changes, and is the rule.
    fn fused(&self) -> Result<bool> {
        let prefix = self.prefix(Which::Average)?;
        for level in 3..=self.max_level()? {
            let name = format!("{prefix}.conv_blocks.{}.conv.weight_orig", 2 * level - 5);
            let [a, b, _, _] = self.0.shape(&name)?;
            if a != b {
                return Ok(a != self.width(level)?);
            }
        }
        Ok(true)
    }
}

impl Foreign for Checkpoint {
    fn summary(&self) -> Result<Summary> {
        let max_level = self.max_level()?;
        let prefix = self.prefix(Which::Average)?;
        let [_, latent] = self.0.shape(&format!("{prefix}.noise2feat.linear.weight_orig"))?;
        let [channels, ..] =
            self.0.shape::<4>(&format!("{prefix}.torgb_layers.0.conv.weight_orig"))?;
        let config = ModelConfig {
            resolution: 1usize.checked_shl(max_level).filter(|r| *r <= 1024).unwrap_or(0),
            channels,
            latent_size: latent,
            pixelnorm_epsilon: 1e-12,
            widths: (2..=max_level).map(|level| self.width(level)).collect::<Result<_>>()?,
            ..ModelConfig::default()
        };
        let scale = self.0.number("state_dict._curr_scale_int").unwrap_or(0.0) as usize;
        let level = scale.checked_ilog2().filter(|l| (2..=max_level).contains(l));
        let alpha = self.0.number("state_dict._curr_transition_weight").unwrap_or(1.0);
        let growth = Growth { level: level.unwrap_or(max_level), alpha: alpha.clamp(0.0, 1.0) };
        let notes = vec![
            "its pixel norm adds 1e-6 to the root, ours adds under it: images differ by some millionths".to_owned(),
            "its discriminator lacks the 3x3 convolution at 4x4 and cannot be represented here".to_owned(),
        ];
        let average = self.prefix(Which::Trained)? != prefix;
        Ok(Summary { config, growth, average, discriminator: false, notes })
    }

    fn g(&self, which: Which, layer: GLayer) -> Result<Weights> {
        let prefix = self.prefix(which)?;
        if layer == GLayer::Dense {
            let weight = self.0.tensor(&format!("{prefix}.noise2feat.linear.weight_orig"))?;
            let bias = self.0.tensor(&format!("{prefix}.noise2feat.bias"))?.flatten_all()?;
            return Ok((weight, bias));
        }
        let name = match layer {
            GLayer::Dense | GLayer::Conv1(2) => "conv_blocks.0".to_owned(),
            GLayer::Conv0(level) => format!("conv_blocks.{}", 2 * level - 5),
            GLayer::Conv1(level) => format!("conv_blocks.{}", 2 * level - 4),
            GLayer::ToRgb(level) => format!("torgb_layers.{}", level - 2),
        };
        let mut weight = self.0.tensor(&format!("{prefix}.{name}.conv.weight_orig"))?;
        let bias = self.0.tensor(&format!("{prefix}.{name}.conv.bias"))?;
        if matches!(layer, GLayer::Conv0(_)) && self.fused()? {
            let (inputs, outputs, _, _) = weight.dims4()?;
            let fan = (inputs as f64 / outputs.max(1) as f64).sqrt();
            weight = (turned(&weight.transpose(0, 1)?)? * fan)?;
        }
        Ok((weight, bias))
    }

    fn d(&self, _: DLayer) -> Result<Weights> {
        Err(ImportError::Unsupported("its discriminator".to_owned()))
    }
}
