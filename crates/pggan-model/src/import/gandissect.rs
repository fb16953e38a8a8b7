//! Generators of gandissect: genforce's layout with other names, and the image of the full resolution alone.

use candle_core::{DType, Device, Tensor};

use super::genforce::dense_of_full_convolution;
use super::state::State;
use super::{Foreign, ImportError, Result, Summary, Weights, Which};
use crate::layout::{DLayer, GLayer};
use crate::{Growth, ModelConfig};

pub(super) struct Checkpoint(pub(super) State);

/// Whether a file has a generator of gandissect's.
pub(super) fn recognize(state: &State) -> bool {
    PREFIXES.iter().any(|prefix| state.has(&format!("{prefix}layer1.wscale.b")))
}

const PREFIXES: [&str; 2] = ["state_dict.", ""];

impl Checkpoint {
    fn prefix(&self) -> &'static str {
        let found = PREFIXES.iter().find(|p| self.0.has(&format!("{p}layer1.wscale.b")));
        found.copied().unwrap_or_default()
    }

    fn max_level(&self) -> u32 {
        let prefix = self.prefix();
        let name = |i: usize| format!("{prefix}layer{i}.conv.weight");
        (1..64).take_while(|&i| self.0.has(&name(i))).count() as u32 / 2 + 1
    }

    fn read(&self, name: &str) -> Result<Weights> {
        let tensor = |kind: &str| self.0.tensor(&format!("{}{name}.{kind}", self.prefix()));
        Ok((tensor("conv.weight")?, tensor("wscale.b")?))
    }
}

impl Foreign for Checkpoint {
    fn summary(&self) -> Result<Summary> {
        let level = self.max_level();
        let prefix = self.prefix();
        let shape = |i: u32| self.0.shape::<4>(&format!("{prefix}layer{i}.conv.weight"));
        let widths: Vec<usize> =
            (2..=level).map(|level| Ok(shape(2 * level - 3)?[0])).collect::<Result<_>>()?;
        let config = ModelConfig {
            resolution: 1usize.checked_shl(level).filter(|r| *r <= 1024).unwrap_or(0),
            latent_size: shape(1)?[1],
            fused_scale: false,
            widths,
            ..ModelConfig::default()
        };
        let notes = vec![
            "it makes images at the full resolution alone: below it ours are black".to_owned(),
        ];
        let growth = Growth::full(level);
        Ok(Summary { config, growth, average: false, discriminator: false, notes })
    }

    fn g(&self, _: Which, layer: GLayer) -> Result<Weights> {
        let max = self.max_level();
        match layer {
            GLayer::Dense => {
                let (weight, bias) = self.read("layer1")?;
                Ok((dense_of_full_convolution(&weight)?, bias))
            }
            GLayer::Conv0(level) => self.read(&format!("layer{}", 2 * level - 3)),
            GLayer::Conv1(level) => self.read(&format!("layer{}", 2 * level - 2)),
            GLayer::ToRgb(level) if level == max => {
                let r = 1u32 << level;
                self.read(&format!("output_{r}x{r}"))
            }
            GLayer::ToRgb(level) => {
                let name = format!("{}layer{}.conv.weight", self.prefix(), 2 * level - 2);
                let [maps, ..] = self.0.shape::<4>(&name)?;
                let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
                Ok((zeros(&[3, maps, 1, 1])?, zeros(&[3])?))
            }
        }
    }

    fn d(&self, _: DLayer) -> Result<Weights> {
        Err(ImportError::Missing("discriminator".to_owned()))
    }
}
