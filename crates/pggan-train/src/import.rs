//! Weights of other implementations, as snapshots of ours.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use pggan_hub::{Hub, HubError, HubId};
use pggan_model::weights::{self, Snapshot, SnapshotHeader, write_snapshot};
use pggan_model::{Discriminator, import};

use crate::{Error, Result, random};

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
/// take as they take a run's folder. The source is a file, or a hub id: `owner/name`, or `owner/name/file` where the
/// repository has several that might be meant.
///
/// # Errors
/// If the file cannot be read, is hostile, or holds a network that ours cannot be; or the folder cannot be written. What
/// was there before stays.
pub fn import(source: &Path, dest: &Path) -> Result<Report> {
    let file = fetch(source)?;
    let bytes = fs::read(&file).map_err(Error::io(&file))?;
    let (snapshot, notes) = if weights::is_ours(&bytes) {
        let snapshot = weights::read_snapshot(&file, DType::F32, &Device::Cpu)?;
        (snapshot, vec!["it is a snapshot of this program already: copied as it is".to_owned()])
    } else {
        convert(&bytes, source)?
    };
    fs::create_dir_all(dest).map_err(Error::io(dest))?;
    let path = dest.join("network-snapshot-000000.safetensors");
    let Snapshot { header, g, d, g_ema } = &snapshot;
    write_snapshot(&path, header, g, d, g_ema)?;
    let (resolution, alpha) = (header.growth().resolution(), header.alpha);
    Ok(Report { snapshot: path, resolution, alpha, notes })
}

fn convert(bytes: &[u8], source: &Path) -> Result<(Snapshot, Vec<String>)> {
    let import::Imported { g, g_ema, d, growth, mut notes } = import::read(bytes)
        .map_err(|reason| Error::Usage(format!("--source {}: {reason}", source.display())))?;
    let d = if let Some(d) = d {
        d
    } else {
        notes.push("it brings no discriminator: a fresh one stands in its place".to_owned());
        let draw = &mut |name: &str, values: &mut [f32]| {
            let purpose = format!("d.{name} of an import");
            random::normal(random::stream(0, &purpose, 0, 0), values);
        };
        Discriminator::new(g.config(), DType::F32, &Device::Cpu, draw)?
    };
    let header = SnapshotHeader {
        format: 1,
        model: g.config().clone(),
        level: growth.level,
        alpha: growth.alpha,
        images_shown: 0,
        dataset: source.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    Ok((Snapshot { header, g, d, g_ema }, notes))
}

/// Files of weights, by what their names end with: the first kind that a repository has is taken.
const KINDS: [&str; 5] = ["model.safetensors", "pytorch_model.bin", ".pkl", ".pth", ".safetensors"];

/// The file itself, brought from the hub if it is there.
fn fetch(source: &Path) -> Result<PathBuf> {
    if source.exists() {
        return Ok(source.to_owned());
    }
    let text = source.to_string_lossy();
    let id: HubId = text.parse().map_err(|()| HubError::NotAnId(text.clone().into_owned()))?;
    let hub = Hub::from_env();
    if let Some(file) = id.file() {
        return Ok(hub.download(&id, file)?);
    }
    let files = hub.files(&id)?;
    let of_kind = |kind: &str| files.iter().filter(|file| file.ends_with(kind)).collect::<Vec<_>>();
    let found = KINDS.iter().map(|kind| of_kind(kind)).find(|found| !found.is_empty());
    match found.as_deref() {
        Some([file]) => Ok(hub.download(&id, file)?),
        Some(several) => Err(Error::Usage(format!(
            "--source {id}: it has several files of weights; name one, as {id}/{}",
            several[0]
        ))),
        None => Err(Error::Usage(format!("--source {id}: no file of weights among its files"))),
    }
}
