//! A network for other programs, as files and on the hub.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use pggan_hub::{Hub, HubId, UploadFile};
use pggan_model::export;
use pggan_model::weights::{
    self, PRETRAINED_CONFIG, PRETRAINED_WEIGHTS, Snapshot, SnapshotHeader, write_atomic,
};

use crate::{Error, Result, random, samples};

/// What a network is exported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder of `model.safetensors` and `config.json`, for us and the hub.
    Safetensors,
    /// One file in safetensors with the names and constants of `pytorch_GAN_zoo`.
    Zoo,
    /// The averaged generator as an ONNX model.
    Onnx,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "safetensors" => Ok(Self::Safetensors),
            "zoo" => Ok(Self::Zoo),
            "onnx" => Ok(Self::Onnx),
            _ => Err(format!("{text:?} is no format; choose one of safetensors, zoo, onnx")),
        }
    }
}

/// Writes a network to `dest`: a folder for [`Format::Safetensors`], a file for the others. Returns notes on what is not as it
/// was.
///
/// # Errors
/// If the network cannot be read or written, or cannot be represented in the format. What was at `dest` then stays.
pub fn export(network: &Path, format: Format, dest: &Path) -> Result<Vec<String>> {
    let snapshot = read(network)?;
    let Snapshot { header, g, d, g_ema } = &snapshot;
    let refused = |e: export::ExportError| match e {
        export::ExportError::Tensor(e) => e.into(),
        e => Error::Usage(format!("{}: {e}", network.display())),
    };
    let (bytes, notes) = match format {
        Format::Safetensors => {
            fs::create_dir_all(dest).map_err(Error::io(dest))?;
            weights::write_pretrained(dest, &snapshot)?;
            return Ok(Vec::new());
        }
        Format::Zoo => export::zoo(header, g, d, g_ema).map_err(refused)?,
        Format::Onnx => (export::onnx(g_ema, header.growth()).map_err(refused)?, Vec::new()),
    };
    if let Some(folder) = dest.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    write_atomic(dest, &bytes).map_err(Error::io(dest))?;
    Ok(notes)
}

/// Uploads a network to a repository of the hub: weights, configuration, and a model card with a grid of samples. Returns the
/// commit's address.
///
/// # Errors
/// If the network cannot be read, or the hub refuses.
pub fn push(network: &Path, id: &HubId, private: bool) -> Result<String> {
    let snapshot = read(network)?;
    let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
    weights::write_pretrained(folder.path(), &snapshot)?;
    write_samples(&snapshot, &folder.path().join(SAMPLES))?;
    let card = folder.path().join("README.md");
    write_atomic(&card, card_of(&snapshot.header, id).as_bytes()).map_err(Error::io(&card))?;
    let mut files = Vec::new();
    for name in ["README.md", PRETRAINED_CONFIG, PRETRAINED_WEIGHTS, SAMPLES] {
        let path = folder.path().join(name);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        files.push(UploadFile { path: name.to_owned(), bytes });
    }
    let kimg = snapshot.header.images_shown / 1000;
    let summary = format!("Progressive GAN after {kimg} thousand images");
    Ok(Hub::from_env().upload(id, private, &summary, &files)?)
}

fn read(network: &Path) -> Result<Snapshot> {
    let path = pggan_hub::locate(network)?;
    Ok(weights::read_snapshot(&path, DType::F32, &Device::Cpu)?)
}

const SAMPLES: &str = "samples.png";

/// Columns and rows of the card's picture.
const GRID: usize = 4;

fn write_samples(snapshot: &Snapshot, path: &Path) -> Result<()> {
    let Snapshot { header, g_ema, .. } = snapshot;
    let (model, growth) = (&header.model, header.growth());
    let mut images = Vec::new();
    for seed in 0..(GRID * GRID) as u64 {
        let mut latent = vec![0f32; model.latent_size()];
        random::normal(random::stream(seed, "latent of a seed", 0, 0), &mut latent);
        let latent = Tensor::from_vec(latent, (1, ()), &Device::Cpu)?;
        let labels = (model.label_size > 0).then(|| {
            let mut labels = vec![0f32; model.label_size];
            labels[seed as usize % model.label_size] = 1.0;
            Tensor::from_vec(labels, (1, ()), &Device::Cpu)
        });
        let image = g_ema.generate(&latent, labels.transpose()?.as_ref(), growth)?;
        images.push(samples::to_bytes(&image)?);
    }
    samples::write_grid(path, &images, GRID, model.channels, growth.resolution(), 1)
}

/// The model card: what it is, and how to draw with it.
fn card_of(header: &SnapshotHeader, id: &HubId) -> String {
    let (growth, model) = (header.growth(), &header.model);
    let r = growth.resolution();
    let mut text = String::from(
        "---\nlibrary_name: pggan\npipeline_tag: unconditional-image-generation\ntags:\n- pggan\n- gan\n- safetensors\n---\n\n",
    );
    let _ = writeln!(text, "# {}\n", id.repo());
    let _ = writeln!(
        text,
        "A Progressive GAN ([Karras et al., ICLR 2018](https://arxiv.org/abs/1710.10196)) that makes images of {r}x{r} pixels.\n"
    );
    let _ = writeln!(text, "![Samples, seeds 0 to {}, not picked]({SAMPLES})\n", GRID * GRID - 1);
    let _ = writeln!(text, "| | |\n|---|---|");
    if !header.dataset.is_empty() {
        let _ = writeln!(text, "| data set | {} |", header.dataset);
    }
    let _ = writeln!(text, "| real images shown | {} |", header.images_shown);
    let _ = writeln!(text, "| latent components | {} |", model.latent_size());
    if model.label_size > 0 {
        let _ = writeln!(text, "| classes | {} |", model.label_size);
    }
    if growth.fading() {
        let _ = writeln!(text, "| weight of the newest layers | {} |", growth.alpha);
    }
    let _ = writeln!(text, "| parameters of the generator | {} |\n", model.generator_parameters());
    let _ = writeln!(
        text,
        "```sh\ncargo xtask generate --network {} --seeds 0-63 --dest out --grid 8x8\n```\n",
        id.name()
    );
    let _ = writeln!(
        text,
        "```rust\nuse pggan_hub::FromPretrained as _;\nlet (generator, header) = pggan_model::Generator::from_pretrained(\"{}\")?;\n```\n",
        id.name()
    );
    let _ = writeln!(
        text,
        "`{PRETRAINED_WEIGHTS}` holds the generator (`g.`), its running average (`g_ema.`, which made the samples) and the \
         discriminator (`d.`); `{PRETRAINED_CONFIG}` their shape."
    );
    text
}
