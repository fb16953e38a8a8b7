//! A safetensors file with its metadata.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pggan_model::Growth;

use crate::loss::{LossConfig, LossKind};
use crate::{Error, Result};

/// A safetensors file with its metadata.
pub(super) struct File {
    pub(super) name: String,
    pub(super) tensors: BTreeMap<String, Tensor>,
    meta: BTreeMap<String, String>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let name = path.display().to_string();
        let damaged = |e: &dyn std::fmt::Display| Error::Usage(format!("{name}: {e}"));
        let (_, header) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
        let meta = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| damaged(&e))?
            .into_iter()
            .collect();
        Ok(Self { name, tensors, meta })
    }

    pub(super) fn meta(&self, key: &str) -> Option<&str> {
        self.meta.get(key).map(String::as_str)
    }

    pub(super) fn get(&self, key: &str) -> Result<&Tensor> {
        self.tensors.get(key).ok_or_else(|| self.problem(&format!("no tensor {key}")))
    }

    pub(super) fn find(&self, key: &str, dtype: DType) -> Result<Option<Tensor>> {
        Ok(self.tensors.get(key).map(|t| t.to_dtype(dtype)).transpose()?)
    }

    /// Images, channels last.
    pub(super) fn images(&self, key: &str, dtype: DType) -> Result<Tensor> {
        Ok(channels_last(&self.get(key)?.to_dtype(dtype)?)?)
    }

    pub(super) fn number(&self, key: &str) -> Result<f64> {
        match self.meta(key).map(str::parse) {
            Some(Ok(number)) => Ok(number),
            _ => Err(self.problem(&format!("its metadata have no number `{key}`"))),
        }
    }

    pub(super) fn growth(&self) -> Result<Growth> {
        let level = (self.number("resolution")? as usize).max(1).ilog2();
        Ok(Growth { level, alpha: self.number("alpha")? })
    }

    pub(super) fn loss(&self) -> Result<LossConfig> {
        let kind = match self.meta("mode") {
            Some("wgangp") => LossKind::WganGp,
            Some("lsgan") => LossKind::Lsgan,
            other => return Err(self.problem(&format!("no loss of the name {other:?}"))),
        };
        Ok(LossConfig { kind, ..LossConfig::default() })
    }

    pub(super) fn fused(&self) -> bool {
        self.meta("fused_d") != Some("False")
    }

    pub(super) fn problem(&self, what: &str) -> Error {
        Error::Usage(format!("{}: {what}", self.name))
    }
}

fn channels_last(images: &Tensor) -> candle_core::Result<Tensor> {
    images.permute((0, 2, 3, 1))?.contiguous()
}
