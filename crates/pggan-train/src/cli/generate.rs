//! `generate`: images from a trained network.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pggan_train::device;
use pggan_train::generate::{self, Request, parse_seeds};
use pggan_train::samples::Grid;
use tracing::info;
use tracing_indicatif::span_ext::IndicatifSpanExt as _;

use super::bar;

/// Generate images with a trained network.
///
/// A seed is an image: the same network and seed give the same file, alone or among others.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask generate --network runs/00000-fluent-emoji-32-quick --seeds 0-63 --dest out --grid 8x8
  cargo xtask generate --network network-snapshot-000120.safetensors --seeds 7,12,100-109 --dest out
  cargo xtask generate --network runs/00001-cifar10-32-quick --class 3 --seeds 0-63 --dest frogs
  cargo xtask generate --network runs/00000-faces --latents z.safetensors --dest images.safetensors")]
pub(super) struct GenerateArgs {
    /// A snapshot, a folder that has one (of a run, then its newest), or the id of a network on the Hugging Face hub
    #[arg(long, value_name = "FILE_OR_DIR_OR_ID")]
    network: PathBuf,
    /// Which images, as 0,1,4-6
    #[arg(long, value_name = "LIST", default_value = "0-63")]
    seeds: String,
    /// Class of the images, counted from 0, of a network with classes
    #[arg(long, value_name = "N", conflicts_with = "latents")]
    class: Option<usize>,
    /// Instead of seeds: a safetensors file with latent vectors, `z` [N, latent] (and `labels` [N, classes]); the
    /// images then go to one safetensors file, --dest, as `images` [N, C, R, R], neither rounded nor clipped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "grid"])]
    latents: Option<PathBuf>,
    /// Folder for the images, seed0000.png and so on
    #[arg(long, value_name = "DIR", alias = "outdir")]
    dest: PathBuf,
    /// Also all of them in one picture, grid.png, of so many columns and rows
    #[arg(long, value_name = "WxH")]
    grid: Option<Grid>,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl GenerateArgs {
    pub(super) fn run(self) -> Result<()> {
        super::use_threads(self.threads)?;
        let seeds = parse_seeds(&self.seeds).map_err(|e| anyhow::anyhow!("--seeds {e}"))?;
        let device = device::open(&self.device)?;
        let span = bar("{bar:30} {pos}/{len} images, {per_sec}, {eta} left");
        if let Some(latents) = &self.latents {
            let report = |done, all| {
                span.pb_set_length(all as u64);
                span.pb_set_position(done as u64);
            };
            let (network, dest) = (&self.network, &self.dest);
            let n = generate::generate_from_latents(network, latents, dest, &device, report)?;
            drop(span);
            info!("wrote {n} images to {}", dest.display());
            return Ok(());
        }
        span.pb_set_length(seeds.len() as u64);
        let request = Request {
            network: &self.network,
            seeds: &seeds,
            class: self.class,
            dest: &self.dest,
            grid: self.grid,
        };
        let files =
            generate::generate(&request, &device, |done| span.pb_set_position(done as u64))?;
        drop(span);
        info!("wrote {} files to {}", files.len(), self.dest.display());
        if let Some(last) = files.last() {
            info!("the last one: {}", last.display());
        }
        Ok(())
    }
}
