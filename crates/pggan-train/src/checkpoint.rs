//! The training state on disk: all that a run needs to go on as if it had never stopped.
//!
//! Random numbers and the order of the images are functions of the images shown, so weights, Adam's moments and
//! the sums since the last tick are everything. Times are not in here: the same run gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use pggan_model::weights::{File, SnapshotHeader, Writer};
use pggan_model::{Discriminator, Generator, ModelConfig};
use serde::{Deserialize, Serialize};

use crate::loss::NoiseState;
use crate::optim::Optimizer;
use crate::stats::Sums;
use crate::{Error, Result};

/// The networks and everything that changes while they are trained.
#[derive(Debug)]
pub struct State {
    /// The generator.
    pub g: Generator,
    /// The discriminator.
    pub d: Discriminator,
    /// The generator's running average: what samples are made with.
    pub g_ema: Generator,
    /// The generator's optimizer.
    pub g_optim: Optimizer,
    /// The discriminator's optimizer.
    pub d_optim: Optimizer,
    /// Counters.
    pub progress: Progress,
}

/// The counters of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Real images shown.
    pub images: u64,
    /// Ticks completed.
    pub tick: u64,
    /// Images at the last tick.
    pub tick_images: u64,
    /// (⌊lod⌋, ⌈lod⌉) of the last step; a change resets the optimizers.
    pub interval: Option<(u32, u32)>,
    /// Sums since the last tick.
    pub sums: Sums,
    /// Of the noise in the discriminator's layers.
    #[serde(default)]
    pub noise: NoiseState,
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(flatten)]
    snapshot: SnapshotHeader,
    progress: Progress,
    g_adam_steps: u64,
    d_adam_steps: u64,
}

const PREFIX: &str = "training-state-";

/// Writes the state into a run's folder, then deletes all but the last `keep` states.
///
/// # Errors
/// If the file cannot be written; the earlier ones are then still there.
pub fn save(run: &Path, state: &State, header: SnapshotHeader, keep: usize) -> Result<PathBuf> {
    let document = Document {
        snapshot: header,
        progress: state.progress.clone(),
        g_adam_steps: state.g_optim.steps,
        d_adam_steps: state.d_optim.steps,
    };
    let mut file = Writer::new(&document)?;
    file.params("g", state.g.params())?;
    file.params("d", state.d.params())?;
    file.params("g_ema", state.g_ema.params())?;
    for (part, optim, params) in
        [("g_adam", &state.g_optim, state.g.params()), ("d_adam", &state.d_optim, state.d.params())]
    {
        for (moment, values) in [("v", &optim.second), ("m", &optim.first)] {
            for (param, value) in params.iter().zip(values) {
                file.tensor(format!("{part}.{moment}.{}", param.name), value)?;
            }
        }
    }
    let path = run.join(format!("{PREFIX}{:06}.safetensors", state.progress.images / 1000));
    file.write(&path)?;
    let states = list(run)?;
    for old in &states[..states.len().saturating_sub(keep)] {
        fs::remove_file(old).map_err(Error::io(old))?;
    }
    Ok(path)
}

/// Reads the newest state of a run that can be read into `state`, and says which one it was; damaged ones
/// are passed over with a warning. None if the run has no state yet.
///
/// # Errors
/// [`Error::NoCheckpoint`] if there are states but none can be read.
pub fn load_latest(run: &Path, state: &mut State) -> Result<Option<PathBuf>> {
    let mut last_error = None;
    for path in list(run)?.into_iter().rev() {
        match load(&path, state) {
            Ok(()) => return Ok(Some(path)),
            Err(e) => {
                tracing::warn!("{e}; falling back to the checkpoint before it");
                last_error = Some(e.to_string());
            }
        }
    }
    match last_error {
        Some(reason) => Err(Error::NoCheckpoint { path: run.to_owned(), reason }),
        None => Ok(None),
    }
}

/// Reads one state.
///
/// # Errors
/// If the file is damaged or of other networks.
pub fn load(path: &Path, state: &mut State) -> Result<()> {
    let file = File::open(path)?;
    let document: Document = file.document()?;
    let config: &ModelConfig = state.g.config();
    if document.snapshot.model != *config {
        let reason = "its networks have another shape than this run's".to_owned();
        return Err(pggan_model::Error::Mismatch { path: path.to_owned(), reason }.into());
    }
    file.load("g", state.g.params_mut())?;
    file.load("d", state.d.params_mut())?;
    file.load("g_ema", state.g_ema.params_mut())?;
    state.g_optim.second = file.state("g_adam.v", state.g.params())?;
    state.d_optim.second = file.state("d_adam.v", state.d.params())?;
    if !state.g_optim.first.is_empty() {
        state.g_optim.first = file.state("g_adam.m", state.g.params())?;
        state.d_optim.first = file.state("d_adam.m", state.d.params())?;
    }
    state.g_optim.steps = document.g_adam_steps;
    state.d_optim.steps = document.d_adam_steps;
    state.progress = document.progress;
    Ok(())
}

/// The states in a run's folder, oldest first.
///
/// # Errors
/// If the folder cannot be listed.
pub fn list(run: &Path) -> Result<Vec<PathBuf>> {
    numbered(run, PREFIX)
}

/// The snapshots in a run's folder, oldest first.
///
/// # Errors
/// If the folder cannot be listed.
pub fn snapshots(run: &Path) -> Result<Vec<PathBuf>> {
    numbered(run, "network-snapshot-")
}

/// The thousands of images in the name of a training state.
pub fn images_in_name(path: &Path) -> Option<u64> {
    number(path, PREFIX)
}

fn number(path: &Path, prefix: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(prefix)?.strip_suffix(".safetensors")?.parse().ok()
}

fn numbered(run: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(run).map_err(Error::io(run))? {
        let path = entry.map_err(Error::io(run))?.path();
        if let Some(number) = number(&path, prefix) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
