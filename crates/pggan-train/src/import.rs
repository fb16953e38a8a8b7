//! Weights of other implementations, as snapshots of ours.

use std::fs;
use std::path::{Path, PathBuf};

use pggan_model::import;
use pggan_model::weights::{SnapshotHeader, write_snapshot};

use crate::{Error, Result};

/// What was imported.
#[derive(Debug)]
pub struct Report {
    /// The snapshot that was written.
    pub snapshot: PathBuf,
    /// Width and height of the images.
    pub resolution: usize,
    /// Weight of the newest layers.
    pub alpha: f64,
    /// What is not as it was.
    pub notes: Vec<String>,
}

/// Reads a foreign file of weights and writes `network-snapshot-000000.safetensors` into a folder, which other commands
/// take as they take a run's folder.
///
/// # Errors
/// If the file cannot be read, is hostile, or holds a network that ours cannot be; or the folder cannot be written. What
/// was there before stays.
pub fn import(source: &Path, dest: &Path) -> Result<Report> {
    let bytes = fs::read(source).map_err(Error::io(source))?;
    let networks = import::read(&bytes)
        .map_err(|reason| Error::Usage(format!("--source {}: {reason}", source.display())))?;
    let header = SnapshotHeader {
        format: 1,
        model: networks.g.config().clone(),
        level: networks.growth.level,
        alpha: networks.growth.alpha,
        images_shown: 0,
        dataset: source.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    fs::create_dir_all(dest).map_err(Error::io(dest))?;
    let snapshot = dest.join("network-snapshot-000000.safetensors");
    write_snapshot(&snapshot, &header, &networks.g, &networks.d, &networks.g_ema)?;
    Ok(Report {
        snapshot,
        resolution: networks.growth.resolution(),
        alpha: networks.growth.alpha,
        notes: networks.notes,
    })
}
