use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use pggan_model::Generator;
use pggan_model::weights::{self, PRETRAINED_CONFIG, PRETRAINED_WEIGHTS, SnapshotHeader};

use crate::{Hub, HubError, HubId};

/// Networks from wherever they are.
pub trait FromPretrained: Sized {
    /// The network in `source`: a snapshot, a folder that has one (of a run, an import, or an export), or an id on the
    /// hub, as `owner/name` or `owner/name@revision`. On the CPU in `f32`.
    ///
    /// # Errors
    /// [`HubError`]: each says what was looked for, and where.
    fn from_pretrained(source: &str) -> Result<(Self, SnapshotHeader), HubError>;
}

impl FromPretrained for Generator {
    /// The averaged generator, which makes the better images.
    fn from_pretrained(source: &str) -> Result<(Self, SnapshotHeader), HubError> {
        let path = locate(Path::new(source))?;
        Ok(weights::read_generator(&path, DType::F32, &Device::Cpu)?)
    }
}

/// The snapshot that `source` names, on this machine: see [`FromPretrained::from_pretrained`].
///
/// # Errors
/// [`HubError`].
pub fn locate(source: &Path) -> Result<PathBuf, HubError> {
    if source.is_file() {
        return Ok(source.to_owned());
    }
    if source.is_dir() {
        return in_folder(source);
    }
    let text = source.to_string_lossy();
    let id: HubId = text.parse().map_err(|()| HubError::NotAnId(text.clone().into_owned()))?;
    let hub = Hub::from_env();
    let path = hub.download(&id, id.file().unwrap_or(PRETRAINED_WEIGHTS))?;
    if id.file().is_none() {
        let (_, header) = weights::read_generator(&path, DType::F32, &Device::Cpu)?;
        weights::check_pretrained(&hub.download(&id, PRETRAINED_CONFIG)?, &header)?;
    }
    Ok(path)
}

/// What a run's files begin with, best first: a run that has no snapshot yet has what it would go on from, with the same
/// networks in it.
const OF_RUNS: [&str; 2] = ["network-snapshot-", "training-state-"];

/// The newest snapshot of a folder, or its pretrained network.
fn in_folder(folder: &Path) -> Result<PathBuf, HubError> {
    let io = |source| HubError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    let newest = |prefix: &str| {
        let number = |name: &str| -> Option<u64> {
            name.strip_prefix(prefix)?.strip_suffix(".safetensors")?.parse().ok()
        };
        names.iter().filter_map(|name| Some((number(name)?, name))).max()
    };
    if let Some((_, name)) = OF_RUNS.into_iter().find_map(newest) {
        return Ok(folder.join(name));
    }
    let weights = folder.join(PRETRAINED_WEIGHTS);
    if !weights.is_file() {
        return Err(HubError::NoNetwork(folder.to_owned()));
    }
    let config = folder.join(PRETRAINED_CONFIG);
    if config.is_file() {
        let (_, header) = weights::read_generator(&weights, DType::F32, &Device::Cpu)?;
        weights::check_pretrained(&config, &header)?;
    }
    Ok(weights)
}
