//! `inspect`: what a data set holds.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use pggan_data::{Store, inspect, statistics};

use super::all_threads;

/// Print what a data set holds.
#[derive(Args)]
#[command(after_help = "Example:
  pggan-data inspect datasets/faces-64 --contact-sheet faces.png")]
pub(crate) struct Inspect {
    /// Folder of a prepared data set.
    dir: PathBuf,

    /// Also the mean and standard deviation of every level, which reads everything.
    #[arg(long)]
    stats: bool,

    /// Also which images look the same (by a difference hash of their 8x8 level).
    #[arg(long)]
    dedup: bool,

    /// Also write up to 64 of its images to this PNG.
    #[arg(long, value_name = "FILE.png")]
    contact_sheet: Option<PathBuf>,
}

impl Inspect {
    pub(crate) fn run(self) -> anyhow::Result<String> {
        let store = Store::open(&self.dir)?;
        let mut text = inspect::table(&store);
        if self.stats {
            text.push_str(&inspect::statistics(&statistics::moments(&store, all_threads())?));
        }
        if self.dedup {
            text.push_str(&inspect::duplicates(&store, &statistics::duplicates(&store)?)?);
        }
        if let Some(path) = self.contact_sheet {
            inspect::contact_sheet(&store, &path)?;
            write!(text, "\n  contact sheet: {}", path.display())?;
        }
        Ok(text)
    }
}
