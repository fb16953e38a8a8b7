//! The way from images to scores, as a list of steps.

use candle_core::{Tensor, bail};
use pggan_ops::conv::Resample;
use pggan_ops::stddev::Groups;

use super::Discriminator;
use super::bend::Bend;
use crate::error::Result;
use crate::layers::{Layer, Nonlinearity, Shape};
use crate::params::Builder;
use crate::{DiscriminatorNorm, Growth, ModelConfig};

/// One step from images to scores.
pub(super) enum Step<'a> {
    Layer(&'a Layer),
    /// Halves the resolution, where `conv1` does not.
    Halve,
    /// Blends with the image at half the resolution, as `from_rgb` of the level below sees it.
    FadeIn(&'a Layer, f64),
    /// Multiplies each map of each sample by a number of its own, `[N, C]`.
    Noise(Tensor),
    /// The one kind of step that is not piecewise linear.
    Bend(Bend<'a>),
    /// `[N, 4, 4, C]` to `[N, 1, 1, C * 16]`.
    Flatten,
}

/// Multiplicative Gaussian noise before each hidden 3x3 and dense layer (paper, Appendix B), for losses that need the
/// discriminator held back: a layer's C maps are multiplied by `1 + strength · sqrt(C) · N(0, 1)`, each by its own.
#[derive(Clone, Debug)]
pub struct Noise {
    /// 0 means none.
    pub strength: f64,
    /// Draws from N(0, 1), `[N, noise_channels]`: see [`Discriminator::noise_channels`].
    pub draws: Tensor,
}

/// The layers of one resolution above 4x4.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) conv0: Hidden,
    pub(super) conv1: Hidden, // halves the resolution if fused
}

/// A hidden 3x3 or dense layer.
#[derive(Debug)]
pub(super) struct Hidden {
    /// All of it where there is no layer norm, else the linear map alone.
    layer: Layer,
    /// What follows layer norm: gain, bias, activation.
    affine: Option<Layer>,
    /// Maps that come in.
    maps: usize,
}

impl Hidden {
    pub(super) fn new(
        params: &mut Builder<'_>,
        name: &str,
        (shape, maps): (&Shape, usize),
        gain: f64,
        resample: Resample,
        config: &ModelConfig,
    ) -> Result<Self> {
        let relu = Nonlinearity::Relu(config.d_activation.slope());
        let (layer, affine) = match config.d_norm {
            DiscriminatorNorm::None => {
                (Layer::new(params, name, shape, gain, resample, relu)?, None)
            }
            DiscriminatorNorm::LayerNorm => {
                let (layer, affine) =
                    Layer::around_norm(params, name, shape, (gain, 1), resample, relu)?;
                (layer, Some(affine))
            }
        };
        Ok(Self { layer, affine, maps })
    }
}

/// Steps on their way to be all.
struct Way<'a> {
    steps: Vec<Step<'a>>,
    noise: Option<&'a Noise>,
    /// Draws of the noise that are taken.
    taken: usize,
}

impl<'a> Way<'a> {
    fn noise(&mut self, maps: usize) -> Result<()> {
        if let Some(Noise { strength, draws }) = self.noise {
            let draws = draws.narrow(1, self.taken, maps)?.contiguous()?;
            self.steps.push(Step::Noise(draws.affine(strength * (maps as f64).sqrt(), 1.0)?));
            self.taken += maps;
        }
        Ok(())
    }

    fn layer(&mut self, hidden: &'a Hidden) {
        self.steps.push(Step::Layer(&hidden.layer));
        if let Some(affine) = &hidden.affine {
            self.steps.extend([Step::Bend(Bend::LayerNorm), Step::Layer(affine)]);
        }
    }
}

impl Discriminator {
    /// Normal draws that [`Noise`] takes for each sample at this growth.
    pub fn noise_channels(&self, growth: Growth) -> usize {
        let blocks = self.blocks.iter().take((growth.level as usize).saturating_sub(2));
        let blocks = blocks.map(|block| block.conv0.maps + block.conv1.maps);
        blocks.sum::<usize>() + self.conv.maps + self.dense0.maps
    }

    /// The way from images to scores at this growth.
    pub(super) fn steps<'a>(
        &'a self,
        growth: Growth,
        parts: usize,
        noise: Option<&'a Noise>,
    ) -> Result<Vec<Step<'a>>> {
        let Some(entry) =
            (growth.level as usize).checked_sub(2).filter(|&i| i < self.from_rgb.len())
        else {
            let levels = self.from_rgb.len() + 1;
            bail!("level {} of a network with levels 2 to {levels}", growth.level);
        };
        let mut way = Way { steps: vec![Step::Layer(&self.from_rgb[entry])], noise, taken: 0 };
        for (i, block) in self.blocks[..entry].iter().enumerate().rev() {
            for hidden in [&block.conv0, &block.conv1] {
                way.noise(hidden.maps)?;
                way.layer(hidden);
            }
            if !self.config.fused_scale {
                way.steps.push(Step::Halve);
            }
            if i + 1 == entry && growth.fading() {
                way.steps.push(Step::FadeIn(&self.from_rgb[i], growth.alpha));
            }
        }
        if self.config.mbstd_group > 1 {
            let groups = Groups { size: self.config.mbstd_group, parts };
            way.steps.push(Step::Bend(Bend::Stddev(groups)));
        }
        way.noise(self.conv.maps)?;
        way.layer(&self.conv);
        way.noise(self.dense0.maps)?;
        way.steps.push(Step::Flatten);
        way.layer(&self.dense0);
        if let Some(similarity) = &self.similarity {
            way.steps.push(Step::Bend(Bend::Similarity(similarity, parts)));
        }
        way.steps.push(Step::Layer(&self.dense1));
        Ok(way.steps)
    }
}
