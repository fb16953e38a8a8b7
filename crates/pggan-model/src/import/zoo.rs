//! Checkpoints of `pytorch_GAN_zoo`.
//!
//! There a layer computes `(conv(x, w) + b) * c` with `c = sqrt(2 / fan_in)` everywhere; here `conv(x, w) * c + b`, with other
//! constants where the official code has them. The first dense layer has a bias for each pixel, `alpha` counts the
//! other way round, and the discriminator's minibatch stddev compares consecutive samples by the unbiased variance.

use std::collections::BTreeMap;
use std::f64::consts::SQRT_2;

use candle_core::Tensor;

use super::torch::Archive;
use super::{Foreign, ImportError, Weights};
use crate::ModelConfig;

/// Whether a file has the parts that this project's checkpoints have.
pub(super) fn recognize(archive: &Archive) -> bool {
    let root = archive.pickle.root();
    ["netG", "config"].iter().all(|key| archive.pickle.entry(root, key).is_some())
}

pub(super) fn convert(archive: &Archive) -> Result<Foreign, ImportError> {
    let pickle = &archive.pickle;
    let entry = |key: &str| pickle.entry(pickle.root(), key);
    let settings = entry("config").ok_or_else(|| ImportError::Missing("config".to_owned()))?;
    let setting = |key: &str| pickle.entry(settings, key).and_then(|id| pickle.number(id));
    for (key, needed) in
        [("equalizedlR", 1.0), ("perChannelNormalization", 1.0), ("categoryVectorDim", 0.0)]
    {
        if setting(key).is_some_and(|value| value != needed) {
            return Err(ImportError::Unsupported(format!(
                "networks with {key} = {}",
                setting(key).unwrap_or_default()
            )));
        }
    }
    let network = |key: &str| entry(key).map(|dict| Layers::read(archive, dict)).transpose();
    let g = network("netG")?.ok_or_else(|| ImportError::Missing("netG".to_owned()))?;
    let average = network("avgG")?;
    let d = network("netD")?;

    // The shape of the networks is the shape of their weights.
    let mut widths = vec![g.shape("groupScale0.0")?[0]];
    while let Ok(shape) = g.shape(&format!("scaleLayers.{}.0", widths.len() - 1)) {
        widths.push(shape[0]);
    }
    let latent = *g.shape("formatLayer")?.get(1).unwrap_or(&0);
    let level = widths.len() as u32 + 1;
    let stddev = d.as_ref().is_some_and(|d| {
        d.shape("groupScaleZero.0").is_ok_and(|shape| shape.get(1) == Some(&(widths[0] + 1)))
    });
    let mut config = ModelConfig {
        resolution: 1usize.checked_shl(level).filter(|r| *r <= 1024).unwrap_or(0),
        channels: g.shape(&format!("toRGBLayers.{}", widths.len() - 1))?[0],
        latent_size: latent,
        mbstd_group: if stddev || d.is_none() { 4 } else { 0 },
        fused_scale: false,
        ..ModelConfig::default()
    };
    config.widths.clone_from(&widths);
    let newest = average.as_ref().unwrap_or(&g);
    config.position_bias = !g.bias_is_even(widths[0])? || !newest.bias_is_even(widths[0])?;
    let mut notes = Vec::new();
    if stddev {
        notes.push(
            "the discriminator's minibatch stddev compared consecutive samples by the unbiased variance; ours \
             compares strided groups by the population's: it is a start for training on, not the same function"
                .to_owned(),
        );
    }
    Ok(Foreign {
        g: g.generator(&widths, config.position_bias)?,
        g_ema: newest.generator(&widths, config.position_bias)?,
        d: d.map(|d| d.discriminator(&widths)).transpose()?,
        level,
        alpha: 1.0 - setting("alpha").unwrap_or(0.0).clamp(0.0, 1.0),
        config,
        notes,
    })
}

/// A network's tensors, by the layers' names.
struct Layers(BTreeMap<String, Tensor>);

