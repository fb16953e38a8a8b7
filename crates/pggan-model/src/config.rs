use pggan_ops::activation::SLOPE;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Numbers that each kernel of minibatch discrimination sees of a sample.
pub(crate) const KERNEL_SIZE: usize = 5;

/// The shape of the networks. The defaults are the paper's (Table 2) and the official code's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, as in the official code"
)]
pub struct ModelConfig {
    /// Width and height of the images at full growth: a power of two from 4 to 1024.
    pub resolution: usize,
    /// Colour channels of the images: 1 to 4.
    pub channels: usize,
    /// Feature maps at resolution 2^r: `min(fmap_base / 2^((r-1) * fmap_decay), fmap_max)`.
    pub fmap_base: usize,
    /// See [`ModelConfig::fmap_base`].
    pub fmap_decay: f64,
    /// See [`ModelConfig::fmap_base`].
    pub fmap_max: usize,
    /// Components of a latent vector; 0 means as many as the first layer has feature maps.
    pub latent_size: usize,
    /// Classes of a conditional network; 0 means none.
    pub label_size: usize,
    /// Samples that minibatch stddev compares (paper §3); 0 leaves the layer out.
    pub mbstd_group: usize,
    /// Halve the resolution in the discriminator before bias and activation (the official code's
    /// `fused_scale`), not after (the paper's Table 2). The generator computes the same either way.
    pub fused_scale: bool,
    /// Apply pixel norm to latent vectors.
    pub normalize_latents: bool,
    /// That pixel norm runs over latents and labels side by side (the TensorFlow code's order), not over the
    /// latents before the labels join them (the Theano code's). Without labels the two are the same.
    pub normalize_labels: bool,
    /// Multiply weights by `gain / sqrt(fan_in)` whenever a layer runs: the equalized learning rate (paper §4.1). Without
    /// it they are drawn with that standard deviation and used as they are (the official `use_wscale = False`).
    pub equalized: bool,
    /// What follows the generator's hidden convolutions.
    pub g_activation: Activation,
    /// What keeps the generator's activations in bounds.
    pub g_norm: GeneratorNorm,
    /// What the generator's images go through last.
    pub g_output: OutputActivation,
    /// What follows the discriminator's hidden layers.
    pub d_activation: Activation,
    /// What keeps the discriminator's activations in bounds.
    pub d_norm: DiscriminatorNorm,
    /// Kernels of minibatch discrimination (Salimans et al. 2016) before the discriminator's last layer; 0 leaves the
    /// layer out. Row (e*) of the paper's Table 1 has 100, and no minibatch stddev.
    pub mbdisc_kernels: usize,
    /// Added under the root of pixel norm.
    pub pixelnorm_epsilon: f64,
    /// Feature maps at 4x4, 8x8 and so on, where they don't follow the formula; empty where they do.
    pub widths: Vec<usize>,
    /// The generator's first layer has a bias for each of its 4x4 positions, as `pytorch_GAN_zoo` has it.
    pub position_bias: bool,
}

/// A hidden layer's nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Of slope 0.2 below zero (paper, Appendix A.1).
    LeakyRelu,
    /// Of slope 0 below zero, as in rows (a) to (c) of the paper's Table 1.
    Relu,
}

impl Activation {
    /// Below zero.
    pub(crate) fn slope(self) -> f64 {
        match self {
            Self::LeakyRelu => SLOPE,
            Self::Relu => 0.0,
        }
    }
}

/// What the generator's images go through last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputActivation {
    /// Nothing: nothing bounds the images.
    Linear,
    /// The hyperbolic tangent, after layers are blended, as in rows (a) to (c) of the paper's Table 1.
    Tanh,
}

/// The normalization of the generator's hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorNorm {
    /// Pixel norm after the activation (paper §4.2).
    PixelNorm,
    /// Batch norm between convolution and bias, as in rows (a) to (c) of the paper's Table 1: statistics of the batch in
    /// training, their running averages in [`crate::Generator::generate`].
    BatchNorm,
    /// None, as in rows (d) to (f).
    None,
}

