//! `import`: weights of another implementation.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tracing::info;

/// Turn weights of another implementation into a snapshot of ours.
///
/// Reads NVIDIA's pickles (.pkl, of TensorFlow and of Theano), and checkpoints of `pytorch_GAN_zoo`, genforce, mmgeneration and
/// gandissect (.pth in both forms of torch.save, .safetensors). Nothing in the file is executed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask import --source celebaHQ_s6_i80000-6196db68.pth --dest imported/celebahq-256
  cargo xtask import --source karras2018iclr-celebahq-1024x1024.pkl --dest imported/celebahq-1024
  cargo xtask import --source huggan/pggan-celebahq-1024 --dest imported/celebahq-1024
  cargo xtask generate --network imported/celebahq-256 --seeds 0-63 --dest out --grid 8x8")]
pub(super) struct ImportArgs {
    /// The file, or the id of a repository on the Hugging Face hub (OWNER/NAME, OWNER/NAME/FILE)
    #[arg(long, value_name = "FILE_OR_ID")]
    source: PathBuf,
    /// Folder for the snapshot
    #[arg(long, value_name = "DIR")]
    dest: PathBuf,
}

impl ImportArgs {
    pub(super) fn run(self) -> Result<()> {
        super::use_threads(None)?;
        let report = pggan_train::import::import(&self.source, &self.dest)?;
        for note in &report.notes {
            tracing::warn!("{note}");
        }
        let (r, alpha) = (report.resolution, report.alpha);
        info!(
            "imported a network of {r}x{r} pixels, alpha {alpha}, to {}",
            report.snapshot.display()
        );
        info!("look at it: cargo xtask generate --network {} --dest out", self.dest.display());
        Ok(())
    }
}
