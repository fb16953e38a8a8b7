//! `export`: a data set in the formats of others.

use std::path::PathBuf;

use clap::Args;
use pggan_data::{ExportOptions, Format, Store, export};

use super::{all_threads, parse_resolution};
use crate::Meter;

/// Write a data set in another format.
///
/// `tfrecord`: a folder with `NAME-r02.tfrecords` and so on, as the paper's code reads them. `zip`, `folder`: PNG
/// files with dataset.json, as stylegan2 and 3 read them. `webdataset`: a folder of tar files.
#[derive(Args)]
#[command(after_help = "Examples:
  pggan-data export datasets/faces-64 --format zip --dest faces-64x64.zip
  pggan-data export datasets/faces-64 --format tfrecord --dest datasets/tf/faces")]
pub(crate) struct Export {
    /// Folder of a prepared data set.
    dir: PathBuf,

    /// Folder or archive to make.
    #[arg(long, value_name = "PATH")]
    dest: PathBuf,

    /// The format.
    #[arg(long, value_enum)]
    format: Format,

    /// Pixels a side; of TFRecords, the most. [default: the data set's]
    #[arg(long, value_name = "R", value_parser = parse_resolution)]
    resolution: Option<u32>,

    /// Threads to encode on. [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<String> {
        let store = Store::open(&self.dir)?;
        let threads = self.threads.map_or_else(all_threads, usize::from);
        let Self { dest, format, resolution, .. } = self;
        let options = ExportOptions { dest, format, resolution, threads };
        let mut meter = Meter::new("writing", "img");
        export(&store, &options, |done| meter.show(done, store.images(), 0))?;
        meter.finish();
        Ok(format!("wrote {} images to {}", store.images(), options.dest.display()))
    }
}