/// The normalization of the discriminator's hidden 3x3 and dense layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscriminatorNorm {
    /// None (the paper's).
    None,
    /// Layer norm with one gain, between convolution and bias, as in rows (a) to (c) of the paper's Table 1.
    LayerNorm,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            resolution: 1024,
            channels: 3,
            fmap_base: 8192,
            fmap_decay: 1.0,
            fmap_max: 512,
            latent_size: 0,
            label_size: 0,
            mbstd_group: 4,
            fused_scale: true,
            normalize_latents: true,
            normalize_labels: true,
            equalized: true,
            g_activation: Activation::LeakyRelu,
            g_norm: GeneratorNorm::PixelNorm,
            g_output: OutputActivation::Linear,
            d_activation: Activation::LeakyRelu,
            d_norm: DiscriminatorNorm::None,
            mbdisc_kernels: 0,
            pixelnorm_epsilon: 1e-8,
            widths: Vec::new(),
            position_bias: false,
        }
    }
}

impl ModelConfig {
    /// log2 of the resolution at full growth.
    pub fn max_level(&self) -> u32 {
        self.resolution.ilog2()
    }

    /// Feature maps in the layers at resolution 2^level.
    pub fn fmaps(&self, level: u32) -> usize {
        self.nf(level - 1)
    }

    /// Components of a latent vector.
    pub fn latent_size(&self) -> usize {
        if self.latent_size == 0 { self.nf(0) } else { self.latent_size }
    }

    /// The official code's `nf(stage)`.
    pub(crate) fn nf(&self, stage: u32) -> usize {
        if !self.widths.is_empty() {
            let level = (stage.max(1) - 1) as usize;
            return self.widths.get(level).copied().unwrap_or(0);
        }
        let maps = self.fmap_base as f64 / (f64::from(stage) * self.fmap_decay).exp2();
        (maps as usize).min(self.fmap_max)
    }

    /// The rows of a minibatch of `n` in two halves of which neither sees the other, if there are such: minibatch stddev
    /// compares a sample with its own group alone, batch norm and minibatch discrimination with all.
    pub fn halves(&self, n: usize) -> Option<[Vec<u32>; 2]> {
        let size = self.mbstd_group.min(n).max(1);
        let groups = n / size; // row r belongs to group r mod groups
        let all_meet = self.g_norm == GeneratorNorm::BatchNorm || self.mbdisc_kernels > 0;
        if all_meet || groups == 0 || !groups.is_multiple_of(2) || !n.is_multiple_of(size) {
            return None;
        }
        let first = |row: &u32| (*row as usize) % groups < groups / 2;
        Some((0..n as u32).partition::<Vec<u32>, _>(first).into())
    }

    /// Numbers that a generator of this shape learns or (batch norm's statistics) remembers.
    pub fn generator_parameters(&self) -> usize {
        let inputs = self.latent_size() + self.label_size;
        let biases = if self.position_bias { 16 } else { 1 };
        // A gain, a mean, a deviation and a weight of each map.
        let norm = if self.g_norm == GeneratorNorm::BatchNorm { 4 } else { 0 };
        let dense = (inputs * 16 + biases + norm) * self.fmaps(2);
        let levels = (2..=self.max_level()).map(|level| {
            let maps = self.fmaps(level);
            let conv = |inputs: usize| (9 * inputs + 1 + norm) * maps;
            let conv0 = if level > 2 { conv(self.fmaps(level - 1)) } else { 0 };
            conv0 + conv(maps) + (maps + 1) * self.channels
        });
        dense + levels.sum::<usize>()
    }

    /// Multiplications in a forward pass over one image at 2^level: (generator, discriminator), with the
    /// convolutions as they are defined, whatever the engine makes of them.
    pub fn multiplications(&self, level: u32) -> (f64, f64) {
        let product = |a: usize, b: usize| a as f64 * b as f64;
        let first = self.fmaps(2);
        let mut g = product(self.latent_size() + self.label_size, 16 * first)
            + 9.0 * 16.0 * product(first, first);
        let mut d = g + product(16 * first, self.nf(0));
        d += product(self.nf(0), self.mbdisc_kernels * KERNEL_SIZE);
        for level in 3..=level {
            let area = f64::from(1u32 << (2 * level));
            let (maps, below) = (self.fmaps(level), self.fmaps(level - 1));
            let convs = 9.0 * area * (product(maps, maps) + product(maps, below));
            g += convs;
            d += convs;
        }
        let rgb = f64::from(1u32 << (2 * level)) * product(self.channels, self.fmaps(level));
        (g + rgb, d + rgb)
    }

