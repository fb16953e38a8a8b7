//! `verify`: whether a data set is whole.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use pggan_data::{Store, inspect};

use super::all_threads;
use crate::Meter;

/// Check every byte of a data set: all hashes, and every level against the one above.
#[derive(Args)]
pub(crate) struct Verify {
    /// Folder of a prepared data set.
    dir: PathBuf,

    /// Threads to check on. [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Verify {
    pub(crate) fn run(self) -> anyhow::Result<String> {
        let store = Store::open(&self.dir)?;
        let threads = self.threads.map_or_else(all_threads, usize::from);
        let begin = Instant::now();
        let mut meter = Meter::new("checking", "img");
        let done = store.verify(threads, |done| meter.show(done, store.images(), 0))?;
        meter.finish();
        Ok(format!(
            "{}: sound; {} files ({}) have the right BLAKE3 and the levels of all {} images{} agree ({:.1} s)",
            self.dir.display(),
            done.shards,
            inspect::size(done.bytes),
            done.images,
            store.labels().map_or_else(String::new, |l| format!(" with {} labels", l.width())),
            begin.elapsed().as_secs_f64()
        ))
    }
}
