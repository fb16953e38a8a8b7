//! Networks with weights that files have under the official names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use pggan_model::{Discriminator, Generator, ModelConfig};
use serde::Deserialize;

use super::file::File;
use crate::{Error, Result};

/// Weights under the official names, and what another implementation loses in `f32`.
pub(super) struct Networks {
    pub(super) config: ModelConfig,
    weights: File,
    /// Files of steps of the same networks.
    pub(super) steps: Vec<File>,
    /// By case and tensor.
    pub(super) lost: BTreeMap<String, f64>,
}

impl Networks {
    pub(super) fn read(path: &Path, folder: &Path, name: &str) -> Result<Self> {
        /// As the files' metadata say it; what is not said is the official default.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Shape {
            resolution: usize,
            num_channels: Option<usize>,
            fmap_base: Option<usize>,
            fmap_decay: Option<f64>,
            fmap_max: Option<usize>,
            latent_size: Option<usize>,
            label_size: Option<usize>,
            mbstd_group: Option<usize>,
        }
        let weights = File::read(path)?;
        let text = weights.meta("config").ok_or_else(|| weights.problem("no config"))?;
        let shape: Shape =
            serde_json::from_str(text).map_err(|e| weights.problem(&format!("config: {e}")))?;
        let usual = ModelConfig::default();
        let config = ModelConfig {
            resolution: shape.resolution,
            channels: shape.num_channels.unwrap_or(usual.channels),
            fmap_base: shape.fmap_base.unwrap_or(usual.fmap_base),
            fmap_decay: shape.fmap_decay.unwrap_or(usual.fmap_decay),
            fmap_max: shape.fmap_max.unwrap_or(usual.fmap_max),
            latent_size: shape.latent_size.unwrap_or(usual.latent_size),
            label_size: shape.label_size.unwrap_or(usual.label_size),
            mbstd_group: shape.mbstd_group.unwrap_or(usual.mbstd_group),
            ..usual
        };
        let lost = fs::read(folder.join(format!("{name}_f32_error.json"))).ok();
        let lost = lost.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut steps = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.starts_with(&format!("{name}_steps")) && file.ends_with(".safetensors") {
                steps.push(File::read(&path)?);
            }
        }
        Ok(Self { config, weights, steps, lost })
    }

    pub(super) fn build(
        &self,
        fused_scale: bool,
        dtype: DType,
    ) -> Result<(Generator, Discriminator)> {
        self.build_from(&self.weights, ("", ""), fused_scale, dtype)
    }

    /// Networks with the weights of a file, under names with something before and behind.
    pub(super) fn build_from(
        &self,
        weights: &File,
        (prefix, suffix): (&str, &str),
        fused_scale: bool,
        dtype: DType,
    ) -> Result<(Generator, Discriminator)> {
        let config = ModelConfig { fused_scale, ..self.config.clone() };
        let nothing = &mut |_: &str, _: &mut [f32]| ();
        let mut g = Generator::new(&config, dtype, &Device::Cpu, nothing)?;
        let mut d = Discriminator::new(&config, dtype, &Device::Cpu, nothing)?;
        for (network, params) in [("G", g.params_mut()), ("D", d.params_mut())] {
            let level = config.max_level();
            let mut missing = None;
            params.update(|_, name, value| {
                let name = format!("{prefix}{}{suffix}", official(network, name, level));
                match weights.tensors.get(&name) {
                    // A copy: updates are in place.
                    Some(weight) => *value = weight.to_dtype(dtype)?.copy()?,
                    None => missing = Some(name),
                }
                Ok(())
            })?;
            if let Some(name) = missing {
                return Err(weights.problem(&format!("no tensor {name}")));
            }
        }
        Ok((g, d))
    }
}

/// The official code's name of one of our parameters, in networks that grow to 2^`max_level`.
pub(super) fn official(network: &str, ours: &str, max_level: u32) -> String {
    let (layer, kind) = ours.rsplit_once('.').unwrap_or((ours, ""));
    let (level, layer) = layer.split_once('.').unwrap_or((layer, ""));
    let level: u32 = level.trim_start_matches("level").parse().unwrap_or_default();
    let (r, lod) = (1u32 << level, max_level.saturating_sub(level));
    let scope = match (network, layer) {
        (_, "to_rgb") => format!("ToRGB_lod{lod}"),
        (_, "from_rgb") => format!("FromRGB_lod{lod}"),
        (_, "dense") => "4x4/Dense".to_owned(),
        (_, "dense0") => "4x4/Dense0".to_owned(),
        (_, "dense1") => "4x4/Dense1".to_owned(),
        ("D", "conv") => "4x4/Conv".to_owned(),
        ("G", "conv1") if level == 2 => "4x4/Conv".to_owned(),
        ("G", "conv0") => format!("{r}x{r}/Conv0_up"),
        ("D", "conv1") => format!("{r}x{r}/Conv1_down"),
        (_, "conv0") => format!("{r}x{r}/Conv0"),
        _ => format!("{r}x{r}/Conv1"),
    };
    format!("{network}/{scope}/{kind}")
}
