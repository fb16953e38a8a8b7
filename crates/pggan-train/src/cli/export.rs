//! `export` and `push-to-hub`: networks for other programs and other people.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pggan_hub::HubId;
use pggan_train::export::{self, Format};
use tracing::info;

/// Write a network for other programs.
///
/// safetensors: a folder of model.safetensors and config.json, which every --network takes. zoo: one file in safetensors with
/// the names and constants of `pytorch_GAN_zoo` (netG., netD., avgG.). onnx: the averaged generator (opset 13; z, and labels
/// if it has classes, to images). What a format has no place for is refused.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask export --network runs/00000-faces --format onnx --dest faces.onnx
  cargo xtask export --network runs/00000-faces --format safetensors --dest faces")]
pub(super) struct ExportArgs {
    /// A snapshot, a folder that has one, or the id of a network on the hub
    #[arg(long, value_name = "FILE_OR_DIR_OR_ID")]
    network: PathBuf,
    /// safetensors, zoo or onnx
    #[arg(long, value_name = "NAME")]
    format: Format,
    /// Folder (safetensors) or file (zoo, onnx) to write
    #[arg(long, value_name = "PATH")]
    dest: PathBuf,
}

impl ExportArgs {
    pub(super) fn run(self) -> Result<()> {
        super::use_threads(None)?;
        for note in export::export(&self.network, self.format, &self.dest)? {
            tracing::warn!("{note}");
        }
        info!("wrote {}", self.dest.display());
        Ok(())
    }
}

/// Upload a network to the Hugging Face hub.
///
/// One commit with the weights, their configuration and a model card with samples. The repository is made if it is not
/// there. Needs `HF_TOKEN`, a token with write access; `HF_ENDPOINT` names another hub.
#[derive(Args)]
#[command(after_help = "\
Examples:
  HF_TOKEN=… cargo xtask push-to-hub --network runs/00000-faces --repo me/faces-64
  cargo xtask generate --network me/faces-64 --seeds 0-63 --dest out")]
pub(super) struct PushArgs {
    /// A snapshot, a folder that has one, or the id of a network on the hub
    #[arg(long, value_name = "FILE_OR_DIR_OR_ID")]
    network: PathBuf,
    /// The repository
    #[arg(long, value_name = "OWNER/NAME", value_parser = repo)]
    repo: HubId,
    /// Make a new repository private
    #[arg(long)]
    private: bool,
}

fn repo(text: &str) -> Result<HubId, String> {
    let id = text.parse::<HubId>().ok().filter(|id| id.file().is_none());
    id.ok_or_else(|| format!("{text:?} is no repository: OWNER/NAME is needed"))
}

impl PushArgs {
    pub(super) fn run(self) -> Result<()> {
        super::use_threads(None)?;
        let commit = export::push(&self.network, &self.repo, self.private)?;
        info!("uploaded: {commit}");
        Ok(())
    }
}