    /// # Errors
    /// [`Error::Config`] for the first setting that no network can have.
    pub fn validate(&self) -> Result<(), Error> {
        let fail = |field, value: String, reason| Err(Error::Config { field, value, reason });
        if !self.resolution.is_power_of_two() || !(4..=1024).contains(&self.resolution) {
            let reason = "must be a power of two from 4 to 1024";
            return fail("resolution", self.resolution.to_string(), reason);
        }
        if !(1..=4).contains(&self.channels) {
            return fail("channels", self.channels.to_string(), "must be 1, 2, 3 or 4");
        }
        let (levels, maps) = (self.max_level() as usize - 1, &self.widths);
        if !maps.is_empty()
            && (maps.len() != levels || maps.iter().any(|w| !(1..=1 << 14).contains(w)))
        {
            let reason = "must be one number from 1 to 16384 for each resolution from 4x4 up";
            return fail("widths", format!("{maps:?}"), reason);
        }
        if !(self.fmap_decay.is_finite() && self.fmap_decay >= 0.0) {
            return fail("fmap_decay", self.fmap_decay.to_string(), "must be at least 0");
        }
        if self.fmaps(self.max_level()) == 0 || self.fmap_max > 1 << 14 {
            let reason = "leaves no feature map at the full resolution, or more than 16384";
            return fail(
                "fmap_base",
                format!("{} (fmap_max {})", self.fmap_base, self.fmap_max),
                reason,
            );
        }
        if self.latent_size > 1 << 16 {
            return fail("latent_size", self.latent_size.to_string(), "must be at most 65536");
        }
        if self.label_size > 1 << 16 {
            return fail("label_size", self.label_size.to_string(), "must be at most 65536");
        }
        if !(self.pixelnorm_epsilon.is_finite() && self.pixelnorm_epsilon > 0.0) {
            let reason = "must be above 0";
            return fail("pixelnorm_epsilon", self.pixelnorm_epsilon.to_string(), reason);
        }
        if self.mbdisc_kernels > 1 << 12 {
            let reason = "must be at most 4096";
            return fail("mbdisc_kernels", self.mbdisc_kernels.to_string(), reason);
        }
        if self.position_bias && self.g_norm == GeneratorNorm::BatchNorm {
            let reason = "goes with g_norm = \"pixel-norm\" or \"none\": batch norm's biases are one per map";
            return fail("position_bias", "true".to_owned(), reason);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_the_papers() {
        let config = ModelConfig::default();
        let widths: Vec<usize> = (2..=10).map(|level| config.fmaps(level)).collect();
        assert_eq!(widths, [512, 512, 512, 512, 256, 128, 64, 32, 16]);
        assert_eq!(config.latent_size(), 512);
    }

    #[test]
    fn halves_of_a_minibatch_keep_groups_together() {
        let halves =
            |n, mbstd_group| ModelConfig { mbstd_group, ..ModelConfig::default() }.halves(n);
        let rows = [vec![0, 1, 4, 5, 8, 9, 12, 13], vec![2, 3, 6, 7, 10, 11, 14, 15]];
        assert_eq!(halves(16, 4), Some(rows));
        assert_eq!(halves(4, 2), Some([vec![0, 2], vec![1, 3]]));
        assert_eq!(halves(4, 1), Some([vec![0, 1], vec![2, 3]]));
        // One group, none, an odd number of them, a rest; and networks that look at all samples.
        for (n, group) in [(4, 4), (0, 4), (12, 4), (10, 4)] {
            assert_eq!(halves(n, group), None);
        }
        let norm = ModelConfig { g_norm: GeneratorNorm::BatchNorm, ..ModelConfig::default() };
        let similarity = ModelConfig { mbdisc_kernels: 3, ..ModelConfig::default() };
        assert!(norm.halves(16).is_none() && similarity.halves(16).is_none());
    }

    #[test]
    fn impossible_settings_are_named() {
        let check = |config: ModelConfig, expected: &str| {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        };
        let default = ModelConfig::default;
        check(
            ModelConfig { resolution: 48, ..default() },
            "model.resolution = 48: must be a power",
        );
        check(ModelConfig { channels: 0, ..default() }, "model.channels = 0");
        check(ModelConfig { fmap_base: 256, ..default() }, "model.fmap_base = 256");
        check(ModelConfig { widths: vec![8, 8], ..default() }, "model.widths = [8, 8]");
        check(ModelConfig { fmap_decay: f64::NAN, ..default() }, "model.fmap_decay = NaN");
    }
}
