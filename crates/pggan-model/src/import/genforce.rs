//! Checkpoints of genforce, and of the Hugging Face hub's nets in its layout: the official networks under plain names.
//!
//! The first layer is a 4x4 convolution with full padding there, which is the dense layer with its kernels turned by
//! half a turn. Where upscaling is fused into a convolution, that one is stored transposed and turned as well. The
//! discriminator counts its layers from the full resolution down.

use super::state::State;
use super::{Foreign, ImportError, Result, Summary, Weights, Which, turned};
use crate::layout::{DLayer, GLayer};
use crate::{Growth, ModelConfig};

pub(super) struct Checkpoint(pub(super) State);

/// What a generator's names begin with: a checkpoint has several networks, a file of weights one.
const GENERATORS: [&str; 3] = ["generator_smooth.", "generator.", ""];

/// Whether a file has a generator of genforce's.
pub(super) fn recognize(state: &State) -> bool {
    GENERATORS.iter().any(|prefix| {
        ["layer0.weight", "output0.weight"].iter().all(|name| state.has(&format!("{prefix}{name}")))
    })
}

impl Checkpoint {
    fn prefix(&self, which: Which) -> Result<&'static str> {
        let has = |prefix: &&&str| self.0.has(&format!("{prefix}layer0.weight"));
        let mut prefixes = GENERATORS.iter();
        let found = match which {
            Which::Average => prefixes.find(has),
            Which::Trained => prefixes.rev().find(has),
        };
        found.copied().ok_or_else(|| ImportError::Missing("layer0.weight".to_owned()))
    }

    fn max_level(&self) -> Result<u32> {
        let prefix = self.prefix(Which::Average)?;
        let count =
            (0..32).take_while(|i| self.0.has(&format!("{prefix}output{i}.weight"))).count();
        Ok(count as u32 + 1)
    }

    /// Feature maps at a level.
    fn width(&self, level: u32) -> Result<usize> {
        let prefix = self.prefix(Which::Average)?;
        Ok(self.0.shape::<4>(&format!("{prefix}output{}.weight", level - 2))?[1])
    }

    /// Whether upscaling is fused. It shows where the width changes, and is the exception.
    fn fused(&self) -> Result<bool> {
        let prefix = self.prefix(Which::Average)?;
        for level in 3..=self.max_level()? {
            let [a, b, _, _] = self.0.shape(&format!("{prefix}layer{}.weight", 2 * (level - 2)))?;
            if a != b {
                return Ok(a != self.width(level)?);
            }
        }
        Ok(false)
    }

    fn read(&self, name: &str) -> Result<Weights> {
        let tensor = |kind: &str| self.0.tensor(&format!("{name}.{kind}"));
        Ok((tensor("weight")?, tensor("bias")?))
    }
}

impl Foreign for Checkpoint {
    fn summary(&self) -> Result<Summary> {
        let level = self.max_level()?;
        let prefix = self.prefix(Which::Average)?;
        let [_, latent, _, _] = self.0.shape(&format!("{prefix}layer0.weight"))?;
        let [channels, ..] = self.0.shape::<4>(&format!("{prefix}output0.weight"))?;
        let discriminator = self.0.has("discriminator.input0.weight");
        let mut config = ModelConfig {
            resolution: 1usize.checked_shl(level).filter(|r| *r <= 1024).unwrap_or(0),
            channels,
            latent_size: latent,
            fused_scale: self.fused()?,
            widths: (2..=level).map(|level| self.width(level)).collect::<Result<_>>()?,
            ..ModelConfig::default()
        };
        if discriminator {
            let last = 2 * (level - 2);
            let [maps, inputs, _, _] =
                self.0.shape(&format!("discriminator.layer{last}.weight"))?;
            let [logits, _] = self.0.shape(&format!("discriminator.layer{}.weight", last + 2))?;
            if inputs == maps {
                config.mbstd_group = 0;
            }
            if logits != 1 {
                return Err(ImportError::Unsupported(
                    "a conditional network that normalizes latents before labels are appended"
                        .to_owned(),
                ));
            }
        }
        // `lod` counts from the full resolution down, as in the official code.
        let lod = self.0.number(&format!("{prefix}lod")).unwrap_or(0.0);
        let lod = lod.clamp(0.0, f64::from(level - 2));
        let growth = Growth { level: level - lod.floor() as u32, alpha: 1.0 - (lod - lod.floor()) };
        let average = self.prefix(Which::Trained)? != prefix;
        Ok(Summary { config, growth, average, discriminator, notes: Vec::new() })
    }

    fn g(&self, which: Which, layer: GLayer) -> Result<Weights> {
        let prefix = self.prefix(which)?;
        let name = match layer {
            GLayer::Dense => "layer0".to_owned(),
            GLayer::Conv0(level) => format!("layer{}", 2 * (level - 2)),
            GLayer::Conv1(level) => format!("layer{}", 2 * (level - 2) + 1),
            GLayer::ToRgb(level) => format!("output{}", level - 2),
        };
        let (weight, bias) = self.read(&format!("{prefix}{name}"))?;
        let weight = match layer {
            GLayer::Dense => dense_of_full_convolution(&weight)?,
            GLayer::Conv0(_) if self.fused()? => turned(&weight.transpose(0, 1)?)?,
            _ => weight,
        };
        Ok((weight, bias))
    }

    fn d(&self, layer: DLayer) -> Result<Weights> {
        let max = self.max_level()?;
        let at = |level: u32| 2 * (max - level);
        let name = match layer {
            DLayer::FromRgb(level) => format!("input{}", max - level),
            DLayer::Conv0(level) => format!("layer{}", at(level)),
            DLayer::Conv1(level) => format!("layer{}", at(level) + 1),
            DLayer::Conv => format!("layer{}", at(2)),
            DLayer::Dense0 => format!("layer{}", at(2) + 1),
            DLayer::Dense1 => format!("layer{}", at(2) + 2),
        };
        self.read(&format!("discriminator.{name}"))
    }
}

/// A 4x4 convolution of one pixel with full padding, `[out, in, 4, 4]`, as the dense layer that it is.
pub(super) fn dense_of_full_convolution(
    weight: &candle_core::Tensor,
) -> Result<candle_core::Tensor> {
    let (maps, inputs, h, w) = weight.dims4()?;
    if (h, w) != (4, 4) {
        return Err(ImportError::Format(format!("the first layer has kernels of {h}x{w}")));
    }
    Ok(turned(weight)?.permute((0, 2, 3, 1))?.contiguous()?.reshape((16 * maps, inputs))?)
}