impl Layers {
    fn read(archive: &Archive, dict: super::pickle::Id) -> Result<Self, ImportError> {
        // Wrappers of layers, and of networks spread over devices, add a name of their own.
        let tensors = archive.tensors(dict)?.into_iter();
        Ok(Self(tensors.map(|(key, tensor)| (key.replace("module.", ""), tensor)).collect()))
    }

    fn get(&self, name: &str) -> Result<&Tensor, ImportError> {
        self.0.get(name).ok_or_else(|| ImportError::Missing(name.to_owned()))
    }

    fn shape(&self, layer: &str) -> Result<&[usize], ImportError> {
        match self.get(&format!("{layer}.weight"))?.dims() {
            [] => Err(ImportError::Format(format!("{layer}.weight is a single number"))),
            shape => Ok(shape),
        }
    }

    /// Whether the first layer's bias is the same at all of a map's 4x4 positions.
    fn bias_is_even(&self, maps: usize) -> Result<bool, ImportError> {
        let bias = self.get("formatLayer.bias")?.flatten_all()?.to_vec1::<f32>()?;
        if bias.len() != 16 * maps {
            return Err(ImportError::Format(format!(
                "{} biases for 16 x {maps} outputs",
                bias.len()
            )));
        }
        Ok(bias.chunks_exact(16).all(|four| four.iter().all(|b| b == &four[0])))
    }

    /// A layer of theirs as one of ours, of which the weights have `gain` times their constant.
    fn layer(
        &self,
        theirs: &str,
        ours: &str,
        gain: f64,
        into: &mut Weights,
    ) -> Result<(), ImportError> {
        let shape = self.shape(theirs)?;
        let fan_in: usize = shape[1..].iter().product();
        let constant = (2.0 / fan_in.max(1) as f64).sqrt();
        let weight = (self.get(&format!("{theirs}.weight"))? * gain)?;
        let bias = (self.get(&format!("{theirs}.bias"))?.flatten_all()? * constant)?;
        into.insert(format!("{ours}.weight"), weight);
        into.insert(format!("{ours}.bias"), bias);
        Ok(())
    }

    /// What both networks have at each of `count` resolutions: two convolutions above 4x4, and the way to or from
    /// colours, by its name there, its name here, and its gain.
    fn levels(
        &self,
        count: usize,
        (theirs, ours, gain): (&str, &str, f64),
        into: &mut Weights,
    ) -> Result<(), ImportError> {
        for i in 0..count {
            let level = format!("level{:02}", i + 2);
            for conv in (0..2).filter(|_| i > 0) {
                let scale = format!("scaleLayers.{}.{conv}", i - 1);
                self.layer(&scale, &format!("{level}.conv{conv}"), 1.0, into)?;
            }
            self.layer(&format!("{theirs}.{i}"), &format!("{level}.{ours}"), gain, into)?;
        }
        Ok(())
    }

    fn generator(&self, widths: &[usize], position_bias: bool) -> Result<Weights, ImportError> {
        let mut weights = Weights::new();
        self.layer("formatLayer", "level02.dense", 4.0, &mut weights)?;
        if !position_bias && let Some(bias) = weights.get_mut("level02.dense.bias") {
            *bias = bias.reshape((widths[0], 16))?.narrow(1, 0, 1)?.flatten_all()?.contiguous()?;
        }
        self.layer("groupScale0.0", "level02.conv1", 1.0, &mut weights)?;
        self.levels(widths.len(), ("toRGBLayers", "to_rgb", SQRT_2), &mut weights)?;
        Ok(weights)
    }

    fn discriminator(&self, widths: &[usize]) -> Result<Weights, ImportError> {
        let mut weights = Weights::new();
        self.layer("groupScaleZero.0", "level02.conv", 1.0, &mut weights)?;
        self.layer("groupScaleZero.1", "level02.dense0", 1.0, &mut weights)?;
        self.layer("decisionLayer", "level02.dense1", SQRT_2, &mut weights)?;
        self.levels(widths.len(), ("fromRGBLayers", "from_rgb", 1.0), &mut weights)?;
        Ok(weights)
    }
}
