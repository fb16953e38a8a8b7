//! Weights of feature networks, and statistics of real images, on disk.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use pggan_hub::{Hub, HubId};
use pggan_metrics::evaluate::{Networks, StatisticsCache};
use pggan_metrics::frechet::Statistics;
use pggan_metrics::network::{Kind, Weights};
use pggan_model::import;
use pggan_model::weights::write_atomic;
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// Reads a file of weights: one that [`convert`] wrote, another safetensors file, or what `torch.save` writes.
///
/// # Errors
/// If it cannot be read as weights.
pub fn read(path: &Path) -> Result<Weights> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let sha256 = hex(&Sha256::digest(&bytes));
    let problem = |what: String| Error::Usage(format!("{}: {what}", path.display()));
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return Weights::from_safetensors(&bytes, &sha256).map_err(|e| problem(e.to_string()));
    }
    let tensors = import::state_dict(&bytes).map_err(|e| problem(e.to_string()))?;
    let mut numbers = std::collections::BTreeMap::new();
    for (name, tensor) in tensors {
        // A counter of training steps, which nothing depends on.
        if !name.ends_with(".num_batches_tracked") {
            let values = tensor.flatten_all()?.to_vec1()?;
            numbers.insert(name, (tensor.dims().to_vec(), values));
        }
    }
    Ok(Weights::new(numbers, &sha256))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The network whose published file these weights were read from.
///
/// # Errors
/// With the hash, if they are of no file that is known.
pub fn recognize(path: &Path, weights: &Weights) -> Result<Kind> {
    weights.provenance().kind().ok_or_else(|| {
        let known: Vec<_> = Kind::ALL
            .iter()
            .map(|kind| format!("{} ({}…)", kind.published_as(), &kind.sha256()[..8]))
            .collect();
        Error::Usage(format!(
            "{}: its SHA-256 is {}, which is none of {}; to use it all the same, and have every result say so, give \
             --own-weights NETWORK=FILE",
            path.display(),
            weights.provenance().source_sha256,
            known.join(", ")
        ))
    })
}

/// Adds the network of these weights to those at hand.
///
/// # Errors
/// If they do not make it.
pub fn add(
    networks: &mut Networks,
    kind: Kind,
    path: &Path,
    weights: Weights,
    device: &Device,
) -> Result<()> {
    let network = kind
        .build(weights, device)
        .map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
    networks.insert(kind, network);
    Ok(())
}

/// Turns a published file into a safetensors one that states its origin.
///
/// # Errors
/// If the file is not known or not whole; nothing is written then.
pub fn convert(source: &Path, dest: &Path) -> Result<Kind> {
    let weights = read(source)?;
    let kind = recognize(source, &weights)?;
    add(&mut Networks::new(), kind, source, weights.clone(), &Device::Cpu)?;
    write_atomic(dest, &weights.to_safetensors()).map_err(Error::io(dest))?;
    Ok(kind)
}

/// A file as it was named: a path, or `owner/repository/file` of the Hugging Face hub, which is downloaded unless it is
/// in the cache that its tools share.
///
/// # Errors
/// If it is neither, or the hub does not give it.
pub fn locate(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_owned());
    }
    if let Ok(id) = name.parse::<HubId>()
        && let Some(file) = id.file()
    {
        return Ok(Hub::from_env().download(&id, file)?);
    }
    let what = "no such file, nor one on the hub (OWNER/REPOSITORY/FILE)";
    Err(Error::Usage(format!("{name}: {what}")))
}

/// A folder of statistics by key.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// Where caches belong on this system.
    pub fn usual() -> Option<Self> {
        let base =
            std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let base = base.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
        Some(Self(base.join("pggan").join("statistics")))
    }

    fn path(&self, key: &str) -> PathBuf {
        // A name of bounded length: the key has two hashes.
        self.0.join(format!("{}.safetensors", blake3::hash(key.as_bytes()).to_hex()))
    }
}

impl StatisticsCache for Folder {
    fn get(&self, key: &str) -> Option<Statistics> {
        let path = self.path(key);
        let bytes = fs::read(&path).ok()?;
        let found = Statistics::from_safetensors(&bytes);
        if found.is_none() {
            tracing::warn!("{} is damaged: computing it again", path.display());
        }
        found
    }

    fn put(&self, key: &str, statistics: &Statistics) {
        let path = self.path(key);
        let written = fs::create_dir_all(&self.0)
            .and_then(|()| write_atomic(&path, &statistics.to_safetensors()));
        if let Err(e) = written {
            tracing::warn!("{}: {e}; statistics are not kept", path.display());
        }
    }
}
