//! `merge`: parts to one data set.

use std::path::PathBuf;

use clap::Args;
use pggan_data::merge;

/// Join the parts that `prepare --shard` has made in a folder.
#[derive(Args)]
#[command(after_help = "Example:
  for i in 1 2 3 4; do
      pggan-data prepare --source bedroom_train_lmdb --dest bedroom --resolution 256 --shard $i/4 &
  done; wait
  pggan-data merge bedroom")]
pub(crate) struct Merge {
    /// The --dest of the parts.
    dir: PathBuf,
}

impl Merge {
    pub(crate) fn run(self) -> anyhow::Result<String> {
        let images = merge(&self.dir)?;
        Ok(format!("{}: {images} images of all parts", self.dir.display()))
    }
}
